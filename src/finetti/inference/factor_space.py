"""The coordinates of empirical Bayes as hyperparameters: relative covariance factors, log sigma, given coefficients.

In them a standard deviation of zero and a correlation of one are ordinary points, where logs and inverse hyperbolic
tangents would be infinite; the likelihood is even in every diagonal entry. As in `empirical`, a factor whose
coefficients are all correlated is taken on the centred and scaled columns of the solver, T L: a covariate far from
zero, such as a year, would tie the intercepts' sd to the slopes' so closely that no step could be found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from finetti.inference.coordinates import is_fixed
from finetti.inference.empirical import triangular
from finetti.inference.hyperparameters import Hyperparameters
from finetti.inference.left_out import exact_conditional
from finetti.inference.target import GaussianTarget

if TYPE_CHECKING:
    from finetti.inference.infer import Inference

__all__ = ["FactorSpace"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FactorSpace(Hyperparameters):
    """Relative covariance factors, log sigma and given coefficients as coordinates, without hyperpriors.

    Only what the solver asks for is redefined: `sigma`, `given_values`, `covariance_factor`.
    """

    entries: tuple[tuple[int, int, int], ...] = ()  # factor, row, column of L
    units: tuple[Floats, ...] = ()  # of each row of L, relative to sigma if `relative`
    relative: bool = True
    fixed: tuple[tuple[int, int, float], ...] = ()  # factor, row, sd that the user holds
    free_sigma: bool = True
    free_given: tuple[int, ...] = ()
    given_units: tuple[tuple[float, float], ...] = ()
    back: tuple[Floats | None, ...] = ()  # (q, q) from T L to L, of factors that are taken so

    @classmethod
    def of(cls, inference: Inference) -> tuple[FactorSpace, Floats]:
        """Return the space of an empirical fit and its estimate there."""
        held, bound = inference.coordinates, inference.bound
        inner = exact_conditional(inference.conditional).inner
        sigma = held.sigma_value
        relative = held.sigma_at >= -1 and not inner.system.se2.size
        spread = 1.0 if relative else GaussianTarget(inner).spread()
        entries, fixed, units, start = [], [], [], []
        back: list[Floats | None] = []
        for f, (spec, T) in enumerate(zip(held.factors, inner.transforms, strict=True)):
            centred = len(spec.blocks) == 1 and len(spec.blocks[0].members) == spec.q
            scales = np.sqrt(np.mean(bound.design.factors[f].Z ** 2, axis=0))
            units.append(np.full(spec.q, spread) if centred else spread / np.maximum(scales, 1e-300))
            back.append(np.asarray(np.linalg.inv(T)) if centred else None)
            if not spec.modelled or spec.held is None:
                continue
            L = triangular(T @ spec.held) if centred else spec.held
            partner = {m: b.members for b in spec.blocks for m in b.members}
            for k, c in enumerate(spec.coefficients):
                if is_fixed(bound.priors[f"sd_{spec.name}[{c}]"]):
                    fixed.append((f, k, float(spec.held[k, k])))
                    continue
                for j in partner.get(k, (k,)):
                    if j <= k:
                        entries.append((f, k, j))
                        start.append(L[k, j] / (units[f][k] * (sigma if relative else 1.0)))
        free_sigma = held.sigma_at >= -1 and not is_fixed(bound.priors["sigma"])
        if free_sigma:
            start.append(np.log(sigma))
        free_given = tuple(i for i, (label, _, _) in enumerate(held.given) if not is_fixed(bound.priors[label]))
        given_units = tuple(inner.basis.given_units())
        start += [(held.given[i][2] - given_units[i][0]) / given_units[i][1] for i in free_given]
        names = [f"{held.factors[f].name} factor [{r}, {c}]" for f, r, c in entries]
        names += ["log sigma"] * free_sigma + [held.given[i][0] for i in free_given]
        space = cls(
            (), tuple(names), held.factors, held.sigma_at, sigma, held.given, tuple(entries), tuple(units), relative,
            tuple(fixed), free_sigma, free_given, given_units, tuple(back),
        )  # fmt: skip
        return space, np.array(start)

    def sigma(self, theta: Floats) -> Floats:
        if not self.free_sigma:
            return np.full(theta.shape[0], self.sigma_value)
        return np.exp(theta[:, len(self.entries)])

    def given_values(self, theta: Floats) -> Floats:
        out = np.tile(np.array([value for *_, value in self.given]), (theta.shape[0], 1))
        first = len(self.entries) + self.free_sigma
        for k, i in enumerate(self.free_given):
            centre, unit = self.given_units[i]
            out[:, i] = centre + unit * theta[:, first + k]
        return out

    def covariance_factor(self, index: int, theta: Floats) -> Floats:
        q = self.factors[index].q
        L = np.zeros((theta.shape[0], q, q))
        scale = self.sigma(theta) if self.relative else np.ones(theta.shape[0])
        for at, (f, r, c) in enumerate(self.entries):
            if f == index:
                L[:, r, c] = theta[:, at] * self.units[f][r] * scale
        for f, r, value in self.fixed:
            if f == index:
                L[:, r, r] = value
        back = self.back[index]
        return L if back is None else np.asarray(back @ L)

    @property
    def diagonal(self) -> Ints:
        """Coordinates that are standard deviations, or conditional ones."""
        return np.array([i for i, (_, r, c) in enumerate(self.entries) if r == c], dtype=np.int64)
