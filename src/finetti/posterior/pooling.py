"""Every group under four analyses: no pooling, complete pooling, empirical Bayes and full Bayes.

    no pooling         b_j free (sd infinite)        each group alone, the other terms as they are
    complete pooling   b_j = population (sd zero)    all groups alike
    empirical Bayes    b_j | y, theta-hat            the parent at the maximum of the marginal likelihood
    full Bayes         b_j | y                       the parent integrated over

on the same data with the same priors. `no_pooling` is a fit that frees the whole term; it is not the column `raw` of
`Fit.groups`, which is what a level's rows say given the partially pooled rest.

Which analysis is right is a question of prediction. `scores` leaves out rows (`loo`) and whole groups (`logo`), and
sums the log predictive density of what was left out. Under no pooling an unseen group has a flat prior, its predictive
density is zero everywhere in the limit, and logo is minus infinity by definition; a row that alone determines a
coefficient of its group has no loo there (NaN). Empirical Bayes estimates the hyperparameters anew each time
(`finetti.inference.folds`): held at their estimate from all the data they would have seen what they predict.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.errors import FinettiError
from finetti.inference.left_out import exact_conditional
from finetti.posterior.companions import companion
from finetti.posterior.groups import factor_index, node_quantiles
from finetti.posterior.mixtures import mixture_moments
from finetti.posterior.moments import group_nodes
from finetti.posterior.pooling_scores import ANALYSES, IN_WORDS, pooling_scores
from finetti.posterior.scores import empirical, some
from finetti.posterior.summary import check_probs

if TYPE_CHECKING:
    from finetti.data.design import Factor
    from finetti.posterior.fit import Fit

__all__ = ["ANALYSES", "About", "Pooling", "pooling"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class About:
    """What a table of pooling is about.

    Attributes
    ----------
    group, response : names of the grouping term and of the response
    predictors : columns of the population part and of the term
    share : probability that an interval holds
    """

    group: str
    response: str
    predictors: tuple[str, ...]
    share: float


class Pooling(pd.DataFrame):
    """Table of every group under four kinds of pooling. Made by `Fit.pooling`.

    One row per level and coefficient: `level, coefficient, n`, then for each analysis A of `no_pooling`,
    `complete_pooling`, `empirical_bayes`, `full_bayes` the mean `A` of the whole coefficient, `A_sd`, the ends
    `A_low`, `A_high` of its interval, and `A_length` = `A_high` - `A_low`. NaN where not identified (see `notes`).
    """

    _metadata = ["_parts"]  # noqa: RUF012
    _parts: _Parts

    @property
    def _constructor(self) -> type[Pooling]:
        return Pooling

    @property
    def about(self) -> About:
        """What the table is about: group, response, predictors, share of the intervals."""
        return self._parts.about

    @property
    def scores(self) -> pd.DataFrame:
        """Predictive scores of the four analyses, computed when first asked for.

        Index: the analyses. Columns, in natural-log units, higher being better: `loo` and `loo_se`, rows left out;
        `loo_diff` and `loo_dse`, how far it is behind the best of them, and the standard error of that from paired
        differences; the same with `logo`, groups left out; `loo_shared`, the sum over the rows that every analysis can
        predict; `n_bad_k`, rows and groups whose importance weights are not trusted.
        """
        return self._parts.scores

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know when reading the table and its scores, in plain sentences. Computes the scores."""
        return self._parts.notes + self._parts.verdict

    @property
    def table_notes(self) -> tuple[str, ...]:
        """The notes about the table alone."""
        return self._parts.notes


def pooling(fit: Fit, name: str, probs: npt.ArrayLike = (0.05, 0.5, 0.95)) -> Pooling:
    """Every group under no, complete, empirical-Bayes and full-Bayes pooling, and how well each predicts.

    Parameters
    ----------
    fit : Fit
    name : str
        The grouping term whose pooling changes. Under no and complete pooling the other terms keep theirs; empirical
        and full Bayes treat all partially pooled terms alike.
    probs : sequence of float
        The smallest and the largest are the ends of the intervals; by default they hold 90 %.

    Returns
    -------
    Pooling
        A DataFrame with attributes `scores`, `notes` and `table_notes`.

    Raises
    ------
    FinettiError
        If there is no such term, or `probs` names fewer than two probabilities.

    References
    ----------
    Gelman and Hill (2007), Data Analysis Using Regression and Multilevel/Hierarchical Models, chapter 12.

    Examples
    --------
    >>> import finetti as fi
    >>> schools = fi.datasets.load("eight_schools")
    >>> fit = fi.fit("effect | se(se) ~ 1 + (1 | school)", schools, priors={"sd": fi.half_cauchy(5)})
    >>> table = fit.pooling("school")
    >>> table[["level", "no_pooling", "complete_pooling", "empirical_bayes", "full_bayes"]].head(2).round(0)
      level  no_pooling  complete_pooling  empirical_bayes  full_bayes
    0     A        28.0               8.0              8.0         9.0
    1     B         8.0               8.0              8.0         8.0
    >>> table.scores["logo"].round(1).tolist()
    [-inf, -30.5, -30.5, -30.8]
    """
    p = check_probs(probs)
    if p.size < 2:
        raise FinettiError(f"probs={probs!r} must name both ends of the intervals, such as (0.05, 0.95)")
    factor = fit.model.design.factors[factor_index(fit.inference, name)]
    fits = _analyses(fit, name)
    J, q = len(factor.levels), len(factor.coefficients)
    frame: dict[str, Any] = {
        "level": np.repeat(np.array(factor.levels, dtype=object), q),
        "coefficient": np.tile(np.array(factor.coefficients, dtype=object), J),
        "n": np.repeat(np.bincount(factor.index, minlength=J), q),
    }
    notes: list[str] = []
    for key, one in fits.items():
        values = np.full((5, J * q), np.nan)
        if isinstance(one, str):
            notes.append(f"{IN_WORDS[key]} could not be computed: {one}")
        else:
            values[:4] = _moments(one, name, np.array([p.min(), p.max()]))
            values[4] = values[3] - values[2]
            notes += _table_notes(key, one, name, factor, values[0].reshape(J, q))
        frame |= dict(zip((key, f"{key}_sd", f"{key}_low", f"{key}_high", f"{key}_length"), values, strict=True))
    table = Pooling(frame)
    own = fit.model.design
    response = getattr(fit, "effect_name", None) or str(fit.model.model.formula.response.expression)
    predictors = tuple(dict.fromkeys([*own.columns, *factor.coefficients]))
    about = About(name, response, predictors, float(p.max() - p.min()))
    table._parts = _Parts(about, fits, tuple(notes))
    return table


