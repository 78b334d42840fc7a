"""`screen(..., by=)`: groups share what is learned, tables agree with joint draws, calibration, errors in words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

import finetti as fi
from finetti.errors import DataError, FinettiError, ModelError, PriorError
from finetti.inference.spike_slab_posterior import effects
from finetti.posterior.uniformity import uniform_p_value
from finetti.studies.screen import Screen, screen
from finetti.studies.screen_by import ByCurve, ByGroup
from finetti.studies.screen_by_input import BINS, read_by

SHARES = np.array([0.5, 0.7, 0.9, 0.98])


def made(n: int = 1200, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Effects, levels, and which are null; the first level has three tests."""
    rng = np.random.default_rng(seed)
    group = np.concatenate([np.zeros(3, int), rng.integers(1, 5, n - 3)])
    null = rng.random(n) < np.concatenate([[0.8], SHARES])[group]
    return np.where(null, 0.0, rng.normal(0.0, 3.5, n)) + rng.normal(size=n), np.array(list("sabcd"))[group], null


@pytest.fixture(scope="module")
def found() -> Screen:
    x, level, _ = made()
    return screen(x, by=level, null="theoretical")


@pytest.fixture(scope="module")
def curve() -> Screen:
    rng = np.random.default_rng(3)
    value = rng.normal(size=1000)
    null = rng.random(1000) < expit(2.0 + 1.5 * value)
    x = np.where(null, 0.0, rng.normal(0.0, 3.5, 1000)) + rng.normal(size=1000)
    return screen("x", data={"x": x, "expression": value}, by="expression", null="theoretical")


def test_groups_and_hyperparameters(found: Screen) -> None:
    table, hyper = found.groups(), found.hyper()
    assert isinstance(found.learned, ByGroup) and found.diagnostics.ok
    assert list(table.index) == list(dict.fromkeys(made()[1])) and table["n"].sum() == found.n_tests
    assert [c for c in table if c.startswith("pi0")] == ["pi0_mean", "pi0_sd", "pi0_q5", "pi0_q50", "pi0_q95"]
    for level, share in zip("abcd", SHARES, strict=True):
        assert abs(table.loc[level, "pi0_mean"] - share) < 4.0 * table.loc[level, "pi0_sd"]
    assert list(hyper.index) == ["pi0", "slab_sd", "null_mean", "null_sd", "sd_pi0", "sd_slab_sd"]
    # pi0 is the share among all tests, whose mean the groups' means have, too
    whole = np.average(table["pi0_mean"], weights=table["n"])
    assert abs(hyper.loc["pi0", "mean"] - whole) < 0.15 * hyper.loc["pi0", "sd"]
    assert hyper.loc["sd_pi0", "q5"] > 0.4  # logits from 0 to 4


def test_a_small_group_borrows_from_the_others(found: Screen) -> None:
    table = found.groups()
    small, large = table.loc["s"], table.loc["a"]
    assert small["n"] == 3 and small["pi0_sd"] > 2.0 * large["pi0_sd"]
    # what three tests cannot say is taken from the population of groups: wide, but not the whole of 0 to 1
    six = found.learned.joint(4000, 0)  # type: ignore[attr-defined]
    assert 0.3 < small["pi0_q5"] < small["pi0_q95"] < 1.0
    assert small["slab_sd_sd"] < 2.0 and np.all(six[0].pi0[:, 0] < 1.0)


def test_few_nodes_have_the_moments_of_the_joint_draws(found: Screen, curve: Screen) -> None:
    for s in (found, curve):
        nodes, weights = s.nodes
        draws, _ = s.learned.joint(20_000, 1)
        G = nodes.n_groups
        assert nodes.n <= 32 and weights.shape == (nodes.n, G)
        np.testing.assert_allclose(weights.sum(axis=0), 1.0)
        for few, all_of in ((nodes.pi0, draws.pi0), (np.log(nodes.tau), np.log(draws.tau))):
            mean, sd = all_of.mean(axis=0), all_of.std(axis=0)
            assert np.max(np.abs((weights * few).sum(axis=0) - mean) / sd) < 0.2
            second = np.sqrt((weights * (few - mean) ** 2).sum(axis=0)) / sd
            assert np.all((second > 0.8) & (second < 1.25))


def test_the_table_agrees_with_all_draws(found: Screen) -> None:
    draws, _ = found.learned.joint(1500, 2)
    n = draws.n
    full = effects(found.tests, found.slab, draws, np.full(n, 1.0 / n), np.zeros(0))
    table = found.table()
    assert np.max(np.abs(full[:, 2] - table["prob_null"])) < 0.02
    assert np.max(np.abs(full[:, 0] - table["mean"]) / (0.1 + table["sd"])) < 0.05
    sd = table["prob_null_sd"].to_numpy()
    assert np.quantile(np.abs(full[:, 5] - sd) / (0.005 + sd), 0.95) < 0.3


