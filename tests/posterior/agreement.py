"""NUTS on the joint density against the exact path: every mean, sd and quantile, in Monte Carlo standard errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri

import finetti as fi
from finetti.inference.convergence import chain_errors
from finetti.inference.hyper import Settings
from finetti.inference.infer import Inference, infer
from finetti.posterior import groups, moments
from finetti.posterior.fit import Fit
from finetti.posterior.groups import group_table
from finetti.posterior.summary import summarise

PROBS = (0.05, 0.5, 0.95)
# the exact side's own error, in posterior sds: its targets, tightened until they are small beside those of NUTS
MEAN_ERROR, QUANTILE_ERROR = 0.008, 0.02
TIGHT = Settings(mean_error=MEAN_ERROR, quantile_error=QUANTILE_ERROR, max_nodes=32768)
# chance that one of all comparisons of a run exceeds its limit although both sides are right
FALSE_ALARM = 1e-3

Table = pd.DataFrame
Model = tuple[str, Any, dict[str, Any]]


def four_slopes() -> Model:
    """Four correlated coefficients per group: 4 sds and 6 correlations (11 hyperparameters with sigma)."""
    rng = np.random.default_rng(4)
    J, m = 24, 10
    g = np.repeat(np.arange(J), m)
    X = rng.normal(size=(J * m, 3))
    root = np.linalg.cholesky(0.3 * np.ones((4, 4)) + 0.7 * np.eye(4)) * np.array([1.0, 0.6, 0.4, 0.5])[:, None]
    u = rng.normal(size=(J, 4)) @ root.T
    y = 2.0 + X @ [1.0, -0.5, 0.0] + u[g, 0] + np.sum(u[g, 1:] * X, axis=1) + rng.normal(size=J * m)
    data = pd.DataFrame(X, columns=["x1", "x2", "x3"]).assign(y=y, g=[f"g{k}" for k in g])
    return "y ~ 1 + x1 + x2 + x3 + (1 + x1 + x2 + x3 | g)", data, {}


def three_crossed() -> Model:
    rng = np.random.default_rng(5)
    n = 240
    a, b, c = (rng.integers(0, J, n) for J in (12, 8, 5))
    y = rng.normal(size=12)[a] + 0.5 * rng.normal(size=8)[b] + 0.8 * rng.normal(size=5)[c] + rng.normal(size=n)
    labels = {name: [f"{name}{k}" for k in v] for name, v in (("a", a), ("b", b), ("c", c))}
    return "y ~ 1 + (1 | a) + (1 | b) + (1 | c)", pd.DataFrame({"y": y, **labels}), {}


def shipped(name: str) -> Callable[[], Model]:
    from finetti.datasets.catalogue import CATALOGUE

    return lambda: (CATALOGUE[name].formula, fi.datasets.load(name), {})


def both(model: Model, seed: int = 0) -> tuple[Inference, Inference]:
    formula, data, priors = model
    bound = fi.Model(formula, priors=priors or None).bind(data)
    return infer(bound, "nuts", seed=seed), infer(bound, "exact", seed=seed, settings=TIGHT)


def scores(nuts: Inference, exact: Inference) -> pd.Series:
    """(NUTS - exact) / standard error of every mean, sd and quantile, by label and statistic."""
    drawn = dict(nuts.coordinates.natural(nuts.hyper.theta))
    assert nuts.sampled is not None and nuts.sampled.beta is not None and nuts.sampled.u is not None
    design = nuts.bound.design
    drawn |= {f"beta[{c}]": nuts.sampled.beta[:, k] for k, c in enumerate(design.columns)}
    tables = dict(summarise(exact, PROBS).iterrows())
    for f, A in zip(design.factors, nuts.conditional.population_maps, strict=True):
        with pytest.MonkeyPatch.context() as patch:  # all nodes: thinned ones would add an error of their own
            patch.setattr(groups, "MOST_NODES", 10**9)
            patch.setattr(moments, "ENOUGH", 10**9)
            rows = group_table(Fit(exact, 4000, 0), f.name, PROBS)
        whole = nuts.sampled.u[f.name] + (nuts.sampled.beta @ A.T)[:, None]
        q = len(f.coefficients)
        for i, row in rows.iterrows():
            label = f"{f.name}[{row['level']}, {row['coefficient']}]"
            tables[label], drawn[label] = row, whole[:, i // q, i % q]
    out = {}
    for label, row in tables.items():
        x = drawn[label].reshape(nuts.sampled.chains, -1)
        error = chain_errors(x)
        mean_e, quantile_e = MEAN_ERROR * x.std(), QUANTILE_ERROR * x.std()
        if np.isfinite(row["mean"]):
            out[label, "mean"] = (x.mean() - row["mean"]) / np.hypot(error.mean, mean_e)
        if np.isfinite(row["sd"]):
            out[label, "sd"] = (x.std() - row["sd"]) / np.hypot(error.sd, mean_e)
        for p, e in zip(PROBS, error.quantiles, strict=True):
            out[label, f"q{100 * p:g}"] = (np.quantile(x, p) - row[f"q{100 * p:g}"]) / np.hypot(e, quantile_e)
    return pd.Series(out)


def limit(comparisons: int) -> float:
    """Largest |score| allowed: Sidak's correction for that many comparisons, two-sided, as if they were independent."""
    return float(ndtri(0.5 + 0.5 * (1.0 - FALSE_ALARM) ** (1.0 / comparisons)))
