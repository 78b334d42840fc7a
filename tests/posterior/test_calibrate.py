"""`fi.calibrate`: right models pass, planted bugs are caught and named, and what cannot be checked is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtr

import finetti as fi
from finetti.errors import FinettiError, InferenceError, ModelError, PriorError
from finetti.inference.infer import infer
from finetti.posterior import calibration
from finetti.posterior.calibration import COARSE, Calibration
from finetti.posterior.calibration_table import calibration_table
from finetti.posterior.positions import positions
from finetti.posterior.simulate import draw_prior, simulate, slim

SLEEP = "Reaction ~ 1 + Days + (1 + Days | Subject)"
SCHOOLS = "effect | se(se) ~ 1 + (1 | school)"
SCHOOL_PRIORS = {"Intercept": fi.normal(0, 10), "sd": fi.half_cauchy(5)}


def schools(n_sims: int = 20, **options: Any) -> Calibration:
    """Eight schools with few simulations, in this process."""
    options = {"priors": SCHOOL_PRIORS, "n_jobs": 1, **options}
    return fi.calibrate(SCHOOLS, fi.datasets.load("eight_schools"), n_sims, **options)


@pytest.fixture(scope="module")
def sleep() -> Calibration:
    """Calibrate random slopes on the sleep study's design."""
    return fi.calibrate(SLEEP, fi.datasets.load("sleepstudy"), 60, seed=4)


def test_random_slopes_are_calibrated(sleep):
    assert sleep.ok, str(sleep)
    assert list(sleep.table.index) == [
        "beta[Intercept]", "beta[Days]", "sd_Subject[Intercept]", "sd_Subject[Days]", "cor_Subject[Intercept, Days]",
        "sigma", "group Subject[Intercept]", "group Subject[Days]",
    ]  # fmt: skip
    assert sleep.pit.shape == sleep.truth.shape == (60, 8)
    assert sleep.pit.to_numpy().min() > 0.0
    assert sleep.pit.to_numpy().max() < 1.0
    assert np.all(np.abs(sleep.table["mean_z"]) < 4 / np.sqrt(60))
    assert np.all(np.abs(sleep.table["cover_90"] - 0.9) < 4 * sleep.table["cover_90_se"])
    # the data say nearly all there is to say of sigma, and less of a correlation
    assert sleep.table.loc["sigma", "contraction"] > 0.98
    assert 0.2 < sleep.table.loc["cor_Subject[Intercept, Days]", "contraction"] < 0.9
    text = str(sleep)
    assert "Calibrated: all 8 parameters" in text
    assert "60 simulations would have noticed" in text


def test_a_one_way_model_with_half_cauchy():
    result = schools(100, seed=1)
    assert result.ok, str(result)
    assert len(result.table) == 3
    assert (result.table["n"] == 100 - len(result.failed)).all()


def test_a_planted_bug_is_caught(monkeypatch):
    """Errors half as large again as the model says: the posterior of sigma lies where they are, above the truth."""

    def noisier(bound, values, rng):
        made = simulate(bound, {**values, "sigma": 1.5 * values["sigma"]}, rng)
        return made._replace(truth={**made.truth, "sigma": values["sigma"]})

    monkeypatch.setattr(calibration, "simulate", noisier)
    result = fi.calibrate("Yield ~ 1 + (1 | Batch)", fi.datasets.load("dyestuff"), 60, n_jobs=1)
    assert not result.ok
    assert result.table.loc["sigma", "verdict"] == "too high"
    assert result.table.loc["sigma", "p_adjusted"] < 1e-6
    assert result.advice[0].startswith("NOT CALIBRATED: posteriors of sigma are too high")


def test_too_narrow_posteriors_are_named():
    """Known errors stated at 60 % of what they are."""
    bound = slim(fi.Model(SCHOOLS, priors=SCHOOL_PRIORS).bind(fi.datasets.load("eight_schools")))
    wrong = replace(bound, design=replace(bound.design, se=0.6 * bound.design.se))
    rng, rows = np.random.default_rng(0), []
    for _ in range(60):
        made = simulate(bound, draw_prior(bound, rng), rng)
        inference = infer(replace(wrong, design=replace(wrong.design, y=made.y)), "exact", settings=COARSE)
        rows.append({k: p.pit for k, p in positions(inference, made, rng).items()})
    pit = pd.DataFrame(rows)
    table = calibration_table(pit, pit, {c: pit[c].to_numpy() for c in pit})
    assert table.loc["group school[Intercept]", "verdict"] == "too narrow"


