"""Honest uncertainty, for the report: which results a fit has, what each says in a sentence, its table and its figure.

Six questions, a section each: how far was every group pulled, what would other poolings have said, how much of the
uncertainty comes from the hyperparameters, were the groups exchangeable, how well is predicted what was left out, and
does the answer depend on the prior. A section has a part for each grouping term. What is not defined for a fit, and
what would hold the page up, is a sentence that says so; every result is computed once and remembered by the `Reading`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from finetti.errors import FinettiError
from finetti.show import honesty_tables as tables
from finetti.show import honesty_words as words
from finetti.show.honesty_cost import Cost
from finetti.show.reading import Reading, pooling_of
from finetti.show.tables import Table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Drawing", "File", "Part", "Section", "leading_coefficient", "preface", "sections"]

# levels of a term that has parts, and terms that have parts of their own; hyperpriors that might need a refit
MOST_LEVELS, MOST_TERMS, ALTERNATIVES = 2000, 3, 9
# a coefficient whose part of the variation is this many times the first one's is the one that is drawn
PLAINLY = 1.2


@dataclass(frozen=True)
class Drawing:
    """A figure to draw: `finetti.show.<module>.<function>(subject or fit, ...)`, and how to read it."""

    module: str
    function: str
    words: str
    coefficient: str = ""
    subject: Any = None


@dataclass(frozen=True)
class File:
    """A table for `--out`: stem of its name, and what its index is called (None: it has none)."""

    name: str
    frame: pd.DataFrame
    index: str | None = None


@dataclass(frozen=True)
class Part:
    """What one section says of one grouping term, or of the whole fit (group "").

    Attributes
    ----------
    conclusion : str
        One sentence: what to conclude.
    notes : tuple of str
        What the result itself says beside it.
    shown : tuple of (Table, str, str)
        Tables, each with a caption and what a row is.
    """

    group: str
    conclusion: str
    notes: tuple[str, ...] = ()
    shown: tuple[tuple[Table, str, str], ...] = ()
    drawing: Drawing | None = None
    files: tuple[File, ...] = ()


@dataclass(frozen=True)
class Section:
    """One question: anchor, heading, a part for each grouping term, and terms beyond the last one shown."""

    anchor: str
    heading: str
    parts: tuple[Part, ...]
    others: str = ""


def preface(fit: Any) -> str:
    """Return what stands over the sections: why there are few of them, or what they are."""
    if not fit.diagnostics.ok:
        return (
            "The fit failed its own check, so that nothing was derived from it here; repeat it as the warnings advise."
        )
    if not fit.group_names:
        return (
            "The model has no grouping terms: nothing is pooled, so that there are no shrinkage weights, no other "
            "kinds of pooling, and no groups that could be exchangeable or left out."
        )
    return "How much of what was found rests on the groups' own data, on the other groups, and on the prior."


def sections(fit: Any) -> tuple[Section, ...]:
    """Return the sections on honest uncertainty of a fit, computed once where it is a `Reading`.

    Parameters
    ----------
    fit : Fit
    """
    if not fit.diagnostics.ok:
        return ()
    reading = Reading(fit)
    return reading.kept(("honest",), lambda: _sections(reading))


def _sections(fit: Reading) -> tuple[Section, ...]:
    groups = [str(g) for g in fit.group_names]
    cost = Cost(fit)

    def part(make: Callable[[Any, str], Part], group: str, call: str, seconds: Callable[[], float]) -> Part:
        """A part, or the sentence that says why there is none."""
        try:
            n = max((len(f.levels) for f in fit.model.design.factors if f.name == group), default=0)
            if n > MOST_LEVELS:
                return Part(group, f"Not computed for this page, because {group} has {n:,} levels; {call} does.")
            if not cost.allows(seconds()):
                return Part(group, f"Not computed for this page, because it takes long for this fit; {call} does.")
            return make(fit, group)
        except FinettiError as error:
            return Part(group, words.sentence(str(error)))

    made = [
        _section("weights", "Shrinkage weights", groups,
                 lambda g: part(_weights, g, f"fit.weights({g!r})", cost.nodes)),
        _section("pooling", "Four kinds of pooling", groups,
                 lambda g: part(lambda f, h: _pooling(f, h, cost), g, f"fit.pooling({g!r})", cost.pooling)),
        _section("uncertainty", "Where the uncertainty comes from", groups or [""],
                 lambda g: part(_uncertainty, g, f"fit.uncertainty({repr(g) if g else ''})", cost.uncertainty)),
        _section("exchangeability", "Exchangeability", groups,
                 lambda g: part(_exchangeability, g, f"fit.exchangeability({g!r})", lambda: cost.exchangeability(g))),
        _section("left-out", f"Leaving {'groups' if groups else 'rows'} out", ["", *groups],
                 lambda g: part(_left_out, g, f"fit.logo({g!r})" if g else "fit.loo()", lambda: cost.left_out(g))),
        _section("sensitivity", "Sensitivity to the prior", [""],
                 lambda g: part(lambda f, _: _sensitivity(f, cost), g, "fit.sensitivity()", cost.nodes)),
    ]  # fmt: skip
    return tuple(section for section in made if section.parts)


def _section(anchor: str, heading: str, groups: list[str], part: Callable[[str], Part]) -> Section:
    most = MOST_TERMS + ("" in groups)
    others = ", ".join(groups[most:])
    return Section(anchor, heading, tuple(part(group) for group in groups[:most]), others)


def leading_coefficient(fit: Any, group: str) -> str:
    """Return the coefficient that makes most of the variation of a term; the first, unless another plainly does."""
    factor = next(f for f in fit.model.design.factors if f.name == group)
    summary = fit.summary()
    size = [
        float(np.nan_to_num(summary["mean"].get(f"sd_{group}[{c}]", 0.0)))
        * float(np.sqrt(np.mean(factor.Z[:, k] ** 2)))
        for k, c in enumerate(factor.coefficients)
    ]
    most = int(np.argmax(size))
    return str(factor.coefficients[most if size[most] > PLAINLY * size[0] else 0])


# --- the parts --------------------------------------------------------------------------------------


def _weights(fit: Reading, group: str) -> Part:
    table, c = fit.weights(group), leading_coefficient(fit, group)
    how = "Each dot is a group. The more rows or the smaller error, the more its own data decide of its estimate."
    if pooling_of(fit, group) in ("none", "complete"):
        return Part(group, words.weights(fit, group, table, c), files=(File("weights", table),))
    return Part(
        group, words.weights(fit, group, table, c), words.sentences(table.notes), (tables.weights(table, group, c),),
        Drawing("weights", "weights_figure", how, c), (File("weights", table),),
    )  # fmt: skip


def _pooling(fit: Reading, group: str, cost: Cost) -> Part:
    table, c = fit.pooling(group), leading_coefficient(fit, group)
    how = (
        "A row per group: alone (hollow), with the hyperparameters at their estimates (square), and with what is not "
        "known of them (filled); the dashed line is one value for all groups."
    )
    drawing = Drawing("pooling", "pooling_figure", how, c)
    shown, files = (tables.pooling(table, group, c),), (File("pooling", table),)
    if not cost.allows(cost.scores(group), share=0.5):
        notes = (
            *table.table_notes,
            f"predictive scores take long for this fit: fit.pooling({group!r}).scores has them",
        )
        return Part(group, words.lengths(table, group, c), words.sentences(notes), shown, drawing, files)
    scores = table.scores
    notes = tuple(note for note in table.notes if not note.startswith("rows left out are predicted best"))
    return Part(
        group, words.pooling(scores, table, group, c), words.sentences(notes), (tables.scores(scores), *shown), drawing,
        (*files, File("pooling-scores", scores, "analysis")),
    )  # fmt: skip


def _uncertainty(fit: Reading, group: str) -> Part:
    table = fit.uncertainty(group or None)
    c = leading_coefficient(fit, group) if group else ""
    how = (
        "A bar per group: pale is what would be left with known hyperparameters, dark what not knowing them adds. "
        "A mark left of the end of its bar is an interval of empirical Bayes that is too short."
    )
    conclusion, rest = words.uncertainty(table, group, c)
    return Part(
        group, conclusion, words.sentences(rest), (tables.uncertainty(table, group, c),),
        Drawing("uncertainty", "uncertainty_figure", how, c) if group else None,
        (File("uncertainty", table, "parameter"),),
    )  # fmt: skip


def _exchangeability(fit: Reading, group: str) -> Part:
    found = fit.exchangeability(group)
    how = (
        "Each group against what all others predict: exchangeable groups keep inside the grey band. Beside it, what "
        "the groups' sizes, errors or order say of their effects."
    )
    conclusion, rest = words.exchangeability(found)
    files = [File("exchangeability", found.table)]
    if len(found.columns):
        files.append(File("exchangeability-columns", found.columns))
    return Part(
        group, conclusion, words.sentences(rest), tables.exchangeability(found),
        Drawing("exchangeability", "exchangeability_figure", how, subject=found), tuple(files),
    )  # fmt: skip


def _left_out(fit: Reading, group: str) -> Part:
    if not group:
        loo = fit.loo()
        return Part("", words.loo(loo), words.sentences(loo.notes), files=(File("loo", tables.loo_frame(fit, loo)),))
    logo = fit.logo(group)
    how = (
        "Average log predictive density of a row of each group, all its rows left out at once; the further left of the "
        "dashed line, the more it surprises."
    )
    return Part(
        group, words.logo(logo, fit), words.sentences(logo.notes), (tables.logo(logo),),
        Drawing("left_out", "left_out_figure", how, subject=logo), (File("logo", logo.table),),
    )  # fmt: skip


def _sensitivity(fit: Reading, cost: Cost) -> Part:
    found = fit.sensitivity(refit=cost.allows(ALTERNATIVES * cost.nodes()))
    how = (
        "How far each parameter moves as the prior (coloured) or the likelihood (hollow) gains weight; below it, where "
        "there are hyperpriors, the parameters that other ones move most, with their 90 % intervals."
    )
    return Part(
        "", words.sensitivity(found), words.sentences((*found.advice, *found.notes)), tables.sensitivity(found),
        Drawing("sensitivity", "sensitivity_figure", how, subject=found),
        (File("sensitivity", found.table, "parameter"), File("hyperpriors", found.alternatives)),
    )  # fmt: skip
