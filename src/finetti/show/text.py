"""The terminal's view of a fit: the model on the board, the summary, every group, the diagnostics in words."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from textwrap import fill, wrap
from typing import TYPE_CHECKING, Any

from finetti.show.numbers import duration, plural
from finetti.show.reading import Reading, is_meta, pooling_of, sentences
from finetti.show.tables import Table, groups_table, meta_table, studies_table, summary_table

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table as RichTable
    from rich.text import Text

__all__ = ["banner", "board", "bullet", "console", "diagnostics", "print_board", "print_fit", "print_heading",
           "print_table", "rich_table", "wrapped"]  # fmt: skip

PIPED_WIDTH = 120
MOST_LEVELS = 20  # per grouping factor; of more, the first and last few, and all of them in the CSV file
_FEW = 12
POOLED = {"partial": "partially pooled", "empirical": "partially pooled", "complete": "completely pooled",
          "none": "not pooled"}  # fmt: skip
FAILED = "DO NOT USE THIS RESULT: it failed its own check"


def console(*, stderr: bool = False, quiet: bool = False, width: int | None = None) -> Console:
    """Return a console that is plain text where the output is no terminal, and survives a reader that leaves.

    After `finetti fit ... | head` the rest of the text goes nowhere, but the files of `--out` are still written.
    """
    from rich.console import Console

    class Patient(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    made = Patient(stderr=stderr, quiet=quiet, highlight=False, markup=False, emoji=False, soft_wrap=False)
    if width is not None:
        made.width = width
    elif not made.is_terminal and not os.environ.get("COLUMNS"):
        made.width = PIPED_WIDTH
    return made


def rich_table(table: Table) -> RichTable:
    """Return the cells as a Rich table: numbers right-aligned, nothing wrapped, a line where levels are left out."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    made = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold", padding=(0, 1))
    for column in table.columns:
        made.add_column(Text(column.title), justify="right" if column.right else "left", no_wrap=True)
    for i, row in enumerate(table.rows):
        if table.gap is not None and i == table.gap:
            made.add_row(Text(f"… {table.omitted:,} more", style="dim"), *[""] * (len(row) - 1))
        made.add_row(*[Text(cell, style=_style(c.name)) for c, cell in zip(table.columns, row, strict=True)])
    return made


def _style(name: str) -> str:
    return {"mean": "bold", "n": "dim", "ess": "dim", "mcse": "dim", "population": "dim"}.get(name, "")


def print_table(out: Console, table: Table) -> None:
    """Print whole numbers always: on a narrow terminal the most dispensable columns are left out."""
    from rich.measure import Measurement
    from rich.padding import Padding

    left_out = []
    while True:
        made = rich_table(table)
        natural = Measurement.get(out, out.options.update(max_width=100_000), made).maximum + 2
        spare = max(table.columns, key=lambda c: c.spare)
        if natural <= out.width or spare.spare == 0 or not out.is_terminal:
            break
        left_out.append(spare.title)
        table = table.without(spare.name)
    width = out.width
    if natural > width:  # even so: let the terminal wrap the line, rather than lose what it says
        out.width = natural
    out.print(Padding(made, (0, 0, 0, 2), expand=False))
    out.width = width
    if left_out:
        out.print(f"  (no room for: {', '.join(left_out)}; a wider terminal or --out shows them)", style="dim")


def banner(fit: Any) -> RenderableType | None:
    """Return a loud box where the fit failed its own check, else None."""
    from rich.box import HEAVY
    from rich.panel import Panel
    from rich.text import Text

    if fit.diagnostics.ok:
        return None
    words = "\n".join(f"• {w}" for w in fit.diagnostics.warnings) or "The diagnostics below say why."
    title = Text(f" {FAILED} ", style="bold white on red")
    return Panel(Text(words), title=title, border_style="bold red", title_align="left", box=HEAVY)


def diagnostics(fit: Any, width: int = PIPED_WIDTH) -> list[Text]:
    """Return the diagnostics in words, one sentence to a bullet, warnings in yellow."""
    return [bullet(line, width, "yellow" if warned else "") for line, warned in sentences(fit)]


def bullet(line: str, width: int, style: str = "") -> Text:
    """Return a sentence as an item of a list."""
    from rich.text import Text

    return Text(fill(line, max(20, width), initial_indent="  • ", subsequent_indent="    "), style=style)


