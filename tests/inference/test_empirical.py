"""Empirical Bayes against lme4: REML estimates, exact zeros and ones, and terms that are held while others vary.

The numbers are lme4 1.1-31's (R 4.2.2), with the data sets that ship and

    lmer(formula, data, control = lmerControl(optimizer = "bobyqa", calc.derivs = FALSE,
         optCtrl = list(rhoend = 1e-10, maxfun = 1e5)))

read from as.data.frame(VarCorr(m))$sdcor, REMLcrit(m), fixef(m) and sqrt(diag(vcov(m))).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import finetti as fi
from finetti.inference.empirical import maximise
from finetti.inference.gaussian import GaussianInner
from finetti.posterior.fit import Fit
from tests.oracle_quadrature import quadrature_posterior
from tests.oracle_references import REFERENCES
from tests.oracles import Dist, dense_conditional, dense_log_marginal, from_design

SLEEP = "Reaction ~ 1 + Days + (1 + Days | Subject)"


def data(name: str) -> pd.DataFrame:
    if name.startswith("sleepstudy"):
        s = fi.datasets.load("sleepstudy")
        subject = s["Subject"].astype(str)
        if name == "sleepstudy weighted":
            # R: s$w <- 1 + (s$Days %% 3)/2 + (as.integer(factor(s$Subject)) %% 2)
            order = {g: k + 1 for k, g in enumerate(sorted(set(subject)))}
            return s.assign(w=1 + (s["Days"] % 3) / 2 + subject.map(order) % 2)
        few = {"sleepstudy cor 1": "309 310 332 333 351 371", "sleepstudy cor -1": "308 332 333 334 351 371"}
        few["sleepstudy sd 0"] = few["sleepstudy cor -1"]
        if name in few:
            return s[subject.isin(few[name].split())].assign(Subject=subject)
        return s
    return fi.datasets.load(name)


# name: formula, REML criterion, sds and correlations, fixed effects with standard errors
LME4: dict[str, tuple[str, float, dict[str, float], list[float], list[float]]] = {
    "dyestuff": ("Yield ~ 1 + (1 | Batch)", 319.6542768,
                 {"sd_Batch[Intercept]": 42.0005946300, "sigma": 49.5101000907}, [1527.5], [19.383412]),
    "dyestuff2": ("Yield ~ 1 + (1 | Batch)", 161.8282778,
                  {"sd_Batch[Intercept]": 0.0, "sigma": 3.71568427448}, [5.6656], [0.67838803]),
    "penicillin": ("diameter ~ 1 + (1 | plate) + (1 | sample)", 330.860589,
                   {"sd_plate[Intercept]": 0.846704399531, "sd_sample[Intercept]": 1.931558700665,
                    "sigma": 0.549923126499}, [22.972222], [0.80857351]),
    "pastes": ("strength ~ 1 + (1 | batch/cask)", 246.9907459,
               {"sd_batch[Intercept]": 1.287365167092, "sd_batch:cask[Intercept]": 2.904077584172,
                "sigma": 0.823407544769}, [60.053333], [0.6768701]),
    "sleepstudy": (SLEEP, 1743.628272,
                   {"sd_Subject[Intercept]": 24.7404476166998, "sd_Subject[Days]": 5.9221332595791,
                    "cor_Subject[Intercept, Days]": 0.0655513428535, "sigma": 25.5918158926241},
                   [251.405105, 10.467286], [6.8245558, 1.5457889]),
    "sleepstudy ||": ("Reaction ~ 1 + Days + (1 + Days || Subject)", 1743.669294,
                      {"sd_Subject[Intercept]": 25.05132964277, "sd_Subject[Days]": 5.98817182494,
                       "sigma": 25.56528515175}, [251.405105, 10.467286], [6.8853815, 1.5595660]),
    "sleepstudy weighted": ("Reaction | weights(w) ~ 1 + Days + (1 + Days | Subject)", 1733.655782,
                            {"sd_Subject[Intercept]": 25.1237878682820, "sd_Subject[Days]": 6.2741250979832,
                             "cor_Subject[Intercept, Days]": -0.0204231789941, "sigma": 33.2986060506164},
                            [250.812663, 10.538645], [6.8697639, 1.6171510]),
    "sleepstudy offset": ("Reaction ~ 1 + Days + offset(3 * Days) + (1 | Subject)", 1786.465085,
                          {"sd_Subject[Intercept]": 37.1238266090, "sigma": 30.9912339116},
                          [251.405105, 7.467286], [9.74671624, 0.80422143]),
    # six subjects whose correlation is estimated as exactly one (lme4: boundary (singular) fit)
    "sleepstudy cor 1": (SLEEP, 578.4524984,
                         {"sd_Subject[Intercept]": 30.06748828906, "sd_Subject[Days]": 2.46840910946,
                          "cor_Subject[Intercept, Days]": 1.0, "sigma": 28.34035718725},
                         [243.7654900, 7.1179067], [14.0327866, 1.6242182]),
    # six others with exactly minus one; lme4 finds it from start = c(0.5, -0.5, 0.01) only, its default ends at 594.385
    "sleepstudy cor -1": (SLEEP, 594.254069812,
                          {"sd_Subject[Intercept]": 3.45169265754, "sd_Subject[Days]": 4.51097892969,
                           "cor_Subject[Intercept, Days]": -1.0, "sigma": 34.74628618615},
                          [256.4015588, 11.3914332], [8.45559949, 2.41464020]),
    # and whose intercepts, without a correlation, do not vary at all
    "sleepstudy sd 0": ("Reaction ~ 1 + Days + (1 + Days || Subject)", 594.385225517,
                        {"sd_Subject[Intercept]": 0.0, "sd_Subject[Days]": 3.96174322818, "sigma": 34.80088637149},
                        [256.401559, 11.391433], [8.3504549, 2.2500159]),
}  # fmt: skip


@functools.cache
def reml(name: str) -> Fit:
    return fi.fit(LME4[name][0], data(name), pooling="empirical", priors={"beta": fi.flat()})


@pytest.mark.parametrize("name", LME4)
def test_lme4s_estimates(name: str) -> None:
    _, criterion, hyper, fixed, errors = LME4[name]
    fit = reml(name)
    assert -2.0 * fit.diagnostics.log_marginal == pytest.approx(criterion, abs=2e-6)
    table = fit.summary()
    for label, value in hyper.items():
        if value in (0.0, 1.0, -1.0):
            assert table.loc[label, "mean"] == value  # exactly
        else:
            assert table.loc[label, "mean"] == pytest.approx(value, rel=1e-4, abs=2e-5), label
    betas = [i for i in table.index if str(i).startswith("beta[")]
    np.testing.assert_allclose(table.loc[betas, "mean"], fixed, rtol=1e-6)
    np.testing.assert_allclose(table.loc[betas, "sd"], errors, rtol=1e-4)


def test_variances_of_dyestuff_as_the_issue_prints_them() -> None:
    table = reml("dyestuff").summary()["mean"] ** 2
    assert table["sd_Batch[Intercept]"] == pytest.approx(1764.05, abs=0.02)
    assert table["sigma"] == pytest.approx(2451.25, abs=0.02)
    assert -2 * reml("dyestuff").diagnostics.log_marginal == pytest.approx(319.654, abs=5e-4)
    assert reml("dyestuff2").summary().loc["sigma", "mean"] ** 2 == pytest.approx(13.81, abs=5e-3)


@pytest.mark.parametrize("name", LME4)
def test_the_criterion_is_the_oracles_and_stationary(name: str) -> None:
    fit = reml(name)
    problem = from_design(fit.model.design, fit.model.priors, "partial")
    at = {k: float(v) for k, v in fit.summary()["mean"].items() if not str(k).startswith("beta")}
    at = {k: 0.0 if np.isnan(v) else v for k, v in at.items()}
    best = dense_log_marginal(problem, at)
    assert fit.diagnostics.log_marginal == pytest.approx(best, rel=1e-9)
    for label, value in at.items():
        for step in (-3e-3, 3e-3):
            moved = (
                np.clip(value + step, -1, 1)
                if label.startswith("cor_")
                else value * (1 + step) + max(step, 0) * (value == 0)
            )
            assert dense_log_marginal(problem, at | {label: float(moved)}) <= best + 1e-9


@pytest.mark.parametrize(
    "name",
    ["sleepstudy", "sleepstudy cor 1", "sleepstudy cor -1", "sleepstudy sd 0", "pastes", "penicillin", "dyestuff2"],
)
def test_coefficients_given_the_estimates_are_the_dense_conditional(name: str) -> None:
    """BLUPs: means, sds and 95 % quantiles of groups() at one node, singular covariances included."""
    fit = reml(name)
    problem = from_design(fit.model.design, fit.model.priors, "partial")
    at = {k: float(v) for k, v in fit.summary()["mean"].items() if not str(k).startswith("beta")}
    dense = dense_conditional(problem, {k: 0.0 if np.isnan(v) else v for k, v in at.items()})
    for group in fit.group_names:
        for _, row in fit.groups(group).iterrows():
            labels = (f"beta[{row['coefficient']}]", f"u_{group}[{row['level']}, {row['coefficient']}]")
            mean, cov = dense.block(labels)
            assert row["mean"] == pytest.approx(mean.sum(), rel=1e-6)
            assert row["sd"] == pytest.approx(np.sqrt(cov.sum()), rel=1e-5)
            assert row["q95"] == pytest.approx(mean.sum() + 1.6448536 * np.sqrt(cov.sum()), rel=1e-5)


def test_the_edge_is_said_loudly() -> None:
    for name, label in (("dyestuff2", "sd_Batch[Intercept]"), ("sleepstudy cor 1", "cor_Subject[Intercept, Days]")):
        warnings = reml(name).diagnostics.warnings
        assert any("edge of the possible values" in w and label in w for w in warnings)
    assert not any("edge" in w for w in reml("sleepstudy").diagnostics.warnings)


def test_hyperpriors_play_no_part() -> None:
    strong: dict[str, Any] = {"beta": fi.flat(), "sd": fi.half_normal(0.01), "sigma": fi.half_normal(0.01)}
    other = fi.fit(SLEEP, data("sleepstudy"), pooling="empirical", priors=strong)
    pd.testing.assert_frame_equal(other.summary(), reml("sleepstudy").summary(), rtol=1e-9)


@pytest.mark.parametrize("errors", ["se", "se_sigma"])
def test_known_errors_against_a_direct_maximum(errors: str) -> None:
    """Eight schools: tau by brute force over the dense oracle, with and without an extra sigma."""
    from scipy.optimize import minimize

    left = "effect | se(se)" if errors == "se" else "effect | se(se, sigma=True)"
    frame = fi.datasets.load("eight_schools")
    frame = frame.assign(effect=frame["effect"] * 2.5)  # so that the estimate is not zero
    fit = fi.fit(f"{left} ~ 1 + (1 | school)", frame, pooling="empirical", priors={"beta": fi.flat()})
    problem = from_design(fit.model.design, fit.model.priors, "partial")

    def value(x: np.ndarray) -> float:
        return -dense_log_marginal(problem, {"sd_school[Intercept]": abs(x[0]), "sigma": abs(x[-1])})

    best = minimize(
        value, [20.0] if errors == "se" else [20.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}
    )
    assert fit.diagnostics.log_marginal == pytest.approx(-best.fun, abs=1e-8)
    if errors == "se":
        assert fit.summary().loc["sd_school[Intercept]", "mean"] == pytest.approx(abs(best.x[0]), rel=1e-4)


def test_one_term_held_while_the_others_vary() -> None:
    """pooling={"plate": "empirical"}: its sd is the joint maximum's, and the rest is the posterior given that."""
    ref = REFERENCES["penicillin"]
    priors = {k: v for k, v in ref.finetti_priors().items() if not k.startswith("sd_plate")}
    fit = fi.fit(ref.formula, data("penicillin"), priors=priors, pooling={"plate": "empirical"})
    held = fit.summary().loc["sd_plate[Intercept]"]
    assert held["sd"] == 0.0 and fit.diagnostics.ok
    joint = fi.fit(ref.formula, data("penicillin"), priors=priors, pooling="empirical")
    assert held["mean"] == pytest.approx(joint.summary().loc["sd_plate[Intercept]", "mean"], rel=1e-6)
    exact = quadrature_posterior(
        ref.problem, ref.priors | {"sd_plate[Intercept]": str(Dist("fixed", (float(held["mean"]),)))}, (60, 60), 0.8
    )
    table = fit.summary()
    for label in ("sd_sample[Intercept]", "sigma", "beta[Intercept]"):
        for column in ("mean", "sd", "q5", "q50", "q95"):
            true = exact.table[label]
            bound = 3.5 * (0.02 if column in ("mean", "sd") else 0.05) / 1.325
            assert abs(table.loc[label, column] - true[column]) < bound * true["sd"], (label, column)


