"""Empirical Bayes with flat coefficients against lme4's REML: every estimate, to 4 digits."""

from __future__ import annotations

import sys

from common import BOUNDARY, CASES, lme4, read

import finetti as fi

LARGEST = "one million rows"  # agrees as radon does, and takes minutes


def main() -> int:
    """Print one line per estimate; exit 1 if any differs in the fourth digit."""
    worst = 0.0
    for case in (*BOUNDARY, *CASES):
        if not case.lme4 or case.name == LARGEST:
            continue
        data = read(case)
        if data is None:
            continue
        answer = lme4(case)
        if answer is None:
            print("R with lme4 is not installed: nothing to compare with (apt-get install r-cran-lme4)")
            return 0
        reference = {**answer["estimates"], "criterion": answer["criterion"]}
        fit = fi.fit(case.formula, data, priors={"beta": fi.flat()}, pooling="empirical")
        mine = fit.summary()["mean"].to_dict()
        mine["criterion"] = -2.0 * fit.diagnostics.log_marginal
        print(f"\n{case.name}: {case.formula}   ({answer['version']})")
        for label, value in mine.items():
            if label not in reference:
                print(f"  {label:32s} {value:14.6f}   lme4 has no such line")
                worst = max(worst, 1.0)
                continue
            theirs = float(reference[label])
            # a correlation near zero and a variance of zero are compared absolutely
            gap = abs(value - theirs) / max(abs(theirs), 1e-2)
            worst = max(worst, gap)
            print(f"  {label:32s} {value:14.6f} {theirs:14.6f}   {gap:.1e}")
    print(f"\nlargest relative difference: {worst:.1e}")
    return int(worst > 2e-4)


if __name__ == "__main__":
    sys.exit(main())
