"""plots.weights: points where the table says, the law of rows with its band, names that cover nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import finetti as fi
from finetti.show.weights import weights, weights_figure
from show.drawn import collisions, has_marks, outside, words


@pytest.fixture(scope="module")
def radon():
    return fi.fit("log_radon ~ 1 + floor + (1 | county)", fi.datasets.load("radon"))


@pytest.fixture(scope="module")
def schools():
    priors = {"Intercept": fi.normal(0, 5), "sd": fi.half_cauchy(5)}
    return fi.fit("effect | se(se) ~ 1 + (1 | school)", fi.datasets.load("eight_schools"), priors=priors)


@pytest.fixture(scope="module")
def sleep():
    return fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", fi.datasets.load("sleepstudy"))


def line(ax):
    return ax.get_lines()[0].get_data()


def test_points_and_law_of_rows(radon):
    figure = weights_figure(radon)
    ax, table = figure.axes[0], radon.weights()
    assert has_marks(ax, table["n"])
    assert ax.get_xscale() == "log"
    natural, w = radon.inference.coordinates.natural(radon.inference.hyper.theta), radon.inference.hyper.weights
    x, y = line(ax)
    truth = w @ (x / (x + (natural["sigma"] / natural["sd_county[Intercept]"])[:, None] ** 2))
    np.testing.assert_allclose(y, truth, rtol=1e-6)
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() < y.min() < y.max() < band[:, 1].max()
    # the points lie on the curve: the table holds the same average
    np.testing.assert_allclose(np.interp(table["n"], x, y), table["weight"], atol=2e-3)
    said = words(figure)
    low, high = table["weight"].min(), table["weight"].max()
    assert f"own data decide {100 * low:.0f} to {100 * high:.0f} % of an estimate" in said
    assert "With 5 rows own data and population count equally" in said
    assert f"Pooling factor of the term: {table.pooling_factor['Intercept']:.2f}" in said
    assert f"STLOUIS: {100 * high:.0f} %" in said
    assert "and 2 more: 16 %" in said


def test_known_errors_are_the_axis(schools):
    figure = weights_figure(schools)
    ax = figure.axes[0]
    assert has_marks(ax, fi.datasets.load("eight_schools")["se"])
    assert "standard error of the school's own estimate" in words(figure)
    assert "B: 13 %" in words(figure)
    _, y = line(ax)
    assert np.all(np.diff(y) < 0.0)


def test_several_coefficients_have_no_curve(sleep):
    figure = weights_figure(sleep, "Subject", "Days")
    assert not figure.axes[0].get_lines()
    assert "no one curve holds" in words(figure)
    assert "all 18 Subject groups, at the same place" in words(figure)


@pytest.mark.parametrize("pooling", ["none", "complete", "empirical"])
def test_other_poolings(pooling):
    figure = weights_figure(fi.fit("log_radon ~ 1 + (1 | county)", fi.datasets.load("radon"), pooling=pooling))
    said = words(figure)
    assert {"none": "Not pooled", "complete": "Completely pooled", "empirical": "at the estimated"}[pooling] in said
    assert outside(figure) == collisions(figure) == []


@pytest.mark.parametrize("which", ["radon", "schools", "sleep", "two", "long", "many"])
def test_no_text_is_cut_or_covered(which, radon, schools, sleep):
    def made(levels, n, seed=3):
        rng = np.random.default_rng(seed)
        g = np.repeat(np.arange(len(levels)), n)
        y = rng.normal(size=len(levels))[g] + rng.normal(size=g.size)
        return fi.fit("y ~ 1 + (1 | g)", pd.DataFrame({"y": y, "g": [levels[i] for i in g]}))

    rng = np.random.default_rng(0)
    fit = {"radon": radon, "schools": schools, "sleep": sleep}.get(which) or {
        "two": lambda: made(["a", "b"], [4, 9]),
        "long": lambda: made([f"$a very^long_ name of a level {k}" * 3 for k in range(9)], list(range(1, 10))),
        "many": lambda: made([f"level {k}" for k in range(600)], rng.integers(1, 80, 600)),
    }[which]()
    figure = weights_figure(fit)
    assert outside(figure) == []
    assert collisions(figure) == []


def test_draws_in_given_axes_and_refuses_others(schools):
    import matplotlib.pyplot as plt

    ax = plt.subplots()[1]
    assert schools.plot.weights(ax=ax) is ax
    plt.close("all")
    with pytest.raises(fi.FinettiError, match="not a matplotlib Axes"):
        weights(schools, ax=3)
    with pytest.raises(fi.FinettiError, match=r"No grouping factor is called 'skool'.*school"):
        weights(schools, "skool")
    with pytest.raises(fi.FinettiError, match="'Days' does not vary by 'school'"):
        weights(schools, "school", "Days")
    with pytest.raises(fi.FinettiError, match=r"plot.weights needs a grouping factor"):
        weights_figure(fi.fit("effect ~ 1", fi.datasets.load("eight_schools")))
