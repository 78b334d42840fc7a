"""Replicated data sets: drawn from the posterior predictive distribution, and shown as such."""

from __future__ import annotations

import time

import numpy as np
import pytest

import finetti as fi
from finetti.errors import FinettiError
from finetti.show import plots
from finetti.show.density import kernel_density, silverman
from finetti.show.replicates import Replicates, replicate
from show.drawn import marks, words


@pytest.fixture(scope="module")
def subjects_fit():
    return fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", fi.datasets.load("sleepstudy"))


@pytest.mark.parametrize(
    "formula",
    ["Reaction ~ 1 + Days + (1 + Days | Subject)", "Reaction | weights(w) ~ 1 + Days + (1 | Subject) + (1 | half)",
     "Reaction | se(s) ~ 1 + (1 | Subject)", "Reaction | se(s, sigma=True) ~ 1 + (1 | Subject) + offset(Days)"],
)  # fmt: skip
def test_replicates_have_the_predicted_mean_and_sd(formula):
    data = fi.datasets.load("sleepstudy")
    data["w"], data["s"], data["half"] = 1.0 + data["Days"], 20.0 + data["Days"], (data["Days"] > 4).map(str)
    fit = fi.fit(formula, data)
    n = 1000
    drawn = replicate(fit, n).drawn
    assert drawn.shape == (n, 180)
    expected = fit.predict(kind="response")
    # 360 comparisons: 5 standard errors; draws of one chain are stratified, which only narrows them
    z = (drawn.mean(axis=0) - expected["mean"]) / (expected["sd"] / np.sqrt(n))
    assert np.max(np.abs(z)) < 5.0
    ratio = np.log(drawn.std(axis=0, ddof=1) / expected["sd"])
    assert np.max(np.abs(ratio)) < 5.0 / np.sqrt(2 * n)


@pytest.mark.parametrize("pooling", ["empirical", "none", "complete"])
def test_replicates_of_other_poolings(pooling):
    fit = fi.fit("Reaction ~ 1 + (1 | Subject)", fi.datasets.load("sleepstudy"), pooling=pooling)
    drawn, expected = replicate(fit, 400).drawn, fit.predict(kind="response")
    z = (drawn.mean(axis=0) - expected["mean"]) / (expected["sd"] / np.sqrt(400))
    assert np.max(np.abs(z)) < 5.0


def test_curves_share_grid_and_bandwidth(subjects_fit):
    ax = plots.predictive(subjects_fit, n=20, ax=plots.st.figure(4.0, interactive=False)[1])
    r = replicate(subjects_fit, 20)
    (observed,) = [line for line in ax.lines if line.get_label() == "observed"]
    x, y = observed.get_data()
    h = silverman(r.observed)
    assert np.allclose(y, kernel_density(r.observed, x, h))
    (curves,) = [c for c in ax.collections if len(c.get_segments()) == 20]
    for segment, values in zip(curves.get_segments(), r.drawn, strict=False):
        assert np.allclose(segment[:, 0], x)
        assert np.allclose(segment[:, 1], kernel_density(values, x, h))


def test_a_scale_of_steps_is_shown_as_bars():
    fit = fi.fit("diameter ~ 1 + (1 | plate) + (1 | sample)", fi.datasets.load("penicillin"))
    figure = plots.predictive_figure(fit, n=30)
    ax = figure.axes[0]
    y = replicate(fit, 30).observed
    bars = {round(p.get_x() + p.get_width() / 2): p.get_height() for p in ax.patches}
    assert sum(bars.values()) == pytest.approx(100.0)
    for value, count in zip(*np.unique(y, return_counts=True), strict=True):
        assert bars[round(value)] == pytest.approx(100 * count / y.size)
    drawn = replicate(fit, 30).drawn
    values = np.array(sorted(bars), float)
    shares = [100 * np.median(np.mean(np.abs(drawn - v) < 0.5, axis=1)) for v in values[1:-1]]
    (dots,) = marks(ax)
    assert np.allclose(dots[1:-1], np.column_stack([values[1:-1], shares]))


def test_p_values_and_message():
    observed = np.arange(8.0)
    drawn = np.stack([observed + d for d in (-0.5, 0.5, 1.5, 2.5)])
    p = Replicates("y", observed, drawn, 8, 4).p_values
    assert p == {"mean": 0.75, "sd": 0.5, "minimum": 0.75, "maximum": 0.75}
    rng = np.random.default_rng(0)
    skewed = {"y": rng.exponential(size=300) ** 2, "g": np.repeat(np.arange(30), 10).astype(str)}
    figure = plots.predictive_figure(fi.fit("y ~ 1 + (1 | g)", skewed))
    assert "The model does not reproduce the minimum and maximum of y" in words(figure)
    normal = {"y": rng.normal(size=300), "g": np.repeat(np.arange(30), 10).astype(str)}
    figure = plots.predictive_figure(fi.fit("y ~ 1 + (1 | g)", normal))
    assert "Data drawn from the model look like the observed y" in words(figure)


def test_a_million_rows_are_thinned_and_said_so():
    rng = np.random.default_rng(0)
    n = 1_000_000
    g = rng.integers(0, 1000, n)
    fit = fi.fit("y ~ 1 + (1 | g)", {"y": rng.normal(size=1000)[g] + rng.normal(size=n), "g": g})
    began = time.perf_counter()
    figure = plots.predictive_figure(fit)
    assert time.perf_counter() - began < 30.0  # of the order of one second; minutes if rows were not thinned
    assert "20,000 of 1,000,000 rows, at random" in words(figure)


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "many", 1001])
def test_wrong_numbers_of_data_sets(subjects_fit, n):
    with pytest.raises(FinettiError, match="whole number of data sets"):
        plots.predictive(subjects_fit, n=n)


def test_the_same_seed_draws_the_same(subjects_fit):
    assert np.array_equal(replicate(subjects_fit, 3).drawn, replicate(subjects_fit, 3).drawn)