def test_positions_agree_with_quantiles():
    """The CDF at a quantile of the summary is its probability."""
    bound = slim(fi.Model(SLEEP).bind(fi.datasets.load("sleepstudy")))
    fit = fi.fit(SLEEP, fi.datasets.load("sleepstudy"))
    made = simulate(bound, draw_prior(bound, np.random.default_rng(0)), np.random.default_rng(0))
    groups = fit.groups("Subject", (0.2, 0.9))
    for column, p in (("q20", 0.2), ("q90", 0.9)):
        truth = fit.summary((0.2, 0.9))[column].to_dict()
        rng = np.random.default_rng(3)
        level = int(np.random.default_rng(3).integers(18))  # the first number that is drawn
        whole = groups[groups["level"] == fit.model.design.factors[0].levels[level]][column].to_numpy()
        u = np.zeros((18, 2))
        u[level] = whole - [truth["beta[Intercept]"], truth["beta[Days]"]]
        found = positions(fit.inference, made._replace(truth=truth, u={"Subject": u}), rng)
        for label, position in found.items():
            # mixtures are exact; weighted nodes to their Monte Carlo error, groups to that of the nodes chosen
            close = 1e-6 if label.startswith("beta") else 0.03
            assert position.pit == pytest.approx(p, abs=close), label


def test_tails_are_as_fine_as_the_nodes():
    """Truths far out are somewhere in the last cell, and never at 0 or 1."""
    bound = slim(fi.Model(SCHOOLS, priors=SCHOOL_PRIORS).bind(fi.datasets.load("eight_schools")))
    made = simulate(bound, draw_prior(bound, np.random.default_rng(0)), np.random.default_rng(0))
    inference = infer(bound, "exact")
    far = made._replace(truth={"beta[Intercept]": -1e4, "sd_school[Intercept]": 1e9})
    rng, cell = np.random.default_rng(0), 1.0 / (1.0 + inference.hyper.effective_nodes)
    low = np.array([positions(inference, far, rng)["beta[Intercept]"].pit for _ in range(50)])
    high = np.array([positions(inference, far, rng)["sd_school[Intercept]"].pit for _ in range(50)])
    assert 0.0 < low.min() < 0.2 * cell < 0.8 * cell < low.max() < cell
    assert 1.0 - cell < high.min() < high.max() < 1.0


def test_formula_model_and_fit_are_one():
    data = fi.datasets.load("eight_schools")
    a = schools()
    b = fi.calibrate(fi.Model(SCHOOLS, priors=SCHOOL_PRIORS), data, 20, n_jobs=1)
    c = fi.calibrate(fi.fit(SCHOOLS, data, priors=SCHOOL_PRIORS), n_sims=20, n_jobs=1)
    pd.testing.assert_frame_equal(a.pit, b.pit)
    pd.testing.assert_frame_equal(a.pit, c.pit)
    d = schools(seed=1)
    assert not np.allclose(a.pit, d.pit)
    # the first simulations do not depend on how many follow
    assert np.allclose(schools(25).pit[:20], a.pit, rtol=1e-9)


def test_the_same_on_any_number_of_processes():
    seen: list[tuple[str, int, int | None]] = []
    one = schools(24, progress=lambda *a: seen.append(a))
    two = schools(24, n_jobs=2)
    pd.testing.assert_frame_equal(one.pit, two.pit, rtol=1e-9)
    assert seen[-1] == ("fitting simulated data", 24, 24)


def test_a_meta_analysis_and_its_known_covariance():
    data = fi.datasets.load("eight_schools")
    fit = fi.meta(data["effect"], data["se"], priors={"Intercept": fi.normal(0, 20), "sd": fi.half_normal(10)})
    assert fi.calibrate(fit, n_sims=20, n_jobs=1).ok


