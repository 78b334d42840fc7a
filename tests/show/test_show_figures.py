"""Every figure: data drawn equal the tables, nothing cut, nothing on top of each other, nothing global changed."""

from __future__ import annotations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as some
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import finetti as fi
from finetti.errors import FinettiError
from finetti.show import plots
from finetti.show.pictures import plans
from show.drawn import collisions, has_intervals, has_marks, laid_out, outside, texts, words
from show.fakes import FakeFit, eight_schools, group_table, many, sleepstudy

Z90 = 1.6448536269514722


@pytest.fixture(scope="module")
def subjects_fit():
    return fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", fi.datasets.load("sleepstudy"))


@pytest.fixture(scope="module")
def schools_fit():
    return fi.fit("effect | se(se) ~ 1 + (1 | school)", fi.datasets.load("eight_schools"))


@pytest.fixture(scope="module")
def meta_fit():
    schools = fi.datasets.load("eight_schools")
    return fi.meta("effect", "se", schools, labels="school")


def figures(fit):
    """Every figure that this fit has, by name."""
    out = {}
    for name in ("shrinkage", "forest", "hyper", "predictive", "pairs", "funnel"):
        try:
            out[name] = getattr(plots, f"{name}_figure")(fit)
        except FinettiError:
            out[name] = None
    return out


@pytest.fixture(scope="module")
def drawn(subjects_fit, schools_fit, meta_fit):
    fits = {"subjects": subjects_fit, "schools": schools_fit, "meta": meta_fit}
    return {key: figures(fit) for key, fit in fits.items()}


KINDS = ["subjects", "schools", "meta"]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_cut_and_nothing_collides(drawn, kind):
    for name, figure in drawn[kind].items():
        if figure is not None:
            assert outside(figure) == [], name
            assert collisions(figure) == [], name


def test_only_a_meta_analysis_has_a_funnel(drawn, subjects_fit):
    assert {n for n, f in drawn["subjects"].items() if f is None} == {"funnel"}
    assert all(f is not None for f in drawn["meta"].values())
    with pytest.raises(FinettiError, match=r"fi.meta\(effect, se, data\)"):
        plots.funnel(subjects_fit)


@pytest.mark.parametrize("kind", KINDS)
def test_smallest_letters_are_legible_on_a_phone(drawn, kind):
    for name, figure in drawn[kind].items():
        if figure is None:
            continue
        laid_out(figure)
        sizes = [t.get_fontsize() for ax in figure.axes for t in [*ax.texts, ax.xaxis.label, *ax.get_yticklabels()]]
        # 360 pixels for the width of the figure; a letter's size is its height with ascenders and descenders
        pixels = min(sizes) / 72 * 360 / figure.get_size_inches()[0]
        assert pixels > 6.0, name


@pytest.mark.parametrize("name", ["shrinkage", "forest", "predictive", "funnel", "hyper", "pairs"])
def test_axes_are_respected_and_the_global_style_is_left_alone(meta_fit, name):
    before = dict(matplotlib.rcParams)
    plt.close("all")
    figure = Figure(figsize=(8, 5))
    ax = figure.add_subplot()
    drawn = getattr(plots, name)(meta_fit, ax=ax)
    assert drawn is (figure if name in ("hyper", "pairs") else ax)
    laid_out(figure)
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", ["shrinkage", "forest", "predictive", "funnel", "hyper", "pairs"])
def test_types_and_pyplot(meta_fit, name):
    plt.switch_backend("Agg")
    plt.close("all")
    assert isinstance(getattr(plots, f"{name}_figure")(meta_fit), Figure)
    assert plt.get_fignums() == []
    shown = getattr(meta_fit.plot, name)()
    assert isinstance(shown, Figure if name in ("hyper", "pairs") else Axes)
    assert len(plt.get_fignums()) == 1
    plt.close("all")


def test_what_is_no_axes_is_refused(meta_fit):
    for name in ("shrinkage", "forest", "predictive", "funnel", "hyper", "pairs"):
        with pytest.raises(FinettiError, match="Axes"):
            getattr(plots, name)(meta_fit, ax="left")


def test_every_figure_of_panels_says_its_message_where_readers_find_it(subjects_fit):
    assert plots.hyper_figure(subjects_fit).get_suptitle().startswith("The data narrow 4 priors")
    assert "posterior correlation" in plots.pairs_figure(subjects_fit).get_suptitle()


