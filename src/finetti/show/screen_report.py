"""One self-contained HTML page about a screen: how many discoveries, how many false, every test to search and to sort.

Built of the same template, style and parts as the page about a fit (`report.py`): nothing is loaded from elsewhere, the
policy names the one style and the one script by their hashes, all text from outside is escaped. The rows that the
script shows are JSON, which no browser runs; without the script the page holds the most convincing tests and figures.
"""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from typing import Any

from finetti.show import recipe, screen_recipe
from finetti.show import report_parts as parts
from finetti.show.numbers import plural
from finetti.show.pictures import Picture, Plan, drawn_of
from finetti.show.report import document, save, target_of
from finetti.show.report_tables import table_html
from finetti.show.screen_equations import board, screen_equations
from finetti.show.screen_explore import explore
from finetti.show.screen_reading import ScreenReading, subject
from finetti.show.screen_tables import counts_table, frame_table, groups_table, hyper_table
from finetti.show.screen_words import asked, discovered, facts, headline, legend, remarks

__all__ = ["FDR", "PLANS", "draw", "heading", "html", "write"]

FDR = 0.05
PLANS = (
    Plan("histogram_figure", "histogram", "Null and effects",
         "All tests as a histogram of z, with the fitted null and what the effects add to it. Where the fitted sum "
         "stands apart from the bars, the model misses something.", module="screen_plots"),
    Plan("volcano_figure", "volcano", "Volcano",
         "Every test's effect after shrinkage against the probability that its sign is wrong. Discoveries stand out.",
         module="screen_plots"),
    Plan("shrinkage_figure", "shrinkage", "Shrinkage",
         "What is left of an estimated effect: small ones, which are mostly noise, are drawn to zero, large ones are "
         "kept.",
         module="screen_plots"),
    Plan("discoveries_figure", "discoveries", "Discoveries against their price",
         "How many discoveries there are at each false discovery rate, and how many of them are expected to be false. "
         "A steep curve means that a slightly other rate gives quite another list.", module="screen_plots"),
)  # fmt: skip


def heading(found: Any) -> str:
    """Return what a page about the screen is called."""
    return f"Screen of {subject(found)}: {plural(found.n_tests, 'test')}"


def draw(found: ScreenReading) -> tuple[Picture, ...]:
    """Draw every figure of the page."""
    return found.kept("pictures", lambda: drawn_of(PLANS, found))


def write(screen: Any, path: str | os.PathLike[str], title: str | None = None) -> Path:
    """Write the page about one screen; what `Screen.report` does.

    Parameters
    ----------
    screen : Screen
    path : str or path
        The file; a directory gets `report.html` in it.
    title : str, optional
        Heading of the page.

    Returns
    -------
    pathlib.Path
        The file written.

    Raises
    ------
    FinettiError
        If the file cannot be written.
    """
    target = target_of(path)
    return save(html(screen, title=title), target)


def html(
    screen: Any, *, title: str | None = None, fdr: float = FDR, at_least: float | None = None, source: str = "",
    dropped: int = 0, seconds: float | None = None, call: str | None = None, command: str = "",
) -> str:  # fmt: skip
    """Return the whole page as text.

    Parameters
    ----------
    screen : Screen
    title : str, optional
        Heading of the page.
    fdr, at_least : float
        Rate of false discoveries and the size of effect that headline and table begin with.
    source : str
        Where the data come from.
    dropped : int
        Rows left out because of missing values.
    seconds : float, optional
        Time that the screen took.
    call, command : str
        The call and the shell command that make it again, where they are known.

    Returns
    -------
    str
        A complete HTML document (UTF-8).
    """
    found = ScreenReading(screen)
    drawn = {picture.plan.name: parts.figure(picture) for picture in draw(found)}
    every, left_out = explore(found, fdr, drawn.get("volcano", ""))
    tests = [every, parts.paragraph(legend(tuple(found.table().columns)), "aside")]
    if left_out:
        tests.append(parts.paragraph(left_out, "aside"))
    tests.append(parts.paragraph("Numbers saved from here have five digits; found.table() has all of them.", "aside"))
    sections = [
        ("found", "What was found", _answer(found, fdr, at_least, seconds)),
        ("tests-all", "Every test", "\n".join(tests)),
        ("hyper", "What all tests have in common", _common(found, drawn.get("histogram", ""))),
    ]
    if found.covariate is not None:
        sections.append(("groups", "Groups of tests", _groups(found)))
    sections += [
        (plan.name, plan.heading, drawn[plan.name])
        for plan in PLANS
        if plan.name in drawn and plan.name not in ("volcano", "histogram")
    ]
    if found.moderated is not None:
        sections.append(("variances", "Variances of the genes", _moderated(found.moderated)))
    sections += [
        ("model", "Model", _model(found)),
        ("data", "Data", _data(found, source, dropped)),
        ("diagnostics", "Diagnostics", parts.diagnostics(found, "the histogram of all tests")),
        ("reproduce", "How to reproduce", _reproduce(found, call, command)),
    ]
    body = "\n".join(
        f'<section id="{anchor}"><h2>{escape(words)}</h2>\n{text}\n</section>' for anchor, words, text in sections
    )
    return document(
        heading(found) if title is None else str(title), "", [(anchor, words) for anchor, words, _ in sections], body,
        styles=("report.css", "screen_report.css"), scripts=("table.js", "screen_volcano.js", "screen_table.js"),
    )  # fmt: skip


