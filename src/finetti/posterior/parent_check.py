"""A p-value of the PITs of all groups together, which counts that the parent was estimated from the same groups.

Each PIT is uniform, but their set is more even than independent uniform values would be, for the groups themselves
have given the parent its place and width (as with Lilliefors 1967, J. Am. Stat. Assoc. 62, 399-402). Compared with
plain uniform values the test would hardly ever reject. So the test statistic, the least pointwise tail probability of
any ordered PIT (Säilynoja, Bürkner and Vehtari 2022, Stat. Comput. 32, 32), is compared with what it is for groups
that are exchangeable: with v_j the sampling variance of level j's own coefficient,

    x_j ~ N(mu, tau^2 + v_j),    tau drawn from its posterior,

and from each such set of x the PITs are computed as for the data, mu flat and tau integrated over its prior:

    x_j | x_-j, tau ~ N(m_-j, tau^2 + v_j + 1 / A_-j),
    p(tau | x_-j) proportional to p(tau) p(x | tau) / p(x_j | x_-j, tau).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import betainc, betaincc, betaincinv, ndtr

__all__ = ["N_SETS", "pit_limits", "replicated_levels", "tail_level"]

Floats = npt.NDArray[np.float64]

# sets of groups drawn, and values held at a time
N_SETS, AT_ONCE = 250, 2e6


def tail_level(u: Floats) -> Floats:
    """Two-sided pointwise tail probability of the most extreme order statistic, of each row of u (..., n).

    >>> round(float(tail_level(np.array([0.5]))), 3)
    1.0
    """
    ordered = np.sort(u, axis=-1)
    n = ordered.shape[-1]
    i = np.arange(1, n + 1)
    low, high = betainc(i, n - i + 1, ordered).min(axis=-1), betaincc(i, n - i + 1, ordered).min(axis=-1)
    return np.asarray(np.minimum(2.0 * np.minimum(low, high), 1.0))


def pit_limits(n: int, level: float) -> tuple[Floats, Floats]:
    """Limits of the n ordered PITs, each held with probability 1 - level."""
    i = np.arange(1, n + 1)
    low, high = (betaincinv(i, n - i + 1, p) for p in (0.5 * level, 1.0 - 0.5 * level))
    return np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)


def replicated_levels(
    v: Floats, taus: Floats, grid: Floats, log_prior: Floats, rng: np.random.Generator, n_sets: int = N_SETS
) -> Floats:
    """`tail_level` of the PITs of sets of exchangeable groups.

    Parameters
    ----------
    v : (n,)
        Sampling variances of the groups' own coefficients.
    taus : (n_sets,)
        Parent sds of the sets: draws from the posterior.
    grid, log_prior : (G,)
        Values of tau to integrate over, and the log of their prior masses.
    """
    n = v.size
    x = rng.standard_normal((n_sets, n)) * np.sqrt(taus[:, None] ** 2 + v)
    out = np.empty(n_sets)
    step = int(max(1, AT_ONCE // (n * grid.size)))
    for start in range(0, n_sets, step):
        part = slice(start, start + step)
        out[part] = tail_level(_pits(x[part], v, grid, log_prior))
    return out


def _pits(x: Floats, v: Floats, grid: Floats, log_prior: Floats) -> Floats:
    """PIT of each group given the others, (B, n)."""
    W = 1.0 / (grid[:, None] ** 2 + v)  # (G, n)
    total = W.sum(axis=1)
    m = x @ W.T / total  # (B, G)
    gap = x[:, None] - m[:, :, None]  # (B, G, n)
    square = np.einsum("bgn,gn->bg", gap**2, W)
    log_p = 0.5 * (np.sum(np.log(W), axis=1) - np.log(total)) - 0.5 * square + log_prior
    # leaving j out divides its weight out of the mean: x_j - m_-j = (x_j - m) A / A_-j
    D = 1.0 / W + 1.0 / (total[:, None] - W)
    z = gap * (total[:, None] / (total[:, None] - W) / np.sqrt(D))
    log_w = log_p[:, :, None] + 0.5 * np.log(D) + 0.5 * z**2
    w = np.exp(log_w - log_w.max(axis=1, keepdims=True))
    return np.asarray(np.sum(w * ndtr(z), axis=1) / w.sum(axis=1))
