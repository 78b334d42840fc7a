"""What all commands share: the file that they read, a spinner while they work, the command as it was typed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from finetti.errors import FinettiError

__all__ = ["command", "data_file", "progress"]


def data_file(given: str, what: str = "data file") -> Path:
    """Return the path of a file that exists, or say what is there instead."""
    path = Path(given)
    if not path.is_file():
        state = "is a directory, not a file" if path.is_dir() else "does not exist"
        raise FinettiError(f"The {what} {given!r} {state}; give the path of a CSV or Parquet file.")
    return path


def command() -> str:
    """Return the command as it was typed."""
    return shlex.join(["finetti", *sys.argv[1:]])


class progress:
    """A spinner on stderr while a fit runs, only where a person watches; gives the callable that `fit` reports to."""

    def __init__(self, quiet: bool = False) -> None:
        self._show = not quiet and sys.stderr.isatty()

    def __enter__(self) -> Callable[[str, int, int | None], None] | None:
        if not self._show:
            return None
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(24), TimeElapsedColumn(),
            console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._bar.start()
        task = self._bar.add_task("preparing", total=None)

        def report(stage: str, done: int, total: int | None) -> None:
            self._bar.update(task, description=stage, completed=done, total=total)

        return report

    def __exit__(self, *_: object) -> None:
        if self._show:
            self._bar.stop()
