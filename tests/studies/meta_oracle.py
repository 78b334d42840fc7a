"""A meta-analysis by dense algebra on a quadrature over the heterogeneity sds; shares no code with finetti.

y ~ Normal(X beta, Sigma), Sigma = V + sum_t tau_t^2 Z_t Z_t', beta flat or Normal. At every tau the posterior of beta
is normal, and so is that of any linear function of beta and the true effects; over tau it is a mixture. Every tau is
s sinh(z), Gauss-Legendre in z from 0 to where nothing is left.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

Array = np.ndarray


@dataclass
class Oracle:
    """Nodes tau (S, T) with weights (S,), and the moments at them of linear functions of (beta, true effects)."""

    tau: Array
    weights: Array
    axis: Array  # the Gauss-Legendre nodes on [-1, 1] behind every tau
    places: Array  # (S, T) which of them
    to_tau: Callable[[float], float]
    mean: dict[str, Array]
    var: dict[str, Array]

    def of_tau(self, f: Callable[[Array], Array]) -> tuple[float, float]:
        """Mean and sd of a function of tau."""
        value = f(self.tau)
        mean = float(self.weights @ value)
        return mean, float(np.sqrt(self.weights @ (value - mean) ** 2))

    def tau_quantile(self, t: int, p: float) -> float:
        """Through the Legendre series of the marginal density, whose integral is exact."""
        n = self.axis.size
        marginal = np.bincount(self.places[:, t], self.weights, minlength=n)
        P = np.polynomial.legendre.legvander(self.axis, n - 1)
        series = (np.arange(n) + 0.5) * (marginal @ P)
        cdf = np.polynomial.legendre.Legendre(series).integ(lbnd=-1.0)
        return self.to_tau(float(brentq(lambda x: cdf(x) - p, -1.0, 1.0)))

    def moments(self, name: str) -> tuple[float, float]:
        m, v = self.mean[name], self.var[name]
        mean = float(self.weights @ m)
        return mean, float(np.sqrt(self.weights @ (v + (m - mean) ** 2)))

    def quantile(self, name: str, p: float) -> float:
        m, s = self.mean[name], np.sqrt(self.var[name])
        low, high = float((m - 12 * s).min()), float((m + 12 * s).max())
        return float(brentq(lambda x: self.weights @ ndtr((x - m) / s) - p, low, high))


def oracle(
    y: Array,
    V: Array,
    X: Array,
    log_priors: Sequence[Callable[[Array], Array]],
    *,
    clusters: Sequence[Array | None] = (None,),
    beta: tuple[Array, Array] | None = None,
    row: Array | None = None,
    scale: float = 1.0,
    nodes: int = 400,
    far: float = 12.0,
) -> Oracle:
    """One tau per entry of `clusters`: the level of each row, or None for a level per row; row: where `overall` is."""
    k, p = X.shape
    row = X.mean(axis=0) if row is None else row
    Z = [np.eye(k) if c is None else (c[:, None] == np.unique(c)).astype(float) for c in clusters]
    x, w = np.polynomial.legendre.leggauss(nodes)
    z, w = far * (x + 1) / 2, far * w / 2
    axis, log_w = scale * np.sinh(z), np.log(w * scale * np.cosh(z))
    taus, logs = [], []
    mean: dict[str, list[float]] = {}
    var: dict[str, list[float]] = {}
    P0 = np.zeros((p, p)) if beta is None else np.diag(beta[1] ** -2.0)
    m0 = np.zeros(p) if beta is None else beta[0]
    for at in itertools.product(range(nodes), repeat=len(Z)):
        tau = axis[list(at)]
        T = sum(t**2 * z @ z.T for t, z in zip(tau, Z, strict=True))
        Sigma = V + T
        L = np.linalg.cholesky(Sigma)
        A = np.linalg.solve(L, np.column_stack([X, y]))
        H = A[:, :p].T @ A[:, :p] + P0
        C = np.linalg.inv(H)
        b = C @ (A[:, :p].T @ A[:, p] + P0 @ m0)
        quadratic = A[:, p] @ A[:, p] + m0 @ P0 @ m0 - b @ H @ b
        log_ml = -np.log(np.diag(L)).sum() - 0.5 * np.linalg.slogdet(H)[1] - 0.5 * quadratic
        prior = sum(float(f(t)) for f, t in zip(log_priors, tau, strict=True))
        taus.append(tau)
        logs.append(log_ml + prior + sum(log_w[i] for i in at))
        # true effects: X beta + G (y - X beta), G = T Sigma^-1
        G = np.linalg.solve(Sigma, T).T
        W = (np.eye(k) - G) @ X
        effect, effect_var = G @ y + W @ b, np.diag(T - G @ T + W @ C @ W.T)
        found = {"overall": (row @ b, row @ C @ row)}
        found["new study"] = (row @ b, row @ C @ row + float(np.sum(tau**2)))
        found |= {f"study {i}": (effect[i], effect_var[i]) for i in range(k)}
        found |= {f"beta {j}": (b[j], C[j, j]) for j in range(p)}
        for name, (m, v) in found.items():
            mean.setdefault(name, []).append(float(m))
            var.setdefault(name, []).append(float(v))
    log = np.array(logs)
    weights = np.exp(log - log.max())
    return Oracle(
        np.array(taus),
        weights / weights.sum(),
        x,
        np.array(list(itertools.product(range(nodes), repeat=len(Z)))),
        lambda at: float(scale * np.sinh(far * (at + 1) / 2)),
        {n: np.array(m) for n, m in mean.items()},
        {n: np.array(v) for n, v in var.items()},
    )