# --- forest ------------------------------------------------------------------------------------------


def test_forest_shows_the_table(subjects_fit):
    ax = plots.forest_figure(subjects_fit, "Subject", "Days").axes[0]
    table = subjects_fit.groups("Subject").query("coefficient == 'Days'").sort_values("mean", ascending=False)
    assert [t.get_text() for t in ax.get_yticklabels()] == list(table["level"])
    rows = np.arange(18)
    assert has_marks(ax, table["mean"], rows + 0.16)
    assert has_marks(ax, table["raw"], rows - 0.16)
    assert has_intervals(ax, table["q5"], table["q95"])
    assert has_intervals(ax, table["raw"] - Z90 * table["raw_se"], table["raw"] + Z90 * table["raw_se"])
    said = [t.get_text() for t in ax.texts]
    assert [v for v in said if v.endswith("%")] == [f"{100 * w:.0f} %" for w in table["weight"]]
    assert said.count("10") == 18
    apart = int(np.sum((table["q5"] > table["population"]) | (table["q95"] < table["population"])))
    assert ax.get_title(loc="left").startswith(f"{apart} of 18 Subject estimates of Days lie")


def test_forest_of_many_is_a_caterpillar():
    ax = plots.forest_figure(many(61)).axes[0]
    assert list(ax.get_yticks()) == []
    assert ax.get_ylabel() == "61 county groups, largest first"
    assert has_marks(ax, many(61).groups("county")["mean"])


def test_far_raw_intervals_end_in_an_arrow(schools):
    schools._tables["school"].loc[2, "raw_se"] = 1e6
    figure = plots.forest_figure(schools)
    ax = figure.axes[0]
    assert ax.get_xlim()[1] < 300
    assert "1 raw interval reaches beyond the edges" in words(figure)


def test_forest_of_raw_estimates_without_information():
    table = group_table("ABC", [1, 1, 1], [1.0, np.nan, 2.0], [1.0, np.nan, np.nan])
    figure = plots.forest_figure(FakeFit({"g": table}))
    assert "1 group has no raw estimate" in words(figure)
    assert outside(figure) == []


def test_no_weight_is_minus_nothing():
    table = group_table(["a", "b", "c"], [1, 1, 1], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0])
    table["weight"] = [-0.001, 0.2, 0.4]
    fit = FakeFit({"g": table})
    said = [" ".join(words(draw(fit)).split()) for draw in (plots.shrinkage_figure, plots.forest_figure)]
    assert "Own data decide 0 to 40 % (median 20 %)" in said[0]
    assert all("40 % 20 % 0 %" in text and "-0" not in text for text in said)


# --- meta-analysis -----------------------------------------------------------------------------------


def test_study_forest_shows_the_tables(meta_fit):
    figure = plots.forest_figure(meta_fit)
    ax = figure.axes[0]
    table, total = meta_fit.studies(), meta_fit.overall()
    assert [t.get_text() for t in ax.get_yticklabels()] == [*table["study"], "Overall", "New study"]
    rows = np.arange(8)
    assert has_marks(ax, table["effect"], rows - 0.16)
    assert has_marks(ax, table["mean"], rows + 0.16)
    assert has_intervals(ax, table["q5"], table["q95"])
    assert has_intervals(ax, table["effect"] - Z90 * table["se"], table["effect"] + Z90 * table["se"])
    diamond, bar = (p.get_xy() for p in ax.patches)
    overall, new = total.loc["overall"], total.loc["new study"]
    assert np.allclose([diamond[:, 0].min(), diamond[1, 0], diamond[:, 0].max()], overall[["q5", "mean", "q95"]])
    assert np.allclose([bar[:, 0].min(), bar[:, 0].max()], new[["q5", "q95"]])
    shares = [t.get_text() for t in ax.texts if t.get_text().endswith("%")]
    assert shares == [f"{100 * v:.0f} %" for v in table["share"]]
    tau = meta_fit.heterogeneity().loc["tau", "q50"]
    said = " ".join(words(figure).split())
    assert f"sd (tau) of {tau:.1f}" in said and "posterior medians." in said  # the tables lead with means


def test_a_single_hyperparameter_makes_no_pairs_on_the_page(meta_fit, subjects_fit):
    assert "pairs" not in [plan.name for plan in plans(meta_fit)]
    assert "pairs" in [plan.name for plan in plans(subjects_fit)]


