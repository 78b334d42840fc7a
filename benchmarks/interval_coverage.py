"""Where empirical Bayes' intervals are too narrow: the numbers and figures of docs/honesty.md.

    python benchmarks/interval_coverage.py              400 simulations per design, about four minutes on two cores
    python benchmarks/interval_coverage.py 2000         more of them
    python benchmarks/interval_coverage.py --figures    draws docs/img/honesty-*.png again as well

Run from the project's root. Exits with 1 unless
- full-Bayes intervals cover what they promise, within simulation error, where the prior draws the truth;
- those of empirical Bayes fall visibly short with 5 groups and a small standard deviation between them;
- both agree with 200 groups of 20 rows.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

import finetti as fi
from finetti.show.coverage import coverage_figure

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "img"
GROUPS, ROWS, TRUTH = [5, 10, 20, 50, 200], [2, 5, 20], {"sd": 0.3, "sigma": 1.0, "mean": 0.0}
PRIOR_GROUPS, PRIOR_ROWS = [5, 20, 200], [5]
# Standard errors that the largest of some twenty comparisons may be off: reached by chance once in two hundred runs
CHANCE = 3.5
VISIBLE, EQUAL = 0.05, 0.02


def schools_fit() -> fi.Fit:
    """Eight schools with the priors that Gelman et al. (2013) discuss."""
    priors = {"Intercept": fi.normal(0, 5), "sd": fi.half_cauchy(5)}
    return fi.fit("effect | se(se) ~ 1 + (1 | school)", fi.datasets.load("eight_schools"), priors=priors)


def heading(text: str) -> None:
    """Print what follows."""
    print(f"\n\n{text}\n{'-' * len(text)}")


def effects(table: pd.DataFrame, method: str, **design: int) -> pd.Series:
    """The row of the groups' effects under a method and design."""
    rows = table[(table["quantity"] == "group effects") & (table["method"] == method)]
    for key, value in design.items():
        rows = rows[rows[key] == value]
    (row,) = (rows.iloc[i] for i in range(len(rows)))
    return row


def save(figure: Any, name: str) -> None:
    """Write docs/img/honesty-<name>.png."""
    figure.savefig(IMAGES / f"honesty-{name}.png", dpi=120, pil_kwargs={"optimize": True})


def main() -> int:
    """Run, print, draw, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("n_sims", nargs="?", type=int, default=400)
    parser.add_argument("--figures", action="store_true")
    asked = parser.parse_args()
    n, start = asked.n_sims, time.perf_counter()

    heading("How many groups does it take? y ~ 1 + (1 | group) at one truth")
    designs = fi.coverage(groups=GROUPS, rows_per_group=ROWS, truth=TRUTH, n_sims=n)
    print(designs)

    heading("The same averaged over truths from the prior: full Bayes must hold 90 %")
    average = fi.coverage(groups=PRIOR_GROUPS, rows_per_group=PRIOR_ROWS, truth="prior", n_sims=n)
    full = average.table[average.table["method"] == "full Bayes"].copy()
    full["z"] = (full["coverage"] - full["nominal"]) / full["se"]
    print(full[["groups", "rows_per_group", "quantity", "coverage", "se", "z"]].round(4).to_string(index=False))
    print(average)

    heading("Eight schools: data sets like this one, at the posterior medians")
    fit = schools_fit()
    schools = fi.coverage(fit, n_sims=n)
    print(schools)

    heading("Eight schools: what one data set says")
    print(fit.uncertainty("school").round(2).to_string(index=False))

    if asked.figures:
        save(coverage_figure(designs), "coverage")
        save(coverage_figure(designs, "a new group"), "new-group")
        save(fit.plot.uncertainty("school").figure, "uncertainty")

    few = {m: effects(designs.table, m, groups=5, rows_per_group=5) for m in ("empirical Bayes", "full Bayes")}
    many = {m: effects(designs.table, m, groups=200, rows_per_group=20) for m in ("empirical Bayes", "full Bayes")}
    verdicts = {
        f"full Bayes averaged over its prior: largest |z| of {len(full)} is {full['z'].abs().max():.1f}, "
        f"at most {CHANCE}": full["z"].abs().max() <= CHANCE,
        f"5 groups of 5 rows: empirical Bayes holds {100 * few['empirical Bayes']['coverage']:.1f} %, full Bayes "
        f"{100 * few['full Bayes']['coverage']:.1f} %": few["empirical Bayes"]["coverage"] < 0.9 - VISIBLE,
        f"200 groups of 20 rows: {100 * many['empirical Bayes']['coverage']:.1f} % and "
        f"{100 * many['full Bayes']['coverage']:.1f} %": all(abs(r["coverage"] - 0.9) < EQUAL for r in many.values()),
    }
    heading(f"Verdict, after {time.perf_counter() - start:.0f} s")
    for words, good in verdicts.items():
        print(f"{'yes' if good else 'NO '}  {words}")
    return int(not all(verdicts.values()))


if __name__ == "__main__":
    sys.exit(main())
