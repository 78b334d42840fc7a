"""Every prior against scipy.stats, quadrature and finite differences; the names that users type."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError
from math import inf, isclose, isnan, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import quad

from finetti.errors import PriorError
from finetti.model import priors as p

# Shapes from nearly singular to nearly normal, scales from millionths to millions.
shapes = st.floats(0.2, 40.0)
scales = st.floats(-6.0, 6.0).map(lambda e: 10.0**e)
means = st.floats(-1e6, 1e6)

PROPER = {
    "normal": (st.builds(p.normal, means, scales), lambda d: stats.norm(d.mean, d.sd)),
    "student_t": (st.builds(p.student_t, shapes, means, scales), lambda d: stats.t(d.df, d.mean, d.scale)),
    "half_normal": (st.builds(p.half_normal, scales), lambda d: stats.halfnorm(scale=d.scale)),
    "half_cauchy": (st.builds(p.half_cauchy, scales), lambda d: stats.halfcauchy(scale=d.scale)),
    "exponential": (st.builds(p.exponential, scales), lambda d: stats.expon(scale=1 / d.rate)),
    "gamma": (st.builds(p.gamma, shapes, scales), lambda d: stats.gamma(d.shape, scale=1 / d.rate)),
    "inverse_gamma": (st.builds(p.inverse_gamma, shapes, scales), lambda d: stats.invgamma(d.shape, scale=d.scale)),
    "uniform": (
        st.builds(lambda low, width: p.uniform(low, low + width), st.floats(-1e3, 1e3), st.floats(0.1, 1e3)),
        lambda d: stats.uniform(d.low, d.high - d.low),
    ),
    "beta": (st.builds(p.beta, shapes, shapes), lambda d: stats.beta(d.a, d.b)),
    "dumouchel": (st.builds(p.dumouchel, scales), lambda d: stats.lomax(1, scale=d.s0)),
    "uniform_shrinkage": (st.builds(p.uniform_shrinkage, scales), lambda d: stats.burr12(2, 1, scale=d.s0)),
    "lkj": (st.builds(p.lkj, shapes), lambda d: stats.beta(d.eta, d.eta, loc=-1, scale=2)),
}
HALF_T = st.builds(p.half_t, shapes, scales)
ANY = st.one_of(
    *(strategy for strategy, _ in PROPER.values()),
    HALF_T,
    st.builds(p.fixed, means),
    st.just(p.flat()),
    st.just(p.uniform()),
    st.builds(p.uniform, st.floats(-5, 5)),
    st.just(p.dumouchel()),
    st.just(p.uniform_shrinkage()),
    st.just(p.jeffreys()),
    st.builds(p.jeffreys, st.lists(scales, min_size=1, max_size=5)),
)
ON_SD = st.one_of(HALF_T, *(PROPER[name][0] for name in ("half_normal", "half_cauchy", "gamma", "inverse_gamma")))


@pytest.mark.parametrize("name", PROPER)
@given(data=st.data(), u=st.floats(0.01, 0.99))
def test_density_equals_scipy(name, data, u):
    strategy, reference = PROPER[name]
    prior = data.draw(strategy)
    frozen = reference(prior)
    x = float(frozen.ppf(u))
    expected = frozen.logpdf(x)
    if np.isfinite(expected) and prior.support[0] < x < prior.support[1]:
        assert prior.logpdf(x) == pytest.approx(expected, rel=1e-8, abs=1e-8)


@given(HALF_T, st.floats(0.01, 0.99))
def test_half_t_is_twice_the_t(prior, u):
    x = prior.scale * stats.t(prior.df).ppf(0.5 + u / 2)
    assert prior.logpdf(x) == pytest.approx(log(2) + stats.t(prior.df, 0, prior.scale).logpdf(x), rel=1e-9, abs=1e-9)


def test_special_cases_of_half_t():
    x = np.array([1e-3, 0.5, 2.0, 40.0])
    np.testing.assert_allclose(p.half_t(1, 5).logpdf(x), p.half_cauchy(5).logpdf(x), rtol=1e-13)
    np.testing.assert_allclose(p.half_t(1e10, 5).logpdf(x), p.half_normal(5).logpdf(x), rtol=1e-8)


@pytest.mark.parametrize(
    "prior",
    [
        p.normal(1, 2),
        p.student_t(3, -1, 2),
        p.half_normal(2),
        p.half_cauchy(2),
        p.half_t(3, 2),
        p.exponential(0.4),
        p.gamma(2, 0.5),
        p.inverse_gamma(3, 2),
        p.uniform(-1, 4),
        p.lkj(2.5),
        p.beta(2, 3),
        p.dumouchel(2),
        p.uniform_shrinkage(2),
    ],
    ids=str,
)
def test_integrates_to_one(prior):
    low, high = prior.support
    assert quad(lambda x: np.exp(prior.logpdf(x)), low, high)[0] == pytest.approx(1.0, abs=1e-7)
    assert prior.proper
    if low >= 0:
        assert quad(lambda sd: np.exp(p.sd_logpdf(prior, sd)), 0, high)[0] == pytest.approx(1.0, abs=1e-7)


@given(st.data(), st.floats(0.05, 0.95))
def test_derivative_equals_finite_difference(data, u):
    name = data.draw(st.sampled_from(sorted(PROPER)))
    strategy, reference = PROPER[name]
    prior = data.draw(strategy)
    frozen = reference(prior)
    x = float(frozen.ppf(u))
    h = 1e-5 * float(frozen.ppf(0.75) - frozen.ppf(0.25))
    low, high = prior.support
    # Near a singular end or below the spacing of floats a difference quotient says nothing.
    h = min(h, 1e-4 * (x - low), 1e-4 * (high - x))
    if h > 1e6 * np.spacing(abs(x)):
        exact_h = (x + h) - (x - h)
        difference = float(prior.logpdf(x + h) - prior.logpdf(x - h)) / exact_h
        noise = 1e-15 * (1 + abs(float(prior.logpdf(x)))) / h
        assert float(prior.dlogpdf(x)) == pytest.approx(difference, rel=1e-4, abs=1e2 * noise)


@given(ON_SD, st.floats(-1.0, 1.0))
def test_derivative_of_the_sd_density(prior, e):
    size = prior.scale if hasattr(prior, "scale") else 1 / prior.rate
    sd = (np.sqrt(size) if prior.on_variance else size) * 10.0**e
    h = 1e-6 * sd
    difference = float(p.sd_logpdf(prior, sd + h) - p.sd_logpdf(prior, sd - h)) / (2 * h)
    assert float(p.sd_dlogpdf(prior, sd)) == pytest.approx(difference, rel=1e-5, abs=1e-5 / sd)


def test_inverse_gamma_speaks_of_the_variance():
    prior = p.inverse_gamma(2, 9)
    variance = stats.invgamma(2, scale=9)
    mass = quad(lambda sd: np.exp(p.sd_logpdf(prior, sd)), 1.0, 3.0)[0]
    assert mass == pytest.approx(variance.cdf(9.0) - variance.cdf(1.0), rel=1e-8)


@pytest.mark.parametrize("eta", [1.0, 2.0, 4.5])
def test_lkj_normaliser_against_quadrature(eta):
    x, w = np.polynomial.legendre.leggauss(120)
    assert p.lkj(eta).log_normaliser(1) == 0.0
    assert p.lkj(eta).log_normaliser(2) == pytest.approx(log(np.sum(w * (1 - x * x) ** (eta - 1))), abs=1e-6)
    # Over three correlations a, b, c; given a and b, c ranges where the determinant is positive.
    a, b, t = np.meshgrid(x, x, x, indexing="ij")
    half = np.sqrt((1 - a * a) * (1 - b * b))
    c = a * b + half * t
    det = 1 + 2 * a * b * c - a * a - b * b - c * c
    weight = w[:, None, None] * w[None, :, None] * w[None, None, :]
    total = np.sum(weight * half * det ** (eta - 1))
    assert p.lkj(eta).log_normaliser(3) == pytest.approx(log(total), abs=1e-5)


@pytest.mark.parametrize(
    ("prior", "index"),
    [
        (p.half_cauchy(5), 1.0),
        (p.half_t(3, 5), 3.0),
        (p.student_t(4, 0, 1), 4.0),
        (p.inverse_gamma(1.5, 2), 3.0),
        (p.uniform(), -1.0),
        (p.dumouchel(3), 1.0),
        (p.uniform_shrinkage(3), 2.0),
        (p.jeffreys([1.0, 4.0]), 0.0),
        (p.flat(), -1.0),
        (p.uniform(0, 5), inf),
        (p.normal(0, 1), inf),
        (p.half_normal(1), inf),
        (p.exponential(1), inf),
        (p.gamma(2, 1), inf),
        (p.beta(1, 1), inf),
        (p.lkj(1), inf),
        (p.fixed(0), inf),
    ],
    ids=str,
)
def test_tail_index(prior, index):
    assert prior.tail_index() == index
    if np.isfinite(index):
        log_ratio = float(p.sd_logpdf(prior, 2e8) - p.sd_logpdf(prior, 1e8))
        assert log_ratio == pytest.approx(-(1 + index) * log(2), abs=1e-6)


@given(ANY)
def test_repr_evaluates_to_an_equal_prior(prior):
    again = eval(repr(prior), vars(p))  # noqa: S307
    assert again == prior
    assert hash(again) == hash(prior)
    assert pickle.loads(pickle.dumps(prior)) == copy.deepcopy(prior) == prior  # noqa: S301


@pytest.mark.parametrize(
    ("prior", "text"),
    [
        (p.half_t(3, 56.32876), "half_t(3, 56.33)"),
        (p.normal(-0.0, 2), "normal(0, 2)"),
        (p.uniform(), "uniform()"),
        (p.uniform(0, inf), "uniform()"),
        (p.uniform(2), "uniform(low=2)"),
        (p.uniform(-1, 1), "uniform(-1, 1)"),
        (p.flat(), "flat()"),
        (p.lkj(2), "lkj(2)"),
        (p.fixed(1e-8), "fixed(1e-08)"),
        (p.student_t(3, 0, 2.5), "student_t(3, 0, 2.5)"),
        (p.jeffreys(), "jeffreys()"),
        (p.jeffreys((1.0, 2.5)), "jeffreys()"),
        (p.dumouchel(), "dumouchel()"),
        (p.dumouchel(2.51234), "dumouchel(2.512)"),
        (p.uniform_shrinkage(0.5), "uniform_shrinkage(0.5)"),
    ],
)
def test_text(prior, text):
    assert str(prior) == text
    assert eval(text, vars(p)).__class__ is prior.__class__  # noqa: S307


def test_outside_the_support():
    assert p.half_normal(1).logpdf(-1.0) == -inf
    assert p.uniform(0, 1).logpdf([-0.5, 0.5, 1.5]).tolist() == [-inf, 0.0, -inf]
    assert p.lkj(2).logpdf(1.0) == -inf
    assert isnan(p.gamma(2, 1).dlogpdf(-1.0))
    assert isnan(p.normal(0, 1).logpdf(np.nan))
    assert p.sd_logpdf(p.flat(), [-1.0, 2.0]).tolist() == [-inf, 0.0]
    assert p.sd_logpdf(p.inverse_gamma(1, 1), -1.0) == -inf


def test_improper_and_held():
    for prior in (p.flat(), p.uniform()):
        assert not prior.proper
        assert prior.logpdf(3.0) == 0.0
        assert prior.dlogpdf(3.0) == 0.0
    held = p.fixed(5)
    assert held.proper
    assert held.logpdf(np.exp(np.log(5.0))) == 0.0
    assert held.logpdf(5.1) == -inf
    assert p.sd_logpdf(p.fixed(0), 0.0) == 0.0


def test_vectorised_shapes():
    x = np.linspace(0.1, 0.9, 12).reshape(3, 4)
    for prior in (
        p.normal(0, 1),
        p.half_t(3, 1),
        p.exponential(1),
        p.uniform(),
        p.lkj(2),
        p.beta(2, 2),
        p.inverse_gamma(1, 1),
        p.dumouchel(1),
        p.uniform_shrinkage(1),
        p.jeffreys([1, 2]),
    ):
        assert prior.logpdf(x).shape == prior.dlogpdf(x).shape == p.sd_logpdf(prior, x).shape == (3, 4)
        assert prior.logpdf(x).dtype == np.float64
        assert prior.logpdf(0.5).shape == ()


def test_far_tails_keep_their_digits():
    assert isclose(p.half_t(1e9, 1).logpdf(1.0), p.half_normal(1).logpdf(1.0), abs_tol=1e-8)
    assert p.normal(0, 1e-6).logpdf(1.0) == pytest.approx(-0.5e12, rel=1e-9)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: p.normal(0, 0), "normal: sd=0 is out of range; give a finite number > 0"),
        (lambda: p.normal(inf, 1), "mean=inf"),
        (lambda: p.normal(0, np.nan), "sd=nan"),
        (lambda: p.half_normal(-2), "scale=-2"),
        (lambda: p.half_t(0, 1), "df=0"),
        (lambda: p.half_cauchy("5"), "scale='5' is not a number"),
        (lambda: p.half_cauchy(True), "scale=True is not a number"),
        (lambda: p.half_cauchy([1, 2]), "is not a number"),
        (lambda: p.exponential(inf), "rate=inf"),
        (lambda: p.gamma(2, 0), "rate=0"),
        (lambda: p.inverse_gamma(0, 1), "shape=0"),
        (lambda: p.uniform(3, 3), "low=3 is not below high=3"),
        (lambda: p.uniform(-inf, 3), "use flat"),
        (lambda: p.uniform(0, np.nan), "high=nan"),
        (lambda: p.lkj(0), "eta=0"),
        (lambda: p.beta(1, -1), "b=-1"),
        (lambda: p.fixed(inf), "value=inf"),
        (lambda: p.student_t(3, None, 1), "mean=None is not a number"),
        (lambda: p.dumouchel(0), "s0=0 is out of range"),
        (lambda: p.uniform_shrinkage("1"), "s0='1' is not a number"),
        (lambda: p.jeffreys([1.0, 0.0]), "holds 0.0; every error variance must be a number above 0"),
        (lambda: p.jeffreys([np.inf]), "at least one finite"),
        (lambda: p.jeffreys([np.nan]), "holds nan"),
        (lambda: p.jeffreys("ab"), "must be a sequence of error variances"),
    ],
)
def test_bad_arguments(make, words):
    with pytest.raises(PriorError) as caught:
        make()
    assert words in str(caught.value)


def test_numpy_scalars_and_frozen():
    prior = p.half_t(np.int64(3), np.float32(2))
    assert prior == p.half_t(3, 2)
    assert type(prior.df) is float
    with pytest.raises(FrozenInstanceError):
        prior.df = 4.0
