"""What the report says: equations against the model, the first screen against the tables, the code by running it."""

from __future__ import annotations

import html as markup
import re
import runpy
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

import finetti as fi
from finetti.show import recipe
from finetti.show.equations import at_row, equations
from finetti.show.findings import asked, facts, found
from finetti.show.reading import Reading
from finetti.show.report import Entry, html

SCHOOLS = "effect | se(se) ~ 1 + (1 | school)"


def spoken(text):
    """A piece of MathML as it is read: its text without the markup; also that it is well-formed."""
    return "".join(ElementTree.fromstring(text).itertext()).replace("\u2062", "")


def lines(formula, data, **kind):
    bound = fi.Model(formula, **kind).bind(data)
    return {
        block.title: [("".join(map(spoken, line.pieces)), line.label or line.note) for line in block.lines]
        for block in equations(bound)
    }


@pytest.fixture(scope="module")
def sleep():
    return fi.datasets.load("sleepstudy")


@pytest.fixture(scope="module")
def schools():
    return fi.fit(SCHOOLS, fi.datasets.load("eight_schools"), priors={"sd": fi.half_cauchy(1 / 3)}, seed=7)


@pytest.fixture(scope="module")
def trials():
    rng = np.random.default_rng(2)
    k = 9
    table = pd.DataFrame({"d": rng.normal(0.3, 0.3, k), "se": rng.uniform(0.1, 0.3, k), "year": 1990.0 + np.arange(k),
                          "name": [f"Trial <{i}>" for i in range(k)]})  # fmt: skip
    return fi.meta("d", "se", table, labels="name", moderators="year", priors={"sd": fi.half_normal(0.5)}, seed=3)


def test_equations_of_correlated_slopes(sleep):
    found = lines("Reaction ~ 1 + Days + (1 + Days | Subject)", sleep, priors={"sigma": fi.fixed(30)})
    assert found["Likelihood"] == [
        ("Reactioni~Normal(μi,σ2)", "i = 1, …, 180"),
        ("μi=β0+βDaysDaysi+uj[i],0Subject+uj[i],DaysSubjectDaysi", ""),
    ]
    parents = found["Parent distributions"]
    assert parents[0] == ("(uj,0Subject,uj,DaysSubject)~Normal2(0,ΣSubject)", "j = 1, …, 18 levels of Subject")
    assert parents[1][0] == "ΣSubject=D RSubject D,D=diag(τSubject,0,τSubject,Days)"
    hyper = {label: text for text, label in found["Hyperpriors"]}
    assert hyper["sd_Subject[Days]"].startswith("τSubject,Days~half-t3(0,")
    assert hyper["cor_Subject"] == "RSubject~LKJ(2)"
    assert hyper["sigma"] == "σ=30"


@pytest.mark.parametrize(
    ("prior", "text"),
    [
        (fi.normal(-2, 5), "β0~Normal(−2,52)"), (fi.student_t(4, 1, 2), "β0~t4(1,22)"), (fi.flat(), "p(β0)∝1"),
        (fi.uniform(-1, 1), "β0~Uniform(−1,1)"),
    ],
)  # fmt: skip
def test_priors_of_coefficients(prior, text):
    schools = fi.datasets.load("eight_schools")
    assert lines(SCHOOLS, schools, priors={"Intercept": prior})["Priors of the population coefficients"][0][0] == text


@pytest.mark.parametrize(
    ("prior", "text"),
    [
        (fi.half_normal(2), "τschool~half-Normal(0,22)"), (fi.half_cauchy(5), "τschool~half-Cauchy(0,5)"),
        (fi.exponential(0.5), "τschool~Exponential(0.5)"), (fi.gamma(2, 0.1), "τschool~Gamma(2,0.1)"),
        (fi.inverse_gamma(1, 2), "τschool2~inverse-Gamma(1,2)"), (fi.uniform(), "τschool~Uniform(0,∞)"),
        (fi.half_t(3, 2.5), "τschool~half-t3(0,2.52)"),
    ],
)  # fmt: skip
def test_priors_of_an_sd(prior, text):
    schools = fi.datasets.load("eight_schools")
    assert lines(SCHOOLS, schools, priors={"sd": prior})["Hyperpriors"][0][0] == text


