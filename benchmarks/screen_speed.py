"""Speed of screens and moderated variances beside R's qvalue and limma and ashrink, as a section of results.md.

    make bench                                  this too, after the race of models
    make bench-screens                          this alone
    make bench-screens SCREENS="--quick"        3 repeats, no ashrink, no million; prints, and writes nothing

As in bench.py: each program in a process of its own with its data in memory, warm, one call of each in turn.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from bench import interpreter
from common import CACHE, HERE, LeftOutError, Worker
from scipy.special import ndtr
from table import machine, replace_section, seconds

LIMIT, BUDGET, PAUSE = 400.0, 60.0, 0.02
FEW, MANY = 10_000, 1_000_000
GENES, SAMPLES = 20_000, 100
SECTION = "screens"


@dataclass(frozen=True)
class Entry:
    """A program and what it is asked: `program` is finetti, ashrink, qvalue or limma."""

    label: str
    program: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Race:
    """Entries on the same data: `file` in the cache without its ending."""

    name: str
    file: str
    what: str
    entries: tuple[Entry, ...]
    large: bool = False


FREE = "full Bayes, normal slab, free null"
SCREENS = (
    Entry(FREE, "finetti"),
    Entry("full Bayes, normal slab, N(0, 1)", "finetti", {"null": "theoretical"}),
    Entry("full Bayes, Laplace slab, free null", "finetti", {"slab": "laplace"}),
    Entry("full Bayes, t slab, free null", "finetti", {"slab": "student_t"}),
    Entry("full Bayes, normal slab, free null, t errors (5 df)", "finetti", {"df": 5.0}),
    Entry("empirical, normal slab, free null", "finetti", {"method": "empirical"}),
    Entry("empirical, mixture of normals, N(0, 1)", "finetti",
          {"method": "empirical", "slab": "mixture", "null": "theoretical", "dirichlet": 1}),
    Entry("ashrink, mixture of normals", "ashrink"),
    Entry("qvalue", "qvalue"),
)  # fmt: skip
RACES = (
    Race(f"{FEW:,} tests", "screen-few", "screen", SCREENS),
    Race(f"{MANY:,} tests", "screen-many", "screen", (SCREENS[0], SCREENS[1], SCREENS[5], SCREENS[-1]), large=True),
    Race(f"{GENES:,} genes × {SAMPLES} samples", "moderate", "moderate", (
        Entry("moderate, full Bayes", "finetti"),
        Entry("moderate, empirical", "finetti", {"method": "empirical"}),
        Entry("limma, lmFit and eBayes", "limma"),
    )),
)  # fmt: skip


def data(race: Race) -> None:
    """Simulate what a race reads, once: .npy for Python, raw doubles for R."""
    CACHE.mkdir(parents=True, exist_ok=True)
    if (CACHE / f"{race.file}.raw").exists():
        return
    rng = np.random.default_rng(1)
    if race.what == "screen":
        n = MANY if race.large else FEW
        se = np.exp(0.3 * rng.normal(size=n))
        x = np.where(rng.random(n) < 0.9, 0.0, 3.0 * rng.normal(size=n)) + se * rng.normal(size=n)
        np.save(CACHE / f"{race.file}.npy", np.column_stack([x, se]))
        raw = 2.0 * ndtr(-np.abs(x / se))
    else:
        sd = 0.7 * np.sqrt(8.0 / rng.chisquare(8.0, size=(GENES, 1)))
        shift = np.where(rng.random((GENES, 1)) < 0.9, 0.0, rng.normal(size=(GENES, 1)))
        Y = 7.0 + shift * (np.arange(SAMPLES) % 2) + sd * rng.normal(size=(GENES, SAMPLES))
        np.save(CACHE / f"{race.file}.npy", Y)
        raw = Y.T
    part = CACHE / f"{race.file}.part"
    np.ascontiguousarray(raw, dtype="<f8").tofile(part)
    part.replace(CACHE / f"{race.file}.raw")


def start(race: Race, entry: Entry) -> Worker:
    """A worker, or LeftOutError."""
    peers = HERE / "peers"
    if entry.program in ("qvalue", "limma"):
        if shutil.which("Rscript") is None:
            raise LeftOutError("R is not installed")
        raw = str(CACHE / f"{race.file}.raw")
        return Worker(["Rscript", "--vanilla", str(peers / "screen.R"), entry.program, raw, str(GENES)], LIMIT)
    spec = json.dumps({"file": str(CACHE / f"{race.file}.npy"), "what": race.what, "options": entry.options})
    if entry.program == "ashrink":
        python = interpreter("FINETTI_PEERS_PYTHON", ".venv-peers")
        return Worker([python, str(peers / "fit_ashrink.py"), spec], LIMIT)
    return Worker([sys.executable, str(peers / "fit_screen.py"), spec], LIMIT)


def run(race: Race, entries: list[Entry], repeats: int) -> list[dict[str, Any]]:
    """Warm every program up, time them in turn; a row for each."""
    data(race)
    rows: list[dict[str, Any]] = [
        {"race": race.name, "label": e.label, "program": e.program, "seconds": []} for e in entries
    ]
    workers: dict[int, Worker] = {}
    for i, entry in enumerate(entries):
        try:
            workers[i] = start(race, entry)
            rows[i]["first"] = workers[i].ask("go")["seconds"]
            if race.large:  # the memory of one call in a fresh process
                rows[i] |= workers[i].ask("estimates")
            if rows[i]["first"] > BUDGET:
                rows[i]["seconds"].append(rows[i]["first"])
        except LeftOutError as reason:
            rows[i]["left_out"] = str(reason)
            workers.pop(i, None)
    for _ in range(repeats):
        for i, worker in list(workers.items()):
            if sum(rows[i]["seconds"]) > BUDGET:
                continue
            time.sleep(PAUSE)
            try:
                rows[i]["seconds"].append(worker.ask("go")["seconds"])
            except LeftOutError as reason:
                rows[i]["left_out"] = str(reason)
                workers.pop(i)
    for i, worker in workers.items():
        if not race.large:
            try:
                rows[i] |= worker.ask("estimates")
            except LeftOutError as reason:
                rows[i]["left_out"] = str(reason)
        worker.stop()
    return rows


def page(rows: list[dict[str, Any]], command: str) -> str:
    """The section."""
    lines = ["## Screens", "",
             "Hyperparameters and the table of all tests; R's qvalue from p-values to q-values; ashrink's fit. "
             "Seconds: medians, warm; first: the first call in a fresh process, kernels compiled and cached.", "",
             "| data | method | seconds | range | first | peak memory (MB) | estimates |",
             "| --- | --- | ---: | ---: | ---: | ---: | --- |"]  # fmt: skip
    for row in rows:
        if row.get("left_out") or not row["seconds"]:
            lines.append(f"| {row['race']} | {row['label']} | – | {row.get('left_out', '')} | | | |")
            continue
        t, first = row["seconds"], row.get("first", float("nan"))
        told = ", ".join(f"{k} {v:.4g}" for k, v in row.get("estimates", {}).items())
        if row.get("log_likelihood") is not None:
            told += f", log-likelihood {row['log_likelihood']:.6f}"
        if not row.get("ok", True):
            told += ", ITS OWN CHECKS FAILED"
        name, peak = row["label"], f"{row['peak_mb']:,.0f}" if row.get("peak_mb") else ""
        median = seconds(statistics.median(t))
        lines.append(
            f"| {row['race']} | {name} | {f'**{median}**' if row['program'] == 'finetti' else median} | "
            f"{seconds(min(t))} to {seconds(max(t))} | {seconds(first)} | {peak} | {told} |"
        )
    versions = dict.fromkeys(row["version"] for row in rows if row.get("version"))
    return "\n".join([*lines, "", f"Made by `{command}` on {machine()}. Versions: {'; '.join(versions)}.", ""])


def main(argv: list[str]) -> int:
    """Run every race, write the section; exit 1 if finetti failed."""
    parser = argparse.ArgumentParser(prog="make bench-screens", description="Screens against their peers.")
    parser.add_argument("--quick", action="store_true", help="3 repeats, no ashrink, no million; nothing written")
    parser.add_argument("--repeats", type=int, default=7, help="calls of each (7)")
    parser.add_argument("--only", default="", help="beginnings of names of data, with semicolons between")
    parser.add_argument("--out", type=Path, help="where to write (benchmarks/results.md)")
    asked = parser.parse_args(argv)
    wanted = [w.strip() for w in asked.only.split(";") if w.strip()]
    rows: list[dict[str, Any]] = []
    for race in RACES:
        if (asked.quick and race.large) or (wanted and not any(race.name.startswith(w) for w in wanted)):
            continue
        print(f"{race.name} ...", file=sys.stderr, flush=True)
        entries = [e for e in race.entries if not (asked.quick and e.program == "ashrink")]
        rows += run(race, entries, 3 if asked.quick else asked.repeats)
    text = page(rows, "make bench-screens" + (f" SCREENS='{' '.join(argv)}'" if argv else ""))
    target = asked.out or (None if asked.quick or wanted else HERE / "results.md")
    if target is not None:
        replace_section(target, SECTION, text, {"machine": machine(), "rows": rows})
    print(text)
    failed = [row for row in rows if row["program"] == "finetti" and (row.get("left_out") or not row.get("ok"))]
    for row in failed:
        print(f"finetti failed on {row['race']}, {row['label']}: {row.get('left_out', 'its own checks')}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
