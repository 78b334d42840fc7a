"""Slow truth for the Gaussian multilevel model: dense matrices of size n x n and nothing clever.

The model, in the notation of docs and issue:

    y = offset + X beta + sum_f Z_f u_f + e,   e ~ N(0, R),   u_f[level] ~ N(0, Sigma_f)
    R = sigma^2 diag(1/w)  |  diag(s^2)  |  diag(s^2 + sigma^2)

Nothing here imports the inference code of finetti, and the inference code is never read to write this: the two meet
only in tests. `dense_log_marginal(..., digits=50)` repeats the computation in arbitrary precision, for problems where
double precision itself is the question.

Coordinates of the population coefficients. A prior named ``Intercept`` speaks of the predictor at the column means,
alpha = beta[Intercept] + sum_k mean(x_k) beta_k. With X's other columns centred, alpha is the coefficient of the
constant column, the map between the two has determinant 1, and every prior is independent again.
"""

from __future__ import annotations

import dataclasses
import decimal
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import scipy.special
import scipy.stats

LOG_2PI = math.log(2.0 * math.pi)
PI = "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899"
GAUSSIAN_KINDS = ("normal", "flat", "fixed")  # the other priors of a coefficient are conditioned on


# ---------------------------------------------------------------------------------------------------------- priors
@dataclass(frozen=True)
class Dist:
    """A prior by name and arguments, its density from scipy.stats: ``Dist("half_t", (3.0, 20.0))``."""

    name: str
    args: tuple[float, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{a:.17g}' for a in self.args)})"

    @property
    def proper(self) -> bool:
        return self.name != "flat" and not (self.name == "uniform" and not np.isfinite(self.args[1] - self.args[0]))

    def logpdf(self, x: float) -> float:
        """Natural log density of the parameter itself (inverse_gamma: of the variance). Improper priors: 0 inside."""
        a, st = self.args, scipy.stats
        if self.name == "flat":
            return 0.0
        if self.name == "fixed":
            return 0.0 if x == a[0] else -np.inf
        if self.name == "uniform":
            return (0.0 if not self.proper else -math.log(a[1] - a[0])) if a[0] <= x <= a[1] else -np.inf
        frozen = {
            "normal": lambda: st.norm(a[0], a[1]),
            "student_t": lambda: st.t(a[0], a[1], a[2]),
            "half_normal": lambda: st.halfnorm(0, a[0]),
            "half_cauchy": lambda: st.halfcauchy(0, a[0]),
            "half_t": lambda: _HalfT(*a),
            "exponential": lambda: st.expon(0, 1.0 / a[0]),
            "gamma": lambda: st.gamma(a[0], scale=1.0 / a[1]),
            "inverse_gamma": lambda: st.invgamma(a[0], scale=a[1]),
            "beta": lambda: st.beta(a[0], a[1]),
        }[self.name]()
        return float(frozen.logpdf(x))

    def sd_logpdf(self, sd: float) -> float:
        """Log density of a standard deviation under this prior (the variance priors get their Jacobian 2 sd)."""
        if self.name == "inverse_gamma":
            return self.logpdf(sd * sd) + math.log(2.0 * sd)
        return self.logpdf(sd)


@dataclass(frozen=True)
class _HalfT:
    df: float
    scale: float

    def logpdf(self, x: float) -> float:
        return math.log(2.0) + float(scipy.stats.t(self.df, 0, self.scale).logpdf(x)) if x >= 0 else -np.inf


def dist(prior: Any) -> Dist:
    """A `Dist` from itself, from text such as ``"half_t(3, 20)"``, or from a prior of finetti (a dataclass)."""
    if isinstance(prior, Dist):
        return prior
    if isinstance(prior, str):
        name, inside = re.fullmatch(r"\s*(\w+)\((.*)\)\s*", prior).groups()  # type: ignore[union-attr]
        args = tuple(float(part) for part in inside.split(",") if part.strip())
    else:
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(prior).__name__).lower()
        args = tuple(float(getattr(prior, f.name)) for f in dataclasses.fields(prior) if f.init)
    return Dist(name, (0.0, math.inf) if name == "uniform" and not args else args)


