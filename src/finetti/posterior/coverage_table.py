"""From the outcomes of simulations to a table, and from the table to sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.errors import FinettiError
from finetti.posterior.coverage_runs import EMPIRICAL, FULL, Outcome, Quantity

__all__ = ["advise", "falls_short", "outcome_table", "written"]

Floats = npt.NDArray[np.float64]
Truth = str | dict[str, float]

# A shortfall counts if it is this many standard errors, one-sided 0.1 %, and large enough to matter
SURE, MATTERS = 3.0, 0.02
# a share of failed simulations that is worth a sentence
MANY_FAILED = 0.01
MISSING = "–"


def outcome_table(
    where: Sequence[Mapping[str, object]],
    outcomes: Sequence[tuple[Sequence[Quantity], Sequence[Outcome]]],
    prob: float,
) -> pd.DataFrame:
    """Average over the simulations of each scenario; see `Coverage.table`.

    Raises
    ------
    FinettiError
        If fewer than two simulations of a scenario could be analysed.
    """
    rows = []
    for place, (wanted, found) in zip(where, outcomes, strict=True):
        good = [o for o in found if not o.failure]
        if len(good) < 2:
            raise FinettiError(
                f"of {len(found)} simulations {len(good)} could be analysed; the first: {found[0].failure}"
            )
        values = np.array([o.values for o in good])
        zero = np.array([o.zero for o in good]).mean(axis=0)
        for q, quantity in enumerate(wanted):
            full_length = float(values[:, q, 1, 1].mean())
            for m, method in enumerate((EMPIRICAL, FULL)):
                inside, length = values[:, q, m, 0], float(values[:, q, m, 1].mean())
                if np.isnan(inside).any():
                    continue
                rows.append(
                    {
                        **place, "quantity": quantity.name, "method": method, "nominal": prob,
                        "coverage": float(inside.mean()), "se": _se(inside), "length": length,
                        "length_ratio": length / full_length, "n_sims": len(good), "n_failed": len(found) - len(good),
                        "sd_zero": float(zero[q]) if method == EMPIRICAL else np.nan,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def _se(values: Floats) -> float:
    """Standard error of the mean over simulations; where all agree, that of half a success or failure more."""
    n = values.size
    spread = float(values.std(ddof=1) / np.sqrt(n))
    share = 0.5 / (n + 1.0)
    return spread if spread > 1e-12 else float(np.sqrt(share * (1.0 - share) / n))


def advise(table: pd.DataFrame, truth: Truth, prob: float) -> tuple[str, ...]:
    """Say where empirical Bayes falls short, where both agree, and what to do."""
    said = []
    effects = [q for q in table["quantity"].unique() if q.startswith("group effects")]
    for quantity in effects:
        said += _shortfalls(table[table["quantity"] == quantity], quantity, prob)
    new = table[(table["quantity"].str.startswith("a new group")) & (table["method"] == EMPIRICAL)]
    if falls_short(new).any():
        worst = _row(new, -new["coverage"])
        said.append(
            f"Prediction of a new group suffers most: empirical Bayes' intervals hold {_share(worst['coverage'])} of "
            f"them {_at(worst)}. Predict new groups with full Bayes only."
        )
    said += _of_full(table[table["method"] == FULL], truth, prob)
    failed = table["n_failed"] / (table["n_sims"] + table["n_failed"])
    if (failed > MANY_FAILED).any():
        said.append(
            f"Up to {_share(float(failed.max()))} of the simulations of a design could not be analysed and are left "
            "out, which may flatter what is left."
        )
    return tuple(said)


def falls_short(rows: pd.DataFrame) -> pd.Series:
    """Which rows cover less than they promise, beyond simulation error and by enough to matter."""
    gap = rows["nominal"] - rows["coverage"]
    return (gap > SURE * rows["se"]) & (gap > MATTERS)


def _shortfalls(rows: pd.DataFrame, quantity: str, prob: float) -> list[str]:
    """About one kind of group effects."""
    keys = [c for c in ("groups", "rows_per_group", "design") if c in rows]
    pair = rows[rows["method"] == EMPIRICAL].merge(rows[rows["method"] == FULL], on=keys, suffixes=("", "_full"))
    short = pair[falls_short(pair)]
    whose = "the groups' effects" if quantity == "group effects" else quantity
    promise = f"{100 * prob:g} %"
    if short.empty:
        all_of = "in every design studied" if len(pair) > 1 else "on this design"
        unsure = pair[pair["nominal"] - pair["coverage"] > MATTERS]
        if unsure.empty:
            gap = float((pair["coverage_full"] - pair["coverage"]).abs().max())
            return [
                f"Empirical Bayes' {promise} intervals of {whose} hold what they promise {all_of}, within "
                f"{_points(gap)} of those of full Bayes."
            ]
        row = _row(unsure, unsure["nominal"] - unsure["coverage"])
        need = row["n_sims"] * (1.2 * SURE * row["se"] / (row["nominal"] - row["coverage"])) ** 2
        return [
            f"Empirical Bayes' {promise} intervals of {whose} hold {_share(row['coverage'])} (± {100 * row['se']:.1f}) "
            f"{_at(row)}, those of full Bayes {_share(row['coverage_full'])}: too few simulations to be sure that they "
            f"fall short. Try n_sims={max(_round_up(need), 200)}."
        ]
    worst = _row(short, short["coverage_full"] - short["coverage"])  # where it matters which is used
    zero = ""
    if worst["sd_zero"] > MATTERS:
        zero = (
            f" There it estimates the standard deviation between groups at exactly zero in "
            f"{_share(worst['sd_zero'])} of the data sets, and then gives every group the same, much too sure, answer."
        )
    out = [
        f"Empirical Bayes' {promise} intervals of {whose} hold the truth in only {_share(worst['coverage'])} "
        f"(± {100 * worst['se']:.1f}) of the cases {_at(worst)}, those of full Bayes in "
        f"{_share(worst['coverage_full'])}.{zero} Report full Bayes (pooling='partial', the default)."
    ]
    fine = pair[~falls_short(pair)]
    if not fine.empty and "groups" in pair:
        gap = float((fine["coverage_full"] - fine["coverage"]).abs().max())
        out.append(
            f"In {len(fine)} of {len(pair)} designs it is not short of what it promises; both analyses are within "
            f"{_points(gap)} of each other there."
        )
    return out


def _of_full(full: pd.DataFrame, truth: Truth, prob: float) -> list[str]:
    z = (full["coverage"] - full["nominal"]) / full["se"]
    low, high = _share(float(full["coverage"].min())), _share(float(full["coverage"].max()))
    if truth == "prior":
        limit = SURE + 0.5 * np.log10(max(len(full), 1))  # the largest of many is larger
        if float(z.abs().max()) > limit:
            worst = _row(full, z.abs())
            return [
                f"Full Bayes holds {_share(worst['coverage'])} for {worst['quantity']} {_at(worst)}, where the prior "
                f"drew the truth and {100 * prob:g} % is certain: this should not happen, please report it."
            ]
        return [
            f"Full Bayes holds {100 * prob:g} % within simulation error, as it must where the prior draws the truth."
        ]
    return [
        f"Full Bayes holds {low} to {high} over all quantities. At one fixed truth it may hold more or less than "
        f"{100 * prob:g} %: it is exact on average over its prior (truth='prior')."
    ]


def _row(rows: pd.DataFrame, by: pd.Series) -> pd.Series:
    """The row with the largest value."""
    return rows.iloc[int(np.argmax(by.to_numpy()))]


def _round_up(n: float) -> int:
    return int(np.ceil(n / 100.0)) * 100


def _with_error(share: pd.Series, se: pd.Series) -> list[str]:
    both = zip(100 * share, 100 * se, strict=True)
    return [MISSING if np.isnan(c) else f"{c:.1f} ± {s:.1f}" for c, s in both]


def _share(value: float) -> str:
    return MISSING if np.isnan(value) else f"{100 * value:.0f} %"


def _points(gap: float) -> str:
    points = 100 * gap
    return f"{points:.1f} percentage points" if points >= 0.1 else "0.1 percentage points"


def _at(row: pd.Series) -> str:
    if "groups" in row:
        return f"with {row['groups']} groups of {row['rows_per_group']} rows"
    return "on this design"


def written(table: pd.DataFrame, advice: Sequence[str], truth: Truth, prob: float) -> str:
    """The study in words: groups' effects and a new group's under both analyses, then the advice."""
    if isinstance(truth, dict):
        source = ", ".join(f"{k} = {v:.4g}" for k, v in truth.items())
    else:
        source = f"drawn from the {truth} for each simulation"
    n = int(table["n_sims"].max())
    lines = [f"Coverage of {100 * prob:g} % intervals in {n:,} simulations per design; truth: {source}", ""]
    keys = [c for c in ("groups", "rows_per_group") if c in table]
    brief = table[table["quantity"].str.startswith(("group effects", "a new group"))] if keys else table
    order = {q: i for i, q in enumerate(table["quantity"].unique())}
    pair = brief[brief["method"] == FULL].merge(
        brief[brief["method"] == EMPIRICAL], on=[*keys, "quantity"], suffixes=("_full", ""), how="left"
    )
    pair = pair.sort_values(["quantity", *reversed(keys)], key=lambda c: c.map(order) if c.name == "quantity" else c)
    columns: dict[str, object] = {k: pair[k] for k in ("quantity", *keys)}
    columns["empirical Bayes"] = _with_error(pair["coverage"], pair["se"])
    columns["full Bayes"] = _with_error(pair["coverage_full"], pair["se_full"])
    columns["length EB / full"] = [MISSING if np.isnan(v) else f"{v:.2f}" for v in pair["length_ratio"]]
    columns["EB sd = 0"] = [_share(v) for v in pair["sd_zero"]]
    lines += [pd.DataFrame(columns).to_string(index=False), ""]
    lines += [f"- {sentence}" for sentence in advice]
    return "\n".join(lines)
