"""What the benchmarks share: the data sets, and programs that fit them, each in a process of its own.

A worker is any program that, after it has read its data, answers one line for each line it is sent:

    go          fit once                -> {"seconds": 0.0123}
    estimates   of the last fit         -> {"estimates": {"sd_g[Intercept]": 1.0, ...}, "version": "...", "notes": []}

in JSON behind the mark `@@`, since libraries print as they please; `{"left_out": why}` in place of either says that
it cannot. Workers stay alive between fits, so that those of several programs can be interleaved.
"""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SHARED = Path(os.environ.get("FINETTI_SHARED_DATA", ROOT.parent / "shared" / "data")) / "multilevel"
SHIPPED = ROOT / "src" / "finetti" / "datasets"
CACHE = Path(os.environ.get("FINETTI_BENCH_CACHE", Path(tempfile.gettempdir()) / "finetti-bench"))
# These force another processor's kernels on whoever reads them; a benchmark is to see the processor that is there.
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
MARK = "@@"


@dataclass(frozen=True)
class Case:
    """A data set and a model, as a formula and in parts for programs that have no formulas.

    terms : grouping factor (`a:b` for combinations) and its slopes beside an intercept
    lme4 : whether lme4 has this model
    """

    name: str
    file: Path
    formula: str
    response: str
    covariates: tuple[str, ...] = ()
    terms: tuple[tuple[str, tuple[str, ...]], ...] = ()
    lme4: bool = True
    large: bool = False

    @property
    def factors(self) -> tuple[str, ...]:
        """The columns that are ids."""
        return tuple(dict.fromkeys(part for group, _ in self.terms for part in group.split(":")))

    @property
    def crossed(self) -> bool:
        """Whether one grouping factor is not inside the next."""
        names = [set(group.split(":")) for group, _ in self.terms]
        return any(not a < b for a, b in pairwise(names))

    def spec(self) -> str:
        """For a worker's command line."""
        return json.dumps({**asdict(self), "file": str(self.file), "factors": self.factors, "crossed": self.crossed})


CASES = (
    Case("eight schools", SHIPPED / "eight_schools.csv", "effect | se(se) ~ 1 + (1 | school)", "effect",
         (), (("school", ()),), lme4=False),
    Case("sleepstudy", SHIPPED / "sleepstudy.csv", "Reaction ~ 1 + Days + (1 + Days | Subject)", "Reaction",
         ("Days",), (("Subject", ("Days",)),)),
    Case("Penicillin", SHIPPED / "penicillin.csv", "diameter ~ 1 + (1 | plate) + (1 | sample)", "diameter",
         (), (("plate", ()), ("sample", ()))),
    Case("Pastes", SHIPPED / "pastes.csv", "strength ~ 1 + (1 | batch/cask)", "strength",
         (), (("batch", ()), ("batch:cask", ()))),
    Case("radon", SHIPPED / "radon.csv", "log_radon ~ 1 + floor + log_uranium + (1 | county)", "log_radon",
         ("floor", "log_uranium"), (("county", ()),)),
    Case("hsb82", SHARED / "hsb82.csv", "mAch ~ 1 + cses + (1 + cses | school)", "mAch",
         ("cses",), (("school", ("cses",)),)),
    Case("Chem97", SHARED / "chem97.csv.gz", "score ~ 1 + gcsecnt + (1 | lea/school)", "score",
         ("gcsecnt",), (("lea", ()), ("lea:school", ())), large=True),
    Case("InstEval", SHARED / "insteval.csv.gz", "y ~ 1 + (1 | s) + (1 | d) + (1 | dept:service)", "y",
         (), (("s", ()), ("d", ()), ("dept:service", ())), large=True),
    Case("one million rows", CACHE / "million-1.csv", "y ~ 1 + x + (1 | g)", "y", ("x",), (("g", ()),), large=True),
)  # fmt: skip
# For the comparison of estimates only
BOUNDARY = (
    Case("dyestuff", SHIPPED / "dyestuff.csv", "Yield ~ 1 + (1 | Batch)", "Yield", (), (("Batch", ()),)),
    Case("dyestuff2", SHIPPED / "dyestuff2.csv", "Yield ~ 1 + (1 | Batch)", "Yield", (), (("Batch", ()),)),
)


