"""Differences between levels at a node against the dense conditional normal, for every layout and kind of error."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from finetti.inference.conditional import GaussianConditional
from finetti.inference.contrasts import level_differences
from tests.inference.cases import case, every_feature
from tests.oracles import dense_conditional

FEATURES = [f for f in every_feature() if f["layout"] != "none"]


@pytest.mark.parametrize("layout", ["one", "nested", "crossed", "mixed"])
def test_mean_and_variance_of_every_pair(layout: str, root: str) -> None:
    """All pairs and both ways of solving a nested chain: by level (many pairs) and by pair (a few)."""
    for seed, features in [(i, f) for i, f in enumerate(FEATURES) if f["layout"] == layout][::2]:
        problem, hypers, inner, theta = case(7500 + seed, nodes=2, **features)
        conditional = GaussianConditional(inner)
        exact = [dense_conditional(problem, h) for h in hypers]
        for g, f in enumerate(problem.factors):
            q, J = len(f.coefficients), len(f.levels)
            a, b = np.array(list(itertools.combinations(range(J), 2)), dtype=np.int64).reshape(-1, 2).T
            mask = inner.free[g]
            for k in range(q):
                for some in (slice(None), slice(0, 1)):
                    mean, variance = level_differences(conditional, f.name, k, a[some], b[some], theta)
                    known = np.ones(a[some].size, dtype=bool)
                    if mask is not None:
                        known = mask[a[some], k] & mask[b[some], k]
                        assert np.all(np.isnan(mean[:, ~known])) and np.all(np.isnan(variance[:, ~known]))
                    for s, dense in enumerate(exact):
                        at = [dense.labels.index(label) for label in f.labels]
                        ia, ib = (np.array(at).reshape(J, q)[i[some], k][known] for i in (a, b))
                        cov = dense.cov
                        expected = cov[ia, ia] + cov[ib, ib] - 2.0 * cov[ia, ib]
                        scale = max(1.0, float(np.abs(cov).max()))
                        np.testing.assert_allclose(
                            mean[s, known], dense.mean[ia] - dense.mean[ib], rtol=1e-6, atol=1e-7, err_msg=str(features)
                        )
                        np.testing.assert_allclose(
                            variance[s, known], expected, rtol=1e-6, atol=1e-8 * scale, err_msg=str(features)
                        )


def test_levels_share_what_is_unsure() -> None:
    """Adding the variances of two deviations, as if they were independent, is wrong where the mean is unsure."""
    problem, hypers, inner, theta = case(
        11, layout="one", q=1, slopes=0, pooling="partial", intercept="flat", errors="sigma"
    )
    (f,) = problem.factors
    one, two = np.array([0]), np.array([1])
    _, variance = level_differences(GaussianConditional(inner), f.name, 0, one, two, theta)
    dense = dense_conditional(problem, hypers[0])
    separate = sum(dense[label][1] ** 2 for label in f.labels[:2])
    assert variance[0, 0] < 0.8 * separate


def test_batches_of_nodes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for layout in ("one", "nested", "crossed", "mixed"):
        _, _, inner, theta = case(21, nodes=5, layout=layout, pooling="partial")
        conditional = GaussianConditional(inner)
        a, b = np.array([0, 1]), np.array([1, 0])
        for f in inner.hyper.factors:
            whole = level_differences(conditional, f.name, 0, a, b, theta)
            with monkeypatch.context() as small:
                small.setattr("finetti.inference.contrasts.BATCH_FLOATS", 1.0)
                pieces = level_differences(conditional, f.name, 0, a, b, theta)
            np.testing.assert_allclose(np.array(pieces), np.array(whole), rtol=1e-12)


def test_points_have_no_variance() -> None:
    """A conditional of draws answers with point masses."""
    u = np.arange(12.0).reshape(2, 3, 2)

    def groups(name: str, theta: np.ndarray) -> Any:
        yield SimpleNamespace(nodes=slice(0, 2), mean=u)

    mean, variance = level_differences(
        SimpleNamespace(groups=groups), "g", 1, np.array([0]), np.array([2]), np.zeros((2, 1))
    )
    np.testing.assert_array_equal(mean[:, 0], u[:, 0, 1] - u[:, 2, 1])
    np.testing.assert_array_equal(variance, 0.0)
