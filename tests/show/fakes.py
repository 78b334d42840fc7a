"""A small stand-in for `Fit` that the parts of `show` can be tested against, odd cases included.

It follows the contract of the real one (tables with the same columns), with numbers from the
one-way normal model at known standard deviations: raw, weight, estimate = weight * raw + (1 - weight) * population.
"""

from __future__ import annotations

from statistics import NormalDist
from types import SimpleNamespace

import numpy as np
import pandas as pd
import xarray as xr

from finetti.errors import FinettiError
from finetti.model.formula import GroupTerm, Response
from finetti.model.priors import half_t, normal

EFFECTS, ERRORS = (28, 8, -3, 7, -1, 1, 18, 12), (15, 10, 16, 11, 9, 11, 10, 18)
BOARD = "y[i] ~ Normal(μ + u_school[j[i]], se[i]²)\nu_school[j] ~ Normal(0, sd_school²)\nsd_school ~ half_t(3, 10)"


class FakeDiagnostics:
    method = "quadrature"

    def __init__(self, ok=True, warnings=()):
        self.ok, self.warnings = ok, tuple(warnings)
        self.reason = "two hyperparameters or fewer: adaptive tensor quadrature"

    def lines(self):
        return [
            "Method: exact Gaussian inner step, tensor quadrature over 1 hyperparameter (41 nodes).",
            "Monte Carlo error: at most 1.1 % of a posterior sd.",
            *(f"Warning: {w}" for w in self.warnings),
        ]

    def as_dict(self):
        return {"ok": self.ok, "warnings": list(self.warnings), "method": self.method}


def _factor(name, table):
    """A grouping factor whose coefficients are independent."""
    coefficients = tuple(dict.fromkeys(table["coefficient"]))
    levels = tuple(dict.fromkeys(table["level"]))
    blocks = tuple((k,) for k in range(len(coefficients)))
    n = table.drop_duplicates("level")["n"].to_numpy(int)
    index = np.repeat(np.arange(len(levels)), n)
    return SimpleNamespace(name=name, coefficients=coefficients, levels=levels, blocks=blocks, index=index)


class FakeFit:
    seed = 0

    def __init__(self, tables, response="y", formula=None, ok=True, warnings=()):
        self._tables = tables
        self.group_names = tuple(tables)
        self.formula = formula or f"{response} ~ 1 + " + " + ".join(f"(1 | {g})" for g in tables)
        n = int(sum(t.drop_duplicates("level")["n"].sum() for t in list(tables.values())[:1])) or 3
        terms = tuple(GroupTerm((g,), "1") for g in tables)
        columns = frozenset({response, *tables})
        shape = SimpleNamespace(response=Response(response), population="1", offsets=(), groups=terms, columns=columns)
        inner = SimpleNamespace(formula=shape)
        factors = tuple(_factor(g, t) for g, t in tables.items())
        y = np.linspace(-1.0, 3.0, n)
        design = SimpleNamespace(n_dropped=0, columns=("Intercept",), factors=factors, y=y, X=np.ones((n, 1)), se=None,
                                 weights=None)  # fmt: skip
        priors = {"Intercept": normal(8, 26.2), **{f"sd_{g}[Intercept]": half_t(3, 10.5) for g in tables}}
        members = {"__str__": lambda s: BOARD, "model": inner, "design": design, "pooling": {}, "priors": priors,
                   "error_covariance": None}  # fmt: skip
        self.model = type("FakeBound", (), members)()
        self.diagnostics = FakeDiagnostics(ok, warnings)
        self.n_rows = int(sum(t["n"].sum() for t in tables.values()))
        self.posterior = xr.Dataset({"sigma": (("chain", "draw"), np.ones((4, 10)))})

    @property
    def inference(self):
        raise FinettiError("a stand-in has no hyperparameter nodes: figures of them are left out")

    @property
    def priors(self):
        return pd.DataFrame(
            {"prior": ["normal(8, 26.2)", "half_t(3, 10.5)"], "source": ["default", "sd"]},
            index=pd.Index(["Intercept", "sd_school[Intercept]"], name="label"),
        )

    def summary(self, probs=(0.05, 0.5, 0.95)):
        quantiles = {f"q{100 * p:g}": [8.0 + 4.7 * (p - 0.5), 5.0 + 8 * (p - 0.5)] for p in probs}
        return pd.DataFrame(
            {"mean": [7.9812, np.nan], "sd": [4.7123, np.nan], **quantiles, "ess": [41234.5, 3999.0],
             "mcse": [0.0231, np.nan]},
            index=pd.Index(["beta[Intercept]", "sd_school[Intercept]"], name="label"),
        )  # fmt: skip

    def groups(self, group, probs=(0.05, 0.5, 0.95)):
        table = self._tables[group].copy()
        if tuple(probs) != (0.05, 0.5, 0.95):
            table = table.drop(columns=["q5", "q50", "q95"])
            for p in probs:
                table[f"q{100 * p:g}"] = table["mean"] + NormalDist().inv_cdf(p) * table["sd"]
        return table