def test_the_order_of_tests_and_the_names_of_levels_do_not_matter(found: Screen) -> None:
    x, level, _ = made()
    order = np.random.default_rng(5).permutation(x.size)
    renamed = pd.Series(level).map(dict(zip("sabcd", "zyxwv", strict=True))).to_numpy()
    other = screen(x[order], by=renamed[order], null="theoretical")
    mine, theirs = found.hyper(), other.hyper()
    assert np.all(np.abs(mine["mean"] - theirs["mean"]) <= 5.0 * (mine["mcse"] + theirs["mcse"]) + 1e-3)
    a = found.groups().rename(index=dict(zip("sabcd", "zyxwv", strict=True)))
    b = other.groups().loc[a.index]
    assert np.max(np.abs(a["pi0_mean"] - b["pi0_mean"]) / a["pi0_sd"]) < 0.2
    back = np.empty(x.size)
    back[order] = other.table()["prob_null"]
    assert np.max(np.abs(back - found.table()["prob_null"])) < 0.03


def test_a_covariate_that_says_nothing() -> None:
    rng = np.random.default_rng(8)
    x, _, _ = made(1000, seed=9)
    plain = screen(x, null="theoretical")
    for by in (rng.integers(0, 6, 1000).astype(str), rng.normal(size=1000)):
        other = screen(x, by=by, null="theoretical")
        for name in ("pi0", "slab_sd"):
            a, b = plain.hyper().loc[name], other.hyper().loc[name]
            assert abs(a["mean"] - b["mean"]) < 0.7 * a["sd"] and 0.7 < b["sd"] / a["sd"] < 1.6
        assert other.hyper().loc["sd_pi0", "q50"] < 0.45
        assert np.mean(np.abs(plain.table()["prob_null"] - other.table()["prob_null"])) < 0.02


def test_informative_sets_find_more_at_the_rate_that_is_asked_for() -> None:
    x, level, null = made(2000, seed=21)
    hits = []
    for by in (level, None):
        called = (screen(x, by=by, null="theoretical").table()["qvalue"] < 0.1).to_numpy()
        hits.append((np.sum(called & ~null), np.mean(null[called])))
    assert hits[0][0] > 1.03 * hits[1][0]
    n = hits[0][0] / (1.0 - hits[0][1])
    assert hits[0][1] < 0.1 + 3.0 * np.sqrt(0.1 * 0.9 / n)


def test_a_numeric_covariate(curve: Screen) -> None:
    table = curve.groups(probs=[0.1, 0.9])
    assert isinstance(curve.learned, ByCurve) and curve.diagnostics.ok
    assert len(table) == BINS and table.index.name == "expression"
    assert np.all(table["low"] <= table.index) and np.all(table.index <= table["high"])
    assert list(table.columns[:7]) == ["n", "low", "high", "pi0_mean", "pi0_sd", "pi0_q10", "pi0_q90"]
    truth = expit(2.0 + 1.5 * table.index.to_numpy())
    inner = slice(5, 45)
    assert (
        np.max(np.abs(table["pi0_mean"] - truth).to_numpy()[inner] / (table["pi0_sd"].to_numpy()[inner] + 0.02)) < 3.0
    )
    expected = 1.0 - curve.table()["prob_null"]
    assert table["expected_nonnull"].sum() == pytest.approx(expected.sum(), rel=1e-6)


@pytest.mark.parametrize("numeric", [False, True])
def test_maximum_likelihood(numeric: bool) -> None:
    x, level, _ = made()
    by = pd.Series(level).map(dict(zip("sabcd", range(5), strict=True))).to_numpy(float) if numeric else level
    s = screen(x, by=by, null="theoretical", method="empirical")
    hyper = s.hyper()
    assert np.all(hyper["sd"] == 0.0) and np.isfinite(s.log_likelihood)
    # no worse than without the covariate, and better where it says something
    assert s.log_likelihood > screen(x, null="theoretical", method="empirical").log_likelihood + 10.0
    held = {name: fi.fixed(hyper.loc[name, "mean"]) for name in ("slab_sd", "sd_pi0", "sd_slab_sd")}
    worse = screen(x, by=by, null="theoretical", method="empirical", priors=held | {"pi0": fi.fixed(0.6)})
    assert worse.log_likelihood < s.log_likelihood
    table = s.groups()
    assert table.index[0] == (0.0 if numeric else "s") and np.all(table["pi0_mean"].between(0.0, 1.0))


