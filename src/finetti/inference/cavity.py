"""p(theta | y without some rows) as a target of the outer step: log p(y, theta) - log p(y_I | y_-I, theta).

No model of its own is built, so that columns and levels which the other rows do not show stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from finetti.data.variants import without_rows
from finetti.errors import FinettiError, PriorError
from finetti.inference.gaussian import GaussianInner
from finetti.inference.hyper import HyperPosterior, Settings, explore
from finetti.inference.tails import tail_indices
from finetti.inference.target import GaussianTarget

if TYPE_CHECKING:
    from finetti.data.bound import Bound

__all__ = ["CavityTarget", "explore_without", "proper_without"]

Floats = npt.NDArray[np.float64]

# step of the numerical gradient in coordinates of order one; its error is about the square of it
STEP = 1e-4


@dataclass(frozen=True)
class CavityTarget:
    """`full` with rows left out whose log density given all others `left_out` returns, (S, d) -> (S,)."""

    full: GaussianTarget
    left_out: Callable[[Floats], Floats]
    start: Floats  # (K, d)

    @property
    def names(self) -> tuple[str, ...]:
        return self.full.names

    @property
    def cost(self) -> float:
        return 2.0 * self.full.cost

    def log_density(self, theta: Floats) -> tuple[Floats, tuple[Floats, ...]]:
        value, _ = self.full.log_density(theta)
        left = self.left_out(theta)
        return value - left, (left,)

    def gradient(self, theta: Floats) -> tuple[Floats, Floats]:
        S, d = theta.shape
        value, slope = self.full.gradient(theta)
        around = np.concatenate([theta[None], theta + STEP * np.eye(d)[:, None], theta - STEP * np.eye(d)[:, None]])
        left = self.left_out(around.reshape(-1, d)).reshape(1 + 2 * d, S)
        return value - left[0], slope - (left[1 : 1 + d] - left[1 + d :]).T / (2.0 * STEP)

    def starts(self) -> Floats:
        return self.start

    def curvature(self) -> Floats:
        return self.full.curvature()


def explore_without(
    full: GaussianTarget, left_out: Callable[[Floats], Floats], start: Floats, seed: int, settings: Settings
) -> HyperPosterior:
    """Explore the posterior without some rows; the payload is their log density at the nodes.

    Raises
    ------
    InferenceError
        If the density is not finite at any start.
    """
    return explore(CavityTarget(full, left_out, start), seed, settings)


def proper_without(bound: Bound, rows: npt.NDArray[np.int64]) -> bool:
    """Whether the posterior of the hyperparameters stays proper without these rows."""
    try:
        inner = GaussianInner.build(without_rows(bound, rows))
        with np.errstate(all="ignore"):
            tail_indices(GaussianTarget(inner))
    except PriorError:
        return False
    except (FinettiError, np.linalg.LinAlgError):
        return True  # columns that the other rows do not show: the densities themselves tell
    return True