def test_equations_of_every_pooling(sleep):
    words = {}
    for kind in ("complete", "none", "empirical"):
        words[kind] = lines("Reaction ~ 1 + Days + (1 | Subject)", sleep, pooling=kind)
    assert words["complete"]["Parent distributions"][0][0] == "ujSubject=0"
    assert "u" not in words["complete"]["Likelihood"][1][0].replace("μ", "")
    assert words["none"]["Parent distributions"][0][0] == "ujSubject∈ℝ"
    assert "empirical Bayes" in words["empirical"]["Hyperpriors"][-1][1]


def test_a_hundred_columns_stay_readable():
    rng = np.random.default_rng(0)
    table = {f"x{k}": rng.normal(size=150) for k in range(100)} | {"y": rng.normal(size=150)}
    found = lines("y ~ 1 + " + " + ".join(f"x{k}" for k in range(100)), table)
    assert "(95 more columns)" in found["Likelihood"][1][0]
    assert len(found["Priors of the population coefficients"]) < 10


@pytest.mark.parametrize(
    ("expression", "text"),
    [("x", "xi"), ("period[T.2]", "1{periodi=2}"), ("a:b", "ai·bi"), ("log(n)", "log(ni)"), ("I(a + b)", "(a + b)i"),
     ("center(a + b)", "(center(a + b))i"), ("<b>", "(<b>)i"), ("poly(x, 2)[1]", "(poly(x, 2)[1])i")],
)  # fmt: skip
def test_columns_at_a_row(expression, text):
    assert spoken(at_row(expression)) == text


