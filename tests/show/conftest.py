"""Fixtures of tests/show; the stand-in for `Fit` is in fakes.py."""

from __future__ import annotations

import sys

import pytest

from finetti.show import cli
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
