"""What `--out DIR` writes: tables as CSV, draws as NetCDF, figures as PNG and SVG, and the report."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetti.errors import FinettiError
from finetti.show import honesty
from finetti.show.pictures import Picture, pictures
from finetti.show.reading import Reading, is_meta, sentences
from finetti.show.report import Entry, html
from finetti.show.text import board

__all__ = ["prepare", "slug", "write_entry", "write_figures", "write_report"]


def prepare(directory: str | os.PathLike[str]) -> Path:
    """Make the directory, or say why not, before anything slow has run.

    Raises
    ------
    FinettiError
        If it is a file, or cannot be made or written in.
    """
    path = Path(directory)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise FinettiError(f"--out {str(path)!r} is a file; give the name of a directory.") from None
    except OSError as error:
        told = f"--out {str(path)!r} cannot be made: {error.strerror or error}; give another directory."
        raise FinettiError(told) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise FinettiError(f"--out {str(path)!r} is not writable; give another directory.")
    return path


def slug(text: str) -> str:
    """Return a file name that every system takes: "a:b" becomes "a-b", "../x" becomes "x".

    >>> slug("a:b"), slug("../etc/passwd"), slug("C(period)[T.2]"), slug("///")
    ('a-b', 'etc-passwd', 'C-period-T.2', 'unnamed')
    """
    return re.sub(r"[^\w.]+", "-", text).strip("-.")[:80] or "unnamed"


class _Names:
    """File names given out once each, also where a file system ignores case."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def new(self, text: str) -> str:
        base, i = slug(text), 1
        name = base
        while name.casefold() in self._taken:
            i += 1
            name = f"{base}-{i}"
        self._taken.add(name.casefold())
        return name


def write_entry(entry: Entry, directory: Path, *, vector: bool = True) -> tuple[Entry, list[Path]]:
    """Write tables, draws and figures of one fit; return the entry with its figures, and the files.

    Parameters
    ----------
    entry : Entry
    directory : Path
        Exists.
    vector : bool
        Whether figures are written as SVG too.
    """
    entry = replace(entry, fit=Reading(entry.fit))
    fit, names, files = entry.fit, _Names(), []

    def write(name: str, content: str) -> None:
        (directory / name).write_text(content, encoding="utf-8")
        files.append(directory / name)

    def table(name: str, frame: Any, **kind: Any) -> None:
        # Full precision: rounding is for readers, not for files.
        write(name, frame.to_csv(lineterminator="\n", **kind))

    write("model.txt", f"{board(fit)}\n")
    table("summary.csv", fit.summary(probs=tuple(entry.probs)), index_label="label")
    table("priors.csv", fit.priors, index_label="label")
    if is_meta(fit):
        table("studies.csv", fit.studies(probs=tuple(entry.probs)), index=False)
        table("overall.csv", fit.overall(probs=tuple(entry.probs)), index_label="effect")
        table("heterogeneity.csv", fit.heterogeneity(probs=tuple(entry.probs)), index_label="heterogeneity")
    for group in () if is_meta(fit) else fit.group_names:
        table(f"{names.new(f'groups-{group}')}.csv", fit.groups(group, probs=tuple(entry.probs)), index=False)
    for section in honesty.sections(fit):
        for part in section.parts:
            for one in part.files:
                name = names.new(f"{one.name}-{part.group}" if part.group else one.name)
                table(f"{name}.csv", one.frame, index=one.index is not None, index_label=one.index)
    checked = "passed its own check" if fit.diagnostics.ok else "FAILED its own check"
    write("diagnostics.txt", "\n".join([f"This fit {checked}.", *(line for line, _ in sentences(fit))]) + "\n")
    fit.posterior.to_netcdf(directory / "posterior.nc", engine="h5netcdf")
    files.append(directory / "posterior.nc")

    drawn = pictures(fit)
    return replace(entry, figures=drawn), files + write_figures(drawn, directory, vector=vector)


def write_figures(drawn: Sequence[Picture], directory: Path, *, vector: bool = True) -> list[Path]:
    """Write figures as PNG, and as SVG where `vector`; return the files."""
    names, files = _Names(), []  # names of figures do not collide with those of tables
    for picture in drawn:
        name = names.new(picture.plan.name)
        for ending, data in [("png", picture.png), *([("svg", picture.svg())] if vector else [])]:
            (directory / f"{name}.{ending}").write_bytes(data)
            files.append(directory / f"{name}.{ending}")
    return files


def write_report(entries: Sequence[Entry], directory: Path, **page: Any) -> Path:
    """Write `report.html` about all entries; `page` goes to `finetti.show.report.html`."""
    path = directory / "report.html"
    path.write_text(html(entries, **page), encoding="utf-8")
    return path
