"""Whole fits against quadrature over the dense oracle: every mean, sd and quantile that users read, and the evidence.

The tolerance of a number is what the fit promises: 2 % of a posterior sd for means and sds, 5 % for quantiles of theta
(upper 90 % bounds), several times over for the many comparisons, plus the reference's own error.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

import finetti as fi
import finetti.posterior.draws as draws_module
from finetti.errors import PriorError
from finetti.posterior.fit import Fit
from tests.oracle_references import REFERENCES, reference

# mean and sd: three and a half standard errors at the 2 % target's bound; quantiles are noisier
MEAN, QUANTILE = 3.5 * 0.02 / 1.325, 3.5 * 0.05 / 1.325
CAUCHY = ("eight_schools", "eight_schools_flat")  # sd of sd_school: heavy tails


@functools.cache
def fitted(name: str) -> Fit:
    ref = REFERENCES[name]
    return fi.fit(ref.formula, fi.datasets.load(ref.dataset), priors=ref.finetti_priors(), seed=3)


def names() -> list[str]:
    return [n for n in REFERENCES if n != "eight_schools_flat"]


@pytest.mark.parametrize("name", names())
def test_the_fit_passes_its_checks(name: str) -> None:
    assert fitted(name).diagnostics.ok, fitted(name).diagnostics.warnings


@pytest.mark.parametrize("name", names())
def test_the_summary_is_the_quadratures(name: str) -> None:
    table, exact = fitted(name).summary(), reference(name).table
    checked = 0
    for label, row in table.iterrows():
        true = exact[str(label)]
        sd = true["sd"]
        for column in ("mean", "sd", "q5", "q50", "q95"):
            if np.isnan(row[column]):  # a moment that does not exist
                assert name in CAUCHY and column in ("mean", "sd")
                continue
            bound = MEAN if column in ("mean", "sd") else QUANTILE
            assert abs(row[column] - true[column]) < bound * sd, (label, column, row[column], true[column])
            checked += 1
        assert row["mcse"] < 0.03 * sd or np.isnan(row["mcse"])
    assert checked >= 5 * len(table) - 2


@pytest.mark.parametrize("name", names())
def test_reported_errors_hold(name: str) -> None:
    """Means of four seeds, each within what it reports: a t of 15 df at 1e-4 over all."""
    from scipy.stats import t

    ref, exact = REFERENCES[name], reference(name).table
    data, scores = fi.datasets.load(ref.dataset), []
    for seed in range(4):
        table = fi.fit(ref.formula, data, priors=ref.finetti_priors(), seed=seed).summary()
        for label, row in table.iterrows():
            if np.isfinite(row["mean"]) and np.isfinite(row["mcse"]):
                true = exact[str(label)]
                scores.append((row["mean"] - true["mean"]) / np.hypot(row["mcse"], 1e-4 * true["sd"]))
    assert np.abs(scores).max() < t(15).isf(0.5e-4 / len(scores)), np.round(scores, 1)


@pytest.mark.parametrize("name", names())
def test_groups_are_the_quadratures(name: str) -> None:
    """The whole coefficient of every level: mean, sd and quantiles of the mixture."""
    fit, exact = fitted(name), reference(name).table
    for group in fit.group_names:
        for _, row in fit.groups(group).iterrows():
            label = f"[{row['level']}, {row['coefficient']}]"
            true = exact.get(f"theta_{group}{label}") or exact[f"u_{group}{label}"]
            for column in ("mean", "sd", "q5", "q50", "q95"):
                bound = MEAN if column in ("mean", "sd") else QUANTILE
                assert abs(row[column] - true[column]) < bound * true["sd"], (group, label, column)


@pytest.mark.parametrize("source", ["surrogate", "nodes"])
@pytest.mark.parametrize("name", names())
def test_draws_are_draws_from_it(name: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """4,000 draws of every parameter: mean and three quantiles in binomial standard errors, stratified or not."""
    if source == "nodes":
        monkeypatch.setattr(draws_module, "GOOD_SURROGATE", -1.0)
    fit, exact = Fit(fitted(name).inference, 4000, 1), reference(name).table
    labels = [*fit.summary().index, *fit._coefficient_places]
    scores = []
    for label in labels:
        x, true = fit.draws(label), exact[label]
        assert x.shape == (4000,)
        for p, q in ((0.05, "q5"), (0.5, "q50"), (0.95, "q95")):
            # the error target of theta adds to that of the draws
            tolerance = np.hypot(np.sqrt(p * (1 - p) / 4000), 0.05 * 0.4 / 1.325)
            scores.append((np.mean(x <= true[q]) - p) / tolerance)
        if label not in ("sigma",) and name not in CAUCHY:
            scores.append((x.mean() - true["mean"]) / (true["sd"] * np.hypot(1 / np.sqrt(4000), 0.02 / 1.325)))
    assert np.abs(scores).max() < 5.0


@pytest.mark.parametrize("name", names())
def test_the_evidence_is_the_quadratures(name: str) -> None:
    got = fitted(name).evidence()
    assert 0 < got.mcse < 0.05
    assert abs(got.log - reference(name).log_evidence) < 6.0 * got.mcse + 1e-4


def test_dyestuff2_does_not_collapse_to_zero() -> None:
    """REML says exactly zero; the posterior keeps its mass away from it and says how much it does not know."""
    fit, exact = fitted("dyestuff2"), reference("dyestuff2").table
    row = fit.summary().loc["sd_Batch[Intercept]"]
    assert row["q5"] > 0 and row["q50"] > 0.5 and row["mean"] > 0.8
    assert row["q95"] == pytest.approx(exact["sd_Batch[Intercept]"]["q95"], rel=0.05)
    assert (fit.draws("sd_Batch[Intercept]") > 0).all()
    weights = fit.groups("Batch")["weight"]
    assert ((weights > 0.02) & (weights < 0.9)).all()


def test_flat_hyperpriors_on_eight_schools_lose_their_moments_not_their_quantiles() -> None:
    """BDA3 5.5 with uniform(0, inf) on tau: p(tau | y) falls as tau^-7 or so; quantiles are the quadrature's."""
    fit, exact = fitted("eight_schools_flat"), reference("eight_schools_flat").table
    row, true = fit.summary().loc["sd_school[Intercept]"], exact["sd_school[Intercept]"]
    for q in ("q5", "q50", "q95"):
        assert abs(row[q] - true[q]) < QUANTILE * true["sd"]
    with pytest.raises(PriorError, match="improper"):
        fit.evidence()


