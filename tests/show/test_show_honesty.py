"""The report's sections on honest uncertainty: a sentence, a figure and a table each, made of the fit's numbers."""

from __future__ import annotations

import re
import warnings
from html import unescape
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import finetti as fi
from finetti.errors import FinettiError, FinettiWarning
from finetti.show import honesty, honesty_cost, honesty_tables, honesty_words
from finetti.show.left_out import left_out_figure
from finetti.show.outputs import write_entry
from finetti.show.reading import Reading
from finetti.show.report import Entry, html
from show.fakes import eight_schools

EVIL = '<script>document.body.dataset.owned="yes"</script><img src=x onerror=alert(1)>"\'&'
ANCHORS = ("weights", "pooling", "uncertainty", "exchangeability", "left-out", "sensitivity")
SCHOOLS = "effect | se(se) ~ 1 + (1 | school)"
SLEEP = "Reaction ~ 1 + Days + (1 + Days | Subject)"


def load(name):
    return fi.datasets.load(name)


@pytest.fixture(scope="module")
def radon():
    return Reading(fi.fit("log_radon ~ 1 + floor + (1 | county)", load("radon")))


@pytest.fixture(scope="module")
def schools():
    return Reading(fi.fit(SCHOOLS, load("eight_schools"), priors={"sd": fi.half_cauchy(5)}))


@pytest.fixture(scope="module")
def pages(radon, schools):
    """One page about radon, and one about both, as `finetti demo` writes it."""
    return html([Entry("Radon", radon)], title="Radon"), html([Entry("E", schools), Entry("R", radon)], title="demo")


def section(page, anchor):
    start = page.index(f'<section id="{anchor}">')
    ends = [page.find(mark, start + 10) for mark in ("</section>", "<section id=")]
    return page[start : min(end for end in ends if end > 0)]


def conclusions(fit):
    """The sentences by section."""
    return {s.anchor: [part.conclusion for part in s.parts] for s in honesty.sections(fit)}


# --- radon -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anchor", ANCHORS)
def test_each_section_has_a_sentence_a_figure_and_a_table(pages, anchor):
    text = section(pages[0], f"honest-{anchor}")
    said = re.findall(r'<p class="conclusion">(.*?)</p>', text)
    assert len(said) == (2 if anchor == "left-out" else 1)  # rows and counties
    for sentence in said:
        assert 40 < len(sentence) < 400
        assert sentence.endswith(".")
        assert re.search(r"\d", sentence) or anchor == "sensitivity"
        assert not re.search(r"\bnan\b|\binf\b|None", sentence)
    (alt,) = re.findall(r'<img src="data:image/png;base64,[^"]+" alt="([^"]*)">', text)
    assert len(alt) > 30
    tables = re.findall(r'<table class="sortable".*?</table>', text, flags=re.S)
    assert tables
    for table in tables:
        assert table.count("<tr>") <= honesty_tables.MOST_ROWS + 1
        assert not re.search(r">\s*nan\b", table)
    assert f'<a href="#honest-{anchor}" class="sub">' in pages[0]


def test_what_is_left_out_is_said(pages):
    assert "the first 25, 60 more are in fit.weights(&#x27;county&#x27;)" in section(pages[0], "honest-weights")
    text = section(pages[0], "honest-left-out")
    assert "60 more are in fit.logo(&#x27;county&#x27;).table" in text
    assert "<td" in text


