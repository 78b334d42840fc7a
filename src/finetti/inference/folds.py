"""Empirical Bayes left out honestly: every fold estimates the hyperparameters anew, without its own rows.

Held at the estimate from ALL rows, theta has seen what it is asked to predict, and the score flatters. The estimate
without the rows I of a fold maximises

    log p(y_-I | theta) = log p(y | theta) - log p(y_I | y_-I, theta),

both terms of which come from one solution for all rows, so that no data are ever taken out: at one theta all folds are
known at once. Hyperpriors play no part, as in `empirical`, and theta has its coordinates: the lower triangle of each
block's relative covariance factor, in which a standard deviation of zero is an ordinary point (the likelihood is even
in the diagonal), then log sigma, then the coefficients that are not integrated out.

The estimate from all rows is close to all of these, and at it everything is expanded once for all folds: log p(y |
theta) to third order, the score log p(y_I | y_-I, theta) of each fold to second. The maximum of that has an error in
the score of the order s^4, s being the length of the fold's step in standard errors. From there folds climb by Newton's
method with differences of their own, the most influential first, until the error that was seen in those, times s^4,
says that the others together no longer matter: hundreds of rows need no solution of their own, however many
rows there are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from finetti.errors import InferenceError
from finetti.inference.conditional import GaussianConditional
from finetti.inference.differences import STEP, Local, derivatives, stencil
from finetti.inference.factor_space import FactorSpace
from finetti.inference.left_out import exact_conditional, groups_left_out, rows_left_out
from finetti.inference.target import GaussianTarget
from finetti.linalg.blas import single_threaded

if TYPE_CHECKING:
    from finetti.inference.infer import Inference

__all__ = ["Reestimated", "reestimated"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# step of the differences of second derivatives
THIRD_STEP = 0.02
# nominal seconds that folds may take, one thread
BUDGET = 20.0
# nominal seconds per row (conditional moments and differences) on top of a node's own cost
PER_ROW = 1.5e-7
# elpd that further steps might still bring when all folds have stopped
TOLERANCE = 1e-4
# bound on the error of the folds that rest on the expansion, in elpd together, at which no more folds climb
GOOD = 5e-4
MOST_STEPS = 40
# as few folds as this all climb, and look for other modes
FEW = 200
# a step (in standard errors) after which mixed second derivatives are kept
SHORT = 0.3
# longest step
LONGEST = 0.7
# a relative standard deviation this near its edge at zero, with a curvature of at least this upward, is to move away
EDGE, RISING = 0.05, 1e-3
# relative rounding error of a log-likelihood that is a sum over many rows
NOISE = 1e-13
BATCH_VALUES = 1e7


@dataclass(frozen=True)
class Reestimated:
    """Scores of folds under empirical Bayes.

    elpd : (m,) log p(y_I | y_-I, estimate without I); NaN where the other rows cannot say
    estimates : (m, d) in the coordinates of `space`
    space : what they mean
    converged : (m,) False where the fold's own maximum was not reached, nor is close enough to the expansion's
    error : what the folds that rest on the expansion may be off by, in elpd, together: the largest error of the others
        over s^4, times the sum of theirs; NaN where it is not known
    evaluations : nodes evaluated
    """

    elpd: Floats
    estimates: Floats
    space: FactorSpace
    converged: npt.NDArray[np.bool_]
    error: float
    evaluations: int


def reestimated(inference: Inference, name: str | None = None, budget: float = BUDGET) -> Reestimated:
    """Score every row, or every level of a factor, with hyperparameters estimated without it.

    Parameters
    ----------
    inference : Inference
        With all hyperparameters at the maximum of the marginal likelihood (`pooling="empirical"`).
    name : str, optional
        A grouping factor, whose levels are the folds; by default the folds are single rows.
    budget : float
        Nominal seconds beyond which no more folds climb, the most influential having been first.

    Raises
    ------
    InferenceError
        If hyperparameters were integrated over.
    """
    if inference.coordinates.d:
        raise InferenceError("folds are estimated anew for empirical fits alone; fit with pooling='empirical'")
    with single_threaded(), np.errstate(all="ignore"):
        space, start = FactorSpace.of(inference)
        return _Climb(inference, space, name).run(start, budget)


class _Climb:
    """All folds of one model; counts its evaluations."""

    def __init__(self, inference: Inference, space: FactorSpace, name: str | None) -> None:
        self.inner = replace(exact_conditional(inference.conditional).inner, hyper=space)
        self.conditional = GaussianConditional(self.inner)
        self.space, self.name, self.d = space, name, space.d
        factors = [f.name for f in inference.bound.design.factors]
        self.f = factors.index(name) if name is not None else -1
        n = inference.bound.design.y.size
        self.m = n if name is None else len(inference.bound.design.factors[self.f].levels)
        self.cost = GaussianTarget(self.inner).cost * (4.0 if name is None else 6.0) + PER_ROW * n
        self.evaluations = 0
        self.offsets, self.axes = stencil(self.d), stencil(self.d, cross=False)

    # --- evaluations -------------------------------------------------------------------------

    def left_out(self, theta: Floats) -> Floats:
        """log p(y_I | y_-I, theta) of every fold, (S, m)."""
        if self.name is None:
            return rows_left_out(self.conditional, theta)
        return groups_left_out(self.conditional, self.name, theta)

    def all_folds(self, theta: Floats) -> tuple[Floats, Floats]:
        """Objective and score of every fold at common nodes, both (S, m)."""
        self.evaluations += len(theta)
        score = self.left_out(theta)
        return self.inner.log_marginal(theta)[:, None] - score, score

    def own_fold(self, theta: Floats, fold: Ints) -> tuple[Floats, Floats]:
        """The same of fold[s] at node s, both (S,)."""
        self.evaluations += len(theta)
        if self.name is not None and not self.inner.system.layout.coefficient_slice(self.f)[0]:
            # levels of a crossed factor are left out one by one: only those that are asked for
            score = np.empty(len(theta))
            for j in np.unique(fold):
                at = fold == j
                score[at] = groups_left_out(self.conditional, self.name, theta[at], np.array([j]))[:, 0]
        else:
            step = max(1, int(BATCH_VALUES // self.m))
            parts = [slice(i, i + step) for i in range(0, len(theta), step)]
            score = np.concatenate([self.left_out(theta[p])[np.arange(len(fold[p])), fold[p]] for p in parts])
        return self.inner.log_marginal(theta) - score, score

    def differences_at(self, theta: Floats, fold: Ints, before: Local | None = None) -> Local:
        """Values and derivatives of each fold at a node of its own, theta (k, d).

        Mixed second derivatives are those of `before`, if given: a short way from it they serve as well.
        """
        offsets = self.offsets if before is None else self.axes
        points = theta[:, None] + STEP * offsets
        f, score = self.own_fold(points.reshape(-1, self.d), np.repeat(fold, len(offsets)))
        return Local.of(theta, f.reshape(len(fold), -1), score.reshape(len(fold), -1), before)

    # --- the climb ---------------------------------------------------------------------------

    def run(self, start: Floats, budget: float) -> Reestimated:
        if not self.d:
            score = self.left_out(start[None])[0]
            return Reestimated(score, np.zeros((self.m, 0)), self.space, np.ones(self.m, dtype=bool), 0.0, 1)
        f, score = self.all_folds(start + STEP * self.offsets)
        here = Local.of(np.tile(start, (self.m, 1)), f.T, score.T)
        known = np.isfinite(here.score)
        third, order = self.third(start, budget)
        move = here.expanded(third, LONGEST)
        elpd = expanded = np.where(known, here.after(move), np.nan)
        estimates, converged, size = start + move, ~known, np.nan_to_num(here.length)
        # beside an edge the slope says nothing: these are looked at first, and not learned from
        edge = self.valley(here).any(axis=1)
        queue = np.argsort(-np.where(edge, np.inf, np.where(known, size, 0.0)), kind="stable")
        queue, elpd, error, limit = queue[known[queue]], elpd.copy(), 0.0, budget / self.cost
        many = self.m if self.m <= FEW else max(FEW // 4, 8 * self.d)
        while queue.size:
            many = int(min(many, (limit - self.evaluations) / (3 * len(self.axes))))
            if many < 1:
                break
            fold, queue = queue[:many], queue[many:]
            local = here.take(fold)
            if self.m <= FEW:
                local = self.other_starts(start, local, fold)
            elpd[fold], estimates[fold], converged[fold] = self.climb(self.begun(local, move[fold], fold), fold)
            done = converged & known & ~edge & (size > 0.0)
            seen = np.abs(elpd - expanded)[done] / size[done] ** order
            error = float(seen.max() * np.sum(size[queue] ** order)) if seen.size else np.inf
            if error < GOOD:
                converged[queue] = True
                break
            many *= 2
        if not queue.size:
            error = 0.0
        elif not np.isfinite(error) or not self.evaluations > len(self.offsets):
            error = np.nan  # nothing was learned
        return Reestimated(elpd, estimates, self.space, converged, error, self.evaluations)

    def third(self, start: Floats, budget: float) -> tuple[Floats, int]:
        """Third derivatives (d, d, d) of log p(y | theta), and the order of the error of an expansion with them.

        They are zero, and the order is 3 and not 4, where they would cost too much.
        """
        moves = np.concatenate([np.eye(self.d), -np.eye(self.d)])
        points = start + THIRD_STEP * moves[:, None] + 3.0 * STEP * self.offsets
        if points.shape[0] * points.shape[1] * GaussianTarget(self.inner).cost > 0.25 * budget:
            return np.zeros((self.d,) * 3), 3
        values = self.inner.log_marginal(points.reshape(-1, self.d)).reshape(points.shape[:2])
        _, _, hessian = derivatives(values, self.d, None, 3.0 * STEP)
        out = (hessian[: self.d] - hessian[self.d :]) / (2.0 * THIRD_STEP)
        out = (out + np.moveaxis(out, 0, 1) + np.moveaxis(out, 0, 2)) / 3.0
        return np.nan_to_num(out), 4

    def begun(self, local: Local, move: Floats, fold: Ints) -> Local:
        """Begin where the expansion points to, if that is higher."""
        new = self.moved(local, move, fold, local.length < SHORT)
        usable = np.isfinite(new.value) & np.isfinite(new.hessian).all(axis=(1, 2))
        better = np.flatnonzero(usable & (new.value > local.value))
        return local.put(better, new.take(better))

    def valley(self, local: Local) -> npt.NDArray[np.bool_]:
        """Which diagonal entries (k, entries) stand at zero although the fold rises away from it."""
        at = self.space.diagonal
        least = np.maximum(RISING, NOISE * np.abs(local.value) / STEP**2)[:, None]
        return np.asarray((np.abs(local.theta[:, at]) < EDGE) & (local.hessian[:, at, at] > least))

    def other_starts(self, start: Floats, local: Local, fold: Ints) -> Local:
        """Begin elsewhere where that is higher: without a group another mode may win, such as a variance of 0."""
        candidates = []
        for k in self.space.diagonal:
            f, r, _ = self.space.entries[k]
            row = [i for i, (g, a, _) in enumerate(self.space.entries) if (g, a) == (f, r)]
            for value in (0.0, 0.3, 1.0):
                x = start.copy()
                x[row] = 0.0
                x[k] = value
                candidates.append(x)
        if not candidates:
            return local
        x = np.array(candidates)
        f, _ = self.all_folds(x)
        f = np.where(np.isfinite(f), f, -np.inf)[:, fold]
        best = np.argmax(f, axis=0)
        better = np.flatnonzero(f[best, np.arange(fold.size)] > local.value + 1e-6)
        return local.put(better, self.differences_at(x[best[better]], fold[better])) if better.size else local

    def climb(self, local: Local, fold: Ints) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
        """Newton's method for all folds at once, each within a radius of its own: score, estimate, converged."""
        k = fold.size
        score, at, good = local.score.copy(), local.theta.copy(), np.zeros(k, dtype=bool)
        active, radius = np.arange(k), np.full(k, LONGEST)
        allowed = TOLERANCE
        for _ in range(MOST_STEPS):
            step = local.newton
            # on the edge of a variance of zero the slope vanishes; if that is a valley, leave it
            valley = self.valley(local)
            for i, here in zip(self.space.diagonal, valley.T, strict=True):
                step[here, i] = np.where(step[here, i] < 0.0, -0.1, 0.1)
            long = np.linalg.norm(step, axis=1)
            last = local.after(step)
            # Newton's error is of the order of the step's length squared, so this is what the step leaves undone;
            # folds stop from the surest on while all of them together stay within what is allowed
            length = local.length
            moves = np.abs(step * local.score_gradient).sum(axis=1) + length**2
            calm = ~valley.any(axis=1) & (long < 0.1)
            undone = np.where(calm & (length < 0.3), 3.0 * moves * length, np.inf)
            order = np.argsort(undone, kind="stable")
            done = np.zeros(active.size, dtype=bool)
            done[order] = np.cumsum(undone[order]) <= 0.5 * allowed
            allowed -= float(undone[done].sum())
            done |= (local.gain(step) < 1e-11 * np.maximum(np.abs(local.value), 1.0)) & calm & (long < 1e-3)
            score[active[done]], at[active[done]], good[active[done]] = last[done], (local.theta + step)[done], True
            rest = ~done
            if not rest.any():
                break
            active, radius, local = active[rest], radius[rest], local.take(rest)
            step = step[rest] * np.minimum(1.0, radius / np.maximum(long[rest], 1e-300))[:, None]
            new = self.moved(local, step, fold[active], (length[rest] < SHORT) & (long[rest] < 0.1))
            slack = 1e-10 * np.maximum(np.abs(local.value), 1.0)
            with_slopes = np.isfinite(new.value) & np.isfinite(new.hessian).all(axis=(1, 2))
            up = with_slopes & (new.value >= local.value - slack)
            radius = np.where(up, np.minimum(2.0 * radius, LONGEST), 0.25 * np.linalg.norm(step, axis=1))
            local = local.put(np.flatnonzero(up), new.take(up))
            score[active], at[active] = local.score, local.theta
            stuck = radius < 1e-9
            active, radius, local = active[~stuck], radius[~stuck], local.take(~stuck)
        return score, at, good

    def moved(self, local: Local, step: Floats, fold: Ints, near: npt.NDArray[np.bool_]) -> Local:
        """Differences after a step; `near` says for which folds it is a short one."""
        out = local
        for some, before in ((np.flatnonzero(near), local), (np.flatnonzero(~near), None)):
            if some.size:
                theta = local.theta[some] + step[some]
                before = None if before is None else before.take(some)
                out = out.put(some, self.differences_at(theta, fold[some], before))
        return out