def test_first_screen_says_what_the_tables_say(schools, sleep):
    fit = Reading(fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", sleep))
    said = {fact.label: fact for fact in facts(fit, (0.05, 0.5, 0.95))}
    table = fit.summary()
    assert set(said) == {"beta[Days]", "beta[Intercept]", "sd_Subject[Intercept]", "sd_Subject[Days]", "sigma"}
    for label, fact in said.items():
        row = table.loc[label]
        numbers = [float(v.replace("−", "-")) for v in (fact.value, *fact.interval.split(" to "))]
        assert numbers == pytest.approx([row["mean"], row["q5"], row["q95"]], abs=0.06 * row["sd"])
    assert asked(fit) == (
        "How does Reaction depend on Days, and how much do 18 Subjects differ, in level and in the effect of Days?"
    )
    assert asked(Reading(schools)) == "What is effect over all, and how much do 8 schools differ?"
    weight = schools.groups()["weight"]
    low, mid, high = (f"{100 * v:.0f}" for v in (weight.min(), weight.median(), weight.max()))
    sentences = " ".join(found(Reading(schools), (0.05, 0.5, 0.95)))
    assert f"Each school's own data decide {low} to {high} % (median {mid} %)" in sentences
    assert "The highest school is A with" in sentences


def test_share_of_the_variance_between_groups():
    fit = Reading(fi.fit("log_radon ~ 1 + floor + (1 | county)", fi.datasets.load("radon")))
    sentence = found(fit, (0.05, 0.5, 0.95))[0]
    sd, sigma = fit.summary()["mean"][["sd_county[Intercept]", "sigma"]]
    share = float(re.search(r"(\d+) % \(", sentence)[1])
    assert share == pytest.approx(100 * sd**2 / (sd**2 + sigma**2), abs=2)
    assert "between counties" in sentence


def code_of(page):
    """The code on the page, as a reader copies it."""
    return markup.unescape(re.search(r'From Python:</p>\s*<pre class="wrap"><code>(.*?)</code>', page, flags=re.S)[1])


@pytest.fixture
def rerun(tmp_path):
    """Copy the code off the page into a file, and run it."""

    def rerun(fit):
        (tmp_path / "again.py").write_text(code_of(html([Entry("x", fit, figures=())], title="x")), encoding="utf-8")
        return runpy.run_path(str(tmp_path / "again.py"))["fit"]

    return rerun


def test_the_code_on_the_page_makes_the_same_numbers(schools, rerun, capsys):
    again = rerun(schools)
    pd.testing.assert_frame_equal(again.summary(), schools.summary(), rtol=1e-12)
    assert again.seed == 7
    assert "CHECKS" not in capsys.readouterr().out


def test_the_code_of_a_meta_analysis(trials, rerun):
    again = rerun(trials)
    pd.testing.assert_frame_equal(again.overall(), trials.overall(), rtol=1e-9)
    pd.testing.assert_frame_equal(again.heterogeneity(), trials.heterogeneity(), rtol=1e-9)
    assert list(again.studies()["study"]) == list(trials.studies()["study"])


def test_the_code_with_a_known_covariance(rerun):
    V = np.diag([0.04, 0.05, 0.03, 0.06, 0.05])
    V[0, 1] = V[1, 0] = 0.02
    fit = fi.meta([0.1, 0.4, 0.2, 0.5, 0.3], V=V, cluster=["a", "a", "b", "c", "d"], priors={"sd": fi.half_normal(0.5)})
    assert "V = [" in "\n".join(recipe.preamble(fit))
    pd.testing.assert_frame_equal(rerun(fit).overall(), fit.overall(), rtol=1e-9)


def test_the_code_on_a_file(sleep, rerun, tmp_path, monkeypatch):
    table = pd.concat([sleep, sleep])  # too many numbers for the page
    table.astype({"Reaction": float}).to_csv(tmp_path / "data.csv", index=False)
    monkeypatch.chdir(tmp_path)
    fit = fi.fit("Reaction ~ 1 + Days + (1 | Subject)", "data.csv", pooling="empirical", draws=400)
    code = code_of(html([Entry("x", fit, figures=())], title="x"))
    assert "360 rows; needs the columns Days, Reaction, Subject" in code
    again = rerun(fit)
    pd.testing.assert_frame_equal(again.summary(), fit.summary(), rtol=1e-12)
    assert again.n_draws == 400


def test_levels_come_back_as_they_were(rerun):
    rng = np.random.default_rng(5)
    for levels in (["10", "9", "1"], ["b", "a", "c"], [3, 20, 100]):
        fit = fi.fit("y ~ 1 + (1 | g)", {"y": rng.normal(size=12), "g": levels * 4})
        again = rerun(fit)
        pd.testing.assert_frame_equal(again.groups(), fit.groups(), rtol=1e-12)


def test_report_of_a_meta_analysis(trials, tmp_path):
    page = trials.report(tmp_path / "m.html").read_text("utf-8")
    order = ["<h1>Meta-analysis of d: 9 studies</h1>", "how does it depend on year", "true d to expect in a new study",
             "Overall effect and a new study", "Heterogeneity", "I2", "Studies", "Trial &lt;0&gt;",
             "fi.meta("]  # fmt: skip
    at = 0
    for words in order:
        at = page.index(words, at)
    assert page.count("<img") >= 4


def test_report_of_a_real_fit_in_a_browser(trials, tmp_path, look, browser):
    for width in (390, 1100):
        seen = look(trials.report(tmp_path / "m.html"), width)
        assert seen["wide"] == []
        assert seen["width"] <= width
        assert seen["loaded"] == seen["images"]
        assert browser.complaints() == []
        assert browser.requests() == []


def test_files_of_a_meta_analysis(trials, tmp_path):
    from finetti.show import outputs

    entry, files = outputs.write_entry(Entry("m", trials), tmp_path)
    report = outputs.write_report([entry], tmp_path, title="m")
    names = {path.name for path in files}
    assert {"studies.csv", "overall.csv", "heterogeneity.csv", "summary.csv", "priors.csv", "posterior.nc",
            "forest.png", "forest.svg", "funnel.svg", "hyper.png", "predictive.png"} <= names  # fmt: skip
    assert report.name == "report.html"
    overall = pd.read_csv(tmp_path / "overall.csv", index_col=0)
    assert overall.loc["overall", "mean"] == pytest.approx(trials.overall().loc["overall", "mean"], rel=1e-12)


def test_categories_are_named_as_the_reader_knows_them():
    rng = np.random.default_rng(4)
    table = {"y": rng.normal(size=40), "c": ["a", "b"] * 20, "g": np.repeat([*"pqrst"], 8)}
    fit = Reading(fi.fit("y ~ 1 + C(c) + (1 + c | g)", table))
    assert (
        asked(fit) == "How does y depend on c, and how much do 5 levels of g differ, in level and in the effect of c?"
    )
    words = [fact.words for fact in facts(fit, (0.05, 0.95))]
    assert words[:2] == [
        "difference of y for c = b against the reference",
        "y where the predictors are 0 or at reference",
    ]
    assert [len(fact.interval.split(" to ")) for fact in facts(fit, (0.05, 0.95))] == [2] * 5
