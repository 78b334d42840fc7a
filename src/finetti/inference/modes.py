"""Modes of the marginal posterior of theta, from several starts, with their curvature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetti.errors import InferenceError

__all__ = ["Modes", "find_modes"]

Floats = npt.NDArray[np.float64]
Gradient = Callable[[Floats], tuple[Floats, Floats]]

# two optima closer than this, in units of the posterior scale, are the same one
SAME_MODE = 0.5


@dataclass(frozen=True)
class Modes:
    """Modes (K, d), best first: log densities, inverse negative Hessians, and how the search went."""

    theta: Floats
    height: Floats
    covariance: Floats
    converged: bool
    largest_gradient: float  # of the best mode, in units of the posterior scale
    evaluations: int


def find_modes(gradient: Gradient, starts: Floats, curvature: Floats, *, central: bool = True) -> Modes:
    """Climb from every start and keep the distinct optima.

    Parameters
    ----------
    gradient : callable
        theta (S, d) -> (log density (S,), gradient (S, d)), nodes in parallel.
    starts : (K, d)
    curvature : (d,)
        A guess of the negative Hessian's diagonal, for the first step.
    central : bool
        Central differences of the gradient for the Hessian; one-sided ones cost half.
    """
    from scipy.optimize import minimize

    calls = 0

    def negative(x: Floats) -> tuple[float, Floats]:
        nonlocal calls
        calls += 1
        value, slope = gradient(x[None])
        if not (np.isfinite(value[0]) and np.all(np.isfinite(slope[0]))):
            return 1e300, np.zeros_like(x)
        return -float(value[0]), -slope[0]

    found: list[tuple[float, Floats, Floats, bool, float]] = []
    for start in starts:
        value, slope = negative(start)
        if value >= 1e300:
            continue
        # relative precision of the gradient limits how far it can be driven down
        result = minimize(
            negative, start, jac=True, method="BFGS",
            options={
                "gtol": 1e-4 * float(np.sqrt(curvature.max())),
                "hess_inv0": np.diag(1.0 / curvature),
                "maxiter": 200,
            },
        )  # fmt: skip
        x, height = result.x, -float(result.fun)
        if any(abs(height - f[0]) < 1e-3 and _distance(x, f[1], f[2]) < SAME_MODE for f in found):
            continue
        H = _hessian(gradient, x, np.asarray(result.hess_inv, dtype=np.float64), central)
        calls += (2 if central else 1) * x.size
        cov = _safe_inverse(H)
        slope = -np.atleast_1d(result.jac)
        steepness = float(np.sqrt(max(float(slope @ cov @ slope), 0.0)))
        if any(_distance(x, f[1], f[2]) < SAME_MODE for f in found):
            continue
        found.append((height, x, cov, steepness < 0.05, steepness))
    if not found:
        raise InferenceError(
            "the posterior density is not finite at any starting point. Check the scale of the response and the priors"
        )
    found.sort(key=lambda f: -f[0])
    # a mode with e^-15 of the best one's height carries no mass worth a component
    found = [f for f in found if f[0] > found[0][0] - 15.0][:4]
    return Modes(
        np.array([f[1] for f in found]),
        np.array([f[0] for f in found]),
        np.array([f[2] for f in found]),
        found[0][3],
        found[0][4],
        calls,
    )


def _distance(x: Floats, centre: Floats, cov: Floats) -> float:
    delta = x - centre
    return float(np.sqrt(max(float(delta @ np.linalg.solve(cov, delta)), 0.0)))


def _hessian(gradient: Gradient, x: Floats, hess_inv: Floats, central: bool) -> Floats:
    """Negative Hessian by differences of the gradient, all evaluations in one parallel call."""
    d = x.size
    step = np.clip(0.05 * np.sqrt(np.abs(np.diag(np.atleast_2d(hess_inv)))), 1e-5, 0.05)
    shift = np.diag(step)
    if central:
        _, slopes = gradient(np.concatenate([x + shift, x - shift]))
        H = -(slopes[:d] - slopes[d:]) / (2.0 * step[:, None])
    else:
        _, slopes = gradient(np.concatenate([x + shift, x[None]]))
        H = -(slopes[:d] - slopes[d]) / step[:, None]
    return 0.5 * (H + H.T)


def _safe_inverse(H: Floats) -> Floats:
    """Inverse of H with its eigenvalues kept away from zero: a flat direction gets a wide scale."""
    if not np.all(np.isfinite(H)):
        return np.eye(H.shape[0])
    values, vectors = np.linalg.eigh(H)
    values = np.maximum(np.abs(values), 0.05)
    return (vectors / values) @ vectors.T
