"""The methods of trust on `Fit`: what a reader of `help` and of a notebook's output is told."""

from __future__ import annotations

import copy
import inspect
import pickle

import numpy as np
import pandas as pd
import pytest

import finetti as fi
from finetti.posterior.questions import Questions

NAMES = ("weights", "pooling", "uncertainty", "exchangeability", "loo", "logo", "sensitivity")


@pytest.mark.parametrize("name", NAMES)
def test_the_documentation_is_whole(name: str) -> None:
    method = getattr(fi.Fit, name)
    text = inspect.getdoc(method) or ""
    wanted = ["Returns", "References", "Examples"]
    if len(inspect.signature(method).parameters) > 1:
        wanted.append("Parameters")
    if "group" in inspect.signature(method).parameters:
        wanted.append("Raises")
    assert all(f"\n{w}\n{'-' * len(w)}\n" in text for w in wanted)
    for parameter in list(inspect.signature(method).parameters)[1:]:
        assert f"\n{parameter} : " in text


def test_methods_need_a_fit() -> None:
    with pytest.raises(NotImplementedError):
        Questions()._group(None)
    with pytest.raises(NotImplementedError):
        Questions()._marked(None)


def test_what_a_notebook_shows_is_to_be_read() -> None:
    """Not the fields of a dataclass: arrays of thousands of nodes, tables within brackets."""
    schools = fi.datasets.load("eight_schools")
    fit = fi.fit("effect | se(se) ~ 1 + (1 | school)", schools)
    assert repr(fi.meta("effect", "se", schools, labels="school")).startswith(
        "<Fit of effect | se(se) ~ 1 + (1 | study)"
    )
    for result in (fit.sensitivity(), fi.coverage(fit, n_sims=2), fit.exchangeability()):
        assert repr(result) == str(result)


def test_several_terms_are_named() -> None:
    rng = np.random.default_rng(0)
    data = {"y": rng.normal(size=24), "a": np.repeat(np.arange(4), 6), "b": np.tile(np.arange(6), 4)}
    fit = fi.fit("y ~ 1 + (1 | a) + (1 | b)", data)
    for name in ("weights", "pooling", "exchangeability", "logo"):
        with pytest.raises(fi.FinettiError, match="such as 'a'; Available: 'a', 'b'"):
            getattr(fit, name)()
    assert set(fit.uncertainty()["term"]) == {"beta", "a", "b"}


@pytest.mark.parametrize("options", [{}, {"method": "nuts"}, {"pooling": "empirical"}])
def test_a_fit_can_be_pickled(options: dict[str, str]) -> None:
    schools = fi.datasets.load("eight_schools")
    fit = fi.fit("effect | se(se) ~ 1 + (1 | school)", schools, **options)
    fit.logo()  # what is remembered goes with it, or is made anew
    again = pickle.loads(pickle.dumps(fit))  # noqa: S301
    pd.testing.assert_frame_equal(again.weights(), fit.weights())
    assert again.logo().elpd_logo == fit.logo().elpd_logo
    copy.deepcopy(fit)


def test_a_bound_model_is_shown_and_calibrated() -> None:
    schools = fi.datasets.load("eight_schools")
    bound = fi.Model("effect | se(se) ~ 1 + (1 | school)").bind(schools)
    assert repr(bound) == str(bound)
    same = fi.calibrate("effect | se(se) ~ 1 + (1 | school)", schools, n_sims=20, n_jobs=1)
    pd.testing.assert_frame_equal(fi.calibrate(bound, n_sims=20, n_jobs=1).table, same.table)
    with pytest.raises(fi.FinettiError, match="leave out data="):
        fi.calibrate(bound, schools, n_sims=20)