def test_sentences_say_the_numbers_of_the_results(radon):
    said = {anchor: parts[-1] for anchor, parts in conclusions(radon).items()}
    weights = radon.weights("county")
    assert f"pooling factor of {weights.pooling_factor['Intercept']:.2f}" in said["weights"]
    assert f"(median {100 * weights['weight'].median():.0f} %)" in said["weights"]
    scores = radon.pooling("county").scores
    behind = scores.loc["complete_pooling"]
    assert said["pooling"].startswith(
        f"Rows left out are predicted best by {'full' if scores['loo'].idxmax() == 'full_bayes' else 'empirical'} Bayes"
    )
    assert (
        f"complete pooling is clearly worse, by {behind['loo_diff']:.1f} (se {behind['loo_dse']:.1f})"
        in said["pooling"]
    )
    share = radon.uncertainty("county").query("term == 'county'")["share"]
    assert f"{100 * share.min():.0f} to {100 * share.max():.0f} %" in said["uncertainty"]
    assert "Nothing speaks against exchangeability of the 85 levels" in said["exchangeability"]
    logo = radon.logo("county")
    assert f"−{-logo.elpd_logo:.1f} (se {logo.se:.1f})" in said["left-out"]
    assert "The data decide every parameter" in said["sensitivity"]


def test_the_page_of_several_fits_links_to_the_sections_of_each(pages):
    for anchor in ANCHORS:
        for i in (1, 2):
            assert f'<a href="#fit-{i}-honest-{anchor}">' in pages[1]
            assert f'<section id="fit-{i}-honest-{anchor}">' in pages[1]


@pytest.mark.parametrize("width", [360, 1100])
def test_nothing_sticks_out(pages, width, look, browser):
    for page in pages:
        seen = look(page, width)
        assert seen["width"] <= width
        assert seen["wide"] == []
        assert seen["loaded"] == seen["images"] >= 9
        assert all(len(alt) > 30 for alt in seen["alts"])
        assert browser.complaints() == []


def test_files_have_the_tables_and_nothing_is_computed_twice(schools, tmp_path, monkeypatch):
    fit, made = Reading(schools._fit), []
    for name in ("weights", "pooling", "uncertainty", "exchangeability", "sensitivity"):
        original = getattr(type(schools._fit), name)
        monkeypatch.setattr(
            type(schools._fit),
            name,
            lambda self, *a, _o=original, _n=name, **k: (made.append(_n), _o(self, *a, **k))[1],
        )
    entry, files = write_entry(Entry("E", fit), tmp_path, vector=False)
    html([entry], title="E")
    assert sorted(made) == sorted(["weights", "pooling", "uncertainty", "exchangeability", "sensitivity"])
    names = {f.name for f in files}
    tables = {"weights-school", "pooling-school", "pooling-scores-school", "uncertainty-school", "logo-school", "loo",
              "exchangeability-school", "exchangeability-columns-school", "sensitivity", "hyperpriors"}  # fmt: skip
    assert {f"{name}.csv" for name in tables} <= names
    assert {f"{anchor}.png" for anchor in ANCHORS} <= names
    read = pd.read_csv(tmp_path / "uncertainty-school.csv", index_col="parameter")
    np.testing.assert_allclose(read["share"], fit.uncertainty("school")["share"], rtol=1e-12)
    assert list(pd.read_csv(tmp_path / "loo.csv").columns) == ["row", "elpd", "pareto_k", "refitted"]
    assert pd.read_csv(tmp_path / "pooling-scores-school.csv", index_col="analysis").shape[0] == 4


# --- what is not defined ------------------------------------------------------------------------------


def test_without_groups():
    fit = fi.fit("Reaction ~ 1 + Days", load("sleepstudy"))
    assert "no grouping terms" in honesty.preface(fit)
    said = conclusions(fit)
    assert list(said) == ["uncertainty", "left-out", "sensitivity"]
    assert "population coefficients" in said["uncertainty"][0]
    page = html([Entry("E", Reading(fit))], title="E")
    assert "Leaving rows out" in page
    assert 'id="honest-weights"' not in page


def test_empirical_bayes():
    said = conclusions(fi.fit(SLEEP, load("sleepstudy"), pooling="empirical"))
    assert "This is an empirical-Bayes fit" in said["uncertainty"][0]
    assert all("flattered" in sentence for sentence in said["left-out"])
    assert "4 parameters are held at one value" in said["sensitivity"][0]
    assert "every parameter" not in said["sensitivity"][0]


