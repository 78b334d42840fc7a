"""Power-scaled components of the exact inner step against dense matrices, for every feature of a model."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import finetti as fi
from finetti.inference.scaled import log_prior_parts, log_prior_ratio, power_scaled, scaled_observations
from tests.inference.cases import case, every_feature, hyper_priors
from tests.oracles import (
    GAUSSIAN_KINDS,
    LOG_2PI,
    Dist,
    Problem,
    _assemble,
    _float_forward,
    _log_density,
    dense_conditional,
    dense_log_marginal,
    log_prior_hyper,
    population,
)

ALPHAS = (0.7, 1.3)
FEATURES = list(every_feature())


def scaled(inner: Any, theta: np.ndarray) -> Any:
    return power_scaled(SimpleNamespace(conditional=SimpleNamespace(inner=inner)), theta, ALPHAS)[1]  # type: ignore[arg-type]


def wider_prior(problem: Problem, alpha: float) -> Problem:
    beta = tuple(
        Dist("normal", (d.args[0], d.args[1] / np.sqrt(alpha))) if d.name == "normal" else d for d in problem.beta
    )
    return dataclasses.replace(problem, beta=beta)


def explored_log_prior(problem: Problem, hyper: dict[str, float]) -> float:
    return sum(
        problem.beta[k].logpdf(hyper[problem.beta_keys[k]])
        for k in problem.kept()
        if problem.beta[k].name not in GAUSSIAN_KINDS
    )


def observations(problem: Problem, hyper: dict[str, float], alpha: float) -> tuple[Problem, float]:
    """The model of which N(y; eta, R / alpha) is the likelihood, and log of integral p(y | b)^alpha p(b) db."""
    variance = problem.error_variance(hyper)
    sharper = dataclasses.replace(problem, se=np.sqrt(variance / alpha), se_sigma=False, weights=None)
    n = len(problem.y)
    rest = 0.5 * (1 - alpha) * (n * LOG_2PI + np.sum(np.log(variance))) - 0.5 * n * np.log(alpha)
    return sharper, dense_log_marginal(sharper, hyper) + rest


def likelihood(problem: Problem, hyper: dict[str, float], alpha: float) -> tuple[float, np.ndarray, np.ndarray]:
    """log of integral N(y; X beta, V)^alpha p(beta) d beta up to a constant; mean and sd of beta, by dense algebra."""
    point = tuple(Dist("normal", (d.args[0], 1e-150)) if d.name == "normal" else d for d in problem.beta)
    r, V, F = _assemble(dataclasses.replace(problem, beta=point), hyper, float)
    X, back, kept = population(problem)
    normal = [c for c, k in enumerate(kept) if problem.beta[k].name == "normal"]
    sd = np.array([problem.beta[kept[c]].args[1] for c in normal])
    total = V / alpha + (X[:, normal] * sd**2) @ X[:, normal].T if normal else V / alpha
    value = _log_density(r, total, F, np.linalg.cholesky, _float_forward, np.log, LOG_2PI)
    value += 0.5 * (1 - alpha) * np.linalg.slogdet(V)[1]
    # beta by its own normal equations: flat columns first (population or unpooled), then those with a prior
    W = np.hstack([X[:, normal], F])
    P = np.diag(np.concatenate([sd**-2.0, np.zeros(F.shape[1])]))
    H = alpha * W.T @ np.linalg.solve(V, W) + P
    cov, b = np.linalg.inv(H), np.linalg.solve(H, alpha * W.T @ np.linalg.solve(V, r)) if W.size else np.zeros(0)
    mean, spread = np.zeros(len(kept)), np.zeros((len(kept), len(kept)))
    flat = [c for c, k in enumerate(kept) if problem.beta[k].name == "flat"]
    place = [*normal, *flat]
    for i, c in enumerate(kept):
        prior = problem.beta[c]
        if prior.name == "normal":
            mean[i] = prior.args[0]
        elif prior.name != "flat":
            mean[i] = prior.args[0] if prior.name == "fixed" else hyper[problem.beta_keys[c]]
    mean[place] += b[: len(place)]
    spread[np.ix_(place, place)] = cov[: len(place), : len(place)]
    return float(value), back @ mean, np.sqrt(np.diag(back @ spread @ back.T))


def close(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> bool:
    return bool(np.all(np.abs(actual - expected) < tolerance * (1.0 + np.abs(expected))))


@pytest.mark.parametrize("block", range(4))
def test_gains_and_coefficients_are_the_dense_ones_for_every_feature(block: int) -> None:
    """Layouts x errors x intercepts, poolings and slope priors in turn, two nodes; gains are known up to a constant."""
    for seed in range(block, len(FEATURES), 4):
        problem, hypers, inner, theta = case(seed, nodes=2, **FEATURES[seed])
        found, kept = scaled(inner, theta), problem.kept()
        base = np.array([dense_log_marginal(problem, h) for h in hypers])
        for alpha in ALPHAS:
            expected: dict[str, list[float]] = {"coefficient_prior": [], "likelihood": [], "observations": []}
            for s, h in enumerate(hypers):
                wider = wider_prior(problem, alpha)
                sharper, value = observations(problem, h, alpha)
                expected["observations"].append(value)
                prior = dense_log_marginal(wider, h) + (alpha - 1) * explored_log_prior(problem, h)
                expected["coefficient_prior"].append(prior)
                value, mean, sd = likelihood(problem, h, alpha)
                expected["likelihood"].append(value)
                if not len(kept):
                    continue
                got = found["likelihood", alpha]
                assert close(got.beta_mean[s, kept], mean, 1e-7), (seed, "mean")
                assert close(np.sqrt(got.beta_var[s, kept]), sd, 1e-7), (seed, "sd")
                for name, model in (("coefficient_prior", wider), ("observations", sharper)):
                    oracle = dense_conditional(model, h)
                    want = np.array([oracle[f"beta[{problem.columns[k]}]"] for k in kept])
                    got = found[name, alpha]
                    assert close(got.beta_mean[s, kept], want[:, 0], 1e-7), (seed, name)
                    assert close(np.sqrt(got.beta_var[s, kept]), want[:, 1], 1e-6), (seed, name)
            for name, values in expected.items():
                gain = np.array(values) - base
                assert close(np.diff(found[name, alpha].log_ratio), np.diff(gain), 1e-7), (seed, name, alpha)


def test_hyperpriors_are_powered_without_jacobians() -> None:
    for seed, features in enumerate(FEATURES[::5]):
        problem, hypers, inner, theta = case(seed, nodes=3, **features)
        priors = hyper_priors(problem)
        flat = dataclasses.replace(problem, beta=tuple(Dist("flat") for _ in problem.beta))
        expected = np.array([log_prior_hyper(flat, h, priors) for h in hypers])
        hyperprior, coefficients = log_prior_parts(inner.hyper, theta)
        assert hyperprior == pytest.approx(expected, rel=1e-10, abs=1e-10)
        assert coefficients == pytest.approx([explored_log_prior(problem, h) for h in hypers], rel=1e-10, abs=1e-10)
        gain = scaled(inner, theta)["hyperprior", 1.3].log_ratio
        assert np.diff(gain) == pytest.approx(0.3 * np.diff(expected), rel=1e-9, abs=1e-10)


def test_ratio_of_priors_is_the_ratio_of_their_densities() -> None:
    problem, hypers, inner, theta = case(3, nodes=4, layout="one", q=3, blocks="correlated", errors="sigma",
                                         pooling="partial")  # fmt: skip
    old = hyper_priors(problem)
    new: dict[str, Any] = {label: fi.exponential(0.4) for label in old} | {
        "cor_a": fi.lkj(4),
        "sigma": fi.half_normal(2),
    }
    expected = [log_prior_hyper(problem, h, new) - log_prior_hyper(problem, h, old) for h in hypers]
    assert log_prior_ratio(inner.hyper, new, theta) == pytest.approx(expected, rel=1e-9, abs=1e-10)
    outside = dataclasses.replace(
        inner.hyper.coordinates[inner.hyper.sigma_at],
        prior=fi.uniform(0, 3),  # type: ignore[type-var]
    )
    at = inner.hyper.sigma_at
    bounded = dataclasses.replace(
        inner.hyper, coordinates=(*inner.hyper.coordinates[:at], outside, *inner.hyper.coordinates[at + 1 :])
    )
    assert log_prior_ratio(bounded, {"sigma": fi.half_normal(2)}, theta) is None  # beyond 3 there are no nodes
    assert log_prior_ratio(bounded, {"sigma": fi.uniform(0, 2)}, theta) is not None


def test_correlated_errors_are_scaled_as_a_whole() -> None:
    """Known V: N(y; X beta, tau^2 I + V)^alpha and p(y | u)^alpha against dense normal densities."""
    rng = np.random.default_rng(5)
    A = rng.normal(size=(3, 3))
    V = np.zeros((8, 8))
    V[:3, :3] = A @ A.T + np.eye(3)
    V[3:5, 3:5] = [[2.0, 0.9], [0.9, 1.0]]
    V[5:, 5:] = np.diag([0.5, 1.0, 3.0])
    y = rng.normal(size=8) * 2.0
    fit = fi.meta(y, V=V, priors={"Intercept": fi.normal(0.5, 2.0)})
    theta = np.log(np.array([[0.3], [1.0], [2.5]]))
    base, found = power_scaled(fit.inference, theta, ALPHAS)

    def normal(r: np.ndarray, C: np.ndarray) -> float:
        return -0.5 * (len(r) * LOG_2PI + np.linalg.slogdet(C)[1] + r @ np.linalg.solve(C, r))

    ones, r = np.ones((8, 8)), y - 0.5
    for alpha in ALPHAS:
        likelihood, rows, mean = [], [], []
        for tau in np.exp(theta[:, 0]):
            total = tau**2 * np.eye(8) + V
            plain = normal(r, total + 4.0 * ones)
            value = normal(r, total / alpha + 4.0 * ones) + 0.5 * (1 - alpha) * np.linalg.slogdet(total)[1]
            likelihood.append(value - plain)
            sharper = tau**2 * np.eye(8) + V / alpha
            rows.append(normal(r, sharper + 4.0 * ones) - plain)
            mean.append(0.5 + 4.0 * np.ones(8) @ np.linalg.solve(sharper + 4.0 * ones, r))
        assert np.diff(found["likelihood", alpha].log_ratio) == pytest.approx(np.diff(likelihood), rel=1e-8)
        assert np.diff(found["observations", alpha].log_ratio) == pytest.approx(np.diff(rows), rel=1e-8)
        assert found["observations", alpha].beta_mean[:, 0] == pytest.approx(mean, rel=1e-8)
    assert base.beta_var.shape == (3, 1)


def test_group_effects_under_scaled_rows() -> None:
    """Every coefficient, not only the population's, has the posterior of a model with smaller errors."""
    from finetti.inference.conditional import GaussianConditional

    problem, hypers, inner, theta = case(11, nodes=1, layout="mixed", errors="weights", pooling="partial",
                                         intercept="normal")  # fmt: skip
    sharper, _ = observations(problem, hypers[0], 1.3)
    oracle = dense_conditional(sharper, hypers[0])
    conditional = GaussianConditional(scaled_observations(inner, 1.3))
    for f in problem.factors:
        (batch,) = conditional.groups(f.name, theta)
        want = np.array([oracle[label][0] for label in f.labels]).reshape(batch.deviation.shape[1:])
        assert batch.deviation[0] == pytest.approx(want, rel=1e-7, abs=1e-8)
