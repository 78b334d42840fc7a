"""The figure of pooling: what is drawn where, what it says, and that nothing of it is cut."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

import finetti as fi
from finetti.errors import FinettiError
from finetti.show.pooling import SHOWN_ROWS, pooling, pooling_figure
from show.drawn import collisions, outside

SCHOOLS = "effect | se(se) ~ 1 + (1 | school)"


@pytest.fixture(scope="module")
def schools():
    data = fi.datasets.load("eight_schools")
    return fi.fit(SCHOOLS, data, priors={"sd": fi.half_cauchy(5)})


@pytest.fixture(scope="module")
def radon():
    return fi.fit("log_radon ~ 1 + floor + (1 | county)", fi.datasets.load("radon"))


@pytest.fixture(scope="module")
def sleep():
    return fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", fi.datasets.load("sleepstudy"))


def marks(ax):
    """Positions of every cloud of marks, by its number of them."""
    return [np.asarray(c.get_offsets()) for c in ax.collections if len(c.get_offsets())]


def names(ax):
    return [t.get_text() for t in ax.get_yticklabels()]


def test_marks_are_where_the_table_says(schools):
    table = schools.pooling("school")
    figure = pooling_figure(schools)
    ax = figure.axes[0]
    order = np.argsort(-table["full_bayes"].to_numpy(), kind="stable")
    assert names(ax) == [table["level"][i] for i in order]
    found = {tuple(np.round(np.sort(m[:, 0]), 6)) for m in marks(ax)}
    for analysis in ("no_pooling", "empirical_bayes", "full_bayes"):
        assert tuple(np.round(np.sort(table[analysis].to_numpy()), 6)) in found
    line = [
        ln
        for ln in ax.lines
        if ln.get_linestyle() == "--" and len(ln.get_xdata()) == 2 and ln.get_xdata()[0] == ln.get_xdata()[1]
    ]
    assert line and line[0].get_xdata()[0] == pytest.approx(table["complete_pooling"].iloc[0])
    plt.close("all")


def test_words(schools):
    ax = pooling(schools)
    title = ax.get_title(loc="left").replace("\n", " ")
    assert title.startswith("Partial pooling narrows the intervals of 8 school estimates: median length 36 to")
    legend = [t.get_text() for t in ax.get_legend().get_texts()]
    assert any("90 % interval" in t for t in legend) and any("all groups alike, 7.7" in t for t in legend)
    assert ax.get_xlabel() == "effect, by school"
    plt.close("all")


@pytest.mark.parametrize("fixture", ["schools", "sleep", "radon"])
def test_nothing_is_cut(fixture, request):
    fit = request.getfixturevalue(fixture)
    figure = pooling_figure(fit)
    assert not outside(figure)
    assert not collisions(figure)
    assert figure.get_size_inches()[1] < 12.0


def test_many_groups_are_represented(radon):
    figure = pooling_figure(radon)
    ax = figure.axes[0]
    table = radon.pooling("county")
    assert len(names(ax)) == SHOWN_ROWS
    ends = table["level"].iloc[[table["full_bayes"].argmax(), table["full_bayes"].argmin()]].tolist()
    assert [names(ax)[0], names(ax)[-1]] == ends
    words = " ".join(t.get_text() for t in ax.texts).replace("\n", " ")
    assert "24 of the 85 groups are shown" in words


def test_a_coefficient_and_a_table(sleep):
    table = sleep.pooling("Subject")
    ax = pooling(table, coefficient="Days")
    assert ax.get_xlabel() == "change of Reaction per unit of Days, by Subject"
    assert len(names(ax)) == 18
    plt.close("all")


def test_without_no_pooling():
    fit = fi.fit("effect ~ 1 + (1 | school)", fi.datasets.load("eight_schools"))
    figure = pooling_figure(fit)
    ax = figure.axes[0]
    assert not any("no pooling" in t.get_text() for t in ax.get_legend().get_texts())
    assert "No pooling cannot be computed" in " ".join(t.get_text() for t in ax.texts).replace("\n", " ")
    assert not outside(figure)


def test_in_axes_of_the_user(schools):
    _, given = plt.subplots()
    assert schools.plot.pooling(ax=given) is given
    plt.close("all")


def test_bad_requests(schools, sleep):
    with pytest.raises(FinettiError, match="did you mean 'Days'"):
        pooling(sleep, coefficient="Day")
    with pytest.raises(FinettiError, match="'Subjects' is not a grouping term"):
        pooling(sleep, group="Subjects")
    with pytest.raises(FinettiError, match="not a matplotlib Axes"):
        pooling(schools, ax=1)
    with pytest.raises(FinettiError, match="about 'school', not 'x'"):
        pooling(schools.pooling("school"), group="x")