def million(file: Path, n: int = 1_000_000, groups: int = 100_000, seed: int = 1) -> None:
    """Write y = 1 + 0.5 x + u_g + e with sd 0.5 and 1, groups of 1 to about 25 rows, in random order."""
    rng = np.random.default_rng(seed)
    g = rng.permutation(np.concatenate([np.arange(groups), rng.integers(0, groups, n - groups)]))
    x = rng.normal(size=n)
    y = 1.0 + 0.5 * x + 0.5 * rng.normal(size=groups)[g] + rng.normal(size=n)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    pd.DataFrame({"y": y.round(6), "x": x.round(6), "g": g}).to_csv(part, index=False)
    part.replace(file)


def present(case: Case) -> bool:
    """Whether the data are here; the simulated set is written when first asked for."""
    if not case.file.exists() and case.name == "one million rows":
        million(case.file)
    if not case.file.exists():
        print(f"{case.name}: {case.file.name} is not here, left out")
        return False
    return True


def read(case: Case) -> pd.DataFrame | None:
    """The data with ids as categories (as R has them), or None, said so, where the file is absent."""
    if not present(case):
        return None
    data = pd.read_csv(case.file, dtype=dict.fromkeys(case.factors, str))
    return data.astype(dict.fromkeys(case.factors, "category"))


class LeftOutError(Exception):
    """Why a program has no place in a cell."""


class Worker:
    """A program that fits on demand; see the module's docstring."""

    def __init__(self, command: list[str], limit: float, **environment: str):
        self.limit = limit
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  lives as long as the worker
        env = {k: v for k, v in os.environ.items() if k not in UNSET}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, bufsize=1,
            env={**env, "PYTHONWARNINGS": "ignore", **environment},
        )  # fmt: skip
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if MARK in line:
                self._lines.put(line.split(MARK, 1)[1])
        self._lines.put(None)

    def ask(self, command: str, limit: float | None = None) -> dict[str, Any]:
        """Send one line and return the answer.

        Raises
        ------
        LeftOutError
            If the program says that it cannot, fails, or exceeds the limit (seconds).
        """
        assert self._process.stdin is not None
        limit = limit or self.limit
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=limit)
        except queue.Empty:
            self.stop()
            raise LeftOutError(f"over {limit:.0f} s") from None
        except OSError:
            line = None
        if line is None:
            self.stop()
            raise LeftOutError(f"failed: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "left_out" in answer:
            self.stop()
            raise LeftOutError(answer["left_out"])
        return answer

    def _last_words(self) -> str:
        if self._errors.closed:
            return "stopped before"
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return (lines[-1] if lines else "no message")[:200]

    def stop(self) -> None:
        """End the process; what it said last stays readable."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def lme4_command(case: Case, control: str = "default") -> list[str]:
    """How to start lme4, or LeftOutError."""
    if shutil.which("Rscript") is None:
        raise LeftOutError("R is not installed")
    if not case.lme4:
        raise LeftOutError("no such model: the error variances are known")
    script = str(HERE / "peers" / "lme4.R")
    return ["Rscript", "--vanilla", script, str(case.file), case.formula, control, *case.factors]


def python_command(script: str, case: Case, python: str = sys.executable) -> list[str]:
    """How to start one of the Python workers in `peers/`."""
    return [python, str(HERE / "peers" / script), case.spec()]


def canonical(estimates: dict[str, float], case: Case) -> dict[str, float]:
    """lme4's names in finetti's words: (Intercept) without brackets, and a nested factor the right way round."""
    out = {}
    for label, value in estimates.items():
        label = label.replace("(Intercept)", "Intercept")
        for group, _ in case.terms:
            parts = re.match(r"(sd|cor)_([^\[]+)\[", label)
            if parts and set(parts[2].split(":")) == set(group.split(":")):
                label = label.replace(parts[2], group, 1)
        out[label] = value
    return out


def lme4(case: Case) -> dict[str, Any] | None:
    """lme4's REML estimates and criterion, or None where R or lme4 is absent or has no such model."""
    try:
        worker = Worker(lme4_command(case), 600.0)
        worker.ask("go")
        answer = worker.ask("estimates")
    except LeftOutError:
        return None
    worker.stop()
    return {**answer, "estimates": canonical(answer["estimates"], case)}
