"""The report: everything escaped, nothing loaded from elsewhere, readable in a real browser on a phone and on paper."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from finetti.show.report import Entry, html
from show.browser import look, to_pdf
from show.fakes import FakeFit, eight_schools, group_table, many, sleepstudy

EVIL = '<script>document.body.dataset.owned="yes"</script><img src=x onerror=alert(1)>"\'&$title ${body} $'


def page(*entries, **kind):
    return html(entries, **{"title": "finetti demo", **kind})


@pytest.fixture(scope="module")
def demo():
    return page(
        Entry("Eight schools", eight_schools(), story="What did coaching add?", source="Rubin (1981)", seconds=0.043),
        Entry("Radon", many(85)),
        Entry("Sleep", sleepstudy()),
        intro="Three analyses.",
        command="finetti demo --out 'my results'",
    )


class Outline(HTMLParser):
    VOID = frozenset({"meta", "img", "br", "wbr", "link"})

    def __init__(self):
        super().__init__()
        self.stack, self.tags, self.links, self.broken = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [v for k, v in attributes if k in ("src", "href")]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        if not self.stack or self.stack.pop() != tag:
            self.broken.append(tag)


def outline(text):
    parser = Outline()
    parser.feed(text)
    assert parser.stack == []
    assert parser.broken == []
    return parser


def test_self_contained_and_well_formed(demo):
    found = outline(demo)
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    assert all(link.startswith(("data:image/png;base64,", "#fit-")) for link in found.links)
    assert "default-src 'none'" in demo
    assert "url(" not in demo


def test_says_everything_in_order(demo):
    order = [
        "<h1>finetti demo</h1>", "Eight schools", "passed its own check", "Model", "y[i] ~ Normal", "Summary", "10.74",
        "Data and priors", "Rubin (1981)", "half_t(3, 10.5)", "Diagnostics", "Monte Carlo error", "Radon", "Sleep",
        "How to reproduce", "finetti demo --out &#x27;my results&#x27;", "fi.fit(", "numpy ", "Seed: 0",
    ]  # fmt: skip
    at = 0
    for words in order[1:]:
        at = demo.index(words, at)
    assert demo.count("<img") == 4


def test_every_text_from_outside_is_escaped():
    table = group_table([EVIL, "B"], [1, 2], [1.0, 2.0], [1.0, 1.0])
    table["coefficient"] = EVIL
    fit = FakeFit({EVIL: table}, response=EVIL, formula=EVIL, ok=False, warnings=(EVIL,))
    text = page(Entry(EVIL, fit, story=EVIL, source=EVIL, call=EVIL), title=EVIL, intro=EVIL, command=EVIL)
    found = outline(text)
    assert "script" not in found.tags
    assert not re.search(r"<[^>]*\sonerror", text)
    assert all(link.startswith("data:image/png") for link in found.links)


def test_failed_check_comes_before_the_numbers():
    text = page(Entry("Bad", eight_schools(ok=False, warnings=("Pareto k is 0.92.",))))
    assert 'class="banner" role="alert"' in text
    assert text.index("DO NOT USE") < text.index("<h3>Summary")
    assert "passed its own check" not in text


def test_many_levels_are_cut_short_and_said():
    text = page(Entry("Many", many(3000)))
    assert "… 2,600 more …" in text
    assert text.count("<tr>") < 450


def test_rows_dropped_and_priors_given_are_told(schools):
    schools.model.design.n_dropped = 3
    assert "3 rows with missing values dropped" in page(Entry("E", schools))
    schools.model.model.pooling = {"school": "none"}
    schools.model.model.priors = {}
    assert "pooling={&#x27;school&#x27;: &#x27;none&#x27;}, seed=0" in page(Entry("E", schools))


def test_model_without_groups_and_with_missing_numbers():
    text = page(Entry("E", FakeFit({}, formula="y ~ 1")))
    outline(text)
    assert "–" in text
    assert "nan" not in text.lower()


@pytest.mark.parametrize("width", [360, 400, 1100])
def test_in_a_browser(demo, width, tmp_path):
    seen = look(demo, width, tmp_path)
    assert seen["title"] == "finetti demo"
    assert seen["width"] <= width
    assert seen["wide"] == []
    assert (seen["images"], seen["loaded"]) == (4, 4)
    assert all("Partial pooling narrows" in alt for alt in seen["alts"])
    assert seen["headings"] == ["Eight schools", "Radon", "Sleep", "How to reproduce"]
    assert ("population" in seen["columns"]) == (width > 520)
    assert "10.74" in seen["text"]


def test_evil_names_do_nothing_in_a_browser(tmp_path):
    table = group_table([EVIL, "B"], [1, 2], [1.0, 2.0], [1.0, 1.0])
    seen = look(page(Entry(EVIL, FakeFit({EVIL: table}, formula=EVIL)), title=EVIL), 400, tmp_path)
    assert seen["title"] == EVIL
    assert seen["scripts"] == 0
    assert seen["marked"] == ""
    assert seen["headings"][0] == EVIL
    assert seen["width"] <= 400


def test_on_paper(demo, tmp_path):
    (tmp_path / "report.html").write_text(demo, encoding="utf-8")
    pdf = to_pdf(tmp_path / "report.html", tmp_path)
    pages = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert 4 <= pages <= 14


def test_numbers_are_not_lost_when_nothing_is_finite(schools):
    table = schools._tables["school"]
    table[["raw", "raw_se"]] = np.nan
    outline(page(Entry("E", schools)))
