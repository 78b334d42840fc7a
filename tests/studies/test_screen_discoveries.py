"""Discoveries: the rule, the distribution of the number of false ones against simulation, words, edge cases."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from finetti.errors import FinettiError
from finetti.inference.spike_slab_priors import default_priors
from finetti.inference.spike_slab_tests import draw_effects
from finetti.model.priors import fixed
from finetti.studies.screen import Screen, screen
from finetti.studies.screen_discoveries import DRAWS, discoveries, discovery_curve
from finetti.studies.screen_table import running_mean
from tests.studies.test_screen import made

QUESTIONS = [{}, {"fsr": 0.1}, {"at_least": 1.0}, {"fsr": 0.1, "at_least": 1.0}]


@pytest.fixture(scope="module")
def found() -> Screen:
    x, se, _ = made(600, 0.85, 4.0)
    return screen(x, se, labels=[f"g{i}" for i in range(600)])


def claimed(drawn: np.ndarray, up: np.ndarray, question: dict[str, float]) -> np.ndarray:
    """Which claims are false in each draw of the effects."""
    delta = question.get("at_least", 0.0)
    if "fsr" in question:
        return ~np.where(up, drawn > delta, drawn < -delta)
    return ~(np.abs(drawn) > delta)


# --------------------------------------------------------------------------------------------------------- the rule
def test_claims_are_the_rows_of_small_q_and_s_values(found: Screen) -> None:
    table = found.table()
    for question, column, order in (({"fdr": 0.1}, "qvalue", "prob_null"), ({"fsr": 0.2}, "svalue", "lfsr")):
        some = found.discoveries(**question)
        rate = next(iter(question.values()))
        assert set(some.labels) == set(table.index[table[column] <= rate]) and some.n == len(some) > 10
        assert some.table[order].is_monotonic_increasing and list(some) == some.labels.tolist()
        assert some.expected_false == pytest.approx(table.loc[some.labels, order].sum())
        assert some.expected_rate <= rate == some.rate
        assert (some.table["direction"] == np.where(some.table["mean"] > 0.0, "up", "down")).all()
    assert found.discoveries().rate == 0.05
    # the next one would make it too many
    one = found.discoveries(0.1)
    rest = table.drop(one.labels)["prob_null"].min()
    assert (one.expected_false + rest) / (one.n + 1) > 0.1


def test_a_size_is_claimed_with_its_probability(found: Screen) -> None:
    any_size, large = found.discoveries(fdr=0.1), found.discoveries(fdr=0.1, at_least=2.0)
    assert set(large.labels) < set(any_size.labels) and large.table["prob_at_least"].is_monotonic_decreasing
    assert large.expected_false == pytest.approx((1.0 - large.table["prob_at_least"]).sum())
    assert found.discoveries(fdr=0.1, at_least=0.0).labels.tolist() == any_size.labels.tolist()
    signed = found.discoveries(fsr=0.1, at_least=2.0)
    both = large.table["prob_at_least"].reindex(signed.labels)
    assert (signed.table["prob_at_least"] <= both.fillna(1.0) + 1e-12).all()
    # from the draws of single tests
    some = large.labels[[0, large.n // 2, large.n - 1]].tolist()
    share = (found.draws(some, 20_000).abs() > 2.0).mean()
    np.testing.assert_allclose(share, large.table.loc[some, "prob_at_least"], atol=0.02)


@settings(max_examples=15)
@given(some.permutations(range(80)), some.sampled_from(QUESTIONS))
def test_the_order_of_tests_does_not_matter(turn: list[int], question: dict[str, float]) -> None:
    x, se, _ = made(80, 0.6, 4.0)
    held = {"pi0": fixed(0.7), "slab_sd": fixed(4.0)}
    one = screen(x, se, null="theoretical", priors=held).discoveries(**question)
    other = screen(x[turn], se[turn], labels=turn, null="theoretical", priors=held).discoveries(**question)
    assert one.labels.tolist() == other.labels.tolist()
    np.testing.assert_allclose(one.false, other.false, rtol=1e-9, atol=1e-15)


@given(some.lists(some.floats(0.0, 1.0), min_size=1, max_size=30), some.floats(0.01, 0.99))
def test_no_larger_set_keeps_the_rate(p: list[float], rate: float) -> None:
    """Of all sets of k claims that of the smallest probabilities has the smallest mean: brute force over k."""
    ordered = np.sort(p)
    means = np.cumsum(ordered) / np.arange(1, len(p) + 1)
    largest = max((k + 1 for k in range(len(p)) if means[k] <= rate), default=0)
    chosen = int((running_mean(np.array(p)) <= rate).sum())
    # tied claims are made together or not at all
    assert chosen <= largest and (chosen == largest or np.sum(ordered == ordered[largest - 1]) > 1)


# ------------------------------------------------------------------------------------------- how many of them are false
@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("method", ["full", "empirical"])
def test_the_number_of_false_claims_is_that_of_simulation(question: dict[str, float], method: str) -> None:
    x, se, _ = made(150, 0.7, 4.0, seed=3)
    one = screen(x, se, method=method)
    claims = one.discoveries(**question)
    n = 20_000
    rows = np.array(claims.labels)
    nodes, _ = one.learned.joint(n, one.seed)
    drawn = draw_effects(one.tests.take(rows), one.slab, nodes, np.random.default_rng(5))
    number = claimed(drawn, (claims.table["direction"] == "up").to_numpy(), question).sum(axis=1)
    assert claims.n > 5 and claims.false.size == claims.n + 1 and claims.false.sum() == pytest.approx(1.0)
    cdf, truth = np.cumsum(claims.false), np.cumsum(np.bincount(number, minlength=claims.n + 1)) / n
    # 400 draws of the hyperparameters are behind the one, 20,000 behind the other
    assert np.abs(cdf - truth).max() < 5.0 * np.sqrt(0.25 / n) + (0.03 if method == "full" else 0.0)
    mean = claims.false @ np.arange(claims.n + 1)
    assert mean == pytest.approx(claims.expected_false, rel=0.1 if method == "full" else 1e-6)
    low, high = claims.interval
    assert np.mean((number >= low) & (number <= high)) > 0.87
    assert claims.rate_interval == (low / claims.n, high / claims.n)
    wide, narrow = claims.interval_of(0.99), claims.interval_of(0.5)
    assert wide[0] <= low <= narrow[0] <= narrow[1] <= high <= wide[1]


def test_not_knowing_the_hyperparameters_widens_the_distribution() -> None:
    """With few tests their share of the null is hardly known, and all claims are doubtful together."""
    x, se, _ = made(200, 0.5, 2.0, seed=1)
    claims = screen(x, se).discoveries(fdr=0.2)
    k = np.arange(claims.n + 1)
    variance = claims.false @ k**2 - (claims.false @ k) ** 2
    p = claims.table["prob_null"].to_numpy()
    assert variance > 1.2 * np.sum(p * (1.0 - p))


def test_intervals_hold_the_true_number_as_often_as_they_say() -> None:
    """Truths drawn from the model with its priors: 25 screens of 300 tests."""
    inside, n_runs = 0, 25
    spread = default_priors(1.0)["slab_sd"].base.sd
    for seed in range(n_runs):
        rng = np.random.default_rng([seed, 9])
        pi0, sd = rng.beta(10.0, 1.0), 3.0 * np.exp(spread * rng.standard_normal())
        null = rng.random(300) < pi0
        x = np.where(null, 0.0, rng.normal(0.0, sd, 300)) + rng.normal(size=300)
        claims = screen(x, null="theoretical").discoveries(fdr=0.3)
        low, high = claims.interval
        inside += int(low <= null[claims.labels].sum() <= high)
    assert inside >= 0.9 * n_runs - 4.0 * np.sqrt(0.09 * n_runs)


def test_the_curve_is_made_of_discoveries(found: Screen) -> None:
    rates = [0.2, 0.001, 0.05]
    curve = discovery_curve(found, rates)
    assert curve["rate"].tolist() == sorted(rates)
    assert list(curve.columns) == ["rate", "n", "expected_false", "false_low", "false_high"]
    for row in curve.itertuples():
        one = found.discoveries(row.rate)
        assert (one.n, one.interval) == (row.n, (row.false_low, row.false_high))
        assert row.expected_false == pytest.approx(one.expected_false)
    assert len(discovery_curve(found)) == 50
    signed = discovery_curve(found, [0.1], signed=True, at_least=1.0, prob=0.5).iloc[0]
    one = found.discoveries(fsr=0.1, at_least=1.0)
    assert signed["n"] == one.n and (signed["false_low"], signed["false_high"]) == one.interval_of(0.5)


def test_many_claims_take_fewer_draws_in_pieces(found: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetti.studies import screen_discoveries

    whole = found.discoveries(0.3)
    monkeypatch.setattr(screen_discoveries, "HELD", 7 * whole.n)
    assert DRAWS % 7 != 0  # so that the last piece is a smaller one
    np.testing.assert_allclose(found.discoveries(0.3).false, whole.false, rtol=1e-12)


# ------------------------------------------------------------------------------------------------------------ words
def test_print_says_how_many_of_what_and_how_many_are_false(found: Screen) -> None:
    one = found.discoveries(fdr=0.1)
    low, high = one.interval
    assert (
        repr(one) == f"<{one.n} discoveries among 600 tests: effects that are not 0, at a false discovery rate of 10 %>"
    )
    assert f"Expected to be false: {one.expected_false:.2g}" in str(one) and f"90 % interval {low} to {high} (" in str(
        one
    )
    assert "as known" not in str(one)
    signed = found.discoveries(fsr=0.05, at_least=1.5)
    assert "above 1.5 in the direction they seem to have, at a false sign rate of 5 %" in repr(signed)
    plug_in = screen(*made(300)[:2], method="empirical").discoveries(0.2)
    assert plug_in.estimated and "takes the hyperparameters as known" in str(plug_in)


def test_nothing_is_found_in_noise() -> None:
    nothing = screen(np.random.default_rng(0).normal(size=200)).discoveries()
    assert nothing.n == 0 and nothing.interval == (0, 0) and nothing.rate_interval == (0.0, 0.0)
    assert nothing.expected_false == 0.0 == nothing.expected_rate and nothing.false.tolist() == [1.0]
    assert isinstance(nothing.table, pd.DataFrame) and "direction" in nothing.table and not list(nothing)
    assert "0 discoveries" in str(nothing) and "No set of claims" in str(nothing)
    curve = discovery_curve(screen(np.random.default_rng(0).normal(size=200)), [0.01])
    assert curve.iloc[0].tolist() == [0.01, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({"fdr": 0.05, "fsr": 0.05}, "exclude each other"),
        ({"fdr": 0.0}, "fdr=0.0 must be a number strictly between 0 and 1"),
        ({"fdr": 5}, "fdr=5"),
        ({"fdr": "5 %"}, "fdr='5 %'"),
        ({"fdr": True}, "fdr=True"),
        ({"fsr": np.nan}, "fsr=nan"),
        ({"at_least": -1.0}, "at_least=-1.0 must be a size"),
        ({"at_least": np.inf}, "at_least=inf"),
        ({"at_least": "large"}, "at_least='large'"),
    ],
)
def test_what_cannot_be_claimed_is_refused_in_words(found: Screen, question, words: str) -> None:
    with pytest.raises(FinettiError, match=words):
        discoveries(found, **question)


def test_rates_of_a_curve_and_probabilities_are_checked(found: Screen) -> None:
    with pytest.raises(FinettiError, match="rates must be numbers"):
        discovery_curve(found, [0.1, 1.0])
    with pytest.raises(FinettiError, match="prob=90"):
        found.discoveries().interval_of(90)
