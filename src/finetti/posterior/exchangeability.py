"""De Finetti in practice: were the groups draws from one parent, their labels without information.

Each group against the others. Leave group j out. At hyperparameters theta the other groups predict its own coefficients
with a normal law (`finetti.inference.deletion`), and over theta, weighted by p(theta | y without j),

    PIT_j = sum_s w_js Phi(delta_js / sd_js),

which is uniform if j is one more draw from the same parent. A PIT near 0 or 1 is a surprise; over the J groups the
p-values are adjusted by Holm's rule, so that exchangeable groups lead to any flag at all in 5 % of data sets. Of
several coefficients per group the joint p-value is the chi-squared tail of the whole vector, averaged over nodes.

All groups at once. The set of PITs is compared with uniform values: skewness, heavy tails or clusters of groups bend
their distribution even where no single group stands out (`finetti.posterior.parent_check`).

The labels. A column that is known of the groups and predicts their effects is information in the labels; the parent
must then depend on it (`finetti.posterior.group_predictors`).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.errors import FinettiError, FinettiWarning
from finetti.posterior.exchangeability_words import advice, column_words
from finetti.posterior.group_columns import group_columns
from finetti.posterior.group_predictors import column_table
from finetti.posterior.groups import factor_index
from finetti.posterior.surprise import LEVEL, calibration_table, surprise_table

if TYPE_CHECKING:
    from finetti.posterior.fit import Fit

__all__ = ["LEVEL", "Exchangeability", "exchangeability"]

Floats = npt.NDArray[np.float64]

# rows of the table that `print` shows
SHOWN = 8


@dataclass(frozen=True, eq=False, repr=False)
class Exchangeability:
    """Were the levels of a grouping term draws from one parent? Made by `Fit.exchangeability`.

    Attributes
    ----------
    group, coefficients, levels : the term
    level : probability that exchangeable groups lead to any flag (family-wise, Holm)
    table : DataFrame, one row per level and coefficient: `level, coefficient, n`; `estimate`, the level's own
        coefficient minus what the other groups predict, and `predicted_sd` of that; `pit`; `z`, the same as a normal
        score; `p`, two-sided; `p_joint` of all the level's coefficients; `p_adjusted`, Holm's over levels, and `flag`.
        NaN where a level's own rows do not determine the coefficient.
    calibration : DataFrame, one row per coefficient: `n_groups`, `distance`, the largest difference between the
        distribution of the PITs and the uniform one; `p_value` of their uniformity, from sets of exchangeable groups
        whose parent is estimated as here (`finetti.posterior.parent_check`); `pointwise_level` of the 95 % band
    columns : DataFrame, one row per column of the groups and coefficient: `column, coefficient, kind`; `effect`, the
        slope per unit of the column (or the largest `contrast` of two categories), `sd`, `q5`, `q95`; `p_value`,
        two-sided posterior tail probability; `p_adjusted` over all rows; `informative`; `explained`, share of the
        variance between groups that goes with the column; `pareto_k` and `how` it was computed; `advice`
    advice : what was found and what to do, in sentences
    values : the columns themselves, one value per level
    warning : why the fit failed its own checks, or None

    Examples
    --------
    >>> import finetti as fi
    >>> schools = fi.datasets.load("eight_schools")
    >>> priors = {"Intercept": fi.normal(0, 5), "sd": fi.half_cauchy(5)}
    >>> found = fi.fit("effect | se(se) ~ 1 + (1 | school)", schools, priors=priors).exchangeability()
    >>> found.flagged
    ()
    >>> found.table.loc[0, "level"], round(float(found.table.loc[0, "pit"]), 1)
    ('A', 0.9)
    """

    group: str
    coefficients: tuple[str, ...]
    levels: tuple[str, ...]
    level: float
    table: pd.DataFrame
    calibration: pd.DataFrame
    columns: pd.DataFrame
    advice: tuple[str, ...]
    values: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    warning: str | None = None

    @property
    def flagged(self) -> tuple[str, ...]:
        """Levels that are surprising given all others."""
        return tuple(dict.fromkeys(self.table.loc[self.table["flag"], "level"]))

    @property
    def informative(self) -> tuple[str, ...]:
        """Columns that predict the effects of the groups."""
        return tuple(dict.fromkeys(self.columns.loc[self.columns["informative"], "column"]))

    def __str__(self) -> str:
        parts = [] if self.warning is None else [f"*** {self.warning} ***"]
        parts.append(f"{self.group}: {len(self.levels)} levels, {', '.join(self.coefficients)}")
        parts += [f"- {sentence}" for sentence in self.advice]
        order = self.table.sort_values("p_joint", kind="stable")
        shown = order.drop(columns=["p_joint"] if len(self.coefficients) == 1 else [])
        head = f"Most surprising of {len(shown):,} rows:" if len(shown) > SHOWN else "Each level against the others:"
        parts.append(f"{head}\n{_text(shown.head(SHOWN))}")
        if len(self.columns):
            brief = [
                "column",
                "coefficient",
                "contrast",
                "effect",
                "q5",
                "q95",
                "p_adjusted",
                "informative",
                "explained",
            ]
            if (self.columns["contrast"] == "").all():
                brief.remove("contrast")
            parts.append(f"Columns of the groups:\n{_text(self.columns[brief])}")
        return "\n\n".join(parts)

    __repr__ = __str__


def _text(table: pd.DataFrame) -> str:
    with pd.option_context("display.width", 130, "display.max_columns", 20):
        return table.to_string(index=False, float_format=lambda v: f"{v:.3g}")


def exchangeability(fit: Fit, group: str, by: Any = None) -> Exchangeability:
    """Test whether the levels of a grouping term are exchangeable; see `Exchangeability`.

    Parameters
    ----------
    fit : Fit
    group : str
        The grouping term.
    by : str, list of str, table or Series, optional
        Columns that are known of the groups, to be tested beside their size, their known error and the order in which
        they appear: names of columns of the data; or a table with one row per row of the data, or with one row per
        level and the column of the group in it; or a pandas Series indexed by level. A column must have the same value
        in all rows of a level. Numbers and dates are tested by a slope, text and categories by their differences (so
        make codes text).

    Returns
    -------
    Exchangeability

    Raises
    ------
    FinettiError
        If there is no such term, if it has one level or is not partially pooled, or if a column cannot be read.
    """
    factor = fit.model.design.factors[factor_index(fit.inference, group)]
    _check(fit, group)
    warning = None
    if not fit.diagnostics.ok:
        warning = f"this fit failed its own checks: {fit.diagnostics.warnings[0]}"
        warnings.warn(warning, FinettiWarning, stacklevel=3)
    columns = group_columns(fit, group, by)  # before any work: most mistakes are here
    table, notes = surprise_table(fit, group)
    calibration = calibration_table(fit, group, table)
    found = column_table(fit, group, columns, LEVEL)
    moderators = getattr(fit, "has_moderators", None)  # of a meta-analysis, which has no formula of the user's
    found["advice"] = [column_words(row, group, moderators) for row in found.to_dict("records")]
    sentences = advice(group, table, calibration, found) + notes
    if warning is not None:
        for frame in (table, calibration, found):
            frame.attrs["warning"] = warning
    return Exchangeability(
        group, tuple(factor.coefficients), tuple(factor.levels), LEVEL, table, calibration, found, tuple(sentences),
        {c.name: c.values for c in columns}, warning,
    )  # fmt: skip


def _check(fit: Fit, group: str) -> None:
    kind, factor = fit.model.pooling[group], next(f for f in fit.model.design.factors if f.name == group)
    if kind in ("none", "complete"):
        what = {"none": "has no parent distribution", "complete": "has groups that are all equal"}[kind]
        raise FinettiError(
            f"{group!r} was fitted with pooling={kind!r} and so {what}: there is nothing that its groups could be "
            "exchangeable draws from. Fit it with pooling='partial' (the default)"
        )
    if len(factor.levels) < 2:
        raise FinettiError(
            f"{group!r} has one level only ({factor.levels[0]!r}); whether groups are exchangeable takes at least two. "
            f"Fit data with more levels of {group!r}, or drop the term"
        )
