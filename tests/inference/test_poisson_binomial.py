"""Numbers of events: against enumeration, convolution by FFT and simulation; the approximation against the exact."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from finetti.inference import poisson_binomial
from finetti.inference.poisson_binomial import count_distributions, count_quantile


def by_fft(p: np.ndarray) -> np.ndarray:
    """Probabilities of 0 to n from the characteristic function at n + 1 frequencies."""
    n = p.size
    turn = np.exp(2j * np.pi * np.arange(n + 1) / (n + 1))
    values = np.exp(np.log1p(p * (turn[:, None] - 1.0)).sum(axis=1))
    return np.real(np.fft.fft(values)) / (n + 1)


@given(some.lists(some.floats(0.0, 1.0), min_size=1, max_size=7))
def test_every_outcome_is_counted(p: list[float]) -> None:
    truth = np.zeros(len(p) + 1)
    for outcome in product((0, 1), repeat=len(p)):
        truth[sum(outcome)] += np.prod([q if o else 1.0 - q for q, o in zip(p, outcome, strict=True)])
    (found,) = count_distributions([np.array([p])], np.array([len(p)]))
    np.testing.assert_allclose(found, truth, rtol=1e-5, atol=2e-6)


def test_first_ones_and_all_of_them_averaged_over_nodes() -> None:
    rng = np.random.default_rng(0)
    p = rng.beta(0.3, 3.0, (5, 1500))
    sizes = np.array([0, 1, 300, 1500])
    found = count_distributions([p[:2], p[2:]], sizes)
    assert [f.size for f in found] == [1, 2, 301, 1501]
    for size, pmf in zip(sizes, found, strict=True):
        truth = np.mean([by_fft(one[:size]) for one in p], axis=0)
        np.testing.assert_allclose(pmf, truth, rtol=0, atol=1e-6)


def test_rare_events_are_counted_in_a_lump() -> None:
    p = np.full((1, 30_000), 9e-7)
    p[0, 5] = 0.5
    (found,) = count_distributions([p], np.array([30_000]))
    rare = np.exp(-0.027) * np.array([1.0, 0.027])
    assert found[0] == pytest.approx(0.5 * rare[0], abs=1e-6)
    assert found[1] == pytest.approx(0.5 * rare.sum(), abs=1e-6)


def test_the_refined_normal_is_close_to_the_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    p = np.sort(np.random.default_rng(1).beta(0.5, 2.0, 4500))[None]
    size = np.array([4500])
    assert 400.0 < np.sum(p * (1.0 - p)) < 700.0
    (near,) = count_distributions([p], size)
    monkeypatch.setattr(poisson_binomial, "LARGE", 1e9)
    truth = by_fft(p[0])
    assert np.abs(np.cumsum(near) - np.cumsum(truth)).max() < 3e-5
    assert near @ np.arange(4501) == pytest.approx(p.sum(), rel=1e-4)


def test_numbers_are_those_of_simulation() -> None:
    rng = np.random.default_rng(2)
    p = rng.beta(0.5, 5.0, (20, 200))
    (found,) = count_distributions([p], np.array([200]))
    node = rng.integers(0, 20, 20_000)
    number = (rng.random((20_000, 200)) < p[node]).sum(axis=1)
    share = np.bincount(number, minlength=201) / 20_000
    assert np.all(np.abs(share - found) < 5.0 * np.sqrt(found * (1.0 - found) / 20_000) + 2e-4)


def test_quantiles_are_the_smallest_that_reach() -> None:
    pmf = np.array([0.05, 0.9, 0.05])
    assert [count_quantile(pmf, p) for p in (0.01, 0.05, 0.5, 0.95, 0.96, 1.0)] == [0, 0, 1, 1, 2, 2]
