"""NUTS as a machine: reproducible, the same through C and through Python, thinned, extended, and loud."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest

import finetti as fi
from finetti.errors import FinettiWarning, InferenceError
from finetti.inference import sampling
from finetti.inference.convergence import chain_errors, convergence
from finetti.inference.fallback import fit_mixture
from finetti.inference.gaussian import GaussianInner
from finetti.inference.infer import infer
from finetti.inference.joint import Joint, build_joint
from finetti.inference.modes import Modes
from finetti.inference.nuts import sample
from finetti.inference.precondition import preconditioned
from finetti.inference.sampled import SampledConditional
from finetti.posterior.fit import Fit

Array = np.ndarray


def dyestuff_joint() -> Joint:
    inner = GaussianInner.build(fi.Model("Yield ~ 1 + (1 | Batch)").bind(fi.datasets.load("dyestuff")))
    return preconditioned(build_joint(inner, np.array([3.8, 3.9])), np.diag([0.14, 0.02]))


@dataclass(frozen=True)
class Plain:
    """The same density, called as a Python function."""

    joint: Joint
    on_tape: bool = False

    @property
    def dim(self) -> int:
        return self.joint.dim

    def __call__(self, z: Array) -> tuple[float, Array]:
        return self.joint(z)

    def decode(self, z: Array) -> Array:
        return self.joint.decode(z)


def run(density: object, seed: int = 3, **options: int) -> Array:
    starts = np.random.default_rng(0).normal(size=(4, density.dim))  # type: ignore[attr-defined]
    settings = {"warmup": 100, "draws": 60} | options
    return sample(density, starts, seed=np.random.SeedSequence(seed), **settings).x  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_draws_and_another_does_not() -> None:
    joint = dyestuff_joint()
    first = run(joint)
    assert np.array_equal(first, run(joint)) and first.shape == (4, 60, joint.dim)
    assert not np.any(first == run(joint, seed=4))
    # every chain has a stream of its own (a draw may repeat the one before)
    assert len(np.unique(first[:, :, 0])) > 0.9 * first[:, :, 0].size


def test_through_python_and_through_c_the_chains_are_the_same() -> None:
    joint = dyestuff_joint()
    np.testing.assert_array_equal(run(joint), run(Plain(joint)))


def test_thinning_keeps_every_kth_draw() -> None:
    joint = dyestuff_joint()
    np.testing.assert_array_equal(run(joint)[:, ::5], run(joint, thin=5))


def test_progress_is_reported_and_complete() -> None:
    joint, seen = dyestuff_joint(), []
    starts = np.full((2, joint.dim), 0.1)
    sample(
        joint, starts, warmup=100, draws=4000, seed=np.random.SeedSequence(0),
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert all(0 <= done <= total == 8200 for done, total in seen)


def test_a_start_without_density_is_an_error_in_words() -> None:
    joint = dyestuff_joint()
    with pytest.raises(InferenceError, match="method='exact'"):
        sample(joint, np.full((1, joint.dim), 1e9), warmup=10, draws=10, seed=np.random.SeedSequence(0))


def test_standard_errors_of_independent_and_of_stuck_chains() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 2000))
    errors = chain_errors(x)
    assert 0.8 < errors.mean / (1 / np.sqrt(8000)) < 1.25
    assert 0.8 < errors.sd / np.sqrt(0.5 / 8000) < 1.25
    for p, density, e in zip((0.05, 0.5, 0.95), (0.1031, 0.3989, 0.1031), errors.quantiles, strict=True):
        assert 0.7 < e / (np.sqrt(p * (1 - p) / 8000) / density) < 1.4
    stuck = convergence({"fine": x, "stuck": x + np.arange(4)[:, None], "constant": np.zeros((4, 10))})
    assert stuck.rhat > 1.2 and stuck.rhat_at == "stuck" and stuck.bulk_at == "stuck" and not stuck.ok
    assert convergence({"fine": x}).ok


def sleep(**options: object) -> Fit:
    return fi.fit(
        "Reaction ~ 1 + Days + (1 + Days | Subject)", fi.datasets.load("sleepstudy"), method="nuts", **options
    )  # type: ignore[arg-type]


def test_everything_that_a_fit_offers() -> None:
    fit = sleep(draws=1000)
    table, d = fit.summary(), fit.diagnostics
    assert d.ok and d.method == "nuts" and d.chains == 4 and d.rhat < 1.01 and min(d.ess_bulk, d.ess_tail) > 1000
    assert any("R-hat" in line for line in d.lines()) and "not built" not in " ".join(d.lines())
    # chains as they were: four of them, thinned to what was asked for
    assert fit.posterior.sizes["chain"] == 4 and fit.posterior.sizes["draw"] == 250
    theta = fit.inference.hyper.theta.reshape(4, -1, 4)
    first = fit.posterior["sigma"].to_numpy()
    assert np.all(np.isin(np.round(first, 9), np.round(np.exp(theta[:, :, 3]), 9)))
    u = fit.draws("u_Subject[308, Days]") + fit.draws("beta[Days]")
    row = fit.groups().query("level == '308' and coefficient == 'Days'").iloc[0]
    assert abs(u.mean() - row["mean"]) < 5 * row["sd"] / np.sqrt(1000)
    assert table.loc["sigma", "mcse"] < 0.05 * table.loc["sigma", "sd"]
    new = fit.predict(pd.DataFrame({"Days": [3.0], "Subject": ["x"]}), groups="new", kind="response")
    assert new.loc[0, "sd"] > 30.0
    assert fit.to_arviz().log_likelihood.sizes["chain"] == 4
    with pytest.raises(InferenceError, match="evidence"):
        fit.evidence()
    assert fit.compare_groups(pairs=[("308", "309")]) is not None


def test_group_moments_are_those_of_the_draws_and_owe_nothing_to_the_exact_step() -> None:
    fit = sleep()
    sampled = fit.inference.sampled
    assert sampled is not None and sampled.u is not None and sampled.beta is not None
    days = sampled.beta[:, 1, None] + sampled.u["Subject"][:, :, 1]
    table = fit.groups(probs=(0.1, 0.9)).query("coefficient == 'Days'")
    np.testing.assert_allclose(table["mean"], days.mean(axis=0))
    np.testing.assert_allclose(table["sd"], days.std(axis=0))
    np.testing.assert_allclose(table[["q10", "q90"]].T, np.quantile(days, [0.1, 0.9], axis=0))
    conditional = fit.inference.conditional
    assert isinstance(conditional, SampledConditional)
    assert np.array_equal(conditional.positions(conditional.theta[[5, 17]]), [5, 17])


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("y ~ 1 + x", {"priors": {"sigma": fi.fixed(1.0)}}),
        ("y ~ 1 + x + (1 | g)", {"pooling": "none"}),
        ("y ~ 1 + x + (1 | g)", {"pooling": "complete"}),
        ("y ~ 1 + x + (1 | g)", {"pooling": "empirical"}),
        ("y ~ 1 + x + (1 + x | g) + (1 | h)", {"pooling": {"g": "empirical"}}),
        ("y ~ 1 + x + (1 | g)", {"priors": {"beta[x]": fi.student_t(3, 0, 1), "sd": fi.dumouchel(1.0)}}),
    ],
)
def test_every_kind_of_pooling_agrees_with_the_exact_path(formula: str, options: dict) -> None:  # type: ignore[type-arg]
    rng = np.random.default_rng(2)
    g, h = np.arange(60) % 6, rng.integers(0, 4, 60)
    x = rng.normal(size=60)
    y = 100.0 + x + rng.normal(size=6)[g] + 0.5 * rng.normal(size=4)[h] + rng.normal(size=60)
    data = {"y": y, "x": x, "g": [f"g{k}" for k in g], "h": [f"h{k}" for k in h]}
    nuts, exact = (fi.fit(formula, data, method=m, **options) for m in ("nuts", "exact"))
    a, b = nuts.summary(), exact.summary()
    moving = b["sd"] > 0
    assert np.array_equal(a["mean"].isna(), b["mean"].isna())
    error = 5.0 * (a["mcse"] + b["mcse"].fillna(0.0) + 0.002 * b["sd"])
    assert np.all(((a["mean"] - b["mean"]).abs() <= error)[moving])
    assert np.all(((a["sd"] / b["sd"] - 1.0).abs() < 0.1)[moving])
    for name in nuts.group_names:
        np.testing.assert_allclose(nuts.groups(name)["sd"], exact.groups(name)["sd"], rtol=0.15)


def test_large_models_are_thinned_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MOST_VALUES", 4 * 200 * 42)
    fit = sleep()
    assert fit.diagnostics.draws == 200 and fit.diagnostics.thin == 5
    assert "every 5th" in " ".join(fit.diagnostics.lines())


def test_chains_that_disagree_are_loud() -> None:
    fit = sleep()
    sampled = fit.inference.sampled
    assert sampled is not None
    broken = replace(sampled, divergences=3, convergence=replace(sampled.convergence, rhat=1.3, bulk=20.0))
    fit = Fit(replace(fit.inference, sampled=broken), fit.n_draws, fit.seed)
    assert not fit.diagnostics.ok
    told = " ".join(fit.diagnostics.warnings)
    assert all(word in told for word in ("R-hat 1.300", "3 divergent", "effective sample is too small", "priors"))
    with pytest.warns(FinettiWarning, match="chains do not agree"):
        fit.summary()


def test_a_method_that_is_asked_for_is_used() -> None:
    bound = fi.Model("Yield ~ 1 + (1 | Batch)").bind(fi.datasets.load("dyestuff"))
    assert infer(bound, "nuts").method == "nuts" and infer(bound, "auto").method == "exact"
    again = infer(bound, "nuts", seed=1), infer(bound, "nuts", seed=1)
    assert np.array_equal(again[0].hyper.theta, again[1].hyper.theta)


def test_a_mixture_fitted_to_draws_covers_each_mode() -> None:
    rng = np.random.default_rng(0)
    draws = np.concatenate([rng.normal(size=(1000, 2)), rng.normal(size=(1000, 2)) * 0.1 + [8.0, 0.0]])
    modes = Modes(np.array([[0.0, 0.0]]), np.zeros(1), np.eye(2)[None], True, 0.0, 1)
    mixture = fit_mixture(draws, modes, rng)
    log_q = mixture.log_density(draws)
    truth = np.where(
        draws[:, 0] < 5, -0.5 * np.sum(draws**2, axis=1), 4.6 - 50 * np.sum((draws - [8.0, 0.0]) ** 2, axis=1)
    )
    truth = truth - np.log(2 * np.pi) - np.log(2.0)
    assert np.max(truth - log_q) < 2.5  # nowhere is the proposal much thinner than what it proposes for
