"""Block elimination: what is laid out where, additive sums, and that order and threads change nothing."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import finetti.linalg.layout as layout_module
import finetti.linalg.system as system_module
from finetti.errors import InferenceError
from finetti.linalg.kernels import assemble
from finetti.linalg.layout import Grouping, analyse
from finetti.linalg.system import BlockSystem, Points
from tests.inference.cases import case


def grouping(index: Any, q: int = 1, seed: int = 0) -> Grouping:
    index = np.asarray(index, dtype=np.int64)
    Z = np.random.default_rng(seed).normal(size=(index.size, q))
    return Grouping(index, int(index.max()) + 1, Z)


def problem(seed: int, n: int = 60, **sizes: int) -> tuple[list[Grouping], np.ndarray, np.ndarray, np.ndarray]:
    """Class in school, crossed with teacher and with town; X of two columns; y; weights."""
    rng = np.random.default_rng(seed)
    inner = rng.permutation(np.concatenate([np.arange(12), rng.integers(0, 12, n - 12)]))
    school = inner // 3
    others = [rng.permutation(np.concatenate([np.arange(k), rng.integers(0, k, n - k)])) for k in (5, 3)]
    groupings = [
        grouping(g, q, seed + k) for k, (g, q) in enumerate(zip([inner, school, *others], (2, 1, 2, 1), strict=True))
    ]
    return groupings, rng.normal(size=(n, 2)), rng.normal(size=n), rng.uniform(0.5, 2.0, n)


def points(n_lambda: int, qs: list[int], S: int = 3, seed: int = 1) -> Points:
    rng = np.random.default_rng(seed)
    lam = np.concatenate([np.tril(rng.normal(size=(S, q, q))).reshape(S, -1) for q in qs], axis=1)
    assert lam.shape[1] == n_lambda
    return Points(np.ascontiguousarray(lam), np.exp(rng.normal(size=S)), np.zeros(S), np.zeros((S, 0)))


def dense(groupings: list[Grouping], X: np.ndarray, y: np.ndarray, w: np.ndarray, at: Points, s: int) -> np.ndarray:
    """log|M| of the groups, log|Schur complement of X| and the quadratic form, from the whole matrix at once."""
    columns, offset = [], 0
    for g in groupings:
        q = g.Z.shape[1]
        L = at.lam[s, offset : offset + q * q].reshape(q, q)
        offset += q * q
        Z = np.zeros((y.size, g.n_levels, q))
        Z[np.arange(y.size), g.index] = g.Z
        columns.append(np.einsum("njq,qk->njk", Z, L).reshape(y.size, -1))
    U = np.hstack(columns)
    H = U.T @ (w[:, None] * U) + np.eye(U.shape[1])
    A = np.hstack([U, X])
    G = A.T @ (w[:, None] * A)
    G[: U.shape[1], : U.shape[1]] += np.eye(U.shape[1])
    c = A.T @ (w * y)
    whole, groups = np.linalg.slogdet(G)[1], np.linalg.slogdet(H)[1]
    return np.array([groups, whole - groups, y @ (w * y) - c @ np.linalg.solve(G, c)])


def test_the_elimination_is_the_dense_determinant_and_solve() -> None:
    groupings, X, y, w = problem(0)
    system = BlockSystem.build(groupings, X, y, weights=w)
    at = points(system.layout.n_lambda, [2, 1, 2, 1])
    got = system.evaluate(at)
    for s in range(len(at)):
        mine = [got.logdet_groups[s], got.logdet_x[s], got.quadratic[s]]
        np.testing.assert_allclose(mine, dense(groupings, X, y, w, at, s), rtol=1e-11)


# ------------------------------------------------------------------------------------------------------------ layout
def test_a_nested_chain_leads_and_crossed_factors_stay() -> None:
    school = np.repeat(np.arange(4), 6)
    room = np.repeat(np.arange(8), 3)
    pupil = np.arange(24)
    teacher = np.tile(np.arange(3), 8)
    layout = analyse([grouping(school), grouping(teacher), grouping(pupil), grouping(room)], 24, 1)
    # pupil in room in school; the teacher sees every room and is not nested, though each pupil has one
    assert layout.leading == (2, 3, 0)
    assert layout.dense == (1,)
    assert layout.n_root == 3 + 1 + 1
    pat = layout.pattern
    room_of_pupil = pat.parent[pat.first[0] : pat.first[1]] - pat.first[1]
    school_of_room = pat.parent[pat.first[1] : pat.first[2]] - pat.first[2]
    np.testing.assert_array_equal(room_of_pupil, room)
    np.testing.assert_array_equal(school_of_room, np.repeat(np.arange(4), 2))
    assert np.all(pat.parent[pat.first[2] :] == -1)


def test_one_row_out_of_place_ends_the_nesting() -> None:
    school, room = np.repeat(np.arange(4), 6), np.repeat(np.arange(8), 3)
    assert analyse([grouping(school), grouping(room)], 24, 0).leading == (1, 0)
    room = room.copy()
    room[0] = 7
    assert analyse([grouping(school), grouping(room)], 24, 0).leading == (1,)


def test_two_factors_that_are_the_same_partition_are_nested_both_ways() -> None:
    g = np.repeat(np.arange(4), 3)
    relabelled = np.array([2, 0, 3, 1])[g]
    layout = analyse([grouping(g), grouping(relabelled)], 12, 1)
    assert set(layout.leading) == {0, 1} and layout.dense == ()


def test_no_factors_at_all_is_least_squares() -> None:
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(20, 3)), rng.normal(size=20)
    system = BlockSystem.build([], X, y)
    got = system.evaluate(Points(np.zeros((1, 0)), np.ones(1), np.zeros(1), np.zeros((1, 0))))
    expected, rss, *_ = np.linalg.lstsq(X, y)
    np.testing.assert_allclose(got.x_mean[0], expected, rtol=1e-10)
    np.testing.assert_allclose(got.quadratic, rss, rtol=1e-10)
    np.testing.assert_allclose(got.x_chol[0].T @ got.x_chol[0], X.T @ X, rtol=1e-10)


def test_a_root_beyond_reason_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout_module, "MAX_ROOT", 4)
    a, c = np.repeat(np.arange(10), 5), np.tile(np.arange(5), 10)
    with pytest.raises(InferenceError, match=r"5 coupled coefficients.*at most 4"):
        analyse([grouping(a), grouping(c)], 50, 0)


# ------------------------------------------------------------------------------------------------ additive statistics
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 60), max_size=4))
def test_cross_products_add_up_over_chunks_of_rows(seed: int, cuts: list[int]) -> None:
    """Rows outside a chunk get weight zero; the sums over the chunks are those of one call."""
    groupings, X, y, w = problem(seed)
    system = BlockSystem.build(groupings, X, y, weights=w)
    panel, root = np.zeros_like(system.panel0), np.zeros_like(system.root0)
    edges = [0, *sorted(cuts), y.size]
    for start, stop in itertools.pairwise(edges):
        part = np.zeros(y.size)
        part[start:stop] = system.weights[start:stop]
        assemble(system.layout.pattern, part, system.Zl, system.Zd, system.X, system.y, panel, root)
    np.testing.assert_allclose(panel, system.panel0, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(root, system.root0, rtol=1e-12, atol=1e-12)


def test_a_row_of_weight_zero_is_no_row() -> None:
    groupings, X, y, w = problem(5)
    keep = np.ones(y.size, bool)
    keep[40:] = False
    keep[:12] = True
    used = [np.unique(g.index[keep]).size == g.n_levels for g in groupings]
    assert all(used)
    fewer = [Grouping(g.index[keep], g.n_levels, g.Z[keep]) for g in groupings]
    at = points(sum(g.Z.shape[1] ** 2 for g in groupings), [2, 1, 2, 1])
    zero = BlockSystem.build(groupings, X, y, weights=np.where(keep, w, 0.0)).evaluate(at)
    none = BlockSystem.build(fewer, X[keep], y[keep], weights=w[keep]).evaluate(at)
    for name in ("logdet_groups", "logdet_x", "quadratic"):
        np.testing.assert_allclose(getattr(zero, name), getattr(none, name), rtol=1e-11)


# ------------------------------------------------------------------------------------------- order and threads
@given(seed=st.integers(0, 10**6), root=st.sampled_from([0, 72]))
def test_the_order_of_rows_factors_and_levels_changes_nothing(seed: int, root: int) -> None:
    rng = np.random.default_rng(seed)
    groupings, X, y, w = problem(seed)
    qs = [2, 1, 2, 1]
    at = points(10, qs)
    rows = rng.permutation(y.size)
    factors = rng.permutation(4)
    relabel = [rng.permutation(g.n_levels) for g in groupings]
    moved = [
        Grouping(relabel[f][groupings[f].index][rows], groupings[f].n_levels, groupings[f].Z[rows]) for f in factors
    ]
    blocks = np.split(at.lam, np.cumsum([q * q for q in qs])[:-1], axis=1)
    at2 = Points(
        np.ascontiguousarray(np.concatenate([blocks[f] for f in factors], axis=1)), at.sigma2, at.row_s2, at.fixed
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(system_module, "SMALL_ROOT", root)
        one = BlockSystem.build(groupings, X, y, weights=w)
        two = BlockSystem.build(moved, X[rows], y[rows], weights=w[rows])
        a, b = one.evaluate(at, gradient=True), two.evaluate(at2, gradient=True)
        ca, cb = one.condition(at, rows=True), two.condition(at2, rows=True)
    for name in ("logdet_groups", "logdet_x", "quadratic", "x_mean"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ca.fit[:, rows], cb.fit, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(ca.lev[:, rows], cb.lev, rtol=1e-8, atol=1e-9)
    sums = np.split(a.cov_sum, np.cumsum([q * q for q in qs])[:-1], axis=1)
    np.testing.assert_allclose(np.concatenate([sums[f] for f in factors], axis=1), b.cov_sum, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("small", [True, False])
def test_the_number_of_threads_does_not_change_a_bit(small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not small:
        monkeypatch.setattr(system_module, "SMALL_ROOT", 0)
    _, _, inner, theta = case(
        3, nodes=50, layout="mixed", errors="se_sigma", pooling="partial", intercept="student_t", q=2
    )
    at, results = inner.points(theta), []
    counts = np.arange(50) % 3
    for threads in (1, 2, 5):
        monkeypatch.setattr(system_module, "n_threads", lambda threads=threads: threads)
        e = inner.system.evaluate(at, gradient=True)
        c = inner.system.condition(at, rows=True)
        u, x = inner.system.draw(at, counts, np.random.default_rng(1))
        results.append([*vars(e).values(), *vars(c).values(), u, x])
    for other in results[1:]:
        for first, again in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(first, again)


def test_nodes_do_not_disturb_each_other() -> None:
    """A node evaluated alone, in company, and beside one where the system is not positive definite."""
    _, _, inner, theta = case(8, nodes=5, layout="mixed", errors="sigma", pooling="partial")
    together = inner.log_marginal(theta)
    alone = np.array([inner.log_marginal(t[None])[0] for t in theta])
    np.testing.assert_array_equal(together, alone)
    broken = np.concatenate([theta[:2], np.full((1, theta.shape[1]), np.nan), theta[2:]])
    mixed = inner.log_marginal(broken)
    assert np.isnan(mixed[2])
    np.testing.assert_array_equal(np.delete(mixed, 2), together)


def test_a_replaced_system_has_work_arrays_of_its_own() -> None:
    """Kernels write into them without bounds: those of a system without known errors are too short for another."""
    rng = np.random.default_rng(0)
    index = np.repeat(np.arange(4), 3)
    known = BlockSystem.build(
        [Grouping(index, 4, np.ones((12, 1)))], np.ones((12, 1)), rng.normal(size=12), se2=np.ones(12)
    )
    plain = dataclasses.replace(known, se2=np.zeros(0), weights=np.ones(12))
    assert plain._local is not known._local
    at = Points(np.ones((1, 1)), np.ones(1), np.ones(1), np.zeros((1, 0)))
    plain._factor(at)
    known._factor(at)
    assert plain._local.w.size == 0
    assert known._local.w.size == 12
