"""plots.shrinkage: the right numbers at the right place, every label inside the figure, nothing global changed."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from finetti.errors import FinettiError
from finetti.show import plots
from finetti.show.pictures import pictures
from show.fakes import FakeFit, eight_schools, group_table, many, sleepstudy


def texts_outside(figure):
    """Texts that reach beyond the edge of the figure after layout, i.e. that a file would cut."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, (w, h) = canvas.get_renderer(), canvas.get_width_height()
    ax = figure.axes[0]
    texts = [*ax.texts, ax._left_title, ax.title, ax.xaxis.label, ax.yaxis.label, *ax.get_legend().get_texts()]
    low, high = ax.get_xlim()  # matplotlib keeps ticks beyond the limits, and does not draw them
    texts += [t for at, t in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True) if low <= at <= high]
    texts += list(ax.get_yticklabels()) if len(ax.get_yticks()) > 1 and not ax.get_ylabel() else []
    outside = []
    for text in texts:
        if text.get_text() and text.get_visible():
            box = text.get_window_extent(renderer)
            if box.x0 < -1 or box.y0 < -1 or box.x1 > w + 1 or box.y1 > h + 1:
                outside.append(text.get_text())
    return outside


def long_words():
    table = group_table("ABC", [4, 5, 6], [1.0, 2.0, 4.0], [1.0, 1.0, 1.0], coefficient="coefficient_" * 9)
    return FakeFit({"group_" * 20: table}, response="response_" * 20)


def renamed(levels):
    fit = eight_schools()
    fit._tables["school"]["level"] = levels
    return fit


