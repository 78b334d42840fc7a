"""Where the uncertainty comes from: the law of total variance over the hyperparameters, and what empirical Bayes drops.

    Var(b | y) = E[Var(b | theta, y)] + Var(E[b | theta, y])

The first part, "given hyperparameters", would be left if the hyperparameters theta were known; the second is what not
knowing them adds. Empirical Bayes puts theta at the maximum of the marginal likelihood and reports
Var(b | theta_hat, y) alone: it leaves the second part out, and it evaluates the first at one point where full Bayes
averages it. The two errors can have opposite signs. Where theta_hat lies at a small group sd (often exactly zero, with
few groups), both make its intervals too short; where it lies at a larger group sd or sigma than the average of what is
plausible, the conditional variance at theta_hat exceeds the average one and its intervals can be LONGER than full
Bayes'.

All moments are sums over the weighted nodes, so that the two parts add up to the posterior variance of the tables by
construction. Where NUTS sampled the coefficients, the moments given theta are the exact ones at some of its draws.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.errors import FinettiError
from finetti.inference.infer import infer
from finetti.inference.sampled import SampledConditional
from finetti.posterior.companions import companion, memory
from finetti.posterior.groups import factor_index
from finetti.posterior.variance_parts import (
    DRAWN_NODES,
    Parts,
    explored_coefficients,
    group_parts,
    population_parts,
)

if TYPE_CHECKING:
    from finetti.posterior.fit import Fit

__all__ = ["Uncertainty", "empirical_companion", "uncertainty"]

Floats = npt.NDArray[np.float64]

# a ratio of lengths within this of 1 is called the same
SAME = 0.005


class Uncertainty(pd.DataFrame):
    """Table of the two parts of the posterior variance. Made by `Fit.uncertainty`.

    Attributes
    ----------
    notes : tuple of str
        Sentences: what was found, and what to know when reading the table.
    """

    _metadata = ["notes"]  # noqa: RUF012
    notes: tuple[str, ...]

    @property
    def _constructor(self) -> type[Uncertainty]:
        return Uncertainty


def uncertainty(fit: Fit, name: str | None = None) -> Uncertainty:
    """Split the posterior variance of every coefficient: what is left with known hyperparameters, and what they add.

    Parameters
    ----------
    fit : Fit
        What `finetti.fit` returned.
    name : str, optional
        Name of a grouping term; by default all terms. The population's coefficients are always there.

    Returns
    -------
    Uncertainty
        A DataFrame. Its index are labels: `beta[Days]` for a population coefficient, `Subject[308, Days]` for the whole
        coefficient of a group, population value plus deviation, as in `Fit.groups`. Columns `term` ("beta" or the
        grouping term), `level`, `coefficient`, `n` (rows), then in squared units of the coefficient

        - `given_hyperparameters` = E[Var(b | theta, y)],
        - `from_hyperparameters` = Var(E[b | theta, y]),
        - `total`, their sum, the posterior variance, and `share` = from_hyperparameters / total;

        and of the empirical-Bayes analysis of the same model

        - `eb_sd`, its posterior sd, the hyperparameters taken as known at their estimates,
        - `eb_interval_ratio`, the length of its 90 % interval over that of full Bayes.

        A ratio below 1 is the overconfidence of empirical Bayes. The ratio can exceed 1: its point estimate then stands
        at a larger group sd or sigma than the average of what is plausible, so that it claims less than the data tell.
        A value is NaN where its moment does not exist, where a coefficient is not identified, and where empirical Bayes
        cannot be fitted; `notes` say so. A population coefficient with a prior that is not normal is explored beside
        the hyperparameters; what these explain is then found by regression over the nodes.

    Raises
    ------
    FinettiError
        If there is no such term.

    References
    ----------
    Morris (1983), Parametric empirical Bayes inference, J. Amer. Statist. Assoc. 78, 47-55.
    Kass and Steffey (1989), Approximate Bayesian inference in conditionally independent hierarchical models,
    J. Amer. Statist. Assoc. 84, 717-726.

    Examples
    --------
    >>> import finetti as fi
    >>> schools = fi.datasets.load("eight_schools")
    >>> priors = {"Intercept": fi.normal(0, 5), "sd": fi.half_cauchy(5)}
    >>> fit = fi.fit("effect | se(se) ~ 1 + (1 | school)", schools, priors=priors)
    >>> table = fit.uncertainty("school")
    >>> table.loc[["school[A, Intercept]", "school[H, Intercept]"], ["total", "share", "eb_interval_ratio"]].round(1)
                          total  share  eb_interval_ratio
    parameter
    school[A, Intercept]   31.3    0.2                0.6
    school[H, Intercept]   27.9    0.0                0.6
    >>> print(table.notes[0][:41])
    not knowing the hyperparameters makes 3 %
    """
    design = fit.model.design
    names = fit.group_names if name is None else (fit.group_names[factor_index(fit.inference, name)],)
    notes: list[str] = []
    eb = empirical_companion(fit, notes)
    frames = []
    if design.columns:
        labels = [f"beta[{c}]" for c in design.columns]
        identity = _identity("beta", ("",), design.columns, np.array([design.y.size]))
        frames.append(_frame(labels, identity, population_parts(fit), None if eb is None else population_parts(eb)))
        held = [label if label in labels else "beta[Intercept]" for label in explored_coefficients(fit)]
        frames[0].loc[held, ["eb_sd", "eb_interval_ratio"]] = np.nan  # empirical Bayes takes these as known
    for term in names:
        f = design.factors[factor_index(fit.inference, term)]
        identity = _identity(term, f.levels, f.coefficients, np.bincount(f.index, minlength=len(f.levels)))
        labels = [f"{term}[{level}, {c}]" for level in f.levels for c in f.coefficients]
        frames.append(_frame(labels, identity, group_parts(fit, term), None if eb is None else group_parts(eb, term)))
    table = Uncertainty(pd.concat(frames))
    table.index.name = "parameter"
    table.notes = tuple(_about(fit) + notes + _reading(table, eb is fit))
    return table


def _identity(
    term: str, levels: tuple[str, ...], coefficients: tuple[str, ...], n: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """The columns that say what a row is about."""
    J, q = len(levels), len(coefficients)
    return {
        "term": np.full(J * q, term, dtype=object),
        "level": np.repeat(np.array(levels, dtype=object), q),
        "coefficient": np.tile(np.array(coefficients, dtype=object), J),
        "n": np.repeat(n, q),
    }


def _frame(labels: list[str], identity: dict[str, Any], full: Parts, eb: Parts | None) -> pd.DataFrame:
    total = full.given + full.between
    none = np.full(total.size, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = {
            "given_hyperparameters": full.given,
            "from_hyperparameters": full.between,
            "total": total,
            "share": np.where(total > 0.0, full.between / total, np.where(np.isnan(total), np.nan, 0.0)),
            "eb_sd": none if eb is None else np.sqrt(eb.given + eb.between),
            "eb_interval_ratio": none if eb is None else np.where(full.length > 0.0, eb.length / full.length, np.nan),
        }
    return pd.DataFrame(identity | columns, index=pd.Index(labels, dtype=object))


# --- empirical Bayes -------------------------------------------------------------------------------


def empirical_companion(fit: Fit, notes: list[str]) -> Fit | None:
    """Return the empirical-Bayes analysis: hyperparameters at their estimates, unpooled and complete terms as they are.

    Of a fit that is one already, itself; None where it cannot be made, and then a note says why.
    """
    pooling = fit.model.pooling
    kinds = {name: "empirical" if kind == "partial" else kind for name, kind in pooling.items()}
    try:
        if "partial" in pooling.values():
            return companion(fit, kinds)
        if "empirical" in pooling.values() or fit.inference.coordinates.d == 0:
            return fit
        key = ("companion", "only sigma")  # no term has a parent distribution: what is left to estimate is sigma
        if key not in memory(fit):
            bound = replace(fit.model, model=replace(fit.model.model, pooling="empirical"))
            memory(fit)[key] = type(fit)(infer(bound, seed=fit.seed), fit.n_draws, fit.seed)
        return memory(fit)[key]  # type: ignore[return-value]
    except FinettiError as error:
        notes.append(f"eb_sd and eb_interval_ratio are NaN, since empirical Bayes cannot be fitted here: {error}")
        return None


# --- words -----------------------------------------------------------------------------------------


def _about(fit: Fit) -> list[str]:
    """What kind of posterior the parts are of."""
    inference, notes = fit.inference, []
    coordinates = inference.coordinates
    held = [name for name, kind in fit.model.pooling.items() if kind == "empirical"]
    if coordinates.d == 0 and inference.estimate is not None:
        notes.append(
            "this is an empirical-Bayes fit: its hyperparameters are held at their estimates, so that "
            "from_hyperparameters is 0 because it was left out, not because they are known. Fit with pooling='partial' "
            "to see it"
        )
    elif coordinates.d == 0:
        notes.append("the model has no free hyperparameters, so that none of the uncertainty comes from them")
    elif held:
        notes.append(
            f"the hyperparameters of {', '.join(held)} are held at their estimates (empirical Bayes): what not knowing "
            "them would add is left out"
        )
    explored = list(explored_coefficients(fit))
    if explored:
        notes.append(
            f"the prior of {', '.join(explored)} is not normal, so that it is explored beside the hyperparameters: "
            "what these explain is found by regression over the nodes, and empirical Bayes holds it at a point, so "
            "that the other coefficients' eb_sd leave out that it is not known"
        )
    endless = [
        f"beta[{c}]"
        for c, index in zip(fit.model.design.columns, inference.coefficient_tails, strict=True)
        if index <= 2.0
    ]
    if endless:
        notes.append(
            f"the posterior variance of {', '.join(endless)} does not exist, and its parts are NaN; its intervals do"
        )
    if isinstance(inference.conditional, SampledConditional):
        notes.append(
            f"NUTS sampled the coefficients; the two parts are exact moments given theta at {DRAWN_NODES} of its "
            "draws, and their sum agrees with the variance of the draws up to Monte Carlo error"
        )
    return notes


def _reading(table: pd.DataFrame, same: bool) -> list[str]:
    """What the numbers say, of the groups where there are any."""
    notes, rows = [], table["term"].to_numpy() != "beta"
    what = "group coefficients" if rows.any() else "population coefficients"
    rows = rows if rows.any() else ~rows

    def column(name: str) -> Floats:
        return table[name].to_numpy(float)[rows]

    share, ratio = column("share"), column("eb_interval_ratio")
    if np.nanmax(share, initial=0.0) > 0.0:
        low, middle, high = (100.0 * v for v in np.nanquantile(share, [0.0, 0.5, 1.0]))
        notes.append(
            f"not knowing the hyperparameters makes {middle:.0f} % of the posterior variance of the {what} (median; "
            f"from {low:.0f} % to {high:.0f} %)"
        )
    if same or np.isnan(ratio).all():
        return notes
    below, above = int((ratio < 1.0 - SAME).sum()), int((ratio > 1.0 + SAME).sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        at_point = column("eb_sd") ** 2 / column("given_hyperparameters")
    notes.append(
        f"empirical Bayes' 90 % intervals are {np.nanmedian(ratio):.2f} times as long as full Bayes' (median of "
        f"{what}): shorter in {below} of {ratio.size}, longer in {above}. At its point estimate the variance given the "
        f"hyperparameters is {np.nanmedian(at_point):.2f} times the average over plausible ones"
    )
    if above:
        notes.append(
            "where eb_interval_ratio exceeds 1, the point estimate of empirical Bayes stands at a larger group sd or "
            "sigma than the average of what is plausible: overconfidence is not its only failure"
        )
    return notes
