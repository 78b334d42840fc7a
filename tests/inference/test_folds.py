"""Empirical Bayes by folds against what it stands for: the rows taken out, the likelihood maximised by scipy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import finetti as fi
from finetti.data.variants import without_rows
from finetti.errors import InferenceError
from finetti.inference import folds
from finetti.inference.differences import STEP, derivatives, stencil
from finetti.inference.empirical import maximise
from finetti.inference.folds import reestimated
from finetti.inference.gaussian import GaussianInner
from finetti.inference.left_out import groups_left_out, rows_left_out

SCHOOLS = "effect | se(se) ~ 1 + (1 | school)"
# what the sum over folds may be off by, and what scipy's own stopping leaves in one fold
TOTAL, EACH = 1e-3, 5e-4


def fit(formula, data, **kind):
    return fi.fit(formula, data, pooling="empirical", **kind)


def folds_of(one, name):
    design = one.model.design
    if name is None:
        return [np.array([i]) for i in range(design.y.size)]
    factor = design.factors[one.group_names.index(name)]
    return [np.flatnonzero(factor.index == j) for j in range(len(factor.levels))]


def direct(one, rows):
    """log p(y_I | y_-I, theta) at the maximum of log p(y_-I | theta), by taking the rows out and starting anew."""
    bound = one.inference.bound
    small, full = GaussianInner.build(without_rows(bound, rows)), GaussianInner.build(bound)
    best = maximise(small)
    held = {i: L for i, L in enumerate(best.factors) if full.hyper.factors[i].modelled}
    hyper = full.hyper.hold(held, best.sigma, best.given)
    nothing = np.zeros((1, 0))
    return float(
        (replace(full, hyper=hyper).log_marginal(nothing) - replace(small, hyper=hyper).log_marginal(nothing))[0]
    )


def compare(one, name, every=1):
    found, parts = reestimated(one.inference, name), folds_of(one, name)
    some = list(range(0, len(parts), every))
    expected = np.array([direct(one, parts[i]) for i in some])
    error = found.elpd[some] - expected
    assert found.elpd.shape == (len(parts),)
    assert found.converged.all()
    assert np.abs(error).max() < EACH
    assert abs(error.sum()) < TOTAL * (1.0 if every == 1 else len(some) / len(parts))
    return found


@pytest.fixture(scope="module")
def schools():
    return fi.datasets.load("eight_schools")


def test_a_variance_estimated_at_zero_stays_there_where_it_should(schools):
    one = fit(SCHOOLS, schools)
    assert one.inference.estimate.boundary == ("sd_school[Intercept]",)
    found = compare(one, None)
    assert np.allclose(found.estimates, 0.0)


def test_a_variance_leaves_zero_and_others_reach_it(schools):
    # without school A the spread of these is zero, without another it grows
    wide = schools.assign(effect=[60.0, 8, -3, 7, -1, 1, 18, 12])
    found = compare(fit(SCHOOLS, wide), "school")
    sds = np.abs(found.estimates[:, 0])
    assert sds.min() < 1e-3 < 0.1 < sds.max()


@pytest.mark.parametrize("name", [None, "Batch"])
def test_folds_leave_the_boundary(name):
    one = fit("Yield ~ 1 + (1 | Batch)", fi.datasets.load("dyestuff2"))
    assert one.inference.estimate.boundary
    compare(one, name)


@pytest.mark.parametrize("name", [None, "school"])
def test_known_and_unknown_errors(schools, name):
    data = schools.assign(effect=schools["effect"] * 3, school=list("AABBCCDD"))
    compare(fit("effect | se(se, sigma=True) ~ 1 + (1 | school)", data), name)


@pytest.mark.parametrize(("bars", "name", "every"), [("|", None, 12), ("|", "Subject", 1), ("||", "Subject", 2)])
def test_slopes(bars, name, every):
    one = fit(f"Reaction ~ 1 + Days + (1 + Days {bars} Subject)", fi.datasets.load("sleepstudy"))
    compare(one, name, every)


@pytest.mark.parametrize(("name", "every"), [(None, 16), ("sample", 1), ("plate", 5)])
def test_crossed(name, every):
    compare(fit("diameter ~ 1 + (1 | plate) + (1 | sample)", fi.datasets.load("penicillin")), name, every)


def test_many_rows_need_few_solutions_of_their_own():
    one = fit("log_radon ~ 1 + floor + (1 | county)", fi.datasets.load("radon"))
    found = compare(one, None, 80)
    assert found.evaluations < one.n_rows
    assert 0.0 <= found.error < 1e-3
    compare(one, "county", 12)


def test_rows_that_stand_out_by_themselves():
    """An outlier moves the estimate far: the expansion alone would be wrong there."""
    data = fi.datasets.load("radon").copy()
    data.loc[[3, 500], "log_radon"] = [9.0, -12.0]
    one = fit("log_radon ~ 1 + floor + (1 | county)", data)
    found = reestimated(one.inference)
    for i in (3, 500, 40):
        assert found.elpd[i] == pytest.approx(direct(one, np.array([i])), abs=EACH)


def test_without_a_budget_the_expansion_stands_in_and_says_so(schools):
    data = fi.datasets.load("sleepstudy")
    one = fit("Reaction ~ 1 + Days + (1 + Days | Subject)", data)
    full, quick = reestimated(one.inference), reestimated(one.inference, budget=0.0)
    assert full.converged.all() and not quick.converged.any()
    assert np.isnan(quick.error)
    held = rows_left_out(one.inference.conditional, np.zeros((1, 0)))[0].sum()
    assert abs(quick.elpd.sum() - full.elpd.sum()) < 0.2 * abs(held - full.elpd.sum())


def test_held_hyperparameters_stay_held(schools):
    one = fit(SCHOOLS, schools, priors={"sd": fi.fixed(8.0), "beta[Intercept]": fi.fixed(2.0)})
    found = reestimated(one.inference)
    expected = -0.5 * (
        np.log(2 * np.pi * (64.0 + schools["se"] ** 2)) + (schools["effect"] - 2.0) ** 2 / (64.0 + schools["se"] ** 2)
    )
    np.testing.assert_allclose(found.elpd, expected, rtol=1e-12)
    assert found.estimates.shape == (8, 0)


def test_an_explored_coefficient_is_estimated_anew():
    """A coefficient with a heavy-tailed prior is maximised with the hyperparameters, its prior playing no part."""
    data = fi.datasets.load("sleepstudy")
    one = fit("Reaction ~ 1 + Days + (1 | Subject)", data, priors={"beta[Days]": fi.student_t(3, 0, 10)})
    found = compare(one, "Subject")
    assert "beta[Days]" in found.space.names


def test_a_coefficient_that_is_fixed_is_not_estimated():
    one = fit(
        "Reaction ~ 1 + Days + (1 | Subject)", fi.datasets.load("sleepstudy"), priors={"beta[Days]": fi.fixed(2.0)}
    )
    assert one.summary().loc["beta[Days]", "mean"] == 2.0
    assert "beta[Days]" not in compare(one, "Subject").space.names


def test_what_the_others_cannot_say_is_nan():
    data = {"y": [1.0, 2, 4, 3, 7, 6, 9], "x": [0.0, 0, 0, 0, 0, 0, 1], "g": list("aabbccc")}
    one = fit("y ~ 1 + x + (1 | g)", data, priors={"beta": fi.flat()})
    found = reestimated(one.inference)
    assert np.isnan(found.elpd[6]) and np.isfinite(found.elpd[:6]).all()


def test_a_full_posterior_is_refused(schools):
    with pytest.raises(InferenceError, match="pooling='empirical'"):
        reestimated(fi.fit(SCHOOLS, schools).inference)


def test_nothing_is_refitted_at_the_common_estimate(schools):
    """The folds' scores at the common estimate are those of the fit itself: coordinates mean what they say."""
    one = fit("Reaction ~ 1 + Days + (1 + Days | Subject)", fi.datasets.load("sleepstudy"))
    space, start = folds.FactorSpace.of(one.inference)
    climb = folds._Climb(one.inference, space, "Subject")
    nothing = np.zeros((1, 0))
    np.testing.assert_allclose(
        climb.left_out(start[None]), groups_left_out(one.inference.conditional, "Subject", nothing), rtol=1e-9
    )
    assert climb.inner.log_marginal(start[None])[0] == pytest.approx(one.inference.estimate.log_marginal, abs=1e-7)