def _analyses(fit: Fit, name: str) -> dict[str, Fit | str]:
    """The four fits, or in words why one could not be made."""
    own = fit.model.pooling
    modelled = [term for term, kind in own.items() if kind in ("partial", "empirical") or term == name]
    kinds: dict[str, dict[str, str]] = {
        "no_pooling": {name: "none"},
        "complete_pooling": {name: "complete"},
        "empirical_bayes": dict.fromkeys(modelled, "empirical"),
        "full_bayes": dict.fromkeys(modelled, "partial"),
    }
    out: dict[str, Fit | str] = {}
    for key, kind in kinds.items():
        try:
            one = companion(fit, kind)
            out[key] = _SATURATED.format(name=name) if key == "no_pooling" and _saturated(one) else one
        except FinettiError as error:
            out[key] = str(error)
    return out


_SATURATED = (
    "with a coefficient for every row, {name!r} unpooled leaves no row over to tell sigma from, and its posterior is "
    "its prior; give known errors with `y | se(s)`, or more rows in a group"
)


def _saturated(fit: Fit) -> bool:
    """Whether the unpenalised coefficients use up all rows, so that the data say nothing about sigma."""
    inner = exact_conditional(fit.inference.conditional).inner
    if inner.hyper.sigma_at == -2 or inner.system.se2.size:
        return False
    return bool(inner.n_free + len(inner.basis.integrated) + len(inner.basis.given) >= fit.n_rows)


def _moments(fit: Fit, name: str, ends: Floats) -> Floats:
    """Mean, sd and the ends of the interval, (4, J * q)."""
    at = group_nodes(fit, name)
    mean, sd = mixture_moments(at.w, at.mean, at.variance)
    low, high = np.moveaxis(node_quantiles(fit.inference, at.w, at.mean, at.variance, ends), -1, 0)
    out = np.stack([mean, sd, low, high]).reshape(4, -1)
    out[:, np.isnan(out[0])] = np.nan
    return out


# --- words ---------------------------------------------------------------------------------------


def _table_notes(key: str, fit: Fit, name: str, factor: Factor, mean: Floats) -> list[str]:
    out, words = [], IN_WORDS[key]
    for k, c in enumerate(factor.coefficients):
        unknown = [level for level, v in zip(factor.levels, mean[:, k], strict=True) if np.isnan(v)]
        if unknown:
            out.append(
                f"{words}: the rows of {len(unknown):,} of {len(factor.levels):,} levels of {name} do not determine "
                f"{c}, NaN: {some(unknown)}"
            )
    if key == "complete_pooling":
        maps = fit.inference.conditional.population_maps[factor_index(fit.inference, name)]
        fixed = [c for c, row in zip(factor.coefficients, maps, strict=True) if not row.any()]
        if fixed:
            out.append(f"{words}: the population part has no {some(fixed)}, which is then zero in every group")
    if empirical(fit) and fit.inference.estimate is not None:
        edge = [label for label in fit.inference.estimate.boundary if label.startswith(f"sd_{name}[")]
        if edge:
            out.append(
                f"{words} estimates {some(edge)} at exactly zero: all groups alike there, as under complete pooling, "
                "with no uncertainty about it"
            )
    if not fit.diagnostics.ok:
        out.append(f"{words}: this fit failed its own checks: {fit.diagnostics.warnings[0]}")
    return out


# --- scores --------------------------------------------------------------------------------------


class _Parts:
    """What a `Pooling` carries beside its columns; the scores cost more than the table and wait to be asked for."""

    def __init__(self, about: About, fits: dict[str, Fit | str], notes: tuple[str, ...]) -> None:
        self.about, self.notes, self._fits = about, notes, fits

    def __getstate__(self) -> dict[str, Any]:  # to be copied and sent without the fits
        return {"about": self.about, "notes": self.notes, "_fits": {}, "_scored": self._scored}

    @property
    def scores(self) -> pd.DataFrame:
        return self._scored[0].copy()

    @property
    def verdict(self) -> tuple[str, ...]:
        return self._scored[1]

    @cached_property
    def _scored(self) -> tuple[pd.DataFrame, tuple[str, ...]]:
        return pooling_scores(self.about.group, self._fits)