@pytest.mark.parametrize(("kind", "words"), [("none", "were not pooled"), ("complete", "were pooled completely")])
def test_not_partially_pooled(kind, words):
    fit = fi.fit("Reaction ~ 1 + Days + (1 | Subject)", load("sleepstudy"), pooling={"Subject": kind})
    said = conclusions(fit)
    assert words in said["weights"][0]
    assert f"pooling={kind!r}" in said["exchangeability"][0]
    if kind == "none":
        assert "nothing is known of one that is left out" in said["left-out"][1]
    parts = {s.anchor: s.parts for s in honesty.sections(fit)}
    assert parts["weights"][0].drawing is parts["exchangeability"][0].drawing is None
    html([Entry("E", Reading(fit))], title="E")


def test_one_level():
    y = np.random.default_rng(1).normal(size=30)
    data = pd.DataFrame({"y": y, "g": "a"})
    fit = fi.fit("y ~ 1 + (1 | g)", data, priors={"Intercept": fi.normal(0, 1), "sd": fi.half_normal(1)})
    said = conclusions(fit)
    assert "one level only" in said["exchangeability"][0]
    assert "one level only" in said["left-out"][1]
    html([Entry("E", Reading(fit))], title="E")


def test_meta_with_known_covariances():
    bcg = load("bcg")
    se = bcg["se"].to_numpy()
    fit = fi.meta("log_rr", None, bcg, V=np.outer(se, se) * (0.3 + 0.7 * np.eye(13)), labels="trial")
    page = html([Entry("E", Reading(fit))], title="E")
    for anchor in ANCHORS:
        assert 'class="conclusion"' in section(page, f"honest-{anchor}")
    assert page.count("<figcaption>") >= 2 + len(ANCHORS)


def test_nuts():
    pytest.importorskip("nutpie")
    with warnings.catch_warnings():  # a short run may complain of itself
        warnings.simplefilter("ignore", FinettiWarning)
        fit = fi.fit(SCHOOLS, load("eight_schools"), priors={"sd": fi.half_cauchy(5)}, method="nuts")
        found = honesty.sections(fit)
    if not fit.diagnostics.ok:
        assert found == ()
        return
    assert all(part.conclusion and (part.shown or not part.group) for s in found for part in s.parts)


def test_a_failed_fit_has_no_sections_and_says_why():
    fit = eight_schools(ok=False, warnings=("Pareto k is 0.92.",))
    assert honesty.sections(fit) == ()
    page = html([Entry("Bad", fit)], title="Bad")
    assert "nothing was derived from it" in section(page, "honest")


def test_what_cannot_be_computed_is_a_sentence_and_no_traceback():
    """A stand-in knows none of the results: each section says so."""
    page = html([Entry("E", eight_schools())], title="E")
    for anchor in ANCHORS:
        assert "a stand-in has no hyperparameter nodes" in section(page, f"honest-{anchor}").lower()


# --- several terms, and costs ---------------------------------------------------------------------------


def test_a_part_for_each_term():
    fit = Reading(fi.fit("diameter ~ 1 + (1 | plate) + (1 | sample)", load("penicillin")))
    found = {s.anchor: [p.group for p in s.parts] for s in honesty.sections(fit)}
    assert found["weights"] == found["pooling"] == ["plate", "sample"]
    assert found["left-out"] == ["", "plate", "sample"]
    assert found["sensitivity"] == [""]
    page = html([Entry("E", fit)], title="E")
    assert section(page, "honest-weights").count("<figure>") == 2
    assert "<h4>By plate</h4>" in page


