"""Four analyses of the same groups: each against its own fit or its closed form, scores against brute force."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest

import finetti as fi
from finetti.errors import FinettiError
from finetti.posterior.pooling import Pooling
from finetti.posterior.pooling_scores import ANALYSES

SCHOOLS = "effect | se(se) ~ 1 + (1 | school)"
SLOPES = "Reaction ~ 1 + Days + (1 + Days | Subject)"


@pytest.fixture(scope="module")
def schools():
    return fi.datasets.load("eight_schools")


@pytest.fixture(scope="module")
def school_fit(schools):
    return fi.fit(SCHOOLS, schools, priors={"Intercept": fi.normal(0, 20), "sd": fi.half_cauchy(5)})


@pytest.fixture(scope="module")
def sleep():
    return fi.fit(SLOPES, fi.datasets.load("sleepstudy"))


@pytest.fixture(scope="module")
def radon():
    return fi.fit("log_radon ~ 1 + floor + (1 | county)", fi.datasets.load("radon"))


def log_normal(y, mean, variance):
    return -0.5 * (np.log(2 * np.pi * variance) + (y - mean) ** 2 / variance)


def test_eight_schools_in_closed_form(school_fit, schools):
    table = school_fit.pooling("school")
    y, se = (schools[c].to_numpy(float) for c in ("effect", "se"))
    assert table["level"].tolist() == list("ABCDEFGH")
    np.testing.assert_allclose(table["no_pooling"], y, rtol=1e-10)
    np.testing.assert_allclose(table["no_pooling_sd"], se, rtol=1e-10)
    np.testing.assert_allclose(table["no_pooling_length"], 2 * 1.6448536 * se, rtol=1e-6)
    precision = np.sum(se**-2.0) + 20.0**-2
    common = np.sum(y / se**2) / precision
    for analysis in ("complete_pooling", "empirical_bayes"):  # the estimate of sd_school is zero
        np.testing.assert_allclose(table[analysis], common, rtol=1e-9)
        np.testing.assert_allclose(table[f"{analysis}_sd"], precision**-0.5, rtol=1e-9)
    full = school_fit.groups("school")
    np.testing.assert_allclose(table["full_bayes"], full["mean"], rtol=1e-12)
    np.testing.assert_allclose(table["full_bayes_sd"], full["sd"], rtol=1e-12)
    np.testing.assert_allclose(table[["full_bayes_low", "full_bayes_high"]], full[["q5", "q95"]], rtol=1e-12)


def test_scores_of_eight_schools(school_fit, schools):
    """One row per group: rows and groups left out are the same; complete pooling in closed form."""
    scores = school_fit.pooling("school").scores
    y, se = (schools[c].to_numpy(float) for c in ("effect", "se"))
    assert scores.index.tolist() == list(ANALYSES)
    expected = 0.0
    for i in range(8):
        others = np.arange(8) != i
        precision = np.sum(se[others] ** -2.0) + 20.0**-2
        mean = np.sum(y[others] / se[others] ** 2) / precision
        expected += log_normal(y[i], mean, se[i] ** 2 + 1 / precision)
    assert scores.loc["no_pooling", "logo"] == -np.inf
    assert np.isnan(scores.loc["no_pooling", "loo"])
    for kind in ("loo", "logo"):
        assert scores.loc["complete_pooling", kind] == pytest.approx(expected, abs=1e-9)
        assert scores.loc["empirical_bayes", kind] == pytest.approx(expected, abs=1e-6)
        assert -2.0 < scores.loc["full_bayes", kind] - expected < 0.0
    assert scores["loo_shared"].isna().all()


def test_each_column_is_a_fit_of_its_own(sleep):
    table = sleep.pooling("Subject")
    data = fi.datasets.load("sleepstudy")
    for analysis, kind in (("no_pooling", "none"), ("complete_pooling", "complete"), ("empirical_bayes", "empirical")):
        mine = fi.fit(SLOPES, data, pooling=kind).groups("Subject")
        np.testing.assert_allclose(table[analysis], mine["mean"], rtol=1e-7)
        np.testing.assert_allclose(table[f"{analysis}_sd"], mine["sd"], rtol=1e-5)
    # each subject alone is a straight line
    for level, part in data.groupby("Subject"):
        line = np.polyfit(part["Days"], part["Reaction"], 1)
        mine = table[table["level"] == str(level)]["no_pooling"].to_numpy()
        np.testing.assert_allclose(mine, line[::-1], rtol=1e-8)


def test_scores_are_those_of_the_fits(sleep):
    scores = sleep.pooling("Subject").scores
    data = fi.datasets.load("sleepstudy")
    assert scores.loc["full_bayes", "loo"] == pytest.approx(sleep.loo().elpd_loo)
    assert scores.loc["full_bayes", "logo"] == pytest.approx(sleep.logo("Subject").elpd_logo)
    complete, none = (fi.fit(SLOPES, data, pooling=kind) for kind in ("complete", "none"))
    assert scores.loc["complete_pooling", "loo"] == pytest.approx(complete.loo().elpd_loo, abs=0.02)
    assert scores.loc["complete_pooling", "logo"] == pytest.approx(complete.logo("Subject").elpd_logo, abs=0.05)
    assert scores.loc["no_pooling", "loo"] == pytest.approx(none.loo().elpd_loo, abs=0.05)
    assert scores.loc["no_pooling", "logo"] == -np.inf
    # held at the estimate from all rows, empirical Bayes would flatter itself
    held = fi.fit(SLOPES, data, pooling="empirical")
    assert scores.loc["empirical_bayes", "loo"] < held.loo().elpd_loo - 1.0
    assert scores.loc["empirical_bayes", "logo"] < held.logo("Subject").elpd_logo - 1.0
    assert scores.loc["complete_pooling", "loo_diff"] == pytest.approx(
        scores["loo"].max() - scores.loc["complete_pooling", "loo"]
    )
    assert scores["loo_diff"].min() == 0.0 == scores.loc[scores["loo"].idxmax(), "loo_dse"]


def test_other_terms_keep_theirs():
    data = fi.datasets.load("penicillin")
    fit = fi.fit("diameter ~ 1 + (1 | plate) + (1 | sample)", data)
    table = fit.pooling("sample")
    mine = fi.fit("diameter ~ 1 + (1 | plate) + (1 | sample)", data, pooling={"sample": "none"}).groups("sample")
    np.testing.assert_allclose(table["no_pooling"], mine["mean"], rtol=1e-6)
    scores = table.scores
    assert scores["logo"].drop("no_pooling").notna().all()
    assert scores.loc["complete_pooling", "loo_diff"] > 100.0


def test_rows_that_no_pooling_cannot_predict(radon):
    table = radon.pooling("county")
    single = table["n"] == 1
    assert table["no_pooling"].notna().all()
    scores = table.scores
    assert np.isnan(scores.loc["no_pooling", "loo"])
    assert np.isfinite(scores["loo_shared"]).all()
    others = radon.model.design.factors[0].index
    alone = np.isin(others, np.flatnonzero(single))
    assert scores.loc["full_bayes", "loo_shared"] == pytest.approx(radon.loo().loo_i[~alone].sum())
    assert any(f"{alone.sum()} of 919 rows alone determine" in note for note in table.notes)


def test_coefficients_that_a_group_does_not_determine():
    data = {
        "y": [1.0, 2, 4, 3, 7, 6, 5, 4, 4.5, 6, 8, 7],
        "x": [0.0, 1, 2, 0, 0, 0, 1, 2, 3, 4, 1, 3],
        "g": list("aaabbbcccddd"),
    }
    table = fi.fit("y ~ 1 + x + (1 + x | g)", data).pooling("g")
    unknown = table[(table["level"] == "b") & (table["coefficient"] == "x")]
    ends = ["no_pooling", "no_pooling_sd", "no_pooling_low", "no_pooling_high", "no_pooling_length"]
    assert unknown[ends].isna().all(axis=None)
    assert table["full_bayes"].notna().all() and table["no_pooling"].isna().sum() == 1
    assert any("1 of 4 levels of g do not determine x, NaN: b" in note for note in table.table_notes)


def test_saturated_without_pooling(schools):
    table = fi.fit("effect ~ 1 + (1 | school)", schools).pooling("school")
    assert table["no_pooling"].isna().all() and table["full_bayes"].notna().all()
    assert "leaves no row over to tell sigma from" in table.table_notes[0]
    assert np.isnan(table.scores.loc["no_pooling", "loo"])


def test_overlapping_unpooled_terms():
    data = {"y": np.arange(12.0) ** 1.3, "a": list("aaaabbbbcccc"), "b": list("aabbccddeeff")}
    fit = fi.fit("y ~ 1 + (1 | a) + (1 | b)", data, pooling={"b": "none"})
    table = fit.pooling("a")
    assert table["no_pooling"].isna().all()
    assert table.table_notes[0].startswith("no pooling could not be computed: ")
    assert np.isfinite(table.scores.loc["full_bayes", "loo"])


def test_no_population_column():
    data = {"y": [1.0, 2, 4, 3, 7, 6, 5, 4, 4.5], "x": [0.0, 1, 2, 0, 3, 1, 1, 2, 3], "g": list("aaabbbccc")}
    table = fi.fit("y ~ 1 + (1 + x || g)", data).pooling("g")
    assert (table.loc[table["coefficient"] == "x", "complete_pooling"] == 0.0).all()
    assert any("no x, which is then zero" in note for note in table.table_notes)


def test_of_an_empirical_fit_the_columns_are_the_same(sleep):
    one = fi.fit(SLOPES, fi.datasets.load("sleepstudy"), pooling="empirical").pooling("Subject")
    other = sleep.pooling("Subject")
    pd.testing.assert_frame_equal(pd.DataFrame(one), pd.DataFrame(other), rtol=1e-6)


def test_intervals_of_another_length(school_fit):
    table = school_fit.pooling("school", probs=(0.25, 0.75))
    np.testing.assert_allclose(table["no_pooling_length"], 2 * 0.6744898 * table["no_pooling_sd"], rtol=1e-6)
    assert table.about.share == 0.5


def test_a_part_of_the_table_keeps_its_scores(school_fit):
    table = school_fit.pooling("school")
    part = table[table["level"] == "A"].head(1)
    assert isinstance(part, Pooling)
    pd.testing.assert_frame_equal(part.scores, table.scores)
    alone = copy.deepcopy(table._parts)  # as pickle does it: without the fits
    assert alone._fits == {} and alone.verdict + alone.notes != ()
    pd.testing.assert_frame_equal(alone.scores, table.scores)
    mine = table.scores
    mine.loc["no_pooling", "loo"] = 0.0
    assert np.isnan(table.scores.loc["no_pooling", "loo"])


def test_of_a_sampled_and_a_loaded_fit(schools, school_fit, tmp_path):
    sampled = fi.fit(SCHOOLS, schools, priors={"Intercept": fi.normal(0, 20), "sd": fi.half_cauchy(5)}, method="nuts")
    one, other = sampled.pooling("school"), school_fit.pooling("school")
    np.testing.assert_allclose(one["full_bayes"], other["full_bayes"], atol=0.6)
    np.testing.assert_allclose(one["no_pooling"], other["no_pooling"])
    assert one.scores.loc["full_bayes", "loo"] == pytest.approx(other.scores.loc["full_bayes", "loo"], abs=0.1)
    loaded = fi.load(school_fit.save(tmp_path / "fit.nc")).pooling("school")
    pd.testing.assert_frame_equal(pd.DataFrame(loaded), pd.DataFrame(other), rtol=1e-6)


def test_meta():
    fit = fi.meta([0.4, 0.1, 0.3, -0.2], [0.1, 0.1, 0.2, 0.1])
    table = fit.pooling()
    np.testing.assert_allclose(table["no_pooling"], [0.4, 0.1, 0.3, -0.2])


def test_bad_requests(school_fit, schools):
    with pytest.raises(FinettiError, match="did you mean 'school'"):
        school_fit.pooling("schol")
    with pytest.raises(FinettiError, match="both ends"):
        school_fit.pooling("school", probs=(0.5,))
    with pytest.raises(FinettiError, match="no grouping terms"):
        fi.fit("effect | se(se) ~ 1", schools).pooling("school")


def test_one_level_has_no_groups_to_leave_out():
    data = {"y": [1.0, 2, 4, 3, 7, 6, 5, 4], "g": list("aaaabbbb"), "h": list("abcdabcd")}
    fit = fi.fit("y ~ 1 + (1 | g) + (1 | h)", data)
    small = fit.pooling("g")
    assert np.isfinite(small.scores.loc["full_bayes", "logo"]) or any("logo" in note for note in small.notes)
