"""How often exchangeable groups are flagged, and what is found where they are not: 200 data sets of each kind.

The rates that `fit.exchangeability` promises: any flag, and any informative column, in at most 5 % of data sets with
groups from one parent; p-values of the whole set of PITs that are uniform there and small where the parent is not
normal. Run from the project's root; some minutes on two cores.
"""

from __future__ import annotations

import sys
import time
import warnings

import numpy as np
import pandas as pd

import finetti as fi

# groups, rows in each, sd of the parent, whether slopes vary, shape of the parent
CASES = {
    "20 groups of 3": (20, 3, 0.7, False, "normal"),
    "20 groups of 3, hardly any variance": (20, 3, 0.05, False, "normal"),
    "60 groups of 10": (60, 10, 2.0, False, "normal"),
    "5 groups of 5": (5, 5, 0.7, False, "normal"),
    "15 groups of 6, slopes": (15, 6, 0.7, True, "normal"),
    "40 groups of 10, Student-t parent of 2 df": (40, 10, 1.0, False, "t"),
    "40 groups of 10, two clusters": (40, 10, 1.0, False, "two"),
    "20 groups of 8, one shifted by 4 sd": (20, 8, 0.7, False, "shifted"),
}


def effects(rng: np.random.Generator, J: int, n: int, tau: float, shape: str) -> np.ndarray:
    if shape == "t":
        return tau * rng.standard_t(2, J)
    if shape == "two":
        return tau * rng.choice([-1.0, 1.0], J)
    u = rng.normal(0.0, tau, J)
    if shape == "shifted":
        u[0] += 4.0 * np.sqrt(tau**2 + 1.0 / n)
    return u


def main(sims: int = 200) -> None:
    print(f"{sims} data sets each; shares of them\n{'':44s}any flag  any column  p(PITs) < 0.05  < 0.5   ms")
    for name, (J, n, tau, slopes, shape) in CASES.items():
        flag, told, p, start = 0, 0, [], time.perf_counter()
        for s in range(sims):
            rng = np.random.default_rng([s, J])
            index, x = np.repeat(np.arange(J), n), rng.normal(size=J * n)
            y = effects(rng, J, n, tau, shape)[index] + rng.normal(size=J * n)
            y = y + slopes * rng.normal(0.0, tau, J)[index] * x
            noise, kind = rng.normal(size=J)[index], rng.choice(list("abc"), J)[index]
            data = pd.DataFrame({"y": y, "x": x, "g": index, "noise": noise, "kind": kind})
            fit = fi.fit("y ~ 1 + x + (1 + x | g)" if slopes else "y ~ 1 + (1 | g)", data, seed=s)
            found = fit.exchangeability(by=["noise", "kind"])
            flag, told = flag + bool(found.flagged), told + bool(found.informative)
            p.append(found.calibration["p_value"][0])
        small, half = (np.mean(np.array(p) < c) for c in (0.05, 0.5))
        cost = 1e3 * (time.perf_counter() - start) / sims
        print(f"{name:44s}{flag / sims:8.3f}{told / sims:12.3f}{small:16.3f}{half:7.3f}{cost:6.0f}", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of models that few groups leave to their priors
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
