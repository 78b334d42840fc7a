"""The designs and the values that a coverage study simulates from: of the one-way model, or of a fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import product
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from finetti.data.bound import Bound, bind
from finetti.data.variants import with_pooling, with_priors
from finetti.errors import FinettiError, available
from finetti.model.model import Model
from finetti.model.priors import HalfT, Normal, Prior
from finetti.model.resolve import COEFFICIENT_WIDTH, SD_DF
from finetti.posterior.coverage_runs import Scenario
from finetti.posterior.simulate import check_drawable, labels, simulate, slim

if TYPE_CHECKING:
    from finetti.posterior.fit import Fit

__all__ = ["Truth", "from_design", "one_way"]

Truth = str | dict[str, float]
Where = list[dict[str, object]]

FORMULA = "y ~ 1 + (1 | group)"
USUAL = {"beta[Intercept]": 0.0, "sd_group[Intercept]": 0.3, "sigma": 1.0}
# rows that every simulation has in memory, more than once
MOST_ROWS = 1_000_000


def one_way(
    groups: Any, rows_per_group: Any, truth: Any, priors: Mapping[str, Prior] | None, prob: float, seed: int
) -> tuple[Where, list[Scenario], Truth]:
    """Every combination of groups and rows, with the values that its data are simulated from."""
    if groups is None or rows_per_group is None:
        raise FinettiError(
            "fi.coverage needs a fit, or groups= and rows_per_group= for the one-way model, such as "
            "fi.coverage(groups=[5, 20, 200], rows_per_group=[2, 5, 20])"
        )
    sizes = list(product(_counts("rows_per_group", rows_per_group), _counts("groups", groups)))
    for n, J in sizes:
        if n * J > MOST_ROWS:
            raise FinettiError(
                f"groups={J} of rows_per_group={n} are {n * J:,} rows in every simulation; at most {MOST_ROWS:,}"
            )
    said = _said(truth, USUAL, ("prior",), "of the one-way model")
    values = said if isinstance(said, dict) else {**USUAL, "sd_group[Intercept]": 0.6, "sigma": 0.8}
    where: Where = []
    scenarios = []
    for k, (n, J) in enumerate(sizes):
        bound = slim(_frozen(_balanced(J, n, values, priors), values))
        if said == "prior":
            check_drawable(bound)
        where.append({"groups": J, "rows_per_group": n})
        scenarios.append(Scenario(bound, None if isinstance(said, str) else said, prob, (seed, k)))
    return where, scenarios, said


def _balanced(J: int, n: int, values: Mapping[str, float], priors: Mapping[str, Prior] | None) -> Bound:
    """The one-way model bound to some balanced data: they settle the design, and no prior that stays."""
    names = np.array([f"{j + 1:0{len(str(J))}d}" for j in range(J)], dtype=object)
    data = {"group": np.repeat(names, n), "y": np.random.default_rng(0).normal(size=J * n)}
    bound = bind(Model(FORMULA, priors=dict(priors) if priors else None), data)
    some = simulate(
        bound, {**values, "sd_group[Intercept]": max(values["sd_group[Intercept]"], 0.1)}, np.random.default_rng(0)
    )
    return replace(bound, design=replace(bound.design, y=some.y))


def _frozen(bound: Bound, values: Mapping[str, float]) -> Bound:
    """The model with its default priors on the scale of the truth: s = sqrt(sd^2 + sigma^2)."""
    s = float(np.hypot(values["sd_group[Intercept]"], values["sigma"]))
    made: dict[str, Prior] = {
        "Intercept": Normal(values["beta[Intercept]"], COEFFICIENT_WIDTH * s),
        "sd_group[Intercept]": HalfT(SD_DF, s),
        "sigma": HalfT(SD_DF, s),
    }
    default = {label: made[label] for label, source in bound.sources.items() if source == "default"}
    frozen = with_priors(bound, default)
    return replace(frozen, sources={**frozen.sources, **dict.fromkeys(default, "default")})


def from_design(
    fit: Any, truth: Any, priors: Mapping[str, Prior] | None, n_sims: int, prob: float, seed: int
) -> tuple[Where, list[Scenario], Truth]:
    """The design of a fit, and the values for each simulation."""
    bound = _studied(fit)
    if priors is not None:
        bound = with_priors(bound, priors)
    said: Truth
    values: Any
    if truth == "posterior":
        said, values = "posterior", _drawn(fit, bound, n_sims, seed)
    elif truth == "prior":
        check_drawable(bound)
        said, values = "prior", None
    else:
        said = _said(truth, _medians(fit, bound), ("posterior", "prior"), "of this fit")
        assert isinstance(said, dict)
        simulate(bound, said, np.random.default_rng(0))  # correlations that form no matrix are refused here
        values = said
    return [{"design": fit.formula}], [Scenario(slim(bound), values, prob, (seed, 0))], said


def _studied(fit: Any) -> Bound:
    """The fit's model with its modelled terms partially pooled, or why nothing can be studied."""
    bound = getattr(fit, "model", None)
    if not isinstance(bound, Bound):
        raise FinettiError(
            f"fi.coverage was given {type(fit).__name__}, not a fit: give what fi.fit or fi.meta returned, or groups= "
            "and rows_per_group= for the one-way model"
        )
    modelled = [g for g, kind in bound.pooling.items() if kind in ("partial", "empirical")]
    if not modelled:
        why = "has no grouping terms" if not bound.pooling else "pools none of its terms partially"
        raise FinettiError(
            f"this fit {why}, so that empirical and full Bayes are the same analysis of its groups; fit a model with a "
            "term such as (1 | group) and pooling='partial'"
        )
    unpooled = [g for g, kind in bound.pooling.items() if kind == "none"]
    if unpooled:
        raise FinettiError(
            f"the term {unpooled[0]!r} is not pooled: its coefficients have no parent distribution to simulate from. "
            "Fit with pooling='partial' for it"
        )
    return with_pooling(bound, dict.fromkeys(modelled, "partial"))


