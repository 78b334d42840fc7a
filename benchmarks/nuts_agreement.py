"""NUTS against the exact path on every shipped data set: one command, one table.

    python -m benchmarks.nuts_agreement

For each model: seconds of `method="nuts"` (warm) and of the exact path, the least effective sample, divergences, how
many statistics were compared and the largest difference in Monte Carlo standard errors, with the limit for that many
comparisons.
"""

from __future__ import annotations

import time

from tests.posterior import agreement

import finetti as fi
from finetti.inference import joint_kernels


def main() -> None:
    began = time.perf_counter()
    joint_kernels.compiled(), joint_kernels.compiled_store()
    print(f"kernels compiled or loaded in {time.perf_counter() - began:.1f} s")
    models = {name: agreement.shipped(name) for name in fi.datasets.names() if name != "leukaemia"}
    models |= {"four correlated slopes": agreement.four_slopes, "three crossed": agreement.three_crossed}
    agreement.both(models["dyestuff"]())  # imports and caches
    print("| model | NUTS s | exact s | least bulk ESS | divergences | compared | worst z | limit |")
    print("|---|---|---|---|---|---|---|---|")
    for name, model in models.items():
        nuts, exact = agreement.both(model())
        z = agreement.scores(nuts, exact)
        assert nuts.sampled is not None
        print(
            f"| {name} | {nuts.seconds:.2f} | {exact.seconds:.2f} | {nuts.sampled.convergence.bulk:.0f} | "
            f"{nuts.sampled.divergences} | {len(z)} | {z.abs().max():.2f} | {agreement.limit(len(z)):.2f} |"
        )


if __name__ == "__main__":
    main()
