"""Rows and groups left out at fixed hyperparameters, against dense normal densities of y and of y without them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

import finetti as fi
from finetti.data.bound import bind
from finetti.inference import left_out
from finetti.inference.conditional import GaussianConditional
from finetti.inference.gaussian import GaussianInner
from finetti.inference.left_out import groups_left_out, nominal_cost, rows_left_out
from finetti.inference.weights import normalise, smooth, smooth_ratios
from tests.inference.cases import case, every_feature
from tests.oracles import LOG_2PI, OracleFactor, Problem, _assemble, _float_forward, _log_density

FEATURES = list(every_feature())


def dense_without(problem: Problem, hyper: dict[str, float], parts: list[np.ndarray]) -> list[float]:
    """log p(y_I | y_-I, theta) from densities of y and of the other rows; NaN where those leave a direction open."""
    r, V, F = _assemble(problem, hyper, float)
    everything = np.arange(len(r))

    def density(at: np.ndarray) -> float:
        f = F[at]
        if f.shape[1] and np.linalg.matrix_rank(f, tol=1e-9 * max(np.abs(f).max(initial=0.0), 1.0)) < f.shape[1]:
            return math.nan
        return _log_density(r[at], V[np.ix_(at, at)], f, np.linalg.cholesky, _float_forward, math.log, LOG_2PI)

    full = density(everything)
    return [full - density(np.setdiff1d(everything, rows)) for rows in parts]


def levels_of(f: OracleFactor) -> list[np.ndarray]:
    return [np.flatnonzero(f.index == j) for j in range(len(f.levels))]


def agree(got: np.ndarray, expected: np.ndarray) -> None:
    assert np.array_equal(np.isnan(got), np.isnan(expected)), (got, expected)
    np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("number", range(len(FEATURES)))
def test_rows_and_groups_equal_the_dense_densities(number: int, root: str) -> None:
    problem, hypers, inner, theta = case(number, nodes=2, **FEATURES[number])
    conditional = GaussianConditional(inner)
    some = np.arange(0, problem.y.size, 5)
    rows = rows_left_out(conditional, theta)
    agree(rows[:, some], np.array([dense_without(problem, h, list(some[:, None])) for h in hypers]))
    for f in problem.factors:
        groups = groups_left_out(conditional, f.name, theta)
        if f.kind == "none":
            assert np.all(np.isneginf(groups))
            continue
        agree(groups, np.array([dense_without(problem, h, levels_of(f)) for h in hypers]))


@pytest.mark.parametrize("number", range(0, len(FEATURES), 3))
def test_the_three_ways_agree(number: int) -> None:
    """Among the level's columns, among its rows, and solving again: whichever the cost model would choose."""
    problem, _, inner, theta = case(100 + number, nodes=2, **FEATURES[number])
    points, system = inner.points(theta), inner.system
    for f, factor in enumerate(problem.factors):
        if factor.kind == "none":
            continue
        level = inner.groupings[f].index[system.layout.order]
        rows, ptr = left_out._rows_of(level, np.arange(len(factor.levels)))
        with np.errstate(all="ignore"):
            again = left_out._solve_again(inner, points, rows, ptr)
            ways = []
            if system.layout.pattern.q.size == 1 and system.k:
                ways.append(left_out._among_rows(inner, points, rows, ptr))
            if system.layout.coefficient_slice(f)[0]:
                ways.append(left_out._leading(inner, f, level, points))
        for way in ways:
            both = np.isfinite(way) & np.isfinite(again)
            np.testing.assert_allclose(way[both], again[both], rtol=1e-7, atol=1e-7)
            # solving again cannot tell an open direction from rounding; the other ways can
            assert not np.any(np.isfinite(way) & ~np.isfinite(again))


def test_cross_products_kept_or_not_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, _, inner, theta = case(7, nodes=3, **FEATURES[0])
    conditional = GaussianConditional(inner)
    kept = [groups_left_out(conditional, f.name, theta) for f in problem.factors]
    monkeypatch.setattr(left_out, "MOST_GRAM", 0)
    for f, before in zip(problem.factors, kept, strict=True):
        np.testing.assert_allclose(groups_left_out(conditional, f.name, theta), before, rtol=1e-10)


def test_some_levels_only() -> None:
    problem, _, inner, theta = case(3, nodes=2, **FEATURES[0])
    conditional = GaussianConditional(inner)
    for f in problem.factors:
        if f.kind != "none":
            everything = groups_left_out(conditional, f.name, theta)
            np.testing.assert_allclose(groups_left_out(conditional, f.name, theta, np.array([1])), everything[:, 1:2])
            assert nominal_cost(conditional, f.name) > 0.0


def test_far_too_small_a_standard_deviation_costs_no_digits() -> None:
    """At tau = 1e-8 of sigma a group effect is nothing, and its variance is lost in no difference."""
    problem, hypers, inner, theta = case(11, **FEATURES[0])
    at = [k for f in inner.hyper.factors for k in f.sd_at if k >= 0]
    theta = theta.copy()
    theta[:, at] = math.log(1e-8)
    hyper = {k: (1e-8 if k.startswith("sd_") else v) for k, v in hypers[0].items()}
    for f in problem.factors:
        if f.kind == "none":
            continue
        got = groups_left_out(GaussianConditional(inner), f.name, theta)[0]
        agree(got, np.array(dense_without(problem, hyper, levels_of(f))))


