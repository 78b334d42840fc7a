"""A screen in plain words: what was found, on the first screen of the report and on top of the terminal's output.

"Discovery" is said of a test whose effect is held to be not null, at a rate of false ones that is always named; how
many of them are expected to be false stands beside it, with an interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from finetti.show.estimates import shortened
from finetti.show.findings import Fact, interval, number
from finetti.show.numbers import count, decimals, percent, plural, significant
from finetti.show.screen_reading import ScreenReading

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["HYPER", "asked", "discovered", "facts", "headline", "legend", "rate", "remarks"]

HYPER = {
    "pi0": "share of tests without effect",
    "slab_sd": "sd of the effects that are not null",
    "null_mean": "mean of the null, in standard errors",
    "null_sd": "sd of the null, in standard errors",
    "sd_pi0": "how far the share without effect differs between groups, in logits",
    "sd_slab_sd": "how far the sd of effects differs between groups, in logs",
}
_SURE = 0.9  # the interval of the number of false discoveries, and of every posterior named here


def rate(share: float) -> str:
    """Write a rate in per cent, with the digits that it has.

    >>> rate(0.05), rate(0.001), rate(0.125)
    ('5 %', '0.1 %', '12.5 %')
    """
    return f"{100 * share:.4g} %"


def expected(n: float) -> str:
    """Write how many are expected: one decimal, one digit of less than 0.05, whole numbers from 100.

    >>> expected(0.84), expected(1234.5), expected(0.01), expected(2e-9)
    ('0.8', '1,234', '0.01', 'fewer than 0.001')
    """
    if n < 0.001:
        return "fewer than 0.001"
    if n < 0.05:
        return significant(n, 1)
    return f"{n:.1f}" if n < 100 else f"{n:,.0f}"


def asked(found: Any) -> str:
    """What was asked, where the user said nothing."""
    return f"Which of {count(found.n_tests)} effects are not null, how large are they, and how sure is that?"


def discovered(found: ScreenReading, fdr: float, at_least: float | None = None) -> str:
    """How many discoveries, and how many of them are expected to be false."""
    made = found.discoveries(fdr, at_least=at_least)
    size = "" if at_least is None else f" of effects of at least {at_least:g}"
    at = f"{size} at a false discovery rate of {rate(fdr)}"
    if made.n == 0:
        return f"No discovery{at} among {plural(found.n_tests, 'test')}."
    if made.n == 1:
        return f"1 discovery{at}: the probability that it is false is {significant(made.expected_false, 2)}."
    low, high = made.interval
    span = f"{percent(_SURE)} interval {low:,} to {high:,}"
    return f"{made.n:,} discoveries{at}: {expected(made.expected_false)} of them expected to be false ({span})."


def headline(found: ScreenReading, fdr: float) -> str:
    """The same, and how many of all tests have an effect."""
    first, hyper = discovered(found, fdr), found.hyper()
    if "pi0" not in hyper.index:
        return first
    mean, sd, low, high = _row(hyper, "pi0")
    share = _share(mean, sd)
    if sd > 0:
        between = f"90 % interval {_share(low, sd)} to {_share(high, sd)}"
        return f"{first} Of all {found.n_tests:,} tests {share} have no effect ({between})."
    how = "is held at" if found.estimate is None else "is estimated as"
    return f"{first} The share of tests without effect {how} {share}."


def _row(hyper: pd.DataFrame, name: str) -> tuple[float, float, float, float]:
    """Mean, sd, and the ends of the 90 % interval of one hyperparameter."""
    mean, sd, low, high = hyper.loc[[name], ["mean", "sd", "q5", "q95"]].to_numpy(float)[0].tolist()
    return mean, sd, low, high


def _share(value: float, sd: float) -> str:
    places = decimals(100.0 * sd, 2)
    return f"{number(100.0 * value, places)} %" if places is not None else f"{100 * value:.4g} %"


def facts(found: ScreenReading, fdr: float) -> list[Fact]:
    """The numbers on the first screen: discoveries, false ones, and every hyperparameter."""
    made = found.discoveries(fdr)
    low, high = made.interval
    span, of_all = f"{low:,} to {high:,}" if made.n else "", f"of {found.n_tests:,} tests"
    called = [Fact(f"{made.n:,}", of_all, f"discoveries at FDR {rate(fdr)}", f"discoveries({fdr:g})")]
    false = expected(made.expected_false) if made.n else "0"
    called.append(Fact(false, span, "of them expected to be false", "expected_false"))
    hyper = found.hyper()
    for name in [n for n in HYPER if n in hyper.index]:
        mean, sd, lower, upper = _row(hyper, name)
        places = decimals(sd, 2)
        if places is not None:
            called.append(Fact(number(mean, places), interval(lower, upper, places), HYPER[name], name))
        elif name in ("pi0", "slab_sd") or (found.estimate is not None and found.null == "free"):
            held = "estimated" if found.estimate is not None else "held"
            called.append(Fact(significant(mean, 4).replace("-", "−"), held, HYPER[name], name))
    return called


def remarks(found: ScreenReading, fdr: float) -> list[str]:
    """Further sentences for the first screen: the most convincing tests, and what the null looks like."""
    said: list[str] = []
    made = found.discoveries(fdr)
    table, order = found.table(), found.order
    n = min(3, made.n)
    if n:
        names = [shortened(str(table.index[i]), 40) for i in order[:n]]
        lead = names[0] if n == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
        said.append(f"Most convincing: {lead}.")
    hyper = found.hyper()
    if "null_sd" not in hyper.index:
        return said
    mean, sd, lower, upper = _row(hyper, "null_sd")
    if sd > 0 and (lower > 1.0 or upper < 1.0):
        wide, much = ("wider", "much") if lower > 1.0 else ("narrower", "little")
        said.append(
            f"The null is {wide} than theory has it (sd {significant(mean, 3)} standard errors instead of 1); a test "
            f"that trusts the standard errors would find too {much}."
        )
    return said


def legend(columns: Sequence[str]) -> str:
    """What the columns of the table of tests mean, those that are there."""
    words = {
        "effect": "effect, se: as given",
        "mean": "shrunk: posterior mean of the true effect, with its 90 % interval, the chance that it is exactly 0 "
        "included",
        "prob_null": "P(null): probability that there is no effect (local false discovery rate)",
        "lfsr": "lfsr: probability that the effect has not the sign it seems to have",
        "qvalue": "q: expected share of false ones among all tests at least as convincing",
    }
    return ". ".join(words[name] for name in words if name in columns) + "."
