"""Fixtures of tests/show; the stand-in for `Fit` is in fakes.py."""

from __future__ import annotations

import sys

import pytest

from finetti.show import cli
from show.browser import Browser, chromium
from show.fakes import eight_schools, many, sleepstudy


@pytest.fixture
def schools():
    return eight_schools()


@pytest.fixture
def counties():
    return many(85)


@pytest.fixture
def subjects():
    return sleepstudy()


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """One headless Chromium for all tests of a process."""
    program = chromium()
    if program is None:
        pytest.skip("no Chromium that can be driven on this machine: the report is not looked at in a browser")
    made = Browser(program, tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


@pytest.fixture
def look(browser, tmp_path):
    """Open a page (text or a file) at a width and return what a reader finds there."""

    def look(page, width):
        path = page
        if isinstance(page, str):
            path = tmp_path / f"page-{width}.html"
            path.write_text(page, encoding="utf-8")
        browser.open(path, width)
        return browser.seen()

    return look


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process; returns exit status, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["finetti", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        out = capsys.readouterr()
        return exit_.value.code or 0, out.out, out.err

    return run
