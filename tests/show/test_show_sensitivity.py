"""The figure of sensitivity shows the tables it is made from, and says what they say."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.collections import PathCollection

import finetti as fi
from finetti.errors import FinettiError
from finetti.show.sensitivity import sensitivity, sensitivity_figure
from show.drawn import collisions, outside


@pytest.fixture(scope="module")
def schools():
    priors = {"Intercept": fi.normal(0, 5), "sd": fi.half_cauchy(5)}
    return fi.fit("effect | se(se) ~ 1 + (1 | school)", fi.datasets.load("eight_schools"), priors=priors).sensitivity()


def dots(ax):
    """Positions of all dots, lines apart."""
    return np.concatenate([c.get_offsets() for c in ax.collections if isinstance(c, PathCollection)])


def test_marks_are_the_tables(schools):
    figure = sensitivity_figure(schools)
    above, *below = figure.axes
    assert [t.get_text() for t in above.get_yticklabels()] == list(schools.table.index)
    seen = dots(above)
    for column in ("prior", "likelihood"):
        for i, value in enumerate(schools.table[column]):
            assert np.any(np.all(np.isclose(seen, [value, i]), axis=1)), (column, i)
    assert [line.get_xdata()[0] for line in above.lines] == [0.05]
    assert [" ".join(ax.get_title(loc="left").split()) for ax in below] == list(schools.table.index)
    for ax, label in zip(below, schools.table.index, strict=True):
        rows = schools.alternatives[schools.alternatives["parameter"] == label]
        assert sorted(dots(ax)[:, 0]) == pytest.approx(sorted(rows["q50"]))
    names = [t.get_text() for t in below[0].get_yticklabels()]
    assert names[0] == "as fitted"
    assert {"half_t(3)", "uniform", "scale halved", "scale doubled"} < set(names)
    assert "2 of 2 parameters" in figure.get_suptitle().replace("\n", " ")
    assert not outside(figure) and not collisions(figure)


def test_it_stays_within_the_page_with_many_long_names():
    rng = np.random.default_rng(0)
    columns = {f"a_rather_long_name_of_a_measured_covariate_{i}": rng.normal(size=80) for i in range(24)}
    y, g = rng.normal(size=80), np.repeat(np.arange(8), 10)
    fit = fi.fit("y ~ " + " + ".join(columns) + " + (1 | g)", {"y": y, "g": g, **columns})
    figure = sensitivity_figure(fit)
    assert len(figure.axes[0].get_yticklabels()) == 20
    assert any("left out" in t.get_text().replace("\n", " ") for t in figure.texts)
    assert not outside(figure) and not collisions(figure)


def test_it_draws_in_axes_that_are_given(schools):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2)
    assert sensitivity(schools, ax=axes) is figure
    assert all(ax.collections for ax in axes)
    assert sensitivity(schools, ax=axes[0]) is figure
    with pytest.raises(FinettiError, match="neither matplotlib Axes"):
        sensitivity(schools, ax=3)
    plt.close("all")


def test_nothing_to_draw_is_an_error():
    data = fi.datasets.load("eight_schools")
    fit = fi.fit("effect | se(se) ~ 1 + (1 | school)", data, priors={"Intercept": fi.fixed(5)}, pooling="empirical")
    with pytest.raises(FinettiError, match="held at one value"):
        sensitivity_figure(fit)
