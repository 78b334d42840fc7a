"""The distribution of variances: limma's moments against R, the density against scipy, the posterior against a grid."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats as st
from scipy.special import betaln, digamma

from finetti.inference.row_regression import fit_rows
from finetti.inference.variance_moments import learn_trend, moment_estimate
from finetti.inference.variances import VarianceTarget, closest_chi_square, explore_variances, gauss_rule

PROBS = np.array([0.05, 0.5, 0.95])


def draw(rng, G: int, df: float, d0: float, s0: float = 1.0) -> np.ndarray:
    sigma2 = s0 if np.isinf(d0) else s0 * d0 / np.maximum(rng.chisquare(d0, G), 1e-250)
    return sigma2 * rng.chisquare(df, G) / df


# --- limma's estimate ---------------------------------------------------------------------------
# R 4.2.2, base and splines alone: e <- log(pmax(s2, 1e-5 * median(s2))) - digamma(df/2) + log(df/2); trend by
# lm.fit(ns(x, df=k, intercept=TRUE), e), k = 1 + (n>=3) + (n>=6) + (n>=30), variance mean(effects[-(1:rank)]^2);
# trigamma inverted by uniroot. The formulas are those of Smyth (2004) and of limma's fitFDist.


def recipe(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    i = np.arange(1, n + 1)
    x = np.sqrt(i * 2.0) % 3.7
    return i, x, np.exp(np.sin(i * 1.7) * 1.3 + 0.3 * x + np.cos(i * i))


def test_moments_with_zero_variances_and_two_df_as_in_r():
    i, x, s2 = recipe(200)
    df = np.where(i % 5 == 0, 3.0, 6.0)
    s2[[10, 20]] = 0.0
    found = moment_estimate(s2, df)
    assert found.n_lifted == 2
    assert found.d0 == pytest.approx(1.60520126554529, rel=1e-12)
    assert found.coefficients == pytest.approx([-0.0398559637835138], rel=1e-12)
    spline = learn_trend(x)
    columns = spline.columns(x)
    trended = moment_estimate(s2, df, columns)
    s0 = np.exp(columns @ trended.coefficients)
    assert trended.d0 == pytest.approx(1.63371914638899, rel=1e-12)
    assert s0[[0, 1, 2, -1]] == pytest.approx(
        [0.982582125709111, 0.923358600499027, 0.940907304032054, 0.978751555949442], rel=1e-12
    )
    assert np.exp(trended.coefficients[0]) == pytest.approx(0.975036371320264, rel=1e-12)  # geometric mean


def test_moments_of_few_genes_and_of_equal_variances_as_in_r():
    i, x, s2 = recipe(25)
    df, columns = np.full(25, 4.0), learn_trend(x).columns(x)
    assert columns.shape == (25, 3)
    found = moment_estimate(s2, df, columns)
    assert found.d0 == pytest.approx(2.90155415653137, rel=1e-12)
    assert np.exp(columns[:3] @ found.coefficients) == pytest.approx(
        [1.90467389694605, 1.85744946502629, 1.79064019876774], rel=1e-12
    )
    equal = 1 + 0.01 * np.sin(i)
    found = moment_estimate(equal, df)
    assert np.isinf(found.d0)
    assert np.exp(found.coefficients[0]) == pytest.approx(0.999976750278954, rel=1e-12)  # the mean, as limma has it
    found = moment_estimate(equal, df, columns)
    assert np.isinf(found.d0)
    assert np.exp(columns[:3] @ found.coefficients) == pytest.approx(
        [1.31326096680203, 1.31162072864861, 1.30971167583423], rel=1e-12
    )


def test_spline_is_linear_outside_and_has_orthonormal_columns():
    x = np.random.default_rng(1).gamma(2.0, size=500)
    spline = learn_trend(x)
    columns = spline.columns(x)
    assert columns.T @ columns / 500 == pytest.approx(np.eye(4), abs=1e-10)
    beyond = spline.columns(x.max() + np.array([1.0, 2.0, 3.0]))
    assert np.diff(beyond, n=2, axis=0) == pytest.approx(0.0, abs=1e-9)
    assert learn_trend(np.ones(30)) is None


# --- density ------------------------------------------------------------------------------------


@pytest.mark.parametrize("d0", [0.3, 4.0, 59.9, 60.1, 1e3, 1e6, 1e12])
@pytest.mark.parametrize("trend", [False, True])
def test_density_and_gradient(d0, trend):
    rng = np.random.default_rng(2)
    G = 50
    df, s2 = rng.choice([1.0, 7.0, 200.0], G), np.exp(2 * rng.normal(size=G)) * 1e-6
    columns = np.column_stack([np.ones(G), rng.normal(size=(G, 2))]) if trend else None
    theta = np.array([np.log(d0), -13.0, 0.2, -0.4][: 4 if trend else 2])
    eta = np.full(G, -13.0) if columns is None else columns @ theta[1:]
    target = VarianceTarget(s2, df, columns)
    x = s2 / np.exp(eta)
    exact = st.f.logpdf(x, df, d0) if d0 < 1e7 else st.gamma.logpdf(x, df / 2, scale=2 / df)
    exact = np.sum(exact + np.log(x)) + st.logistic.logpdf(theta[0], np.log(np.median(df)))
    exact -= 0.5 * np.sum(theta[2:] ** 2) / 2.5**2
    value, slope = target.gradient(theta[None])
    # the limit is off by the square of its exponent over d0
    assert value[0] == pytest.approx(exact, abs=1e-6 if d0 < 1e7 else 1e-4)
    assert value[0] == pytest.approx(target.log_density(theta[None])[0][0], abs=1e-10)
    steps = 1e-4 * np.eye(theta.size)
    up, down = target.log_density(theta + steps)[0], target.log_density(theta - steps)[0]
    assert slope[0] == pytest.approx((up - down) / 2e-4, abs=1e-4)


def test_density_does_not_depend_on_chunks_or_order():
    rng = np.random.default_rng(3)
    s2, df = draw(rng, 3000, 4.0, 6.0), rng.choice([2.0, 4.0], 3000)
    theta = rng.normal(size=(64, 2))
    order = rng.permutation(3000)
    a, b = VarianceTarget(s2, df), VarianceTarget(s2[order], df[order])
    assert a.log_density(theta)[0] == pytest.approx(b.log_density(theta)[0], rel=1e-12)
    one = np.concatenate([a.log_density(t[None])[0] for t in theta])
    assert one == pytest.approx(a.log_density(theta)[0], rel=1e-14)


# --- posterior ----------------------------------------------------------------------------------


def grid(s2, df, d0_range, n=400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """d0, s0^2 and weights on a dense grid of both logs, the likelihood gene by gene."""
    a = np.linspace(*np.log(d0_range), n)
    middle, width = np.log(np.median(s2)), 2.5 * np.std(np.log(s2)) / np.sqrt(s2.size)
    b = np.linspace(middle - 8 * width, middle + 8 * width, n)
    log_p = np.empty((n, n))
    for i, d0 in enumerate(np.exp(a)):
        x = s2 / np.exp(b[:, None])
        const = 0.5 * df * np.log(df / d0) - betaln(df / 2, d0 / 2)
        log_p[i] = np.sum(0.5 * df * np.log(x) - 0.5 * (df + d0) * np.log1p(df * x / d0) + const, axis=1)
        log_p[i] += st.logistic.logpdf(np.log(d0), np.log(np.median(df)))
    w = np.exp(log_p - log_p.max())
    assert max(w[0].max(), w[-1].max(), w[:, 0].max(), w[:, -1].max()) < 1e-9  # nothing is cut off
    A, B = np.meshgrid(np.exp(a), np.exp(b), indexing="ij")
    return A.ravel(), B.ravel(), (w / w.sum()).ravel()


def test_posterior_against_a_dense_grid():
    rng = np.random.default_rng(4)
    df = rng.choice([8.0, 12.0], 400)
    s2 = 7.0 * 5 / rng.chisquare(5, 400) * rng.chisquare(df) / df
    found = explore_variances(s2, df)
    _, rows = found.summary(PROBS)
    d0, s0, w = grid(s2, df, (1.5, 25.0))
    for row, x in zip(rows, (d0, s0), strict=True):
        mean = w @ x
        assert row[0] == pytest.approx(mean, rel=1e-4)
        assert row[1] == pytest.approx(np.sqrt(w @ (x - mean) ** 2), rel=2e-3)
        # half of the grid's column that a quantile falls into
        cdf = [np.sum(w[x < q * (1 - 1e-12)]) for q in row[2:5]]
        assert cdf == pytest.approx([0.05, 0.5, 0.95], abs=0.02)
    assert found.hyper.reliable
    # the few nodes stand for all of them
    nodes = found.nodes()
    assert nodes.weights.size <= 32 and nodes.weights.sum() == pytest.approx(1.0)
    few = nodes.prior_variance()[:, 0]
    for s in (0.1, 7.0, 50.0):
        exact, got = w @ (1 / moderated(d0, s0, s)), nodes.weights @ (1 / moderated(nodes.d0, few, s))
        assert got == pytest.approx(exact, rel=5e-4)


def moderated(d0, s0, s, d=10.0):
    return (d0 * s0 + d * s) / (d0 + d)


def test_full_and_moments_agree_with_many_genes():
    rng = np.random.default_rng(5)
    x = rng.normal(size=4000)
    s2 = draw(rng, 4000, 6.0, 9.0) * np.exp(0.5 + 0.4 * x)
    spline = learn_trend(x)
    columns = spline.columns(x)
    found = explore_variances(s2, np.full(4000, 6.0), columns)
    labels, rows = found.summary(PROBS)
    assert labels == ["d0", "s0_squared", *(f"log_s0_squared[{i}]" for i in (1, 2, 3))]
    estimate = moment_estimate(s2, np.full(4000, 6.0), columns)
    assert abs(rows[0, 0] - estimate.d0) < 4 * rows[0, 1]
    assert abs(rows[0, 0] - 9.0) < 4 * rows[0, 1]
    nodes = found.nodes()
    log_s0 = nodes.weights @ np.log(nodes.prior_variance(columns))
    middle = np.abs(x) < 2
    assert log_s0[middle] == pytest.approx((0.5 + 0.4 * x)[middle], abs=0.15)


def test_equal_variances_are_an_ordinary_answer():
    s2 = draw(np.random.default_rng(6), 3000, 8.0, np.inf)
    found = explore_variances(s2, np.full(3000, 8.0))
    labels, rows = found.summary(PROBS)
    assert rows[0, 2] > 100 and np.all(np.isfinite(rows[0, 2:5]))
    assert np.isnan(rows[0, [0, 1]]).all()  # the mean of d0 does not exist
    assert rows[1, 0] == pytest.approx(1.0, abs=0.05)
    assert found.hyper.reliable
    assert labels == ["d0", "s0_squared"]


def test_units_change_nothing():
    s2 = draw(np.random.default_rng(7), 200, 4.0, 6.0)
    a = explore_variances(s2, np.full(200, 4.0)).summary(PROBS)[1]
    b = explore_variances(s2 * 1e-40, np.full(200, 4.0)).summary(PROBS)[1]
    assert b[0, :5] == pytest.approx(a[0, :5], rel=1e-7, nan_ok=True)
    assert b[1, :5] * 1e40 == pytest.approx(a[1, :5], rel=1e-7)


@pytest.mark.parametrize(("G", "df"), [(25, 4.0), (150, 3.0)])
def test_calibrated(G, df):
    """d0 from the prior, s0^2 anywhere (its flat prior is right-invariant): the PIT of d0 is uniform."""
    rng = np.random.default_rng(8)
    pit = []
    for _ in range(100):
        d0, s0 = float(np.exp(rng.logistic(np.log(df)))), float(np.exp(3 * rng.normal()))
        hyper = explore_variances(draw(rng, G, df, d0, s0), np.full(G, df)).hyper
        pit.append(hyper.weights @ (hyper.theta[:, 0] < np.log(d0)))
    assert st.kstest(pit, "uniform").pvalue > 0.01
    assert 0.8 < 12 * np.var(pit) < 1.25


def test_closest_chi_square_has_the_moments_of_the_mixture():
    rng = np.random.default_rng(9)
    w = rng.dirichlet(np.ones(7))
    s2, df = np.exp(rng.normal(size=(7, 40)) * np.linspace(0, 1, 40)), np.exp(rng.uniform(0, 9, size=(7, 40)))
    got, nu = closest_chi_square(w, s2, df)
    assert 1 / got == pytest.approx(w @ (1 / s2), rel=1e-12)
    exact = w @ (digamma(df / 2) - np.log(df * s2 / 2))
    assert digamma(nu / 2) - np.log(nu * got / 2) == pytest.approx(exact, rel=1e-9, abs=1e-9)
    assert np.isinf(closest_chi_square(np.ones(1), np.ones((1, 2)), np.full((1, 2), np.inf))[1]).all()


# --- least squares of many rows -----------------------------------------------------------------


def test_rows_against_least_squares_one_by_one():
    rng = np.random.default_rng(10)
    n, G = 12, 60
    X = np.column_stack([np.eye(3)[np.arange(n) % 3], rng.normal(size=n) + 50])
    C = np.array([[-1.0, 1, 0, 0], [0, 0, 0, 1], [-1, 0, 1, 0]]).T
    Y = rng.normal(size=(G, n)) + 1e6
    Y[rng.random((G, n)) < 0.3] = np.nan
    Y[0] = np.where(np.arange(n) % 3 == 2, np.nan, rng.normal(size=n))  # a group never seen
    Y[1, 2:] = np.nan
    fits = fit_rows(Y, X, C)
    for j in range(G):
        o = ~np.isnan(Y[j])
        A = X[o]
        b, _, rank, _ = np.linalg.lstsq(A, Y[j, o], rcond=1e-10)
        assert fits.n[j] == o.sum() and fits.df[j] == o.sum() - rank
        inverse = np.linalg.pinv(A, rcond=1e-10)
        for c in range(3):
            if np.linalg.norm(C[:, c] - inverse @ (A @ C[:, c])) > 1e-6:
                assert np.isnan(fits.effect[j, c]) and np.isnan(fits.unscaled[j, c])
                continue
            assert fits.effect[j, c] == pytest.approx(C[:, c] @ b, abs=1e-6)
            assert fits.unscaled[j, c] == pytest.approx(np.linalg.norm(C[:, c] @ inverse), rel=1e-9)
        if fits.df[j] > 0:
            assert fits.variance[j] == pytest.approx(np.sum((Y[j, o] - A @ b) ** 2) / fits.df[j], rel=1e-6, abs=1e-12)
    assert np.isnan(fits.effect[0]).tolist() == [False, False, True]


def test_rows_keep_their_digits_far_from_zero():
    rng = np.random.default_rng(11)
    y = rng.normal(size=(5, 8))
    X = np.column_stack([np.ones(8), np.arange(8.0)])
    near, far = (fit_rows(np.round(y, 6) + c, X, np.eye(2)[:, 1:]) for c in (0.0, 2.0**30))
    assert far.variance == pytest.approx(near.variance, rel=1e-6)
    assert far.effect == pytest.approx(near.effect, rel=1e-5)


def test_constant_rows_have_variance_zero_exactly():
    fits = fit_rows(
        np.array([np.full(6, 0.1), np.full(6, 1e9), np.arange(6.0)]), np.eye(2)[[0, 0, 0, 1, 1, 1]], np.eye(2)
    )
    assert fits.variance[:2].tolist() == [0.0, 0.0] and fits.variance[2] == pytest.approx(1.0)


@pytest.mark.parametrize(("G", "df", "d0"), [(60, 3.0, 5.0), (60, 10.0, np.inf), (1000, 4.0, 8.0)])
def test_few_nodes_give_the_tails_of_all(G, df, d0):
    rng = np.random.default_rng(12)
    s2 = draw(rng, G, df, d0)
    found = explore_variances(s2, np.full(G, df))
    t = 3.0 * np.abs(rng.standard_t(4, G))

    def tails(d0, s0, w):
        total = d0[:, None] + df
        return w @ st.t.sf(t / np.sqrt((d0[:, None] * s0[:, None] + df * s2) / total), total)

    nodes = found.nodes()
    every = tails(*np.exp(found.hyper.theta.T), found.hyper.weights)
    few = tails(nodes.d0, nodes.prior_variance()[:, 0], nodes.weights)
    assert few == pytest.approx(every, rel=0.01)
    assert np.median(np.abs(few / every - 1)) < 1e-3


def test_gauss_rule_is_exact_for_polynomials():
    rng = np.random.default_rng(13)
    x, w = rng.gamma(2.0, size=500), rng.dirichlet(np.ones(500))
    at, weight = gauss_rule(x, w, 5)
    assert [weight @ at**k for k in range(10)] == pytest.approx([w @ x**k for k in range(10)], rel=1e-8)
