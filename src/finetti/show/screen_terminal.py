"""A screen in the terminal and as files: what `finetti screen` prints, and what `--out DIR` writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetti.show.numbers import duration, plural
from finetti.show.outputs import write_figures
from finetti.show.reading import sentences
from finetti.show.report import save
from finetti.show.screen_equations import board
from finetti.show.screen_reading import ScreenReading
from finetti.show.screen_report import draw, html
from finetti.show.screen_tables import frame_table, groups_table, hyper_table, rows_table
from finetti.show.screen_words import discovered, headline, rate, remarks
from finetti.show.text import banner, bullet, diagnostics, print_board, print_heading, print_table

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_screen", "write_screen"]

MOST, FEW = 20, 10  # discoveries shown; where there are none, the most convincing tests


def print_screen(
    out: Console, found: ScreenReading, *, title: str, fdr: float = 0.05, at_least: float | None = None,
    seconds: float | None = None, dropped: int = 0, full: str = "--out DIR writes all",
) -> None:  # fmt: skip
    """Print all that a screen says, in the order in which a reader asks.

    Parameters
    ----------
    out : rich.console.Console
    found : ScreenReading
    title : str
        What was screened.
    fdr, at_least : float
        Rate of false discoveries, and the size that they are to have.
    seconds : float, optional
        Time that the screen took.
    dropped : int
        Rows left out because of missing values.
    full : str
        Where the tests left out can be read.
    """
    from rich.rule import Rule
    from rich.text import Text

    out.print(Rule(Text(title, style="bold"), characters="━" if out.encoding.startswith("utf") else "="))
    print_heading(out, "Model")
    print_board(out, board(found))
    warning = banner(found)
    if warning is not None:
        out.print()
        out.print(warning)
    used = plural(found.n_tests, "test")
    if dropped:
        used += f"; {plural(dropped, 'row')} with missing values dropped"
    print_heading(out, "What was found", used)
    said = [headline(found, fdr), *([discovered(found, fdr, at_least)] if at_least is not None else [])]
    for line in [*said, *remarks(found, fdr)]:
        out.print(bullet(line, out.width))
    print_heading(out, "What all tests have in common")
    print_table(out, hyper_table(found))
    if (groups := found.groups()) is not None:
        print_heading(out, "Groups of tests", plural(len(groups), "row"))
        print_table(out, groups_table(found, MOST))
        if len(groups) > MOST:
            out.print(f"  ({len(groups) - MOST:,} more; {full.replace('table.csv', 'groups.csv')})", style="dim")
    if found.moderated is not None:
        _moderated(out, found.moderated)
    _discoveries(out, found, fdr, at_least, full)
    print_heading(out, "Diagnostics")
    for sentence in diagnostics(found, out.width):
        out.print(sentence)
    if seconds is not None:
        out.print(bullet(f"Time taken: {duration(seconds)}.", out.width))
    if warning is not None:
        out.print(warning)  # once more: the first one may have scrolled away
    out.print()


def _moderated(out: Console, moderated: Any) -> None:
    """Where the variances came from, and what became of the rows of the matrix."""
    print_heading(out, "Variances of the genes", "d0: degrees of freedom that a gene borrows from all others")
    print_table(out, frame_table(moderated.hyper().dropna(axis=1, how="all"), "parameter"))
    counted = ", ".join(f"{what} {n:,}" for what, n in moderated.counts.items() if n)
    for line in (f"Counted: {counted}.", *(f"Warning: {w}." for w in moderated.warnings)):
        out.print(bullet(line, out.width))


def _discoveries(out: Console, found: ScreenReading, fdr: float, at_least: float | None, full: str) -> None:
    from rich.text import Text

    made = found.discoveries(fdr, at_least=at_least)
    if made.n:
        size = "" if at_least is None else f" of at least {at_least:g}"
        print_heading(out, "Discoveries", f"{made.n:,}{size} at FDR {rate(fdr)}, the most convincing first")
        rows = made.rows[:MOST]
    else:
        print_heading(out, "Most convincing tests", "none of them a discovery")
        rows = found.order[:FEW]
    print_table(out, rows_table(found, rows))
    if made.n > MOST:
        out.print(Text(f"  ({made.n - MOST:,} more discoveries not shown; {full})", style="dim"))


def write_screen(
    found: ScreenReading, directory: Path, *, title: str, fdr: float = 0.05, at_least: float | None = None, **page: Any
) -> list[Path]:
    """Write tables, figures and the report of a screen; return the files.

    Parameters
    ----------
    found : ScreenReading
    directory : Path
        Exists.
    title : str
        Heading of the report.
    fdr, at_least : float
        Of the discoveries.
    **page
        To `finetti.show.screen_report.html`.
    """
    files: list[Path] = []

    def write(name: str, content: str) -> None:
        (directory / name).write_text(content, encoding="utf-8")
        files.append(directory / name)

    def table(name: str, frame: Any, **kind: Any) -> None:
        # Full precision: rounding is for readers, not for files.
        frame.to_csv(directory / name, lineterminator="\n", encoding="utf-8", **kind)
        files.append(directory / name)

    write("model.txt", f"{board(found)}\n")
    table("table.csv", found.table())
    table("discoveries.csv", found.discoveries(fdr, at_least=at_least).table)
    table("hyper.csv", found.hyper())
    if (groups := found.groups()) is not None:
        table("groups.csv", groups)
    if found.moderated is not None:
        table("effects.csv", found.moderated.effects, index=False)
        table("variances.csv", found.moderated.hyper())
    checked = "passed its own check" if found.diagnostics.ok else "FAILED its own check"
    write("diagnostics.txt", "\n".join([f"This screen {checked}.", *(line for line, _ in sentences(found))]) + "\n")
    files += write_figures(draw(found), directory)
    files.append(save(html(found, title=title, fdr=fdr, at_least=at_least, **page), directory / "report.html"))
    return files
