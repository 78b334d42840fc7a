"""Error control and power of screens against known truths, into benchmarks/screen_errors.md and .json.

    python benchmarks/screen_errors.py                          200 data sets of 10,000 tests per setting, 2 processes
    python benchmarks/screen_errors.py --runs 20 --out FILE.md  fewer of them, elsewhere
    python benchmarks/screen_errors.py --only "sparse, dense"   printed, written only with --out

Every method sees the same data sets, so that differences between methods are paired. Data set number i of a setting is
the same whatever else is run. Settings: screen_settings.py; methods: screen_methods.py. Exits with 1 unless full Bayes
with a free null keeps its rates in every setting.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from screen_errors_table import Summary, page, verdicts
from screen_methods import Answer, answer, methods_of, qvalue_agreement
from screen_settings import SETTINGS, Setting

from finetti.errors import FinettiError
from finetti.linalg.system import one_thread
from finetti.posterior.parallel import run as in_processes

HERE = Path(__file__).resolve().parent
RATES = (0.05, 0.1)


def judge(setting: Setting, n: int, run: int) -> list[dict[str, Any]]:
    """One data set: a row for each method and rate."""
    data, rows = setting.draw(run, n), []
    alive = data.b != 0.0
    for method in methods_of(setting):
        began = time.perf_counter()
        try:
            said = answer(method, setting, data, RATES)
        except FinettiError as error:
            said = Answer(np.ones(data.x.size), ok=False)
            print(f"{setting.name}, run {run}, {method}: {error}", file=sys.stderr)
        if said is None:
            continue
        seconds = time.perf_counter() - began
        if said.low is None or said.high is None:
            inside = np.full(data.b.size, np.nan)
        else:
            inside = (said.low <= data.b) & (data.b <= said.high)
        there = max(int(alive.sum()), 1)
        for rate in RATES:
            found = said.score <= rate
            false, number = int(np.sum(found & ~alive)), int(found.sum())
            low, high = said.false.get(rate, (np.nan, np.nan))
            rows.append(
                {
                    "setting": setting.name, "run": run, "method": method, "rate": rate,
                    "fdp": false / max(number, 1), "power": (number - false) / there if alive.any() else np.nan,
                    "found": number, "false": false, "covered": float(inside.mean()),
                    "covered found": float(inside[found].sum()),
                    "number": np.nan if np.isnan(low) else float(low <= false <= high),
                    "failed": float(not said.ok), "mostly null": said.mostly_null, "seconds": seconds,
                }
            )  # fmt: skip
    return rows


def task(n: int, item: tuple[str, int]) -> list[dict[str, Any]]:
    """`judge` for a process."""
    setting = next(s for s in SETTINGS if s.name == item[0])
    with one_thread():
        return judge(setting, n, item[1])


def arguments(argv: list[str]) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="data sets per setting (200)")
    parser.add_argument("--n", type=int, default=10_000, help="tests per data set (10,000)")
    parser.add_argument("--only", default="", help="names of settings, with commas between")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--out", type=Path, help="where to write (benchmarks/screen_errors.md)")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Simulate setting by setting, write after each, judge."""
    asked = arguments(argv)
    wanted = [w.strip() for w in asked.only.replace("all null, inflated", "all null/inflated").split(",") if w.strip()]
    wanted = [w.replace("/", ", ") for w in wanted]
    unknown = set(wanted) - {s.name for s in SETTINGS}
    if unknown:
        print(f"{', '.join(sorted(unknown))} not known; --only takes {'; '.join(s.name for s in SETTINGS)}")
        return 2
    settings = [s for s in SETTINGS if not wanted or s.name in wanted]
    target = asked.out or (None if wanted else HERE / "screen_errors.md")
    command = "python benchmarks/screen_errors.py" + "".join(f" {w!r}" if " " in w else f" {w}" for w in argv)
    agreement, began, rows = qvalue_agreement(asked.n), time.perf_counter(), []
    text = ""
    for setting in settings:
        tasks = [(setting.name, run) for run in range(asked.runs)]
        for part in in_processes(partial(task, asked.n), tasks, n_jobs=asked.jobs):
            rows += part
        seconds = time.perf_counter() - began
        print(f"{setting.name}: {seconds:.0f} s", file=sys.stderr, flush=True)
        summary = Summary.of(pd.DataFrame(rows))
        recipe = {"command": command, "runs": asked.runs, "n": asked.n, "jobs": asked.jobs, "seconds": seconds}
        text = page(summary, recipe, agreement)
        if target is not None:
            target.write_text(text)
            facts = {**recipe, "qvalue": agreement, "verdicts": verdicts(summary), "rows": summary.records()}
            target.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    print(text)
    return int(not verdicts(summary)[0]["holds"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
