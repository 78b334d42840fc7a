"""The named reference problems, with every prior stated, and their posteriors by quadrature.

    python -m tests.oracle_references            remake all the stored ones (tests/references/*.json, a few minutes)
    python -m tests.oracle_references pastes     remake one

`reference(name)` gives the answers: read from the stored file if there is one, else computed (under five seconds).
`REFERENCES[name].formula` and `.finetti_priors()` are what to hand to finetti. The prior named `Intercept` is on the
predictor at the covariates' means (sleepstudy: at 4.5 days).
"""

from __future__ import annotations

import csv
import functools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.oracle_problems import as_prior
from tests.oracle_quadrature import Quadrature, quadrature_posterior
from tests.oracles import OracleFactor, Problem, dist

DATASETS = Path(__file__).parents[1] / "src" / "finetti" / "datasets"
STORED = Path(__file__).parent / "references"


@dataclass(frozen=True)
class Reference:
    """A data set, a formula and priors as a user writes them, and the same thing as raw arrays."""

    dataset: str
    formula: str
    priors: dict[str, str]
    build: Callable[[dict[str, list[str]], dict[str, str]], Problem]
    points: tuple[int, ...] | None = None
    stored: bool = False

    @property
    def problem(self) -> Problem:
        with (DATASETS / f"{self.dataset}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        return self.build({k: [row[k] for row in rows] for k in rows[0]}, self.priors)

    def finetti_priors(self) -> dict[str, Any]:
        """`priors` as objects, for `finetti.fit`."""
        return {key: as_prior(text) for key, text in self.priors.items()}


def _factor(name: str, cells: list[str], coefficients: tuple[str, ...], Z: np.ndarray) -> OracleFactor:
    levels = tuple(sorted(set(cells)))
    index = np.array([levels.index(c) for c in cells])
    return OracleFactor(name, levels, index, coefficients, Z, (tuple(range(len(coefficients))),))


def _intercepts(response: str, *groups: str) -> Callable[[dict[str, list[str]], dict[str, str]], Problem]:
    """`response ~ 1 + (1 | g) + ...`; a group `a:b` pairs the columns a and b; a column `se` is known errors."""

    def build(columns: dict[str, list[str]], priors: dict[str, str]) -> Problem:
        y = np.array(columns[response], float)
        ones = np.ones((len(y), 1))
        factors = []
        for group in groups:
            cells = [":".join(parts) for parts in zip(*(columns[part] for part in group.split(":")), strict=True)]
            factors.append(_factor(group, cells, ("Intercept",), ones))
        se = np.array(columns["se"], float) if "se" in columns else None
        return Problem(y, ones, ("Intercept",), (dist(priors["Intercept"]),), tuple(factors), se=se, centred=True)

    return build


def _sleepstudy(columns: dict[str, list[str]], priors: dict[str, str]) -> Problem:
    y, days = np.array(columns["Reaction"], float), np.array(columns["Days"], float)
    X = np.column_stack([np.ones(len(y)), days])
    beta = (dist(priors["Intercept"]), dist(priors["beta[Days]"]))
    factor = _factor("Subject", columns["Subject"], ("Intercept", "Days"), X)
    return Problem(y, X, ("Intercept", "Days"), beta, (factor,), centred=True)


EIGHT = _intercepts("effect", "school")
EIGHT_FORMULA = "effect | se(se) ~ 1 + (1 | school)"

REFERENCES = {
    # the priors of posteriordb's eight_schools-eight_schools_noncentered
    "eight_schools": Reference(
        "eight_schools", EIGHT_FORMULA, {"Intercept": "normal(0, 5)", "sd_school[Intercept]": "half_cauchy(5)"}, EIGHT,
        points=(300,),
    ),
    "eight_schools_half_normal": Reference(
        "eight_schools", EIGHT_FORMULA, {"Intercept": "normal(0, 5)", "sd_school[Intercept]": "half_normal(5)"}, EIGHT,
        points=(300,),
    ),
    # BDA3 section 5.5
    "eight_schools_flat": Reference(
        "eight_schools", EIGHT_FORMULA, {"Intercept": "flat()", "sd_school[Intercept]": "uniform()"}, EIGHT,
        points=(300,),
    ),
    "dyestuff2": Reference(
        "dyestuff2", "Yield ~ 1 + (1 | Batch)",
        {"Intercept": "normal(5, 10)", "sd_Batch[Intercept]": "half_t(3, 4)", "sigma": "half_t(3, 4)"},
        _intercepts("Yield", "Batch"),
    ),
    "penicillin": Reference(
        "penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)",
        {"Intercept": "normal(23, 5)", "sd_plate[Intercept]": "half_t(3, 2)", "sd_sample[Intercept]": "half_t(3, 2)",
         "sigma": "half_t(3, 2)"},
        _intercepts("diameter", "plate", "sample"), points=(44, 48, 44), stored=True,
    ),
    "pastes": Reference(
        "pastes", "strength ~ 1 + (1 | batch/cask)",
        {"Intercept": "normal(60, 8)", "sd_batch[Intercept]": "half_t(3, 3)",
         "sd_batch:cask[Intercept]": "half_t(3, 3)", "sigma": "half_t(3, 3)"},
        _intercepts("strength", "batch", "batch:cask"), points=(80, 48, 44), stored=True,
    ),
    "sleepstudy": Reference(
        "sleepstudy", "Reaction ~ 1 + Days + (1 + Days | Subject)",
        {"Intercept": "normal(300, 150)", "beta[Days]": "normal(0, 50)", "sd_Subject[Intercept]": "half_t(3, 60)",
         "sd_Subject[Days]": "half_t(3, 20)", "cor_Subject": "lkj(2)", "sigma": "half_t(3, 60)"},
        _sleepstudy, points=(32, 32, 28, 26), stored=True,
    ),
}  # fmt: skip


@functools.cache
def reference(name: str) -> Quadrature:
    """Posterior of one of `REFERENCES`."""
    file = STORED / f"{name}.json"
    if not REFERENCES[name].stored:
        return quadrature_posterior(REFERENCES[name].problem, REFERENCES[name].priors, REFERENCES[name].points)
    kept = json.loads(file.read_text())
    box = {k: (low, high) for k, (low, high) in kept["box"].items()}
    return Quadrature(kept["table"], kept["log_evidence"], kept["error"], kept["worst"], tuple(kept["points"]), box)


def remake(name: str) -> Quadrature:
    """Compute a stored reference and write it with its recipe."""
    ref, start = REFERENCES[name], time.perf_counter()
    got = quadrature_posterior(ref.problem, ref.priors, ref.points)
    recipe = {
        "command": f"python -m tests.oracle_references {name}",
        "dataset": f"src/finetti/datasets/{ref.dataset}.csv",
        "formula": ref.formula,
        "priors": ref.priors,
        "method": "Gauss-Legendre tensor grid over dense algebra (tests/oracle_quadrature.py)",
        "points": got.points,
        "error": got.error,
        "worst": got.worst,
        "error_is": "largest difference from a grid of 0.8 the points per axis over a tighter box, in posterior sds",
        "log_evidence": got.log_evidence,
        "box": got.box,
    }
    lines = ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in got.table.items())
    head = json.dumps(recipe, indent=2).removesuffix("\n}")
    STORED.mkdir(exist_ok=True)
    (STORED / f"{name}.json").write_text(f'{head},\n  "table": {{\n{lines}\n  }}\n}}\n')
    seconds = time.perf_counter() - start
    print(f"{name}: error {got.error:.2g} of a posterior sd ({got.worst}), {seconds:.0f} s, box {got.box}")
    return got


if __name__ == "__main__":
    for chosen in sys.argv[1:] or [name for name, ref in REFERENCES.items() if ref.stored]:
        remake(chosen)
