"""Modes of the marginal posterior of theta, from several starts, with their curvature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetti.errors import InferenceError

__all__ = ["Modes", "find_modes"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
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


# BFGS leaves the last step to the Hessian once it is this close, in posterior sds
NEAR = 0.4


def _climb_bfgs(gradient: Gradient, starts: Floats, curvature: Floats) -> tuple[list[End], int]:
    """BFGS from each start till it is near, the Hessian there by one-sided differences, and one Newton step."""
    from scipy.optimize import minimize

    calls, ends = 0, []
    seen: dict[bytes, tuple[float, Floats]] = {}

    def negative(x: Floats) -> tuple[float, Floats]:
        nonlocal calls
        if (key := x.tobytes()) not in seen:
            calls += 1
            value, slope = gradient(x[None])
            good = np.isfinite(value[0]) and np.all(np.isfinite(slope[0]))
            seen[key] = (-float(value[0]), -slope[0]) if good else (1e300, np.zeros_like(x))
        return seen[key]

    def near(x: Floats) -> None:
        # the complete-data curvature is too large, so that the true distance is longer by some factor below two
        if np.sum(negative(x)[1] ** 2 / curvature) < NEAR**2 / 4.0:
            raise StopIteration

    for start in starts:
        if negative(start)[0] >= 1e300:
            continue
        result = minimize(
            negative,
            start,
            jac=True,
            method="BFGS",
            callback=near,
            # relative precision of the gradient limits how far it can be driven down
            options={
                "gtol": 1e-3 * float(np.sqrt(curvature.max())),
                "hess_inv0": np.diag(1.0 / curvature),
                "maxiter": 200,
            },
        )
        x = np.asarray(result.x, dtype=np.float64)
        height, slope = -negative(x)[0], -negative(x)[1]
        scale = np.sqrt(np.abs(np.diag(np.asarray(result.hess_inv, dtype=np.float64))))
        step = np.clip(0.05 * scale, 1e-5, 0.05)
        _, slopes = gradient(x + np.diag(step))
        calls += x.size
        H = -(slopes - slope) / step[:, None]
        H = 0.5 * (H + H.T)
        move = _safe_inverse(H) @ slope
        steep = float(np.sqrt(max(float(move @ slope), 0.0)))
        if steep < NEAR:  # what is left after a Newton step is of second order
            x, height, slope = x + move, height + 0.5 * steep**2, slope * steep
        ends.append((x, height, slope, H))
    return ends, calls


# Newton: longest step in any coordinate, step shares tried at once, when to stop, and how close two climbs
# (in posterior sds) are when they have become one
LONGEST, SHARES, CLOSE, ROUNDS, MERGED = 2.0, np.array([1.0, 0.5, 0.2, 0.05]), 1e-3, 40, 0.1


def _climb_newton(gradient: Gradient, starts: Floats, curvature: Floats) -> tuple[list[End], int]:
    """Newton from all starts together, Hessians by differences, in few calls of many points.

    A call of a few points costs as much as one of fifty: each asks for several step lengths and for the
    stencil of the Hessian around the full step, which near the mode is the one taken.
    """
    d, calls = starts.shape[1], 0
    value, slope = gradient(starts)
    alive = np.isfinite(value) & np.all(np.isfinite(slope), axis=1)
    x, value, slope = starts[alive], value[alive], slope[alive]
    H = np.tile(np.diag(curvature), (x.shape[0], 1, 1))
    moving = np.ones(x.shape[0], dtype=bool)

    def stencil(centre: Floats, H: Floats) -> tuple[Floats, Floats]:
        """Points (k, 2 d, d) around each centre, and how far away they are (k, d)."""
        scale = 1.0 / np.sqrt(np.maximum(np.abs(np.diagonal(H, axis1=1, axis2=2)), 1e-2))
        step = np.clip(0.02 * scale, 1e-5, 0.02)
        shift = step[:, :, None] * np.eye(d)
        return np.concatenate([centre[:, None] + shift, centre[:, None] - shift], axis=1), step

    def curve(at: Ints, slopes: Floats, step: Floats) -> None:
        """Hessians of the climbs `at` from the slopes (k, 2 d, d) on their stencils."""
        with np.errstate(invalid="ignore"):
            fresh = -(slopes[:, :d] - slopes[:, d:]) / (2.0 * step[:, :, None])
        fresh = 0.5 * (fresh + np.swapaxes(fresh, 1, 2))
        good = np.all(np.isfinite(fresh), axis=(1, 2))
        H[at[good]] = fresh[good]

    stale = moving.copy()  # whose Hessian is not that of the place
    for _ in range(ROUNDS):
        if (at := np.flatnonzero(moving & stale)).size:
            around, step = stencil(x[at], H[at])
            calls += around.shape[0] * around.shape[1]
            curve(at, gradient(around.reshape(-1, d))[1].reshape(around.shape), step)
            stale[at] = False
        at = np.flatnonzero(moving)
        move = np.stack([_safe_inverse(H[i]) @ slope[i] for i in at]) if at.size else np.zeros((0, d))
        done = np.einsum("kd,kd->k", move, slope[at]) < CLOSE**2  # squared steepness
        moving[at[done]] = False
        at, move = at[~done], move[~done]
        if not at.size:
            break
        move *= np.minimum(1.0, LONGEST / np.abs(move).max(axis=1))[:, None]
        trial = x[at, None] + SHARES[:, None] * move[:, None]  # (k, shares, d)
        around, step = stencil(trial[:, 0], H[at])
        asked = np.concatenate([trial, around], axis=1)
        values, slopes = gradient(asked.reshape(-1, d))
        calls += values.size
        values, slopes = values.reshape(asked.shape[:2]), slopes.reshape(asked.shape)
        values = np.where(np.isfinite(values), values, -np.inf)[:, : SHARES.size]
        best = np.argmax(values, axis=1)
        for j, i in enumerate(at):
            if values[j, best[j]] > value[i]:
                x[i], value[i], slope[i] = trial[j, best[j]], values[j, best[j]], slopes[j, best[j]]
                stale[i] = True
            else:
                moving[i] = False  # no step length climbs: as far as the arithmetic goes
        full = (best == 0) & moving[at]
        curve(at[full], slopes[full][:, SHARES.size :], step[full])
        stale[at[full]] = False
        for i in at[1:]:  # climbs that have met go on as one
            if any(moving[j] and _distance(x[i], x[j], _safe_inverse(H[j])) < MERGED for j in at[at < i]):
                moving[i], value[i] = False, -np.inf
    return [(x[i], float(value[i]), slope[i], H[i]) for i in range(x.shape[0]) if np.isfinite(value[i])], calls


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
