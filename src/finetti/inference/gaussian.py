"""The exact Gaussian inner step: log p(y | theta), its gradient, and b | theta, y.

    log p(y | theta) = -1/2 [ (n - r) log 2 pi + log|R| + log|H| - log|P| + y'R^-1 y - c'H^-1 c ]

with r flat directions dropped from log|P| (with flat `beta`, -2 log p is lme4's REML
criterion). The coefficients are solved for by block elimination in whitened, relative
coordinates (`finetti.linalg`); this file keeps the books: units, determinants, bases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from finetti.errors import ModelError
from finetti.inference.basis import (
    PopulationBasis,
    free_columns,
    group_basis,
    population_basis,
    prior_key,
    unidentified_columns,
)
from finetti.inference.hyperparameters import Hyperparameters, is_gaussian
from finetti.inference.noise import CorrelatedErrors, correlated_errors
from finetti.linalg.layout import Grouping
from finetti.linalg.system import BlockSystem, Evaluated, Points

if TYPE_CHECKING:
    from collections.abc import Mapping

    from finetti.data.bound import Bound
    from finetti.data.design import Design

__all__ = ["GaussianInner", "NodeValues"]

# group sd over sigma beyond which nothing can be computed in double precision
LARGEST_RATIO = 1e7

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class NodeValues:
    """What the inner step returns at S nodes: log p(y | theta) and the moments of beta for free."""

    log_marginal: Floats  # (S,)
    beta_mean: Floats  # (S, p_all)
    beta_var: Floats  # (S, p_all)


@dataclass(frozen=True)
class GaussianInner:
    """A bound Gaussian model ready for evaluation at any theta. Build with `GaussianInner.build`."""

    bound: Bound
    hyper: Hyperparameters
    system: BlockSystem
    basis: PopulationBasis
    groupings: tuple[Grouping, ...]  # as the solver got them, rows in the data's order
    transforms: tuple[Floats, ...]  # T of each factor
    level: float  # constant taken out of y where an unpooled term stands in for the intercept
    shifts: tuple[Floats, ...]  # (q,) what it adds to each level's coefficients, in the user's columns
    free: tuple[Bools | None, ...]  # (J, q) identified coefficients of unpooled terms
    constant: float  # everything in log p that theta does not move
    n_free: int  # unpenalised group coefficients
    n_coefficients: int  # all group coefficients and integrated columns
    noise: CorrelatedErrors | None  # known covariance of the errors: the solver's last factor, in no other list here

    @classmethod
    def build(cls, bound: Bound) -> GaussianInner:
        design, priors = bound.design, bound.priors
        pooled = {f.name: bound.pooling[f.name] for f in design.factors}
        unpooled = [f for f in design.factors if pooled[f.name] == "none"]
        free = {f.name: free_columns(f.index, len(f.levels), f.Z) for f in unpooled}
        absent = unidentified_columns(
            design.X, [(f.name, f.index, len(f.levels), f.Z, free[f.name]) for f in unpooled], design.columns
        )
        target = design.y - design.offset
        level, shifts = _constant_of_unpooled(design, pooled, absent, target)
        target = target - level
        basis = population_basis(
            design.X, target, design.columns, design.intercept, priors, absent, bound.scales.x_mean
        )
        given = tuple(
            key
            for k, c in enumerate(design.columns)
            if k not in absent and not is_gaussian(priors[key := prior_key(c, priors)])
        )
        hyper = Hyperparameters.build(
            [(f.name, f.coefficients, f.blocks, len(f.levels), pooled[f.name]) for f in design.factors],
            priors,
            given,
            basis.given_units(),
        )
        groupings, transforms, penalties, masks = [], [], [], []
        constant, n_free = 0.0, 0
        for f in design.factors:
            none = pooled[f.name] == "none"
            Z, T = group_basis(f.Z, f.coefficients, centre=not none)
            penalty = np.ones((len(f.levels), f.Z.shape[1]))
            mask = None
            if none:
                mask = free[f.name]
                Z = Z * mask[f.index]
                penalty = np.where(mask, 0.0, 1.0)
                n_free += int(mask.sum())
                # |H| is taken in raw coordinates, u' = T u with T diagonal here
                constant -= float(mask.sum(axis=0) @ np.log(np.diag(T)))
            groupings.append(Grouping(f.index, len(f.levels), np.ascontiguousarray(Z)))
            transforms.append(T)
            penalties.append(penalty)
            masks.append(mask)
        weights, se2, noise = design.weights, None, None
        if design.se is not None:
            noise = correlated_errors(design.se, bound.error_covariance)
            if design.se_sigma:
                se2 = design.se**2
            else:
                weights = (design.se if noise is None else noise.se) ** -2.0
        hidden = [noise.grouping] if noise is not None else []
        penalties += [np.ones((g.n_levels, g.Z.shape[1])) for g in hidden]
        system = BlockSystem.build(
            [*groupings, *hidden], basis.X, basis.y,
            weights=weights,
            se2=se2,
            penalty=penalties, prior=basis.prior, n_fixed=len(basis.given),
        )  # fmt: skip
        n = design.y.size
        constant += -0.5 * (n - n_free - basis.n_flat) * np.log(2.0 * np.pi) + 0.5 * basis.log_prior
        if weights is not None:
            constant += 0.5 * float(np.sum(np.log(weights)))
        n_coef = sum(g.n_levels * g.Z.shape[1] for g in groupings) + len(basis.integrated)
        return cls(
            bound,
            hyper,
            system,
            basis,
            tuple(groupings),
            tuple(transforms),
            level,
            shifts,
            tuple(masks),
            constant,
            n_free,
            n_coef,
            noise,
        )

    # --- the solver's view of theta -----------------------------------------------------------

    def points(self, theta: Floats) -> Points:
        """Translate theta (S, d) for the solver."""
        S = theta.shape[0]
        sigma = self.hyper.sigma(theta)
        varying = self.system.se2.size > 0
        scale = np.ones(S) if varying else sigma
        return Points(
            self.relative_factors(theta, scale),
            scale**2,
            sigma**2 if varying else np.zeros(S),
            self.hyper.given_values(theta) - self.basis.given_shift,
        )

    def relative_factors(self, theta: Floats, scale: Floats) -> Floats:
        """Packed T D C / sigma of every factor, (S, L); the identity for an unpooled term."""
        S = theta.shape[0]
        parts = []
        for f, (spec, T) in enumerate(zip(self.hyper.factors, self.transforms, strict=True)):
            if spec.pooling == "none":
                L = np.broadcast_to(np.eye(spec.q), (S, spec.q, spec.q))
            elif spec.pooling == "complete":
                L = np.zeros((S, spec.q, spec.q))
            else:
                L = (T @ self.hyper.covariance_factor(f, theta)) / scale[:, None, None]
            parts.append(L.reshape(S, -1))
        if self.noise is not None:  # of sd 1
            parts.append(np.eye(self.noise.q).ravel() / scale[:, None])
        return np.ascontiguousarray(np.concatenate(parts, axis=1)) if parts else np.zeros((S, 0))

    def _log_marginal(self, points: Points, ev: Evaluated) -> Floats:
        n, log_s2 = self.system.y.size, np.log(points.sigma2)
        rows = n * log_s2 + ev.logdet_rows
        groups = ev.logdet_groups - self.n_free * log_s2
        population = ev.logdet_x - self.system.p * log_s2
        value = self.constant - 0.5 * (rows + groups + population + ev.quadratic / points.sigma2)
        # the quadratic form is a difference that loses all its digits when a group sd exceeds sigma by
        # much more than any data can tell; such nodes carry no mass
        if self.bound.design.se is None:
            value[np.abs(points.lam).max(axis=1, initial=0.0) > LARGEST_RATIO] = -np.inf
        return value

    # --- what the outer step calls -----------------------------------------------------------

    def log_marginal(self, theta: Floats) -> Floats:
        """log p(y | theta) at S nodes, (S, d) -> (S,); NaN where the system is not positive definite."""
        return self.values(theta).log_marginal

    def values(self, theta: Floats) -> NodeValues:
        """log p(y | theta) with the conditional moments of the population coefficients."""
        points = self.points(theta)
        return self.node_values(points, self.system.evaluate(points))

    def node_values(self, points: Points, ev: Evaluated) -> NodeValues:
        """Assemble `NodeValues` from a raw evaluation."""
        mean = self.basis.beta_mean(ev.x_mean, points.fixed)
        p = self.system.p
        half = np.zeros((len(points), mean.shape[1], p))
        if p:
            good = np.isfinite(ev.quadratic)
            # T U^-1, so that Cov(beta) = sigma2 (T U^-1)(T U^-1)'
            targets = np.broadcast_to(self.basis.T.T, (int(good.sum()), *self.basis.T.T.shape))
            inverse = np.linalg.solve(np.swapaxes(ev.x_chol[good], 1, 2), targets)
            half[good] = np.swapaxes(inverse, 1, 2) * np.sqrt(points.sigma2[good])[:, None, None]
        return NodeValues(self._log_marginal(points, ev), mean, np.sum(half**2, axis=2))

    def gradient(self, theta: Floats) -> tuple[Floats, Floats]:
        """log p(y | theta) (S,) and its gradient (S, d), analytic in every coordinate."""
        points = self.points(theta)
        ev = self.system.evaluate(points, gradient=True)
        value = self._log_marginal(points, ev)
        s2 = points.sigma2
        sums, traces, squares, at = [], np.zeros_like(s2), np.zeros_like(s2), 0
        for spec in self.hyper.factors:
            q = spec.q
            S1 = ev.cov_sum[:, at : at + q * q].reshape(-1, q, q)
            S2 = ev.square_sum[:, at : at + q * q].reshape(-1, q, q) / s2[:, None, None]
            at += q * q
            sums.append(spec.n_levels * np.eye(q) - S1 - S2)
            traces += np.trace(S1, axis1=1, axis2=2)
            squares += np.trace(S2, axis1=1, axis2=2)
        out = self.hyper.chain_covariance(theta, sums)
        if self.hyper.sigma_at >= 0:
            if self.system.se2.size:
                d_log_sigma = -ev.row_terms[:, 0] * points.row_s2  # d sigma^2 = 2 sigma^2 d log sigma
            else:
                d_log_sigma = self._sigma_gradient(points, ev, traces, squares)
            out[:, self.hyper.sigma_at] += d_log_sigma * self.hyper.sigma_slope(theta)
        for k, position, slope in self.hyper.given_slopes(theta):
            out[:, position] += ev.row_terms[:, 1 + k] / s2 * slope
        return value, out

    def _sigma_gradient(self, points: Points, ev: Evaluated, traces: Floats, squares: Floats) -> Floats:
        """d log p / d log sigma, from traces and quadratic forms that are known already."""
        p, s2 = self.system.p, points.sigma2
        trace_p, square_p = np.zeros_like(s2), np.zeros_like(s2)
        if p:
            P, Pm, mPm = self.basis.prior[:p, :p], self.basis.prior[:p, p], self.basis.prior[p, p]
            U = np.where(np.isfinite(ev.quadratic)[:, None, None], ev.x_chol, np.eye(p))
            Vp = np.linalg.solve(U, np.linalg.solve(np.swapaxes(U, 1, 2), np.broadcast_to(P, U.shape)))
            trace_p = np.trace(Vp, axis1=1, axis2=2) * s2
            g = ev.x_mean
            square_p = np.einsum("si,ij,sj->s", g, P, g) - 2.0 * g @ Pm + mPm
        n = self.system.y.size
        return -(n - self.n_coefficients + traces + trace_p - ev.quadratic / s2 + squares + square_p)

    def check(self, theta: Floats) -> None:
        """Raise if the normal equations are singular at an ordinary theta."""
        if not np.all(np.isfinite(self.log_marginal(theta))):
            raise ModelError(
                "the coefficients cannot all be identified from these data: some combination of the population "
                "columns and unpooled terms has no information. Pool the terms or drop columns"
            )


def _constant_of_unpooled(
    design: Design, pooled: Mapping[str, str], absent: tuple[int, ...], target: Floats
) -> tuple[float, tuple[Floats, ...]]:
    """Mean of the response, if an unpooled term can carry it in place of the intercept, and how it does.

    Without this a large offset would stay in y and cost its digits.
    """
    shifts = [np.zeros(f.Z.shape[1]) for f in design.factors]
    if not (design.intercept and 0 in absent):
        return 0.0, tuple(shifts)
    for i, f in enumerate(design.factors):
        if pooled[f.name] != "none":
            continue
        a, *_ = np.linalg.lstsq(f.Z, np.ones(target.size), rcond=None)
        if np.abs(f.Z @ a - 1.0).max() < 1e-9:
            level = float(target.mean())
            shifts[i] = level * a
            return level, tuple(shifts)
    return 0.0, tuple(shifts)