def _medians(fit: Fit, bound: Bound) -> dict[str, float]:
    """Posterior medians by label; means of correlations, which always form a matrix."""
    table = fit.summary((0.5,))
    values = {}
    for label in labels(bound):
        column = "mean" if label.startswith("cor_") else "q50"
        value = float(table.loc[label, column])  # type: ignore[arg-type]
        if np.isnan(value) and label.startswith("cor_"):  # estimated beside a standard deviation of zero
            value = 0.0
        values[label] = value
    return values


def _drawn(fit: Fit, bound: Bound, n_sims: int, seed: int) -> tuple[dict[str, float], ...]:
    """One joint draw of the posterior for each simulation."""
    names = labels(bound)
    draws = {label: fit.draws(label) for label in names}
    size = draws[names[0]].size
    rng = np.random.default_rng(np.random.SeedSequence([seed, 1, 0]))
    picked = rng.choice(size, n_sims, replace=n_sims > size)
    return tuple({label: float(np.nan_to_num(draws[label][i])) for label in names} for i in picked)


def _said(truth: Any, usual: Mapping[str, float], words: tuple[str, ...], of: str) -> Truth:
    """The values for all simulations, or the word that was given."""
    keys = _keys(usual)
    if truth is None:
        return dict(usual)
    if isinstance(truth, str) and truth in words:
        return truth
    listed = available("", [k for k in keys if k not in usual] + list(usual))
    if not isinstance(truth, Mapping):
        known = " or ".join(repr(w) for w in words)
        raise FinettiError(f"truth={truth!r} is neither {known} nor a mapping of values. {listed}")
    values = dict(usual)
    given: dict[str, str] = {}
    for key, value in truth.items():
        if key not in keys:
            raise FinettiError(f"truth: {key!r} is not a parameter {of}; {available(str(key), keys)}")
        label = keys[key]
        if label in given:
            raise FinettiError(f"truth: {given[label]!r} and {key!r} both give {label}; leave one of them out")
        given[label] = key
        values[label] = _number(key, label, value)
    return values


def _keys(usual: Mapping[str, float]) -> dict[str, str]:
    """Every key that a user may write, the short ones first, and the label that it means."""
    sds = [label for label in usual if label.startswith("sd_")]
    short = {"mean": "beta[Intercept]"} if "beta[Intercept]" in usual else {}
    if len(sds) == 1:
        short["sd"] = sds[0]
    for label in sds:
        stem = label.rsplit("[", 1)[0]
        if sum(other.rsplit("[", 1)[0] == stem for other in sds) == 1:
            short[stem] = label
    return {**short, **{label: label for label in usual}}


def _number(key: str, label: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not np.isfinite(float(value)):
        raise FinettiError(f"truth: {key!r} is {value!r}; give a finite number")
    number = float(value)
    if label == "sigma" and number <= 0.0:
        raise FinettiError(f"truth: {key!r} is {number:g}; a residual standard deviation is above 0")
    if label.startswith("sd_") and number < 0.0:
        raise FinettiError(f"truth: {key!r} is {number:g}; a standard deviation is at least 0")
    if label.startswith("cor_") and abs(number) > 1.0:
        raise FinettiError(f"truth: {key!r} is {number:g}; a correlation lies between -1 and 1")
    return number


def _counts(name: str, given: Any) -> list[int]:
    values = list(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else [given]
    if not values:
        raise FinettiError(f"{name}={given!r} is empty; give one or more whole numbers, such as {name}=[5, 20]")
    for v in values:
        if isinstance(v, bool) or not isinstance(v, Integral) or v < 2:
            why = {
                "groups": "variation between groups needs at least 2 of them",
                "rows_per_group": "from one row per group sd and sigma cannot be told apart, so give at least 2",
            }[name]
            raise FinettiError(f"{name}: {v!r} is not a whole number of at least 2; {why}")
    if len(set(values)) < len(values):
        raise FinettiError(f"{name}={given!r} names a number twice; give each once")
    return [int(v) for v in values]
