"""Predictive score of one fit, part by part: what comparisons of models and of pooling are made of.

A part is a row, or a whole group. Full posteriors are scored by `Fit.loo` and `Fit.logo`; an empirical fit, whose
hyperparameters have seen every part, estimates them anew without each (`finetti.inference.folds`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetti.inference.folds import Reestimated, reestimated
from finetti.posterior.companions import memory

if TYPE_CHECKING:
    from finetti.posterior.fit import Fit

__all__ = ["Score", "difference", "empirical", "score", "some", "total"]

Floats = npt.NDArray[np.float64]

# names that a sentence lists
NAMED = 5
# an error of an elpd that a note is about
WORTH_A_WORD = 1e-3


@dataclass(frozen=True)
class Score:
    """Log predictive density of every part, without it in the data.

    parts : (m,) -inf where the analysis says nothing of it, NaN where the other rows cannot estimate it
    p : effective number of parameters; NaN of groups
    bad : parts whose importance weights are not trusted and that could not be refitted
    notes : what to know about them
    """

    parts: Floats
    p: float
    bad: tuple[str, ...]
    notes: tuple[str, ...] = ()


def empirical(fit: Fit) -> bool:
    """Whether all hyperparameters of a fit were estimated and not integrated over."""
    return fit.inference.estimate is not None and fit.inference.coordinates.d == 0


def score(fit: Fit, group: str | None = None) -> Score:
    """Score rows, or the levels of a grouping term.

    Raises
    ------
    FinettiError
        If there is no such term, or it has one level only.
    """
    if group is None:
        loo = fit.loo()
        parts, p, bad = loo.loo_i, loo.p_loo, tuple(str(i) for i in loo.failed)
    else:
        logo = fit.logo(group)
        parts, p, bad = logo.logo_i, np.nan, tuple(str(level) for level in logo.failed)
    if not empirical(fit):
        return Score(parts, p, bad)
    anew = _anew(fit, group)
    # p is what a part gains by being in the data: the same part then, another score without it
    return Score(anew.elpd, p + float(np.sum(parts - anew.elpd)), (), _notes(anew, group))


def _anew(fit: Fit, group: str | None) -> Reestimated:
    kept, key = memory(fit), ("reestimated", group)
    if key not in kept:
        kept[key] = reestimated(fit.inference, group)
    return kept[key]  # type: ignore[return-value]


def _notes(anew: Reestimated, group: str | None) -> tuple[str, ...]:
    """Say how folds of empirical Bayes were estimated where it was not to the end."""
    left = int(np.sum(~anew.converged))
    if not left or anew.error < WORTH_A_WORD:
        return ()
    what = "rows" if group is None else f"levels of {group}"
    error = f", which may move their sum by about {anew.error:.2g}" if np.isfinite(anew.error) else ""
    return (
        f"empirical Bayes: without each of {left:,} of {anew.elpd.size:,} {what} the hyperparameters are estimated by "
        f"an expansion at the common estimate, since climbing to each maximum would take too long{error}",
    )


def total(parts: Floats) -> tuple[float, float]:
    """Sum over parts and its standard error, sqrt(m Var); NaN errors where a part has no finite score."""
    if not np.all(np.isfinite(parts)):
        return float(parts.sum()), np.nan
    return float(parts.sum()), float(np.sqrt(parts.size * np.var(parts)))


def difference(best: Floats, other: Floats) -> tuple[float, float]:
    """Sum of best - other over parts, and its standard error from the paired differences."""
    if not np.all(np.isfinite(best)):
        return np.nan, np.nan
    return total(best - other)


def some(names: Sequence[Any]) -> str:
    """The first few of many names, for a sentence."""
    return ", ".join(str(name) for name in names[:NAMED]) + (", ..." if len(names) > NAMED else "")
