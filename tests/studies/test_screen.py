"""`screen`: hyperparameters against dense quadrature, tables, invariances, calibration, real data, errors in words."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.stats as st

from finetti.errors import DataError, FinettiError, FinettiWarning, ModelError, NotBuiltError, PriorError
from finetti.inference.hyper import Settings, explore
from finetti.inference.spike_slab import Observed, make_slab
from finetti.inference.spike_slab_priors import NAMES, Hyper, default_priors, resolve_priors
from finetti.inference.spike_slab_target import ScreenTarget
from finetti.model.priors import beta, fixed, student_t
from finetti.posterior.positions import _of_theta, _resolved
from finetti.posterior.uniformity import uniform_p_value
from finetti.studies.screen import screen
from finetti.studies.screen_table import running_mean, screen_table
from tests.studies.screen_oracle import grid_moments, node_table

PROBS = np.array([0.05, 0.5, 0.95])


def made(n: int, pi0: float = 0.85, sd: float = 3.0, null_sd: float = 1.0, seed: int = 0, equal: bool = False):
    """Effects, standard errors and which are null."""
    rng = np.random.default_rng(seed)
    se = np.ones(n) if equal else rng.uniform(0.5, 2.0, n)
    null = rng.random(n) < pi0
    return np.where(null, 0.0, rng.normal(0.0, sd, n)) + null_sd * se * rng.normal(size=n), se, null


# ---------------------------------------------------------------------------------------------- the hyperparameters
def test_hyper_posterior_is_that_of_a_dense_grid_in_two_dimensions() -> None:
    x, se, _ = made(400)
    priors = resolve_priors(None, "theoretical", float(np.median(se)))
    axes = {
        "pi0": np.linspace(-1.0, 6.5, 120), "slab_sd": np.linspace(-0.5, 2.8, 120),
        "null_mean": np.zeros(1), "null_sd": np.zeros(1),
    }  # fmt: skip
    truth, evidence = grid_moments(x, se, priors, axes)
    target = ScreenTarget(Observed.of(x, se), make_slab("normal"), Hyper(priors))
    _agrees(target, truth, evidence)
    found = screen(x, se, null="theoretical")
    table = found.hyper()
    assert np.all(table.loc[["null_mean", "null_sd"], "sd"] == 0.0)
    assert table.loc["null_mean", "q95"] == 0.0 and table.loc["null_sd", "mean"] == 1.0
    for name in ("pi0", "slab_sd"):
        assert abs(table.loc[name, "mean"] - truth[name][0]) < 5.0 * table.loc[name, "mcse"] + 1e-6
        assert table.loc[name, "sd"] == pytest.approx(truth[name][1], rel=0.02)
    assert found.log_evidence == pytest.approx(evidence, abs=0.02)


def test_hyper_posterior_is_that_of_a_dense_grid_in_four_dimensions() -> None:
    x, se, _ = made(200, 0.8, 4.0, seed=1)
    priors = resolve_priors(None, "free", float(np.median(se)))
    axes = {
        "pi0": np.linspace(-1.5, 5.5, 30), "slab_sd": np.linspace(-0.3, 3.2, 30),
        "null_mean": np.linspace(-0.45, 0.45, 25), "null_sd": np.linspace(-0.5, 0.45, 27),
    }  # fmt: skip
    truth, evidence = grid_moments(x, se, priors, axes)
    _agrees(ScreenTarget(Observed.of(x, se), make_slab("normal"), Hyper(priors)), truth, evidence)


def _agrees(target: ScreenTarget, truth: dict[str, tuple[float, float]], evidence: float) -> None:
    """Means to 1e-4 of their sd's scale, asked of the outer step by its own error target."""
    found = explore(target, 0, Settings(mean_error=2e-3, quantile_error=0.1))
    assert found.reliable
    natural, dense = target.hyper.natural(found.theta), target.hyper.natural(found.surrogate.theta)
    for name in target.names:
        mean, sd, error, _ = found.weighted.moments(natural[name][:, None], dense[name][:, None])
        assert abs(mean[0] - truth[name][0]) < 5.0 * error[0] + 1e-6
        assert mean[0] == pytest.approx(truth[name][0], rel=1e-3, abs=1e-4)
        assert sd[0] == pytest.approx(truth[name][1], rel=5e-3)
    assert abs(found.log_evidence - evidence) < 6.0 * found.log_evidence_mcse + 1e-5