def test_many_studies_have_no_names():
    rng = np.random.default_rng(0)
    fit = fi.meta(rng.normal(0, 0.4, 80), np.full(80, 0.2))
    figure = plots.forest_figure(fit)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["Overall", "New study"]
    assert outside(figure) == [] and collisions(figure) == []


def test_funnel_shows_the_tables(meta_fit):
    figure = plots.funnel_figure(meta_fit)
    ax = figure.axes[0]
    table = meta_fit.studies()
    assert has_marks(ax, table["effect"], table["se"])
    assert has_marks(ax, table["mean"], table["se"])
    bottom, top = ax.get_ylim()
    assert bottom > top == 0.0  # precise studies at the top
    middle, tau = meta_fit.overall().loc["overall", "mean"], meta_fit.heterogeneity().loc["tau", "q50"]
    lines = [np.column_stack(line.get_data()) for line in ax.lines]
    for reach in (lambda s: 1.959963984540054 * s, lambda s: 1.959963984540054 * np.sqrt(s**2 + tau**2)):
        for sign in (-1, 1):
            assert any(len(xy) == 201 and np.allclose(xy[:, 0], middle + sign * reach(xy[:, 1])) for xy in lines)
    outside_ = int(np.sum(np.abs(table["effect"] - middle) > 1.959963984540054 * table["se"]))
    assert ax.get_title(loc="left").startswith(f"{outside_ or 'None'} of 8 studies")


# --- names that try to break a figure ------------------------------------------------------------------

ODD = [
    "$",
    "$a_$",
    "\\frac{",
    "_" * 80,
    "W" * 80,
    "W " * 40,
    "a\nb",
    "\x00",
    "%s",
    "{0}",
    "<b>",
    "שלום",
    "群" * 30,
    "'",
]
NASTY = some.text(some.characters(exclude_categories=("Cs",)), max_size=90) | some.sampled_from(ODD)
# a figure takes a tenth of a second to lay out: a failing example is told as it was found
QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], phases=[Phase.explicit, Phase.generate])


@settings(QUICK, max_examples=8)
@given(some.lists(NASTY, min_size=3, max_size=8), NASTY, NASTY, NASTY)
def test_nasty_names_break_nothing(levels, group, coefficient, response):
    k = len(levels)
    table = group_table(levels, range(1, k + 1), np.linspace(0, 3, k), np.ones(k), coefficient=coefficient or "x")
    fit = FakeFit({group or "g": table}, response=response or "y", formula="y ~ 1 + (1 | g)")
    for draw in (plots.forest_figure, plots.shrinkage_figure):
        figure = draw(fit)
        assert outside(figure) == []
    foreign = Figure(figsize=(7, 5))
    plots.forest(fit, ax=foreign.add_subplot())  # axes of a user, made without the style: no mathematics there either
    laid_out(foreign)


@settings(QUICK, max_examples=5)
@given(some.lists(NASTY.filter(lambda v: v.strip() != ""), min_size=3, max_size=6, unique=True))
def test_nasty_studies_break_nothing(names):
    k = len(names)
    fit = fi.meta(np.linspace(-1, 1, k), np.full(k, 0.5), labels=names)
    for draw in (plots.forest_figure, plots.funnel_figure):
        assert outside(draw(fit)) == []


@pytest.mark.parametrize("fit", [eight_schools(), sleepstudy(), many(60), many(3), many(1500)], ids=lambda f: f.n_rows)
def test_forests_of_any_size(fit):
    figure = plots.forest_figure(fit)
    assert outside(figure) == []
    assert collisions(figure, slack=3.0) == []


def test_long_names_of_hyperparameters():
    rng = np.random.default_rng(1)
    group, response = "a_grouping_factor_with_a_very_long_name", "the_response_in_mmol_per_litre_of_whole_blood"
    covariate = "covariate_" * 4
    data = pd.DataFrame(
        {group: np.repeat(list("abcdef"), 6), response: rng.normal(size=36), covariate: rng.normal(size=36)}
    )
    fit = fi.fit(f"{response} ~ 1 + {covariate} + (1 + {covariate} | {group})", data)
    for name, figure in figures(fit).items():
        if figure is not None:
            assert outside(figure) == [], name
            assert collisions(figure, slack=3.0) == [], name
            assert texts(figure), name
