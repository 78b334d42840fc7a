"""Moments and quantiles of mixtures of normals over hyperparameter nodes."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from finetti.linalg.jit import kernel
from finetti.linalg.system import over_chunks

__all__ = ["mixture_moments", "mixture_quantiles"]

Floats = npt.NDArray[np.float64]


def mixture_moments(weights: Floats, mean: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """Mean and sd over nodes: law of total variance. weights (S,), the rest (S, ...)."""
    centre = np.tensordot(weights, mean, axes=1)
    total = np.tensordot(weights, variance + (mean - centre) ** 2, axes=1)
    return centre, np.sqrt(np.maximum(total, 0.0))


@kernel()
def _quantiles(weights, mean, sd, probs, normal, out):  # type: ignore[no-untyped-def]
    """out[i, k]: the probs[k] quantile of sum_s w_s N(mean[i, s], sd[i, s]^2); `normal` that of N(0, 1).

    Newton steps kept inside a bracket: with nodes near a variance of zero the mixture has
    nearly a jump, where Newton alone fails.
    """
    n, S = mean.shape
    for i in range(n):
        low, high = np.inf, -np.inf
        centre, second = 0.0, 0.0
        for s in range(S):
            if weights[s] > 0.0:
                low = min(low, mean[i, s] - 12.0 * sd[i, s])
                high = max(high, mean[i, s] + 12.0 * sd[i, s])
                centre += weights[s] * mean[i, s]
        for s in range(S):
            if weights[s] > 0.0:
                second += weights[s] * (sd[i, s] ** 2 + (mean[i, s] - centre) ** 2)
        spread = math.sqrt(max(second, 0.0))
        for k in range(probs.shape[0]):
            if not (spread > 0.0 and spread < np.inf):
                out[i, k] = centre
                continue
            a, b = low, high
            x = min(max(centre + normal[k] * spread, a), b)
            for _ in range(200):
                cdf, pdf = 0.0, 0.0
                for s in range(S):
                    if weights[s] <= 0.0:
                        continue
                    if sd[i, s] > 0.0:
                        z = (x - mean[i, s]) / sd[i, s]
                        cdf += weights[s] * 0.5 * math.erfc(-z * 0.7071067811865476)
                        pdf += weights[s] * math.exp(-0.5 * z * z) * 0.3989422804014327 / sd[i, s]
                    elif x >= mean[i, s]:
                        cdf += weights[s]
                if cdf < probs[k]:
                    a = x
                else:
                    b = x
                step = (probs[k] - cdf) / pdf if pdf > 0.0 else 0.0
                new = x + step
                if not (pdf > 0.0 and new > a and new < b):
                    new = 0.5 * (a + b)
                # a Newton step this small leaves its square, but beside a near-jump only if the probability is met too
                near = 1e-4 * min(probs[k], 1.0 - probs[k])
                last = 1e-5 if new == x + step and abs(probs[k] - cdf) < near else 1e-9
                done = abs(new - x) < last * spread or b - a < 1e-10 * spread
                x = new
                if done:
                    break
            out[i, k] = x


def mixture_quantiles(weights: Floats, mean: Floats, variance: Floats, probs: npt.ArrayLike) -> Floats:
    """Quantiles of every mixture: weights (S,), mean and variance (S, ...), result (..., P). NaN stays NaN."""
    p = np.atleast_1d(np.asarray(probs, dtype=float))
    shape = mean.shape[1:]
    m = np.ascontiguousarray(mean.reshape(mean.shape[0], -1).T)
    s = np.ascontiguousarray(np.sqrt(np.maximum(variance, 0.0)).reshape(mean.shape[0], -1).T)
    out = np.full((m.shape[0], p.size), np.nan)
    good = np.flatnonzero(np.all(np.isfinite(m), axis=1) & np.all(np.isfinite(s), axis=1))
    m, s, found = m[good], s[good], np.empty((good.size, p.size))
    keep = weights > 1e-12  # their total is below any error that is reported
    w = np.ascontiguousarray(weights[keep] / weights[keep].sum())
    m, s = np.ascontiguousarray(m[:, keep]), np.ascontiguousarray(s[:, keep])
    normal = ndtri(p)  # where the search starts
    over_chunks(lambda part: _quantiles(w, m[part], s[part], p, normal, found[part]), good.size, grain=8)
    out[good] = found
    return out.reshape(*shape, p.size)
