"""What honesty costs: tables of uncertainty against the fit that they are about.

    .venv/bin/python benchmarks/honesty_costs.py            radon, and InstEval where ../shared/data is there
    .venv/bin/python benchmarks/honesty_costs.py --repeats 9

radon: groups, uncertainty, logo and sensitivity together, refits excluded, over the fit; medians of repeats on a fresh
fit each time, since a fit remembers what was computed. InstEval: uncertainty, and logo of its 1,128 lecturers, once.
Exit status 1 if radon takes 3 fits or more, uncertainty 10 s, or the lecturers 60 s. Nothing else should run beside.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from common import SHARED

import finetti as fi

RADON = "log_radon ~ 1 + floor + (1 | county)"
INSTEVAL = "y ~ 1 + service + (1 | s) + (1 | d) + (1 | dept)"
MOST_FITS, MOST_UNCERTAINTY, MOST_LECTURERS = 3.0, 10.0, 60.0


def seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def radon(repeats: int) -> float:
    """Return the cost of the four tables in fits."""
    data = fi.datasets.load("radon")
    rows: dict[str, list[float]] = {name: [] for name in ("fit", "groups", "uncertainty", "logo", "sensitivity")}
    for repeat in range(repeats + 2):
        began = time.perf_counter()
        fit = fi.fit(RADON, data)
        fit.summary()
        took = {"fit": time.perf_counter() - began}
        took["groups"] = seconds(fit.groups)
        took["uncertainty"] = seconds(lambda fit=fit: fit.uncertainty("county"))  # type: ignore[misc]
        took["logo"] = seconds(lambda fit=fit: fit.logo("county"))  # type: ignore[misc]
        took["sensitivity"] = seconds(lambda fit=fit: fit.sensitivity(refit=False))  # type: ignore[misc]
        if repeat > 1:  # the first two compile and warm up
            for name, value in took.items():
                rows[name].append(value)
    middle = {name: median(values) for name, values in rows.items()}
    ratio = sum(v for name, v in middle.items() if name != "fit") / middle["fit"]
    shown = ", ".join(f"{name} {1000 * v:.0f} ms" for name, v in middle.items())
    print(f"radon, medians of {repeats}: {shown}: together {ratio:.2f} fits (limit {MOST_FITS:.0f})")
    return ratio


def insteval() -> tuple[float, float]:
    """Return seconds of the uncertainty of all terms, and of leaving out every lecturer."""
    path = SHARED / "insteval.csv.gz"
    if not path.exists():
        print(f"InstEval left out: there is no {path.name} in the shared data")
        return 0.0, 0.0
    fit = fi.fit(INSTEVAL, str(path))
    print(f"InstEval: fit {fit.inference.seconds:.1f} s, {fit.inference.hyper.n_nodes} nodes")
    small = fi.datasets.load("penicillin")
    fi.fit("diameter ~ 1 + (1 | plate) + (1 | sample)", small).uncertainty("plate")  # kernels
    uncertain = seconds(lambda: fit.uncertainty())
    print(f"  uncertainty of all three terms {uncertain:.1f} s (limit {MOST_UNCERTAINTY:.0f})")
    out = 0.0
    for group in ("d", "s", "dept"):
        took = seconds(lambda group=group: fit.logo(group))  # type: ignore[misc]
        print(f"  logo of {len(fit.logo(group).levels)} levels of {group}: {took:.1f} s"
              + (f" (limit {MOST_LECTURERS:.0f})" if group == "d" else ""))  # fmt: skip
        print("    " + str(fit.logo(group)).replace("\n", "\n    "))
        out = took if group == "d" else out
    print(f"  loo of {fit.n_rows} rows: {seconds(fit.loo):.1f} s")
    return uncertain, out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--radon", action="store_true", help="leave InstEval out")
    options = parser.parse_args()
    ratio = radon(options.repeats)
    uncertain, lecturers = (0.0, 0.0) if options.radon else insteval()
    return int(ratio >= MOST_FITS or uncertain >= MOST_UNCERTAINTY or lecturers >= MOST_LECTURERS)


if __name__ == "__main__":
    sys.exit(main())
