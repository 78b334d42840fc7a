"""Looked-up densities against the sums they stand for, beyond the table's edges too."""

from __future__ import annotations

import numpy as np
import pytest

from finetti.inference.spike_slab import Nodes, Observed, make_slab
from finetti.inference.spike_slab_lookup import no_lookup, worth_a_table


def pair(df: float | np.ndarray, slab: str, n: int = 1500, seed: int = 0) -> tuple[Observed, Observed]:
    """The same tests twice: looked up, and by the sums."""
    rng = np.random.default_rng(seed)
    se = np.exp(rng.normal(0.0, 0.5, n))
    x = se * rng.standard_t(5, n) + np.where(rng.random(n) < 0.1, rng.normal(0.0, 6.0, n), 0.0)
    degrees = np.broadcast_to(df, n).astype(float)
    fast, slow = Observed.of(x, se, degrees), Observed.of(x, se, degrees)
    slow._lookups[slab] = no_lookup(n)
    assert np.all(fast.lookup(make_slab(slab)).index >= 0)
    return fast, slow


@pytest.mark.parametrize(
    ("df", "slab"),
    [
        (3.0, "normal"),
        (60.0, "normal"),
        (8.0, "laplace"),
        (np.inf, "laplace"),
        (np.inf, "student_t"),
        (20.0, "student_t"),
    ],
)
def test_a_lookup_is_the_sum(df: float, slab: str) -> None:
    fast, slow = pair(df, slab)
    rng = np.random.default_rng(1)
    nodes = Nodes.of(
        rng.uniform(0.3, 0.99, 6), np.exp(rng.uniform(-1.5, 2.5, 6)), rng.normal(0.0, 0.2, 6), rng.uniform(0.6, 1.8, 6)
    )
    s = make_slab(slab)
    tau = nodes.tau[:, 0].copy()
    a, b = fast.log_ratio(s, tau, nodes.mu, nodes.kappa)[0], slow.log_ratio(s, tau, nodes.mu, nodes.kappa)[0]
    # one test 38 standard errors out, where a tail of t errors and the slab explain it alike, is off by 0.013 of 18
    assert np.quantile(np.abs(a - b), 0.999) < 2e-5 and np.max(np.abs(a - b)) < 0.02
    # no more than the tests' own errors add up to: their signs differ, and one dominates
    off = np.abs(fast.log_likelihood(s, nodes) - slow.log_likelihood(s, nodes))
    assert np.all(off < np.max(np.abs(a - b), axis=1) + 1e-3)
    for one, two in zip(fast.gradient(s, nodes), slow.gradient(s, nodes), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-2)


def test_the_gradient_is_that_of_the_interpolant() -> None:
    fast, _ = pair(12.0, "normal")
    s, at = make_slab("normal"), np.array([0.9, 2.0, 0.1, 1.1])
    _, by_mu, by_kappa, _, by_tau = fast.gradient(s, Nodes.of(*at))
    for k, (slope, scale) in {2: (by_mu[0], 1.0), 3: (by_kappa[0], at[3]), 1: (by_tau[0, 0], at[1])}.items():
        step = np.zeros(4)
        step[k] = 1e-5 * scale
        up, down = (fast.log_likelihood(s, Nodes.of(*(at + sign * step)))[0] for sign in (1.0, -1.0))
        assert slope == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-3)


def test_beyond_the_edges_the_sum_is_taken() -> None:
    fast, slow = pair(12.0, "normal")
    s = make_slab("normal")
    for nodes in (Nodes.of(0.9, 1e-4, 0.0, 1.0), Nodes.of(0.9, 1e5, 0.0, 1.0), Nodes.of(0.9, 2.0, 0.0, 1e-3)):
        # nothing is looked up, or only some tests: NaN would spread
        assert fast.log_likelihood(s, nodes) == pytest.approx(slow.log_likelihood(s, nodes), rel=1e-6)


def test_few_tests_and_many_df_are_summed() -> None:
    assert worth_a_table(2000, 2) and not worth_a_table(500, 1) and not worth_a_table(10**6, 500)
    rng = np.random.default_rng(2)
    many = Observed.of(rng.normal(size=1500), np.ones(1500), rng.uniform(5.0, 50.0, 1500))
    assert np.all(many.lookup(make_slab("normal")).index == -1)
    mixed = Observed.of(rng.normal(size=3000), np.ones(3000), np.repeat([5.0, 9.0, np.inf], 1000))
    assert np.array_equal(np.unique(mixed.lookup(make_slab("normal")).index), [0, 1, 2])