def test_fixed_hyperparameters_stay_and_all_four_may_be() -> None:
    x, se, _ = made(100)
    held = screen(x, se, priors={"pi0": fixed(0.9)})
    assert held.hyper().loc["pi0"].to_list()[:5] == [0.9, 0.0, 0.9, 0.9, 0.9]
    every = {"pi0": fixed(0.8), "slab_sd": fixed(3), "null_mean": fixed(0.1), "null_sd": fixed(1.1)}
    alone = screen(x, se, priors=every)
    assert alone.diagnostics.ok and np.all(alone.hyper()["sd"] == 0.0)
    row = alone.table().iloc[7]
    null, mean, *_ = node_table(x[7], se[7], np.inf, (0.8, 3.0, 0.1, 1.1), "normal")
    assert row["prob_null"] == pytest.approx(null, rel=1e-9) and row["mean"] == pytest.approx(mean, rel=1e-7)
    assert row["prob_null_sd"] == 0.0


# ------------------------------------------------------------------------------------------------- the tests' table
@pytest.mark.parametrize("slab", ["normal", "laplace", "student_t"])
def test_the_table_of_few_nodes_is_that_of_all_nodes(slab: str) -> None:
    for n, pi0, seed in ((60, 0.9, 3), (300, 1.0, 0)):
        x, se, _ = made(n, pi0, 4.0, seed=seed)
        found = screen(x, se, slab=slab)
        nodes, weights = found.nodes
        assert nodes.n <= 32 and weights.sum() == pytest.approx(1.0) and np.all(weights > 0.0)
        few = found.table()
        hyper = found.posterior
        each = found.learned.hyper.nodes(hyper.theta)
        every = screen_table(found.screened, found.tests, found.slab, each, hyper.weights, PROBS)
        # the plain average over nodes has an error of its own
        noise = 4.0 * every["prob_null_sd"].max() / np.sqrt(hyper.effective_nodes)
        assert np.abs(few["prob_null"] - every["prob_null"]).max() < 0.005 + noise
        assert np.abs(few["lfsr"] - every["lfsr"]).max() < 0.005 + noise
        assert np.abs(few["prob_null_sd"] - every["prob_null_sd"]).max() < 0.005 + 0.1 * every["prob_null_sd"].max()
        assert np.abs((few["mean"] - every["mean"]) / se).max() < 0.03
        theta = hyper.weighted.moments(hyper.theta, None if hyper.surrogate is None else hyper.surrogate.theta)
        logs = np.log(nodes.tau[:, 0])
        k = found.learned.hyper.names.index("slab_sd")
        assert weights @ logs == pytest.approx(theta[0][k], abs=0.05 * theta[1][k])
        assert np.sqrt(weights @ (logs - weights @ logs) ** 2) == pytest.approx(theta[1][k], rel=0.08)


def test_the_table_is_complete_and_in_order() -> None:
    x, se, _ = made(200)
    names = [f"g{i}" for i in range(200)]
    frame = pd.DataFrame({"beta": x, "err": se, "gene": names})
    table = screen("beta", "err", data=frame, labels="gene").table(probs=(0.1, 0.9))
    assert list(table.columns) == [
        "effect", "se", "mean", "sd", "q10", "q90", "prob_null", "lfsr", "qvalue", "svalue", "prob_null_sd",
        "mean_hyper_sd",
    ]  # fmt: skip
    assert table.index.tolist() == names and table.index.name == "gene"
    np.testing.assert_array_equal(table["effect"], x)
    assert np.all(table["prob_null"] <= table["lfsr"]) and np.all(table["q10"] <= table["q90"])
    order = np.argsort(table["prob_null"].to_numpy(), kind="stable")
    np.testing.assert_allclose(
        table["qvalue"].to_numpy()[order], np.cumsum(table["prob_null"].to_numpy()[order]) / np.arange(1, 201)
    )
    polars = pytest.importorskip("polars").from_pandas(frame)
    other = screen("beta", "err", data=polars, labels="gene").table(probs=(0.1, 0.9))
    pd.testing.assert_frame_equal(other, table)


def test_running_means_share_ties() -> None:
    np.testing.assert_allclose(running_mean(np.array([0.4, 0.1, 0.1, 0.2])), [0.2, 0.1, 0.1, 0.4 / 3.0])


