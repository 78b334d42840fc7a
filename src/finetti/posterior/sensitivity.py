"""Does the answer depend on the prior: power-scaling of prior and likelihood, and other hyperpriors.

Power-scaling (see `finetti.posterior.power_scaling`) is local: how far the posterior moves as prior or likelihood gain
or lose a little weight. The table of alternatives is what a reader would ask for next: the same numbers under the
other priors that are in use for standard deviations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from finetti.inference.basis import prior_key
from finetti.linalg.blas import single_threaded
from finetti.posterior.alternatives import AS_FITTED, alternative_table
from finetti.posterior.power_scaling import evaluate, sensitivities

if TYPE_CHECKING:
    from finetti.posterior.fit import Fit

__all__ = ["BOTH", "CONFLICT", "DATA", "HELD", "PRIOR", "THRESHOLD", "UNIDENTIFIED", "Sensitivity", "sensitivity"]

# Kallioinen et al. (2023): about a shift by 0.3 sd per doubling of the power
THRESHOLD = 0.05
# sds per doubling: a pull that would by itself reach the threshold; weaker ones say nothing of direction
FAINT = 0.23
# posterior sds by which a median must move under an alternative to be worth reporting
NOTABLE = 0.5

DATA = "the data decide"
CONFLICT = "prior and data disagree (conflict)"
BOTH = "prior and data both count"
PRIOR = "the prior decides (weak likelihood)"
HELD = "held at one value"
UNIDENTIFIED = "not identified"

_COLUMNS = (
    "prior", "likelihood", "verdict", "prior_pull", "likelihood_pull", "hyperprior", "coefficient_prior",
    "observations",
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Sensitivity:
    """How far the posterior depends on prior and likelihood. Made by `Fit.sensitivity`.

    Attributes
    ----------
    table : pandas.DataFrame
        Index parameter. `prior`, `likelihood`: sensitivities per doubling of the power; `verdict` in words;
        `prior_pull`, `likelihood_pull`: shift of the posterior mean (of the log of a standard deviation, of the
        inverse hyperbolic tangent of a correlation) in posterior sds per doubling; the parts `hyperprior` (standard
        deviations, correlations, sigma) and `coefficient_prior` (population coefficients) of the prior alone; and
        `observations`, the likelihood of rows given their groups' effects, with the parent distribution left as it is.
    alternatives : pandas.DataFrame
        A row per alternative and parameter: `alternative` (the priors), `changed`, `parameter`, `mean, sd, q5, q50,
        q95`, `shift` of the median in posterior sds of the fit (of its 90 % interval over 3.29 where it has no sd),
        `pareto_k` of the reweighting, `refitted`.
    advice : tuple of str
        What was found and what to do.
    notes : tuple of str
        Alternatives that are left out, and why.
    """

    table: pd.DataFrame
    alternatives: pd.DataFrame
    advice: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        with pd.option_context("display.width", 140, "display.max_columns", 20, "display.max_rows", 100):
            lines = ["Sensitivity per doubling of the power of prior and likelihood (0.05 and more counts)", ""]
            lines.append(self.table[["prior", "likelihood", "verdict"]].to_string(float_format=lambda v: f"{v:.3f}"))
            shifts = _shifts(self.alternatives)
            if len(shifts.columns):
                lines += ["", "Shift of the median under other hyperpriors, in posterior sds", ""]
                lines.append(shifts.to_string(float_format=lambda v: f"{v:.2f}"))
        return "\n".join([*lines, "", *self.advice, *self.notes])

    __repr__ = __str__


def _shifts(alternatives: pd.DataFrame) -> pd.DataFrame:
    """One row per alternative, one column per parameter."""
    wide: dict[str, dict[str, float]] = {}
    for a, changed, parameter, shift in alternatives[["alternative", "changed", "parameter", "shift"]].to_numpy():
        if a != AS_FITTED:
            wide.setdefault(a if changed == "sd" else f"{a}  ({changed})", {})[parameter] = shift
    table = pd.DataFrame.from_dict(wide, orient="index")
    table.index.name = "alternative"
    return table


def sensitivity(fit: Fit, refit: bool = True) -> Sensitivity:
    """Return how far the posterior depends on its prior, and on the data.

    Parameters
    ----------
    fit : Fit
    refit : bool, optional
        Whether alternatives that the nodes of this fit do not reach (Pareto k) are fitted anew.

    Returns
    -------
    Sensitivity

    Notes
    -----
    The likelihood is p(y | beta, theta), group effects integrated out: their parent distribution is part of the model
    and not of the prior. Only priors of population coefficients, standard deviations, correlations and sigma are
    scaled. "Conflict" needs more than two sensitivities over 0.05: prior and data must pull the parameter in opposite
    directions, each by more than 0.23 posterior sds per doubling. Under empirical pooling there is no hyperprior:
    hyperparameters stay at their estimates.

    References
    ----------
    Kallioinen, Paananen, Buerkner and Vehtari (2023), Detecting and diagnosing prior and likelihood sensitivity with
    power-scaling, Statistics and Computing 34:57.

    Examples
    --------
    >>> import finetti as fi
    >>> schools = fi.datasets.load("eight_schools")
    >>> priors = {"Intercept": fi.normal(0, 5), "sd": fi.half_cauchy(5)}
    >>> found = fi.fit("effect | se(se) ~ 1 + (1 | school)", schools, priors=priors).sensitivity()
    >>> found.table["verdict"].tolist()
    ['prior and data disagree (conflict)', 'prior and data both count']
    >>> sorted(set(found.alternatives["alternative"]))[:3]
    ['as fitted', 'exponential(0.1386)', 'half_cauchy(10)']
    """
    with single_threaded():
        nodes = evaluate(fit.inference)
        found = sensitivities(fit.inference, nodes)
        others, notes = alternative_table(fit, nodes, refit)
    table = pd.DataFrame.from_dict(found, orient="index")
    table.index = pd.Index(table.index, name="parameter", dtype=object)
    measured = table[["prior", "likelihood", "prior_pull", "likelihood_pull"]].to_numpy()
    unidentified = {f"beta[{c}]" for c in fit.inference.conditional.unidentified}
    table["verdict"] = [
        UNIDENTIFIED if label in unidentified else _verdict(*row)
        for label, row in zip(table.index, measured, strict=True)
    ]
    table = fit._marked(table[list(_COLUMNS)])
    return Sensitivity(table, others, tuple(_advice(fit, table, others)), tuple(notes))


def _verdict(prior: float, likelihood: float, prior_pull: float, likelihood_pull: float) -> str:
    if np.isnan(prior):
        return HELD
    if prior < THRESHOLD:
        return DATA
    if likelihood < THRESHOLD:
        return PRIOR
    opposite = prior_pull * likelihood_pull < 0.0 and min(abs(prior_pull), abs(likelihood_pull)) > FAINT
    return CONFLICT if opposite else BOTH


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    if len(names) > 6:
        return f"{', '.join(names[:5])} and {len(names) - 5} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _advice(fit: Fit, table: pd.DataFrame, others: pd.DataFrame) -> Iterable[str]:
    """What was found, and what to do."""
    of = {verdict: list(table.index[table["verdict"] == verdict]) for verdict in (DATA, CONFLICT, BOTH, PRIOR)}
    if of[DATA] and len(of[DATA]) == int(table["prior"].notna().sum()):
        yield "The data decide: no parameter depends on its prior by more than the threshold."
    elif of[DATA]:
        yield f"The data decide {_listed(of[DATA])}."
    for label in of[CONFLICT]:
        yield (
            f"Prior and data disagree about {label}: they pull it in opposite directions. {_source(fit, table, label)} "
            "Check the prior's centre, scale and units; if it says what you know, report both."
        )
    if of[BOTH]:
        verb = "depends" if len(of[BOTH]) == 1 else "depend"
        yield (
            f"{_listed(of[BOTH])} {verb} on the prior as well as on the data, which do not plainly contradict it: give "
            "the reasons for the prior, and show the alternatives."
        )
    if of[PRIOR]:
        yield (
            f"The prior decides {_listed(of[PRIOR])}: the data say little. Do not read it as a finding; give the "
            "reasons for the prior, or collect more groups."
        )
    size = np.nan_to_num(others["shift"].abs().to_numpy())
    if (others["alternative"] != AS_FITTED).any():
        row, most = others.iloc[int(np.argmax(size))], float(size.max())
        what = f"{row['parameter']}, by {most:.2g} posterior sd{'' if most <= 1 else 's'} under {row['alternative']}"
        if most < NOTABLE:
            yield f"Other hyperpriors hardly matter: the median that moves most is that of {what}."
        else:
            yield f"Other hyperpriors matter: the median that moves most is that of {what}; report the table."
    if fit.inference.estimate is not None:
        yield (
            "Hyperparameters were estimated (empirical pooling) and have no prior: they stay at their estimates here, "
            "and priors of population coefficients alone are scaled. Fit with pooling='partial' to see what their "
            "priors do."
        )


def _source(fit: Fit, table: pd.DataFrame, label: str) -> str:
    """Which prior it is that pulls, with its text where it is the parameter's own."""
    row = table.loc[label]
    of_coefficients = bool(row["coefficient_prior"] >= row["hyperprior"])
    key = prior_key("Intercept", fit.model.priors) if label == "beta[Intercept]" else label
    own = fit.model.priors.get(key) if of_coefficients == label.startswith("beta[") else None
    if own is not None:
        return f"Its prior is {own}."
    return f"It is the {'prior of the population coefficients' if of_coefficients else 'hyperprior'} that pulls."
