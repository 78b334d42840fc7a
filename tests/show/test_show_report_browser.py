"""The report in a real browser: it sorts and filters under a finger and a key, fits a phone, and prints."""

from __future__ import annotations

import re

import pytest

import finetti as fi
from finetti.show.report import Entry, html
from show.fakes import FakeFit, eight_schools, group_table, many, sleepstudy

EVIL = '<script>document.body.dataset.owned="yes"</script><img src=x onerror=alert(1)>"\'&$title ${body} $'


def page(*entries, **kind):
    return html(entries, **{"title": "finetti demo", **kind})


@pytest.fixture(scope="module")
def demo():
    return page(
        Entry("Eight schools", eight_schools(), story="What did coaching add?", source="Rubin (1981)"),
        Entry("Radon", many(85)),
        Entry("Sleep", sleepstudy()),
    )


@pytest.fixture(scope="module")
def radon(tmp_path_factory):
    """A real report; sent around in its own file."""
    fit = fi.fit("log_radon ~ 1 + floor + (1 + floor | county)", fi.datasets.load("radon"))
    return fit, fit.report(tmp_path_factory.mktemp("radon") / "report.html", title="Radon")


@pytest.mark.parametrize("width", [360, 390, 1100])
def test_on_a_screen_of(demo, width, look, browser):
    seen = look(demo, width)
    assert seen["title"] == "finetti demo"
    assert seen["width"] <= width
    assert seen["wide"] == []
    assert seen["loaded"] == seen["images"] == 4
    assert all("Partial pooling narrows" in alt for alt in seen["alts"])
    assert seen["headings"] == ["Eight schools", "Radon", "Sleep", "How to reproduce"]
    assert any("population" in column for column in seen["columns"]) == (width > 520)
    assert "10.74" in seen["text"]
    assert browser.complaints() == []
    assert browser.requests() == []


def test_mathematics_is_drawn_and_wraps(radon, look):
    _, path = radon
    for width in (360, 1100):
        seen = look(path, width)
        assert len(seen["maths"]) > 15
        assert all(w > 5 and h > 8 for w, h in seen["maths"])
        assert max(w for w, _ in seen["maths"]) < 360
        assert seen["wide"] == []


def column(browser, table, index):
    """Text of one column, top to bottom, of what can be seen."""
    return browser.run(
        f"[...document.querySelectorAll({table!r})[0].tBodies[0].rows].filter(r => !r.hidden)"
        f".map(r => r.cells[{index}].textContent.trim())"
    )


GROUPS = '[id^="group-1"] table'


def test_a_click_sorts_by_number_up_then_down_then_as_it_was(radon, look, browser):
    fit, path = radon
    look(path, 1100)
    before = column(browser, GROUPS, 0)
    heads = browser.run(f"[...document.querySelector({GROUPS!r}).tHead.rows[0].cells].map(c => c.textContent.trim())")
    n = next(k for k, head in enumerate(heads) if re.match(r"n\b", head))
    sizes = sorted(float(v) for v in fit.groups("county")["n"])
    aria = f'document.querySelector({GROUPS!r}).tHead.rows[0].cells[{n}].getAttribute("aria-sort")'
    assert browser.run(aria) == "none"
    for state, expected in (("ascending", sizes), ("descending", sizes[::-1])):
        browser.click(f"{GROUPS} th button", n)
        assert [float(v) for v in column(browser, GROUPS, n)] == expected
        assert browser.run(aria) == state
    browser.click(f"{GROUPS} th button", n)
    assert column(browser, GROUPS, 0) == before
    assert browser.run(aria) == "none"
    assert browser.complaints() == []


def test_names_sort_as_names_and_rows_stay_whole(radon, look, browser):
    fit, path = radon
    look(path, 390)
    browser.click(f"{GROUPS} th button", 0)
    browser.click(f"{GROUPS} th button", 0)
    names = column(browser, GROUPS, 0)
    assert names == sorted(names, key=str.casefold, reverse=True)
    table = fit.groups("county")
    table = table[table["coefficient"] == "Intercept"].set_index("level")["n"]
    kinds, sizes = column(browser, GROUPS, 1), column(browser, GROUPS, 2)
    assert set(kinds) == {"Intercept", "floor"}
    assert all(int(n) == table[name] for name, n in zip(names, sizes, strict=True))


def test_missing_numbers_come_last_in_either_order_and_signs_count(look, browser):
    raw = [-10.5, float("nan"), 3.0, -2.0, 1200.0]
    fit = FakeFit({"g": group_table("ABCDE", [1, 1, 1, 1, 1], raw, [1.0, float("nan"), 1.0, 1.0, 1.0])})
    look(page(Entry("E", fit)), 1100)
    at = 2  # level, n, raw
    browser.click(f"{GROUPS} th button", at)
    assert column(browser, GROUPS, 0) == ["A", "D", "C", "E", "B"]
    browser.click(f"{GROUPS} th button", at)
    assert column(browser, GROUPS, 0) == ["E", "C", "D", "A", "B"]