def test_the_posterior_dataset_holds_the_same_draws() -> None:
    fit = fitted("sleepstudy")
    p = fit.posterior
    assert (p.sizes["chain"], p.sizes["draw"], p.sizes["Subject"]) == (4, 1000, 18)
    np.testing.assert_array_equal(p["sigma"].values.ravel(), fit.draws("sigma"))
    u = p["u_Subject"].sel(Subject="308", Subject_coefficient="Days").values.ravel()
    np.testing.assert_array_equal(u, fit.draws("u_Subject[308, Days]"))
    np.testing.assert_array_equal(p["beta"].sel(coefficient="Days").values.ravel(), fit.draws("beta[Days]"))
    np.testing.assert_array_equal(p["cor_Subject"].values.ravel(), fit.draws("cor_Subject[Intercept, Days]"))
    assert np.all(np.abs(p["cor_Subject"]) < 1) and np.all(p["sd_Subject"] > 0)


def test_joint_draws_keep_the_dependence_between_coefficients_and_hyperparameters() -> None:
    """Deviations drawn apart from their sd would not know how large they may be."""
    fit = fitted("eight_schools")
    tau = fit.draws("sd_school[Intercept]")
    u = fit.posterior["u_school"].values.reshape(4000, -1)
    small, large = tau < np.quantile(tau, 0.25), tau > np.quantile(tau, 0.75)
    assert np.abs(u[small]).mean() < 0.25 * np.abs(u[large]).mean()
