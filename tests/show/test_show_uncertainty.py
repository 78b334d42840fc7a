"""plots.uncertainty: bars that add up to the posterior variance, the mark of empirical Bayes, a readable subset."""

from __future__ import annotations

import numpy as np
import pytest

import finetti as fi
from finetti.show.uncertainty import MOST_BARS, uncertainty, uncertainty_figure
from show.drawn import collisions, has_marks, outside, words


@pytest.fixture(scope="module")
def radon():
    return fi.fit("log_radon ~ 1 + floor + (1 | county)", fi.datasets.load("radon"))


@pytest.fixture(scope="module")
def schools():
    priors = {"Intercept": fi.normal(0, 5), "sd": fi.half_cauchy(5)}
    return fi.fit("effect | se(se) ~ 1 + (1 | school)", fi.datasets.load("eight_schools"), priors=priors)


def bars(ax):
    return [[(b.get_x(), b.get_width()) for b in group] for group in ax.containers]


def test_bars_are_the_table(schools):
    figure = uncertainty_figure(schools)
    ax = figure.axes[0]
    table = schools.uncertainty("school")[1:].sort_values("total", ascending=False)
    given, between = bars(ax)
    np.testing.assert_allclose([w for _, w in given], table["given_hyperparameters"])
    np.testing.assert_allclose([w for _, w in between], table["from_hyperparameters"])
    np.testing.assert_allclose([x for x, _ in between], table["given_hyperparameters"])
    assert [t.get_text() for t in ax.get_yticklabels()] == list(table["level"])
    assert has_marks(ax, table["eb_sd"] ** 2)
    said = words(figure)
    assert f"0 to {100 * table['share'].max():.0f} % of the variance of school estimates" in said
    assert f"{100 * (1 - table['eb_interval_ratio'].median()):.0f} % shorter than full Bayes' (median)" in said
    assert "shown" not in said


def test_many_groups_are_represented(radon):
    figure = uncertainty_figure(radon)
    given, _ = bars(figure.axes[0])
    assert len(given) == MOST_BARS
    assert "30 of 85 shown, at even steps of the share" in words(figure)
    table = radon.uncertainty()
    names = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    share = table[table["term"] == "county"].set_index("level")["share"]
    assert {share.idxmax(), share.idxmin()} <= set(names)


def test_an_empirical_fit_adds_nothing():
    fit = fi.fit("log_radon ~ 1 + (1 | county)", fi.datasets.load("radon"), pooling="empirical")
    figure = uncertainty_figure(fit)
    assert "Hyperparameters taken as known: nothing is added" in words(figure)
    assert "share" not in [t.get_text() for t in figure.axes[0].texts]


def test_a_slope():
    fit = fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", fi.datasets.load("sleepstudy"))
    figure = uncertainty_figure(fit, "Subject", "Days")
    assert "of the variance of Subject estimates of Days" in words(figure)
    assert "in squared units of Reaction per Days" in words(figure)


@pytest.mark.parametrize("which", ["radon", "schools", "none", "two"])
def test_no_text_is_cut_or_covered(which, radon, schools):
    if which == "none":
        fit = fi.fit("log_radon ~ 1 + (1 | county)", fi.datasets.load("radon"), pooling="none")
    elif which == "two":
        y = np.random.default_rng(1).normal(size=20)
        fit = fi.fit("y ~ 1 + (1 | g)", {"y": y, "g": ["a very long $name_ of a level" * 3, "b"] * 10})
    else:
        fit = {"radon": radon, "schools": schools}[which]
    figure = uncertainty_figure(fit)
    assert outside(figure) == []
    assert collisions(figure) == []


def test_draws_in_given_axes_and_refuses_others(schools):
    import matplotlib.pyplot as plt

    ax = plt.subplots()[1]
    assert schools.plot.uncertainty(ax=ax) is ax
    plt.close("all")
    with pytest.raises(fi.FinettiError, match="not a matplotlib Axes"):
        uncertainty(schools, ax=3)
    with pytest.raises(fi.FinettiError, match=r"No grouping factor is called 'skool'.*school"):
        uncertainty(schools, "skool")
    with pytest.raises(fi.FinettiError, match="'Days' does not vary by 'school'"):
        uncertainty(schools, "school", "Days")
    with pytest.raises(fi.FinettiError, match=r"needs a grouping factor"):
        uncertainty_figure(fi.fit("effect ~ 1", fi.datasets.load("eight_schools")))