def test_terms_beyond_the_third_are_named(schools, monkeypatch):
    monkeypatch.setattr(honesty, "MOST_TERMS", 1)
    found = honesty._section("weights", "Weights", ["a", "b<", "c"], lambda g: honesty.Part(g, "x"))
    assert [p.group for p in found.parts] == ["a"]
    assert found.others == "b<, c"
    found = honesty._section("left-out", "Out", ["", "a", "b"], lambda g: honesty.Part(g, "x"))
    assert [p.group for p in found.parts] == ["", "a"]


def test_a_term_of_many_levels_is_left_to_calls(schools, monkeypatch):
    monkeypatch.setattr(honesty, "MOST_LEVELS", 7)
    said = conclusions(schools._fit)
    for anchor in ANCHORS[:5]:
        assert re.search(
            r"Not computed for this page, because school has 8 levels; fit\.\w+\('school'\) does", said[anchor][-1]
        )
    assert "Not computed" not in said["sensitivity"][0]


def test_a_fit_that_takes_long_is_left_to_calls(schools, monkeypatch):
    monkeypatch.setattr(honesty_cost, "MOST_SECONDS", 0.0)
    assert all("it takes long" in part for parts in conclusions(schools._fit).values() for part in parts)


def test_scores_of_pooling_go_first(schools, monkeypatch):
    monkeypatch.setattr(honesty_cost.Cost, "scores", lambda self, group: 4.5)
    (part,) = next(s for s in honesty.sections(schools._fit) if s.anchor == "pooling").parts
    assert "median length" in part.conclusion
    assert any("fit.pooling('school').scores" in note for note in part.notes)
    assert [f.name for f in part.files] == ["pooling"]


def test_cost_adds_up(schools):
    cost = honesty_cost.Cost(schools)
    assert cost.allows(2.5)
    assert not cost.allows(2.0, share=0.5)
    assert cost.allows(2.5)
    assert not cost.allows(3.5)
    assert cost.allows(2.9)
    assert not cost.allows(0.2)


def test_the_leading_coefficient():
    sleep = fi.fit(SLEEP, load("sleepstudy"))
    assert honesty.leading_coefficient(sleep, "Subject") == "Days"  # 6 a day over ten days, against 25
    small = load("sleepstudy").assign(Days=lambda t: t["Days"] / 9 - 0.5)
    assert honesty.leading_coefficient(fi.fit(SLEEP, small), "Subject") == "Intercept"


# --- words ----------------------------------------------------------------------------------------------


def test_hostile_names_do_nothing(look, browser):
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"y": rng.normal(size=40), "g": np.repeat([EVIL, "$x$", "${body}", "a_b"], 10)})
    data.loc[data["g"] == EVIL, "y"] += 3.0
    fit = Reading(fi.fit("y ~ 1 + (1 | g)", data))
    page = html([Entry("E", fit)], title="E")
    assert page.count("<script>") == 1
    assert "<img src=x" not in page
    assert EVIL in unescape(section(page, "honest-left-out"))
    seen = look(page, 390)
    assert seen["scripts"] == 1
    assert seen["marked"] == ""
    assert seen["width"] <= 390
    assert browser.complaints() == []


def scores(loo, diff, dse, shared=None):
    index = pd.Index(["no_pooling", "complete_pooling", "empirical_bayes", "full_bayes"], name="analysis")
    shared = np.full(4, np.nan) if shared is None else shared
    return pd.DataFrame({"loo": loo, "loo_diff": diff, "loo_dse": dse, "loo_shared": shared}, index=index)


