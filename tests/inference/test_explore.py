"""The outer step on targets with known answers: right within what it reports, reproducible, and loud when it fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats

import finetti as fi
from finetti.errors import InferenceError
from finetti.inference.hyper import UPPER_90, HyperPosterior, Settings, explore
from finetti.inference.infer import infer
from finetti.posterior.fit import Fit
from tests.inference.targets import Analytic, bimodal, gaussian, skewed

# name, target, number of nodes at most: what the design promises for such easy shapes
EASY = [(f"gaussian {d}", gaussian(d), 4096) for d in range(1, 7)]
EASY += [("skewed 1", skewed(1), 8192), ("skewed 3", skewed(3), 4096), ("two modes", bimodal(4.0), 8192)]
EASY += [("far modes", bimodal(9.0), 8192)]

# replicates are 16: their spread has 15 degrees of freedom
T15 = scipy.stats.t(15)


def moments(r: HyperPosterior) -> tuple[np.ndarray, ...]:
    return r.weighted.moments(r.theta, None if r.surrogate is None else r.surrogate.theta)


def scores(r: HyperPosterior, target: Analytic) -> np.ndarray:
    """Errors of means, sds and 5, 50, 95 % quantiles of every coordinate, in reported standard errors."""
    mean, sd, mean_e, sd_e = moments(r)
    out = [(mean - target.mean) / mean_e, (sd - target.sd) / sd_e]
    probs = np.array([0.05, 0.5, 0.95])
    for j in range(len(target.names)):
        dense = None if r.surrogate is None else r.surrogate.theta[:, [j]]
        q, e = (a[:, 0] for a in r.weighted.quantiles(r.theta[:, [j]], dense, probs))
        out.append((q - np.array([target.quantile(p)[j] for p in probs])) / e)
    return np.concatenate(out)


def errors(r: HyperPosterior, target: Analytic) -> tuple[float, float]:
    """Largest error of means and sds, in posterior sds, and of the quantiles, where the target is set: warped."""
    mean, sd, *_ = moments(r)
    first = max(np.max(np.abs(mean - target.mean) / target.sd), np.max(np.abs(sd - target.sd) / target.sd))
    worst = 0.0
    for j in range(len(target.names)):
        dense = None if r.surrogate is None else r.surrogate.theta[:, [j]]
        q = r.weighted.quantiles(r.theta[:, [j]], dense, np.array([0.05, 0.5, 0.95]))[0][:, 0]
        truth = np.array([target.quantile(p)[j] for p in (0.05, 0.5, 0.95)])
        both = np.tile(r.theta[0], (6, 1))
        both[:, j] = np.concatenate([q, truth])
        phi = r.proposal.warp.inverse(both)[:, j]
        worst = max(worst, np.max(np.abs(phi[:3] - phi[3:])) / r.sd[j])
    return float(first), float(worst)


@pytest.mark.parametrize(("name", "target", "most"), EASY, ids=[e[0] for e in EASY])
def test_the_error_target_is_met_and_true(name: str, target: Analytic, most: int) -> None:
    """Three seeds: 2 % of an sd for means and sds, 5 % for quantiles, with the luck of about a hundred comparisons."""
    for seed in range(3):
        r = explore(target, seed)
        assert r.reliable and r.n_nodes <= most
        first, quantiles = errors(r, target)
        assert first < 3.5 * 0.02 / UPPER_90 and quantiles < 3.5 * 0.05 / UPPER_90
        assert abs(r.log_evidence - target.log_integral) < 6.0 * r.log_evidence_mcse + 1e-6


def test_reported_errors_are_the_real_ones() -> None:
    """All comparisons of the easy targets, 3 seeds: none beyond a t of 15 df allows at 1e-4 in all, and spread about 1.

    The dense points of the surrogate are one more source of error: it must be in what is reported.
    """
    z = np.concatenate([scores(explore(t, seed), t) for _, t, _ in EASY for seed in range(3)])
    assert np.abs(z).max() < T15.isf(0.5e-4 / z.size)
    # errors of a coordinate go together: a generous band for the mean square (15/13 for a t of 15 df)
    assert 0.2 < np.mean(z**2) < 2.5


@pytest.mark.parametrize(
    ("target", "most"),
    [
        (gaussian(2, 0.01), 256),
        (gaussian(4, 0.01), 512),
        (skewed(2, 0.01), 2048),
    ],
    ids=["gaussian 2", "gaussian 4", "skewed 2"],
)  # fmt: skip
def test_dear_nodes_are_few_and_the_surrogate_makes_up_for_it(target: Analytic, most: int) -> None:
    for seed in range(3):
        r = explore(target, seed)
        assert r.met and r.n_nodes <= most
        first, _ = errors(r, target)
        assert first < 0.08


@pytest.mark.parametrize(
    "target", [skewed(3, 0.01), gaussian(6), gaussian(6, 0.01)], ids=["skewed 3", "cheap 6", "dear 6"]
)
def test_the_surrogate_never_does_worse_than_the_weights_alone(target: Analytic) -> None:
    """A polynomial between the nodes may not swamp them: moments stay near those of the plain weighted nodes."""
    for seed in range(4):
        r = explore(target, seed)
        mean, sd, *_ = moments(r)
        plain = r.weights @ r.theta
        plain_sd = np.sqrt(r.weights @ (r.theta - plain) ** 2)
        allowed = 6.0 / np.sqrt(r.effective_nodes)
        assert np.all(np.abs(mean - plain) < allowed * target.sd)
        assert np.all(np.abs(sd - plain_sd) < allowed * target.sd)


def test_a_mode_that_no_start_finds_is_found_by_the_wide_component() -> None:
    """Both starts climb the left mode; the second lies four of its sds away, where the safety component looks."""
    target = bimodal(4.0, starts=np.array([[0.2, 1.0], [-0.3, 0.8]]))
    r = explore(target, 1)
    assert r.modes is not None and len(r.modes.theta) == 1
    mean, *_ = moments(r)
    assert abs(mean[0] - target.mean[0]) < 0.1 * target.sd[0]


def test_both_modes_are_kept_with_their_mass() -> None:
    target = bimodal(9.0)
    r = explore(target, 3)
    assert r.modes is not None and len(r.modes.theta) == 2
    np.testing.assert_allclose(r.modes.theta[np.argsort(r.modes.theta[:, 0]), 0], [0.0, 9.0], atol=1e-3)
    right = r.theta[:, 0] > 5.0
    assert abs(float(r.weights @ right) - 0.3) < 0.02


def test_a_tighter_target_takes_more_nodes_and_keeps_its_word() -> None:
    target = skewed(2)
    loose = explore(target, 0, Settings(mean_error=0.05, quantile_error=0.1, min_nodes=256))
    tight = explore(target, 0, Settings(mean_error=0.004, quantile_error=0.01))
    assert loose.met and tight.met and loose.n_nodes < tight.n_nodes
    assert errors(tight, target)[0] < 3.5 * 0.004
    for r, settings in ((loose, 0.05), (tight, 0.004)):
        assert np.all(UPPER_90 * r.mean_mcse <= settings * r.sd) and np.all(UPPER_90 * r.sd_mcse <= settings * r.sd)


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    a, b, c = explore(skewed(3), 5), explore(skewed(3), 5), explore(skewed(3), 6)
    np.testing.assert_array_equal(a.theta, b.theta)
    np.testing.assert_array_equal(a.log_weights, b.log_weights)
    np.testing.assert_array_equal(moments(a), moments(b))
    assert a.theta.shape != c.theta.shape or not np.array_equal(a.theta, c.theta)


def test_replicates_are_equal_in_size_and_payloads_belong_to_their_nodes() -> None:
    r = explore(skewed(2), 0)
    assert r.n_replicates == 16 and np.ptp(np.bincount(r.replicate)) == 0
    np.testing.assert_array_equal(r.payload[0], r.theta**2)
    assert r.weights.sum() == pytest.approx(1.0)


def test_nan_densities_are_nodes_without_weight() -> None:
    """A density that is NaN on a half-plane: the rest is explored, and those nodes count for nothing."""
    base = gaussian(2)

    def density(t: np.ndarray) -> np.ndarray:
        return np.where(t[:, 0] > base.mean[0] + 2.5 * base.sd[0], np.nan, base.density(t))

    r = explore(Analytic(base.names, density, base.mean, base.sd, base.quantile, 0.0, base.mean), 0)
    assert r.weights[r.theta[:, 0] > base.mean[0] + 2.5 * base.sd[0]].sum() < 1e-12
    assert np.all(np.isfinite(r.weights))


def test_no_finite_start_is_an_error_with_advice() -> None:
    base = gaussian(1)
    nowhere = Analytic(
        base.names, lambda t: np.full(len(t), -np.inf), base.mean, base.sd, base.quantile, 0.0, base.mean
    )
    with pytest.raises(InferenceError, match="not finite at any starting point"):
        explore(nowhere, 0)


# -------------------------------------------------------------------------------------------- failures are said loudly
def cauchy(d: int) -> Analytic:
    """Independent Cauchy coordinates under a square root: tails far heavier than any proposal."""

    def density(t: np.ndarray) -> np.ndarray:
        return np.sum(-0.55 * np.log1p((t / 0.01) ** 2), axis=1)

    nothing = np.full(d, np.nan)
    return Analytic(
        tuple(f"x{k}" for k in range(d)), density, nothing, nothing, lambda p: nothing, np.nan, np.full(d, 0.001)
    )


def test_a_density_that_no_proposal_covers_is_not_called_reliable() -> None:
    r = explore(cauchy(2), 0, Settings(max_nodes=4096))
    assert not r.reliable


def starved(**settings: Any) -> Fit:
    """Sleepstudy with an error target that so few nodes cannot meet."""
    model = fi.Model("Reaction ~ 1 + Days + (1 + Days | Subject)")
    inference = infer(model.bind(fi.datasets.load("sleepstudy")), method="exact", settings=Settings(**settings))
    return Fit(inference, 400, 0)


def test_too_few_nodes_end_in_a_loud_warning() -> None:
    fit = starved(min_nodes=64, max_nodes=64, mean_error=1e-4)
    assert not fit.inference.hyper.met
    assert not fit.diagnostics.ok
    text = str(fit)
    assert "FAILED ITS OWN CHECKS" in text.splitlines()[0]
    assert "CHECKS FAILED: do not rely on these numbers." in text
    assert any("Monte Carlo error is above its target" in w for w in fit.diagnostics.warnings)


def test_a_fit_that_passes_says_nothing_of_the_kind() -> None:
    fit = fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", fi.datasets.load("sleepstudy"))
    assert fit.diagnostics.ok and "FAILED" not in str(fit) and "All checks passed." in str(fit)
    d = fit.diagnostics
    assert d.pareto_k < d.pareto_threshold and d.worst_mean_error <= 0.02 and d.worst_quantile_error <= 0.05
