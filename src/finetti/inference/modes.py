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


def find_modes(gradient: Gradient, starts: Floats, curvature: Floats, *, dear: bool = False) -> Modes:
    """Climb from every start and keep the distinct optima.

    Parameters
    ----------
    gradient : callable
        theta (S, d) -> (log density (S,), gradient (S, d)), nodes in parallel.
    starts : (K, d)
    curvature : (d,)
        A guess of the negative Hessian's diagonal, for the first step.
    dear : bool
        Where evaluations are dear, climb by BFGS, one at a time; where they are cheap, by Newton steps
        from all starts at once, many evaluations in each call.
    """
    climb = _climb_bfgs if dear else _climb_newton
    found: list[tuple[float, Floats, Floats, float]] = []
    ends, calls = climb(gradient, starts, curvature)
    for x, height, slope, H in sorted(ends, key=lambda e: -e[1]):
        cov = _safe_inverse(H)
        # a mode with e^-15 of the best one's height carries no mass worth a component
        if found and height < found[0][0] - 15.0:
            continue
        if any(_distance(x, f[1], f[2]) < SAME_MODE for f in found):
            continue
        found.append((height, x, cov, float(np.sqrt(max(float(slope @ cov @ slope), 0.0)))))
    if not found:
        raise InferenceError(
            "the posterior density is not finite at any starting point. Check the scale of the response and the priors"
        )
    found = found[:4]
    return Modes(
        np.array([f[1] for f in found]),
        np.array([f[0] for f in found]),
        np.array([f[2] for f in found]),
        found[0][3] < 0.05,
        found[0][3],
        calls,
    )


End = tuple[Floats, float, Floats, Floats]  # place, height, gradient, negative Hessian


def _climb_bfgs(gradient: Gradient, starts: Floats, curvature: Floats) -> tuple[list[End], int]:
    """BFGS from each start; the Hessian at the end by one-sided differences."""
    from scipy.optimize import minimize

    calls, ends = 0, []

    def negative(x: Floats) -> tuple[float, Floats]:
        nonlocal calls
        calls += 1
        value, slope = gradient(x[None])
        if not (np.isfinite(value[0]) and np.all(np.isfinite(slope[0]))):
            return 1e300, np.zeros_like(x)
        return -float(value[0]), -slope[0]

    for start in starts:
        if negative(start)[0] >= 1e300:
            continue
        result = minimize(
            negative,
            start,
            jac=True,
            method="BFGS",
            # relative precision of the gradient limits how far it can be driven down
            options={
                "gtol": 1e-3 * float(np.sqrt(curvature.max())),
                "hess_inv0": np.diag(1.0 / curvature),
                "maxiter": 200,
            },
        )
        scale = np.sqrt(np.abs(np.diag(np.asarray(result.hess_inv, dtype=np.float64))))
        step = np.clip(0.05 * scale, 1e-5, 0.05)
        _, slopes = gradient(result.x + np.diag(step))
        calls += result.x.size
        slope = -np.atleast_1d(result.jac)
        H = -(slopes - slope) / step[:, None]
        ends.append((result.x, -float(result.fun), slope, 0.5 * (H + H.T)))
    return ends, calls


# Newton: longest step in any coordinate, step shares tried at once, and when to stop
LONGEST, SHARES, CLOSE, ROUNDS = 2.0, np.array([1.0, 0.5, 0.2, 0.05]), 1e-3, 40


def _climb_newton(gradient: Gradient, starts: Floats, curvature: Floats) -> tuple[list[End], int]:
    """Newton from all starts together, Hessians by differences, several step lengths in one call."""
    d, calls = starts.shape[1], 0
    x = starts.copy()
    value, slope = gradient(x)
    alive = np.isfinite(value) & np.all(np.isfinite(slope), axis=1)
    x, value, slope = x[alive], value[alive], slope[alive]
    K = x.shape[0]
    H = np.tile(np.diag(curvature), (K, 1, 1))
    moving = np.ones(K, dtype=bool)
    for _ in range(ROUNDS):
        at = np.flatnonzero(moving)
        if not at.size:
            break
        scale = 1.0 / np.sqrt(np.maximum(np.abs(np.diagonal(H[at], axis1=1, axis2=2)), 1e-2))
        step = np.clip(0.02 * scale, 1e-5, 0.02)  # (k, d)
        shift = step[:, :, None] * np.eye(d)
        around = np.concatenate([x[at, None] + shift, x[at, None] - shift], axis=1).reshape(-1, d)
        _, slopes = gradient(around)
        calls += around.shape[0]
        slopes = slopes.reshape(at.size, 2, d, d)
        with np.errstate(invalid="ignore"):
            fresh = -(slopes[:, 0] - slopes[:, 1]) / (2.0 * step[:, :, None])
        fresh = 0.5 * (fresh + np.swapaxes(fresh, 1, 2))
        good = np.all(np.isfinite(fresh), axis=(1, 2))
        H[at[good]] = fresh[good]
        move = np.stack([_safe_inverse(H[i]) @ slope[i] for i in at])
        gain = np.einsum("kd,kd->k", move, slope[at])  # squared steepness
        done = gain < CLOSE**2
        moving[at[done]] = False
        at, move = at[~done], move[~done]
        if not at.size:
            break
        move *= np.minimum(1.0, LONGEST / np.abs(move).max(axis=1))[:, None]
        trial = x[at, None] + SHARES[:, None] * move[:, None]  # (k, shares, d)
        values, slopes = gradient(trial.reshape(-1, d))
        calls += values.size
        values = np.where(np.isfinite(values), values, -np.inf).reshape(at.size, -1)
        slopes = slopes.reshape(trial.shape)
        best = np.argmax(values, axis=1)
        for j, i in enumerate(at):
            if values[j, best[j]] > value[i]:
                x[i], value[i], slope[i] = trial[j, best[j]], values[j, best[j]], slopes[j, best[j]]
            else:
                moving[i] = False  # no step length climbs: as far as the arithmetic goes
    return [(x[i], float(value[i]), slope[i], H[i]) for i in range(K)], calls


def _distance(x: Floats, centre: Floats, cov: Floats) -> float:
    delta = x - centre
    return float(np.sqrt(max(float(delta @ np.linalg.solve(cov, delta)), 0.0)))


def _safe_inverse(H: Floats) -> Floats:
    """Inverse of H with its eigenvalues kept away from zero: a flat direction gets a wide scale."""
    if not np.all(np.isfinite(H)):
        return np.eye(H.shape[0])
    values, vectors = np.linalg.eigh(H)
    values = np.maximum(np.abs(values), 0.05)
    return (vectors / values) @ vectors.T