def test_many_sets_of_weights_are_smoothed_as_one_is() -> None:
    rng = np.random.default_rng(0)
    log_w = 0.3 * rng.normal(size=1024)
    ratio = rng.standard_t(4, size=(1024, 60)) * rng.uniform(0.01, 2.0, 60)
    ratio[:4, 0] = np.nan
    got, k = smooth_ratios(log_w, ratio)
    for j in range(60):
        one, k_one = smooth(log_w + ratio[:, j])
        assert k[j] == pytest.approx(k_one, abs=1e-9)
        np.testing.assert_allclose(np.exp(got[:, j]), normalise(one), atol=1e-12)
    nothing, k = smooth_ratios(np.zeros(64), np.full((64, 2), np.nan))
    assert np.isnan(nothing).all() and np.isnan(k).all()
    _, k = smooth_ratios(np.zeros(64), np.zeros((64, 1)))
    assert k[0] == -np.inf  # all equal


def test_weights_of_rows_in_another_order() -> None:
    """Permuting rows permutes the scores."""
    problem, _, inner, theta = case(5, **FEATURES[4])
    order = np.random.default_rng(1).permutation(problem.y.size)
    factors = [dataclasses.replace(f, index=f.index[order], Z=f.Z[order]) for f in problem.factors]
    other = dataclasses.replace(
        problem,
        y=problem.y[order],
        X=problem.X[order],
        factors=type(problem.factors)(factors),
        offset=None if problem.offset is None else problem.offset[order],
        se=None if problem.se is None else problem.se[order],
        weights=None if problem.weights is None else problem.weights[order],
    )
    from tests.inference.cases import bound_of

    again = GaussianInner.build(bound_of(other))
    again = dataclasses.replace(again, hyper=inner.hyper)
    np.testing.assert_allclose(
        rows_left_out(GaussianConditional(again), theta), rows_left_out(GaussianConditional(inner), theta)[:, order],
        rtol=1e-8, atol=1e-8,
    )  # fmt: skip


# --- what the other rows leave open, by brute force on bound formulas ---------------------------------


def conditional_of(
    formula: str, data: dict[str, Any], sd: float, **kinds: Any
) -> tuple[GaussianConditional, np.ndarray]:
    """A model and one node: every sd at `sd`, sigma 1, correlations 0."""
    inner = GaussianInner.build(bind(fi.Model(formula, **kinds), data))
    theta = np.zeros((1, inner.hyper.d))
    theta[:, [k for f in inner.hyper.factors for k in f.sd_at if k >= 0]] = math.log(sd)
    return GaussianConditional(inner), theta


def test_a_row_that_alone_determines_a_coefficient_has_no_score_however_ill_conditioned_the_rest() -> None:
    """A share of 1e-10 that is all rounding was once taken for a precision, and the row scored -16."""
    rng = np.random.default_rng(0)
    g, x = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3]), rng.normal(size=11)
    data = {"y": rng.normal(size=11), "x": x, "z": 1e3 * rng.normal(size=11), "g": g.astype(str)}
    data["h"] = (np.arange(11) % 3).astype(str)
    for sd in (1.0, 1e2, 1e4):
        conditional, theta = conditional_of(
            "y ~ 1 + (1 + x | g) + (1 + z | h)", data, sd, pooling={"g": "none", "h": "partial"}
        )
        got = rows_left_out(conditional, theta)[0]
        assert np.all(np.isnan(got[8:])), sd  # two rows of a line, one row of an intercept: each alone
        assert np.all(np.isfinite(got[:8])) or sd > 1e3, sd


def test_a_level_whose_unpooled_parts_leave_with_it_has_no_score() -> None:
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(4), 6)
    data = {"y": rng.normal(size=24), "g": g.astype(str), "room": (2 * g + np.arange(24) % 2).astype(str)}
    conditional, theta = conditional_of(
        "y ~ 1 + (1 | g) + (1 | room)", data, 1.0, pooling={"g": "partial", "room": "none"}
    )
    assert np.all(np.isnan(groups_left_out(conditional, "g", theta)))
    conditional, theta = conditional_of("y ~ 1 + (1 | g) + (1 | room)", data, 1.0)
    assert np.all(np.isfinite(groups_left_out(conditional, "g", theta)))


@pytest.mark.parametrize("flat", ["a", "b"])
def test_of_two_coefficients_the_flat_one_is_open_and_not_the_other(flat: str) -> None:
    """Only level 0 of a crossed factor shows column b; with a proper prior on it nothing is left open."""
    rng = np.random.default_rng(2)
    g, h = np.arange(40) % 8, np.arange(40) // 8 % 5
    b = np.where(h == 0, rng.normal(size=40), 0.0)
    data = {"y": rng.normal(size=40), "a": b + rng.normal(size=40), "b": b, "g": g.astype(str), "h": h.astype(str)}
    priors = {f"beta[{c}]": fi.flat() if c == flat else fi.normal(0, 1) for c in "ab"}
    for formula in ("y ~ 0 + a + b + (1 | g) + (1 | h)", "y ~ 0 + b + a + (1 | g) + (1 | h)"):
        conditional, theta = conditional_of(formula, data, 0.7, priors=priors)
        got = groups_left_out(conditional, "h", theta)[0]
        inner = conditional.inner
        level = inner.groupings[1].index[inner.system.layout.order]
        rows, ptr = left_out._rows_of(level, np.arange(5))
        again = left_out._solve_again(inner, inner.points(theta), rows, ptr)[0]
        for scores in (got, again):
            assert np.isnan(scores[0]) == (flat == "b"), formula
            assert np.all(np.isfinite(scores[1:]))
