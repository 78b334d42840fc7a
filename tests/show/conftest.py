"""Fixtures of tests/show; the stand-in for `Fit` is in fakes.py."""

from __future__ import annotations

import pytest

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