def lkj_logpdf(corr: np.ndarray, eta: float) -> float:
    """Log density of a correlation matrix, normalised (Lewandowski, Kurowicka and Joe 2009, equation 16)."""
    d = len(corr)
    log_c = 0.0
    for k in range(1, d):
        a = eta + (d - k - 1) / 2.0
        log_c += (2.0 * eta - 2.0 + d - k) * (d - k) * math.log(2.0) + (d - k) * float(scipy.special.betaln(a, a))
    sign, logdet = np.linalg.slogdet(corr)
    return (eta - 1.0) * logdet - log_c if sign > 0 else -np.inf


# --------------------------------------------------------------------------------------------------------- problems
@dataclass(frozen=True)
class OracleFactor:
    """One grouping factor. `kind` is its pooling; ``empirical`` counts as ``partial`` given the hyperparameters."""

    name: str
    levels: tuple[str, ...]
    index: np.ndarray  # (n,) level of each row
    coefficients: tuple[str, ...]
    Z: np.ndarray  # (n, q) raw columns
    blocks: tuple[tuple[int, ...], ...]  # coefficients that are correlated with each other
    kind: str = "partial"

    @property
    def varying(self) -> bool:
        return self.kind in ("partial", "empirical")

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(f"u_{self.name}[{level}, {c}]" for level in self.levels for c in self.coefficients)

    def dense(self) -> np.ndarray:
        """(n, J q), columns level by level."""
        n, q = self.Z.shape
        out = np.zeros((n, len(self.levels), q))
        out[np.arange(n), self.index] = self.Z
        return out.reshape(n, -1)

    def cor_label(self, i: int, j: int) -> str:
        i, j = sorted((i, j))
        return f"cor_{self.name}[{self.coefficients[i]}, {self.coefficients[j]}]"

    def corr(self, hyper: Mapping[str, float]) -> np.ndarray:
        q = len(self.coefficients)
        out = np.eye(q)
        for block in self.blocks:
            for i in block:
                for j in block:
                    if i != j:
                        out[i, j] = hyper[self.cor_label(i, j)]
        return out

    def covariance(self, hyper: Mapping[str, float]) -> np.ndarray:
        sds = np.array([hyper[f"sd_{self.name}[{c}]"] for c in self.coefficients])
        return self.corr(hyper) * np.outer(sds, sds)


@dataclass(frozen=True)
class Problem:
    """Raw arrays of one model. `beta`: the prior of each column of X, the first one being of alpha if `centred`."""

    y: np.ndarray
    X: np.ndarray  # (n, p) raw columns
    columns: tuple[str, ...]
    beta: tuple[Dist, ...]
    factors: tuple[OracleFactor, ...] = ()
    offset: np.ndarray | None = None
    se: np.ndarray | None = None
    se_sigma: bool = False
    weights: np.ndarray | None = None
    centred: bool = False  # True: the first prior is the one named `Intercept`

    @property
    def has_sigma(self) -> bool:
        return self.se is None or self.se_sigma

    @property
    def beta_keys(self) -> tuple[str, ...]:
        keys = [f"beta[{c}]" for c in self.columns]
        if self.centred:
            keys[0] = "Intercept"
        return tuple(keys)

    def kept(self) -> np.ndarray:
        """Columns of X outside the span of the unpenalised terms: the population coefficients that mean something."""
        spans = [f.dense() for f in self.factors if f.kind == "none"]
        if not spans:
            return np.arange(len(self.columns))
        basis = scipy.linalg.orth(np.hstack(spans))
        residual = self.X - basis @ (basis.T @ self.X)
        return np.flatnonzero(np.linalg.norm(residual, axis=0) > 1e-9 * np.linalg.norm(self.X, axis=0))

    def hyper_labels(self) -> tuple[str, ...]:
        """Everything `hyper` must hold: sds, correlations, sigma, and the coefficients that are conditioned on."""
        out = []
        for f in self.factors:
            if f.varying:
                out += [f"sd_{f.name}[{c}]" for c in f.coefficients]
                out += [f.cor_label(i, j) for b in f.blocks for i in b for j in b if i < j]
        out += ["sigma"] if self.has_sigma else []
        return tuple(out) + tuple(self.beta_keys[k] for k in self.kept() if self.beta[k].name not in GAUSSIAN_KINDS)

    def error_variance(self, hyper: Mapping[str, float]) -> np.ndarray:
        if self.se is None:
            w = np.ones(len(self.y)) if self.weights is None else self.weights
            return hyper["sigma"] ** 2 / w
        return self.se**2 + (hyper["sigma"] ** 2 if self.se_sigma else 0.0)