def group_table(levels, n, raw, raw_se, population=0.0, tau=1.0, coefficient="Intercept"):
    raw, raw_se = np.asarray(raw, float), np.asarray(raw_se, float)
    precision = np.where(np.isfinite(raw), 1 / raw_se**2, 0.0)
    weight = precision / (precision + tau**-2)
    mean = weight * np.nan_to_num(raw) + (1 - weight) * population
    sd = np.sqrt(1 / (precision + tau**-2) + (0.35 * tau * (1 - weight)) ** 2)
    return pd.DataFrame({
        "level": [str(v) for v in levels], "coefficient": coefficient, "n": np.asarray(n, int), "raw": raw,
        "raw_se": raw_se, "weight": weight, "population": population, "mean": mean, "sd": sd,
        "q5": mean - 1.645 * sd, "q50": mean, "q95": mean + 1.645 * sd,
    })  # fmt: skip


def eight_schools(**kind):
    table = group_table("ABCDEFGH", np.ones(8), EFFECTS, ERRORS, population=7.98, tau=6.0)
    return FakeFit({"school": table}, "effect", "effect | se(se) ~ 1 + (1 | school)", **kind)


def many(k, group="county", seed=1, **kind):
    rng = np.random.default_rng(seed)
    n = np.maximum(1, rng.negative_binomial(0.7, 0.06, k))
    truth = 1.45 + 0.3 * rng.standard_normal(k)
    raw_se = 0.75 / np.sqrt(n)
    first, second = rng.choice(["LAC QUI", "ST", "BIG"], k), rng.choice(["PARLE", "LOUIS", "MEDICINE"], k)
    names = [f"{first[i]} {second[i]} {i}" for i in range(k)]
    table = group_table(names, n, truth + raw_se * rng.standard_normal(k), raw_se, 1.462, 0.3)
    return FakeFit({group: table}, "log_radon", f"log_radon ~ 1 + floor + (1 | {group})", **kind)


def sleepstudy():
    rng = np.random.default_rng(3)
    names = [str(s) for s in (308, 309, 310, 330, 331, 332, 333, 334, 335, 337, 349, 350, 351, 352, 369, 370, 371, 372)]
    se = np.full(18, 2.8)
    slopes = 10.4 + 6 * rng.standard_normal(18) + se * rng.standard_normal(18)
    slopes[4] = np.nan  # a subject seen on one day only
    table = pd.concat([
        group_table(names, np.full(18, 10), 251 + 30 * rng.standard_normal(18), np.full(18, 15.0), 251.4, 24.0),
        group_table(names, np.full(18, 10), slopes, np.where(np.isnan(slopes), np.nan, se), 10.4, 6.0, "Days"),
    ])  # fmt: skip
    order = np.argsort(np.tile(np.arange(18), 2), kind="stable")
    return FakeFit({"Subject": table.iloc[order].reset_index(drop=True)}, "Reaction",
                   "Reaction ~ 1 + Days + (1 + Days | Subject)")  # fmt: skip
