"""Posterior against prior, and pairs: densities against exact ones, intervals equal the summary, words for the rest."""

from __future__ import annotations

import numpy as np
import pytest

import finetti as fi
from finetti.errors import FinettiError
from finetti.inference.target import GaussianTarget
from finetti.show import plots
from finetti.show.density import bounded_density, kernel_density, silverman
from finetti.show.nodes import hyperparameters
from show.drawn import has_marks, outside, words

SCHOOLS = "effect | se(se) ~ 1 + (1 | school)"


def exact_density(fit, at, top):
    """Marginal density of the only hyperparameter, by quadrature of the exact marginal likelihood."""
    target = GaussianTarget(fit.inference.conditional.inner)
    coordinate = fit.inference.coordinates.coordinates[0]
    grid = np.linspace(1e-3, top, 6000)
    theta = np.array([coordinate.theta(v) for v in grid])
    log_density, _ = target.log_density(theta[:, None])
    density = np.exp(log_density - coordinate.log_slope(theta) - log_density.max())
    return np.interp(at, grid, density / np.trapezoid(density, grid))


@pytest.mark.parametrize(
    ("prior", "top"),
    [
        (fi.half_t(3, 10), 120.0),
        (fi.half_cauchy(5), 400.0),
        (fi.uniform(0, 20), 20 - 1e-3),
        (fi.inverse_gamma(1, 1), 60.0),
    ],
    ids=str,
)
def test_density_equals_quadrature(prior, top):
    fit = fi.fit(SCHOOLS, fi.datasets.load("eight_schools"), priors={"sd": prior})
    (h,) = hyperparameters(fit)
    at = np.linspace(0.0, 20.0, 81)
    exact = exact_density(fit, at, top)
    # 1,024 nodes and a polynomial: within 4 % of the peak everywhere, 0 and the upper end included
    assert np.max(np.abs(h.density(at) - exact)) < 0.04 * exact.max()


def test_nothing_is_spilled_beyond_the_ends():
    rng = np.random.default_rng(0)
    x = np.abs(rng.normal(size=4000))
    at = np.linspace(0.0, 6.0, 6001)
    density = bounded_density(x, np.ones(4000), at)
    assert np.trapezoid(density, at) == pytest.approx(1.0, abs=0.01)
    assert density[0] == pytest.approx(np.sqrt(2 / np.pi), rel=0.06)  # not half of it
    r = np.tanh(0.6 * rng.normal(size=4000))
    at = np.linspace(-1.0, 1.0, 4001)
    density = bounded_density(r, np.ones(4000), at, -1.0, 1.0, reflect=False)
    assert np.trapezoid(density, at) == pytest.approx(1.0, abs=0.01)
    exact = np.exp(-0.5 * (np.arctanh(at[1:-1]) / 0.6) ** 2) / (0.6 * np.sqrt(2 * np.pi)) / (1 - at[1:-1] ** 2)
    assert np.max(np.abs(density[1:-1] - exact)) < 0.08


def test_kernel_density_equals_the_sum_over_points():
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=50), rng.random(50)
    grid = np.linspace(-6, 6, 2401)
    h = silverman(x, w)
    direct = (w * np.exp(-0.5 * ((grid[:, None] - x) / h) ** 2)).sum(axis=1) / (h * np.sqrt(2 * np.pi))
    assert np.max(np.abs(kernel_density(x, grid, h, w) - direct)) < 1e-3 * direct.max()


@pytest.fixture(scope="module")
def subjects_fit():
    return fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", fi.datasets.load("sleepstudy"))


def test_panels_show_the_summary(subjects_fit):
    figure = plots.hyper_figure(subjects_fit)
    table = subjects_fit.summary()
    labels = ["sd_Subject[Intercept]", "sd_Subject[Days]", "cor_Subject[Intercept, Days]", "sigma"]
    assert [" ".join(ax.get_title(loc="left").split()) for ax in figure.axes] == labels
    for ax, label in zip(figure.axes, labels, strict=True):
        (bar,) = [line for line in ax.lines if len(line.get_xdata()) == 2]
        (dot,) = [line for line in ax.lines if len(line.get_xdata()) == 1]
        assert np.allclose(bar.get_xdata(), table.loc[label, ["q5", "q95"]])
        assert np.allclose(dot.get_xdata(), table.loc[label, "q50"])
        said = [t.get_text() for t in ax.texts]
        assert f"prior {subjects_fit.model.priors.get(label, fi.lkj(2))}" in said
        (posterior,) = [line for line in ax.lines if line.get_label() == "posterior"]
        x, y = posterior.get_data()
        inside = (x >= table.loc[label, "q5"]) & (x <= table.loc[label, "q95"])
        assert np.trapezoid(y[inside], x[inside]) == pytest.approx(0.9, abs=0.02)
        low, _ = ax.get_xlim()
        assert low >= (-1.0 if label.startswith("cor") else 0.0)
    assert "in units of Reaction" in words(figure)


def test_prior_densities(subjects_fit):
    ax = plots.hyper_figure(subjects_fit).axes
    by_label = {" ".join(a.get_title(loc="left").split()): a for a in ax}
    prior = subjects_fit.model.priors["sigma"]
    x, y = next(line for line in by_label["sigma"].lines if line.get_label() == "prior").get_data()
    assert np.allclose(y, np.exp(prior.logpdf(x)))
    x, y = next(
        line for line in by_label["cor_Subject[Intercept, Days]"].lines if line.get_label() == "prior"
    ).get_data()
    assert np.allclose(y, np.exp(fi.lkj(2).logpdf(x)))


