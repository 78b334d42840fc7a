"""Slow oracles of a screen with groups: every group's pi0 and slab scale on dense grids of rectangles."""

from __future__ import annotations

import numpy as np
import scipy.stats as st
from scipy.special import expit, log_expit, logsumexp

from tests.studies.screen_oracle import integrals


def log_densities(
    x: np.ndarray, se: np.ndarray, tau: np.ndarray, mu: float, kappa: float, slab: str = "normal", df: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Log density of every test if null (n,), and if not, at every slab sd (T, n)."""
    if slab == "normal" and np.isinf(df):
        null = st.norm.logpdf(x, mu * se, kappa * se)
        return null, st.norm.logpdf(x, mu * se, np.sqrt((kappa * se) ** 2 + tau[:, None] ** 2))
    null = st.t.logpdf((x - mu * se) / (kappa * se), df) - np.log(kappa * se)
    alt = [[np.log(integrals(a, s, df, mu, kappa, slab, sd)[0]) for a, s in zip(x, se, strict=True)] for sd in tau]
    return null, np.array(alt)


def group_log_marginal(
    x: np.ndarray, se: np.ndarray, six: tuple[float, ...], points: int = 240, reach: float = 8.0,
    slab: str = "normal", df: float = np.inf, box: tuple[float, float, float, float] | None = None,
) -> tuple[float, float, float]:  # fmt: skip
    """Log of int phi(u) phi(v) p(x | u, v) du dv, and E u^2, E pi0 given x; `box`: u and v between these ends."""
    m_a, s_a, m_t, s_t, mu, kappa = six
    ends = box or (-reach, reach, -reach, reach)
    u, v = np.linspace(*ends[:2], points), np.linspace(*ends[2:], points)
    a, tau = m_a + s_a * u, np.exp(m_t + s_t * v)
    null, alt = log_densities(x, se, tau, mu, kappa, slab, df)
    log = np.zeros((points, points))
    for j in range(points):
        log[:, j] = np.logaddexp(log_expit(a)[:, None] + null, log_expit(-a)[:, None] + alt[j]).sum(axis=1)
    log += -0.5 * u[:, None] ** 2 - 0.5 * v**2 - np.log(2.0 * np.pi)
    total = logsumexp(log)
    w = np.exp(log - total)
    return (
        float(total + np.log((u[1] - u[0]) * (v[1] - v[0]))),
        float(w.sum(axis=1) @ u**2),
        float(w.sum(axis=1) @ expit(a)),
    )


def share_marginals(x: np.ndarray, group: np.ndarray, m: np.ndarray, s: np.ndarray, tau: float) -> np.ndarray:
    """Sum over groups of log int phi(u) p(x_g | m + s u) du, (M, S), of z-values with one slab for all groups."""
    null, alt = (a.reshape(-1) for a in log_densities(x, np.ones(x.size), np.array([tau]), 0.0, 1.0))
    u = np.linspace(-6.5, 6.5, 81)
    a = m[:, None, None] + s[None, :, None] * u
    out = np.zeros((m.size, s.size))
    for g in np.unique(group):
        at = group == g
        log = np.zeros_like(a)
        for l0, l1 in zip(null[at], alt[at], strict=True):
            log += np.logaddexp(log_expit(a) + l0, log_expit(-a) + l1)
        out += logsumexp(log - 0.5 * u**2, axis=2) + np.log((u[1] - u[0]) / np.sqrt(2.0 * np.pi))
    return out
