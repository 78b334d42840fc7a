"""The exact Gaussian inner step against dense matrices: log p(y | theta) to 1e-9, and its gradient."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import finetti as fi
from finetti.errors import ModelError
from finetti.inference.gaussian import GaussianInner
from finetti.inference.target import GaussianTarget
from tests.inference.cases import bound_of, case, every_feature, hyper_priors, theta_of
from tests.oracle_problems import random_hyper, random_problem
from tests.oracles import Dist, OracleFactor, Problem, dense_log_marginal, log_prior_hyper

FEATURES = list(every_feature())


def relative_error(inner: GaussianInner, theta: np.ndarray, problem: Problem, hypers: list[dict[str, float]]) -> float:
    expected = np.array([dense_log_marginal(problem, h) for h in hypers])
    return float(np.max(np.abs(inner.log_marginal(theta) - expected) / np.abs(expected)))


def test_log_marginals_are_the_dense_ones_for_every_feature(root: str) -> None:
    """120 combinations of layout x errors x intercept with pooling and slope priors in turn, two nodes each."""
    worst = {}
    for seed, features in enumerate(FEATURES):
        problem, hypers, inner, theta = case(seed, nodes=2, **features)
        assert inner.system.small == (root == "in-kernel" or inner.system.k == 0)
        worst[tuple(features.values())] = relative_error(inner, theta, problem, hypers)
    assert max(worst.values()) < 1e-9, max(worst, key=lambda k: worst[k])


@pytest.mark.parametrize("block", range(4))
def test_log_marginals_are_the_dense_ones_for_random_problems(block: int, root: str) -> None:
    """200 problems with everything drawn at random, many nodes in one call."""
    for seed in range(10_000 + 50 * block, 10_050 + 50 * block):
        problem, hypers, inner, theta = case(seed, nodes=3)
        assert relative_error(inner, theta, problem, hypers) < 1e-9, seed


def test_larger_problems(root: str) -> None:
    """More levels and rows: roots above and below the size at which LAPACK takes over on its own."""
    for seed, features in enumerate([{"layout": "mixed"}, {"layout": "crossed"}, {"layout": "nested"}]):
        problem, hypers, inner, theta = case(seed, nodes=2, n=400, levels=40, q=2, pooling="partial", **features)
        assert relative_error(inner, theta, problem, hypers) < 1e-9, features


@pytest.mark.parametrize("seed", range(12))
def test_extreme_standard_deviations(seed: int, root: str) -> None:
    """sds of 1e-6 and 1e4 times the residual: whitened coordinates must not lose digits where the oracle has them."""
    rng = np.random.default_rng(300 + seed)
    problem, hyper = random_problem(rng, pooling="partial", layout=str(rng.choice(["one", "nested", "crossed"])))
    inner = GaussianInner.build(bound_of(problem))
    scale = 10.0 ** rng.choice([-6.0, -3.0, 2.0], size=len(hyper))
    hyper = {k: v * s if k.startswith("sd_") else v for (k, v), s in zip(hyper.items(), scale, strict=True)}
    expected = dense_log_marginal(problem, hyper, digits=40)
    assert inner.log_marginal(theta_of(inner.hyper, hyper))[0] == pytest.approx(expected, rel=1e-9)


def far_away(seed: int, offset: float, **kinds: Any) -> tuple[float, float]:
    """log p(y + offset | theta) from finetti and from the oracle in 60 digits."""
    common: dict[str, Any] = {"slope_prior": "flat", "errors": "sigma", "offset": False}
    problem, hyper = random_problem(np.random.default_rng(seed), **(common | kinds))
    hyper = hyper | ({"Intercept": hyper["Intercept"] + offset} if "Intercept" in hyper else {})
    beta = problem.beta
    if kinds["intercept"] == "fixed":
        beta = (Dist("fixed", (beta[0].args[0] + offset,)), *beta[1:])
    far = dataclasses.replace(problem, y=problem.y + offset, beta=beta)
    inner = GaussianInner.build(bound_of(far))
    return float(inner.log_marginal(theta_of(inner.hyper, hyper))[0]), dense_log_marginal(far, hyper, digits=60)


@pytest.mark.parametrize("offset", [1e4, 1e6, 1e8])
def test_a_large_offset_of_the_response_costs_only_the_digits_the_data_have(offset: float) -> None:
    """y = offset + noise: cross-products of raw columns would be off by 1e-4 and by 100 %."""
    for seed in range(4):
        got, expected = far_away(seed, offset, layout="crossed", intercept="flat", pooling="partial")
        assert got == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("offset", [1e6, 1e8])
@pytest.mark.parametrize(
    "kinds",
    [
        {"pooling": "none", "intercept": "flat", "slopes": 0, "q": 1},
        {"pooling": "none", "intercept": "flat", "slopes": 1, "q": 2},
        {"pooling": "partial", "intercept": "fixed", "slopes": 1, "q": 1},
        {"pooling": "partial", "intercept": "student_t", "slopes": 1, "q": 1},
    ],
    ids=["unpooled", "unpooled slopes", "fixed intercept", "student_t intercept"],
)
def test_a_large_offset_without_an_integrated_intercept(kinds: dict[str, Any], offset: float) -> None:
    """Here nothing that is integrated out takes up the offset: it must leave the response in another way."""
    got, expected = far_away(1, offset, layout="one", **kinds)
    assert got == pytest.approx(expected, rel=1e-8)


def numerical_gradient(problem: Problem, inner: GaussianInner, theta: np.ndarray, prior: dict[str, Any] | None) -> Any:
    """Five-point differences of the dense oracle in theta; error about 1e-9 of log p / h."""

    def value(at: np.ndarray) -> float:
        natural = {k: float(v[0]) for k, v in inner.hyper.natural(at[None]).items()}
        for (label, position, _), v in zip(inner.hyper.given, inner.hyper.given_values(at[None])[0], strict=True):
            if position >= 0:
                natural[label] = float(v)
        total = dense_log_marginal(problem, natural)
        return total + (log_prior_hyper(problem, natural, prior) if prior is not None else 0.0)

    out, h = np.zeros(theta.size), 2e-3
    for k in range(theta.size):
        e = h * np.eye(theta.size)[k]
        out[k] = (8 * (value(theta + e) - value(theta - e)) - value(theta + 2 * e) + value(theta - 2 * e)) / (12 * h)
    return out


def test_gradients_are_differences_of_the_dense_oracle(root: str) -> None:
    for seed, features in enumerate(FEATURES[::2]):
        problem, _, inner, theta = case(500 + seed, nodes=1, n=25, **features)
        value, slope = inner.gradient(theta)
        np.testing.assert_allclose(value, inner.log_marginal(theta), rtol=1e-12)
        expected = numerical_gradient(problem, inner, theta[0], None)
        np.testing.assert_allclose(slope[0], expected, rtol=2e-6, atol=2e-6, err_msg=str(features))


def test_gradients_with_three_correlated_coefficients_everywhere(root: str) -> None:
    """q = 3 in one block (three partial correlations), as leading factor and as a crossed one."""
    for seed in range(6):
        layout, levels = [("one", 5), ("crossed", 3), ("mixed", 3)][seed % 3]
        kinds: dict[str, Any] = {"q": 3, "blocks": "correlated", "pooling": "partial", "layout": layout, "n": 30}
        problem, _, inner, theta = case(700 + seed, levels=levels, **kinds)
        assert sum(name.startswith("cor_a ") for name in inner.hyper.names) == 3
        expected = numerical_gradient(problem, inner, theta[0], None)
        np.testing.assert_allclose(inner.gradient(theta)[1][0], expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("seed", range(20))
def test_the_target_is_likelihood_times_priors_with_jacobians(seed: int) -> None:
    """The outer step's density against the oracle's natural priors times the numerical Jacobian of `natural`."""
    rng = np.random.default_rng(900 + seed)
    problem, _ = random_problem(rng, n=25, pooling="partial", intercept=str(rng.choice(["normal", "student_t"])))
    priors = hyper_priors(problem, rng)
    inner = GaussianInner.build(bound_of(problem, priors))
    target = GaussianTarget(inner)
    hypers = [random_hyper(rng, problem) for _ in range(2)]
    theta = np.concatenate([theta_of(inner.hyper, h) for h in hypers])
    got, payload = target.log_density(theta)
    for s, hyper in enumerate(hypers):

        def natural(at: np.ndarray) -> np.ndarray:
            values = list(inner.hyper.natural(at[None]).values())
            given = [
                v
                for (_, p, _), v in zip(inner.hyper.given, inner.hyper.given_values(at[None])[0], strict=True)
                if p >= 0
            ]
            return np.array([v[0] for v in values] + given)

        h = 1e-5
        J = np.array([(natural(theta[s] + e) - natural(theta[s] - e)) / (2 * h) for e in h * np.eye(theta.shape[1])])
        # independent coefficients have correlations that are held at zero: they are no coordinates
        moving = np.abs(J).max(axis=0) > 0
        assert moving.sum() == theta.shape[1]
        expected = dense_log_marginal(problem, hyper) + log_prior_hyper(problem, hyper, priors)
        expected += np.linalg.slogdet(J[:, moving])[1]
        assert got[s] == pytest.approx(expected, rel=1e-7, abs=1e-6)
    slopes = target.gradient(theta)[1]
    for k in range(theta.shape[1]):
        e = 1e-5 * np.eye(theta.shape[1])[k]
        difference = (target.log_density(theta + e)[0] - target.log_density(theta - e)[0]) / 2e-5
        np.testing.assert_allclose(slopes[:, k], difference, rtol=1e-5, atol=1e-5)
    assert payload[0].shape == (2, len(problem.columns))


def test_fixed_hyperparameters_are_held() -> None:
    problem, hyper = random_problem(np.random.default_rng(3), layout="one", q=2, blocks="correlated", pooling="partial",
                                    errors="sigma", slopes=1, intercept="normal", slope_prior="normal")  # fmt: skip
    labels = ("sd_a[x1]", "sigma", "cor_a[Intercept, x1]")
    held = {
        "sd_a[x1]": fi.fixed(hyper["sd_a[x1]"]),
        "sigma": fi.fixed(hyper["sigma"]),
        "cor_a": fi.fixed(hyper[labels[2]]),
    }
    inner = GaussianInner.build(bound_of(problem, hyper_priors(problem) | held))
    assert inner.hyper.names == ("sd_a[Intercept]",)
    theta = theta_of(inner.hyper, hyper)
    assert inner.log_marginal(theta)[0] == pytest.approx(dense_log_marginal(problem, hyper), rel=1e-9)
    natural = inner.hyper.natural(theta)
    assert all(natural[k][0] == pytest.approx(hyper[k], rel=1e-12) for k in labels)
    slope = inner.gradient(theta)[1][0]
    up, down = (inner.log_marginal(theta + h)[0] for h in (1e-5, -1e-5))
    assert slope == pytest.approx([(up - down) / 2e-5], rel=1e-6)


def test_an_sd_held_at_zero_is_complete_pooling() -> None:
    kinds: dict[str, Any] = {"layout": "one", "q": 1, "errors": "sigma", "slopes": 1, "intercept": "normal"}
    problem, hyper = random_problem(np.random.default_rng(4), pooling="partial", **kinds)
    zero = GaussianInner.build(bound_of(problem, hyper_priors(problem) | {"sd_a[Intercept]": fi.fixed(0.0)}))
    theta = theta_of(zero.hyper, hyper)
    expected = dense_log_marginal(problem, hyper | {"sd_a[Intercept]": 0.0})
    assert zero.log_marginal(theta)[0] == pytest.approx(expected, rel=1e-9)


def test_unpooled_terms_that_share_a_direction_are_refused() -> None:
    """Without pooling, a constant may move between two crossed factors."""
    problem, _ = random_problem(np.random.default_rng(5), layout="crossed", q=1, intercept="flat", slopes=0, n=40,
                                errors="sigma", pooling="none")  # fmt: skip
    ones = np.ones((40, 1))
    both = tuple(
        OracleFactor(f.name, f.levels, f.index, ("Intercept",), ones, ((0,),), "none") for f in problem.factors
    )
    with pytest.raises(ModelError, match="cannot be told apart"):
        GaussianInner.build(bound_of(dataclasses.replace(problem, factors=both)))


def test_unpooled_crossed_slopes_beside_an_intercept_per_level() -> None:
    """Two unpooled terms that do not overlap: (1 | a) and (0 + x3 | c), against the dense oracle."""
    checked = 0
    for seed in range(10):
        problem, hyper = random_problem(np.random.default_rng(seed), layout="crossed", q=1, intercept="normal", n=50,
                                        slope_prior="flat", errors="weights", pooling="none")  # fmt: skip
        a, c = problem.factors
        slope = np.random.default_rng(seed).normal(size=(50, 1))
        rows = np.bincount(c.index, minlength=len(c.levels)).min()
        if rows < 2:
            slope[:, 0] += 1.0  # a single row still identifies a slope through the origin
        c = OracleFactor(c.name, c.levels, c.index, ("x9",), slope, ((0,),), "none")
        both = dataclasses.replace(problem, factors=(a, c))
        try:
            inner = GaussianInner.build(bound_of(both))
        except ModelError:
            continue
        hyper = {k: hyper[k] for k in both.hyper_labels()}
        assert inner.log_marginal(theta_of(inner.hyper, hyper))[0] == pytest.approx(
            dense_log_marginal(both, hyper), rel=1e-9
        )
        checked += 1
    assert checked >= 5
