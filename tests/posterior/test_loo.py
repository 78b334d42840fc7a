"""Leave-one-out over rows and groups: quadrature, real refits, ArviZ, and what cannot be predicted."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import halfcauchy, norm

import finetti as fi
from finetti.data.variants import without_rows
from finetti.errors import FinettiError
from finetti.inference.infer import infer
from finetti.posterior.left_out import leave_groups, leave_rows

SCHOOLS = "effect | se(se) ~ 1 + (1 | school)"
RADON = "log_radon ~ 1 + floor + (1 | county)"


@pytest.fixture(scope="module")
def schools() -> fi.Fit:
    priors = {"Intercept": fi.normal(0, 20), "sd": fi.half_cauchy(5)}
    return fi.fit(SCHOOLS, fi.datasets.load("eight_schools"), priors=priors)


@pytest.fixture(scope="module")
def radon() -> fi.Fit:
    return fi.fit(RADON, fi.datasets.load("radon"))


def schools_by_quadrature() -> np.ndarray:
    """log p(y_j | y_-j) on a fine grid of tau = 5 sinh(z), mu integrated out in closed form, 5 the prior's scale."""
    data = fi.datasets.load("eight_schools")
    y, s = data["effect"].to_numpy(float), data["se"].to_numpy(float)
    z = np.linspace(0.0, 12.0, 40_001)
    tau = 5.0 * np.sinh(z)
    log_w = halfcauchy(0, 5).logpdf(tau) + np.log(5.0 * np.cosh(z))

    def log_p(keep: np.ndarray) -> np.ndarray:
        v = s[keep] ** 2 + tau[:, None] ** 2  # y ~ N(mu, v), mu ~ N(0, 20^2)
        precision = 1 / 400 + np.sum(1 / v, axis=1)
        mean = np.sum(y[keep] / v, axis=1) / precision
        quad = np.sum(y[keep] ** 2 / v, axis=1) - precision * mean**2
        return -0.5 * (
            keep.sum() * np.log(2 * np.pi) + np.sum(np.log(v), axis=1) + np.log(400) + np.log(precision) + quad
        )

    everything = np.ones(8, dtype=bool)
    total = logsumexp(log_w + log_p(everything))
    return np.array([total - logsumexp(log_w + log_p(np.arange(8) != j)) for j in range(8)])


def test_eight_schools_against_quadrature(schools: fi.Fit) -> None:
    expected = schools_by_quadrature()
    rows, groups = schools.loo(), schools.logo("school")
    np.testing.assert_allclose(rows.loo_i, expected, atol=2e-3)
    np.testing.assert_allclose(groups.logo_i, expected, atol=2e-3)
    assert rows.elpd_loo == pytest.approx(expected.sum(), abs=5e-3)
    assert rows.se == pytest.approx(np.sqrt(8 * expected.var()), abs=2e-3)
    assert not rows.warning
    assert not rows.refitted
    assert np.all(rows.pareto_k < rows.good_k)
    assert "8 rows" in str(rows)
    assert "8 levels of school" in str(groups)


def test_p_loo_is_what_the_rows_gain_by_being_there(schools: fi.Fit) -> None:
    """In-sample density by mixing over nodes the conditional normals of y_i given y, computed from predictions."""
    prediction = schools.inference.conditional.rows(schools.inference.hyper.theta)
    y = schools.model.design.y
    parts = [norm(b.mean, np.sqrt(b.variance + b.noise)).logpdf(y) for b in prediction]
    log_p = logsumexp(np.concatenate(parts) + np.log(schools.inference.hyper.weights)[:, None], axis=0)
    score = schools.loo()
    assert score.p_loo == pytest.approx(float(np.sum(log_p - score.loo_i)), abs=1e-6)


def real_refits(fit: fi.Fit, index: np.ndarray, levels: range) -> np.ndarray:
    """elpd of every level by fitting without it: the difference of two evidences, each known to some thousandths."""
    parts = [without_rows(fit.model, np.flatnonzero(index == j)) for j in levels]
    return fit.inference.hyper.log_evidence - np.array([infer(b, seed=7).hyper.log_evidence for b in parts])


def test_radon_against_85_real_refits(radon: fi.Fit) -> None:
    score = radon.logo("county")
    expected = real_refits(radon, radon.model.design.factors[0].index, range(85))
    good = score.pareto_k < score.good_k
    assert good.sum() > 80
    assert np.abs(score.logo_i - expected)[good].max() < 0.02
    assert score.elpd_logo == pytest.approx(expected.sum(), abs=0.2)
    assert np.all(score.table["mcse"] < 0.05)


