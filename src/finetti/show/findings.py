"""What was asked and what was found, in plain words: the first screen of the report.

Only numbers that the tables show are said, with the same digits; nothing is tested, and no word such as
"significant" is used: a reader sees the estimate and the interval that holds it with the stated probability.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from finetti.model.sketch import terms
from finetti.show.estimates import shortened
from finetti.show.numbers import decimals, percent, plural, shared_decimals
from finetti.show.numbers import number as plain_number
from finetti.show.reading import is_meta, pooling_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Fact", "asked", "coverage", "facts", "found", "levels_of"]

MOST = 6  # facts on the first screen; the table below has all


@dataclass(frozen=True)
class Fact:
    """One number on the first screen.

    Attributes
    ----------
    value : str
        The posterior mean (median where there is none).
    interval : str
        "−1.2 to 17.1".
    words : str
        What the number is.
    label : str
        Its label in the tables.
    """

    value: str
    interval: str
    words: str
    label: str


def number(value: float, places: int | None) -> str:
    """Write a number for reading, with a true minus sign; in tables, which are copied, it stays a hyphen."""
    return plain_number(value, places).replace("-", "−")


def levels_of(k: int, group: str) -> str:
    """Say how many groups there are, by their own name where it is a word that has a simple plural.

    >>> levels_of(85, "county"), levels_of(8, "species"), levels_of(12, "a:b")
    ('85 counties', '8 levels of species', '12 levels of a:b')
    """
    return plural(k, group) if _is_word(group) and group[-1] not in "sxz" else f"{plural(k, 'level')} of {group}"


def _is_word(group: str) -> bool:
    return group.isalpha() and len(group) > 2


def coverage(probs: Sequence[float]) -> str:
    """Name the interval between the outermost quantiles.

    >>> coverage((0.05, 0.5, 0.95)), coverage((0.025, 0.975))
    ('90 %', '95 %')
    """
    return f"{100 * (max(probs) - min(probs)):.4g} %"


def _columns(probs: Sequence[float]) -> tuple[str, str]:
    return f"q{100 * min(probs):.10g}", f"q{100 * max(probs):.10g}"


def interval(low: float, high: float, places: int | None) -> str:
    """Write an interval; numbers with a sign are kept apart by a word, never by a dash."""
    return f"{number(low, places)} to {number(high, places)}"


def _fact(row: pd.Series, probs: Sequence[float], words: str, label: str, *, percent: bool = False) -> Fact:
    if percent:
        at, left, right = (f"{100 * float(row[name]):.0f}" for name in ("mean", *_columns(probs)))
        return Fact(f"{at} %", f"{left} to {right} %", words, label)
    low, high = (float(row[name]) for name in _columns(probs))
    mean = float(row["mean"])
    if not np.isfinite(mean):
        mean = float(row.get("q50", np.nan))
    sd = float(row["sd"]) if np.isfinite(row["sd"]) and row["sd"] > 0 else (high - low) / 3.29
    places = decimals(sd, 2)
    if not high > low:
        return Fact(
            number(mean, places), "held there, no interval" if np.isfinite(mean) else "not identified", words, label
        )
    return Fact(number(mean, places), interval(low, high, places), words, label)


def asked(fit: Any) -> str:
    """Say in one sentence what the model asks of the data."""
    design = fit.model.design
    response = _response(fit)
    formula = fit.model.model.formula
    predictors = _named(formula.population)
    groups = list(design.factors)
    if is_meta(fit):
        who = plural(fit.n_rows, "study")
        if predictors:
            on = _listed(predictors[:5])
            return f"What is {response} over {who}, how much do they differ, and how does it depend on {on}?"
        return f"What is {response} over {who}, and how much do they differ?"
    if predictors:
        named = _listed(predictors if len(predictors) <= 5 else [*predictors[:4], f"{len(predictors) - 4} more"])
        what = f"How does {response} depend on {named}"
    elif groups:
        what = f"What is {response} over all"
    else:
        what = f"What is {response}"
    parts = []
    for factor in groups:
        who = levels_of(fit.groups(factor.name)["level"].nunique(), str(factor.name))
        slopes = list(dict.fromkeys(n for t in formula.groups if t.name == factor.name for n in _named(t.effects)))
        if not slopes:
            parts.append(f"how much do {who} differ")
        elif "Intercept" in factor.coefficients:
            parts.append(f"how much do {who} differ, in level and in the effect of {_listed(slopes[:4])}")
        else:
            parts.append(f"how much does the effect of {_listed(slopes[:4])} differ between {who}")
    return f"{', and '.join([what, *parts])}?"


def _named(right_side: str) -> list[str]:
    """The terms of a right side as a reader knows them: a category once, and by its own name."""
    inside = [re.sub(r"^C\((.+?)(,.*)?\)$", r"\1", term) for term in terms(right_side) if term != "Intercept"]
    return [shortened(name) for name in dict.fromkeys(inside)]


def _response(fit: Any) -> str:
    name = fit.effect_name if is_meta(fit) else fit.model.model.formula.response.expression
    return shortened(str(name))


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _meaning(column: str, response: str, predictors: Sequence[str]) -> str:
    """What a population coefficient says, in units of the response."""
    name = shortened(column)
    if column == "Intercept":
        if not predictors:
            return f"{response} over all"
        return f"{response} where the predictors are 0" + (
            " or at reference" if any("[T." in p for p in predictors) else ""
        )
    if ":" in column:
        return f"interaction {name}: its part of {response}"
    dummy = re.fullmatch(r"(?:C\()?(.+?)(?:,.*)?\)?\[T\.(.+)\]", column)
    if dummy:
        return f"difference of {response} for {shortened(dummy[1])} = {shortened(dummy[2])} against the reference"
    return f"change of {response} per unit of {name}"


def facts(fit: Any, probs: Sequence[float]) -> list[Fact]:
    """Return the numbers of the first screen: population coefficients first, then how much groups differ.

    Parameters
    ----------
    fit : Fit
    probs : sequence of float
        The outermost ones bound the interval.
    """
    table = fit.summary(probs=tuple(probs))
    design = fit.model.design
    response = _response(fit)
    if is_meta(fit):
        return _meta_facts(fit, probs, response)
    predictors = [str(c) for c in design.columns if c != "Intercept"]
    population = [(f"beta[{c}]", _meaning(c, response, predictors)) for c in [*predictors, "Intercept"]]
    spread = []
    for factor in design.factors:
        group = shortened(str(factor.name))
        for c in factor.coefficients:
            what = "differ" if c == "Intercept" else f"differ in the effect of {shortened(str(c))}"
            spread.append((f"sd_{factor.name}[{c}]", f"how far {_some(group)} {what} (standard deviation)"))
    if "sigma" in table.index:
        spread.append(("sigma", f"what is left within {'groups' if design.factors else 'rows'} (residual sd)"))
    population = [p for p in population if p[0] in table.index]
    spread = [s for s in spread if s[0] in table.index]
    n_spread = min(len(spread), max(MOST - len(population), MOST // 2))
    chosen = [*population[: MOST - n_spread], *spread[:n_spread]]
    return [_fact(table.loc[label], probs, words, label) for label, words in chosen]


def _meta_facts(fit: Any, probs: Sequence[float], response: str) -> list[Fact]:
    """Overall effect, a new study, heterogeneity; with moderators their coefficients too."""
    overall, spread = fit.overall(probs=tuple(probs)), fit.heterogeneity(probs=tuple(probs))
    at = " at the means of the moderators" if len(fit.model.design.columns) > 1 else ""
    chosen = [
        _fact(overall.loc["overall"], probs, f"{response} over all studies{at}", "overall"),
        _fact(overall.loc["new study"], probs, f"true {response} to expect in a new study{at}", "new study"),
    ]
    words = {"tau": "how far the true effects of studies differ (standard deviation)",
             "tau_cluster": "how far clusters differ (standard deviation)",
             "tau_study": "how far effects differ within a cluster (standard deviation)",
             "I2": "of the variance between studies is real, not sampling error"}  # fmt: skip
    chosen += [_fact(spread.loc[label], probs, words[label], label, percent=label == "I2")
               for label in words if label in spread.index]  # fmt: skip
    table = fit.summary(probs=tuple(probs))
    moderators = [c for c in map(str, fit.model.design.columns) if c != "Intercept"]
    chosen += [
        _fact(table.loc[f"beta[{c}]"], probs, _meaning(c, response, moderators), f"beta[{c}]")
        for c in moderators
        if f"beta[{c}]" in table.index
    ]
    return chosen[: MOST + 2]


def _some(group: str) -> str:
    """Say "counties" where the name allows it, else "levels of …"."""
    return levels_of(2, group).removeprefix("2 ")


def found(fit: Any, probs: Sequence[float]) -> list[str]:
    """Return sentences on the groups: how much each was believed, and the largest and smallest of them."""
    if is_meta(fit):
        return _of_studies(fit, probs)
    said = _variance_share(fit, probs)
    for factor in fit.model.design.factors:
        group = str(factor.name)
        coefficient = str(factor.coefficients[0])
        table = fit.groups(group, probs=tuple(probs))
        table = table[table["coefficient"] == coefficient]
        weight = table["weight"].to_numpy(float)
        weight = weight[np.isfinite(weight)]
        kind = pooling_of(fit, group)
        if kind in ("partial", "empirical") and weight.size:
            what = "estimate" if coefficient == "Intercept" else shortened(coefficient)
            each = f"Each {group}'s" if _is_word(group) else f"For each level of {shortened(group)} its"
            said.append(
                f"{each} own data decide {_percent(weight)} of its {what}; the rest is borrowed from the others."
            )
        if kind != "complete" and len(table) > 2:
            where = _where(fit) if coefficient == "Intercept" else f" in {shortened(coefficient)}"
            said += _extremes(table, probs, f"{shortened(group)}{where}")
    return said


def _percent(weight: np.ndarray) -> str:
    low, mid, high = (percent(v) for v in (weight.min(), np.median(weight), weight.max()))
    return mid if low == high else f"{low.removesuffix(' %')} to {high} (median {mid})"


def _where(fit: Any) -> str:
    return ", where the predictors are 0," if any(c != "Intercept" for c in fit.model.design.columns) else ""


def _variance_share(fit: Any, probs: Sequence[float]) -> list[str]:
    """How much of the variance that the predictors leave lies between groups, where that is one number."""
    design, index = fit.model.design, set(fit.summary(probs=tuple(probs)).index)
    labels = [f"sd_{f.name}[Intercept]" for f in design.factors]
    simple = all(tuple(f.coefficients) == ("Intercept",) for f in design.factors) and "sigma" in index
    # Known errors and weights give every row a variance of its own.
    if not (labels and simple and set(labels) <= index) or design.se is not None or design.weights is not None:
        return []
    squares = {label: fit.draws(label) ** 2 for label in [*labels, "sigma"]}
    total = sum(squares.values())
    said = []
    for factor, label in zip(design.factors, labels, strict=True):
        share = 100 * squares[label] / total
        low, high = np.quantile(share, [min(probs), max(probs)])
        said.append(f"{share.mean():.0f} % ({low:.0f} to {high:.0f} %) lies between {_some(str(factor.name))}")
    left = " that the predictors leave" if len(design.columns) > 1 else ""
    return [f"Of the variance{left}, {_listed(said)}."]


def _of_studies(fit: Any, probs: Sequence[float]) -> list[str]:
    table = fit.studies(probs=tuple(probs))
    heaviest = table.loc[table["share"].idxmax()]
    name, share = shortened(str(heaviest["study"])), f"{100 * heaviest['share']:.0f} %"
    said = [f"The heaviest study, {name}, has {share} of the weight in the overall effect."]
    weight = table["weight"].to_numpy(float)
    weight = weight[np.isfinite(weight)]
    if weight.size:
        said.append(f"Of each study's own effect {_percent(weight)} is left after shrinkage towards the others.")
    return said + (_extremes(table.rename(columns={"study": "level"}), probs, "study") if len(table) > 2 else [])


def _extremes(table: pd.DataFrame, probs: Sequence[float], what: str) -> list[str]:
    middle = table["mean"].to_numpy(float)
    known = np.flatnonzero(np.isfinite(middle))
    if known.size < 3:
        return []
    low, high = _columns(probs)
    ends = table.iloc[[known[np.argmax(middle[known])], known[np.argmin(middle[known])]]]
    places = shared_decimals(ends["sd"], 2)
    words = [
        f"{shortened(str(row['level']))} with {number(row['mean'], places)} ({interval(row[low], row[high], places)})"
        for _, row in ends.iterrows()
    ]
    return [f"The highest {what} is {words[0]}, the lowest {words[1]}."]
