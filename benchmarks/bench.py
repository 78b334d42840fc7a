"""The race: finetti's full posterior beside its peers, every program in the same run, into benchmarks/results.md.

    make bench                          everything that is installed (an hour or two, most of it Bambi)
    make bench ARGS="--quick"           the small data sets, 3 repeats, no Bambi; prints, and writes nothing
    make bench ARGS="--only InstEval --peers lme4,mixedlm"

Each program runs in a process of its own, has its data in memory, and is warm (one fit before the clock starts);
fits are interleaved, one of each program in turn, so that the noise of the machine meets all alike.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import CASES, HERE, ROOT, Case, LeftOutError, Worker, canonical, lme4_command, present, python_command
from table import write

SMALL_REPEATS, LARGE_REPEATS = 15, 5
LIMIT = 600.0  # seconds for one fit
BUDGET = 90.0  # seconds for one program's repeats, the first excepted
PAUSE = 0.02  # between fits, so that idle threads of the last one have gone to sleep
POINT = ("lme4", "lme4 without derivatives", "mixedlm", "gpboost", "statsmodels")
# tuning steps and draws of each of 4 chains: Bambi's default, and a few where a gradient takes milliseconds
BAMBI_SMALL, BAMBI_LARGE, BAMBI_HUGE = (1000, 1000), (300, 300), (100, 50)
# An estimate is another one if it is off by this share of lme4's (of sigma, if that is larger)
SAME = 0.01


@dataclass
class Row:
    """One data set: what every program did with it."""

    case: Case
    seconds: dict[str, list[float]] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)  # in a fresh process, kernels cached
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    error: dict[str, Any] = field(default_factory=dict)
    cold: float | None = None  # first call with no kernels cached
    bambi: list[dict[str, Any]] = field(default_factory=list)
    bambi_over: float | None = None  # seconds that did not suffice for the fewest draws


def interpreter(variable: str, folder: str) -> str:
    """The Python of an environment of peers: a variable's, or the one that `make bench-peers` made."""
    python = os.environ.get(variable) or str(ROOT / folder / "bin" / "python")
    if not Path(python).exists():
        raise LeftOutError("not installed (make bench-peers)")
    return python


def start(program: str, case: Case, limit: float = LIMIT) -> Worker:
    """A worker of this program for this case, or LeftOutError."""
    if program == "finetti":
        return Worker(python_command("fit_finetti.py", case), LIMIT)
    if program == "bambi":
        return Worker(python_command("fit_bambi.py", case, interpreter("FINETTI_BAMBI_PYTHON", ".venv-bambi")), LIMIT)
    if program.startswith("lme4"):
        return Worker(lme4_command(case, "default" if program == "lme4" else "no-derivatives"), limit)
    return Worker(python_command(f"fit_{program}.py", case, interpreter("FINETTI_PEERS_PYTHON", ".venv-peers")), limit)


def race(case: Case, programs: list[str], repeats: int, limit: float = LIMIT) -> Row:
    """Warm every program up, then time them in turn; estimates and finetti's error come last."""
    row = Row(case)
    workers: dict[str, Worker] = {}

    def out(program: str, reason: LeftOutError) -> None:
        row.left_out[program] = str(reason)
        if program in workers:
            workers.pop(program).stop()

    for program in programs:
        try:
            workers[program] = start(program, case, limit)
            row.first[program] = workers[program].ask("go")["seconds"]
            # a fit that takes the whole budget is warm enough, and is not run twice
            row.seconds[program] = [row.first[program]] if row.first[program] > BUDGET else []
        except LeftOutError as reason:
            out(program, reason)
    for _ in range(repeats):
        for program in list(workers):
            if sum(row.seconds[program]) > BUDGET:
                continue
            time.sleep(PAUSE)
            try:
                row.seconds[program].append(workers[program].ask("go")["seconds"])
            except LeftOutError as reason:
                out(program, reason)
    for program in list(workers):
        try:
            row.answers[program] = answer = workers[program].ask("estimates")
            answer["estimates"] = canonical(answer["estimates"], case)
            row.notes[program] = list(answer.get("notes") or [])
            if program == "finetti":
                row.error = workers[program].ask("reference")
        except LeftOutError as reason:
            out(program, reason)
    for worker in workers.values():
        worker.stop()
    compare(row)
    return row


def compare(row: Row) -> None:
    """Say of each point estimate where it is not lme4's (maximum likelihood against maximum likelihood)."""
    if "lme4" not in row.answers:
        return
    for program in POINT[2:]:
        if program not in row.answers or "independent slopes" in row.notes[program]:
            continue
        answer = row.answers[program]
        reference = row.answers["lme4"]["estimates"]
        if answer.get("criterion") == "ml":
            reference = canonical(row.answers["lme4"]["ml"], row.case)
        gaps = {}
        for label, theirs in reference.items():
            if label.startswith("beta["):
                continue
            value = answer["estimates"].get(label, float("nan"))
            size = 1.0 if label.startswith("cor_") else max(abs(theirs), 0.01 * reference["sigma"])
            gaps[label] = abs(value - theirs) / size
        label = max(gaps, key=lambda k: gaps[k] if gaps[k] == gaps[k] else float("inf"))
        if not gaps[label] <= SAME:
            value = answer["estimates"].get(label, float("nan"))
            row.notes[program].append(f"another estimate: {label} {value:.3g}, lme4 {reference[label]:.3g}")


