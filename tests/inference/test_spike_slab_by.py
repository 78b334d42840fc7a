"""Groups of tests with priors of their own: integrals against dense grids, slopes, draws, curves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from finetti.inference.hyper import Settings, explore
from finetti.inference.spike_slab import Observed, make_slab
from finetti.inference.spike_slab_by import CategoryTarget, Grouped
from finetti.inference.spike_slab_by_curve import CurveTarget, curve_basis
from finetti.inference.spike_slab_by_priors import ByHyper, spread_priors
from finetti.inference.spike_slab_priors import Hyper, resolve_priors
from finetti.model.densities import Fixed
from tests.studies.screen_by_oracle import group_log_marginal, share_marginals

# theta as the lattice takes it: typical, narrow, without spread, and as wide as it is seldom
TYPICAL, NARROW, NONE, WIDE = (
    (2.3, 1.0, 1.2, 0.4, 0.1, 1.1), (2.3, 0.1, 1.2, 0.1, 0.0, 1.0), (1.0, 0.0, 1.0, 0.5, 0.0, 1.0),
    (3.0, 2.5, 0.7, 1.0, 0.0, 0.95),
)  # fmt: skip


def made(n: int, pi0: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, n])
    se = rng.uniform(0.5, 2.0, n)
    return np.where(rng.random(n) < pi0, 0.0, rng.normal(0.0, 4.0, n)) + se * rng.normal(size=n), se


def grouped(x: np.ndarray, se: np.ndarray, group: np.ndarray, df: float = np.inf) -> Grouped:
    tests = Observed.of(x, se, np.full(x.size, df))
    return Grouped.of(Observed(tests.z, tests.se, tests.df, group, tests.count))


def integral(g: Grouped, six: tuple[float, ...], slab: str = "normal", slopes: bool = False) -> np.ndarray:
    """What the lattice says of the first group, its log marginal with all constants."""
    out, _ = g.integrate(make_slab(slab), np.array([six]), np.zeros((1, g.n_groups, 2)), slopes)
    out[0, 0, 0] += g.tests.constant - g.tests.n * np.log(six[5])
    return out[0, 0]


@pytest.mark.parametrize(("n", "pi0"), [(1, 0.9), (3, 0.0), (5, 1.0), (30, 1.0), (30, 0.7), (300, 1.0), (300, 0.9)])
@pytest.mark.parametrize(("six", "tolerance"), [(TYPICAL, 3e-5), (NARROW, 1e-7), (NONE, 3e-5), (WIDE, 1e-3)])
def test_the_marginal_of_a_group_is_that_of_a_dense_grid(
    n: int, pi0: float, six: tuple[float, ...], tolerance: float
) -> None:
    x, se = made(n, pi0)
    found = integral(grouped(x, se, np.zeros(n, np.int64)), six)
    value, square, share = group_log_marginal(x, se, six, 120 if n == 300 else 200)
    assert found[0] == pytest.approx(value, abs=tolerance)
    assert found[2] == pytest.approx(square, abs=10.0 * tolerance)
    assert found[5] == pytest.approx(share, abs=10.0 * tolerance)


@pytest.mark.parametrize(("slab", "df"), [("laplace", np.inf), ("student_t", np.inf), ("normal", 5.0)])
def test_other_slabs_and_errors(slab: str, df: float) -> None:
    x, se = made(4, 0.5, seed=3)
    six = (1.5, 0.8, 1.2, 0.3, 0.0, 1.0)
    found = integral(grouped(x, se, np.zeros(4, np.int64), df), six, slab)
    assert found[0] == pytest.approx(group_log_marginal(x, se, six, 26, 6.0, slab, df)[0], abs=1e-4)


def test_a_large_group() -> None:
    n = 40_000
    x, se = made(n, 0.9)
    found = integral(grouped(x, se, np.zeros(n, np.int64)), TYPICAL)
    u, v, uu, uv, vv = found[11:16]
    wide_u, wide_v = 8.0 / np.sqrt(uu - uv**2 / vv), 8.0 / np.sqrt(vv - uv**2 / uu)
    assert wide_u < 0.6  # much narrower than the prior
    box = (u - wide_u, u + wide_u, v - wide_v, v + wide_v)
    assert found[0] == pytest.approx(group_log_marginal(x, se, TYPICAL, 34, box=box)[0], abs=1e-4)


def targets(curve: bool, df: float = np.inf, slab: str = "normal") -> CategoryTarget | CurveTarget:
    rng = np.random.default_rng(4)
    n, G = 120, 6
    group = np.arange(n) % G
    x, se = made(n, 0.8, seed=5)
    hyper = ByHyper(
        Hyper(resolve_priors(None, "free", float(np.median(se))), float(np.median(se))), spread_priors(None)[0]
    )
    g = grouped(x, se, group[rng.permutation(n)], df)
    if not curve:
        return CategoryTarget(g, make_slab(slab), hyper)
    return CurveTarget(g, make_slab(slab), hyper, curve_basis(np.arange(float(G)), g.sizes))


@pytest.mark.parametrize(("slab", "df"), [("normal", np.inf), ("normal", 6.0), ("laplace", np.inf)])
def test_gradient_of_the_posterior(slab: str, df: float) -> None:
    target = targets(False, df, slab)
    theta = target.starts()
    value, slope = target.gradient(theta)
    h = 1e-3
    for k in range(theta.shape[1]):
        step = h * np.eye(theta.shape[1])[k]
        up, down = target.log_density(theta + step)[0], target.log_density(theta - step)[0]
        np.testing.assert_allclose(slope[:, k], (up - down) / (2.0 * h), atol=0.02)
    np.testing.assert_allclose(value, target.log_density(theta)[0], atol=1e-5)


def test_draws_of_groups_follow_the_integrals() -> None:
    target = targets(False)
    theta = np.repeat(target.starts()[:1], 400, axis=0)
    a, t = target.draw(theta, 20, np.array([1]))
    six = target.hyper.six(theta[:1])
    out, _ = target.grouped.integrate(target.slab, six, target.near(six))
    u, v = (a - six[0, 0]) / six[0, 1], (t - six[0, 2]) / six[0, 3]
    for x, first, second in ((u, 1, 2), (v, 3, 4)):
        error = 5.0 * x.std(axis=(0, 2)) / np.sqrt(400)  # 20 draws of one lattice are not independent
        assert np.all(np.abs(x.mean(axis=(0, 2)) - out[0, :, first]) < error)
        np.testing.assert_allclose((x**2).mean(axis=(0, 2)), out[0, :, second], rtol=0.25)
    # shifted lattices fill the line: neighbours are closer than its points
    assert np.max(np.diff(np.sort(u[:, 0].ravel())[80:-80])) < 0.2


def test_posterior_of_the_spread_on_a_grid() -> None:
    rng = np.random.default_rng(11)
    n = 60
    group = np.arange(n) % 3
    x = np.where(rng.random(n) < np.array([0.5, 0.8, 0.95])[group], 0.0, rng.normal(0.0, 4.0, n)) + rng.normal(size=n)
    priors = resolve_priors({"slab_sd": Fixed(4.0)}, "theoretical", 1.0)
    spreads = spread_priors({"sd_slab_sd": Fixed(0.0)})[0]
    target = CategoryTarget(grouped(x, np.ones(n), group), make_slab("normal"), ByHyper(Hyper(priors), spreads))
    assert target.names == ("pi0", "sd_pi0")
    found = explore(target, 0, Settings())
    m, log_s = np.linspace(-2, 9, 60), np.linspace(-7, 2, 50)
    theta = np.stack([a.ravel() for a in np.meshgrid(m, log_s, indexing="ij")], axis=1)
    value = share_marginals(x, group, m, np.exp(log_s), 4.0).ravel()
    value += target.hyper.log_prior(theta)
    w = np.exp(value - value.max())
    w /= w.sum()
    natural, mine = target.hyper.natural(theta), target.hyper.natural(found.theta)
    for name in target.names:
        mean = w @ natural[name]
        sd = np.sqrt(w @ (natural[name] - mean) ** 2)
        assert found.weights @ mine[name] == pytest.approx(mean, abs=0.05 * sd)
        assert np.sqrt(found.weights @ (mine[name] - mean) ** 2) == pytest.approx(sd, rel=0.05)
    evidence = np.log(np.exp(value - value.max()).sum()) + value.max() + np.log((m[1] - m[0]) * (log_s[1] - log_s[0]))
    assert found.log_evidence == pytest.approx(evidence, abs=0.02)


def test_posterior_of_a_curve_on_a_grid() -> None:
    rng = np.random.default_rng(12)
    n = 80
    group = np.repeat([0, 1], [50, 30])
    x = np.where(rng.random(n) < np.array([0.95, 0.5])[group], 0.0, rng.normal(0.0, 4.0, n)) + rng.normal(size=n)
    priors = resolve_priors({"slab_sd": Fixed(4.0), "pi0": Fixed(0.8)}, "theoretical", 1.0)
    g = grouped(x, np.ones(n), group)
    B = curve_basis(np.array([1.0, 5.0]), g.sizes)  # two values: one term
    target = CurveTarget(
        g, make_slab("normal"), ByHyper(Hyper(priors), spread_priors({"sd_slab_sd": Fixed(0.0)})[0]), B
    )
    assert target.names == ("sd_pi0", "c[1]", "d[1]")
    found = explore(target, 0, Settings(), first=target.first())
    log_s, c = np.linspace(-7, 2, 90), np.linspace(-6, 6, 241)
    a = np.log(4.0) + np.exp(log_s)[:, None, None] * c[:, None] * B[:, 0]
    value = np.broadcast_to(-0.5 * c**2, (90, 241)).copy()
    f0, f1 = np.exp(-0.5 * x**2), np.exp(-0.5 * x**2 / 17.0) / np.sqrt(17.0)
    for j in range(n):
        p = 1.0 / (1.0 + np.exp(-a[:, :, group[j]]))
        value += np.log(p * f0[j] + (1.0 - p) * f1[j])
    value += target.hyper.log_prior(log_s[:, None])[:, None]
    w = np.exp(value - value.max())
    w /= w.sum()
    for values, mine in (
        (np.broadcast_to(np.exp(log_s)[:, None], w.shape), target.hyper.natural(found.theta)["sd_pi0"]),
        (a[:, :, 1], found.payload[2][:, 1]), (expit(a[:, :, 0]), expit(found.payload[2][:, 0])),
    ):  # fmt: skip
        mean = np.sum(w * values)
        sd = np.sqrt(np.sum(w * (values - mean) ** 2))
        assert found.weights @ mine == pytest.approx(mean, abs=0.05 * sd)
        assert np.sqrt(found.weights @ (mine - mean) ** 2) == pytest.approx(sd, rel=0.06)
    z = found.theta[:, 1:]
    assert np.all(np.abs(found.weights @ z) < 0.5) and np.all(np.abs(found.weights @ z**2 - 1.0) < 0.8)


def test_newton_finds_the_conditional_mode_of_a_curve() -> None:
    target = targets(True)
    assert isinstance(target, CurveTarget)
    theta = target._first[:2]
    six = target.hyper.six(theta)
    w, value, L = target._newton(six, target._start(six), 25)
    again, _, _ = target._newton(six, np.zeros_like(w), 25)
    for k in range(w.shape[1]):
        for side in (-0.3, 0.3):
            step = side * np.eye(w.shape[1])[k] / np.sqrt(np.einsum("sij,sij->si", L, L)[:, k, None])
            assert np.all(target._look(six, w + step)[0] < value)
    assert np.max(np.abs(w - again)) < 0.3
