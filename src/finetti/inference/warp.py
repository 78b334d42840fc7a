"""A monotone warp of each coordinate that takes the skewness out of theta before a t is fitted.

The log of a standard deviation that may be zero has an exponential left tail and a Gaussian
right one; a symmetric proposal wastes its nodes on it. Per coordinate,

    theta = centre + scale * phi * (1 + left * |phi|)    for phi < 0,
    theta = centre + scale * phi * (1 + right * |phi|)   for phi >= 0,

which is the identity shape for left = right = 0, turns a Gaussian tail of phi into an
exponential tail of theta otherwise, is smooth at 0 and inverts in closed form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetti.inference.weights import weighted_quantiles

__all__ = ["Warp", "fit_warp", "identity_warp", "scanned_warp"]

Floats = npt.NDArray[np.float64]

# standard normal quantiles at 2.5, 25, 50, 75, 97.5 %
PROBS = np.array([0.025, 0.25, 0.5, 0.75, 0.975])
Z_TAIL, Z_MIDDLE = 1.959964, 0.6744898
# beyond this the tail would be longer than that of an exponential
MOST_BEND = 3.0


@dataclass(frozen=True)
class Warp:
    """Centre, scale and the bends to either side, (d,) each."""

    centre: Floats
    scale: Floats
    left: Floats
    right: Floats

    def bend(self, phi: Floats) -> Floats:
        return np.where(phi < 0.0, self.left, self.right)

    def forward(self, phi: Floats) -> Floats:
        """theta of phi, (S, d)."""
        return self.centre + self.scale * phi * (1.0 + self.bend(phi) * np.abs(phi))

    def inverse(self, theta: Floats) -> Floats:
        """phi of theta, (S, d)."""
        x = (theta - self.centre) / self.scale
        bend = self.bend(x)
        return 2.0 * x / (1.0 + np.sqrt(1.0 + 4.0 * bend * np.abs(x)))

    def log_slope(self, phi: Floats) -> Floats:
        """log |d theta / d phi|, (S,)."""
        return np.sum(np.log(self.scale * (1.0 + 2.0 * self.bend(phi) * np.abs(phi))), axis=1)


def identity_warp(d: int) -> Warp:
    """The warp that leaves theta as it is."""
    return Warp(np.zeros(d), np.ones(d), np.zeros(d), np.zeros(d))


def fit_warp(theta: Floats, weights: Floats) -> Warp:
    """Match the weighted 2.5, 25, 50, 75 and 97.5 % quantiles of every coordinate.

    The bends follow from how much longer each tail is than the middle of its side; a tail that
    is shorter is left alone (a t covers it).
    """
    d = theta.shape[1]
    out = np.zeros((4, d))
    for j in range(d):
        low, q1, median, q3, high = weighted_quantiles(theta[:, j], weights, PROBS)
        # per side: centre +- scale z (1 + bend z) through two quantiles; one scale for both sides
        scale = max((q3 - q1) / (2.0 * Z_MIDDLE), 1e-12)
        for _ in range(20):  # the bends change what the middle says about the scale
            left = np.clip(((median - low) / (scale * Z_TAIL) - 1.0) / Z_TAIL, 0.0, MOST_BEND)
            right = np.clip(((high - median) / (scale * Z_TAIL) - 1.0) / Z_TAIL, 0.0, MOST_BEND)
            scale = max((q3 - q1) / (Z_MIDDLE * (2.0 + (left + right) * Z_MIDDLE)), 1e-12)
        out[:, j] = median, scale, left, right
    return Warp(*out)


# where the density is looked at along an axis, in standard deviations (to the left the log of an sd may fall as slowly
# as an exponential), and the least fall that is taken at its word
LEAST_FALL = 0.25
SCAN = (-7.0, -4.0, 2.5, 4.5)


def scanned_warp(
    log_density: Callable[[Floats], Floats], mode: Floats, height: float, covariance: Floats
) -> tuple[Warp, tuple[Floats, Floats]]:
    """Bends from the density itself at 4 d points, for models whose nodes are too dear for a pilot.

    Along each axis, the other coordinates following by regression, a Gaussian of this curvature falls by c^2 / 2 at
    c standard deviations. Where it falls by z^2 / 2 with z < c the tail is longer, and phi = z is to stand for
    theta = c: the split scales of Martins, Simpson, Lindgren and Rue (2013, Comput. Stat. Data Anal. 67), as a warp.
    Returned with the points (4 d, d) and what was found there.
    """
    scale = np.sqrt(np.diag(covariance))
    reach = np.array(SCAN)
    points = mode + reach[:, None, None] * (covariance / scale).T  # (4, d, d): row j moves along coordinate j
    points = points.reshape(-1, mode.size)
    values = log_density(points)
    fall = (height - values).reshape(reach.size, -1)
    fall = np.where(np.isfinite(fall), np.maximum(fall, 0.0), np.inf)
    far = np.abs(reach)[:, None]
    z, bend = np.tile(far, mode.size), np.zeros_like(fall)
    for _ in range(30):  # the stretch at phi raises its density: c = z (1 + bend z), fall = z^2 / 2 + log slope
        z = np.sqrt(2.0 * np.maximum(fall - np.log1p(2.0 * bend * z), LEAST_FALL))
        bend = 0.5 * (bend + np.clip((far / z - 1.0) / z, 0.0, MOST_BEND))
    return Warp(mode, scale, bend[:2].max(axis=0), bend[2:].max(axis=0)), (points, values)