def from_design(design: Any, priors: Mapping[str, Any], pooling: str | Mapping[str, str] = "partial") -> Problem:
    """A `Problem` from a `finetti.data.design.Design`, resolved priors (as in `Bound.priors`) and pooling."""
    kind = (lambda name: pooling) if isinstance(pooling, str) else (lambda name: pooling.get(name, "partial"))
    centred = "Intercept" in priors
    keys = ["Intercept" if centred and c == "Intercept" else f"beta[{c}]" for c in design.columns]
    factors = tuple(
        OracleFactor(f.name, tuple(f.levels), f.index, tuple(f.coefficients), f.Z, f.blocks, kind(f.name))
        for f in design.factors
    )
    # a column in the span of an unpenalised term may have no resolved prior: it is dropped in any case
    beta = tuple(dist(priors[k]) if k in priors else Dist("flat") for k in keys)
    return Problem(
        design.y, design.X, tuple(design.columns), beta, factors, design.offset, design.se, design.se_sigma,
        design.weights, centred,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------- the linear algebra
def population(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns in the coordinates of the priors, the map back to raw coefficients, and which columns of X are kept."""
    kept = problem.kept()
    X = problem.X[:, kept].copy()
    back = np.eye(len(kept))
    if problem.centred and len(kept) and kept[0] == 0:
        means = X[:, 1:].mean(axis=0)
        X[:, 1:] -= means
        back[0, 1:] = -means
    return X, back, kept


def _given(problem: Problem, hyper: Mapping[str, float], k: int) -> float:
    prior = problem.beta[k]
    return prior.args[0] if prior.name == "fixed" else hyper[problem.beta_keys[k]]


def _assemble(problem: Problem, hyper: Mapping[str, float], number: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y minus its known mean, its covariance V (n, n) without the flat directions, and these directions F (n, f)."""

    def lift(a: Any) -> np.ndarray:
        return np.asarray(a, float) if number is float else np.vectorize(number, otypes=[object])(np.asarray(a, float))

    X, _, kept = population(problem)
    X = lift(X) if X.size else X
    r = lift(problem.y) - (0 if problem.offset is None else lift(problem.offset))
    hyper = {k: number(v) for k, v in hyper.items()}
    if problem.se is None:
        w = np.ones(len(r)) if problem.weights is None else problem.weights
        V = np.diag(hyper["sigma"] ** 2 / lift(w))
    else:
        V = np.diag(lift(problem.se) ** 2 + (hyper["sigma"] ** 2 if problem.se_sigma else 0))
    flat = []
    for column, k in enumerate(kept):
        x, prior = X[:, column], problem.beta[k]
        if prior.name == "flat":
            flat.append(x[:, None])
        elif prior.name == "normal":
            r = r - x * number(prior.args[0])
            V = V + np.outer(x, x) * number(prior.args[1]) ** 2
        else:
            r = r - x * number(_given(problem, hyper, k))
    for f in problem.factors:
        if f.varying:
            same_level = f.index[:, None] == f.index[None, :]
            Z, q = lift(f.Z), len(f.coefficients)
            sds = [hyper[f"sd_{f.name}[{c}]"] for c in f.coefficients]
            block_of = {i: b for b in f.blocks for i in b}
            for i in range(q):
                for j in range(q):
                    if i == j or j in block_of[i]:
                        cor = number(1) if i == j else hyper[f.cor_label(i, j)]
                        V = V + same_level * np.outer(Z[:, i], Z[:, j]) * (sds[i] * sds[j] * cor)
        elif f.kind == "none":
            flat.append(lift(f.dense()))
    F = np.hstack(flat) if flat else np.zeros((len(r), 0))
    return r, V, F


def _decimal_cholesky(A: np.ndarray) -> np.ndarray:
    L = A - A
    for j in range(len(A)):
        L[j, j] = (A[j, j] - L[j, :j] @ L[j, :j]).sqrt() if j else A[0, 0].sqrt()
        for i in range(j + 1, len(A)):
            L[i, j] = (A[i, j] - (L[i, :j] @ L[j, :j] if j else 0)) / L[j, j]
    return L


def _decimal_forward(L: np.ndarray, B: np.ndarray) -> np.ndarray:
    X = B.copy()
    for i in range(len(L)):
        X[i] = (B[i] - (L[i, :i] @ X[:i] if i else 0)) / L[i, i]
    return X


def _float_forward(L: np.ndarray, B: np.ndarray) -> np.ndarray:
    return scipy.linalg.solve_triangular(L, B, lower=True)


def _log_density(r: Any, V: Any, F: Any, cholesky: Any, forward: Any, log: Any, log_2pi: Any) -> Any:
    """log of the integral over b of N(r; F b, V) db, b flat with density 1 in its own units."""
    n, f = F.shape
    L = cholesky(V)
    e = forward(L, r[:, None])[:, 0]
    total = n * log_2pi + 2 * sum(log(d) for d in np.diag(L)) + e @ e
    if f:
        A = forward(L, F)
        M = cholesky(A.T @ A)
        t = forward(M, (A.T @ e)[:, None])[:, 0]
        total = total - f * log_2pi + 2 * sum(log(d) for d in np.diag(M)) - t @ t
    return -total / 2


def dense_log_marginal(problem: Problem, hyper: Mapping[str, float], digits: int | None = None) -> float:
    """log p(y | theta), every constant included; flat directions have density 1 (X flat: -REML criterion / 2).

    With F the flat directions, A = F'V^-1 F and r = y - known mean,
    -2 log p = (n - f) log 2 pi + log|V| + log|A| + r'V^-1 r - r'V^-1 F A^-1 F'V^-1 r.
    `digits` computes in that many decimal digits instead of double precision (about 0.1 s at n = 40).
    """
    if digits is None:
        parts = _assemble(problem, hyper, float)
        return float(_log_density(*parts, np.linalg.cholesky, _float_forward, math.log, LOG_2PI))
    with decimal.localcontext() as context:
        context.prec = digits
        parts = _assemble(problem, hyper, decimal.Decimal)
        log_2pi = (2 * decimal.Decimal(PI)).ln()
        return float(_log_density(*parts, _decimal_cholesky, _decimal_forward, decimal.Decimal.ln, log_2pi))


@dataclass(frozen=True)
class Conditional:
    """Mean and covariance of (beta, all u) given y and the hyperparameters, in the order of `labels`."""

    labels: tuple[str, ...]
    mean: np.ndarray
    cov: np.ndarray

    def __getitem__(self, label: str) -> tuple[float, float]:
        """Mean and standard deviation of one coefficient."""
        i = self.labels.index(label)
        return float(self.mean[i]), math.sqrt(max(self.cov[i, i], 0.0))

    def block(self, labels: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of some coefficients, in the order asked."""
        at = [self.labels.index(label) for label in labels]
        return self.mean[at], self.cov[np.ix_(at, at)]


def coefficient_design(problem: Problem) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """All columns in the coordinates of the priors (n, m), labels of all coefficients, map back (m, m).

    Columns of X in the span of an unpenalised term are left out; those of a completely pooled term stay, with u = 0.
    """
    X, back, kept = population(problem)
    W = np.hstack([X, *[f.dense() for f in problem.factors]])
    labels = tuple(f"beta[{problem.columns[k]}]" for k in kept) + tuple(x for f in problem.factors for x in f.labels)
    return W, labels, scipy.linalg.block_diag(back, np.eye(W.shape[1] - len(kept)))


def coefficient_prior(problem: Problem, hyper: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prior mean (m,), covariance (m, m) and flat directions (m,) bool, matching `coefficient_design`."""
    kept = problem.kept()
    mean, blocks, flat = [], [], []
    for k in kept:
        prior = problem.beta[k]
        normal = prior.name == "normal"
        mean.append(prior.args[0] if normal else 0.0 if prior.name == "flat" else _given(problem, hyper, k))
        blocks.append(np.array([[prior.args[1] ** 2 if normal else 0.0]]))
        flat.append(prior.name == "flat")
    for f in problem.factors:
        q = len(f.coefficients)
        blocks += [f.covariance(hyper) if f.varying else np.zeros((q, q))] * len(f.levels)
        mean += [0.0] * (q * len(f.levels))
        flat += [f.kind == "none"] * (q * len(f.levels))
    return np.array(mean), scipy.linalg.block_diag(*blocks), np.array(flat)


def dense_conditional(problem: Problem, hyper: Mapping[str, float]) -> Conditional:
    """Conditional normal by the covariance form, valid also for singular priors (sd 0, correlation 1).

    b | y ~ N(m + K V^-1 (r - F f), C - K V^-1 K' + (K V^-1 F) A (K V^-1 F)'), where K = C W', A = (F'V^-1 F)^-1,
    and f = A F'V^-1 r are the flat coefficients, whose covariance with b is -A F'V^-1 K'.
    """
    W, labels, back = coefficient_design(problem)
    m, C, flat = coefficient_prior(problem, hyper)
    V = np.diag(problem.error_variance(hyper)) + W @ C @ W.T
    r = problem.y - (0.0 if problem.offset is None else problem.offset) - W @ m
    factor = scipy.linalg.cho_factor(V, lower=True)
    F, K = W[:, flat], C @ W.T
    VF, Vr, VK = (scipy.linalg.cho_solve(factor, B) for B in (F, r, K.T))
    mean, cov = m + K @ Vr, C - K @ VK
    if flat.any():
        A = scipy.linalg.inv(F.T @ VF)
        f = A @ (F.T @ Vr)
        KF = K @ VF
        mean = mean - KF @ f
        cov = cov + KF @ A @ KF.T
        mean[flat] = f
        cov[flat] = -A @ KF.T
        cov[:, flat] = -KF @ A
        cov[np.ix_(flat, flat)] = A
    return Conditional(labels, back @ mean, back @ cov @ back.T)


def log_prior_hyper(problem: Problem, hyper: Mapping[str, float], priors: Mapping[str, Any]) -> float:
    """Log hyperprior density in natural parameters: each sd, each block's correlation matrix, sigma, given beta."""
    total = 0.0
    for f in problem.factors:
        if f.kind != "partial":  # empirical: hyperpriors are ignored
            continue
        for c in f.coefficients:
            total += dist(priors[f"sd_{f.name}[{c}]"]).sd_logpdf(hyper[f"sd_{f.name}[{c}]"])
        for block in f.blocks:
            if len(block) > 1:
                prior = dist(priors[f"cor_{f.name}"])
                if prior.name == "lkj":
                    total += lkj_logpdf(f.corr(hyper)[np.ix_(block, block)], prior.args[0])
    if problem.has_sigma:
        total += dist(priors["sigma"]).sd_logpdf(hyper["sigma"])
    for k in problem.kept():
        if problem.beta[k].name not in GAUSSIAN_KINDS:
            total += problem.beta[k].logpdf(hyper[problem.beta_keys[k]])
    return total


def log_posterior_hyper(problem: Problem, hyper: Mapping[str, float], priors: Mapping[str, Any]) -> float:
    """log p(y | theta) + log p(theta), theta in natural parameters (no Jacobian of any transformation)."""
    return dense_log_marginal(problem, hyper) + log_prior_hyper(problem, hyper, priors)
