"""The report as text: everything said and escaped, nothing loaded from elsewhere, only the one script may run."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from finetti.errors import FinettiError
from finetti.show.report import Entry, html, write
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
    VOID = frozenset({"meta", "img", "br", "wbr", "link", "input"})

    def __init__(self):
        super().__init__()
        self.stack, self.tags, self.links, self.ids, self.broken, self.inside = [], [], [], [], [], {}
        self.attributes = set()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attributes}
        self.links += [v for k, v in attributes if k in ("src", "href")]
        self.ids += [v for k, v in attributes if k == "id"]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        if self.stack and self.stack[-1] in ("script", "style"):
            self.inside.setdefault(self.stack[-1], []).append(data)

    def handle_endtag(self, tag):
        if not self.stack or self.stack.pop() != tag:
            self.broken.append(tag)


def outline(text):
    parser = Outline()
    parser.feed(text)
    assert parser.stack == []
    assert parser.broken == []
    assert len(set(parser.ids)) == len(parser.ids)
    return parser


def test_self_contained_and_well_formed(demo):
    found = outline(demo)
    assert not {"link", "iframe", "object", "base", "form"} & set(found.tags)
    anchors = {f"#{i}" for i in found.ids}
    assert all(link.startswith("data:image/png;base64,") or link in anchors for link in found.links)
    assert "url(" not in demo
    assert "style" not in found.attributes  # the policy would not heed it
    assert not [name for name in found.attributes if name.startswith("on")]


def test_the_policy_names_the_one_script_and_the_one_style(demo):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', demo)[1]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    found = outline(demo)
    assert found.tags.count("script") == found.tags.count("style") == 1
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (text,) = found.inside[tag]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy


def test_says_everything_in_order(demo):
    order = [
        "<h1>finetti demo</h1>", "Eight schools", "What was found", "passed its own check", "What did coaching add?",
        "Model", "Likelihood", "<math>", "y[i] ~ Normal", "Results", "Groups: school", "10.74", "Data and priors",
        "Rubin (1981)", "half_t(3, 10.5)", "Diagnostics", "Monte Carlo error", "Radon", "Sleep",
        "How to reproduce", "finetti demo --out &#x27;my results&#x27;", "fi.fit(", "numpy ", "Seed: 0",
    ]  # fmt: skip
    at = 0
    for words in order:
        at = demo.index(words, at)


def test_every_figure_has_words(demo):
    alts = re.findall(r'<img src="data:image/png;base64,[^"]+" alt="([^"]*)">', demo)
    assert len(alts) == demo.count("<img") >= 4
    assert all(len(alt) > 40 for alt in alts)
    assert demo.count("<figcaption>") == len(alts)


def test_every_text_from_outside_is_escaped():
    table = group_table([EVIL, "B", "C"], [1, 2, 3], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0])
    table["coefficient"] = EVIL
    fit = FakeFit({EVIL: table}, response=EVIL, formula=EVIL, ok=False, warnings=(EVIL,))
    text = page(Entry(EVIL, fit, story=EVIL, source=EVIL, call=EVIL), title=EVIL, intro=EVIL, command=EVIL)
    found = outline(text)
    assert found.tags.count("script") == 1
    assert "onerror" not in found.attributes
    assert all(link.startswith(("data:image/png", "#")) for link in found.links)


def test_failed_check_comes_before_the_numbers():
    text = page(Entry("Bad", eight_schools(ok=False, warnings=("Pareto k is 0.92.",))))
    assert 'class="banner" role="alert"' in text
    assert text.index("DO NOT USE") < text.index('class="tiles')
    assert "passed its own check" not in text
    assert "Do not use the numbers above" in text


def test_a_remark_is_pointed_at_from_the_first_screen():
    text = page(Entry("E", eight_schools(warnings=("Only 8 groups.",))))
    assert text.index("1 remark under Diagnostics") < text.index("<h2>Model") < text.index("Only 8 groups.")


def test_many_levels_are_cut_short_and_said():
    text = page(Entry("Many", many(3000)))
    assert "… 2,000 more …" in text
    assert "fit.groups(&#x27;county&#x27;) has them all" in text
    assert text.count("<tr>") < 1100


def test_rows_dropped_and_options_given_are_told(schools):
    schools.model.design.n_dropped = 3
    text = page(Entry("E", schools))
    assert "3 rows with missing values dropped" in text
    assert "missing=&#x27;drop&#x27;" in text
    schools.model.model.pooling = {"school": "none"}
    schools.model.model.priors = {}
    assert "pooling={&#x27;school&#x27;: &#x27;none&#x27;}" in page(Entry("E", schools))


def test_model_without_groups_and_with_missing_numbers():
    text = page(Entry("E", FakeFit({}, formula="y ~ 1")))
    outline(text)
    assert "–" in text
    assert not re.search(r">\s*nan\b", text, flags=re.I)


def test_numbers_are_not_lost_when_nothing_is_finite(schools):
    table = schools._tables["school"]
    table[["raw", "raw_se"]] = np.nan
    outline(page(Entry("E", schools)))


def test_write_names_the_file_and_keeps_to_its_place(schools, tmp_path):
    assert write(schools, tmp_path / "a.html") == tmp_path / "a.html"
    assert write(schools, str(tmp_path)) == tmp_path / "report.html"
    assert "<h1>effect | se(se) ~ 1 + (1 | school)</h1>" in (tmp_path / "a.html").read_text("utf-8")
    write(schools, tmp_path / "a.html", title="Coaching <b>")
    assert "<h1>Coaching &lt;b&gt;</h1>" in (tmp_path / "a.html").read_text("utf-8")
    (tmp_path / "blocked.html").mkdir()
    (tmp_path / "blocked.html" / "report.html").mkdir()
    for path, words in ((tmp_path / "no" / "x.html", "no directory"), (tmp_path / "blocked.html", "cannot be written"),
                        ("", "give a file"), (3, "give a file"),
                        ("a\0b", "give a file"), (tmp_path / "blocked.html", "that you may write to")):  # fmt: skip
        with pytest.raises(FinettiError, match=words):
            write(schools, path)
