"""Simulation-based calibration, long: `fi.calibrate` on three models, 1,000 data sets each, and what it costs.

The designs and priors of tests/posterior/test_calibration.py, where the simulator is written out by hand, and the
sleep study with default priors. Prints every table with p-values of uniformity and of dispersion. Run from the
project's root; a few minutes on two cores.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.posterior.test_calibration import CASES, p_values

import finetti as fi


def main(n: int = 1000) -> int:
    """Run every case; exit 1 if a p-value is below 1e-3 over the number of tests."""
    rng, smallest, tests = np.random.default_rng(1), 1.0, 0
    cases = {name: (formula, sample(rng)[0], priors) for name, (formula, sample, priors) in CASES.items()}
    cases["sleep study"] = ("Reaction ~ 1 + Days + (1 + Days | Subject)", fi.datasets.load("sleepstudy"), {})
    for name, (formula, data, priors) in cases.items():
        start = time.perf_counter()
        result = fi.calibrate(formula, data, n, priors=priors, seed=1)
        seconds = time.perf_counter() - start
        print(f"\n{name}: {seconds:.0f} s, {1e3 * seconds / n:.0f} ms for each data set\n{result}")
        for label in result.pit:
            uniform, dispersion = p_values(result.pit[label].dropna().to_numpy())
            print(f"  {label:28s} uniform {uniform:.3f}   dispersion {dispersion:.3f}")
            smallest, tests = min(smallest, uniform, dispersion), tests + 2
    print(f"\nsmallest of {tests} p-values: {smallest:.2g} (alarm below {1e-3 / tests:.1e})")
    return int(smallest < 1e-3 / tests)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
