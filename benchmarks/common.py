"""What the benchmarks share: the data sets, and lme4 in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("FINETTI_SHARED_DATA", HERE.parent.parent / "shared" / "data"))


@dataclass(frozen=True)
class Case:
    """A data set, a formula that both programs read, and the columns that are ids."""

    name: str
    file: Path
    formula: str
    factors: tuple[str, ...]


def read(case: Case) -> pd.DataFrame | None:
    """The data with ids as text, or None, said so, where the file is absent."""
    if not case.file.exists():
        print(f"{case.name}: {case.file.name} is not here, left out")
        return None
    return pd.read_csv(case.file, dtype=dict.fromkeys(case.factors, str))


SHIPPED = HERE.parent / "src" / "finetti" / "datasets"
CASES = [
    Case("dyestuff", SHIPPED / "dyestuff.csv", "Yield ~ 1 + (1 | Batch)", ("Batch",)),
    Case("dyestuff2", SHIPPED / "dyestuff2.csv", "Yield ~ 1 + (1 | Batch)", ("Batch",)),
    Case("sleepstudy", SHIPPED / "sleepstudy.csv", "Reaction ~ 1 + Days + (1 + Days | Subject)", ("Subject",)),
    Case("penicillin", SHIPPED / "penicillin.csv", "diameter ~ 1 + (1 | plate) + (1 | sample)", ("plate", "sample")),
    Case("pastes", SHIPPED / "pastes.csv", "strength ~ 1 + (1 | batch / cask)", ("batch", "cask")),
    Case("radon", SHIPPED / "radon.csv", "log_radon ~ 1 + floor + log_uranium + (1 | county)", ("county",)),
    Case(
        "insteval",
        SHARED / "multilevel" / "insteval.csv.gz",
        "y ~ 1 + (1 | s) + (1 | d) + (1 | dept:service)",
        ("s", "d", "dept", "service"),
    ),
]


def lme4(case: Case, repeats: int = 1) -> dict[str, str] | None:
    """lme4's REML estimates and median seconds, or None where R or lme4 is absent."""
    if shutil.which("Rscript") is None:
        return None
    done = subprocess.run(
        ["Rscript", str(HERE / "lme4.R"), str(case.file), case.formula, str(repeats), *case.factors],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        return None
    pairs = (line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    out = {}
    for key, value in pairs:
        # lme4 writes (Intercept) and the nested factor inside out
        out[key.replace("(Intercept)", "Intercept").replace("cask:batch", "batch:cask")] = value
    return out
