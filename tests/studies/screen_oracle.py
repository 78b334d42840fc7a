"""Slow oracles of a screen: densities by adaptive quadrature over the effect, hyperparameters on dense grids."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import scipy.stats as st
from scipy.integrate import quad
from scipy.special import expit

from finetti.model.priors import Prior


def slab_density(name: str, sd: float) -> Callable[[np.ndarray], np.ndarray]:
    """Density of an effect that is not null, with standard deviation `sd`."""
    if name == "normal":
        return lambda b: np.exp(-0.5 * (b / sd) ** 2) / (sd * np.sqrt(2.0 * np.pi))
    scale = sd / np.sqrt(2.0)
    if name == "laplace":
        return lambda b: np.exp(-np.abs(b) / scale) / (2.0 * scale)
    return lambda b: 0.375 / scale * (1.0 + (b / scale) ** 2 / 4.0) ** -2.5


def error_density(x: float, se: float, df: float, mu: float, kappa: float) -> Callable[[np.ndarray], np.ndarray]:
    """Density of x given the effect b."""
    scale = kappa * se
    if np.isinf(df):
        return lambda b: np.exp(-0.5 * ((x - mu * se - b) / scale) ** 2) / (scale * np.sqrt(2.0 * np.pi))
    top = float(st.t.pdf(0.0, df)) / scale  # scipy's own density is slow, one number at a time
    return lambda b: top * (1.0 + ((x - mu * se - b) / scale) ** 2 / df) ** (-0.5 * (df + 1.0))


def integrals(
    x: float, se: float, df: float, mu: float, kappa: float, slab: str, sd: float,
    functions: tuple[Callable[[float], float], ...] = (lambda b: 1.0,),
) -> list[float]:  # fmt: skip
    """Integrals of error density x slab density x each function, piece by piece around the two peaks."""
    f, lik = slab_density(slab, sd), error_density(x, se, df, mu, kappa)
    width = min(sd, kappa * se)
    cuts = sorted({p + k * width for p in (0.0, x - mu * se) for k in (-30, -8, -3, -1, 0, 1, 3, 8, 30)})
    edges = [-np.inf, *cuts, np.inf]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of roundoff, where a piece is nothing
        return [
            sum(
                quad(lambda b, g=g: f(b) * lik(b) * g(b), low, high, epsabs=0.0, epsrel=1e-11, limit=200)[0]
                for low, high in pairwise(edges)
            )
            for g in functions
        ]


def node_table(
    x: float, se: float, df: float, node: tuple[float, float, float, float], slab: str
) -> tuple[float, float, float, float, float]:
    """Of one test at one node (pi0, sd, mu, kappa): P(null), E b, E b^2, P(b < 0), P(b > 0)."""
    pi0, sd, mu, kappa = node
    f1, one, two, up = integrals(
        x, se, df, mu, kappa, slab, sd, (lambda b: 1.0, lambda b: b, lambda b: b * b, lambda b: float(b > 0.0))
    )
    null = pi0 * float(error_density(x, se, df, mu, kappa)(np.array(0.0)))
    total = null + (1.0 - pi0) * f1
    share = (1.0 - pi0) / total
    return null / total, share * one, share * two, share * (f1 - up), share * up


def grid_moments(
    x: np.ndarray, se: np.ndarray, priors: dict[str, Prior], axes: dict[str, np.ndarray]
) -> tuple[dict[str, tuple[float, float]], float]:
    """Mean and sd of every free hyperparameter, and log evidence, of a normal slab, on a tensor grid.

    axes : equally spaced points of logit pi0, log slab_sd, null_mean, log null_sd; one point where it is held. The
    rectangle rule is exact to its exponentially small truncation where the density vanishes at both ends.
    """
    names = ("pi0", "slab_sd", "null_mean", "null_sd")
    t, s, m, k = (axes[n] for n in names)
    log_post = np.empty((t.size, s.size, m.size, k.size))
    p = expit(t)
    for b, mean in enumerate(m):
        for c, log_k in enumerate(k):
            scale = np.exp(log_k) * se
            null = st.norm.logpdf(x, mean * se, scale)
            for a, log_s in enumerate(s):
                alt = st.norm.logpdf(x, mean * se, np.sqrt(scale**2 + np.exp(2.0 * log_s)))
                ratio = np.exp(alt - null)
                log_post[:, a, b, c] = null.sum() + np.log(p[:, None] + expit(-t)[:, None] * ratio).sum(axis=1)
    natural = {"pi0": p, "slab_sd": np.exp(s), "null_mean": m, "null_sd": np.exp(k)}
    slopes = {"pi0": p * expit(-t), "slab_sd": np.exp(s), "null_mean": np.ones_like(m), "null_sd": np.exp(k)}
    log_cell = 0.0
    for axis, name in enumerate(names):
        if axes[name].size > 1:
            shape = [1] * 4
            shape[axis] = -1
            log_post += (priors[name].logpdf(natural[name]) + np.log(slopes[name])).reshape(shape)
            log_cell += np.log(axes[name][1] - axes[name][0])
    top = log_post.max()
    w = np.exp(log_post - top)
    evidence = float(top + np.log(w.sum()) + log_cell)
    w /= w.sum()
    out = {}
    for axis, name in enumerate(names):
        marginal = w.sum(axis=tuple(i for i in range(4) if i != axis))
        mean = float(marginal @ natural[name])
        out[name] = (mean, float(np.sqrt(marginal @ (natural[name] - mean) ** 2)))
    return out, evidence