def test_held_and_complete_parameters_are_not_checked():
    data = pd.DataFrame({"y": np.random.default_rng(0).normal(size=30), "g": list("abcde") * 6, "h": list("pq") * 15})
    priors = {"sd_g": fi.fixed(1), "sigma": fi.fixed(2)}
    held = fi.calibrate("y ~ 1 + (1 | g)", data, 60, priors=priors, n_jobs=1)
    assert list(held.table.index) == ["beta[Intercept]", "group g[Intercept]"]
    assert held.ok, str(held)
    model = fi.Model("y ~ 1 + (1 | g) + (1 | h)", pooling={"h": "complete"})
    result = fi.calibrate(model, data, 20, n_jobs=1)
    assert "sd_h[Intercept]" not in result.table.index
    assert "group h[Intercept]" not in result.table.index


def test_what_the_data_do_not_touch_is_said():
    data = pd.DataFrame({"y": np.random.default_rng(0).normal(size=4), "se": [5.0] * 4, "g": list("aabb")})
    priors = {"Intercept": fi.normal(0, 1), "sd": fi.half_normal(0.1)}
    result = fi.calibrate("y | se(se) ~ 1 + (1 | g)", data, 60, priors=priors, n_jobs=1)
    assert result.table.loc["sd_g[Intercept]", "contraction"] < 0.1
    assert any("next to nothing about" in line and "sd_g[Intercept]" in line for line in result.advice)


def test_failures_are_counted_and_said(monkeypatch):
    def fails_at_times(bound, method="exact", seed=0, settings=None):
        if bound.design.y[0] > 15.0:
            raise InferenceError("the model fits the response exactly")
        return infer(bound, method, seed, settings=settings)

    monkeypatch.setattr(calibration, "infer", fails_at_times)
    result = schools(100)
    k = len(result.failed)
    assert 5 < k < 95
    assert (result.failed == "the model fits the response exactly").all()
    assert result.pit.isna().any(axis=1).sum() == k
    assert (result.table["n"] == 100 - k).all()
    assert not result.truth.loc[result.failed.index, "beta[Intercept]"].isna().any()
    # whether it fails depends on y alone, so the others are still uniform; but the check is incomplete
    assert (result.table["p_adjusted"] > 0.01).all()
    assert not result.ok
    assert any(line.startswith(f"{k} of 100 simulated data sets could not be fitted") for line in result.advice)
    assert any("incomplete" in line for line in result.advice)
    monkeypatch.setattr(calibration, "infer", _refuse)
    with pytest.raises(FinettiError, match="none of 20 data sets"):
        schools()


def _refuse(*args, **options):
    raise InferenceError("no")


def test_requests_that_cannot_be_met():
    data = fi.datasets.load("eight_schools")
    with pytest.raises(PriorError, match=r"Intercept ~ flat\(\).*half_normal"):
        schools(priors={"Intercept": fi.flat(), "sd": fi.half_cauchy(5)})
    with pytest.raises(PriorError, match="improper"):
        schools(priors={"sd": fi.uniform()})
    for pooling, words in (("none", "not pooled"), ("empirical", "coverage")):
        with pytest.raises(ModelError, match=words):
            fi.calibrate(fi.Model(SCHOOLS, pooling=pooling), data)
    with pytest.raises(FinettiError, match="needs data"):
        fi.calibrate(SCHOOLS)
    with pytest.raises(FinettiError, match="neither a formula"):
        fi.calibrate(3, data)
    with pytest.raises(ModelError, match="a Model was given"):
        fi.calibrate(fi.Model(SCHOOLS), data, priors=SCHOOL_PRIORS)
    with pytest.raises(FinettiError, match="a Fit was given"):
        fi.calibrate(fi.fit(SCHOOLS, data), data)
    with pytest.raises(FinettiError, match="n_sims"):
        schools(5)
    with pytest.raises(FinettiError, match="n_jobs"):
        schools(n_jobs=0)
    with pytest.raises(FinettiError, match="seed"):
        schools(seed=-1)
    with pytest.raises(FinettiError, match="progress"):
        schools(progress=3)


def test_verdicts():
    z = np.random.default_rng(0).normal(size=400)
    z = (z - z.mean()) / z.std()
    for scores, verdict in (
        (1.5 * z, "too narrow"),
        (0.6 * z, "too wide"),
        (z + 0.4, "too low"),
        (z - 0.4, "too high"),
    ):
        pit = pd.DataFrame({"sigma": ndtr(scores)})
        assert calibration_table(pit, pit, {c: pit[c].to_numpy() for c in pit})["verdict"].item() == verdict
