"""Prior sensitivity against numeric integration, brute-force quadrature and refits; verdicts where they are planted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.special import ndtr, ndtri, stdtrit

import finetti as fi
from finetti.data.variants import with_priors
from finetti.inference.infer import infer
from finetti.model.priors import sd_logpdf
from finetti.posterior import sensitivity as words
from finetti.posterior.alternatives import AS_FITTED, alternatives, median_of, rescaled
from finetti.posterior.fit import Fit
from finetti.posterior.power_scaling import distance
from finetti.posterior.summary import summarise

SCHOOLS = "effect | se(se) ~ 1 + (1 | school)"
EDGE = 1.0 / 4000
Cdf = Callable[[float], float]


def divergence(P: Cdf, Q: Cdf, low: float, high: float) -> float:
    """The distance from its definition, term by term, by adaptive quadrature."""

    def half(x: float, A: Cdf, B: Cdf) -> float:
        return A(x) * np.log2(A(x) / (0.5 * A(x) + 0.5 * B(x)))

    def total(f: Callable[[float], float]) -> float:
        return float(quad(f, low, high, limit=400, epsabs=1e-13)[0])

    p, q = total(P), total(Q)
    one = total(lambda x: half(x, P, Q)) + (q - p) / (2 * np.log(2))
    other = total(lambda x: half(x, Q, P)) + (p - q) / (2 * np.log(2))
    return float(np.sqrt(max(one + other, 0.0) / (p + q)))


def sensitivity_of(family: Callable[[float], Cdf], low: float, high: float) -> float:
    """Per doubling of the power, over powers 1.01 and 1 / 1.01; the larger of the distance and its mirror image."""
    base = family(1.0)
    each = [
        max(
            divergence(base, other, low, high),
            divergence(lambda x: 1.0 - base(x), lambda x, o=other: 1.0 - o(x), low, high),  # type: ignore[misc]
        )
        for other in (family(1.01), family(1 / 1.01))
    ]
    return sum(each) / (2 * np.log2(1.01))


def test_distance_is_its_definition() -> None:
    x = np.linspace(-4.0, 5.0, 2001)
    for shift, scale in ((0.3, 1.0), (0.0, 1.3), (2.0, 0.5)):
        P, Q = ndtr, lambda t, m=shift, s=scale: float(ndtr((t - m) / s))
        expected = max(
            divergence(P, Q, -4.0, 5.0),
            divergence(lambda t: 1 - float(ndtr(t)), lambda t, f=Q: 1 - f(t), -4.0, 5.0),
        )
        assert distance(x, ndtr(x), ndtr((x - shift) / scale)) == pytest.approx(expected, rel=1e-4)
        assert distance(-x[::-1], ndtr(x), ndtr((x - shift) / scale)) > 0.0


@pytest.mark.parametrize(("centre", "sd"), [(0.0, 10.0), (0.0, 1.0), (6.0, 0.7), (2.0, 0.05)])
def test_a_normal_mean_with_known_errors(centre: float, sd: float) -> None:
    """Conjugate: powers alpha and beta of prior and likelihood leave Normal with precision alpha / sd^2 + beta S."""
    y, se = np.array([1.0, 2.5, 3.0, 1.5, 2.0]), np.array([1.0, 0.8, 1.5, 1.0, 0.6])
    fit = fi.fit("y | se(s) ~ 1", pd.DataFrame({"y": y, "s": se}), priors={"Intercept": fi.normal(centre, sd)})
    S, Sy = float(np.sum(se**-2)), float(np.sum(y * se**-2))

    def posterior(alpha: float, beta: float) -> tuple[float, float]:
        precision = alpha * sd**-2 + beta * S
        return (alpha * centre * sd**-2 + beta * Sy) / precision, precision**-0.5

    mean, spread = posterior(1.0, 1.0)
    low, high = mean + spread * ndtri(EDGE), mean - spread * ndtri(EDGE)

    def family(prior: bool) -> Callable[[float], Cdf]:
        def of(power: float) -> Cdf:
            m, s = posterior(power, 1.0) if prior else posterior(1.0, power)
            return lambda x: float(ndtr((x - m) / s))

        return of

    row = fit.sensitivity().table.loc["beta[Intercept]"]
    assert row["prior"] == pytest.approx(sensitivity_of(family(True), low, high), rel=0.01, abs=2e-5)
    assert row["likelihood"] == pytest.approx(sensitivity_of(family(False), low, high), rel=0.01, abs=2e-5)
    assert row["observations"] == pytest.approx(row["likelihood"], rel=1e-6)  # without groups they are the same
    assert row["coefficient_prior"] == row["prior"]
    assert row["hyperprior"] == pytest.approx(0.0, abs=1e-9)
    pull = [(posterior(1.01, 1.0)[0] - posterior(1 / 1.01, 1.0)[0]) / spread / (2 * np.log2(1.01)),
            (posterior(1.0, 1.01)[0] - posterior(1.0, 1 / 1.01)[0]) / spread / (2 * np.log2(1.01))]  # fmt: skip
    assert list(row[["prior_pull", "likelihood_pull"]]) == pytest.approx(pull, rel=1e-5, abs=1e-9)


class Quadrature:
    """Eight schools by brute force over log tau, mu integrated out in closed form, any power of any component."""

    def __init__(self, prior: Any, mean: float = 0.0, sd: float = 5.0) -> None:
        data = fi.datasets.load("eight_schools")
        self.y, self.v = data["effect"].to_numpy(float), data["se"].to_numpy(float) ** 2
        self.mean, self.sd, self.prior = mean, sd, prior
        self.tau = np.exp(np.linspace(np.log(1e-4), np.log(5e3), 2001))

    def solve(self, hyper: float = 1.0, coefficient: float = 1.0, likelihood: float = 1.0, prior: Any = None) -> Any:
        """Weights of tau (they sum to one), mean and sd of mu given tau."""
        tau = self.tau
        V = self.v + tau[:, None] ** 2
        p0, w = coefficient / self.sd**2, likelihood / V
        precision = p0 + w.sum(axis=1)
        mu = (p0 * self.mean + w @ self.y) / precision
        exponent = (w * (self.y - mu[:, None]) ** 2).sum(axis=1) + p0 * (mu - self.mean) ** 2
        log_p = -0.5 * likelihood * np.log(V).sum(axis=1) - 0.5 * exponent - 0.5 * np.log(precision)
        log_p += hyper * sd_logpdf(prior or self.prior, tau) + np.log(tau)  # d tau = tau d log tau
        p = np.exp(log_p - log_p.max())
        return p / p.sum(), mu, precision**-0.5

    def rows(self, prior: Any) -> dict[str, list[float]]:
        """Mean, sd, q5, q50, q95 of both parameters under another hyperprior."""
        p, mu, s = self.solve(prior=prior)
        x, keep = np.linspace(-30, 40, 1401), p > 1e-10
        F = p[keep] @ ndtr((x - mu[keep, None]) / s[keep, None])
        m, t = p @ mu, p @ self.tau
        probs = [0.05, 0.5, 0.95]
        beta = [m, np.sqrt(p @ (s**2 + (mu - m) ** 2)), *np.interp(probs, F, x)]
        tau = [t, np.sqrt(p @ (self.tau - t) ** 2), *np.interp(probs, np.cumsum(p) - 0.5 * p, self.tau)]
        return {"beta[Intercept]": beta, "sd_school[Intercept]": tau}

    def sensitivity(self, component: str) -> tuple[float, float]:
        """Of mu and tau, on fine grids between the quantiles 1 / 4,000 and 1 - 1 / 4,000."""
        powers = [1.0, 1.01, 1 / 1.01]
        keys = {"prior": ("hyper", "coefficient"), "hyperprior": ("hyper",), "coefficient_prior": ("coefficient",)}
        sets = [self.solve(**dict.fromkeys(keys.get(component, (component,)), a)) for a in powers]
        x = np.linspace(-60, 80, 1401)
        F = [p[p > 1e-12] @ ndtr((x - mu[p > 1e-12, None]) / s[p > 1e-12, None]) for p, mu, s in sets]
        G = [np.cumsum(p) for p, _, _ in sets]
        out = []
        for grid, cdfs in ((x, F), (self.tau, G)):
            inside = (cdfs[0] > EDGE) & (cdfs[0] < 1 - EDGE)
            each = [distance(grid[inside], cdfs[0][inside], c[inside]) for c in cdfs[1:]]
            out.append(sum(each) / (2 * np.log2(1.01)))
        return out[0], out[1]


@pytest.fixture(scope="module")
def schools() -> Fit:
    priors = {"Intercept": fi.normal(0, 5), "sd": fi.half_cauchy(5)}
    return fi.fit(SCHOOLS, fi.datasets.load("eight_schools"), priors=priors)


@pytest.fixture(scope="module")
def found(schools: Fit) -> words.Sensitivity:
    return schools.sensitivity()


@pytest.mark.parametrize("component", ["prior", "hyperprior", "coefficient_prior", "likelihood"])
def test_eight_schools_power_scaled_by_quadrature(found: words.Sensitivity, component: str) -> None:
    """The end of the range is a far quantile of a heavy tail, which nodes know to a few per cent."""
    expected = Quadrature(fi.half_cauchy(5)).sensitivity(component)
    assert found.table[component].to_numpy() == pytest.approx(expected, rel=0.03, abs=2e-3)


def test_eight_schools_under_other_hyperpriors_by_quadrature(schools: Fit, found: words.Sensitivity) -> None:
    exact = Quadrature(fi.half_cauchy(5))
    every = {"as fitted": fi.half_cauchy(5)}
    every |= {a.text: next(iter(a.priors.values())) for a in alternatives(schools.model, schools.inference.coordinates)}
    table = found.alternatives
    assert set(table["alternative"]) == set(every)
    base = exact.rows(fi.half_cauchy(5))
    for text, prior in every.items():
        for label, expected in exact.rows(prior).items():
            row = table[(table["alternative"] == text) & (table["parameter"] == label)].iloc[0]
            sd = base[label][1]
            # uniform() leaves a posterior of tau with a heavy tail: its sd is known to a tenth
            assert abs(row["mean"] - expected[0]) < 0.05 * sd, (text, label)
            assert row["sd"] == pytest.approx(expected[1], rel=0.12), (text, label)
            assert np.max(np.abs(row[["q5", "q50", "q95"]].to_numpy(float) - expected[2:])) < 0.06 * sd, (text, label)
            assert row["shift"] == pytest.approx((expected[3] - base[label][3]) / sd, abs=0.02), (text, label)


def test_alternatives_keep_the_prior_median(schools: Fit) -> None:
    made = alternatives(schools.model, schools.inference.coordinates)
    sds = {a.text: next(iter(a.priors.values())) for a in made if a.changed == "sd"}
    assert [p.name for p in sds.values()] == [
        "half_t",
        "half_normal",
        "exponential",
        "uniform",
    ]  # not the family it has
    for prior in list(sds.values())[:3]:
        median = median_of(prior)
        assert median == pytest.approx(5.0)
        below = quad(lambda x, p=prior: np.exp(float(p.logpdf(x))), 0.0, median)[0]
        assert below == pytest.approx(0.5, abs=1e-8)
    assert median_of(fi.half_t(3, 2)) == pytest.approx(2 * stdtrit(3, 0.75))


def test_rescaled_is_the_prior_of_a_multiple() -> None:
    x = np.array([0.3, 1.0, 4.0])
    for prior in (
        fi.half_t(3, 2), fi.half_normal(2), fi.half_cauchy(3), fi.exponential(0.7), fi.gamma(2, 0.5),
        fi.inverse_gamma(3, 4), fi.uniform(0, 40), fi.dumouchel(2), fi.uniform_shrinkage(2),
    ):  # fmt: skip
        other = rescaled(prior, 2.0)
        assert other is not None
        assert sd_logpdf(other, 2.0 * x) == pytest.approx(sd_logpdf(prior, x) - np.log(2.0))
    assert all(rescaled(p, 2.0) is None for p in (fi.uniform(), fi.flat(), fi.jeffreys([1.0]), fi.uniform(1, 2)))


def sleepstudy(**options: Any) -> Fit:
    return fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", fi.datasets.load("sleepstudy"), **options)


def test_many_data_decide_and_a_planted_prior_conflicts() -> None:
    calm = sleepstudy().sensitivity()
    assert set(calm.table["verdict"]) == {words.DATA}
    assert "The data decide" in calm.advice[0]
    # 10.5 ms per day with se 1.5, and a prior that allows 1: group effects integrated out, the data object
    found = sleepstudy(priors={"beta[Days]": fi.normal(0, 1)}).sensitivity()
    row = found.table.loc["beta[Days]"]
    assert row["verdict"] == words.CONFLICT
    assert row["prior_pull"] < -0.5 < 0.5 < row["likelihood_pull"]
    assert row["coefficient_prior"] > 5 * row["hyperprior"]
    (sentence,) = [a for a in found.advice if "about beta[Days]" in a]
    assert "normal(0, 1)" in sentence
    assert found.table.loc["sigma", "verdict"] == words.DATA


def test_weak_data_and_a_strong_prior_that_agree() -> None:
    """Eight schools say hardly anything of a tau below 2: the prior decides, and nothing disagrees."""
    fit = fi.fit(SCHOOLS, fi.datasets.load("eight_schools"), priors={"sd": fi.half_normal(1)})
    found = fit.sensitivity()
    assert found.table.loc["sd_school[Intercept]", "verdict"] == words.PRIOR
    assert any("collect more groups" in a for a in found.advice)
    wide = found.alternatives[found.alternatives["alternative"] == "uniform()"]
    assert wide["refitted"].all()  # nodes below 4 cannot say what happens at 20
    assert abs(wide["shift"]).max() > 3.0
    assert any("report the table" in a for a in found.advice)
    short = words.sensitivity(fit, refit=False)
    assert not short.alternatives["refitted"].any()
    assert any("refit=False" in note for note in short.notes)


def test_reweighted_is_refitted() -> None:
    """Every alternative of a model with correlated slopes, against a fit under it, in Monte Carlo standard errors."""
    fit = sleepstudy()
    found = fit.sensitivity()
    hyper = fit.inference.coordinates
    for a in alternatives(fit.model, hyper):
        some = found.alternatives
        some = some[(some["alternative"] == a.text) & (some["changed"] == a.changed)].set_index("parameter")
        assert not some["refitted"].any()
        again = summarise(infer(with_priors(fit.model, a.priors), seed=7), (0.05, 0.5, 0.95)).loc[some.index]
        # both sides have about the error that the summary states, reweighting a little more
        error = np.hypot(again["mcse"], fit.summary()["mcse"]) + 2e-3 * again["sd"]
        assert np.all(np.abs(some["mean"] - again["mean"]) < 5.0 * error), a.text
        for q in ("q5", "q50", "q95"):
            assert np.all(np.abs(some[q] - again[q]) < 0.06 * again["sd"]), (a.text, q)


def test_estimated_hyperparameters_have_no_prior() -> None:
    found = sleepstudy(pooling="empirical").sensitivity()
    assert found.table.loc["sigma", "verdict"] == words.HELD
    assert np.isnan(found.table.loc["sd_Subject[Days]", "prior"])
    assert found.table.loc["beta[Days]", "verdict"] == words.DATA
    assert set(found.alternatives["alternative"]) == {AS_FITTED}
    assert any("empirical pooling" in a for a in found.advice)


def test_draws_of_nuts_say_the_same() -> None:
    fit = sleepstudy(priors={"beta[Days]": fi.normal(0, 1)})
    nuts = Fit(infer(fit.model, method="nuts", seed=3), 400, 0)
    exact, sampled = fit.sensitivity(), nuts.sensitivity()
    # 1,024 draws: a sensitivity is the correlation of a log density of sd 1 to 2, with error 0.03 to 0.06 sds
    gap = (exact.table[["prior", "likelihood"]] - sampled.table[["prior", "likelihood"]]).abs()
    assert gap.to_numpy().max() < 0.06
    assert sampled.table.loc["beta[Days]", "verdict"] == words.CONFLICT
    both = exact.alternatives.merge(sampled.alternatives, on=["alternative", "changed", "parameter"])
    assert np.max(np.abs(both["shift_x"] - both["shift_y"])) < 0.1


def test_every_kind_of_model_runs(tmp_path: Any) -> None:
    rng = np.random.default_rng(0)
    n, g = 60, np.repeat(np.arange(6), 10)
    x = rng.normal(size=n)
    data = pd.DataFrame({"y": 1 + x + rng.normal(size=6)[g] + rng.normal(size=n), "x": x, "g": g})
    data["h"], data["w"], data["s"] = rng.integers(0, 5, n), rng.uniform(0.5, 2, n), rng.uniform(0.1, 0.3, n)
    odd = {"sd": fi.gamma(2, 0.5), "sigma": fi.inverse_gamma(2, 2)}
    V = np.diag([0.01, 0.01, 0.04, 0.01, 0.02, 0.03]) + 0.005 * np.kron(np.eye(3), np.ones((2, 2)))
    effects = [0.4, 0.1, 0.3, 0.2, 0.7, 0.5]
    student = {"Intercept": fi.student_t(3, 30, 1), "beta[x]": fi.uniform(-1, 0.9)}
    fits = [
        fi.fit("diameter ~ 1 + (1 | plate) + (1 | sample)", fi.datasets.load("penicillin")),
        fi.meta(effects, V=V),
        fi.meta(effects, np.sqrt(np.diag(V)), priors={"sd": fi.jeffreys()}),
        fi.fit("y | se(s, sigma=True) ~ x + (1 + x | g)", data),
        fi.fit("y | weights(w) ~ x + (1 + x || g)", data, priors=odd),
        fi.fit("y ~ x + (1 | g) + (1 | h)", data, pooling={"g": "none"}),
        fi.fit("y ~ x + (1 | g) + (1 | h)", data, pooling={"g": "empirical"}),
        fi.fit("y ~ x + (1 | g)", data, pooling="complete"),
        fi.fit("y ~ x", data, priors={"sigma": fi.fixed(1.0)}),
        fi.fit("y ~ x + (1 | g)", data, priors=student),
        fi.fit("y ~ x + (1 | g)", data, priors={"beta[x]": fi.fixed(1.0)}),
        fi.fit("y ~ 1 + (1 | g)", data, priors={"sd": fi.uniform(0, 2)}),
    ]  # fmt: skip
    for fit in fits:
        found = fit.sensitivity()
        assert list(found.table.index) == list(fit.summary().index)
        free = found.table["prior"].notna().to_numpy()
        values = found.table[["prior", "likelihood", "hyperprior", "coefficient_prior", "observations"]].to_numpy()[
            free
        ]
        assert np.all(np.isfinite(values)) and np.all(values >= 0.0) and free.any()
        assert np.all(found.alternatives["q5"] < found.alternatives["q95"])
        assert str(found).startswith("Sensitivity")
        assert found.advice
    unpooled = fits[5].sensitivity().table
    assert unpooled.loc["beta[Intercept]", "verdict"] == words.UNIDENTIFIED
    saved = fits[4]
    again = fi.load(saved.save(tmp_path / "fit.nc")).sensitivity()
    pd.testing.assert_frame_equal(again.table, saved.sensitivity().table, rtol=1e-6)


def test_an_improper_alternative_is_left_out_with_a_note() -> None:
    fit = fi.meta([0.4, 0.1], [0.1, 0.2], priors={"Intercept": fi.flat(), "sd": fi.half_normal(0.5)})
    found = fit.sensitivity()
    assert "uniform()" not in set(found.alternatives["alternative"])
    assert any("uniform()" in note and "improper" in note for note in found.notes)
    # half_cauchy leaves a posterior that falls as tau^-2 or -3: moments that do not exist are not made up
    heavy = found.alternatives[found.alternatives["alternative"].str.startswith("half_cauchy")].set_index("parameter")
    assert np.isnan(heavy.loc["sd_study[Intercept]", "sd"])
    assert np.isfinite(heavy["shift"]).all()