def test_a_correlated_term_held_at_a_correlation_of_one() -> None:
    """The singular factor of one term stays while sigma is explored; its draws lie on the line."""
    frame = data("sleepstudy cor 1")
    fit = fi.fit(
        "Reaction ~ 1 + Days + (1 + Days | Subject)",
        frame,
        pooling={"Subject": "empirical"},
        priors={"beta": fi.flat()},
    )
    table = fit.summary()
    assert table.loc["cor_Subject[Intercept, Days]", "mean"] == 1.0
    a, b = (fit.draws(f"u_Subject[309, {c}]") for c in ("Intercept", "Days"))
    ratio = table.loc["sd_Subject[Days]", "mean"] / table.loc["sd_Subject[Intercept]", "mean"]
    np.testing.assert_allclose(b, ratio * a, rtol=1e-6, atol=1e-6)


def test_a_held_term_keeps_the_likelihood() -> None:
    """The inner step with everything held returns the maximum it came from."""
    fit = reml("sleepstudy cor 1")
    inner = GaussianInner.build(fit.model)
    estimate = maximise(inner)
    held = dataclasses.replace(inner, hyper=estimate.hyper)
    assert held.hyper.d == 0
    assert held.log_marginal(np.zeros((1, 0)))[0] == pytest.approx(estimate.log_marginal, rel=1e-12)