CASES = {
    "eight schools": (eight_schools(), None),
    "30 groups": (many(30), None),
    "85 counties": (many(85), None),
    "120 groups": (many(120), None),
    "121 groups": (many(121), None),
    "3000 groups": (many(3000), None),
    "1 group": (many(1), None),
    "slopes, one without information": (sleepstudy(), "Days"),
    "long words": (long_words(), None),
    "odd names": (
        renamed(["$a_$", "<b>", "W" * 60, "ü & é", "", "#", "%s", "A very long name of a school, really"]),
        None,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_no_text_is_cut(case):
    fit, coefficient = CASES[case]
    assert texts_outside(plots.shrinkage_figure(fit, coefficient=coefficient)) == []


def test_dots_lie_at_the_numbers(schools):
    ax = plots.shrinkage_figure(schools).axes[0]
    table = schools.groups("school").sort_values("mean", ascending=False)
    assert [t.get_text() for t in ax.get_yticklabels()] == list(table["level"])
    points = [np.asarray(c.get_offsets()) for c in ax.collections if len(c.get_offsets()) == 8]
    xs = [sorted(p[:, 0]) for p in points]
    assert any(np.allclose(x, sorted(table["raw"])) for x in xs)
    assert any(np.allclose(x, sorted(table["mean"])) for x in xs)
    assert "population, 8.0" in [t.get_text() for t in ax.get_legend().get_texts()]


def test_title_is_a_message_with_the_figures_own_numbers(schools):
    table = schools.groups("school")
    title = " ".join(plots.shrinkage_figure(schools).axes[0].get_title(loc="left").split())
    before, after = table["raw"].std(), table["mean"].std()
    assert title == f"Partial pooling narrows the spread of 8 school estimates from {before:.1f} to {after:.1f}"


def test_raw_missing_for_one_and_for_all():
    ax = plots.shrinkage_figure(sleepstudy(), "Subject", "Days").axes[0]
    assert any("1 group without a raw estimate" in " ".join(t.get_text().split()) for t in ax.texts)
    table = group_table("ABC", [1, 1, 1], [np.nan] * 3, [np.nan] * 3)
    ax = plots.shrinkage_figure(FakeFit({"g": table})).axes[0]
    assert not any(t.get_text().startswith("raw") for t in ax.get_legend().get_texts())


def test_far_raw_estimate_does_not_hide_the_rest(schools):
    schools._tables["school"].loc[2, "raw"] = 1e6
    ax = plots.shrinkage_figure(schools).axes[0]
    assert ax.get_xlim()[1] < 100
    assert any("beyond the edge" in t.get_text() for t in ax.get_legend().get_texts())


def test_mean_that_does_not_exist_is_drawn_at_the_median(schools):
    schools._tables["school"]["mean"] = np.nan
    ax = plots.shrinkage_figure(schools).axes[0]
    medians = sorted(schools.groups("school")["q50"])
    found = [sorted(np.asarray(c.get_offsets())[:, 0]) for c in ax.collections if len(c.get_offsets()) == 8]
    assert any(np.allclose(x, medians) for x in found)


def test_population_that_differs_between_groups(schools):
    schools._tables["school"]["population"] = np.linspace(5, 9, 8)
    labels = [t.get_text() for t in plots.shrinkage_figure(schools).axes[0].get_legend().get_texts()]
    assert "population value for the group" in labels


@pytest.mark.parametrize(("weight", "words"), [(1.0, "Not pooled"), (0.0, "Completely pooled")])
def test_the_extremes_are_named(schools, weight, words):
    table = schools._tables["school"]
    table["weight"] = weight
    table["mean"] = table["raw"] if weight else 7.0
    assert words in plots.shrinkage_figure(schools).axes[0].get_title(loc="left")


def test_all_numbers_equal():
    table = group_table("AB", [3, 3], [1.0, 1.0], [1.0, 1.0])
    for column in ("raw", "mean", "q5", "q50", "q95", "population"):
        table[column] = 0.0
    assert texts_outside(plots.shrinkage_figure(FakeFit({"g": table}))) == []


def test_defaults_are_the_first_group_and_coefficient(subjects):
    assert plots.shrinkage_figure(subjects).axes[0].get_xlabel() == "Reaction at Days = 0, by Subject"


@pytest.mark.parametrize(
    ("group", "coefficient", "words"),
    [
        ("Subjekt", None, "did you mean 'Subject'"),
        (None, "days", "did you mean 'Days'"),
        (None, "x", "'Intercept', 'Days'"),
    ],
)
def test_wrong_names_list_the_right_ones(subjects, group, coefficient, words):
    with pytest.raises(FinettiError, match=words):
        plots.shrinkage(subjects, group, coefficient)


def test_no_group_at_all():
    with pytest.raises(FinettiError, match=r"Add a term such as \(1 \| group\)"):
        plots.shrinkage(FakeFit({}, formula="y ~ 1 + x"))


def test_draws_in_given_axes_and_leaves_the_global_style_alone(schools, counties):
    before = dict(matplotlib.rcParams)
    figure = Figure(figsize=(9, 4))
    first, second = figure.subplots(1, 2)
    assert plots.shrinkage(schools, ax=first) is first
    plots.shrinkage(counties, ax=second)  # 85 rows in 4 inches: fewer names, none on top of another
    assert len([t for t in second.get_yticklabels() if t.get_text()]) < 50
    FigureCanvasAgg(figure).draw()
    assert dict(matplotlib.rcParams) == before


def test_new_figure_is_known_to_pyplot_and_files_are_not(schools):
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    plt.close("all")
    plots.shrinkage_figure(schools)
    assert plt.get_fignums() == []
    ax = plots.shrinkage(schools)
    assert plt.get_fignums() == [ax.figure.number]
    plt.close("all")


def test_pictures_are_the_same_bytes_twice(schools):
    (one,), (two,) = pictures(schools), pictures(schools)
    assert one.png == two.png
    assert one.png.startswith(b"\x89PNG")
    assert one.svg() == two.svg()
    assert b"<svg" in one.svg()


def test_one_picture_for_each_coefficient(subjects):
    assert [(p.group, p.coefficient) for p in pictures(subjects)] == [("Subject", "Intercept"), ("Subject", "Days")]


def test_the_table_is_not_changed(schools):
    before = schools._tables["school"].copy()
    plots.shrinkage_figure(schools)
    pd.testing.assert_frame_equal(before, schools._tables["school"])
