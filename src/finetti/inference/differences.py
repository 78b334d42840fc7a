"""Objective and score of many folds to second order, by central differences, and Newton steps from there.

All differences are exact to the square of the step. A mixed one takes 1 + 2 d + d (d - 1) points and not four per pair:

    d2f / dx_i dx_j = [D(e_i + e_j) - D(e_i) - D(e_j)] / 2,   D(v) = [f(x + h v) - 2 f(x) + f(x - h v)] / h^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

__all__ = ["STEP", "Local", "derivatives", "stencil"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# step of the differences, in units where theta is of order one
STEP = 1e-3


@dataclass(frozen=True)
class Local:
    """Objective and score of k folds, each at its own theta (k, d), to second order."""

    theta: Floats
    value: Floats  # (k,) objective
    gradient: Floats
    hessian: Floats
    score: Floats  # (k,) log p(y_I | y_-I, theta)
    score_gradient: Floats
    score_hessian: Floats

    @classmethod
    def of(cls, theta: Floats, f: Floats, score: Floats, before: Local | None = None) -> Local:
        """From values (k, P) at the points of `stencil`; mixed derivatives from `before` if not in it."""
        d = theta.shape[1]
        f_cross, score_cross = (None, None) if before is None else (before.hessian, before.score_hessian)
        return cls(theta, *derivatives(f, d, f_cross), *derivatives(score, d, score_cross))

    @property
    def newton(self) -> Floats:
        """Step (k, d) upward."""
        return _newton(self.gradient, self.hessian)

    def expanded(self, third: Floats, longest: float) -> Floats:
        """Way (k, d), at most `longest`, to the maximum of the expansion with third derivatives (d, d, d)."""
        move = np.zeros_like(self.theta)
        for _ in range(15):
            bent = self.hessian + np.einsum("ijl,kl->kij", third, move)
            slope = self.gradient + 0.5 * np.einsum("kij,kj->ki", self.hessian + bent, move)
            move = move + _newton(slope, bent)
            move *= np.minimum(1.0, longest / np.maximum(np.linalg.norm(move, axis=1), 1e-300))[:, None]
        return move

    def gain(self, step: Floats) -> Floats:
        """What the objective gains by a step, to second order (k,)."""
        return np.abs(_to_second_order(step, self.gradient, self.hessian))

    def after(self, step: Floats) -> Floats:
        """Score after a step, to second order (k,)."""
        return self.score + _to_second_order(step, self.score_gradient, self.score_hessian)

    @property
    def length(self) -> Floats:
        """Length of the Newton step in standard errors of theta (k,)."""
        return np.sqrt(np.abs(np.einsum("ki,ki->k", self.newton, np.nan_to_num(self.gradient))))

    def take(self, at: npt.NDArray) -> Local:
        return Local(*(getattr(self, name)[at] for name in self.__dataclass_fields__))

    def put(self, at: Ints, other: Local) -> Local:
        """The same with the folds `at` replaced."""
        parts = []
        for name in self.__dataclass_fields__:
            part = getattr(self, name).copy()
            part[at] = getattr(other, name)
            parts.append(part)
        return Local(*parts)


def _newton(gradient: Floats, hessian: Floats) -> Floats:
    """Steps (k, d) upward: curvatures taken as negative, none flatter than a millionth of the fold's steepest."""
    value, vector = np.linalg.eigh(np.nan_to_num(-hessian))
    value = np.maximum(np.abs(value), 1e-6 * np.abs(value).max(axis=1, initial=1e-300, keepdims=True))
    return np.einsum("kij,kj->ki", vector, np.einsum("kij,ki->kj", vector, np.nan_to_num(gradient)) / value)


def _to_second_order(step: Floats, gradient: Floats, hessian: Floats) -> Floats:
    return np.einsum("ki,ki->k", step, gradient) + 0.5 * np.einsum("ki,kij,kj->k", step, hessian, step)


def stencil(d: int, cross: bool = True) -> Floats:
    """Points 0, +-e_i, and if `cross` +-(e_i + e_j) for i < j, in steps."""
    unit = np.eye(d)
    pairs = [unit[i] + unit[j] for i in range(d) for j in range(i + 1, d)] if cross else []
    moves = np.array([*unit, *pairs]).reshape(d + len(pairs), d)
    return np.concatenate([np.zeros((1, d)), moves, -moves])


def derivatives(f: Floats, d: int, cross: Floats | None, h: float = STEP) -> tuple[Floats, Floats, Floats]:
    """Value (k,), gradient (k, d) and Hessian (k, d, d) from values (k, P), all to the square of the step."""
    centre, n = f[:, 0], (f.shape[1] - 1) // 2
    plus, minus = f[:, 1 : 1 + n], f[:, 1 + n :]
    curve = (plus - 2.0 * centre[:, None] + minus) / h**2
    hessian = np.zeros((f.shape[0], d, d)) if cross is None else cross.copy()
    hessian[:, np.arange(d), np.arange(d)] = curve[:, :d]
    if cross is None:
        for at, (i, j) in enumerate(combinations(range(d), 2), start=d):
            hessian[:, i, j] = hessian[:, j, i] = 0.5 * (curve[:, at] - curve[:, i] - curve[:, j])
    return centre, (plus[:, :d] - minus[:, :d]) / (2.0 * h), hessian