def test_order_of_tests_does_not_matter() -> None:
    x, se, _ = made(3000)
    turn = np.random.default_rng(0).permutation(3000)
    a, b = screen(x, se), screen(x[turn], se[turn])
    np.testing.assert_allclose(a.hyper()["mean"], b.hyper()["mean"], rtol=1e-9)
    np.testing.assert_allclose(a.table().to_numpy()[turn], b.table().to_numpy(), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("method", ["full", "empirical"])
def test_units_do_not_matter(method: str) -> None:
    x, se, _ = made(400)
    a, b = screen(x, se, method=method), screen(1e6 * x, 1e6 * se, method=method)
    scale = np.array([1.0, 1e6, 1.0, 1.0])
    np.testing.assert_allclose(a.hyper()["mean"] * scale, b.hyper()["mean"], rtol=2e-5)
    np.testing.assert_allclose(a.table()["prob_null"], b.table()["prob_null"], rtol=2e-4)
    np.testing.assert_allclose(a.table()["q50"] * 1e6, b.table()["q50"], rtol=2e-4, atol=100.0)


def test_one_absurd_value_among_many_does_not_become_the_null() -> None:
    """Its density under the null is below the smallest double: logs all the way."""
    x = np.append(np.random.default_rng(0).normal(size=200), 1e4)
    for method in ("full", "empirical"):
        for df in (None, 5.0):
            found = screen(x, df=df, method=method)
            mean = found.hyper()["mean"]
            assert 0.7 < mean["null_sd"] < 1.2 and mean["pi0"] > 0.9
            table = found.table()
            assert np.all(np.isfinite(table))
            # the tail of a t reaches further than a slab that the prior keeps below 8 standard errors
            assert table["prob_null"].iloc[-1] < 0.01 or (df is not None and method == "full")


def test_tied_values_do_not_draw_the_null_onto_themselves() -> None:
    x = np.round(np.random.default_rng(0).normal(0.0, 1.5, 300), 0)
    for method in ("full", "empirical"):
        found = screen(x, method=method)
        assert found.diagnostics.ok and found.hyper().loc["null_sd", "mean"] > 0.5


def test_signs_are_symmetric() -> None:
    x, se, _ = made(300)
    for df in (None, 6.0):
        a = screen(x, se, df=df, null="theoretical").table()
        b = screen(-x, se, df=df, null="theoretical").table()
        np.testing.assert_allclose(a["mean"], -b["mean"], rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(a["q5"], -b["q95"], rtol=1e-5, atol=1e-8)


def test_t_errors_believe_less_of_an_extreme_value() -> None:
    x, _, _ = made(400, equal=True)
    normal, heavy = screen(x, null="theoretical"), screen(x, df=4, null="theoretical")
    at = np.argmax(np.abs(x))
    assert heavy.table()["prob_null"].iloc[at] > normal.table()["prob_null"].iloc[at]
    mixed = screen(x, df=np.where(np.arange(400) < 200, np.inf, 1e9), null="theoretical")
    np.testing.assert_allclose(mixed.table()["prob_null"], normal.table()["prob_null"], atol=2e-3)


# ------------------------------------------------------------------------------------------------------- calibration
def test_simulation_based_calibration() -> None:
    """Truths from the prior, 500 tests each: the posterior CDF at the truth is uniform for every hyperparameter."""
    rng = np.random.default_rng(11)
    priors = default_priors(1.0)
    u: dict[str, list[float]] = {name: [] for name in NAMES}
    for i in range(40):
        truth = {
            "pi0": rng.beta(10.0, 1.0), "slab_sd": 3.0 * np.exp(priors["slab_sd"].base.sd * rng.normal()),
            "null_mean": 0.1 * rng.standard_t(3), "null_sd": np.exp(0.1 * rng.standard_t(3)),
        }  # fmt: skip
        null = rng.random(500) < truth["pi0"]
        x = np.where(null, 0.0, rng.normal(0.0, truth["slab_sd"], 500)) + truth["null_mean"]
        found = screen(x + truth["null_sd"] * rng.normal(size=500), seed=i)
        hyper = found.posterior
        at, dense = (
            None if theta is None else found.learned.hyper.natural(theta)
            for theta in (hyper.theta, None if hyper.surrogate is None else hyper.surrogate.theta)
        )
        for name in NAMES:
            more = None if dense is None else dense[name]
            place = _of_theta(SimpleNamespace(hyper=hyper, sampled=None), name, at[name], more, truth[name])
            u[name].append(_resolved(place.pit, hyper.effective_nodes, rng))
    for name in NAMES:
        assert uniform_p_value(u[name]) > 1e-3, name


def test_pure_noise_is_called_null() -> None:
    for seed in range(3):
        found = screen(np.random.default_rng(seed).normal(size=1000), null="theoretical")
        hyper = found.posterior
        share = float(hyper.weights @ (found.learned.hyper.natural(hyper.theta)["pi0"] > 0.9))
        assert share > 0.85
        assert found.table()["qvalue"].min() > 0.3


def test_an_inflated_null_is_learned_and_a_fixed_one_is_fooled() -> None:
    x, _, null = made(2000, 0.95, 8.0, 1.4, seed=4, equal=True)
    free, held = screen(x), screen(x, null="theoretical")
    row = free.hyper().loc["null_sd"]
    assert row["q5"] < 1.45 and row["q95"] > 1.35
    taken = free.table()["qvalue"].to_numpy() < 0.1
    assert null[taken].mean() < 0.2
    assert held.hyper().loc["pi0", "mean"] < 0.87 < free.hyper().loc["pi0", "mean"]


# --------------------------------------------------------------------------------------------------------- real data
def test_hiv_reaches_the_optimum_that_others_miss(shared_data) -> None:
    """Van 't Wout et al. (2003), 7,680 z-values: point-normal maximum likelihood by two optimisers (EM, BFGS)."""
    z = pd.read_csv(shared_data / "testing" / "hiv_vantwout2003_z.csv")
    found = screen("z", data=z, labels="gene", method="empirical", null="theoretical")
    assert found.log_likelihood == pytest.approx(-10413.545, abs=6e-4)
    estimate = found.hyper()["mean"]
    assert estimate["pi0"] == pytest.approx(0.9902, abs=5e-5) and estimate["slab_sd"] == pytest.approx(2.718, abs=5e-4)
    assert found.diagnostics.ok and not np.any(found.hyper()["sd"])
    mixture = screen("z", data=z, method="empirical", null="theoretical", slab="mixture", priors={"pi0": beta(1, 1)})
    assert mixture.diagnostics.duality_gap < 1e-6 * 7680
    assert mixture.log_likelihood > found.log_likelihood - 0.1  # a grid of sds against the best sd
    free = screen("z", data=z)
    assert free.diagnostics.ok and free.hyper().loc["null_sd", "q95"] < 0.85  # the null is under-dispersed


def test_prostate_runs(shared_data) -> None:
    """Singh et al. (2002), 6,033 genes, as z-values and with standard errors and 100 df."""
    data = pd.read_csv(shared_data / "testing" / "prostate_singh2002_summary.csv")
    z = screen("z", data=data, labels="gene")
    table = z.table()
    assert z.diagnostics.ok and table["prob_null"].idxmin() == 610
    assert 0.6 < z.hyper().loc["pi0", "mean"] < 0.97 and 0.9 < z.hyper().loc["null_sd", "mean"] < 1.1
    t = screen("estimate", "se", data=data, df="df", labels="gene")
    assert t.diagnostics.ok and np.corrcoef(t.table()["lfsr"], table["lfsr"])[0, 1] > 0.8


# ---------------------------------------------------------------------------------------------------- what is said
def test_a_failed_check_is_loud() -> None:
    found = screen(made(100)[0])
    broken = dataclasses.replace(found, posterior=dataclasses.replace(found.posterior, met=False))
    assert "FAILED ITS OWN CHECKS" in str(broken) and not broken.diagnostics.ok
    with pytest.warns(FinettiWarning, match="Monte Carlo error"):
        table = broken.hyper()
    assert "failed its own checks" in table.attrs["warning"]
    assert "All checks passed." in str(found) and "FAILED" not in str(found)


def test_few_tests_are_answered_with_a_warning() -> None:
    with pytest.warns(FinettiWarning, match="only 5 tests"):
        found = screen([0.1, -0.4, 3.0, 0.2, 1.0])
    # beta(10, 1) has the mean 0.909: hardly moved
    assert 0.8 < found.hyper().loc["pi0", "mean"] < 0.95


def test_empirical_at_the_edge_says_so() -> None:
    z = st.norm.ppf((np.arange(100) + 0.5) / 100)
    found = screen(z * 0.9, method="empirical", null="theoretical")
    assert found.hyper()["mean"].to_list() == [1.0, 0.0, 0.0, 1.0]
    assert any("edge of the possible values" in w for w in found.diagnostics.warnings)
    table = found.table()
    assert np.all(table["prob_null"] == 1.0) and np.all(table["mean"] == 0.0)
    with pytest.raises(FinettiError, match="ignores"):
        _ = found.log_evidence
    with pytest.raises(FinettiError, match="log_evidence"):
        _ = screen(z).log_likelihood


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"effect": [1.0, np.nan] * 10}, DataError, "effect is nan in row 1"),
        ({"effect": [1.0, np.inf] * 10}, DataError, "effect is inf in row 1"),
        ({"effect": [1.0] * 20, "se": [1.0] * 19 + [0.0]}, DataError, "must be above zero, but it is 0 in row 19"),
        ({"effect": [1.0] * 20, "se": [-1.0] * 20}, DataError, "20 such rows"),
        ({"effect": [1.0] * 20, "se": [1.0] * 19}, DataError, "20 effects and 19 values of se"),
        ({"effect": [1.0] * 20, "df": [5.0] * 19 + [0.0]}, DataError, "Degrees of freedom must be above zero"),
        ({"effect": [1.0] * 20, "df": np.nan}, DataError, "df is nan"),
        ({"effect": [1.0] * 20, "df": -3}, DataError, "df is -3, but must be above zero"),
        ({"effect": [1.0] * 20, "se": np.inf}, DataError, "se is inf, but must be above zero and finite"),
        ({"effect": [1.0, np.nan], "labels": ["a", "b"]}, DataError, "in row 1 .*'b'; 1 such"),
        ({"effect": [1.0] * 20, "labels": 5}, DataError, "labels=5 must be a column name or one value per test"),
        ({"effect": [1.0] * 20, "df": "many"}, DataError, "names a column, but no table"),
        ({"effect": [0.0] * 20}, DataError, "All effects are exactly zero"),
        ({"effect": [1.0] * 20}, DataError, "same number of standard errors"),
        ({"effect": []}, DataError, "There are no tests"),
        ({"effect": 3.0}, DataError, "a single value"),
        ({"effect": ["a", "b"]}, DataError, "effect"),
        ({"effect": "z", "data": {"y": [1.0, 2.0]}}, DataError, "no column 'z'"),
        ({"effect": [1.0] * 20, "labels": ["a"]}, DataError, "20 effects and 1 labels"),
        ({"effect": [1e200] * 20}, DataError, "change its unit"),
        ({"effect": [1.0] * 20, "null": "empirical"}, ModelError, "null='empirical' is unknown"),
        ({"effect": [1.0] * 20, "slab": "cauchy"}, ModelError, "slab='cauchy' is unknown"),
        ({"effect": [1.0] * 20, "method": "nuts"}, ModelError, "method='nuts' is unknown"),
        ({"effect": [1.0] * 20, "slab": "mixture"}, NotBuiltError, "method='empirical' only"),
        ({"effect": [1.0] * 20, "by": "x"}, DataError, "names a column"),
        ({"effect": [1.0] * 20, "priors": {"pi0": student_t(3, 0, 1)}}, PriorError, "reaches beyond 0 and 1"),
        ({"effect": [1.0] * 20, "priors": {"null_sd": fixed(1)}, "null": "theoretical"}, PriorError, "contradicts"),
    ],
)  # fmt: skip
def test_what_cannot_be_screened_is_refused_in_words(arguments, error, words: str) -> None:
    with pytest.raises(error, match=words):
        screen(**arguments)


def test_effects_of_one_sign_are_noticed() -> None:
    """The symmetric slab bends the null towards them; with the null's mean held it does not, and finds more."""
    rng = np.random.default_rng(5)
    null = rng.random(5000) < 0.9
    b = np.where(null, 0.0, np.abs(rng.normal(0.0, 3.0, 5000)))
    x = b + rng.normal(size=5000)
    free, held = screen(x), screen(x, priors={"null_mean": fixed(0.0)})
    assert any("mostly of one sign" in w and "above" in w for w in free.diagnostics.warnings)
    assert not any("one sign" in w for w in held.diagnostics.warnings)
    assert free.hyper().loc["null_mean", "mean"] > 0.05
    found = [(f.table()["qvalue"].to_numpy() < 0.1) for f in (free, held)]
    assert found[1].sum() > found[0].sum() and null[found[1]].mean() < 0.15
    assert any("below" in w for w in screen(-x).diagnostics.warnings)
    assert not any("one sign" in w for w in screen(made(5000, 0.9)[0]).diagnostics.warnings)
