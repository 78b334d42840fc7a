"""The numbers behind a figure of one grouping factor: one row per level, for one coefficient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from finetti.errors import FinettiError, available
from finetti.show.nodes import response_of
from finetti.show.numbers import shared_decimals
from finetti.show.reading import pooling_of
from finetti.show.style import shortened

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["GroupRows", "coefficients", "select", "shortened"]


@dataclass(frozen=True)
class GroupRows:
    """The rows of `fit.groups(group)` for one coefficient, ordered by the partially pooled estimate."""

    group: str
    coefficient: str
    response: str
    predictors: tuple[str, ...]
    pooling: str
    level: list[str]
    n: np.ndarray
    raw: np.ndarray
    raw_se: np.ndarray
    weight: np.ndarray
    population: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def axis(self) -> str:
        """What the numbers mean, in units of the response: its level, or its change with a predictor."""
        response, name, each = shortened(self.response), shortened(self.coefficient), shortened(self.group)
        if self.coefficient == "Intercept":
            return f"{response}{self._where}, by {each}"
        if "[" in self.coefficient:  # a category against the reference
            return f"difference of {response} for {name}, by {each}"
        return f"change of {response} per unit of {name}, by {each}"

    @property
    def _where(self) -> str:
        """The place of an intercept: where every predictor is 0."""
        names = [name for name in self.predictors if name != "Intercept" and ":" not in name]
        if not names:
            return ""
        if any("[" in name for name in names):
            return " with predictors at 0 or their reference category"
        if len(names) > 2:
            return " where all predictors are 0"
        return " at " + " and ".join(f"{shortened(name)} = 0" for name in names)

    @property
    def common_population(self) -> float | None:
        """The population value where it is the same for all groups."""
        finite = self.population[np.isfinite(self.population)]
        if not finite.size:
            return None
        spread = np.abs(self.high - self.low)
        scale = max(float(np.max(np.abs(finite))), float(np.max(spread[np.isfinite(spread)], initial=0.0)))
        return float(finite[0]) if np.ptp(finite) <= 1e-6 * scale else None

    @property
    def places(self) -> int | None:
        """Decimals for a single value: two digits of a typical group's sd."""
        return shared_decimals((self.high - self.low) / 3.29, digits=2)


def coefficients(fit: Any, group: str) -> list[str]:
    """Return the coefficients that vary by `group`, in the order of the model."""
    return [str(c) for c in dict.fromkeys(fit.groups(group)["coefficient"])]


def select(fit: Any, group: str | None, coefficient: str | None, figure: str = "shrinkage") -> GroupRows:
    """Return the rows for one grouping factor and coefficient, by default the first ones.

    Raises
    ------
    FinettiError
        If the model has no such group or coefficient; the message lists those it has.
    """
    names = [str(g) for g in fit.group_names]
    if not names:
        raise FinettiError(
            f"plot.{figure} needs a grouping factor, but {fit.formula!r} has none. Add a term such as (1 | group)."
        )
    if group is None:
        group = names[0]
    if group not in names:
        raise FinettiError(f"No grouping factor is called {group!r}: {available(str(group), names)}")
    table: pd.DataFrame = fit.groups(group)
    options = [str(c) for c in dict.fromkeys(table["coefficient"])]
    if coefficient is None:
        coefficient = options[0]
    if coefficient not in options:
        raise FinettiError(f"{coefficient!r} does not vary by {group!r}: {available(str(coefficient), options)}")
    table = table[table["coefficient"] == coefficient]
    # Groups without information have no raw estimate, so only the pooled one orders all of them.
    order = np.argsort(-table["mean"].fillna(table["q50"]).to_numpy(float), kind="stable")
    table = table.iloc[order]
    column = {c: table[c].to_numpy(float) for c in ("n", "raw", "raw_se", "weight", "population", "mean", "q5", "q95")}
    # A mean that does not exist (few groups, heavy-tailed hyperprior) is NaN; its median stands in for the dot.
    middle = np.where(np.isfinite(column["mean"]), column["mean"], table["q50"].to_numpy(float))
    own = [str(c) for factor in fit.model.design.factors if factor.name == group for c in factor.coefficients]
    predictors = tuple(dict.fromkeys([*map(str, fit.model.design.columns), *own]))
    return GroupRows(
        group, coefficient, response_of(fit), predictors,
        pooling_of(fit, group), [str(v) for v in table["level"]],
        column["n"], column["raw"], column["raw_se"], column["weight"], column["population"], middle,
        column["q5"], column["q95"],
    )  # fmt: skip