def test_simulation_based_calibration() -> None:
    ranks: dict[str, list[float]] = {name: [] for name in ("pi0", "slab_sd", "sd_pi0", "sd_slab_sd", "level", "scale")}
    for r in range(20):
        rng = np.random.default_rng([r, 7])
        n, G = 150, 4
        m, log_tau = np.log((p := rng.beta(10.0, 1.0)) / (1.0 - p)), np.log(3.0) + 0.5 * rng.normal()
        spread, stretch = np.abs(rng.normal(size=2)) * [1.0, 0.5]
        a, t = m + spread * rng.normal(size=G), log_tau + stretch * rng.normal(size=G)
        group = np.arange(n) % G
        b = np.where(rng.random(n) < expit(a[group]), 0.0, np.exp(t[group]) * rng.normal(size=n))
        s = screen(b + rng.normal(size=n), by=group.astype(str), null="theoretical", seed=r)
        nodes, values = s.learned.joint(499, r)
        truth = {"pi0": expit(a).mean(), "slab_sd": np.exp(log_tau), "sd_pi0": spread, "sd_slab_sd": stretch}
        for name, value in truth.items():
            ranks[name].append((np.sum(values[name] < value) + 0.5) / 500.0)
        ranks["level"].append((np.sum(nodes.pi0[:, 1] < expit(a[1])) + 0.5) / 500.0)
        ranks["scale"].append((np.sum(nodes.tau[:, 1] < np.exp(t[1])) + 0.5) / 500.0)
    for name, u in ranks.items():
        assert uniform_p_value(u) > 0.005, name


def test_slabs_errors_and_held_hyperparameters() -> None:
    x, level, _ = made(60)
    priors = {"sd_slab_sd": fi.fixed(0.0), "slab_sd": fi.fixed(3.5), "sd_pi0": fi.half_normal(0.5)}
    s = screen(x, by=level, df=8, slab="laplace", null="theoretical", priors=priors)
    assert s.diagnostics.ok and s.hyper().loc["slab_sd", "mean"] == 3.5 and s.hyper().loc["sd_slab_sd", "sd"] == 0.0
    np.testing.assert_allclose(s.groups()["slab_sd_mean"], 3.5)
    everything = {"pi0": fi.fixed(0.8), "slab_sd": fi.fixed(3.0), "sd_pi0": fi.fixed(1.0), "sd_slab_sd": fi.fixed(0.2)}
    s = screen(x, by=level, null="theoretical", priors=everything)
    assert s.posterior.n_nodes == 1 and s.groups()["pi0_sd"].min() > 0.0


def test_reading_the_covariate() -> None:
    order = pd.Categorical(["b", "a", "b"], categories=["c", "b", "a"])
    assert read_by(order, None, 3).labels.tolist() == ["b", "a"]
    assert read_by([True, False, True], None, 3).labels.tolist() == ["False", "True"]
    ties = read_by(np.repeat([0.0, 1.0, 2.0], [500, 300, 1]), None, 801)
    assert ties.sizes.tolist() == [500, 300, 1] and ties.value is not None and ties.value.tolist() == [0.0, 1.0, 2.0]
    many = read_by(np.r_[np.zeros(400), np.linspace(1.0, 2.0, 600)], None, 1000)
    assert many.n_groups <= BINS and many.sizes[0] == 400 and np.all(np.diff(many.value) > 0.0)  # type: ignore[arg-type]


def test_errors_say_what_to_do() -> None:
    x, level, _ = made(60)
    with pytest.raises(DataError, match=r"missing in row 7 .*'unknown'"):
        screen(x, by=pd.Series(level).where(np.arange(60) != 7))
    with pytest.raises(DataError, match="missing in row 3"):
        screen(x, by=np.where(np.arange(60) == 3, np.nan, np.arange(60.0)))
    with pytest.raises(DataError, match="finite values are needed"):
        screen(x, by=np.where(np.arange(60) == 3, np.inf, np.arange(60.0)))
    for alone in (np.full(60, "a"), np.ones(60)):
        with pytest.raises(DataError, match="nothing can vary"):
            screen(x, by=alone)
    with pytest.raises(DataError, match="60 effects and 59 values"):
        screen(x, by=level[:-1])
    with pytest.raises(DataError, match="no table was given"):
        screen(x, by="set")
    for method in ("full", "empirical"):
        with pytest.raises(ModelError, match="slab of one scale"):
            screen(x, by=level, slab="mixture", method=method)
    with pytest.raises(PriorError, match="proper prior of positive values"):
        screen(x, by=level, priors={"sd_pi0": fi.normal(0, 1)})
    with pytest.raises(PriorError, match="sd_pi0"):  # without by there is no such hyperparameter
        screen(x, priors={"sd_pi0": fi.half_normal(1)})
    with pytest.raises(FinettiError, match="give by="):
        screen(x, null="theoretical").groups()
