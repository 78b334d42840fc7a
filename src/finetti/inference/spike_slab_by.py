"""The marginal posterior of a screen's hyperparameters with groups of tests, each group's own prior integrated out.

Given theta the groups are independent, so that

    log p(x | theta) = sum_g log int phi(u) phi(v) p(x_g | m_pi + sd_pi0 u, m_tau + sd_slab_sd v, null) du dv,

a sum of lattice rules in two dimensions (`spike_slab_by_kernels`): no group's pi0 is ever estimated. Derivatives by the
hyperparameters are expectations under the same integrals (Fisher's identity), by the spreads

    d log p / d log sd_pi0 = sum_g (E[u_g^2 | x_g, theta] - 1)

after an integration by parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from finetti.inference.modes import find_modes
from finetti.inference.spike_slab import Observed, Slab
from finetti.inference.spike_slab_by_kernels import OUT, curvatures, integrate
from finetti.inference.spike_slab_by_priors import SPREADS, ByHyper
from finetti.inference.spike_slab_target import ScreenTarget, scan, sketch
from finetti.linalg.system import over_chunks

__all__ = ["CategoryTarget", "Grouped", "first_curvature", "first_starts"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# counted nanoseconds of the lattice: of a test with one normal component, relative to other densities, of a group
TEST, ROWS, GROUP = 1.5e-7, 16.0, 9e-6
# spreads that climbs begin at
SMALL, MODERATE = (0.2, 0.15), (1.0, 0.4)


@dataclass(frozen=True, eq=False)
class Grouped:
    """Tests sorted by group; group g has those at ptr[g] to ptr[g + 1]."""

    tests: Observed
    ptr: Ints

    @classmethod
    def of(cls, tests: Observed) -> Grouped:
        order = np.argsort(tests.group, kind="stable")
        sizes = np.bincount(tests.group)
        return cls(tests.take(order), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))

    @property
    def n_groups(self) -> int:
        return int(self.ptr.size - 1)

    @property
    def sizes(self) -> Ints:
        return np.diff(self.ptr)

    @property
    def _arrays(self) -> tuple[Any, ...]:
        z, inv_se, _, _, band, half_df, log_weight, log_null = self.tests.packed
        return z, inv_se, band, half_df, log_weight, log_null

    def _grids(self, slab: Slab) -> tuple[Any, ...]:
        """Components of the errors, and tables of log f1 where there are many tests."""
        return *self.tests.packed_grids, *self.tests.lookup(slab).packed

    def integrate(
        self, slab: Slab, six: Floats, starts: Floats, slopes: bool = False,
        shift: Floats | None = None, uniform: Floats | None = None,
    ) -> tuple[Floats, Floats]:  # fmt: skip
        """(S, G, OUT) as `spike_slab_by_kernels` says, and draws of (u, v), (S, G, K, 2)."""
        S, G = six.shape[0], self.n_groups
        shift = np.zeros((S, G, 2)) if shift is None else shift
        uniform = np.zeros((S, G, 0)) if uniform is None else uniform
        out, drawn = np.empty((S, G, OUT)), np.empty((*uniform.shape, 2))
        arrays, grids, simple = self._arrays, self._grids(slab), self.tests._simple(slab)

        def work(part: slice) -> None:
            integrate(arrays, grids, slab.packed, self.ptr, six, starts, simple, slopes, shift, uniform,
                      part.start, part.stop, out, drawn)  # fmt: skip

        over_chunks(work, S * G)
        return out, drawn

    def curvatures(self, slab: Slab, a: Floats, t: Floats, mu: Floats, kappa: Floats) -> Floats:
        """Log-likelihood of every group at a, t (S, G), two slopes and three second derivatives, (S, G, 6)."""
        S, G = a.shape
        out = np.empty((S, G, 6))
        arrays, grids, simple = self._arrays, self._grids(slab), self.tests._simple(slab)

        def work(part: slice) -> None:
            curvatures(arrays, grids, slab.packed, self.ptr, a, t, mu, kappa, simple, part.start, part.stop, out)

        over_chunks(work, S * G)
        return out


@dataclass(frozen=True)
class CategoryTarget:
    """log p(theta) + log p(x | theta); nodes yield mean and variance of the share of nulls among all tests."""

    grouped: Grouped
    slab: Slab
    hyper: ByHyper

    @property
    def names(self) -> tuple[str, ...]:
        return self.hyper.names

    @property
    def cost(self) -> float:
        tests, simple = self.grouped.tests, self.grouped.tests._simple(self.slab)
        each = TEST * tests.n if simple else TEST * tests.n + ROWS * tests.cost(self.slab)
        return each + GROUP * self.grouped.n_groups

    @cached_property
    def _reference(self) -> tuple[Floats, Floats, Floats]:
        """Where each group's likelihood is at the first start: a and t, slope and curvature of its logarithm there."""
        six = self.hyper.six(self._first[:1])
        six[:, [1, 3]] = np.maximum(six[:, [1, 3]], 1e-3)
        G = self.grouped.n_groups
        out, _ = self.grouped.integrate(self.slab, six, np.zeros((1, G, 2)))
        w, s, m = out[0, :, 11:13], six[0, [1, 3]], six[0, [0, 2]]
        P = np.empty((G, 2, 2))
        P[:, 0, 0], P[:, 0, 1], P[:, 1, 1] = out[0, :, 13] - 1.0, out[0, :, 14], out[0, :, 15] - 1.0
        P[:, 1, 0] = P[:, 0, 1]
        return m + s * w, w / s, P / np.outer(s, s)

    def near(self, six: Floats) -> Floats:
        """Guesses (S, G, 2) of every group's (u, v), from a quadratic likelihood."""
        x, slope, H = self._reference
        m, s = six[:, [0, 2]], six[:, [1, 3]]
        A = np.eye(2) + s[:, None, :, None] * s[:, None, None, :] * H
        right = s[:, None] * (slope + np.einsum("gij,sgj->sgi", H, x - m[:, None]))
        det = A[..., 0, 0] * A[..., 1, 1] - A[..., 0, 1] ** 2
        u = (A[..., 1, 1] * right[..., 0] - A[..., 0, 1] * right[..., 1]) / det
        v = (A[..., 0, 0] * right[..., 1] - A[..., 0, 1] * right[..., 0]) / det
        guess = np.stack([u, v], axis=-1)
        return np.clip(np.where(np.isfinite(guess), guess, 0.0), -4.0, 4.0)

    def _value(self, theta: Floats, six: Floats, out: Floats) -> Floats:
        tests = self.grouped.tests
        value = out[:, :, 0].sum(axis=1) + tests.constant - tests.n * np.log(six[:, 5])
        return np.asarray(value + self.hyper.log_prior(theta))

    def log_density(self, theta: Floats) -> tuple[Floats, tuple[Floats, ...]]:
        with np.errstate(all="ignore"):
            six = self.hyper.six(theta)
            out, _ = self.grouped.integrate(self.slab, six, self.near(six))
            share = self.grouped.sizes / self.grouped.tests.n
            mean = np.nan_to_num(out[:, :, 5]) @ share  # NaN where theta is absurd, at nodes without weight
            variance = np.maximum(np.nan_to_num(out[:, :, 6]) - np.nan_to_num(out[:, :, 5]) ** 2, 0.0) @ share**2
            return self._value(theta, six, out), (mean, variance)

    def gradient(self, theta: Floats) -> tuple[Floats, Floats]:
        with np.errstate(all="ignore"):
            six = self.hyper.six(theta)
            out, _ = self.grouped.integrate(self.slab, six, self.near(six), slopes=True)
            mu, kappa, a, t = (out[:, :, k].sum(axis=1) for k in (7, 8, 9, 10))
            spreads = {"sd_pi0": (out[:, :, 2] - 1.0).sum(axis=1), "sd_slab_sd": (out[:, :, 4] - 1.0).sum(axis=1)}
            return self._value(theta, six, out), self.hyper.gradient(theta, mu, kappa, a, t, spreads)

    def draw(self, theta: Floats, each: int, seed: Ints) -> tuple[Floats, Floats]:
        """Draws of every group's logit pi0 and log tau given theta, (S, G, each) twice."""
        rng = np.random.default_rng(seed)
        six = self.hyper.six(theta)
        S, G = theta.shape[0], self.grouped.n_groups
        shift = rng.random((S, G, 2)) - 0.5
        uniform = (rng.permuted(np.tile(np.arange(each), (S, G, 1)), axis=2) + rng.random((S, G, 1))) / each
        _, drawn = self.grouped.integrate(self.slab, six, self.near(six), False, shift, uniform)
        a = six[:, 0, None, None] + six[:, 1, None, None] * drawn[..., 0]
        return a, six[:, 2, None, None] + six[:, 3, None, None] * drawn[..., 1]

    @cached_property
    def _first(self) -> Floats:
        return first_starts(self.grouped.tests, self.slab, self.hyper)

    def starts(self) -> Floats:
        """The modes without groups, with moderate and with small spreads."""
        return self._first

    def curvature(self) -> Floats:
        return first_curvature(self.names, float(self.grouped.tests.n), float(self.grouped.n_groups))