def test_which_pooling_predicts_best():
    nan = np.nan
    table = scores([nan, -90.0, -51.0, -50.0], [nan, 40.0, 1.0, 0.0], [nan, 9.0, 1.5, 0.0], [-70.0, -80.0, -41, -40])
    said = honesty_words.pooling(table, None, "g", "Intercept")
    assert said == (
        "Rows left out are predicted best by full Bayes: empirical Bayes is not told apart from it (1.0 behind, se "
        "1.5); complete pooling is clearly worse, by 40.0 (se 9.0); no pooling cannot predict some rows, and on the "
        "others it is worse by 30.0."
    )
    # a difference below 4 is small whatever its standard error is said to be
    table = scores([nan, -50.0, -50.0, -50.5], [nan, 0.0, 0.0, 0.5], [nan, 0.0, 0.0, 0.1])
    said = honesty_words.pooling(table, None, "g", "Intercept")
    assert "full Bayes is behind by 0.5 (se 0.1)" in said
    assert "empirical Bayes is not told apart from it;" in said
    assert "no pooling cannot be scored" in said


def test_surprising_groups_and_telling_columns():
    found = SimpleNamespace(
        group="g", levels=tuple("abcdefg"), level=0.05, flagged=("a", "b"), informative=("size",),
        calibration=pd.DataFrame({"coefficient": ["Intercept"], "p_value": [0.01]}), advice=("Check a.", "Add size."),
    )  # fmt: skip
    said, rest = honesty_words.exchangeability(found)
    assert said == (
        "a and b are surprising as draws from the parent of the other levels of g, and together the 7 levels do not "
        "look like draws from one normal parent in Intercept, and size tells the effects of g, so that its labels "
        "carry information."
    )
    assert rest == ("Check a.", "Add size.")


def test_a_planted_group_is_named():
    rng = np.random.default_rng(8)
    g = np.repeat(np.arange(20), 6)
    effect = np.where(np.arange(20) == 11, 9.0, rng.normal(size=20))
    data = pd.DataFrame({"y": effect[g] + 0.5 * rng.normal(size=120), "g": [f"g{j}" for j in g]})
    said = conclusions(fi.fit("y ~ 1 + (1 | g)", data))
    assert said["exchangeability"][0].startswith("g11 is surprising as draws from the parent of the other levels of g")


def test_verdicts_on_the_prior():
    verdicts = {"a": honesty_words.CONFLICT, "b": honesty_words.PRIOR, "c": honesty_words.BOTH, "d": honesty_words.DATA}
    table = pd.DataFrame({"verdict": verdicts})
    others = pd.DataFrame({"alternative": ["as fitted", "uniform()"], "shift": [0.0, -0.71]})
    said = honesty_words.sensitivity(SimpleNamespace(table=table, alternatives=others))
    assert said == (
        "Prior and data disagree about a; the prior decides b; c depends on the prior as well as on the data; the data "
        "decide d; other hyperpriors move no median by more than 0.71 posterior sds."
    )


def test_untrusted_scores_are_not_praised():
    found = SimpleNamespace(
        elpd_loo=-10.0, se=2.0, p_loo=1.5, n_data_points=10, pareto_k=np.array([0.2, 1.3]), good_k=0.7, failed=(1,),
        refitted=(), notes=(),
    )  # fmt: skip
    said = honesty_words.loo(found)
    assert "1 row of them cannot be trusted (the largest Pareto k is 1.30, trusted below 0.70)" in said


# --- the figure of groups left out -----------------------------------------------------------------------


def test_the_worst_group_is_first_and_named(schools):
    logo = schools.logo("school")
    figure = left_out_figure(logo)
    (ax,) = figure.axes
    each = logo.table["elpd"] / logo.table["n"]
    worst = logo.table["level"][each.idxmin()]
    assert ax.get_yticklabels()[0].get_text() == worst == "A"
    assert "A is predicted worst" in ax.get_title(loc="left")
    x = np.concatenate([line.get_xdata() for line in ax.lines if line.get_marker() == "o"])
    np.testing.assert_allclose(np.sort(x), np.sort(each))


def test_groups_without_a_score():
    fit = fi.fit("Reaction ~ 1 + Days + (1 | Subject)", load("sleepstudy"), pooling={"Subject": "none"})
    with pytest.raises(FinettiError, match="no level of 'Subject' has a score"):
        left_out_figure(fit.logo("Subject"))