def test_one_correlation_of_three_dimensions_under_lkj():
    """Beta(eta - 1 + q / 2) on (-1, 1), against correlation matrices drawn by the onion of partial correlations."""
    from finetti.inference.coordinates import cholesky_correlation, correlation_of
    from finetti.show.nodes import Hyperparameter

    rng = np.random.default_rng(0)
    eta, n = 1.5, 200_000
    first = 2 * rng.beta(eta + 0.5, eta + 0.5, (n, 2)) - 1
    last = 2 * rng.beta(eta, eta, n) - 1
    R = correlation_of(cholesky_correlation(np.column_stack([first[:, 0], first[:, 1], last]), 3))
    h = Hyperparameter("cor", "", fi.lkj(eta), 3, "", np.zeros(1), np.ones(1))
    edges = np.linspace(-1, 1, 11)
    for i, j in ((1, 0), (2, 0), (2, 1)):
        share = np.histogram(R[:, i, j], edges)[0] / n
        x = np.linspace(-1, 1, 20_001)
        mass = np.interp(edges, x, np.concatenate([[0.0], np.cumsum(h.prior_density(0.5 * (x[1:] + x[:-1]))) * 1e-4]))
        assert np.all(np.abs(share - np.diff(mass)) < 5 * np.sqrt(share / n))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pooling": "empirical"}, "the maximum of the marginal likelihood"),
        ({"priors": {"sd_Subject": fi.fixed(10.0)}}, "held by its prior, fixed(10)"),
        ({"priors": {"sd": fi.uniform(), "sigma": fi.flat()}}, "An improper prior has a shape but no height"),
        ({"priors": {"cor": fi.lkj(1), "sd": fi.inverse_gamma(1, 1)}}, "of 4 priors"),
        ({"pooling": "complete"}, "The data narrow the prior"),
    ],
    ids=["empirical", "fixed", "improper", "narrow", "complete"],
)
def test_what_is_no_density_is_said_in_words(options, said):
    fit = fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", fi.datasets.load("sleepstudy"), **options)
    figure = plots.hyper_figure(fit)
    assert said in words(figure)
    assert outside(figure) == []


def test_no_hyperparameter_at_all():
    data = fi.datasets.load("eight_schools")
    with pytest.raises(FinettiError, match="has no hyperparameters"):
        plots.hyper(fi.fit("effect | se(se) ~ 1", data))
    fit = fi.fit(SCHOOLS, data, pooling="empirical")
    with pytest.raises(FinettiError, match=r"see plot\.hyper"):
        plots.pairs(fit)


def test_too_few_axes_are_refused(subjects_fit):
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    with pytest.raises(FinettiError, match="needs 4 panels"):
        plots.hyper(subjects_fit, ax=ax)
    with pytest.raises(FinettiError, match="needs 4 x 4 panels"):
        plots.pairs(subjects_fit, ax=[ax])
    figure = Figure(figsize=(8, 6))
    assert plots.hyper(subjects_fit, ax=figure.subplots(2, 3)) is figure
    assert [a.axison for a in figure.axes] == [True] * 4 + [False] * 2


def test_pairs_show_the_nodes(subjects_fit):
    figure = plots.pairs_figure(subjects_fit)
    hyper = subjects_fit.inference.hyper
    values = subjects_fit.inference.coordinates.natural(hyper.theta)
    x, y = values["sd_Subject[Intercept]"], values["sigma"]
    ax = figure.axes[12]  # fourth row, first column
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    inside = (hyper.weights > 0) & (x >= left) & (x <= right) & (y >= low) & (y <= high)
    assert has_marks(ax, x[inside])
    mean = [float(hyper.weights @ v) for v in (x, y)]
    cov = float(hyper.weights @ ((x - mean[0]) * (y - mean[1])))
    sd = [float(np.sqrt(hyper.weights @ (v - m) ** 2)) for v, m in zip((x, y), mean, strict=True)]
    assert [t.get_text() for t in figure.axes[3].texts] == [f"{cov / sd[0] / sd[1]:.2f}".replace("-", "−")]
    # darker and larger with the weight
    marks = next(c for c in ax.collections if len(c.get_offsets()))
    sizes, shade = marks.get_sizes(), marks.get_facecolors()[:, :3].sum(axis=1)
    order = np.argsort(sizes)
    assert np.all(np.diff(shade[order]) <= 1e-9)


def test_hyperparameters_beyond_the_page_are_named(subjects_fit, monkeypatch):
    from finetti.show import hyper, pairs

    monkeypatch.setattr(pairs, "MOST", 3)
    monkeypatch.setattr(hyper, "MOST_PANELS", 3)
    figure = plots.pairs_figure(subjects_fit)
    assert len(figure.axes) == 9
    assert "Left out: sigma." in words(figure)
    assert outside(figure) == []
    figure = plots.hyper_figure(subjects_fit)
    assert [a.axison for a in figure.axes] == [True] * 3 + [False]
    assert "1 more is left out." in words(figure)
