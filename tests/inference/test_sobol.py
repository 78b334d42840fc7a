"""Sobol points: scipy's net, scrambled by the same law."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import qmc

from finetti.inference.sobol import MOST_DIMENSIONS, SobolStreams, _directions


@pytest.mark.parametrize("dim", [1, 2, 6, 17, MOST_DIMENSIONS])
def test_the_net_is_scipys(dim: int) -> None:
    columns, words = _directions(dim), np.zeros((1, dim), dtype=np.uint32)
    for j in range(8):
        words = np.concatenate([words, words ^ columns[:, j]])
    theirs = qmc.Sobol(dim, scramble=False, bits=32).random(256)
    assert {tuple(row) for row in words * 2.0**-32} == {tuple(row) for row in theirs}


def test_streams_continue_and_differ_by_seed() -> None:
    whole = SobolStreams(3, 2, np.random.SeedSequence(4)).next(64)
    stream = SobolStreams(3, 2, np.random.SeedSequence(4))
    first, second = stream.next(32), stream.next(32)
    np.testing.assert_array_equal(np.concatenate([first[:32], second[:32], first[32:], second[32:]]), whole)
    other = SobolStreams(3, 2, np.random.SeedSequence(5)).next(64)
    assert not np.array_equal(other, whole)
    assert not np.array_equal(whole[:64], whole[64:])
    assert whole.min() > 0
    assert whole.max() < 1
    for half in (whole[:64], whole[64:]):  # each of the 64 intervals of every margin holds one point
        assert all(np.unique((64 * half[:, j]).astype(int)).size == 64 for j in range(3))


def test_every_stream_is_unbiased_and_as_precise_as_scipys() -> None:
    def f(u: np.ndarray) -> np.ndarray:
        return np.prod(1.0 + 0.5 * (u - 0.5), axis=1) + np.sum(u**2, axis=1)

    R = 600
    mine = f(SobolStreams(6, R, np.random.SeedSequence(3)).next(64)).reshape(R, 64).mean(axis=1)
    theirs = np.array([f(qmc.Sobol(6, scramble=True, rng=i).random(64)).mean() for i in range(R)])
    assert abs(mine.mean() - 3.0) < 4.5 * mine.std(ddof=1) / np.sqrt(R)
    # log of a ratio of two standard deviations of nearly normal means: its own sd is about sqrt(1 / R)
    assert abs(np.log(mine.std() / theirs.std())) < 4.5 * np.sqrt(1.0 / R)
    assert mine.std() < 0.2 * f(np.random.default_rng(0).random((4000, 6))).std() / np.sqrt(64)


def test_dimensions_beyond_the_table_are_plain_random_numbers() -> None:
    u = SobolStreams(MOST_DIMENSIONS + 3, 2, np.random.SeedSequence(0)).next(512)
    assert u.shape == (1024, MOST_DIMENSIONS + 3)
    assert np.abs(u.mean(axis=0) - 0.5).max() < 0.06
    assert np.abs(np.corrcoef(u.T) - np.eye(u.shape[1])).max() < 0.2
