"""The marginal posterior of the hyperparameters of a screen, as the outer step wants it, and where to look for modes.

The likelihood of spike and slab has several modes: one where the slab is the few large effects, one where it is
the whole bulk, a ridge where it vanishes. A climb from one start may end at the wrong one, and packages do. Here
the data are first summed up in bins (`sketch`), on which a grid over the whole space costs milliseconds; the
climbs begin at every local maximum of the grid, and end on the data themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from finetti.inference.modes import Modes, find_modes
from finetti.inference.spike_slab import Observed, Slab, make_slab
from finetti.inference.spike_slab_priors import Hyper

__all__ = ["ScreenTarget", "scan", "sketch"]

Floats = npt.NDArray[np.float64]

# tests that need no sketch; widths of its bins in z, log se and log df
FEW_TESTS = 2000
Z_BIN, LOG_SE_BIN, LOG_DF_BIN = 0.04, 0.2, 0.3
# values of the grid: slab sds (fewer where the null is free), null sds, and starts kept
SLABS, SLABS_FREE, NULL_SDS, KEPT = 24, 12, (0.6, 0.75, 0.9, 1.0, 1.15, 1.4, 1.75, 2.2), 6
# work (tests x slabs x components) up to which the grid is made with the slab itself, beyond it with a normal one
MOST_WORK = 3e7


def sketch(tests: Observed) -> Observed:
    """Tests that resemble one another as one that counts for all; good for starts, not for answers."""
    if tests.n <= FEW_TESTS:
        return tests
    log_se = np.log(tests.se)
    cells = [
        np.round(tests.z / Z_BIN),
        np.round((log_se - log_se.min()) / LOG_SE_BIN),
        np.where(np.isinf(tests.df), -1.0, np.round(np.log(np.minimum(tests.df, 1e6)) / LOG_DF_BIN)),
        tests.group.astype(float),
    ]
    key = np.zeros(tests.n)
    for c in cells:
        key = key * (np.ptp(c) + 1.0) + (c - c.min())
    _, index = np.unique(key, return_inverse=True)
    count: Floats = np.bincount(index, weights=tests.count).astype(np.float64)

    def mean(x: Floats) -> Floats:
        return np.bincount(index, weights=tests.count * x) / count

    with np.errstate(divide="ignore"):
        df = 1.0 / mean(1.0 / tests.df)
    first = np.zeros(count.size, dtype=np.int64)
    first[index] = tests.group
    return Observed(mean(tests.z), np.exp(mean(log_se)), df, first, count)


def scan(tests: Observed, slab: Slab, hyper: Hyper) -> Floats:
    """Local maxima (K, d) of the density on a grid over theta, the highest first."""
    unit = float(np.median(tests.se))
    largest = float(np.max(np.abs(tests.z) * tests.se))
    center = _weighted_median(tests.z, tests.count)
    free_null = "null_sd" in hyper.names
    total = float(tests.count.sum())
    shares = np.concatenate([[0.02, 0.2, 0.5, 0.75], 1.0 - np.geomspace(0.1, min(0.5 / total, 0.01), 6)])
    spread = _weighted_median(np.abs(tests.z - center), tests.count) / 0.6744897501960817
    axes = {
        "pi0": shares,
        "slab_sd": np.geomspace(0.2 * unit, max(1.5 * largest, 4.0 * unit), SLABS_FREE if free_null else SLABS),
        "null_mean": np.unique([0.0, center]),
        "null_sd": np.unique([*NULL_SDS, float(np.clip(spread, 0.1, 10.0))]),
    }
    for name, prior in hyper.priors.items():
        if name not in hyper.names:
            axes[name] = np.array([prior.value])  # type: ignore[attr-defined]
    t, m, k = (a.ravel() for a in np.meshgrid(axes["slab_sd"], axes["null_mean"], axes["null_sd"], indexing="ij"))
    if tests.cost(slab) * t.size > MOST_WORK * 1e-8:
        slab = make_slab("normal")
    log_ratio, log_f0 = tests.log_ratio(slab, t, m, k)
    top = np.maximum(log_ratio, 0.0)
    null, not_null = np.exp(-top), np.exp(log_ratio - top)
    base = (log_f0 + top) @ tests.count

    def mixed(p: float) -> Floats:
        if p in (0.0, 1.0):  # one component alone: its density may be too small for an exponential
            return (log_ratio - top if p == 0.0 else -top) @ tests.count
        return np.log(p * null + (1.0 - p) * not_null) @ tests.count

    heights = np.stack([base + mixed(float(p)) for p in axes["pi0"]])
    shape = tuple(axes[name].size for name in ("pi0", "slab_sd", "null_mean", "null_sd"))
    grid = np.stack(
        [a.ravel() for a in np.meshgrid(*(axes[n] for n in ("pi0", "slab_sd", "null_mean", "null_sd")), indexing="ij")]
    )
    thetas = hyper.theta(*grid)
    if thetas.shape[1] == 0:
        return thetas[:1]
    value = heights.ravel() + hyper.log_prior(thetas)
    value = np.where(np.isfinite(value), value, -np.inf)
    top = _local_maxima(value.reshape(shape)).ravel()
    order = np.flatnonzero(top)[np.argsort(-value[top], kind="stable")][:KEPT]
    return thetas[order]


def _weighted_median(x: Floats, w: Floats) -> float:
    order = np.argsort(x)
    return float(x[order][np.searchsorted(np.cumsum(w[order]), 0.5 * w.sum())])


def _local_maxima(x: Floats) -> npt.NDArray[np.bool_]:
    out = np.isfinite(x)
    for axis in range(x.ndim):
        if x.shape[axis] > 1:
            with np.errstate(invalid="ignore"):
                rise = np.diff(x, axis=axis)
            edge = [(0, 0)] * x.ndim
            edge[axis] = (1, 0)
            before = np.pad(rise, edge, constant_values=1.0) >= 0.0
            edge[axis] = (0, 1)
            after = np.pad(rise, edge, constant_values=-1.0) <= 0.0
            out &= before & after
    return out


@dataclass(frozen=True)
class ScreenTarget:
    """log p(theta) + log p(x | theta) in unconstrained coordinates; nodes yield nothing else."""

    tests: Observed
    slab: Slab
    hyper: Hyper

    @property
    def names(self) -> tuple[str, ...]:
        return self.hyper.names

    @property
    def cost(self) -> float:
        return self.tests.cost(self.slab)

    def log_density(self, theta: Floats) -> tuple[Floats, tuple[Floats, ...]]:
        with np.errstate(all="ignore"):
            value = self.tests.log_likelihood(self.slab, self.hyper.nodes(theta)) + self.hyper.log_prior(theta)
        return value, ()

    def gradient(self, theta: Floats) -> tuple[Floats, Floats]:
        with np.errstate(all="ignore"):
            value, by_mu, by_kappa, by_share, by_tau = self.tests.gradient(self.slab, self.hyper.nodes(theta))
            slope = self.hyper.gradient(theta, by_mu, by_kappa, by_share[:, 0], by_tau[:, 0])
            return value + self.hyper.log_prior(theta), slope

    @cached_property
    def _starts(self) -> Floats:
        small = sketch(self.tests)
        found = scan(small, self.slab, self.hyper)
        if small is self.tests or not self.names:
            return found
        rough = ScreenTarget(small, self.slab, self.hyper)
        modes: Modes = find_modes(rough.gradient, found, rough.curvature())
        return modes.theta

    def starts(self) -> Floats:
        """Where the sketch has its modes; of few tests, the local maxima of the grid."""
        return self._starts

    def curvature(self) -> Floats:
        n = float(self.tests.count.sum())
        guess = {"pi0": 2.0 + 0.01 * n, "slab_sd": 2.0 + 0.05 * n, "null_mean": 1.0 + n, "null_sd": 1.0 + 2.0 * n}
        return np.array([guess[name] for name in self.names])
