"""`screen` at the edges of what it is given: absurd units, tests far out, nearly normal errors, tuples as labels."""

from __future__ import annotations

import numpy as np
import pytest

from finetti.errors import DataError
from finetti.inference.spike_slab import Nodes, Observed, make_slab
from finetti.studies.screen import screen

Z = np.append(np.random.default_rng(1).normal(size=50), [4.0, -6.0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"effect": 1e90 * Z}, "standard errors from zero in row 0"),
        ({"effect": Z, "se": np.append(np.ones(51), 1e-12)}, r"row 51 .*1 such rows"),
        ({"effect": 1e-150 * Z, "se": 1e-150}, "change its unit"),
        ({"effect": Z, "se": 1e300}, "change its unit"),
        ({"effect": Z, "labels": np.arange(52)[:, None]}, r"of shape \(52, 1\)"),
    ],
)
def test_what_cannot_be_computed_with_is_refused_in_words(arguments, words: str) -> None:
    with pytest.raises(DataError, match=words):
        screen(**arguments)


@pytest.mark.parametrize("slab", ["normal", "laplace", "student_t"])
def test_a_test_that_is_very_far_out_breaks_nothing(slab: str) -> None:
    """z^2 / 2 of 4e13 taken out of a log-likelihood and put back would leave steps of 0.01 in it."""
    found = screen(np.append(Z, 9e6), slab=slab)
    table = found.table()
    assert found.diagnostics.ok and np.all(np.isfinite(table))
    assert abs(found.hyper().loc["null_sd", "mean"] - 1.0) < 0.3
    assert table["prob_null"].iloc[-1] == 0.0 and table["mean"].iloc[-1] == pytest.approx(9e6, rel=0.01)


def test_the_log_likelihood_of_a_test_very_far_out_is_not_rounded_away() -> None:
    """Of one component alone it is the log of a normal density, to all digits."""
    z, tau = np.array([0.5, 9e6]), 3e6
    got = Observed.of(z, np.ones(2)).log_likelihood(make_slab("normal"), Nodes.of(0.0, tau, 0.0, 1.0))[0]
    total = 1.0 + tau**2
    exact = float(np.sum(-0.5 * z**2 / total - 0.5 * np.log(2.0 * np.pi * total)))
    assert abs(got - exact) < 1e-10


@pytest.mark.parametrize("df", [1e11, 1e300])
def test_errors_of_almost_infinite_df_are_normal(df: float) -> None:
    table, normal = screen(Z, df=df).table(), screen(Z).table()
    assert np.abs(table["prob_null"] - normal["prob_null"]).max() < 0.005


def test_labels_may_be_tuples() -> None:
    labels = [("chr1", k) for k in range(52)]
    found = screen(Z, labels=labels)
    assert found.table().index.to_list() == labels
    assert found.draws(("chr1", 51), 10).shape == (10,)
