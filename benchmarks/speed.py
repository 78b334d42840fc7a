"""Full posterior against lme4's point estimate, warm, parsing included, in one run.

Prints a Markdown table: median seconds of each, their ratio, and the Monte Carlo error that the
posterior reached (upper 90 % bound, in posterior sds, for means and sds of the hyperparameters).
"""

from __future__ import annotations

import time

import numpy as np
from common import CASES, lme4, read

import finetti as fi

SMALL_REPEATS, LARGE_REPEATS = 15, 3


def main() -> None:
    """Time every case; peers that are absent are left out and said so."""
    rows, version = [], None
    for case in CASES:
        data = read(case)
        if data is None:
            continue
        repeats = LARGE_REPEATS if len(data) > 10_000 else SMALL_REPEATS
        fi.fit(case.formula, data).summary()  # compile and warm up
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            fit = fi.fit(case.formula, data)
            fit.summary()
            seconds.append(time.perf_counter() - start)
        peer = lme4(case, repeats)
        version = peer["version"] if peer else version
        mine, theirs = float(np.median(seconds)), float(peer["seconds"]) if peer else np.nan
        rows.append((case.name, len(data), mine, theirs, mine / theirs, fit.diagnostics.worst_mean_error))
    print(f"\nlme4: {version or 'not installed, left out'}\n")
    print("| data | rows | finetti, full posterior (s) | lme4, REML (s) | ratio | error (sd) |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, n, mine, theirs, ratio, error in rows:
        print(f"| {name} | {n} | {mine:.3f} | {theirs:.3f} | {ratio:.2f} | {error:.3f} |")


if __name__ == "__main__":
    main()
