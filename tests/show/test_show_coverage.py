"""plot.coverage: the table's numbers at their places, nothing cut, the title says what they say."""

from __future__ import annotations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from finetti.errors import FinettiError
from finetti.posterior.coverage import Coverage
from finetti.show.coverage import coverage, coverage_figure
from show.drawn import collisions, has_intervals, outside, words


def study(groups=(5, 20, 200), rows=(2, 5, 20), few=0.7):
    """A study of the one-way model whose empirical Bayes starts at `few` and converges."""
    made = []
    for n in rows:
        for k, J in enumerate(groups):
            for quantity in ("group effects", "a new group", "sigma"):
                for method in ("empirical Bayes", "full Bayes"):
                    if quantity == "sigma" and method == "empirical Bayes":
                        continue
                    value = 0.9 if method == "full Bayes" else few + (0.9 - few) * k / max(len(groups) - 1, 1)
                    made.append((J, n, quantity, method, 0.9, value, 0.01, 1.0, 1.0, 500, 0, 0.2))
    names = "groups rows_per_group quantity method nominal coverage se length length_ratio n_sims n_failed sd_zero"
    return Coverage(pd.DataFrame(made, columns=names.split()), (), {"sd": 0.3}, 0.9)


def design(names=("group effects", "a new group", "beta[Intercept]", "sigma")):
    """A study of a fit's own design."""
    rows = []
    for quantity in names:
        for method, value in (("empirical Bayes", 0.8), ("full Bayes", 0.91)):
            if not (quantity == "sigma" and method == "empirical Bayes"):
                rows.append(("y ~ 1", quantity, method, 0.9, value, 0.02, 1.0, 1.0, 200, 0, 0.2))
    columns = "design quantity method nominal coverage se length length_ratio n_sims n_failed sd_zero"
    return Coverage(pd.DataFrame(rows, columns=columns.split()), (), {"sd": 0.3}, 0.9)


CASES = {
    "three panels": study(),
    "one panel": study(rows=(5,)),
    "one design": study(groups=(5,), rows=(5,)),
    "many panels": study(rows=(2, 3, 4, 5, 6, 7, 8)),
    "many sizes": study(groups=(2, 5, 10, 20, 50, 200)),
    "a fit": design(),
    "long names": design((f"group effects {'county' * 9}[{'uranium' * 9}]", "sigma", "beta[$x]")),
}


@pytest.mark.parametrize("name", CASES)
def test_no_text_is_cut_or_written_over_another(name):
    figure = coverage_figure(CASES[name])
    assert outside(figure) == []
    assert collisions(figure) == []


def test_marks_lie_at_the_table():
    found = study()
    figure = coverage_figure(found)
    table = found.table[found.table["quantity"] == "group effects"]
    for ax, n in zip(figure.axes, (2, 5, 20), strict=True):
        assert f"{n} rows per group" in ax.get_title(loc="left")
        for method in ("empirical Bayes", "full Bayes"):
            mine = table[(table["rows_per_group"] == n) & (table["method"] == method)]
            lines = [line for line in ax.lines if len(line.get_ydata()) == 3]
            assert any(np.allclose(line.get_ydata(), 100 * mine["coverage"]) for line in lines)
            near = [np.abs(np.log(np.asarray(line.get_xdata(), float) / mine["groups"])).max() for line in lines]
            assert max(near) < 0.1


def test_a_fit_has_a_row_for_each_quantity():
    found = design()
    figure = coverage_figure(found)
    (ax,) = figure.axes
    assert [t.get_text() for t in ax.get_yticklabels()] == list(dict.fromkeys(found.table["quantity"]))
    full = found.table[found.table["method"] == "full Bayes"]
    assert has_intervals(ax, 100 * (full["coverage"] - 2 * full["se"]), 100 * (full["coverage"] + 2 * full["se"]))


def test_the_title_says_what_was_found():
    assert "holds 70 % with 5 groups of 2 rows; full Bayes holds 90 %" in words(coverage_figure(study()))
    assert "both hold the 90 % they promise" in words(coverage_figure(study(few=0.89)))
    assert "Full Bayes promises 90 % and holds 90 %" in words(coverage_figure(study(), "sigma"))
    assert "for a new group" in words(coverage_figure(study(), "a new group"))


def test_axes_can_be_given_and_nothing_else_changes():
    before = dict(matplotlib.rcParams)
    figure, axes = plt.subplots(1, 3, figsize=(9, 3))
    assert coverage(study(), ax=axes) is figure
    assert all(ax.lines for ax in axes)
    assert dict(matplotlib.rcParams) == before
    plt.close(figure)
    n = len(plt.get_fignums())
    coverage_figure(study())
    assert len(plt.get_fignums()) == n
    made = study().plot.coverage("sigma")
    assert len(plt.get_fignums()) == n + 1
    plt.close(made)


def test_bad_requests():
    with pytest.raises(FinettiError, match="did you mean 'sigma'"):
        coverage(study(), "sigm")
    figure, ax = plt.subplots()
    with pytest.raises(FinettiError, match="needs 3 panels, but ax= has 1"):
        coverage(study(), ax=ax)
    plt.close(figure)
    with pytest.raises(FinettiError, match="neither matplotlib Axes"):
        coverage(study(), ax=3)