def test_differences():
    """Of a function whose derivatives are known."""

    def f(x):
        return np.sin(x[..., 0]) * np.exp(x[..., 1]) + x[..., 0] ** 2 * x[..., 2]

    at = np.array([0.3, -0.2, 0.5])
    value, gradient, hessian = derivatives(f(at + STEP * stencil(3))[None], 3, None)
    a, b, c = at
    s, o, e = np.sin(a), np.cos(a), np.exp(b)
    assert value[0] == f(at)
    np.testing.assert_allclose(gradient[0], [o * e + 2 * a * c, s * e, a * a], rtol=1e-5)
    exact = [[-s * e + 2 * c, o * e, 2 * a], [o * e, s * e, 0.0], [2 * a, 0.0, 0.0]]
    np.testing.assert_allclose(hessian[0], exact, atol=1e-5)
    _, again, kept = derivatives(f(at + STEP * stencil(3, cross=False))[None], 3, hessian)
    np.testing.assert_allclose(again, gradient)
    np.testing.assert_allclose(kept, hessian, atol=1e-6)


def test_a_small_variance_is_not_taken_for_zero(shared_data):
    """At zero the slope in the relative sd vanishes, hill or valley: a climb that touches it must look beside it."""
    found = list(shared_data.glob("*/chem97.csv.gz"))
    if not found:
        pytest.skip("no chem97.csv.gz among the shared data")
    one = fit("score ~ 1 + gcsecnt + (1 | lea/school)", found[0])
    space, best = folds.FactorSpace.of(one.inference)
    inner = replace(one.inference.conditional.inner, hyper=space)
    at = space.names.index("lea factor [0, 0]")
    assert best[at] > 0.03
    beside = np.repeat(best[None], 5, axis=0)
    beside[:, at] = [0.0, 0.03, best[at], 0.08, 0.2]
    assert np.argmax(inner.log_marginal(beside)) == 2


def test_folds_do_not_depend_on_where_a_covariate_is_measured_from() -> None:
    """Days counted from the year 0 are the same days: a correlated term is the same model in every origin."""
    data = fi.datasets.load("sleepstudy")
    data = data[data["Subject"].isin(data["Subject"].unique()[:8])]
    scores, logs = [], []
    for origin in (0.0, 2000.0):
        moved = data.assign(Days=data["Days"] + origin)
        fit = fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", moved, pooling="empirical")
        logs.append(fit.inference.estimate.log_marginal)
        found = [reestimated(fit.inference, name) for name in (None, "Subject")]
        assert all(f.converged.all() for f in found)
        scores.append(np.concatenate([f.elpd for f in found]))
    assert logs[1] == pytest.approx(logs[0], abs=1e-6)
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-3)