def test_a_group_whose_weights_fail_is_refitted() -> None:
    fit = fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", fi.datasets.load("sleepstudy"))
    score = fit.logo("Subject")
    assert "332" in score.refitted  # the wildest subject
    assert score.table.set_index("level").loc["332", "refitted"]
    at = [list(score.levels).index(level) for level in ("332", "308")]
    index = fit.model.design.factors[0].index
    for j in at:
        expected = real_refits(fit, index, range(j, j + 1))[0]
        assert score.logo_i[j] == pytest.approx(expected, abs=0.04)
    left = leave_groups(fit, "Subject")
    assert left is leave_groups(fit, "Subject")  # remembered
    w = left.weights(at[0])
    assert w.sum() == pytest.approx(1.0)
    assert left.theta(at[0]).shape[0] == w.size == left.log_density(at[0]).size


def test_arviz_takes_the_score_and_gives_its_own_near_it(radon: fi.Fit) -> None:
    import arviz as az

    score = radon.loo()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ's k of draws of everything is worse
        theirs = az.loo(radon.to_arviz())
        ranked = az.compare(
            {
                "partial": score.to_arviz(),
                "complete": fi.fit(RADON, fi.datasets.load("radon"), pooling="complete").loo().to_arviz(),
            }
        )
    assert score.elpd_loo == pytest.approx(float(theirs.elpd_loo), abs=0.6)
    assert score.p_loo == pytest.approx(float(theirs.p_loo), abs=0.6)
    assert ranked.index[0] == "partial"
    assert "elpd_loo" in str(score.to_arviz())


def test_without_pooling_a_new_group_cannot_be_predicted() -> None:
    fit = fi.fit(RADON, fi.datasets.load("radon"), pooling="none")
    score = fit.logo("county")
    assert score.elpd_logo == -np.inf
    assert np.all(np.isneginf(score.logo_i))
    alone = np.flatnonzero(np.bincount(fit.model.design.factors[0].index) == 1)
    rows = np.isin(fit.model.design.factors[0].index, alone)
    own = fit.loo()
    assert np.all(np.isnan(own.loo_i[rows]))
    assert np.all(np.isfinite(own.loo_i[~rows]))
    assert "no score" in str(own)


def test_a_flat_coefficient_that_only_one_group_shows() -> None:
    data = {"y": [1.0, 2.0, 1.5, 2.5, 4.0, 5.5], "x": [0, 0, 0, 0, 1, 2], "g": list("aabbcc")}
    fit = fi.fit("y ~ 1 + x + (1 | g)", data, priors={"beta": fi.flat()})
    score = fit.logo("g")
    assert np.isnan(score.logo_i[2])
    assert np.all(np.isfinite(score.logo_i[:2]))
    assert np.isnan(score.elpd_logo)
    assert "cannot be predicted" in str(score)


def test_an_improper_prior_that_needs_the_group() -> None:
    """Three groups determine a flat standard deviation, two do not."""
    data = {"y": [1.0, 2.0, 4.0], "s": [0.5, 0.5, 0.5], "g": list("abc")}
    three = fi.fit("y | se(s) ~ 1 + (1 | g)", data, priors={"sd": fi.uniform(), "beta": fi.flat()})
    assert np.all(np.isnan(three.logo("g").logo_i))
    data = {"y": [1.0, 2.0, 4.0, 2.5, 3.0], "s": [0.5] * 5, "g": list("abcde")}
    five = fi.fit("y | se(s) ~ 1 + (1 | g)", data, priors={"sd": fi.uniform(), "beta": fi.flat()})
    assert np.all(np.isfinite(five.logo("g").logo_i))


def test_bad_requests(schools: fi.Fit) -> None:
    with pytest.raises(FinettiError, match="not a grouping term"):
        schools.logo("schol")
    one = fi.fit("y ~ 1 + (1 | g)", {"y": [1.0, 2.0, 4.0], "g": ["a", "a", "a"]})
    with pytest.raises(FinettiError, match="one level only"):
        one.logo("g")
    none = fi.fit("y ~ 1", {"y": [1.0, 2.0, 4.0]})
    with pytest.raises(FinettiError, match="no grouping terms"):
        none.logo("g")
    assert np.all(np.isfinite(none.loo().loo_i))


