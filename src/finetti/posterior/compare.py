"""Which model predicts best: elpd differences with standard errors, stacking weights, evidence ratios.

With l_ik the log predictive density of part i (a row, or a group) by model k that has not seen it, elpd_k = sum_i l_ik.
Models are compared on the same parts, so that the standard error of a difference comes from the paired ones,
sqrt(m Var_i(l_i,best - l_ik)).

Stacking weights are those of the mixture of models that predicts best (`finetti.posterior.stacking`).

An evidence ratio depends on every prior, however many data there are. It is given where the user has given all priors
and they are proper, and not otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.errors import DataError, FinettiError, PriorError, available
from finetti.posterior.fit import Fit
from finetti.posterior.scores import Score, difference, score, some, total
from finetti.posterior.stacking import stacking_weights

if TYPE_CHECKING:
    from finetti.posterior.evidence import Evidence

__all__ = ["Comparison", "compare"]

Floats = npt.NDArray[np.float64]

# below this an elpd difference is small, and its standard error unreliable (Sivula et al. 2020)
SMALL = 4.0
# a Monte Carlo error of a log evidence worth a word
LARGE_MCSE = 0.1


class Comparison(pd.DataFrame):
    """Table of models, the best first. Made by `finetti.compare`; `print` adds the `notes`.

    Attributes
    ----------
    by : str
        "loo", or the grouping term that was left out.
    notes : tuple of str
        What the table says, in plain sentences.
    """

    _metadata = ["by", "notes"]  # noqa: RUF012
    by: str
    notes: tuple[str, ...]

    @property
    def _constructor(self) -> type[Comparison]:
        return Comparison

    def __str__(self) -> str:
        table = self.to_string(float_format=lambda v: f"{v:.4g}")
        return "\n".join([table, "", *getattr(self, "notes", ())]).rstrip()


def compare(fits: Mapping[str, Fit], by: str = "loo", evidence: bool | None = None) -> Comparison:
    """Compare models of the same data by how well they predict what they have not seen.

    Parameters
    ----------
    fits : mapping of name to Fit
        At least two fits to the same response, row by row.
    by : str
        "loo" leaves out one row at a time: how well are further rows of the same groups predicted? The name of a
        grouping term leaves out one of its groups at a time: how well are new groups predicted?
    evidence : bool, optional
        Whether to report evidences. By default where all priors are proper and were given by the user; `True` makes it
        an error if that is not so.

    Returns
    -------
    Comparison
        A DataFrame, best model first; names are ArviZ's. `rank` from 0; `elpd`, `se`; `p`, the effective number of
        parameters (NaN for groups); `elpd_diff` = elpd of the best - elpd, with the paired standard error `dse`;
        `weight`, stacking weights; `n_bad_k`, parts whose Pareto k is too high; `log_evidence` and
        `evidence_ratio`, to the model with the largest. The attribute `notes` says it in words.
        Empirical fits estimate their hyperparameters anew without each part.

    Raises
    ------
    FinettiError
        For fewer than two fits, or a grouping term that is not in all of them.
    DataError
        If the fits are not about the same response in the same rows, or do not have the same groups.
    PriorError
        If evidences are asked for that do not exist or depend on default priors.

    References
    ----------
    Vehtari, Gelman and Gabry (2017), Statistics and Computing 27, 1413-1432. Yao, Vehtari, Simpson and Gelman
    (2018), Bayesian Analysis 13, 917-1007. Sivula, Magnusson, Matamoros and Vehtari (2020), arXiv:2008.10296.

    Examples
    --------
    >>> import finetti as fi
    >>> data = fi.datasets.load("sleepstudy")
    >>> fits = {
    ...     "slopes": fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", data),
    ...     "intercepts": fi.fit("Reaction ~ 1 + Days + (1 | Subject)", data),
    ... }
    >>> table = fi.compare(fits)
    >>> table[["rank", "elpd", "elpd_diff", "dse"]].round(0)
                rank   elpd  elpd_diff   dse
    model
    slopes         0 -862.0        0.0   0.0
    intercepts     1 -885.0       23.0  12.0
    >>> print(table.notes[0].split(";")[0])
    slopes predicts rows that were left out best
    """
    models = _checked(fits, by, evidence)
    _same_response(models)
    group = None if by == "loo" else by
    if group is not None:
        _same_groups(models, group)
    scores = {name: score(fit, group) for name, fit in models.items()}
    elpd = {name: total(one.parts)[0] for name, one in scores.items()}
    # stable: equal scores stay in the order given; NaN last
    order = sorted(models, key=lambda name: (np.isnan(elpd[name]), -elpd[name] if not np.isnan(elpd[name]) else 0.0))
    best = scores[order[0]].parts
    weights, lost = _weights({name: scores[name].parts for name in order})
    found, evidence_notes = _evidences({name: models[name] for name in order}, evidence)
    logs = np.array([found[name].log if name in found else np.nan for name in order])
    known = np.isfinite(logs)
    behind = {name: difference(best, scores[name].parts) for name in order}
    table = Comparison(
        {
            "rank": np.arange(len(order)),
            "elpd": [elpd[name] for name in order],
            "se": [total(scores[name].parts)[1] for name in order],
            "p": [scores[name].p for name in order],
            "elpd_diff": [behind[name][0] for name in order],
            "dse": [behind[name][1] for name in order],
            "weight": [weights[name] for name in order],
            "n_bad_k": [len(scores[name].bad) for name in order],
            "log_evidence": logs,
            "evidence_ratio": np.exp(logs - logs[known].max()) if known.sum() > 1 else np.full(len(order), np.nan),
        },
        index=pd.Index(order, name="model"),
    )
    table.by = by
    table.notes = (
        *_verdict(table, group),
        *_warnings(models, scores, group, lost),
        *evidence_notes,
    )
    return table


# --- what can be compared --------------------------------------------------------------------------


def _checked(fits: Mapping[str, Fit], by: str, evidence: bool | None) -> dict[str, Fit]:
    example = 'fi.compare({"with floor": fit_1, "without": fit_2})'
    if not isinstance(fits, Mapping):
        raise FinettiError(f"compare takes a mapping of names to fits, as in {example}; given {type(fits).__name__}")
    for name, fit in fits.items():
        if not isinstance(name, str) or not name:
            raise FinettiError(f"models need names that are text, as in {example}; given {name!r}")
        if not isinstance(fit, Fit):
            raise FinettiError(f"{name!r} is a {type(fit).__name__}, not a fit as finetti.fit returns them")
    if len(fits) < 2:
        raise FinettiError(f"there must be at least two fits to compare, as in {example}; given {len(fits)}")
    if not isinstance(by, str):
        raise FinettiError(f"by={by!r} must be 'loo' (rows are left out) or the name of a grouping term")
    if evidence not in (None, True, False):
        raise FinettiError(f"evidence={evidence!r} must be True, False or None (where it can be had)")
    return dict(fits)


def _response(fit: Fit) -> str:
    return str(fit.model.model.formula.response.expression)


def _same_response(fits: dict[str, Fit]) -> None:
    (first, a), *others = fits.items()
    for name, b in others:
        y, z = a.model.design.y, b.model.design.y
        if y.size == z.size and np.array_equal(y, z):
            continue
        pair = f"{first!r} and {name!r}"
        if _response(a) != _response(b) and y.size == z.size:
            raise DataError(
                f"{pair} have different responses, {_response(a)} and {_response(b)}: densities of one are not "
                "densities of the other, and a change of units or a logarithm moves them all. Fit both models to one"
            )
        if y.size != z.size:
            raise DataError(
                f"{pair} were fitted to different rows, {y.size:,} and {z.size:,} of them; scores are sums over rows. "
                'Fit both to the same table (rows with missing values in any column taken out of it first, if missing="'
                'drop" is why)'
            )
        if np.array_equal(np.sort(y), np.sort(z)):
            raise DataError(f"{pair} have the same responses in another order; sort the tables alike and fit again")
        raise DataError(f"{pair} were fitted to different values of the response; fit both to the same table")


def _same_groups(fits: dict[str, Fit], group: str) -> None:
    labels: dict[str, Floats] = {}
    for name, fit in fits.items():
        if group not in fit.group_names:
            raise FinettiError(
                f"{name!r} has no grouping term {group!r} to leave groups out of; "
                f"{available(group, fit.group_names) if fit.group_names else 'it has none at all'}."
                f" A model that ignores these groups has the term (1 | {group}) with pooling={{{group!r}: 'complete'}} "
                "- or compare by 'loo'"
            )
        factor = fit.model.design.factors[fit.group_names.index(group)]
        labels[name] = np.array(factor.levels, dtype=object)[factor.index]
    (first, a), *others = labels.items()
    for name, b in others:
        if not np.array_equal(a, b):
            raise DataError(f"{first!r} and {name!r} do not put the same rows into the groups of {group!r}")


# --- stacking ----------------------------------------------------------------------------------------


def _weights(parts: dict[str, Floats]) -> tuple[dict[str, float], int]:
    """Stacking weights of the models that have a score for every part, and how many parts no model predicts."""
    scored = [name for name, values in parts.items() if not np.any(np.isnan(values))]
    out = dict.fromkeys(parts, np.nan)
    if not scored:
        return out, 0
    log_p = np.stack([parts[name] for name in scored], axis=1)
    possible = np.isfinite(log_p).any(axis=1)
    lost = int(np.sum(~possible))
    if possible.any():
        out.update(zip(scored, stacking_weights(log_p[possible]).tolist(), strict=True))
    return out, lost


# --- evidence ----------------------------------------------------------------------------------------


def _evidences(fits: dict[str, Fit], wanted: bool | None) -> tuple[dict[str, Evidence], list[str]]:
    """Evidences that can be compared, and why the others cannot.

    Raises
    ------
    PriorError
        If they are wanted of all.
    """
    found: dict[str, Evidence] = {}
    if wanted is False:
        return found, []
    refused: dict[str, list[str]] = {}
    defaults: dict[str, list[str]] = {}
    for name, fit in fits.items():
        try:
            found[name] = fit.evidence()
        except FinettiError as error:
            refused.setdefault(str(error), []).append(name)
            continue
        if mine := [str(label) for label in fit.priors.index[fit.priors["source"] == "default"]]:
            defaults[name] = mine
            del found[name]
    out = [f"No evidence of {', '.join(names)}: {reason}." for reason, names in refused.items()]
    if defaults:
        labels = list(dict.fromkeys(label for mine in defaults.values() for label in mine))
        out.append(
            f"No evidence of {', '.join(defaults)}: finetti's default priors are in play, of {some(labels)}, and the "
            "ratio would depend on them as much as on the data. Give all priors yourself."
        )
    if wanted and out:
        raise PriorError(f"evidence=True asks for the evidence of every model. {' '.join(out)} Leave it out")
    loose = [name for name, e in found.items() if e.mcse > LARGE_MCSE]
    if loose:
        out.append(f"The log evidence of {', '.join(loose)} has a Monte Carlo error above {LARGE_MCSE}.")
    return found, out


# --- words -------------------------------------------------------------------------------------------


def _verdict(table: Comparison, group: str | None) -> list[str]:
    names = [str(name) for name in table.index]
    elpd, behind, se = (table[c].to_numpy(float) for c in ("elpd", "elpd_diff", "dse"))
    what = "rows that were left out" if group is None else f"groups ({group}) that were left out"
    if not np.isfinite(elpd[0]):
        return [f"No model has a finite score for {what}; there is nothing to compare."]
    equal = [0, *(i for i in range(1, len(names)) if behind[i] <= 1e-9 * max(1.0, abs(elpd[0])))]
    first = " and ".join(names[i] for i in equal)
    said = [
        f"{names[i]} is {behind[i]:.1f} behind ("
        + (
            "within one standard error)"
            if behind[i] <= se[i]
            else f"{behind[i] / max(se[i], 1e-300):.1f} standard errors)"
        )
        for i in range(len(equal), len(names))
        if np.isfinite(behind[i])
    ]
    verb = "predicts" if len(equal) == 1 else "predict"
    tie = " equally well" if len(equal) == len(names) else " best"
    out = [f"{first} {verb} {what}{tie}{'; ' + ', '.join(said) if said else ''}."]
    small = [names[i] for i in range(len(equal), len(names)) if behind[i] < SMALL]
    if small:
        out.append(
            f"A difference below {SMALL:g} is small, and its standard error is not to be relied on: {', '.join(small)}."
        )
    impossible = [name for name, e in zip(names, elpd, strict=True) if e == -np.inf]
    if impossible:
        out.append(f"{', '.join(impossible)}: the score is -inf, since nothing is said of some part that was left out.")
    return out


def _warnings(fits: dict[str, Fit], scores: dict[str, Score], group: str | None, lost: int) -> list[str]:
    out = []
    for name, one in scores.items():
        unknown = int(np.isnan(one.parts).sum())
        if unknown:
            what = "rows" if group is None else "groups"
            out.append(f"{name} cannot predict {unknown:,} {what} from the others: no score, and no weight.")
        if one.bad:
            out.append(
                f"{name}: Pareto k is too high for {some(one.bad)}; do not trust its score. See what sets them apart."
            )
        if not fits[name].diagnostics.ok:
            out.append(f"{name} failed its own checks: {fits[name].diagnostics.warnings[0]}")
        out += [f"{name}: {note}." for note in one.notes]
    if lost:
        out.append(f"{lost:,} parts are predicted by no model; the weights are about the others.")
    return out
