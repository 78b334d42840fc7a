"""Scrambled Sobol points, many independent scramblings at once.

The net is Sobol's with the direction numbers of Joe and Kuo (2008, SIAM J. Sci. Comput. 30, 2635-2654),
the scrambling Matousek's random linear one with a digital shift (1998, J. Complexity 14, 527-556): the same
law as scipy's `qmc.Sobol(scramble=True)`, which costs half a second to import and a third of a millisecond
for each of the 33 scramblings that a fit of milliseconds needs. See docs/decisions/0002.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["MOST_DIMENSIONS", "SobolStreams"]

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint32]
BITS = 32

# primitive polynomial (as the bits of a number) : initial direction numbers, dimension 2 onwards
_JOE_KUO = """
    3:1 7:1,3 11:1,3,1 13:1,1,1 19:1,1,3,3 25:1,3,5,13 37:1,1,5,5,17 41:1,1,5,5,5 47:1,1,7,11,19 55:1,1,5,1,1
    59:1,1,1,3,11 61:1,3,5,5,31 67:1,3,3,9,7,49 91:1,1,1,15,21,21 97:1,3,1,13,27,49 103:1,1,1,15,7,5
    109:1,3,1,15,13,25 115:1,1,5,5,19,61 131:1,3,7,11,23,15,103 137:1,3,7,13,13,15,69 143:1,1,3,13,7,35,63
    145:1,3,5,9,1,25,53 157:1,3,1,13,9,35,107 167:1,3,1,5,27,61,31 171:1,1,5,11,19,41,61 185:1,3,5,3,3,13,69
    191:1,1,7,13,1,19,1 193:1,3,7,5,13,19,59 203:1,1,3,9,25,29,41 211:1,3,5,13,23,1,55 213:1,3,7,3,13,59,17
    229:1,3,1,3,5,53,69 239:1,1,5,5,23,33,13 241:1,1,7,7,1,61,123 247:1,1,7,9,13,61,49 253:1,3,3,5,3,55,33
    285:1,3,1,15,31,13,49,245 299:1,3,5,15,31,59,63,97 301:1,3,1,11,11,11,77,249
"""
MOST_DIMENSIONS = 1 + len(_JOE_KUO.split())


@lru_cache(maxsize=32)
def _directions(dim: int) -> Words:
    """Direction numbers (dim, BITS): word j is what bit j of a point's index adds, modulo 2."""
    out = np.zeros((dim, BITS), dtype=np.uint64)
    out[0] = [1 << (BITS - 1 - j) for j in range(BITS)]
    for i, item in enumerate(_JOE_KUO.split()[: dim - 1], start=1):
        polynomial, first = item.split(":")
        bits, m = int(polynomial), [int(v) for v in first.split(",")]
        degree = len(m)
        for j in range(degree, BITS):
            new = m[j - degree] ^ (m[j - degree] << degree)
            for k in range(1, degree):
                new ^= ((bits >> (degree - k)) & 1) * (m[j - k] << k)
            m.append(new)
        out[i] = [m[j] << (BITS - 1 - j) for j in range(BITS)]
    return out.astype(np.uint32)


@lru_cache(maxsize=32)
def _direction_bits(dim: int) -> npt.NDArray[np.float32]:
    """The same as digits (dim, BITS of the word, BITS of the index), the most significant first."""
    shifts = np.arange(BITS - 1, -1, -1, dtype=np.uint32)
    words = _directions(dim)[:, None, :] >> shifts[:, None]
    return np.asarray(words & np.uint32(1), dtype=np.float32)


class SobolStreams:
    """R endless Sobol sequences in (0, 1)^dim, scrambled independently; one seed gives all of them.

    Parameters
    ----------
    dim : int
        Beyond MOST_DIMENSIONS the last coordinates are plain random numbers.
    n_streams : int
    seed : SeedSequence

    Examples
    --------
    >>> points = SobolStreams(2, 3, np.random.SeedSequence(1)).next(4)
    >>> points.shape, np.sort((points[:4, 0] * 4).astype(int)).tolist()
    ((12, 2), [0, 1, 2, 3])
    """

    def __init__(self, dim: int, n_streams: int, seed: np.random.SeedSequence) -> None:
        self._rng = np.random.default_rng(seed)
        self._plain = max(dim - MOST_DIMENSIONS, 0)
        net = dim - self._plain
        digits = self._rng.integers(0, 2, (n_streams, net, BITS, BITS), dtype=np.uint8)
        lower = np.tril(digits).astype(np.float32)
        lower[..., np.arange(BITS), np.arange(BITS)] = 1.0
        # sums of at most 32 ones are exact in single precision
        scrambled = (lower @ _direction_bits(net)).astype(np.uint32) & np.uint32(1)
        place = np.uint32(1) << np.arange(BITS - 1, -1, -1, dtype=np.uint32)
        self._columns = (scrambled * place[:, None]).sum(axis=2, dtype=np.uint32)  # (R, net, BITS)
        shift = self._rng.integers(0, 2**BITS, (n_streams, 1, net), dtype=np.uint64)
        self._words: Words = shift.astype(np.uint32)  # points so far (R, n, net), the first is the shift itself
        self._used = 0

    def next(self, n: int) -> Floats:
        """The next n points of every stream, (R n, dim), stream after stream, strictly inside the cube.

        Equidistributed where n is a power of two and continues as many points or none.
        """
        while self._words.shape[1] < self._used + n:
            column = self._columns[:, :, self._words.shape[1].bit_length() - 1]
            self._words = np.concatenate([self._words, self._words ^ column[:, None, :]], axis=1)
        words = self._words[:, self._used : self._used + n]
        self._used += n
        points = (words + 0.5) * 2.0**-BITS
        if self._plain:
            points = np.concatenate(
                [points, self._rng.uniform(2.0**-33, 1.0, (*points.shape[:2], self._plain))], axis=2
            )
        return np.asarray(points.reshape(-1, points.shape[2]), dtype=np.float64)