def _answer(found: ScreenReading, fdr: float, at_least: float | None, seconds: float | None) -> str:
    took = found.seconds if seconds is None else seconds
    made = [parts.verdict(found.diagnostics, [plural(found.n_tests, "test")], took)]
    made.append(f'<p class="asked"><b>Asked:</b> {escape(asked(found))}</p>')
    made.append(parts.paragraph(headline(found, fdr).replace(" %", "\u00a0%"), "conclusion"))
    if at_least is not None:
        made.append(parts.paragraph(discovered(found, fdr, at_least), "conclusion"))
    made.append(parts.tiles(facts(found, fdr), "90 %"))
    if said := remarks(found, fdr):
        made.append(parts.paragraph(" ".join(said)))
    return "\n".join(made)


def _common(found: ScreenReading, figure: str) -> str:
    words = (
        "Posterior mean, standard deviation and quantiles; ess: effective sample size; mcse: Monte Carlo standard "
        "error of the mean. What is not known of these numbers is in every row of the table of tests."
    )
    if found.estimate is not None:
        words = (
            "Estimates where the marginal likelihood is largest (empirical Bayes): what is not known of these numbers "
            "is NOT in the table of tests. method='full' has it."
        )
    table = table_html(hyper_table(found), "Learned from all tests together", "parameters")
    return "\n".join([table, parts.paragraph(words, "aside"), figure])


def _groups(found: ScreenReading) -> str:
    made = groups_table(found)
    by = found.covariate
    what = "Every group of tests" if by.value is None else f"Tests by {by.name}, in bins"
    table = table_html(made, what, "groups")
    words = (
        "Each group has its own share of tests without effect and its own spread of effects, drawn towards those of "
        "all groups as far as its own tests say little. Effects expected: the number of its tests that are not null. "
        "found.groups() has more columns."
    )
    return "\n".join([table, parts.paragraph(words, "aside")])


def _moderated(found: Any) -> str:
    words = (
        f"Effects and standard errors come from a matrix of {found.counts.get('genes', len(found.genes)):,} genes and "
        f"{found.counts.get('samples', 0):,} samples by fi.moderate, design {found.formula or 'given as a matrix'}. "
        "Each gene's variance is drawn towards that of all genes: d0 is how many degrees of freedom the others lend to "
        "it, s0_squared their typical variance."
    )
    told = [(what, n) for what, n in found.counts.items() if n or what.startswith("genes")]
    made = [
        parts.paragraph(words),
        table_html(frame_table(found.hyper().dropna(axis=1, how="all"), "parameter"), "Distribution of the variances"),
        table_html(counts_table(told), "From the matrix to the tests"),
    ]
    if found.warnings:
        made.append(f"<ul>{''.join(f'<li class=warned>{escape(w)}.</li>' for w in found.warnings)}</ul>")
    return "\n".join(made)


def _model(found: ScreenReading) -> str:
    words = (
        "Normal and t are written with their location and squared scale. μ₀ and σ₀ are the mean and sd of the null in "
        "standard errors; (0, 1) is what theory promises."
        if found.null == "free"
        else "Normal and t are written with their location and squared scale. The null is held at what theory promises."
    )
    return parts.written(screen_equations(found), words, board(found))


def _data(found: ScreenReading, source: str, dropped: int) -> str:
    words = [f"{plural(found.n_tests, 'test')} used."]
    if dropped:
        words.append(f"{plural(dropped, 'row')} with missing values dropped, as asked.")
    made = [parts.paragraph(" ".join(words))]
    if source:
        made.append(parts.paragraph(f"Source: {source}", "source"))
    made.append(table_html(frame_table(_columns(found), "column"), "What was given"))
    return "\n".join(made)


def _columns(found: ScreenReading) -> Any:
    import numpy as np
    import pandas as pd

    s = found.screened
    given = {subject(found): s.effect, "se": s.se, "z": s.effect / s.se, "df": s.df}
    if s.z_values:
        given = {subject(found): s.effect}
    elif not np.isfinite(s.df).any():
        del given["df"]
    rows = {name: [v.min(), float(np.median(v)), v.max()] for name, v in given.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["lowest", "median", "highest"])


def _reproduce(found: ScreenReading, call: str | None, command: str) -> str:
    said: list[str] = []
    if command:
        said += [parts.paragraph("From the shell:"), f'<pre class="wrap">{escape(command)}</pre>']
    code = "\n".join(screen_recipe.lines(found, call))
    said += [parts.paragraph("From Python:"), f'<pre class="wrap"><code>{escape(code)}</code></pre>']
    said.append(parts.paragraph(f"Versions: {recipe.versions()}."))
    said.append(parts.paragraph(f"Seed: {found.seed}. The same versions and the same seed give the same numbers."))
    return "\n".join(said)
