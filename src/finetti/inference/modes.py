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
        Where evaluations are dear, fewer points in each call, and an end as soon as one more step suffices.
    """
    found: list[tuple[float, Floats, Floats, float]] = []
    ends, calls = _climb(gradient, starts, curvature, dear)
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

# longest step in any coordinate, step shares tried at once, how close (in posterior sds) is close enough, rounds
LONGEST, SHARES, CLOSE, ROUNDS = 2.0, np.array([1.0, 0.5, 0.2, 0.05]), 1e-3, 40
# the same where evaluations are dear: the last step, from this close, is taken without looking
FEW_SHARES, NEAR, LEFT = np.array([1.0, 0.3]), 0.4, 0.3
# how close two climbs are when they have become one
MERGED = 0.1


def _climb(gradient: Gradient, starts: Floats, curvature: Floats, dear: bool) -> tuple[list[End], int]:
    """Newton from all starts together, Hessians by differences, in few calls of many points.

    A call costs little more for fifty points than for a few (where they are cheap), and threads share them (where
    they are dear): each call asks for several step lengths and for the stencil of the Hessian around the full
    step, which near the mode is the one taken. Differences are central, one-sided where evaluations are dear.
    """
    d = starts.shape[1]
    shares = FEW_SHARES if dear else SHARES
    tried = shares.size
    x, calls = starts.copy(), 0
    H = np.tile(np.diag(curvature), (x.shape[0], 1, 1))

    def ask(points: Floats) -> tuple[Floats, Floats]:
        """Values (k, m) and slopes (k, m, d) at (k, m, d) points; -inf where there is no density."""
        nonlocal calls
        calls += points.shape[0] * points.shape[1]
        values, slopes = gradient(points.reshape(-1, d))
        slopes = slopes.reshape(points.shape)
        values = values.reshape(points.shape[:2])
        return np.where(np.isfinite(values) & np.all(np.isfinite(slopes), axis=2), values, -np.inf), slopes

    def stencil(centre: Floats, H: Floats) -> tuple[Floats, Floats]:
        """Points (k, d or 2 d, d) around each centre, and how far away they are (k, d)."""
        scale = 1.0 / np.sqrt(np.maximum(np.abs(np.diagonal(H, axis1=1, axis2=2)), 1e-2))
        step = np.clip((0.05 if dear else 0.02) * scale, 1e-5, 0.05 if dear else 0.02)
        shift = step[:, :, None] * np.eye(d)
        sides = [centre[:, None] + shift] if dear else [centre[:, None] + shift, centre[:, None] - shift]
        return np.concatenate(sides, axis=1), step

    def curve(at: Ints, centre: Floats, slopes: Floats, step: Floats) -> None:
        """Hessians of the climbs `at` from the slopes at their centres (k, d) and stencils."""
        with np.errstate(invalid="ignore"):
            rise = slopes - centre[:, None] if dear else 0.5 * (slopes[:, :d] - slopes[:, d:])
            fresh = -rise / step[:, :, None]
        fresh = 0.5 * (fresh + np.swapaxes(fresh, 1, 2))
        good = np.all(np.isfinite(fresh), axis=(1, 2))
        H[at[good]] = fresh[good]

    around, step = stencil(x, H)
    values, slopes = ask(np.concatenate([x[:, None], around], axis=1))
    value, slope = values[:, 0], slopes[:, 0]
    everyone = np.arange(x.shape[0])
    curve(everyone, slope, slopes[:, 1:], step)
    moving = np.isfinite(value)
    stale = np.zeros_like(moving)  # whose Hessian is not that of the place
    for _ in range(ROUNDS):
        if (at := np.flatnonzero(moving & stale)).size:
            around, step = stencil(x[at], H[at])
            curve(at, slope[at], ask(around)[1], step)
            stale[at] = False
        at = np.flatnonzero(moving)
        move = np.stack([_safe_inverse(H[i]) @ slope[i] for i in at]) if at.size else np.zeros((0, d))
        done = np.einsum("kd,kd->k", move, slope[at]) < (NEAR if dear else CLOSE) ** 2  # squared steepness
        moving[at[done]] = False
        at, move = at[~done], move[~done]
        if not at.size:
            break
        move *= np.minimum(1.0, LONGEST / np.abs(move).max(axis=1))[:, None]
        trial = x[at, None] + shares[:, None] * move[:, None]  # (k, shares, d)
        around, step = stencil(trial[:, 0], H[at])
        values, slopes = ask(np.concatenate([trial, around], axis=1))
        best = np.argmax(values[:, :tried], axis=1)
        for j, i in enumerate(at):
            if values[j, best[j]] > value[i]:
                x[i], value[i], slope[i] = trial[j, best[j]], values[j, best[j]], slopes[j, best[j]]
                stale[i] = True
            else:
                moving[i] = False  # no step length climbs: as far as the arithmetic goes
        full = (best == 0) & moving[at]
        curve(at[full], slope[at[full]], slopes[full][:, tried:], step[full])
        stale[at[full]] = False
        for i in at[1:]:  # climbs that have met go on as one
            if any(moving[j] and _distance(x[i], x[j], _safe_inverse(H[j])) < MERGED for j in at[at < i]):
                moving[i], value[i] = False, -np.inf
    ends = []
    for i in np.flatnonzero(np.isfinite(value)):
        height, move = float(value[i]), _safe_inverse(H[i]) @ slope[i]
        steep = float(np.sqrt(max(float(move @ slope[i]), 0.0)))
        if dear and steep < NEAR:  # what is left after the step is of second order, about skewness / 2 times its square
            ends.append((x[i] + move, height + 0.5 * steep**2, slope[i] * (LEFT * steep), H[i]))
        else:
            ends.append((x[i], height, slope[i], H[i]))
    return ends, calls


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