def test_other_kinds_of_fits(tmp_path) -> None:  # type: ignore[no-untyped-def]
    data = fi.datasets.load("eight_schools")
    priors = {"Intercept": fi.normal(0, 20), "sd": fi.half_cauchy(5)}
    expected = schools_by_quadrature()
    sampled = fi.fit(SCHOOLS, data, priors=priors, method="nuts")
    np.testing.assert_allclose(sampled.loo().loo_i, expected, atol=0.05)
    np.testing.assert_allclose(sampled.logo().logo_i, expected, atol=0.05)
    fit = fi.fit(SCHOOLS, data, priors=priors)
    again = fi.load(fit.save(tmp_path / "schools.nc"))
    np.testing.assert_allclose(again.logo().logo_i, fit.logo().logo_i, atol=1e-9)
    point = fi.fit(SCHOOLS, data, priors=priors, pooling="empirical")
    assert "estimate from all the data" in str(point.loo())
    V = np.diag(data["se"].to_numpy(float) ** 2)
    V[0, 1] = V[1, 0] = 0.5 * np.sqrt(V[0, 0] * V[1, 1])
    meta = fi.meta(data["effect"].to_numpy(float), V=V)
    assert np.all(np.isfinite(meta.loo().loo_i))


def test_a_row_left_out_of_correlated_errors_knows_its_neighbour() -> None:
    """With one hyperparameter held, against the dense normal."""
    y, V = np.array([1.0, 2.0, 0.5, 1.7]), np.diag([1.0, 1.0, 2.0, 0.5])
    V[0, 1] = V[1, 0] = 0.8
    fit = fi.meta(y, V=V, priors={"sd": fi.fixed(0.7), "Intercept": fi.normal(0, 3)})
    S = V + 0.49 * np.eye(4) + 9.0
    Q = np.linalg.inv(S)
    expected = norm(y - (Q @ y) / np.diag(Q), np.diag(Q) ** -0.5).logpdf(y)
    np.testing.assert_allclose(fit.loo().loo_i, expected, atol=1e-9)
    assert leave_rows(fit).threshold == np.inf


def test_dear_nodes_carry_their_densities_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """From 60 nodes, quadratics in theta give what 1,024 nodes do; without them the error is several times larger."""
    from finetti.posterior import left_out

    data, formula = fi.datasets.load("penicillin"), "diameter ~ 1 + (1 | plate) + (1 | sample)"
    exact = fi.fit(formula, data).logo("plate")
    monkeypatch.setattr(left_out, "MOST_SECONDS", 0.0)
    monkeypatch.setattr(left_out, "FEWEST", 60)
    few = fi.fit(formula, data)
    left = leave_groups(few, "plate")
    assert left.base.shape[0] <= 60
    np.testing.assert_allclose(left.elpd, exact.logo_i, atol=0.02)
    assert left.threshold == pytest.approx(exact.good_k, abs=0.05)
    np.testing.assert_allclose(left.weights(0).sum(), 1.0)
    monkeypatch.setattr(left_out, "SMOOTH", 0.0)
    plain = leave_groups(fi.fit(formula, data), "plate")
    assert (
        np.abs(plain.elpd - exact.logo_i)[list(set(range(24)) - set(plain.refitted))].max()
        > 2 * np.abs(left.elpd - exact.logo_i).max()
    )


def test_the_error_of_the_sum_is_that_of_other_seeds() -> None:
    """Parts share their nodes: errors of single rows of 0.001 make one of 0.1 in the sum."""
    data = fi.datasets.load("sleepstudy")
    fits = [fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", data, seed=seed) for seed in range(8)]
    scores = [fit.loo() for fit in fits]
    spread = np.std([s.elpd_loo for s in scores], ddof=1)
    told = np.mean([s.mcse for s in scores])
    assert told / 2.5 < spread < 2.5 * told  # chi of 7 degrees of freedom: 1 in 1,000 beyond
    assert "Monte Carlo error of the sum" in str(scores[0])


def test_groups_of_one_row_with_an_unknown_sigma() -> None:
    """At a few nodes sigma is next to nothing, and a row's share of its own precision is lost in rounding."""
    rng = np.random.default_rng(0)
    fit = fi.fit("y ~ 1 + (1 | g)", {"y": rng.normal(size=30), "g": [f"g{i:02d}" for i in range(30)]})
    rows, groups = fit.loo(), fit.logo()
    np.testing.assert_allclose(rows.loo_i, groups.logo_i, atol=1e-3)
    assert np.isfinite(rows.p_loo)
    assert repr(rows) == str(rows)
