"""The tables of a meta-analysis as its figures read them, with effects written as people read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetti.errors import FinettiError
from finetti.show import style as st
from finetti.show.numbers import shared_decimals
from finetti.show.reading import is_meta

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Studies", "studies_of"]

Floats = npt.NDArray[np.float64]

PROBS = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Studies:
    """A meta-analysis, k studies in the order given.

    Attributes
    ----------
    effect_name : what the user calls the effect
    names : (k,); cluster : (k,) or None
    effect, se, share, mean, low, high : (k,) of each study; mean, low, high after partial pooling (5 and 95 %)
    overall, new : (middle, q5, q95) of the overall effect and of the true effect in a new study
    tau : (q50, q5, q95) of the heterogeneity; of the total over both levels where there are clusters
    I2 : median share of heterogeneity in the variance of a typical study, NaN where the table has none
    moderated : whether the overall effect is one at the means of covariates
    """

    effect_name: str
    names: list[str]
    cluster: list[str] | None
    effect: Floats
    se: Floats
    share: Floats
    mean: Floats
    low: Floats
    high: Floats
    overall: tuple[float, float, float]
    new: tuple[float, float, float]
    tau: tuple[float, float, float]
    I2: float
    moderated: bool

    @property
    def places(self) -> int | None:
        """Decimals for an effect: two digits of the sd of the overall effect."""
        return shared_decimals([(self.overall[2] - self.overall[1]) / 3.29], digits=2)

    def text(self, value: float) -> str:
        """Write one effect."""
        return st.signed(value, self.places)

    def interval(self, middle: float, low: float, high: float) -> str:
        """Write an effect and its interval."""
        return f"{self.text(middle)} [{self.text(low)}, {self.text(high)}]"


def studies_of(fit: Any, figure: str) -> Studies:
    """Read the tables of a meta-analysis.

    Raises
    ------
    FinettiError
        If the fit is none.
    """
    if not is_meta(fit):
        raise FinettiError(
            f"plot.{figure} shows the studies of a meta-analysis, but {fit.formula!r} was fitted by fi.fit. "
            "Use fi.meta(effect, se, data), or plot.forest for groups"
        )
    table: pd.DataFrame = fit.studies(probs=PROBS)
    total = fit.overall(probs=PROBS)
    spread = fit.heterogeneity(probs=PROBS)
    column = {c: table[c].to_numpy(float) for c in ("effect", "se", "share", "mean", "q5", "q50", "q95")}
    # A mean that does not exist (few studies, heavy-tailed prior) is NaN; its median stands in.
    mean = np.where(np.isfinite(column["mean"]), column["mean"], column["q50"])
    return Studies(
        str(getattr(fit, "effect_name", "effect")), [str(v) for v in table["study"]],
        [str(v) for v in table["cluster"]] if "cluster" in table else None,
        column["effect"], column["se"], column["share"], mean, column["q5"], column["q95"],
        _triple(total.loc["overall"]), _triple(total.loc["new study"]), _tau(spread),
        float(spread.loc["I2", "q50"]) if "I2" in spread.index else float("nan"),
        bool(getattr(fit, "has_moderators", False)),
    )  # fmt: skip


def _triple(row: Any) -> tuple[float, float, float]:
    middle = float(row["mean"]) if np.isfinite(row["mean"]) else float(row["q50"])
    return middle, float(row["q5"]), float(row["q95"])


def _tau(spread: pd.DataFrame) -> tuple[float, float, float]:
    rows = [name for name in spread.index if name in ("tau", "tau_cluster", "tau_study")]
    values = spread.loc[rows, ["q50", "q5", "q95"]].to_numpy(float)
    # two levels: their squares add up, and so (nearly) do the squares of their medians
    middle, low, high = np.sqrt(np.sum(values**2, axis=0))
    return float(middle), float(low), float(high)