@pytest.mark.parametrize("seed", [13, 31, 46])
def test_few_groups_with_a_covariate_far_from_zero_reach_the_better_of_two_maxima(seed: int) -> None:
    """Both ends of a correlation are maxima; climbing in the user's coordinates ended as much as 1.29 below."""
    rng = np.random.default_rng(seed)
    n = 18
    g, x = np.arange(n) % 3, rng.normal(size=n)
    y = rng.normal(size=n) + rng.normal(size=3)[g] + 0.5 * rng.normal(size=3)[g] * x
    logs = []
    for origin in (0.0, 50.0):
        table = {"y": y, "x": x + origin, "g": g.astype(str)}
        fit = fi.fit("y ~ 1 + x + (1 + x | g)", table, pooling="empirical", priors={"beta": fi.flat()})
        assert fit.inference.estimate is not None
        logs.append(fit.inference.estimate.log_marginal)
    assert logs[1] == pytest.approx(logs[0], abs=1e-7)
    starts = ([1, 0.5, 0.1, 0], [1, -0.5, 0.1, 0], [0.1, 0.5, 0.5, 0], [0.5, 0, 0, 0])
    options = {"fatol": 1e-9, "xatol": 1e-7, "maxiter": 3000}
    ends = [minimize(_minus_reml, at, (y, x, g), method="Nelder-Mead", options=options) for at in starts]
    assert logs[0] > max(-end.fun for end in ends) - 1e-5


def _minus_reml(v: np.ndarray, y: np.ndarray, x: np.ndarray, g: np.ndarray) -> float:
    """Minus the restricted log-likelihood at the entries of L and log sigma, by dense algebra."""
    Z, L = np.column_stack([np.ones_like(x), x]), np.array([[v[0], 0.0], [v[1], v[2]]])
    V = np.exp(2 * v[3]) * np.eye(y.size) + (Z @ L @ L.T @ Z.T) * (g[:, None] == g)
    inverse = np.linalg.inv(V)
    H = Z.T @ inverse @ Z
    r = y - Z @ np.linalg.solve(H, Z.T @ inverse @ y)
    logs = np.linalg.slogdet(V)[1] + np.linalg.slogdet(H)[1] + (y.size - 2) * np.log(2 * np.pi)
    return 0.5 * float(logs + r @ inverse @ r)
