"""Tests at nodes against adaptive quadrature; draws against their moments; truncated normals in the far tail."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats as st
from hypothesis import given
from hypothesis import strategies as some

from finetti.inference.spike_slab import Nodes, Observed, make_slab
from finetti.inference.spike_slab_posterior import effects
from finetti.inference.spike_slab_tests import (
    at_nodes,
    draw_effects,
    effects_of_uniforms,
    nulls_at_nodes,
    positive_normal,
    uniforms,
)
from finetti.linalg import system
from tests.studies.screen_oracle import error_density, integrals

SLABS = ("normal", "laplace", "student_t")
NODES = [(0.8, 3.0, 0.1, 1.1), (0.95, 0.3, -0.4, 0.8), (0.0, 2.0, 0.0, 1.0)]
X, SE = np.array([0.3, -2.5, 7.0, -30.0]), np.array([1.0, 0.5, 2.0, 3.0])


def packed(nodes: list[tuple[float, float, float, float]]) -> Nodes:
    return Nodes.of(*np.array(nodes).T)


def several(n: int = 40, seed: int = 0) -> Observed:
    """Tests of two groups, some with t errors, and three sets of standard errors."""
    rng = np.random.default_rng(seed)
    se = rng.uniform(0.5, 2.0, n)
    df = np.where(rng.random(n) < 0.5, 6.0, np.inf)
    sets = (se * rng.uniform(0.8, 1.2, (3, n)), np.where(np.isinf(df), np.inf, np.array([[5.0], [6.0], [9.0]])))
    return Observed(rng.normal(0.0, 3.0, n), se, df, np.arange(n) % 2, np.ones(n), sets)


def grouped() -> Nodes:
    pi0 = np.array([[0.9, 0.5], [0.7, 0.8], [0.6, 0.2], [1.0, 0.3]])
    tau = np.array([[2.0, 1.0], [3.0, 0.5], [1.0, 4.0], [1.0, 2.0]])
    return Nodes(
        pi0, 1.0 - pi0, tau, np.array([0.0, 0.1, -0.1, 0.2]), np.array([1.0, 1.1, 0.9, 1.2]), np.array([2, 0, 1, 0])
    )


# ------------------------------------------------------------------------------------------------ probabilities
@pytest.mark.parametrize("slab", SLABS)
@pytest.mark.parametrize("df", [np.inf, 5.0])
def test_probabilities_and_moments_are_those_of_quadrature(slab: str, df: float) -> None:
    delta = 0.7
    tests = Observed.of(X, SE, np.full(4, df))
    found = at_nodes(tests, make_slab(slab), packed(NODES), delta)
    functions = (
        lambda b: 1.0, lambda b: b, lambda b: b * b, lambda b: float(abs(b) <= delta), lambda b: float(b > delta),
    )  # fmt: skip
    for s, (pi0, sd, mu, kappa) in enumerate(NODES[:2]):
        for j in (0, 1, 2):
            f1, one, two, inside, above = integrals(X[j], SE[j], df, mu, kappa, slab, sd, functions)
            null = pi0 * float(error_density(X[j], SE[j], df, mu, kappa)(np.array(0.0)))
            share = (1.0 - pi0) / (null + (1.0 - pi0) * f1)
            assert found.prob_null[s, j] == pytest.approx(null / (null + (1.0 - pi0) * f1), rel=1e-7)
            # the jumps at delta are not among the oracle's cuts
            assert found.inside[s, j] == pytest.approx(share * inside, rel=1e-4, abs=1e-7)
            assert found.above[s, j] == pytest.approx(share * above, rel=1e-4, abs=1e-7)
            assert found.mean[s, j] == pytest.approx(share * one, rel=1e-6)
            assert found.second[s, j] == pytest.approx(share * two, rel=1e-6)
            within = share * (two - one**2 / f1)
            assert found.within[s, j] == pytest.approx(within, rel=1e-5)
    total = found.prob_null + found.inside + found.below + found.above
    np.testing.assert_allclose(total, 1.0, rtol=1e-12)
    np.testing.assert_allclose(
        found.within + found.null_or_not, found.second - found.mean**2, rtol=1e-8, atol=1e-9 * np.max(X**2)
    )


@pytest.mark.parametrize("slab", SLABS)
def test_averages_over_nodes_are_those_of_the_table(slab: str) -> None:
    tests, nodes, one = several(), grouped(), make_slab(slab)
    w = np.array([[0.1, 0.4], [0.2, 0.3], [0.3, 0.2], [0.4, 0.1]])
    table = effects(tests, one, nodes, w, np.zeros(0))
    found = at_nodes(tests, one, nodes)
    each = w[:, tests.group]
    for k, part in ((0, found.mean), (2, found.prob_null), (3, found.below), (4, found.above)):
        np.testing.assert_allclose((each * part).sum(axis=0), table[:, k], rtol=1e-10, atol=1e-14)
    spread = found.within + found.null_or_not + (found.mean - (each * found.mean).sum(axis=0)) ** 2
    np.testing.assert_allclose((each * spread).sum(axis=0), table[:, 1] ** 2, rtol=1e-9)
    np.testing.assert_array_equal(nulls_at_nodes(tests, one, nodes), found.prob_null)
    rows = np.array([7, 3])
    np.testing.assert_array_equal(
        at_nodes(tests, one, nodes, 0.5, rows).below, at_nodes(tests, one, nodes, 0.5).below[:, rows]
    )


def test_small_probabilities_keep_their_digits() -> None:
    tests, node = Observed.of(np.array([30.0]), np.ones(1)), Nodes.of(0.0, 1e3, 0.0, 1.0)
    mean, sd = 30.0 * 1e6 / (1e6 + 1.0), np.sqrt(1e6 / (1e6 + 1.0))
    found = at_nodes(tests, make_slab("normal"), node, 2.0)
    assert found.below[0, 0] == pytest.approx(st.norm.sf((mean + 2.0) / sd), rel=1e-9)
    assert found.inside[0, 0] == pytest.approx(st.norm.sf((mean - 2.0) / sd), rel=1e-9)
    narrow = at_nodes(tests, make_slab("laplace"), Nodes.of(0.0, 0.01, 0.0, 1.0), 0.05)
    # density of b: that of the slab times exp(30 b - b^2 / 2), on either side of 0 almost an exponential
    b = np.linspace(-0.4, 0.6, 2_000_001)
    density = np.exp(30.0 * b - 0.5 * b * b - np.sqrt(2.0) / 0.01 * np.abs(b))
    assert narrow.above[0, 0] == pytest.approx(density[b > 0.05].sum() / density.sum(), rel=1e-4)


@given(some.floats(-40.0, 40.0), some.floats(0.0, 10.0), some.floats(0.05, 20.0), some.sampled_from(SLABS))
def test_probabilities_sum_to_one_and_a_larger_claim_is_less_probable(
    x: float, delta: float, sd: float, slab: str
) -> None:
    tests, node, one = Observed.of(np.array([x]), np.ones(1)), Nodes.of(0.7, sd, 0.0, 1.0), make_slab(slab)
    small, large = at_nodes(tests, one, node, delta), at_nodes(tests, one, node, delta + 0.5)
    for found in (small, large):
        parts = np.array([found.prob_null, found.inside, found.below, found.above])
        assert np.all(parts >= 0.0) and parts.sum() == pytest.approx(1.0, abs=1e-10)
        assert found.within[0, 0] >= 0.0 and found.null_or_not[0, 0] >= 0.0
    assert large.above <= small.above and large.below <= small.below


# -------------------------------------------------------------------------------------------------------- draws
@pytest.mark.parametrize("slab", SLABS)
@pytest.mark.parametrize("df", [np.inf, 4.0])
def test_draws_have_the_moments_and_quantiles_of_the_posterior(slab: str, df: float) -> None:
    n = 10_000
    tests, one = Observed.of(X, SE, np.full(4, df)), make_slab(slab)
    for node in NODES[:2]:
        drawn = draw_effects(tests, one, Nodes.of(*(np.full(n, v) for v in node)), np.random.default_rng(3))
        at = at_nodes(tests, one, Nodes.of(*node), 0.5)
        pairs = [(at.prob_null, drawn == 0.0), (at.below, drawn < -0.5), (at.above, drawn > 0.5)]
        if np.isinf(df):  # with t errors a rare second peak far away decides the moments, and hardly ever a draw
            pairs += [(at.mean, drawn), (at.second, drawn**2)]
        for truth, indicator in pairs:
            error = indicator.std(axis=0) / np.sqrt(n)
            assert np.all(np.abs(indicator.mean(axis=0) - truth[0]) < 5.0 * error + 3.0 / n)
        quantile = effects(tests, one, Nodes.of(*node), np.ones(1), np.array([0.1, 0.5, 0.9]))[:, 7:]
        for k, p in enumerate((0.1, 0.5, 0.9)):
            assert np.all((drawn < quantile[:, k] - 1e-12).mean(axis=0) < p + 5.0 * np.sqrt(0.25 / n))
            assert np.all((drawn <= quantile[:, k] + 1e-12).mean(axis=0) > p - 5.0 * np.sqrt(0.25 / n))


@pytest.mark.parametrize("y", [-1e9, -1e4, -60.0, -8.0, -5.001, -4.999, 0.0, 3.0, 12.0])
def test_truncated_normals_are_inverted_wherever_they_lie(y: float) -> None:
    u = np.array([1e-15, 1e-3, 0.2, 0.7, 1.0 - 1e-9])
    t = positive_normal(np.full(5, y), u)
    # log P(b > t) less log P(b > 0); from logs of the tail, which scipy has to 1e-14 of their size
    if y > -1e3:
        np.testing.assert_allclose(st.norm.logsf(t - y) - st.norm.logsf(-y), np.log(u), rtol=1e-9, atol=1e-11)
    else:
        np.testing.assert_allclose(t, -np.log(u) / -y, rtol=2.0 * 37.0 / y**2 + 1e-12)
    assert np.all(np.diff(t) < 0.0) and np.all(t > 0.0)


def test_draws_and_probabilities_do_not_depend_on_threads_or_on_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    tests, nodes = several(300), grouped()
    u = uniforms(np.random.default_rng(0), (2, 4, 300))
    rows = np.array([250, 3, 77])
    for slab in map(make_slab, SLABS):
        monkeypatch.setattr(system, "n_threads", lambda: 4)
        many, drawn = at_nodes(tests, slab, nodes, 0.3), effects_of_uniforms(tests, slab, nodes, u)
        monkeypatch.setattr(system, "n_threads", lambda: 1)
        single, again = at_nodes(tests, slab, nodes, 0.3), effects_of_uniforms(tests, slab, nodes, u)
        for name in vars(many):
            np.testing.assert_array_equal(getattr(many, name), getattr(single, name))
        np.testing.assert_array_equal(drawn, again)
        alone = effects_of_uniforms(tests, slab, nodes, np.ascontiguousarray(u[:, :, rows]), rows)
        np.testing.assert_array_equal(alone, drawn[:, rows])
