"""The parts of the report about one fit, each a function from the fit to HTML; every text is escaped here.

A part is (heading, anchor, HTML); the page decides their order and the level of their headings.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from finetti.show import honesty
from finetti.show.equations import Block, equations
from finetti.show.findings import Fact, asked, coverage, facts, found, levels_of
from finetti.show.numbers import duration, plural
from finetti.show.pictures import Picture
from finetti.show.reading import is_meta, pooling_of, sentences
from finetti.show.report_tables import breakable, table_html
from finetti.show.tables import (
    factors_table,
    groups_table,
    meta_table,
    priors_table,
    studies_table,
    summary_table,
    variables_table,
)
from finetti.show.text import FAILED, POOLED, board

__all__ = ["answer", "data_and_priors", "diagnostics", "figure", "groups", "heading", "honest", "model", "paragraph",
           "results", "studies", "tiles", "verdict", "written"]  # fmt: skip

MOST_LEVELS = 1000  # rows beyond this make a page that a phone cannot scroll


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph of escaped text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def heading(fit: Any) -> str:
    """Return what a page about the fit is called: the formula, or what was combined."""
    if is_meta(fit):
        return f"Meta-analysis of {fit.effect_name}: {plural(fit.n_rows, 'study')}"
    return str(fit.formula)


# --- the first screen ---------------------------------------------------------------------------------


def answer(fit: Any, probs: Sequence[float], story: str, seconds: float | None) -> str:
    """What was asked, what was found, and whether it may be believed."""
    parts = [_verdict(fit, seconds)]
    parts.append(f'<p class="asked"><b>Asked:</b> {escape(story or asked(fit))}</p>')
    parts.append(tiles(facts(fit, probs), coverage(probs)))
    said = found(fit, probs)
    if said:
        parts.append(f"<p>{escape(' '.join(said))}</p>")
    return "\n".join(parts)


def _verdict(fit: Any, seconds: float | None) -> str:
    items = [plural(fit.n_rows, "study" if is_meta(fit) else "row")]
    for group in fit.group_names:
        if not is_meta(fit) or group == "cluster":
            items.append(levels_of(fit.groups(group)["level"].nunique(), str(group)))
    return verdict(fit.diagnostics, items, seconds)


def verdict(found_: Any, items: Sequence[str], seconds: float | None) -> str:
    """Whether the result may be used: a loud box where its diagnostics say no, else a line of facts about it."""
    if not found_.ok:
        words = "".join(f"<li>{escape(w)}</li>" for w in found_.warnings)
        return f'<div class="banner" role="alert"><strong>{escape(FAILED)}</strong><ul>{words}</ul></div>'
    made = ['<b class="ok">✓ passed its own check</b>', *(f"<b>{escape(item)}</b>" for item in items)]
    if seconds is not None:
        made.append(f"fitted in <b>{duration(seconds)}</b>")
    n = len(found_.warnings)
    if n:
        made.append(f'<span class="warned">{plural(n, "remark")} under Diagnostics</span>')
    return f'<ul class="facts">{"".join(f"<li>{item}</li>" for item in made)}</ul>'


def tiles(found_: Sequence[Fact], share: str) -> str:
    """The numbers that matter most, large, each with its interval."""
    made = []
    for fact in found_:
        made.append(
            f'<div class="tile"><dt>{escape(fact.words)} <code>{breakable(fact.label)}</code></dt>'
            f"<dd><b>{escape(fact.value)}</b> <span>{escape(fact.interval)}</span></dd></div>"
        )
    words = paragraph(
        f"Large: posterior mean. Below: the interval that holds the value with probability {share}.", "aside"
    )
    columns = {1: 2, 2: 2, 4: 4, 7: 4, 8: 4}.get(len(made), 3)  # no row with a single tile in it
    return f'<dl class="tiles in-{columns}">{"".join(made)}</dl>{words}'


# --- the model ----------------------------------------------------------------------------------------


def model(fit: Any) -> str:
    """The formula, the model as mathematics, and the same as plain text."""
    blocks = equations(fit.model)
    parts = [f'<p class="formula"><code>{escape(str(fit.formula))}</code></p>']
    words = "Normal, t and half-t are written with their location and squared scale. 0 as an index is the intercept."
    return "\n".join([*parts, written(blocks, words, board(fit))])


def written(blocks: Sequence[Block], words: str, text: str) -> str:
    """Equations, a sentence on how to read them, and the same as plain text."""
    parts = [*(_block(block) for block in blocks), paragraph(words, "aside")]
    parts.append(f"<details><summary>The same as plain text</summary>{_board(text)}</details>")
    return "\n".join(parts)


def _block(block: Block) -> str:
    lines = []
    for line in block.lines:
        pieces = " ".join(line.pieces)
        label = f' <code class="label">{breakable(line.label)}</code>' if line.label else ""
        note = f' <span class="note">{escape(line.note)}</span>' if line.note else ""
        lines.append(f'<p class="line">{pieces}{label}{note}</p>')
    return f'<div class="equations"><p class="of">{escape(block.title)}</p>{"".join(lines)}</div>'


def _board(text: str) -> str:
    """The model as text, every line in a block of its own, which wraps under itself where the page is narrow."""
    return '<pre class="board">' + "".join(f"<span>{escape(line)}\n</span>" for line in text.splitlines()) + "</pre>"


# --- numbers ------------------------------------------------------------------------------------------


def results(fit: Any, probs: Sequence[float]) -> str:
    """The table of population coefficients and hyperparameters."""
    words = (
        "Posterior mean, standard deviation and quantiles; ess: effective sample size; mcse: Monte Carlo standard "
        "error of the mean. – marks a moment that does not exist or is unknown."
    )
    made = []
    if is_meta(fit):
        made.append(table_html(meta_table(fit.overall(probs=tuple(probs)), "effect"), "Overall effect and a new study"))
        made.append(table_html(meta_table(fit.heterogeneity(probs=tuple(probs)), "heterogeneity"), "Heterogeneity"))
    made.append(table_html(summary_table(fit, probs), "Population coefficients and hyperparameters", "parameters"))
    return "\n".join([*made, paragraph(words, "aside")])


def figure(picture: Picture) -> str:
    """A figure with its message as alternative text and a sentence on how to read it."""
    data = base64.b64encode(picture.png).decode("ascii")
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{escape(picture.title)}">'
        f"<figcaption>{escape(picture.plan.words)}</figcaption></figure>"
    )


def groups(fit: Any, group: str, drawn: Sequence[Picture], probs: Sequence[float]) -> str:
    """The figures and the table of one grouping factor."""
    parts = [figure(picture) for picture in drawn if picture.plan.group == group and not picture.plan.section]
    table = groups_table(fit, group, MOST_LEVELS, probs)
    parts.append(table_html(table, f"Every level of {group}", f"rows by {group}"))
    mean = next(c.title for c in table.columns if c.name == "mean")
    words = f"raw: the group's own least-squares estimate. weight: share of its own data in the estimate. {mean}: "
    words += f"posterior mean, {POOLED[pooling_of(fit, group)]}."
    if table.omitted:
        words += f" {table.omitted:,} levels in the middle are left out here; fit.groups({group!r}) has them all."
    parts.append(paragraph(words, "aside"))
    return "\n".join(parts)


def honest(fit: Any, drawn: Sequence[Picture], prefix: str, level: int) -> str:
    """The six questions on honest uncertainty: a sentence, a figure and a table for each grouping term.

    Parameters
    ----------
    prefix : str
        Of anchors, where the page has several fits.
    level : int
        Of the headings of the questions; those of grouping terms are one below.
    """
    asked_ = honesty.sections(fit)
    made = [paragraph(honesty.preface(fit), "aside")]
    if prefix and asked_:  # the contents of a page with several fits name the fits alone
        links = " ".join(f'<a href="#{prefix}honest-{s.anchor}">{escape(s.heading)}</a>' for s in asked_)
        made.append(f'<nav class="within" aria-label="Honest uncertainty">{links}</nav>')
    for section in asked_:
        made.append(f'<section id="{prefix}honest-{section.anchor}"><h{level}>{escape(section.heading)}</h{level}>')
        named = sum(bool(part.group) for part in section.parts) > 1
        for part in section.parts:
            if named:
                words = f"By {part.group}" if part.group else "Rows"
                made.append(f"<h{level + 1}>{escape(words)}</h{level + 1}>")
            made += _part(part, [p for p in drawn if p.plan.section == section.anchor and p.group == part.group])
        if section.others:
            made.append(paragraph(f"Not shown here: {section.others}.", "aside"))
        made.append("</section>")
    return "\n".join(made)


def _part(part: honesty.Part, drawn: Sequence[Picture]) -> list[str]:
    conclusion = part.conclusion.replace(" %", "\u00a0%")  # a number and its sign stay on one line
    made = [paragraph(conclusion, "conclusion"), *(figure(picture) for picture in drawn)]
    made += [table_html(table, caption, noun) for table, caption, noun in part.shown]
    if part.notes:
        made.append(f'<ul class="aside">{"".join(f"<li>{escape(note)}</li>" for note in part.notes)}</ul>')
    return made


def studies(fit: Any, drawn: Sequence[Picture], probs: Sequence[float]) -> str:
    """The figures and the table of the studies of a meta-analysis."""
    table = studies_table(fit, MOST_LEVELS, probs)
    words = (
        "effect, se: as reported. share: weight of the study in the overall effect. weight: how much of the study's "
        "own effect is left after shrinkage. pooled: posterior mean of its true effect."
    )
    if table.omitted:
        words += f" {table.omitted:,} studies in the middle are left out here; fit.studies() has them all."
    parts = [figure(picture) for picture in drawn if picture.plan.figure in ("forest_figure", "funnel_figure")]
    return "\n".join([*parts, table_html(table, "Every study", "studies"), paragraph(words, "aside")])


# --- what it rests on ---------------------------------------------------------------------------------


def data_and_priors(fit: Any, source: str) -> str:
    """Rows, groups, columns, and the prior of every parameter with who gave it."""
    words = [f"{plural(fit.n_rows, 'study' if is_meta(fit) else 'row')} used."]
    dropped = getattr(fit.model.design, "n_dropped", 0)
    if dropped:
        words.append(f"{plural(dropped, 'row')} with missing values dropped, as asked.")
    parts = [paragraph(" ".join(words))]
    if source:
        parts.append(paragraph(f"Source: {source}", "source"))
    parts.append(table_html(variables_table(fit), "The response and the predictors", "columns"))
    if fit.group_names:
        parts.append(table_html(factors_table(fit), "The grouping factors", "factors"))
    parts.append(table_html(priors_table(fit), "Priors", "priors"))
    given = fit.priors["source"].to_numpy(str)
    if np.any(given == "default"):
        parts.append(
            paragraph("Default priors are weakly informative and scale with the data: they rule out the absurd and "
                      "leave the rest to the data.", "aside")
        )  # fmt: skip
    return "\n".join(parts)


def diagnostics(fit: Any, judge: str = "the predictive figure") -> str:
    """What was checked, in words, and what to do; `judge` shows whether the model suits the data."""
    found_ = fit.diagnostics
    if not found_.ok:
        lead = "The computation failed its own check. Do not use the numbers above; do what the warnings below advise."
    elif found_.warnings:
        lead = "The computation passed its own check. What follows in colour you should know before using the numbers."
    else:
        lead = "The computation passed its own check: nothing needs doing."
    items = (f"<li{' class=warned' if warned else ''}>{escape(line)}</li>" for line, warned in sentences(fit))
    parts = [paragraph(lead), f"<ul>{''.join(items)}</ul>"]
    parts.append(
        paragraph("These checks are about the computation: that the numbers are the posterior of this model. Whether "
                  f"the model suits the data is judged from {judge} and from what is known of the matter.", "aside")
    )  # fmt: skip
    return "\n".join(parts)