def test_numbers_in_names_sort_as_numbers(look, browser):
    levels = ["s10", "s9", "s100", "S1"]
    fit = FakeFit({"g": group_table(levels, [1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0], [1.0] * 4)})
    look(page(Entry("E", fit)), 1100)
    browser.click(f"{GROUPS} th button", 0)
    assert column(browser, GROUPS, 0) == ["S1", "s9", "s10", "s100"]


def test_the_keyboard_sorts_too(radon, look, browser):
    _, path = radon
    look(path, 1100)
    browser.run(f"document.querySelectorAll({GROUPS + ' th button'!r})[2].focus()")
    for key, state in (("Enter", "ascending"), (" ", "descending")):
        browser.press(key)
        assert (
            browser.run(f'document.querySelector({GROUPS!r}).tHead.rows[0].cells[2].getAttribute("aria-sort")') == state
        )
    browser.press("Tab")
    assert browser.run("document.activeElement.textContent").startswith("raw")


def test_the_filter_keeps_what_is_asked_for(radon, look, browser):
    _, path = radon
    look(path, 390)
    browser.click('[id^="group-1"] .filter input')
    for letter in "olm":
        browser.press(letter)
    assert set(column(browser, GROUPS, 0)) == {"OLMSTED"}
    assert browser.run('document.querySelector("[id^=group-1] output").textContent') == "2 of 170"
    browser.run('(() => { const i = document.querySelector("[id^=group-1] input"); i.value = ""; '
                'i.dispatchEvent(new Event("input")); })()')  # fmt: skip
    assert len(column(browser, GROUPS, 0)) == 170


def test_rows_left_out_stay_below_while_sorted(look, browser):
    look(page(Entry("Many", many(3000))), 1100)
    assert "more …" in column(browser, GROUPS, 0)[500]
    browser.click(f"{GROUPS} th button", 0)
    assert "more …" in column(browser, GROUPS, 0)[-1]
    browser.click(f"{GROUPS} th button", 0)
    browser.click(f"{GROUPS} th button", 0)
    assert "more …" in column(browser, GROUPS, 0)[500]


def test_without_the_script_the_page_reads_the_same(radon, browser):
    _, path = radon
    texts = []
    for script in (True, False):
        browser.open(path, 1100, script=script)
        try:
            texts.append(browser.run('document.querySelector("main").innerText'))
            buttons = browser.run('document.querySelectorAll("button, input").length')
        finally:
            browser.ask("Emulation.setScriptExecutionDisabled", value=False)
        assert (buttons > 0) == script
    with_script, without = (re.sub(r"[↕\s]+", " ", text) for text in texts)
    assert with_script == without


def test_long_names_leave_rows_low_on_a_phone(look, browser):
    names = [f"Author {i} and others, a study with a long title" for i in range(5)]
    look(page(Entry("E", FakeFit({"g": group_table(names, [1] * 5, [1.0] * 5, [1.0] * 5)}))), 390)
    cell = f"document.querySelector({GROUPS!r}).tBodies[0].rows[0].cells[0]"
    assert browser.run(f"{cell}.getBoundingClientRect().height < 5 * parseFloat(getComputedStyle({cell}).lineHeight)")


def test_evil_names_do_nothing(look, browser):
    table = group_table([EVIL, "B"], [1, 2], [1.0, 2.0], [1.0, 1.0])
    seen = look(page(Entry(EVIL, FakeFit({EVIL: table}, response=EVIL, formula=EVIL)), title=EVIL), 390)
    assert seen["title"] == EVIL
    assert seen["scripts"] == 1
    assert seen["marked"] == ""
    assert seen["width"] <= 390
    assert browser.complaints() == []
    assert browser.requests() == []


def test_the_policy_stops_what_is_not_ours(demo, look, browser):
    """Were something to slip through the escaping, the browser would still refuse to run it."""
    planted = demo.replace(
        "</main>", '<script>document.body.dataset.owned="yes"</script><p style="color:red">x</p></main>'
    )
    assert look(planted, 1100)["marked"] == ""
    said = " ".join(browser.complaints())
    assert "Content Security Policy" in said


def test_on_paper(demo, radon, look, browser):
    look(demo, 1100)
    pages = len(re.findall(rb"/Type\s*/Page\b", browser.pdf()))
    assert 4 <= pages <= 18
    look(radon[1], 1100)
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 20  # six sections on honest uncertainty are seven of them