def first_starts(tests: Observed, slab: Slab, hyper: ByHyper) -> Floats:
    """Modes without a covariate, the best one with moderate and with small spreads; (K, d)."""
    small = sketch(Observed(tests.z, tests.se, tests.df, np.zeros(tests.n, np.int64), tests.count))
    found = scan(small, slab, hyper.base)
    if hyper.base.names:
        rough = ScreenTarget(small, slab, hyper.base)
        found = find_modes(rough.gradient, found, rough.curvature()).theta
    at, starts = hyper.base.natural(found), []
    for k in range(min(len(found), 2)):
        for spread in (MODERATE, SMALL) if k == 0 else (MODERATE,):
            values = {name: v[k] for name, v in at.items()} | dict(zip(SPREADS, spread, strict=True))
            starts.append(hyper.theta(values)[0])
    return np.array(starts)


def first_curvature(names: tuple[str, ...], n: float, G: float) -> Floats:
    """A guess of the negative Hessian's diagonal (d,), of n tests in G groups."""
    guess = {
        "pi0": 2.0 + min(0.01 * n, G), "slab_sd": 2.0 + min(0.05 * n, 4.0 * G), "null_mean": 1.0 + n,
        "null_sd": 1.0 + 2.0 * n, "sd_pi0": 1.0 + G, "sd_slab_sd": 1.0 + G,
    }  # fmt: skip
    return np.array([guess[name] for name in names])
