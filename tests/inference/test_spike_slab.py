"""Spike and slab: densities against quadrature over the effect, gradients, grids, posteriors, maximum likelihood."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats as st

from finetti.errors import PriorError
from finetti.inference.modes import find_modes
from finetti.inference.spike_slab import Nodes, Observed, make_slab, mixture_slab
from finetti.inference.spike_slab_empirical import maximise, maximise_mixture, maximise_simplex
from finetti.inference.spike_slab_grids import error_grids, t_slab
from finetti.inference.spike_slab_posterior import COLUMNS, effects
from finetti.inference.spike_slab_priors import Exp, Hyper, resolve_priors
from finetti.inference.spike_slab_target import ScreenTarget, scan, sketch
from finetti.model.priors import beta, fixed, flat, gamma, half_cauchy, normal, uniform
from tests.studies.screen_oracle import error_density, integrals, node_table

SLABS = ("normal", "laplace", "student_t")
DFS = (np.inf, 2.5, 8.0, 60.0)
# x, se, slab sd: null, ordinary, far, extreme, a slab far narrower and far wider than the errors
POINTS = ((0.0, 1.0, 1.0), (1.3, 0.7, 2.0), (-6.0, 1.5, 0.4), (25.0, 1.0, 3.0), (4.0, 2.0, 0.02), (-12.0, 1.0, 60.0))


def one(x: float, se: float, df: float) -> Observed:
    return Observed.of(np.array([x]), np.array([se]), np.array([df]))


def made(n: int = 300, df: float | None = None, seed: int = 0) -> Observed:
    rng = np.random.default_rng(seed)
    se = rng.uniform(0.5, 2.0, n)
    error = rng.normal(size=n) if df is None else rng.standard_t(df, n)
    x = 1.1 * error * se + np.where(rng.random(n) < 0.2, rng.normal(0.0, 4.0, n), 0.0)
    return Observed.of(x, se, None if df is None else np.full(n, df))


# --------------------------------------------------------------------------------------------------------- densities
@pytest.mark.parametrize("df", DFS)
@pytest.mark.parametrize("slab", SLABS)
def test_marginal_densities_are_those_of_quadrature(slab: str, df: float) -> None:
    mu, kappa, pi0 = 0.1, 1.2, 0.7
    for x, se, sd in POINTS:
        tests = one(x, se, df)
        log_ratio, log_f0 = tests.log_ratio(make_slab(slab), np.array([sd]), np.array([mu]), np.array([kappa]))
        f0 = float(error_density(x, se, df, mu, kappa)(np.array(0.0)))
        f1 = integrals(x, se, df, mu, kappa, slab, sd)[0]
        assert np.exp(log_f0[0, 0]) == pytest.approx(f0, rel=1e-11)
        assert np.exp(log_ratio[0, 0] + log_f0[0, 0]) == pytest.approx(f1, rel=1e-8)
        value = tests.log_likelihood(make_slab(slab), Nodes.of(pi0, sd, mu, kappa))[0]
        assert value == pytest.approx(np.log(pi0 * f0 + (1.0 - pi0) * f1), abs=1e-8)


@pytest.mark.parametrize("df", [0.5, 1.0, 3.3, 10.0, 100.0, 1e5, 1e9])
def test_a_t_is_its_mixture_of_normals(df: float) -> None:
    grids = error_grids(np.array([df]), 40.0)
    part = slice(grids.ptr[1], grids.ptr[2])
    weight = np.exp(grids.log_weight[0] - grids.half_df[0] * grids.fall[part])
    for x in (0.0, 1.0, 3.0, 10.0, 35.0):
        if df > 1e4 and x > 20:
            continue  # below the smallest double
        value = float(weight @ st.norm.pdf(x, 0.0, np.sqrt(grids.v[part])))
        assert value == pytest.approx(st.t.pdf(x, df), rel=1e-9)
    assert grids.log_null[0] == pytest.approx(st.t.logpdf(0.0, df) + 0.5 * np.log(2.0 * np.pi), abs=1e-12)


def test_bands_of_many_different_df_are_as_good_as_grids_of_their_own() -> None:
    df = np.concatenate([np.linspace(1.5, 400.0, 60), [np.inf]])
    x, sd, node = 4.0, 2.0, (np.array([0.2]), np.array([1.1]))
    tests = Observed.of(np.full(61, x), np.ones(61), df)
    assert tests.grids.ptr.size < 20
    together = tests.log_ratio(make_slab("normal"), np.array([sd]), *node)
    for j in (0, 7, 30, 59, 60):
        alone = one(x, 1.0, df[j]).log_ratio(make_slab("normal"), np.array([sd]), *node)
        np.testing.assert_allclose([together[0][0, j], together[1][0, j]], [alone[0][0, 0], alone[1][0, 0]], atol=3e-9)


def test_the_t_slab_has_unit_variance_and_heavy_tails() -> None:
    log_c, w = t_slab(4.0)
    assert np.exp(log_c).sum() == pytest.approx(1.0, abs=1e-8)
    assert np.exp(log_c) @ w == pytest.approx(1.0, abs=1e-5)  # the variance rests on the far tail


@pytest.mark.parametrize("slab", SLABS)
@pytest.mark.parametrize("df", [None, 7.0])
@pytest.mark.parametrize("null", ["theoretical", "free"])
def test_the_gradient_is_that_of_differences(slab: str, df: float | None, null: str) -> None:
    hyper = Hyper(resolve_priors({"pi0": uniform(0.1, 0.95)} if df else None, null, 1.2))
    target = ScreenTarget(made(60, df), make_slab(slab), hyper)
    theta = hyper.theta(0.8, 2.5, 0.05, 1.1)
    value, slope = target.gradient(theta)
    assert value[0] == pytest.approx(target.log_density(theta)[0][0], rel=1e-12)
    step = 1e-5 * np.eye(theta.shape[1])
    rise = (target.log_density(theta + step)[0] - target.log_density(theta - step)[0]) / 2e-5
    np.testing.assert_allclose(slope[0], rise, rtol=1e-6, atol=1e-6)


def test_fast_and_general_kernels_agree_however_tests_are_counted() -> None:
    tests = made(5000)
    doubled = Observed(tests.z, tests.se, tests.df, tests.group, np.full(5000, 2.0))
    nodes = Nodes.of([0.9, 0.3, 1.0, 0.0], [3.0, 0.1, 2.0, 50.0], [0.0, 0.2, -1.0, 0.0], [1.0, 0.3, 1.2, 2.0])
    slab = make_slab("normal")
    np.testing.assert_allclose(2.0 * tests.log_likelihood(slab, nodes), doubled.log_likelihood(slab, nodes), rtol=1e-12)
    for a, b in zip(tests.gradient(slab, nodes), doubled.gradient(slab, nodes), strict=True):
        np.testing.assert_allclose(2.0 * a, b, rtol=1e-9, atol=1e-8)


def test_the_likelihood_is_a_sum_over_tests_and_over_groups() -> None:
    """Two groups with a pi0 and a slab of their own are two screens that share the null."""
    tests = made(9000)
    half = np.arange(9000) % 2
    both = Observed(tests.z, tests.se, tests.df, half.astype(np.int64), tests.count)
    nodes = Nodes(np.array([[0.9, 0.5]]), np.array([[0.1, 0.5]]), np.array([[2.0, 5.0]]), np.array([0.1]), np.ones(1))
    found = both.gradient(make_slab("normal"), nodes)
    parts = []
    for g in (0, 1):
        rows = half == g
        part = Observed.of(tests.z[rows] * tests.se[rows], tests.se[rows])
        parts.append(part.gradient(make_slab("normal"), Nodes.of(nodes.pi0[0, g], nodes.tau[0, g], 0.1, 1.0)))
    assert both.log_likelihood(make_slab("normal"), nodes)[0] == pytest.approx(
        parts[0][0][0] + parts[1][0][0], rel=1e-12
    )
    np.testing.assert_allclose(found[3][0], [p[3][0, 0] for p in parts], rtol=1e-9)
    np.testing.assert_allclose(found[4][0], [p[4][0, 0] for p in parts], rtol=1e-9)
    assert found[1][0] == pytest.approx(parts[0][1][0] + parts[1][1][0], rel=1e-9)


# --------------------------------------------------------------------------------------------------- posteriors of b
@pytest.mark.parametrize("df", [np.inf, 5.0])
@pytest.mark.parametrize("slab", SLABS)
def test_posteriors_of_effects_are_those_of_quadrature(slab: str, df: float) -> None:
    nodes = [(0.6, 1.0, 0.0, 1.0), (0.8, 3.0, 0.1, 1.2), (0.9, 0.2, -0.2, 0.9)]
    w = np.array([0.5, 0.3, 0.2])
    probs = np.array([0.01, 0.05, 0.5, 0.95, 0.999])
    packed = Nodes.of(*(np.array(a) for a in zip(*nodes, strict=True)))
    for x, se in ((2.5, 0.8), (-6.0, 1.5)):
        row = effects(one(x, se, df), make_slab(slab), packed, w, probs)[0]
        each = np.array([node_table(x, se, df, node, slab) for node in nodes])
        null, mean, second, below, above = w @ each
        found = dict(zip(COLUMNS, row, strict=False))
        assert found["prob_null"] == pytest.approx(null, rel=1e-7, abs=1e-9)
        assert found["mean"] == pytest.approx(mean, rel=1e-7, abs=1e-8)
        assert found["sd"] == pytest.approx(np.sqrt(second - mean**2), rel=1e-7)
        assert found["prob_negative"] == pytest.approx(below, rel=1e-7, abs=1e-9)
        assert found["prob_positive"] == pytest.approx(above, rel=1e-7, abs=1e-9)
        assert found["prob_null_sd"] == pytest.approx(np.sqrt(w @ (each[:, 0] - null) ** 2), abs=1e-7)
        assert found["mean_hyper_sd"] == pytest.approx(np.sqrt(w @ (each[:, 1] - mean) ** 2), rel=1e-6, abs=1e-7)
        for p, q in zip(probs, row[len(COLUMNS) :], strict=True):
            if q == 0.0:
                assert below - 1e-6 <= p <= 1.0 - above + 1e-6
                continue
            cdf = sum(
                wk * (nk[0] * (q > 0.0) + _mass_below(x, se, df, node, slab, q, nk[0]))
                for wk, nk, node in zip(w, each, nodes, strict=True)
            )
            assert cdf == pytest.approx(p, abs=2e-6)


def _mass_below(x: float, se: float, df: float, node: tuple[float, ...], slab: str, q: float, null: float) -> float:
    """P(b < q, b not null) at one node, by the trapezoidal rule on a fine grid of both sides of 0."""
    _, sd, mu, kappa = node
    grid = np.geomspace(1e-8, 400.0, 40_000)
    b = np.sort(np.concatenate([-grid, grid, [q]]))
    from tests.studies.screen_oracle import slab_density

    f = error_density(x, se, df, mu, kappa)(b) * slab_density(slab, sd)(b)
    cumulative = np.concatenate([[0.0], np.cumsum(0.5 * (f[1:] + f[:-1]) * np.diff(b))])
    return (1.0 - null) * float(np.interp(q, b, cumulative) / cumulative[-1])


def test_tiny_probabilities_are_not_rounded_to_zero() -> None:
    node = Nodes.of(0.9, 3.0, 0.0, 1.0)
    up, down = (
        effects(one(x, 1, np.inf), make_slab("normal"), node, np.ones(1), np.array([0.5]))[0] for x in (30, -30)
    )
    assert 0.0 < up[2] < 1e-100 and 0.0 < up[3] < 1e-100
    assert up[3] == pytest.approx(down[4], rel=1e-12) and up[4] == pytest.approx(down[3], rel=1e-12)


# --------------------------------------------------------------------------------------------------- modes and starts
def test_the_best_mode_beats_every_single_component_and_every_random_start() -> None:
    """A few large effects beside a wide bulk: two explanations, and the climbs from random places end at either."""
    rng = np.random.default_rng(3)
    z = np.concatenate([rng.normal(0.0, 1.3, 800), rng.normal(0.0, 9.0, 8)])
    tests = Observed.of(z, np.ones(z.size))
    for null in ("theoretical", "free"):
        hyper = Hyper(resolve_priors(None, null, 1.0))
        target = ScreenTarget(tests, make_slab("normal"), hyper)
        modes = find_modes(target.gradient, target.starts(), target.curvature())
        low, high = hyper.theta(0.02, 0.2, -0.5, 0.6), hyper.theta(0.999, 30.0, 0.5, 2.0)
        others = low + (high - low) * rng.random((40, low.shape[1]))
        best = find_modes(target.gradient, others, target.curvature()).height[0]
        assert modes.height[0] >= best - 1e-5
        alone = hyper.theta([1e-6, 1.0 - 1e-6], [1.5, 1.5], [0.0, 0.0], [1.0, 1.3])
        assert np.all(target.log_density(alone)[0] < modes.height[0])


def test_the_sketch_keeps_the_number_of_tests_and_the_shape_of_the_likelihood() -> None:
    tests = made(20_000)
    small = sketch(tests)
    assert small.n < 9000 and small.count.sum() == 20_000
    hyper = Hyper(resolve_priors(None, "free", 1.2))
    starts = scan(small, make_slab("normal"), hyper)
    assert 1 <= len(starts) <= 6
    nodes = Nodes.of([0.8, 0.9], [4.0, 3.0], 0.0, 1.1)
    rough, exact = (t.log_likelihood(make_slab("normal"), nodes) for t in (small, tests))
    assert np.diff(rough)[0] == pytest.approx(np.diff(exact)[0], rel=0.1)


# ------------------------------------------------------------------------------------------------- maximum likelihood
def test_maximum_likelihood_is_not_beaten_from_anywhere() -> None:
    tests = made(400, seed=5)
    for slab in SLABS:
        found = maximise(tests, make_slab(slab), resolve_priors(None, "theoretical", 1.2))
        pi0, sd = (a.ravel() for a in np.meshgrid(np.linspace(0.0, 1.0, 41), np.geomspace(0.05, 30.0, 60)))
        others = tests.log_likelihood(make_slab(slab), Nodes.of(pi0, sd, 0.0, 1.0))
        assert found.converged and found.log_likelihood >= others.max() - 1e-6
        assert found.log_likelihood == pytest.approx(tests.log_likelihood(make_slab(slab), found.nodes)[0], abs=1e-9)


def test_an_underdispersed_null_is_estimated_at_the_boundary() -> None:
    z = st.norm.ppf((np.arange(200) + 0.5) / 200) * 0.9
    found = maximise(Observed.of(z, np.ones(200)), make_slab("normal"), resolve_priors(None, "theoretical", 1.0))
    assert found.boundary == ("pi0", "slab_sd") and found.pi0 == 1.0 and found.slab_sd == 0.0
    assert found.log_likelihood == pytest.approx(st.norm.logpdf(z).sum(), rel=1e-12)
    # without the null N(0, 1), all tests are effects: sd^2 + 1 = 4
    wide = maximise(
        Observed.of(z * 2.0 / z.std(), np.ones(200)), make_slab("normal"), resolve_priors(None, "theoretical", 1.0)
    )
    assert wide.boundary == ("pi0",) and wide.pi0 == 0.0 and wide.slab_sd == pytest.approx(np.sqrt(3.0), rel=1e-4)


def test_the_certificate_of_the_mixture_bounds_what_is_lost() -> None:
    tests = made(500, seed=2)
    found = maximise_mixture(tests, resolve_priors(None, "theoretical", 1.2), 10.0)
    assert found.converged and 0.0 <= found.gap < 1e-6 * 500
    assert found.weight.sum() == pytest.approx(1.0) and found.weight[0] == found.pi0 and np.all(found.weight >= 0.0)
    slab, sd = mixture_slab(found.weight[1:], found.sd[1:])
    assert sd == pytest.approx(found.slab_sd)
    value = tests.log_likelihood(slab, Nodes.of(found.pi0, sd, 0.0, 1.0))[0]
    assert value == pytest.approx(found.log_likelihood, rel=1e-10)


def test_the_convex_programme_agrees_with_expectation_maximisation() -> None:
    rng = np.random.default_rng(0)
    L = np.exp(rng.normal(size=(200, 6)))
    for a in (1.0, 10.0):
        w, gap = maximise_simplex(L, a)
        em = np.full(6, 1.0 / 6.0)
        for _ in range(20_000):
            r = (L * em / (L @ em)[:, None]).sum(axis=0)
            r[0] += a - 1.0
            em = r / r.sum()
        assert gap < 1e-6 * 200
        np.testing.assert_allclose(w, em, atol=2e-4)

        def objective(w: np.ndarray, a: float = a) -> float:
            return float(
                np.log(L @ w).sum() + (a - 1.0) * np.log(max(w[0], 1e-300)) if a > 1.0 else np.log(L @ w).sum()
            )

        assert objective(w) - objective(em) + gap >= -1e-9


# ------------------------------------------------------------------------------------------------------------- priors
def test_priors_of_a_screen_are_checked() -> None:
    for given, words in (
        ({"pi": beta(1, 1)}, "no hyperparameter 'pi'"),
        ({"pi0": 0.9}, "is not a prior"),
        ({"pi0": normal(0.9, 0.1)}, "reaches beyond 0 and 1"),
        ({"slab_sd": normal(1, 1)}, "reaches below 0"),
        ({"slab_sd": flat()}, "improper"),
        ({"slab_sd": uniform()}, "improper"),
        ({"pi0": fixed(1.5)}, "between 0 and 1"),
        ({"slab_sd": fixed(0)}, "above 0"),
    ):
        with pytest.raises(PriorError, match=words):
            resolve_priors(given, "free", 1.0)
    with pytest.raises(PriorError, match="contradicts"):
        resolve_priors({"null_sd": gamma(2, 2)}, "theoretical", 1.0)
    assert str(resolve_priors({"null_sd": half_cauchy(1)}, "free", 1.0)["null_sd"]) == "half_cauchy(1)"


def test_exp_of_a_prior_is_a_density_with_its_slope() -> None:
    prior = Exp(normal(0.5, 0.8))
    x = np.array([0.1, 1.0, 4.0])
    np.testing.assert_allclose(prior.logpdf(x), st.lognorm.logpdf(x, 0.8, scale=np.exp(0.5)), rtol=1e-12)
    np.testing.assert_allclose(prior.dlogpdf(x), (prior.logpdf(x + 1e-6) - prior.logpdf(x - 1e-6)) / 2e-6, rtol=1e-6)
    assert repr(prior) == "exp(normal(0.5, 0.8))"
