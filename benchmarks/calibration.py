"""Simulation-based calibration, long: the models of tests/posterior/test_calibration.py, 1,000 data sets each.

Prints for every parameter the p-values of uniformity and of dispersion of the posterior CDF at the truth, and how
many fits failed their own check. Run from the project's root; about ten minutes on two cores.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.posterior.test_calibration import CASES, p_values, positions

import finetti as fi


def main(n: int = 1000) -> int:
    """Run every case; exit 1 if a p-value is below 1e-3 over the number of tests."""
    smallest, tests = 1.0, 0
    for name, (formula, sample, priors) in CASES.items():
        rng, rows, failed, start = np.random.default_rng(1), [], 0, time.perf_counter()
        for _ in range(n):
            data, truth = sample(rng)
            fit = fi.fit(formula, data, priors=priors)
            failed += not fit.diagnostics.ok
            rows.append(positions(fit, truth))
        table = pd.DataFrame(rows)
        seconds = time.perf_counter() - start
        print(f"\n{name}: {n} data sets in {seconds:.0f} s ({1e3 * seconds / n:.0f} ms each), {failed} failed a check")
        for label in table:
            uniform, dispersion = p_values(table[label].to_numpy())
            print(f"  {label:24s} uniform {uniform:.3f}   dispersion {dispersion:.3f}")
            smallest, tests = min(smallest, uniform, dispersion), tests + 2
    print(f"\nsmallest of {tests} p-values: {smallest:.2g} (alarm below {1e-3 / tests:.1e})")
    return int(smallest < 1e-3 / tests)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
