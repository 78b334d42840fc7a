"""Draws, replications and sources of uncertainty of a screen: against the table, simulation and each other."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats as st
from hypothesis import given, settings
from hypothesis import strategies as some

from finetti.errors import FinettiError, FinettiWarning, PredictionError
from finetti.inference.spike_slab import Nodes, Observed, make_slab
from finetti.inference.spike_slab_replicate import as_normals, replicate
from finetti.model.priors import fixed
from finetti.studies.screen import Screen, screen
from tests.studies.test_screen import made

HELD = {"pi0": fixed(0.7), "slab_sd": fixed(4.0), "null_mean": fixed(0.1), "null_sd": fixed(1.2)}
SETTINGS = [
    {}, {"slab": "laplace"}, {"slab": "student_t"}, {"df": 6.0}, {"df": 6.0, "slab": "laplace"},
    {"method": "empirical"}, {"by": np.repeat(["a", "b", "c"], 40)},
    {"by": np.repeat(["a", "b", "c"], 40), "method": "empirical"},
]  # fmt: skip


def of(question: dict[str, object], n: int = 120, seed: int = 0) -> Screen:
    x, se, _ = made(n, 0.7, 4.0, seed=seed)
    return screen(x, se, labels=[f"g{i}" for i in range(n)], **question)


@pytest.fixture(scope="module")
def found() -> Screen:
    return of({})


# ------------------------------------------------------------------------------------------------------------ draws
@pytest.mark.parametrize("question", SETTINGS)
def test_draws_are_of_the_posterior_in_the_tables(question: dict[str, object]) -> None:
    one, n = of(question), 20_000
    table, hyper = one.table(), one.hyper()
    doubtful = table.index[np.argsort(np.abs(table["prob_null"] - 0.5))][:3].tolist()
    names = [*doubtful, table["prob_null"].idxmin(), table["prob_null"].idxmax()]
    drawn = one.draws([*names, *hyper.index], n)
    assert drawn.shape == (n, 5 + len(hyper)) and list(drawn.columns) == [*names, *hyper.index]
    for name in names:
        row, x = table.loc[name], drawn[name].to_numpy()
        # few nodes stand behind the table
        assert abs((x == 0.0).mean() - row["prob_null"]) < 4.0 * np.sqrt(0.25 / n) + 0.005
        assert abs(x.mean() - row["mean"]) < 5.0 * row["sd"] / np.sqrt(n) + 0.03 * row["sd"]
        assert (x < row["q5"] - 1e-12).mean() < 0.065 and (x <= row["q95"] + 1e-12).mean() > 0.935
    for name in hyper.index:
        error = 5.0 * hyper.loc[name, "sd"] / np.sqrt(n) + 5.0 * hyper.loc[name, "mcse"] + 1e-4
        assert abs(drawn[name].mean() - hyper.loc[name, "mean"]) < error + 0.03 * hyper.loc[name, "sd"]


def test_rows_are_joint_whatever_is_asked_for(found: Screen) -> None:
    every = found.draws(["g3", "pi0", "g40", "g7"], 500)
    np.testing.assert_array_equal(found.draws("g40", 500), every["g40"])
    np.testing.assert_array_equal(found.draws("pi0", 500), every["pi0"])
    pd.testing.assert_frame_equal(found.draws(pd.Index(["g7", "g3"]), 500), every[["g7", "g3"]])
    again = of({})
    np.testing.assert_array_equal(again.draws("g40", 500), every["g40"])
    other = screen(found.screened.effect, found.screened.se, labels=found.screened.labels, seed=1)
    assert not np.array_equal(other.draws("g40", 500), every["g40"])
    # two tests are independent only given the hyperparameters: both are null together where pi0 is large
    doubtful = found.table().index[np.argsort(np.abs(found.table()["prob_null"] - 0.5))][:8].tolist()
    drawn = found.draws([*doubtful, "pi0"], 20_000)
    zeros = (drawn[doubtful] == 0.0).sum(axis=1)
    assert np.corrcoef(zeros, drawn["pi0"])[0, 1] > 0.05
    null = found.table().loc[doubtful, "prob_null"]
    assert zeros.var() > 1.02 * (null * (1.0 - null)).sum()
    assert abs(np.corrcoef(drawn[doubtful[0]], drawn[doubtful[1]])[0, 1]) < 0.1


def test_labels_of_any_kind_are_found_and_others_refused(found: Screen) -> None:
    x, se, _ = made(60)
    assert screen(x, se).draws(7, 10).shape == (10,)
    pairs = pd.MultiIndex.from_product([["a", "b"], range(30)])
    both = screen(x, se, labels=pd.Index(pairs.to_flat_index(), tupleize_cols=False))
    assert both.draws(("a", 3), 10).shape == (10,) and both.draws([("a", 3), ("b", 0)], 10).shape == (10, 2)
    twice = screen(x, se, labels=["same", "same", *(f"g{i}" for i in range(58))])
    with pytest.raises(FinettiError, match="the label of 2 tests"):
        twice.draws("same")
    assert twice.draws("g0", 5).shape == (5,)
    with pytest.raises(FinettiError, match="did you mean 'g11"):
        found.draws("g111x")
    with pytest.raises(FinettiError, match="did you mean 'slab_sd'"):
        found.draws(["g1", "slabsd"])
    for n in (0, -3, 2.5, True):
        with pytest.raises(FinettiError, match="number of draws"):
            found.draws("g1", n)


# ----------------------------------------------------------------------------------------------------- replications
@pytest.mark.parametrize("question", [*SETTINGS[:-2], {"df": 3.0, "slab": "student_t", "priors": HELD}])
def test_replications_are_those_of_simulation(question: dict[str, object]) -> None:
    one, n = of({**question, "null": "free"}, 60), 40_000
    rng = np.random.default_rng(1)
    table = one.table()
    doubtful = table.index[np.argsort(np.abs(table["prob_null"] - 0.5))][:2].tolist()
    drawn = one.draws([*doubtful, table["prob_null"].idxmin(), "null_mean", "null_sd"], n)
    df = question.get("df", np.inf)
    for se in (None, 0.05, 4.0):
        again = one.predict(se, probs=(0.05, 0.3, 0.95))
        assert list(again.columns) == ["mean", "sd", "q5", "q30", "q95", "prob_same_sign", "prob_true_same_sign"]
        for name in drawn.columns[:3]:
            row, x = again.loc[name], table.loc[name, "effect"]
            scale = table.loc[name, "se"] if se is None else se
            error = rng.standard_normal(n) if np.isinf(df) else rng.standard_t(df, n)
            new = (scale * drawn["null_mean"] + drawn[name] + drawn["null_sd"] * scale * error).to_numpy()
            # few nodes stand behind the one, the draws behind the other
            noise = 5.0 * np.sqrt(0.25 / n) + 0.006
            for p, q in ((0.05, "q5"), (0.3, "q30"), (0.95, "q95")):
                assert abs((new <= row[q]).mean() - p) < noise
            assert row["mean"] == pytest.approx(new.mean(), abs=6.0 * new.std() / np.sqrt(n) + 0.03 * new.std())
            assert df <= 4 or row["sd"] == pytest.approx(new.std(), rel=0.05)
            assert abs((np.sign(new) == np.sign(x)).mean() - row["prob_same_sign"]) < noise
            assert abs((np.sign(drawn[name]) == np.sign(x)).mean() - row["prob_true_same_sign"]) < noise


def test_a_replication_by_hand() -> None:
    x, se, _ = made(40)
    one = screen(x, se, priors=HELD)
    row, given = one.predict(2.0, probs=(0.1,)).iloc[5], one.table().iloc[5]
    share = 16.0 / (16.0 + 1.44 * se[5] ** 2)
    centre, var = share * (x[5] - 0.1 * se[5]), share * 1.44 * se[5] ** 2
    null = given["prob_null"]
    parts = ((null, 0.2, 2.4), (1.0 - null, 0.2 + centre, np.sqrt(var + 2.4**2)))
    assert sum(w * st.norm.cdf(row["q10"], m, s) for w, m, s in parts) == pytest.approx(0.1, abs=1e-9)
    above = sum(w * st.norm.sf(0.0, m, s) for w, m, s in parts)
    assert row["prob_same_sign"] == pytest.approx(above if x[5] > 0 else 1.0 - above, abs=1e-12)
    assert row["mean"] == pytest.approx(0.2 + given["mean"])
    assert row["sd"] == pytest.approx(np.hypot(given["sd"], 2.4))
    each = one.predict(np.where(np.arange(40) == 5, 2.0, 1.0), probs=(0.1,))
    pd.testing.assert_series_equal(each.iloc[5], row)


@pytest.mark.parametrize("df", [np.inf, 5.0])
@pytest.mark.parametrize("slab", ["student_t", "laplace"])
def test_merged_components_have_the_quantiles_of_all_of_them(slab: str, df: float) -> None:
    """A posterior with its components, written out pair by pair."""
    x, se, node = 3.0, 1.0, (0.4, 2.0, 0.1, 1.1)
    tests, probs = Observed.of(np.array([x]), np.array([se]), np.array([df])), np.array([0.01, 0.05, 0.5, 0.95, 0.99])
    for new in (0.05, 1.0, 5.0):
        found = replicate(tests, make_slab(slab), Nodes.of(*node), np.ones(1), np.full((1, 1), new), probs)[0]
        pi0, sd, mu, kappa = node
        one, g = as_normals(make_slab(slab)), tests.grids
        at = slice(*g.ptr[[g.band[0], g.band[0] + 1]])
        a, v = np.exp(g.log_weight[0] - g.half_df[0] * g.fall[at]), g.v[at] * kappa**2 * se**2
        e = x - mu * se
        slab_var = sd**2 * one.variance
        total = v[:, None] + slab_var
        weight = (1.0 - pi0) * a[:, None] * one.weight * st.norm.pdf(e, 0.0, np.sqrt(total))
        null = pi0 * np.sum(a * st.norm.pdf(e, 0.0, np.sqrt(v)))
        b_weight = np.append(weight.ravel(), null) / (weight.sum() + null)
        b_mean = np.append((e * slab_var / total).ravel(), 0.0)
        b_var = np.append((slab_var * v[:, None] / total).ravel(), 0.0)
        noise = g.v[at] * kappa**2 * new**2
        for p, q in zip(probs, found[1:], strict=True):
            tail = st.norm.cdf(q, mu * new + b_mean[:, None], np.sqrt(b_var[:, None] + noise))
            assert b_weight @ tail @ a == pytest.approx(p, abs=3e-4)
        above = b_weight @ st.norm.sf(0.0, mu * new + b_mean[:, None], np.sqrt(b_var[:, None] + noise)) @ a
        assert found[0] == pytest.approx(above, abs=3e-4)


def test_moments_that_do_not_exist_are_not_shown() -> None:
    x, se, _ = made(60)
    df = np.where(np.arange(60) == 0, 1.0, np.where(np.arange(60) == 1, 2.0, 5.0))
    again = screen(x, se, df=df, null="theoretical").predict()
    assert np.isnan(again["mean"].iloc[0]) and np.isnan(again["sd"].iloc[0])
    assert np.isfinite(again["mean"].iloc[1]) and np.isinf(again["sd"].iloc[1])
    assert np.all(np.isfinite(again[["q5", "q50", "q95"]])) and np.all(np.isfinite(again.iloc[2:]))
    x[7] = 0.0
    assert screen(x, se).predict().iloc[7][["prob_same_sign", "prob_true_same_sign"]].isna().all()


def test_standard_errors_of_a_replication_are_checked(found: Screen) -> None:
    for se, words in (
        (0.0, "above zero, but it is 0"), (np.nan, "is nan"), ([1.0, 2.0], "one for each of the 120 tests"),
        ("se", "a number or one"), (np.where(np.arange(120) == 4, -1.0, 1.0), "in row 4"), (np.ones((120, 1)), "shape"),
    ):  # fmt: skip
        with pytest.raises(PredictionError, match=words):
            found.predict(se)
    with pytest.raises(FinettiError, match="probs"):
        found.predict(probs=(0.0, 0.5))


# ------------------------------------------------------------------------------------------- sources of uncertainty
@pytest.mark.parametrize("question", SETTINGS)
def test_parts_add_up_to_the_variance_of_the_table(question: dict[str, object]) -> None:
    one = of(question)
    parts, table = one.uncertainty(), one.table()
    assert parts.index.equals(table.index)
    np.testing.assert_allclose(np.sqrt(parts["total"]), table["sd"], rtol=1e-8)
    np.testing.assert_allclose(
        parts["within_slab"] + parts["null_or_not"] + parts["from_hyperparameters"], parts["total"], rtol=1e-12
    )
    np.testing.assert_allclose(parts["within_slab"] + parts["null_or_not"], parts["given_hyperparameters"], rtol=1e-12)
    np.testing.assert_allclose(np.sqrt(parts["from_hyperparameters"]), table["mean_hyper_sd"], rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(parts["share"], parts["from_hyperparameters"] / parts["total"])
    assert (parts[["within_slab", "null_or_not", "from_hyperparameters"]] >= 0.0).all(axis=None)
    assert parts.notes and isinstance(parts.iloc[:3], type(parts))


def test_the_parts_by_hand() -> None:
    x, se, _ = made(40)
    one = screen(x, se, priors=HELD)
    parts, table = one.uncertainty(), one.table()
    share = 16.0 / (16.0 + 1.44 * se**2)
    p = table["prob_null"].to_numpy()
    np.testing.assert_allclose(parts["within_slab"], (1.0 - p) * share * 1.44 * se**2, rtol=1e-9)
    np.testing.assert_allclose(parts["null_or_not"], p * (1.0 - p) * (share * (x - 0.1 * se)) ** 2, rtol=1e-8)
    assert np.all(parts["from_hyperparameters"] == 0.0) and "all hyperparameters are held" in parts.notes[0]
    np.testing.assert_allclose(parts["eb_sd"], table["sd"], rtol=1e-9)


def test_empirical_bayes_is_what_it_would_be_by_itself(found: Screen) -> None:
    parts, full = found.uncertainty(), found.table()
    alone = of({"method": "empirical"})
    table = alone.table()
    np.testing.assert_allclose(parts["eb_sd"], table["sd"], rtol=1e-6)
    length, eb = (t["q95"] - t["q5"] for t in (full, table))
    expected = np.where(length > 0.0, eb / length.where(length > 0.0, 1.0), np.nan)
    np.testing.assert_allclose(parts["eb_interval_ratio"], expected, rtol=1e-5, atol=1e-9)
    assert np.isnan(expected).sum() == parts["eb_interval_ratio"].isna().sum()
    own = alone.uncertainty()
    assert np.all(own["from_hyperparameters"] == 0.0) and "because it was left out" in own.notes[0]
    np.testing.assert_allclose(own["eb_sd"], table["sd"], rtol=1e-8)
    assert np.all(own["eb_interval_ratio"].dropna() == 1.0)
    # fitted once
    kept = found.__dict__["_memory"]["plug_in"]
    found.uncertainty()
    assert found.__dict__["_memory"]["plug_in"] is kept
    assert any("times as long as full Bayes'" in note for note in parts.notes)


def test_few_tests_leave_the_hyperparameters_open() -> None:
    many, few = (of({}, n).uncertainty()["from_hyperparameters"].mean() for n in (1500, 30))
    assert few > 3.0 * many


def test_a_mixture_slab_is_its_own_companion() -> None:
    parts = of({"slab": "mixture", "method": "empirical"}).uncertainty()
    np.testing.assert_allclose(np.sqrt(parts["total"]), parts["eb_sd"], rtol=1e-8)


@settings(max_examples=10)
@given(some.permutations(range(60)), some.sampled_from(["normal", "laplace", "student_t"]))
def test_the_order_of_tests_does_not_matter(turn: list[int], slab: str) -> None:
    x, se, _ = made(60, 0.6, 4.0)
    one = screen(x, se, slab=slab, priors=HELD)
    other = screen(x[turn], se[turn], slab=slab, labels=turn, priors=HELD)
    pd.testing.assert_frame_equal(one.predict().loc[turn], other.predict(), check_names=False, rtol=1e-7)
    parts = [t.drop(columns=["eb_sd", "eb_interval_ratio"]) for t in (one.uncertainty().loc[turn], other.uncertainty())]
    pd.testing.assert_frame_equal(*map(pd.DataFrame, parts), check_names=False, rtol=1e-7)


def test_answers_of_a_screen_that_failed_its_checks_say_so(found: Screen) -> None:
    broken = replace(found, posterior=replace(found.posterior, met=False))
    for ask in (broken.predict, broken.uncertainty, lambda: broken.discoveries().table):
        with pytest.warns(FinettiWarning, match="failed its own checks"):
            assert "failed its own checks" in ask().attrs["warning"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert "DO NOT RELY ON THEM" in str(broken.discoveries())
