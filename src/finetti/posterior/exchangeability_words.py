"""What a test of exchangeability found and what to do about it, in sentences."""

from __future__ import annotations

from typing import Any

import pandas as pd
from scipy.special import ndtri

from finetti.posterior.group_columns import ERROR, ORDER, SIZE
from finetti.posterior.surprise import LEVEL

__all__ = ["advice", "column_words"]

# flagged levels that have a sentence each
SHOWN = 8


def advice(group: str, table: pd.DataFrame, calibration: pd.DataFrame, columns: pd.DataFrame) -> list[str]:
    """Say which groups are surprising, whether all together are, and which columns the model should have."""
    J = table["level"].nunique()
    out = []
    worst = table[table["flag"]].sort_values(["p_joint", "p"], kind="stable").drop_duplicates("level")
    for row in worst.head(SHOWN).to_dict("records"):
        side = "above" if row["z"] > 0 else "below"
        far = f"{row['coefficient']} is {abs(row['z']):.1f} sds {side} what the other {J - 1} predict"
        out.append(
            f"{group} {row['level']!r} is surprising as one more draw from the parent of the others: its {far} "
            f"({_p(row['p_adjusted'])} after adjustment for {J} groups). Check its data for errors; if they are right, "
            "find what sets it apart and add that as a column, or report it by itself."
        )
    if len(worst) > SHOWN:
        out.append(
            f"{len(worst) - SHOWN} more levels are flagged. So many do not come from one normal parent with a few "
            "exceptions: look for a column that splits the groups."
        )
    for row in calibration.to_dict("records"):
        if row["p_value"] <= LEVEL:
            out.append(
                f"Taken together, the {row['n_groups']} groups do not look like draws from one normal parent in "
                f"{row['coefficient']} ({_p(row['p_value'])}): compare their QQ plot, plot.exchangeability(); heavy "
                "tails, skewness (try the log of the response) and clusters of groups do this."
            )
    told = [row["advice"] for row in columns.to_dict("records") if row["informative"] or row["how"] == "failed"]
    out += told
    tested = columns[columns["p_value"].notna()]
    if not out:
        z = -float(ndtri(0.5 * LEVEL / max(J, 1)))
        names = ", ".join(dict.fromkeys(tested["column"]))
        beside = f", and none of {names} predicts their effects" if names else ""
        out.append(
            f"Nothing speaks against exchangeability of the {J} levels of {group}: no group is surprising given the "
            f"others{beside}. A single group would have been flagged beyond about {z:.1f} sds of its prediction."
        )
    elif not len(worst):
        out.append(f"No single level of {group} is surprising given the others.")
    return out


def _p(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


# what a column that every fit has means if it predicts
_BUILT_IN = {
    SIZE: (
        "the size of a group tells its effect. Sizes may be a consequence of the effects, or both of something else: "
        "find out which, and add a column that says so, or the size itself"
    ),
    ERROR: (
        "the known error of a group tells its effect, as where small studies with small effects stay unpublished. "
        "Look at the funnel of effects against errors, and do not trust the overall effect before you know why"
    ),
    ORDER: (
        "where a group stands in the data tells its effect. Unless the rows were sorted by the response, something "
        "drifted: add a column for it, such as the time or place of collection"
    ),
}


def column_words(row: dict[Any, Any], group: str, moderators: bool | None = None) -> str:
    """Say what one row of the table of columns means.

    moderators : whether a meta-analysis has moderators already; None if the fit is none and has a formula
    """
    if row["advice"]:
        return str(row["advice"])
    name, c = row["column"], row["coefficient"]
    what = f"the {c} of {group}"
    if not row["informative"]:
        return f"{name} does not predict {what} ({_p(row['p_adjusted'])})"
    unit = f"{row['contrast']}: " if row["contrast"] else "slope "
    size = f"{unit}{row['effect']:.3g}, 90 % interval {row['q5']:.3g} to {row['q95']:.3g}"
    share = (
        f"; {100 * row['explained']:.0f} % of the variance between groups goes with it"
        if row["explained"] >= 0.01
        else ""
    )
    head = f"{name} predicts {what} ({size}, {_p(row['p_adjusted'])}{share})"
    if name in _BUILT_IN:
        return f"{head}: {_BUILT_IN[name]}."
    term = name if name.isidentifier() else f"`{name}`"
    if moderators is not None:
        say = f"+ {term} in its moderators" if moderators else f'moderators="~ {term}"'
        return f"{head}: the labels carry information, and fi.meta should be told {say}."
    say = f"+ {term}" if c == "Intercept" else f"+ {term} + {term}:{c}"
    quote = "`" if "`" not in say else '"'
    return f"{head}: the labels carry information, and the model should say {quote}{say}{quote}."
