"""The report of a screen: as text, and in a real browser, under a mouse, a finger and a key."""

from __future__ import annotations

import base64
import hashlib
import html as markup
import json
import re
import runpy
import time
from dataclasses import replace
from math import log10

import numpy as np
import pandas as pd
import pytest

import finetti as fi
from finetti.errors import FinettiError
from finetti.show.numbers import significant
from finetti.show.screen_equations import board
from finetti.show.screen_explore import MOST_BYTES, explore, sent
from finetti.show.screen_reading import ScreenReading
from finetti.show.screen_recipe import lines
from finetti.show.screen_report import html
from finetti.show.screen_words import discovered, headline, rate
from show.test_show_report import outline

EVIL = '</script><script>document.body.dataset.owned="yes"</script><img src=x onerror=alert(1)>,"\'&$title'


def simulated(n=400, found=60, seed=1, **kind):
    rng = np.random.default_rng(seed)
    effects = np.where(np.arange(n) < found, rng.normal(0, 4, n), 0.0)
    se = rng.uniform(0.5, 1.5, n)
    labels = [EVIL, *(f"gene {i}" for i in range(1, n))]
    x = effects * se + se * rng.normal(size=n)
    x[0] = 7.0
    return fi.screen(x, se, labels=pd.Index(labels, name="gene"), **{"null": "theoretical", **kind})


@pytest.fixture(scope="module")
def found():
    return simulated()


@pytest.fixture(scope="module")
def page(found):
    return html(found)


@pytest.fixture(scope="module")
def path(found, tmp_path_factory):
    return found.report(tmp_path_factory.mktemp("screen") / "report.html")


def rows_in(text):
    """What is sent to the script."""
    return json.loads(re.search(r'id="screen-data">(.*?)</script>', text, re.DOTALL)[1])


# --- as text ------------------------------------------------------------------------------------------