def cold_call(case: Case) -> float:
    """The first fit with no compiled kernels: import and compilation included."""
    with tempfile.TemporaryDirectory() as cache:
        worker = Worker(python_command("fit_finetti.py", case), LIMIT, NUMBA_CACHE_DIR=cache)
        try:
            seconds = float(worker.ask("go")["seconds"])
            return seconds + float(worker.ask("estimates")["import"])
        finally:
            worker.stop()


def bambi(row: Row, limit: float) -> None:
    """Sample with both parameterisations, so that the better one counts."""
    try:
        if "finetti" not in row.answers:
            raise LeftOutError("finetti's priors are not known")
        worker = start("bambi", row.case)
    except LeftOutError as reason:
        row.left_out["bambi"] = str(reason)
        return
    rows = row.answers["finetti"]["rows"]
    lengths = [BAMBI_HUGE] if rows > 500_000 else [BAMBI_LARGE, BAMBI_HUGE] if row.case.large else [BAMBI_SMALL]
    reasons = []
    for noncentered in (True, False):
        for tune, draws in lengths:
            asked = {"priors": row.answers["finetti"]["priors"], "noncentered": noncentered, "tune": tune,
                     "draws": draws, "seed": 1, "limit": limit}  # fmt: skip
            try:
                row.bambi.append(worker.ask("sample " + json.dumps(asked), limit + LIMIT))
                break
            except LeftOutError as reason:
                reasons.append(f"{'non-centred' if noncentered else 'centred'} {reason}")
                worker = start("bambi", row.case)
    worker.stop()
    if not row.bambi:
        row.left_out["bambi"] = "; ".join(reasons)
        row.bambi_over = limit if all(" over " in reason for reason in reasons) else None


def arguments(argv: list[str]) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog='make bench ARGS="..."', description="The race against finetti's peers.")
    parser.add_argument("--quick", action="store_true", help="small data sets, 3 repeats, no Bambi, nothing written")
    parser.add_argument("--only", default="", help="names of data sets, with commas between")
    parser.add_argument("--peers", default=",".join([*POINT, "bambi"]), help="names of peers, with commas between")
    parser.add_argument("--repeats", type=int, help=f"fits of each ({SMALL_REPEATS}; {LARGE_REPEATS} of the large)")
    parser.add_argument("--bambi-limit", type=float, default=LIMIT, help="seconds for one run of Bambi (600)")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for one fit of any other program (600)")
    parser.add_argument("--out", type=Path, help="where to write (benchmarks/results.md)")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run the race and write the table; exit 1 if finetti failed on a data set."""
    asked = arguments(argv)
    wanted = [name.strip().lower() for name in asked.only.split(",") if name.strip()]
    known = [case.name.lower() for case in CASES]
    peers = [name.strip() for name in asked.peers.split(",") if name.strip()]
    for name in [w for w in wanted if w not in known] + [p for p in peers if p not in (*POINT, "bambi")]:
        print(f"{name!r} is not known; --only takes {', '.join(known)}; --peers takes {', '.join(POINT)}, bambi")
        return 2
    rows = []
    for case in CASES:
        if (wanted and case.name.lower() not in wanted) or (asked.quick and case.large) or not present(case):
            continue
        print(f"{case.name} ...", file=sys.stderr, flush=True)
        repeats = asked.repeats or (3 if asked.quick else LARGE_REPEATS if case.large else SMALL_REPEATS)
        rows.append(race(case, ["finetti", *(p for p in peers if p != "bambi")], repeats, asked.limit))
    if not rows:
        print("none of these data sets is here")
        return 2
    # after the timed fits, so that a sampler's threads never meet them
    for row in rows:
        if asked.quick and row.case.name != "sleepstudy":
            continue
        print(f"{row.case.name}: first call ...", file=sys.stderr, flush=True)
        if "finetti" in row.answers:
            row.cold = cold_call(row.case)
    for row in rows:
        if "bambi" in peers and not asked.quick:
            print(f"{row.case.name}: Bambi ...", file=sys.stderr, flush=True)
            bambi(row, asked.bambi_limit)
    partial = asked.quick or bool(wanted) or len(peers) < len(POINT) + 1
    target = asked.out or (None if partial else HERE / "results.md")
    command = "make bench" + (f" ARGS='{' '.join(argv)}'" if argv else "")
    print(write(rows, target, command))
    for row in rows:
        if "finetti" in row.left_out:
            print(f"finetti failed on {row.case.name}: {row.left_out['finetti']}")
    return int(any("finetti" in row.left_out for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