def wrapped(line: str, width: int) -> list[str]:
    """Break a line of the board that is too wide: at a remark or a relation first, else between words.

    >>> wrapped("  u[j] ~ Normal(0, sd²)   j = 1, …, 8", 30)
    ['  u[j] ~ Normal(0, sd²)', '      j = 1, …, 8']
    """
    lines = []
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    while len(line) > width:
        start = len(line) - len(line.lstrip())
        at = max(line.rfind("   ", start, width + 3), line.rfind(" ~ ", start, width))
        if at <= start:
            first = wrap(line.strip(), max(20, width - start), break_long_words=False, break_on_hyphens=False)[0]
            at = start + len(first)
        if not line[at:].strip():
            break
        lines.append(line[:at].rstrip())
        line = indent + line[at:].lstrip()
    return [*lines, line]


def board(fit: Any) -> str:
    """Return the formula and the model in mathematical form; the formula only once where the model begins with it."""
    model, formula = str(fit.model), str(fit.formula)
    return model if model.startswith(formula) else f"{formula}\n\n{model}"


def print_heading(out: Console, words: str, aside: str = "") -> None:
    """Print a heading, and what it is about beside it."""
    from rich.text import Text

    out.print()
    out.print(Text(words, style="bold").append(f"  {aside}" if aside else "", style="dim not bold"))


def print_board(out: Console, lines: str) -> None:
    """Print a model; a line that is too wide is broken where its mathematics allows."""
    from rich.text import Text

    for line in lines.splitlines():
        for part in wrapped(f"  {line}" if line else "", max(40, out.width)):
            out.print(Text(part), soft_wrap=True)


def print_fit(
    out: Console,
    fit: Any,
    *,
    title: str,
    subtitle: str = "",
    probs: Sequence[float] = (0.05, 0.5, 0.95),
    seconds: float | None = None,
    most_levels: int = MOST_LEVELS,
    full: str = "--out DIR writes them all",
) -> None:
    """Print all that a fit says, in the order in which a reader asks.

    Parameters
    ----------
    out : rich.console.Console
    fit : Fit
    title, subtitle : str
        What was fitted.
    probs : sequence of float
        Quantiles of the tables.
    seconds : float, optional
        Time that the fit took.
    most_levels : int
        Levels shown per grouping factor; of more, the first and the last.
    full : str
        Where the levels left out can be read.
    """
    from rich.rule import Rule
    from rich.text import Text

    fit = Reading(fit)

    def heading(words: str, aside: str = "") -> None:
        print_heading(out, words, aside)

    out.print(Rule(Text(title, style="bold"), characters="━" if out.encoding.startswith("utf") else "="))
    if subtitle:
        out.print(Text(subtitle, style="dim"))
    heading("Model")
    print_board(out, board(fit))
    warning = banner(fit)
    if warning is not None:
        out.print()
        out.print(warning)
    if is_meta(fit):
        at = ", at the means of the moderators" if fit.has_moderators else ""
        heading("Overall effect", f"posterior, {plural(fit.n_rows, 'study')}{at}")
        print_table(out, meta_table(fit.overall(probs), "effect"))
        heading("Heterogeneity", "tau: sd of the true effects; I2: its share in the variance of a typical study")
        print_table(out, meta_table(fit.heterogeneity(probs), "heterogeneity"))
    heading("Summary", f"posterior, {plural(fit.n_rows, 'row')}")
    print_table(out, summary_table(fit, probs))
    if is_meta(fit):
        table = studies_table(fit, None if fit.n_rows <= most_levels else min(_FEW, most_levels), probs)
        heading("Studies", "share: in the overall effect; weight: of the study's own data in its pooled effect")
        print_table(out, table)
        if table.omitted:
            out.print(f"  ({table.omitted:,} of {fit.n_rows:,} studies not shown; {full})", style="dim")
    for group in () if is_meta(fit) else fit.group_names:
        total = fit.groups(group)["level"].nunique()
        table = groups_table(fit, group, None if total <= most_levels else min(_FEW, most_levels), probs)
        aside = f"raw estimate → {POOLED[pooling_of(fit, group)]}; weight = share of the group's own data"
        heading(f"Groups: {group}", f"{plural(total, 'level')}; {aside}")
        print_table(out, table)
        if table.omitted:
            out.print(f"  ({table.omitted:,} of {total:,} levels not shown; {full})", style="dim")
    heading("Diagnostics")
    for line in diagnostics(fit, out.width):
        out.print(line)
    if seconds is not None:
        out.print(bullet(f"Time taken: {duration(seconds)}.", out.width))
    if warning is not None:
        out.print(warning)  # once more: the first one may have scrolled away
    out.print()