def test_self_contained_and_only_one_script_may_run(page):
    seen = outline(page)
    assert not {"link", "iframe", "object", "base", "form"} & set(seen.tags)
    anchors = {f"#{i}" for i in seen.ids}
    assert all(link.startswith("data:image/png;base64,") or link in anchors for link in seen.links)
    assert not [name for name in seen.attributes if name.startswith("on") or name == "style"]
    assert seen.tags.count("script") == 2  # one of them holds data
    assert page.count('type="application/json"') == 1
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    digest = base64.b64encode(hashlib.sha256(seen.inside["script"][-1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy


def test_says_everything_in_order(page, found):
    made = found.discoveries(0.05)
    order = [
        "<h1>Screen of effect: 400 tests", "passed its own check", f"{made.n} discoveries at a false discovery rate of",
        "of them expected to be false", "have no effect", "Every test", "screen-data", "What all tests have in common",
        "sd of the effects", "Shrinkage", "Discoveries against their price", "Model", "Hyperpriors", "Data",
        "Diagnostics", "How to reproduce", "fi.screen(",
    ]  # fmt: skip
    at = 0
    for words in order:
        assert words in page[at:], words
        at = page.index(words, at)
    alts = re.findall(r'<img src="data:image/png;base64,[^"]+" alt="([^"]*)">', page)
    assert len(alts) == 4
    assert all(len(alt) > 20 for alt in alts)


def test_the_headline_is_what_the_screen_says(found):
    made, pi0 = found.discoveries(0.1), found.hyper().loc["pi0"]
    said = headline(ScreenReading(found), 0.1)
    low, high = made.interval
    assert said.startswith(f"{made.n} discoveries at a false discovery rate of 10 %: {made.expected_false:.1f} of them")
    assert f"(90 % interval {low} to {high})" in said
    share = float(re.search(r"400 tests ([\d.]+) % have", said)[1])
    assert share == pytest.approx(100 * pi0["mean"], abs=0.06)
    assert "effects of at least 2" in discovered(ScreenReading(found), 0.1, 2.0)
    few = headline(ScreenReading(found), 1e-9)
    assert few.startswith(("No discovery at", "1 discovery at")) or "fewer than 0.001" in few


def test_rows_are_those_of_the_table(page, found):
    sent_, table = rows_in(page), found.table()
    assert sent_["listed"] == sent_["total"] == len(sent_["label"]) == 400
    frame = table.loc[sent_["label"]]
    assert np.all(np.diff(frame["prob_null"]) >= 0)
    for name, values in sent_["values"].items():
        np.testing.assert_allclose(values, frame[name], rtol=1e-4, err_msg=name)
    assert sent_["label"].count(EVIL) == 1


def test_many_tests_are_cut_short_and_said(tmp_path):
    many = ScreenReading(simulated(30_000, 2000, method="empirical"))
    chosen, made = sent(many, 0.05, most=5000, rows=1000), many.discoveries(0.05)
    assert len(chosen.rows) == len(set(chosen.rows.tolist())) == 5000
    assert chosen.listed == max(1000, made.n)
    null = many.table()["prob_null"].to_numpy()
    assert null[chosen.rows[: chosen.listed]].max() <= np.delete(null, chosen.rows[: chosen.listed]).min()
    # the sample stands for all others
    rest = np.delete(null, chosen.rows[: chosen.listed])
    assert abs(null[chosen.rows[chosen.listed :]].mean() - rest.mean()) < 4 * rest.std() / np.sqrt(5000 - chosen.listed)
    short = sent(many, 0.05, most=max(made.n - 10, 1), rows=50)
    assert short.listed == made.n - 10
    assert "10 discoveries at FDR 5 % did not fit" in short.words(0.05)
    start = time.perf_counter()
    body, left_out = explore(many, 0.05, "")
    assert time.perf_counter() - start < 10
    assert len(body.encode()) < MOST_BYTES + 100_000
    assert "Of 30,000 tests the table holds the 10,000 most convincing" in left_out
    assert "found.table()" in left_out
    assert "table.csv" in left_out


def test_long_labels_leave_room_for_fewer():
    x = np.random.default_rng(2).normal(size=3000) * 1.5
    long = fi.screen(x, labels=[f"{i} " + "x" * 2000 for i in range(3000)], method="empirical")
    body, left_out = explore(ScreenReading(long), 0.05, "")
    assert len(body.encode()) < MOST_BYTES + 250_000
    assert "of the others" in left_out


def test_a_failed_check_is_loud():
    bad = simulated(seed=5, method="empirical")
    bad.__dict__["diagnostics"] = replace(bad.diagnostics, ok=False, warnings=("it went <wrong>",))
    text = html(bad)
    assert 'class="banner" role="alert"' in text
    assert text.index("DO NOT USE") < text.index('class="tiles')
    assert "it went &lt;wrong&gt;" in text
    assert "passed its own check" not in text
    assert "Do not use the numbers above" in text


def test_an_estimate_is_called_one():
    text = html(simulated(method="empirical"))
    assert "no prior: where the marginal likelihood is largest" in text
    assert "is NOT in the table of tests" in markup.unescape(text)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ({"slab": "laplace"}, "b[j] ~ Laplace(0, sd = τ) otherwise"),
        ({"slab": "student_t"}, "b[j] ~ t₄(0, sd = τ) otherwise"),
        ({"slab": "mixture", "method": "empirical"}, "Σ_k w_k Normal(0, τ_k²)"),
        ({"null": "free"}, "Normal(μ₀ s[j] + b[j], (σ₀ s[j])²)"),
        ({"priors": {"pi0": fi.fixed(0.9)}}, "π₀ = 0.9"),
    ],
)
def test_the_model_as_text_and_mathematics(kind, words):
    screen = ScreenReading(simulated(100, 20, **kind))
    assert words in board(screen)
    from finetti.show.screen_equations import screen_equations

    pieces = "".join(p for block in screen_equations(screen) for line in block.lines for p in line.pieces)
    outline(pieces)
    assert "<math>" in pieces


def test_the_recipes_run(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(3)
    expected = []
    for n in (60, 700):  # few data are spelt out, many are read from a file
        data = pd.DataFrame({"log fc": rng.normal(size=n) * 2, "se": 1.0, "gene": [f"g{i}" for i in range(n)]})
        given = {"df": 12, "labels": "gene", "null": "theoretical", "priors": {"pi0": fi.beta(5, 1)}, "seed": 4}
        screen = fi.screen("log fc", "se", data=data, **given)
        text = "\n".join(lines(ScreenReading(screen)))
        if n == 60:
            assert markup.escape(text) in html(screen)
        assert ('data = "data.csv"  # your table, 700 tests; needs the columns log fc, se, gene' in text) == (n == 700)
        (tmp_path / f"again{n}.py").write_text(text + "\n", "utf-8")
        expected.append(screen.hyper().loc["pi0", "mean"])
    data.to_csv(tmp_path / "data.csv", index=False)
    monkeypatch.chdir(tmp_path)
    again = [runpy.run_path(f"again{n}.py")["found"].hyper().loc["pi0", "mean"] for n in (60, 700)]
    assert again == pytest.approx(expected, rel=1e-9)
    assert "discoveries among 700 tests" in capsys.readouterr().out


def test_groups_of_tests_have_a_section_and_a_recipe():
    rng = np.random.default_rng(4)
    group = np.repeat(["a<b", "c"], 150)
    x = np.where(rng.random(300) < np.where(group == "c", 0.4, 0.02), 4 * rng.normal(size=300), 0) + rng.normal(
        size=300
    )
    screen = fi.screen(x, by=pd.Series(group, name="set"), method="empirical", null="theoretical")
    text = html(screen)
    outline(text)
    body = text[text.index('<section id="groups">') :]
    groups = screen.groups()
    for level, row in groups.iterrows():
        assert f"{markup.escape(level)}</td>" in body
        assert f">{significant(row['pi0_mean'], 3)}</td>" in body
    for words in ("Groups of tests", "effects expected", "without effect", "2 levels of set", "by=&#x27;set&#x27;"):
        assert words in text
    told = board(ScreenReading(screen))
    assert "b[j] = 0 with probability π₀[g[j]]" in told
    assert "logit π₀[g] ~ Normal(logit π₀, ω_π²)   levels of set" in told


def test_a_covariate_that_is_a_number_is_a_curve_over_readable_bins():
    rng = np.random.default_rng(4)
    level = rng.normal(size=400)
    x = np.where(rng.random(400) < 0.3 * (level > 0), 4 * rng.normal(size=400), 0) + rng.normal(size=400)
    screen = fi.screen(x, by=pd.Series(level, name="level"), method="empirical", null="theoretical")
    told = board(ScreenReading(screen))
    assert "logit π₀[g] = logit π₀ + Σ_k B[g, k] c[k], c[k] ~ Normal(0, ω_π²)   B: a spline, g: bins of level" in told
    text = html(screen)
    outline(text)
    assert "B: a spline, g: bins of level" in text
    body = text[text.index('<section id="groups">') :]
    assert f">{significant(screen.groups().index[0], 4)}</td>" in body  # a bin's mean, not its 17 digits


def test_what_was_moderated_is_told():
    rng = np.random.default_rng(1)
    sd = np.sqrt(8 / rng.chisquare(8, size=(60, 1)))
    matrix = pd.DataFrame(rng.normal(size=(60, 6)) * sd, columns=list("abcdef"))
    moderated = fi.moderate(matrix, "~ group", data={"group": ["old"] * 3 + ["new"] * 3}, method="empirical")
    text = html(fi.screen(moderated, method="empirical", null="theoretical"))
    outline(text)
    for words in ("Variances of the genes", "s0_squared", "genes kept", "fi.moderate(", "moderated standard error"):
        assert words in text


def test_a_covariate_of_genes_is_in_the_recipe_which_runs(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    sd = np.sqrt(8 / rng.chisquare(8, size=(60, 1)))
    matrix = pd.DataFrame(rng.normal(size=(60, 6)) * sd, columns=list("abcdef")).rename_axis("gene")
    matrix.index += 1
    samples = pd.DataFrame({"group": ["old"] * 3 + ["new"] * 3})
    genes = pd.DataFrame({"half": np.repeat(["x", "y"], 30)}, index=matrix.index)
    given = {"method": "empirical", "null": "theoretical"}
    moderated = fi.moderate(matrix, "~ group", data=samples, method="empirical")
    screen = fi.screen(moderated, by=genes["half"].sample(frac=1.0, random_state=1), **given)
    for name, frame in {"matrix": matrix, "genes": genes, "samples": samples}.items():
        frame.to_csv(tmp_path / f"{name}.csv", index=name != "samples")
    (tmp_path / "again.py").write_text("\n".join(lines(ScreenReading(screen))) + "\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    pd.testing.assert_frame_equal(runpy.run_path("again.py")["found"].hyper(), screen.hyper(), rtol=1e-6)


def test_write_names_the_file_and_keeps_to_its_place(found, tmp_path):
    assert found.report(str(tmp_path)) == tmp_path / "report.html"
    for path, words in ((tmp_path / "no" / "x.html", "no directory"), ("", "give a file"), (3, "give a file")):
        with pytest.raises(FinettiError, match=words):
            found.report(path)


# --- in a browser -------------------------------------------------------------------------------------


def table_of(browser, k=0):
    """One column of the table of tests, as it is shown."""
    return browser.run(f"[...document.querySelectorAll('#tests tbody tr')].map(r => r.cells[{k}].textContent.trim())")


def press(browser, key, code):
    for kind in ("keyDown", "keyUp"):
        browser.ask("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code)


def told(browser, name):
    return browser.run(f"document.getElementById({name!r}).textContent")


def place(browser, found, label):
    """Where the point of a test is on the screen, worked out from the table."""
    browser.run("document.getElementById('volcano').scrollIntoView({block: 'center'})")
    left, top, w, h = browser.run(
        "(() => { const r = document.getElementById('volcano').getBoundingClientRect(); "
        "return [r.left, r.top, r.width, r.height]; })()"
    )
    table = found.table()
    sent_ = {"floor": browser.run("JSON.parse(document.getElementById('screen-data').textContent).floor")}
    rate_ = table["lfsr"].clip(lower=sent_["floor"])
    low, high = min(0, table["mean"].min()), max(0, table["mean"].max())
    low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)
    highest = 1.06 * max(1, -log10(rate_.min()))
    x = 52 + (table.loc[label, "mean"] - low) / (high - low) * (w - 52 - 14)
    y = h - 42 - (-log10(rate_[label])) / highest * (h - 42 - 12)
    return left + x, top + y


def lonely(found):
    """The label of a test whose point stands alone."""
    return found.table()["mean"].idxmin()


@pytest.mark.parametrize("width", [360, 1100])
def test_on_a_screen_of(path, width, look, browser):
    seen = look(path, width)
    assert seen["width"] <= width
    assert seen["wide"] == []
    assert seen["loaded"] == seen["images"] == 4
    assert seen["marked"] == ""
    assert browser.complaints() == []
    assert browser.requests() == []
    assert "q" in "".join(seen["columns"])
    assert any(c.startswith("lfsr") for c in seen["columns"]) == (width > 520)
    painted = browser.run(
        "(() => { const c = document.querySelector('#volcano canvas'); "
        "return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v > 0); })()"
    )
    assert painted
    assert table_of(browser)[0] == found_first(path)


def found_first(path):
    return rows_in(path.read_text("utf-8"))["label"][0]


def test_without_the_script_the_first_rows_and_a_still_figure(path, browser):
    texts = []
    for script in (True, False):
        browser.open(path, 1100, script=script)
        try:
            texts.append(browser.run("document.querySelector('#tests').innerText"))
            shown = browser.run("[...document.images].filter(i => i.getClientRects().length).length")
            controls = browser.run("document.getElementById('search').getClientRects().length")
        finally:
            browser.ask("Emulation.setScriptExecutionDisabled", value=False)
        assert (shown, controls) == ((3, 1) if script else (4, 0))
    with_script, without = (re.sub(r"[↕\s]+", " ", text) for text in texts)
    assert with_script == without


def test_every_column_sorts_all_tests_not_the_page_alone(path, found, look, browser):
    look(path, 1100)
    table = found.table()
    browser.click("#tests th button", 1)
    assert table_of(browser)[:2] == table.sort_values("effect").index[:2].tolist()
    browser.click("#tests th button", 1)
    assert table_of(browser)[:2] == table.sort_values("effect", ascending=False).index[:2].tolist()
    assert browser.run("document.querySelectorAll('#tests th')[1].getAttribute('aria-sort')") == "descending"
    browser.click("#tests th button", 1)
    assert table_of(browser)[0] == found_first(path)
    browser.run("document.querySelector('#tests th button').focus()")
    browser.press("Enter")
    names = [v for v in table_of(browser) if v.startswith("gene")]
    assert names[:3] == ["gene 1", "gene 2", "gene 3"]  # as numbers
    assert told(browser, "where") == "1–50 of 400"
    browser.click("#next")
    assert told(browser, "where") == "51–100 of 400"
    browser.click("#last")
    assert told(browser, "where") == "351–400 of 400"
    assert browser.run("document.getElementById('next').disabled")


def test_search_and_filter(path, found, look, browser):
    look(path, 390)
    table = found.table()
    browser.click("#search")
    for letter in "E 39":
        browser.press(letter)
    assert sorted(table_of(browser)) == sorted(v for v in table.index if "gene 39" in v)
    browser.run("(() => { const i = document.getElementById('search'); i.value = 'no such'; "
                "i.dispatchEvent(new Event('input')); })()")  # fmt: skip
    assert told(browser, "where") == "no test matches"
    assert browser.run("document.getElementById('save-shown').disabled")
    browser.run("(() => { const i = document.getElementById('search'); i.value = ''; "
                "i.dispatchEvent(new Event('input')); })()")  # fmt: skip
    browser.click('input[name="rows"]', 1)
    for share in (0.05, 0.2):
        browser.run(f"(() => {{ const i = document.getElementById('fdr'); i.value = {100 * share:g}; "
                    "i.dispatchEvent(new Event('input')); })()")  # fmt: skip
        made = found.discoveries(share)
        assert told(browser, "told") == f"{made.n} discoveries, {made.expected_false:.1f} of them expected to be false"
        assert told(browser, "where").endswith(f" of {made.n}")
        assert set(table_of(browser)) <= set(made.labels)
    assert browser.complaints() == []


def test_a_point_under_the_mouse_tells_its_numbers_and_a_click_selects_it(path, found, look, browser):
    look(path, 1100)
    label = lonely(found)
    x, y = place(browser, found, label)
    assert browser.run("document.getElementById('tip').hidden")
    browser.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    row, said = found.table().loc[label], told(browser, "tip")
    places = rows_in(path.read_text("utf-8"))["places"]
    assert said.startswith(label)
    assert f"after shrinkage {row['mean']:.{places}f}" in said
    assert "null with probability" in said
    assert "false sign rate" in said
    box = (
        "(() => {{ const r = document.getElementById({0!r}).getBoundingClientRect(); "
        "return [r.left, r.top, -r.right, -r.bottom]; }})()"
    )
    assert np.all(np.array(browser.run(box.format("tip"))) >= browser.run(box.format("volcano")))
    active = "[...document.querySelectorAll('#tests tr.active')].map(r => r.cells[0].textContent.trim())"
    assert browser.run(active) == [label]
    for kind in ("mousePressed", "mouseReleased"):
        browser.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    chosen = "[...document.querySelectorAll('#tests tr.chosen')].map(r => r.cells[0].textContent.trim())"
    assert browser.run(chosen) == [label]
    assert told(browser, "save-chosen") == "Save the selection (1)"
    browser.ask("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert browser.run("document.getElementById('tip').hidden")
    assert browser.complaints() == []


def colour(browser, x, y):
    """Of the upper canvas at a place on the screen."""
    return browser.run(
        "(() => { const c = document.querySelectorAll('#volcano canvas')[1], r = c.getBoundingClientRect(); "
        f"return [...c.getContext('2d').getImageData({x} - r.left, {y} - r.top, 1, 1).data]; }})()"
    )


def test_a_row_that_is_selected_is_coloured_in_the_volcano(path, found, look, browser):
    look(path, 1100)
    label = lonely(found)
    browser.run(f"(() => {{ const i = document.getElementById('search'); i.value = {label!r}; "
                "i.dispatchEvent(new Event('input')); })()")  # fmt: skip
    at = table_of(browser).index(label)
    assert colour(browser, *place(browser, found, label))[3] == 0
    browser.click("#tests tbody tr", at)
    browser.ask("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert colour(browser, *place(browser, found, label)) == [0xD5, 0x5E, 0, 255]
    browser.click("#tests tbody input", at)
    assert colour(browser, *place(browser, found, label))[3] == 0


def test_the_keyboard_goes_from_test_to_test(path, found, look, browser):
    look(path, 1100)
    order = rows_in(path.read_text("utf-8"))["label"]
    across = found.table()["mean"].sort_values().index.tolist()
    browser.run("document.getElementById('volcano').focus()")
    for key, code, label in (("ArrowDown", 40, order[0]), ("ArrowDown", 40, order[1]), ("ArrowUp", 38, order[0])):
        press(browser, key, code)
        assert told(browser, "tip").startswith(label)
    at = across.index(order[0])
    key, code, beside = ("ArrowLeft", 37, at - 1) if at else ("ArrowRight", 39, at + 1)
    press(browser, key, code)
    assert told(browser, "tip").startswith(across[beside])
    browser.press("Enter")
    assert told(browser, "save-chosen") == "Save the selection (1)"
    press(browser, "Escape", 27)
    assert browser.run("document.getElementById('tip').hidden")
    browser.click('input[name="rows"]', 2)
    assert table_of(browser) == [across[beside]]
    browser.click("#clear")
    assert table_of(browser) == []
    assert browser.complaints() == []


def test_a_tap_on_a_phone(path, found, look, browser):
    look(path, 360)
    label = lonely(found)
    x, y = place(browser, found, label)
    browser.ask("Emulation.setTouchEmulationEnabled", enabled=True)
    try:
        browser.ask("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        browser.ask("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        for _ in range(50):
            if not browser.run("document.getElementById('tip').hidden"):
                break
            time.sleep(0.05)
    finally:
        browser.ask("Emulation.setTouchEmulationEnabled", enabled=False)
    assert told(browser, "tip").startswith(label)
    assert browser.seen()["wide"] == []


def saved(browser, folder, button, name):
    browser.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    browser.click(button)
    target = folder / name
    for _ in range(100):
        if target.is_file() and target.stat().st_size:
            break
        time.sleep(0.05)
    return pd.read_csv(target)


def test_what_is_shown_and_what_is_selected_is_saved(path, found, look, browser, tmp_path):
    look(path, 1100)
    browser.click('input[name="rows"]', 1)
    made, table = found.discoveries(0.05), found.table()
    shown = saved(browser, tmp_path, "#save-shown", "effect.csv")
    assert shown.columns.tolist() == ["gene", "effect", "se", "mean", "q5", "q95", "prob_null", "lfsr", "qvalue"]
    assert shown["gene"].tolist() == made.labels.tolist()
    assert EVIL in shown["gene"].tolist()
    for name in shown.columns[1:]:
        np.testing.assert_allclose(shown[name], table.loc[shown["gene"], name], rtol=1e-4)
    browser.click("#tests tbody input", 2)
    browser.click("#tests tbody input", 0)
    chosen = saved(browser, tmp_path, "#save-chosen", "effect-selection.csv")
    assert chosen["gene"].tolist() == [shown["gene"][0], shown["gene"][2]]
    assert browser.complaints() == []


def test_on_paper(path, look, browser):
    look(path, 1100)
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", browser.pdf())) <= 12


def test_rates_are_written_as_they_are():
    assert rate(0.05) == "5 %"
