"""What `finetti demo` does: two classic analyses on data that ship with finetti, on one page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from finetti.show import outputs, text
from finetti.show.reading import Reading
from finetti.show.report import Entry

__all__ = ["STUDIES", "run"]


@dataclass(frozen=True)
class Study:
    """One analysis of the demonstration."""

    dataset: str
    title: str
    formula: str
    story: str


STUDIES = (
    Study(
        "eight_schools",
        "Eight schools",
        "effect | se(se) ~ 1 + (1 | school)",
        "Eight schools each measured what coaching added to their pupils' SAT-V scores, with large standard errors. "
        "How much of the spread between schools is real, and what is the best estimate for each?",
    ),
    Study(
        "radon",
        "Radon in 85 counties",
        "log_radon ~ 1 + floor + log_uranium + (1 | county)",
        "Radon in 919 homes of Minnesota: some counties contribute over a hundred homes, others one. Counties with "
        "little data borrow from the others, given the floor of the measurement and the county's uranium.",
    ),
)


def run(out: str, *, quiet: bool, command: str, progress: Callable[[bool], Any]) -> None:
    """Fit, print and write everything.

    Parameters
    ----------
    out : str
        Directory for the files; made where needed.
    quiet : bool
        Print nothing.
    command : str
        For the report's section on reproduction.
    progress : callable
        Context manager that gives the callable that `fit` reports to.
    """
    directory = outputs.prepare(out)
    console = text.console(quiet=quiet)

    from finetti import datasets
    from finetti.datasets.catalogue import CATALOGUE
    from finetti.posterior.api import fit

    entries: list[Entry] = []
    for study in STUDIES:
        with progress(quiet) as report_progress:
            table = datasets.load(study.dataset)
            start = perf_counter()
            fitted = Reading(fit(study.formula, table, progress=report_progress))
            seconds = perf_counter() - start
        folder = outputs.prepare(directory / study.dataset)
        table.to_csv(folder / "data.csv", index=False)  # to try other models on: see `finetti fit --help`
        call = f"fit = fi.fit({study.formula!r}, fi.datasets.load({study.dataset!r}))"
        entry = Entry(
            study.title, fitted, story=study.story, source=CATALOGUE[study.dataset].source, seconds=seconds, call=call
        )
        text.print_fit(
            console, fitted, title=study.title, subtitle=study.story, seconds=seconds, full=f"all in {folder}"
        )
        entries.append(outputs.write_entry(entry, folder, vector=False)[0])
    intro = "Two classic analyses: every group is estimated by its own data and by its kin, each as far as it deserves."
    report = outputs.write_report(entries, directory, title="finetti demo", intro=intro, command=command)
    console.print(f"Wrote {report} (tables, draws and figures in {directory}).", soft_wrap=True)
