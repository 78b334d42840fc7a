"""Densities for figures: Gaussian kernels on an even grid, by binning and one convolution.

Nothing is spilled beyond the end of a parameter's range. Where the density is positive at the ends, kernels are
reflected there: the density of a standard deviation is smooth and even around 0 if its prior is. Where it vanishes
at the ends, or has a pole, it is smoothed as one of t = log(x - low), or log((x - low) / (high - x)), which has no
ends, and carried back: p(x) = p(t) dt/dx. What the kernel flattens is put back by the multiplicative
correction of Jones, Linton and Nielsen (1995, Biometrika 82, 327-338), p(t) sum_i w_i K_h(t - t_i) / p(t_i).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["bounded_density", "effective_size", "kernel_density", "silverman"]

Floats = npt.NDArray[np.float64]

BINS = 2048
WIDER = 2.0  # the correction leaves a bias of order h^4, so that a wider kernel than Silverman's is the better one


def effective_size(weights: Floats) -> float:
    """Number of equal weights that vary as much: (sum w)^2 / sum w^2.

    >>> effective_size(np.ones(8))
    8.0
    """
    return float(np.sum(weights) ** 2 / np.sum(weights**2))


def bounded_density(
    x: Floats, weights: Floats, at: Floats, low: float = 0.0, high: float = np.inf, *, reflect: bool = True
) -> Floats:
    """Density of weighted points between `low` and `high`, at the points `at`.

    Parameters
    ----------
    x, weights : ndarray of shape (S,)
        Points, and their weights (any sum; a few may be negative, as those of a control variate are).
    at : ndarray of shape (G,)
        Where.
    low, high : float
        The parameter's range, `low` finite.
    reflect : bool
        Whether the density is finite and positive at the ends; else it is smoothed without them, and at an end
        itself the value is the one a thousandth of the drawn range away.

    Returns
    -------
    ndarray of shape (G,)

    Examples
    --------
    >>> x = np.abs(np.random.default_rng(0).normal(size=20_000))
    >>> bounded_density(x, np.ones(20_000), np.array([0.0, 1.0])).round(1)
    array([0.8, 0.5])
    """
    keep = (weights != 0) & (x > low) & (x < high)
    x, w = x[keep], weights[keep] / np.sum(weights)
    if reflect:
        images = [x, 2 * low - x] + ([2 * high - x] if np.isfinite(high) else [])
        # The image beyond an end that is far away changes nothing, and must not widen the kernel.
        near = float(np.sum(w[x < low + 0.5 * (_spread(x, w))])) > 1e-3
        h = silverman(np.concatenate(images[:2]), np.tile(w, 2)) if near else silverman(x, w)
        h = WIDER * min(h, silverman(x, w) * 2.0)
        ends = float(at.min()) - 6 * h, float(at.max()) + 6 * h
        return _corrected(np.concatenate(images), np.tile(w, len(images)), h, at, ends)

    def unbounded(v: Floats) -> Floats:
        t = np.log(v - low)
        return t if np.isinf(high) else t - np.log(high - v)

    edge = 1e-3 * float(at.max() - at.min())
    inner = np.clip(at, low + edge, high - edge if np.isfinite(high) else None)
    slope = 1.0 / (inner - low) + (0.0 if np.isinf(high) else 1.0 / (high - inner))
    t = unbounded(x)
    h = WIDER * silverman(t, w)
    return _corrected(t, w, h, unbounded(inner), (float(t.min()) - 5 * h, float(t.max()) + 5 * h)) * slope


def _spread(x: Floats, w: Floats) -> float:
    mean = float(w @ x)
    return float(np.sqrt(w @ (x - mean) ** 2))


def _corrected(x: Floats, w: Floats, h: float, at: Floats, ends: tuple[float, float]) -> Floats:
    """Kernel density at `at`, what it flattens put back."""
    grid = np.linspace(*ends, BINS)
    pilot = np.maximum(kernel_density(x, grid, h, w), 0.0)
    at_points = np.interp(x, grid, pilot)
    lifted = np.where((x >= ends[0]) & (x <= ends[1]), w / np.maximum(at_points, 1e-9 * pilot.max()), 0.0)
    density = pilot * np.maximum(kernel_density(x, grid, h, lifted), 0.0)
    return np.interp(at, grid, density, left=0.0, right=0.0)


def silverman(x: Floats, weights: Floats | None = None) -> float:
    """Silverman's bandwidth 0.9 min(sd, IQR / 1.34) n^(-1/5), in units of x; never 0.

    >>> round(silverman(np.arange(100.0)), 2)
    10.34
    """
    w = np.full(x.size, 1.0 / x.size) if weights is None else weights / weights.sum()
    mean = float(w @ x)
    sd = float(np.sqrt(max(w @ (x - mean) ** 2, 0.0)))
    order = np.argsort(x, kind="stable")
    q25, q75 = np.interp([0.25, 0.75], np.maximum.accumulate(np.cumsum(w[order]) - 0.5 * w[order]), x[order])
    spread = min(s for s in (sd, (q75 - q25) / 1.34, np.inf) if s > 0)
    if not np.isfinite(spread):  # all points equal
        spread = 1e-3 * max(abs(mean), 1e-300)
    return float(0.9 * spread * effective_size(w) ** -0.2)


def kernel_density(x: Floats, grid: Floats, bandwidth: float, weights: Floats | None = None) -> Floats:
    """Gaussian kernel density of points on an even grid; weights, if given, sum to the density's integral.

    >>> grid = np.linspace(-5, 5, 201)
    >>> density = kernel_density(np.zeros(3), grid, 1.0)
    >>> round(float(density.max()), 3)
    0.399
    """
    step = float(grid[1] - grid[0])
    n = grid.size
    w = np.full(x.size, 1.0 / x.size) if weights is None else weights
    at = (x - grid[0]) / step
    left = np.floor(at)
    part = at - left
    mass = np.zeros(n)
    for place, share in ((left, w * (1.0 - part)), (left + 1, w * part)):
        inside = (place >= 0) & (place < n)
        mass += np.bincount(place[inside].astype(int), share[inside], n)
    reach = int(min(np.ceil(5.0 * bandwidth / step), n - 1))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / bandwidth) ** 2)
    kernel /= kernel.sum()
    return np.convolve(mass, kernel)[reach : reach + n] / step
