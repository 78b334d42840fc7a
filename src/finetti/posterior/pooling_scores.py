"""How well four analyses of the same groups predict: rows left out, and whole groups left out.

Under no pooling an unseen group has a flat prior, so that its predictive density is zero everywhere in the limit and
its score minus infinity by definition. A row that the other rows cannot predict has no score, NaN: under no pooling one
that alone determines a combination of its group's coefficients, its leverage among the rows of the group being one.
Empirical Bayes estimates the hyperparameters anew without each row or
group (`finetti.posterior.scores`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.errors import FinettiError
from finetti.posterior.groups import factor_index
from finetti.posterior.scores import difference, score, total

if TYPE_CHECKING:
    from finetti.data.design import Factor
    from finetti.posterior.fit import Fit

__all__ = ["ANALYSES", "IN_WORDS", "pooling_scores"]

Floats = npt.NDArray[np.float64]

ANALYSES = ("no_pooling", "complete_pooling", "empirical_bayes", "full_bayes")
IN_WORDS = dict(zip(ANALYSES, ("no pooling", "complete pooling", "empirical Bayes", "full Bayes"), strict=True))


def pooling_scores(name: str, fits: dict[str, Fit | str]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Table of scores, and what it says; see `finetti.posterior.pooling.Pooling.scores`.

    Parameters
    ----------
    name : str
        The grouping term.
    fits : dict
        By analysis the fit, or in words why there is none.
    """
    made = {key: fit for key, fit in fits.items() if not isinstance(fit, str)}
    any_fit = next(iter(made.values()))
    factor = any_fit.model.design.factors[factor_index(any_fit.inference, name)]
    alone = _alone(factor)
    notes: list[str] = []
    bad = dict.fromkeys(fits, 0)
    kinds: dict[str, dict[str, Floats]] = {"loo": {}, "logo": {}}
    for key, fit in made.items():
        for kind, found in kinds.items():
            group = name if kind == "logo" else None
            if group and key == "no_pooling":
                found[key] = np.full(len(factor.levels), -np.inf)
                continue
            try:
                one = score(fit, group)
            except FinettiError as error:
                notes.append(f"{kind} of {IN_WORDS[key]} could not be computed: {error}")
                continue
            found[key] = np.where(alone, np.nan, one.parts) if key == "no_pooling" else one.parts
            bad[key] += len(one.bad)
            notes += one.notes
    table = pd.DataFrame(index=pd.Index(list(fits), name="analysis"))
    for kind, found in kinds.items():
        _add(table, kind, found)
        notes += _ranking(table, kind, found, name)
    rows = kinds["loo"]
    shared = np.all([np.isfinite(v) for v in rows.values()], axis=0) if rows else np.zeros(0, dtype=bool)
    table["loo_shared"] = [float(rows[key][shared].sum()) if key in rows and shared.any() else np.nan for key in fits]
    table["n_bad_k"] = [bad[key] if key in made else 0 for key in fits]
    if alone.any() and "no_pooling" in made:
        notes.append(
            f"{int(alone.sum()):,} of {alone.size:,} rows alone determine a coefficient of their group: without them "
            "no pooling says nothing about it, so that its loo is NaN"
            + ("; loo_shared is about the other rows" if shared.any() else "")
        )
    for key, fit in made.items():
        mine = alone if key == "no_pooling" else np.zeros_like(alone)
        unknown = int(np.sum(np.isnan(rows[key]) & ~mine)) if key in rows else 0
        if unknown:
            notes.append(f"{IN_WORDS[key]}: {unknown:,} rows cannot be predicted from the others, so that loo is NaN")
        if bad[key]:
            notes.append(
                f"{IN_WORDS[key]}: Pareto k is too high for {bad[key]:,} rows or groups; do not trust its scores"
            )
        if fit.inference.sampled is not None:
            notes.append(f"{IN_WORDS[key]} was sampled by NUTS; its scores come from some of the draws")
    return table, tuple(dict.fromkeys(notes))


def _add(table: pd.DataFrame, kind: str, found: dict[str, Floats]) -> None:
    """Columns `kind`, `_se`, `_diff`, `_dse` of one kind of score."""
    sums = {key: total(parts) for key, parts in found.items()}
    finite = {key: elpd for key, (elpd, _) in sums.items() if np.isfinite(elpd)}
    best = max(finite, key=finite.__getitem__) if finite else None
    behind = {key: difference(found[best], parts) for key, parts in found.items()} if best is not None else {}
    nothing = (np.nan, np.nan)
    for i, column in enumerate((kind, f"{kind}_se")):
        table[column] = [sums.get(key, nothing)[i] for key in table.index]
    for i, column in enumerate((f"{kind}_diff", f"{kind}_dse")):
        table[column] = [behind.get(key, nothing)[i] for key in table.index]


def _ranking(table: pd.DataFrame, kind: str, found: dict[str, Floats], name: str) -> list[str]:
    """A sentence on who predicts best, and by how much."""
    elpd, behind, se = (table[c] for c in (kind, f"{kind}_diff", f"{kind}_dse"))
    finite = elpd[np.isfinite(elpd)]
    if finite.size < 2:
        return []
    best = str(finite.idxmax())
    others = [str(key) for key in finite.sort_values(ascending=False).index if key != best]
    words = [
        f"{IN_WORDS[key]} is {behind[key]:.2f} behind (se {se[key]:.2f})"
        if behind[key] > 1e-6
        else f"{IN_WORDS[key]} predicts as well"
        for key in others
    ]
    what = "rows" if kind == "loo" else f"groups ({name})"
    return [f"{what} left out are predicted best by {IN_WORDS[best]}; " + ", ".join(words)]


def _alone(factor: Factor) -> npt.NDArray[np.bool_]:
    """Whether a row by itself determines a combination of its level's coefficients: leverage one within the level."""
    Z = factor.Z / np.maximum(np.sqrt(np.mean(factor.Z**2, axis=0)), 1e-300)
    J, q = len(factor.levels), Z.shape[1]
    info = np.zeros((J, q, q))
    np.add.at(info, factor.index, Z[:, :, None] * Z[:, None, :])
    leverage = np.einsum("na,nab,nb->n", Z, np.linalg.pinv(info, rcond=1e-12, hermitian=True)[factor.index], Z)
    return np.asarray(leverage > 1.0 - 1e-9)
