"""The exact inner step with the prior or the likelihood raised to a power alpha, at the nodes of the posterior.

Power-scaling (Kallioinen, Paananen, Buerkner and Vehtari 2023, Statistics and Computing 34:57) asks how a posterior
proportional to p(theta) p(beta) p(y | beta, theta) moves when one factor is raised to alpha. The parent distribution of
group effects u is part of the model and no prior: p(y | beta, theta) = N(y; X beta, V) has V = Z Sigma Z' + R.

    hyperprior         p(theta)^alpha: nodes gain (alpha - 1) log p(theta), the density of the natural parameters
                       (standard deviations, correlation matrices) without the Jacobian of the explored coordinates
    coefficient_prior  p(beta)^alpha = Normal(m, sd^2 / alpha) up to a constant: the inner step with another prior
                       precision P; of a coefficient that is explored with theta, a gain as above
    likelihood         p(y | beta, theta)^alpha. Its exponent and that of the prior together are alpha times those of
                       the model with the prior precision P / alpha, so that with Q the minimum of these and
                       H_x = X'V^-1 X + P / alpha,
                           -2 log of the integral over beta = alpha (log|V| + Q) + log|H_x| + constant,
                       the mean of beta that of this model, its variance that over alpha
    observations       p(y | beta, u, theta)^alpha, the parent left as it is: N(sqrt(alpha) y; sqrt(alpha) eta, R)
                       times (2 pi)^(n (1 - alpha) / 2) |R|^((1 - alpha) / 2), so the inner step with rows multiplied by
                       sqrt(alpha), for every R. This is what tools compute that sample u and see only rows.

Coefficients of unpooled terms count as population coefficients with a flat prior. Other hyperpriors than those of the
fit are a gain of nodes as well: the log of a ratio of two prior densities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from finetti.inference.gaussian import GaussianInner, NodeValues
from finetti.inference.hyperparameters import Hyperparameters
from finetti.inference.tails import tail_indices
from finetti.inference.target import GaussianTarget
from finetti.linalg.layout import Grouping
from finetti.linalg.system import BlockSystem, Evaluated, Points
from finetti.model.priors import Lkj, Prior, sd_logpdf

if TYPE_CHECKING:
    from finetti.inference.infer import Inference

__all__ = [
    "COMPONENTS",
    "Scaled",
    "log_prior_parts",
    "log_prior_ratio",
    "power_scaled",
    "scaled_observations",
    "scaled_prior",
    "tails_under",
    "with_hyperpriors",
]

Floats = npt.NDArray[np.float64]

COMPONENTS = ("hyperprior", "coefficient_prior", "likelihood", "observations")


# --- the model with a scaled component --------------------------------------------------------------


def scaled_prior(inner: GaussianInner, alpha: float) -> GaussianInner:
    """Return the model with the prior Normal(m, sd^2 / alpha) for every integrated coefficient with Normal(m, sd^2)."""
    basis = inner.basis
    proper = len(basis.integrated) - basis.n_flat
    gain = proper * float(np.log(alpha))  # of log|P|
    return replace(
        inner,
        basis=replace(basis, prior=alpha * basis.prior, log_prior=basis.log_prior + gain),
        system=replace(inner.system, prior=alpha * inner.system.prior),
        constant=inner.constant + 0.5 * gain,
    )


def scaled_observations(inner: GaussianInner, alpha: float) -> GaussianInner:
    """Return the model with all rows of y and of its columns multiplied by sqrt(alpha), errors as they were.

    Its coefficients have the posterior under p(y | b, theta)^alpha; `log_marginal` lacks the factor that does not
    depend on them (see the module). Meant for coefficients: what it says of rows is in units of its own.
    """
    root, system, basis = float(np.sqrt(alpha)), inner.system, inner.basis
    groupings = tuple(Grouping(g.index, g.n_levels, root * g.Z) for g in inner.groupings)
    if inner.noise is None:
        # all cross-products are quadratic in the rows
        system = replace(
            system, Zl=root * system.Zl, Zd=root * system.Zd, X=root * system.X, y=root * system.y,
            panel0=alpha * system.panel0, root0=alpha * system.root0,
        )  # fmt: skip
    else:  # the hidden term of correlated errors is a part of R and keeps its columns
        system = BlockSystem.build(
            [*groupings, inner.noise.grouping], root * basis.X, root * basis.y,
            weights=inner.noise.se ** -2.0,
            penalty=_penalties(inner), prior=system.prior, n_fixed=system.n_fixed,
        )  # fmt: skip
    return replace(inner, system=system, basis=replace(basis, X=root * basis.X, y=root * basis.y), groupings=groupings)


def _penalties(inner: GaussianInner) -> list[Floats]:
    """1 per penalised coefficient, 0 per free one, of every factor and of the hidden term."""
    own = [
        np.ones((g.n_levels, g.Z.shape[1])) if free is None else np.where(free, 0.0, 1.0)
        for g, free in zip(inner.groupings, inner.free, strict=True)
    ]
    noise = inner.noise
    return own + ([np.ones((noise.grouping.n_levels, noise.q))] if noise is not None else [])


def log_errors(inner: GaussianInner, theta: Floats) -> Floats:
    """log|R| of the error covariance at nodes theta (S, d): (S,)."""
    design, S = inner.bound.design, theta.shape[0]
    if design.se is None:
        known = 0.0 if design.weights is None else float(np.sum(np.log(design.weights)))
        return 2.0 * design.y.size * np.log(inner.hyper.sigma(theta)) - known
    if design.se_sigma:
        se2 = design.se**2  # node by node: n x S values would be many
        return np.array([float(np.sum(np.log(se2 + s * s))) for s in inner.hyper.sigma(theta)])
    alone, value = np.ones(design.y.size, dtype=bool), 0.0
    for rows, covariance in inner.bound.error_covariance or ():
        alone[rows] = False
        value += float(np.linalg.slogdet(covariance)[1])
    return np.full(S, value + 2.0 * float(np.sum(np.log(design.se[alone]))))


# --- densities of theta's natural parameters --------------------------------------------------------


def log_prior_parts(hyper: Hyperparameters, theta: Floats) -> tuple[Floats, Floats]:
    """Log prior densities of natural parameters, without Jacobians, at nodes theta (S, d).

    Returns
    -------
    hyperprior : ndarray of shape (S,)
        Of standard deviations (the density of the sd, also where the prior speaks of the variance), of correlation
        matrices and of sigma.
    coefficients : ndarray of shape (S,)
        Of the population coefficients that are explored with theta.
    """
    hyperprior, coefficients = np.zeros(theta.shape[0]), np.zeros(theta.shape[0])
    for k, c in enumerate(hyper.coordinates):
        if c is not None:
            value = c.natural(theta[:, k])
            if c.is_coefficient:
                coefficients += c.prior.logpdf(value)
            else:
                hyperprior += sd_logpdf(c.prior, value)
    for f in hyper.factors:
        for block, at in zip(f.blocks, f.cor_at, strict=True) if f.held is None else ():
            if block.size:
                normaliser = Lkj(block.eta).log_normaliser(len(block.members))
                hyperprior += (block.eta - 1.0) * _log_det(theta[:, at : at + block.size]) - normaliser
    return hyperprior, coefficients


def _log_det(theta: Floats) -> Floats:
    """log det of correlation matrices: the product of 1 - r^2 over partial correlations r = tanh(theta)."""
    x = np.abs(theta)
    return np.sum(2.0 * np.log(2.0) - 2.0 * x - 2.0 * np.log1p(np.exp(-2.0 * x)), axis=1)


def with_hyperpriors(hyper: Hyperparameters, priors: Mapping[str, Prior]) -> Hyperparameters:
    """Return the same coordinates with other priors, by label: "sd_g[c]", "cor_g" or "sigma"."""
    coordinates = tuple(
        replace(c, prior=priors[c.label]) if c is not None and c.label in priors else c for c in hyper.coordinates
    )
    factors = tuple(
        replace(f, blocks=tuple(replace(b, prior=priors[f"cor_{f.name}"]) if b.size else b for b in f.blocks))
        if f"cor_{f.name}" in priors
        else f
        for f in hyper.factors
    )
    return replace(hyper, coordinates=coordinates, factors=factors)


def log_prior_ratio(hyper: Hyperparameters, priors: Mapping[str, Prior], theta: Floats) -> Floats | None:
    """Log of the ratio of other hyperpriors' density to that of the model's at nodes theta (S, d), (S,).

    None where a new prior reaches values that the old one excludes: no reweighting of nodes can go there.
    """
    out = np.zeros(theta.shape[0])
    for k, c in enumerate(hyper.coordinates):
        if c is None or c.label not in priors:
            continue
        new = priors[c.label]
        if max(new.support[0], 0.0) < c.support[0] or new.support[1] > c.support[1]:
            return None
        value = c.natural(theta[:, k])
        out += sd_logpdf(new, value) - sd_logpdf(c.prior, value)
    for f in hyper.factors:
        new_cor = priors.get(f"cor_{f.name}")
        for block, at in zip(f.blocks, f.cor_at, strict=True):
            if block.size and isinstance(new_cor, Lkj):
                q = len(block.members)
                constant = new_cor.log_normaliser(q) - Lkj(block.eta).log_normaliser(q)
                out += (new_cor.eta - block.eta) * _log_det(theta[:, at : at + block.size]) - constant
    return out


def tails_under(inference: Inference, priors: Mapping[str, Prior]) -> tuple[dict[str, float], Floats]:
    """Tail indices of the scales and coefficients under other hyperpriors; see `tails.tail_indices`.

    Raises
    ------
    PriorError
        If the posterior would be improper.
    """
    inner = inference.conditional.inner
    return tail_indices(GaussianTarget(replace(inner, hyper=with_hyperpriors(inner.hyper, priors))))


# --- nodes under a scaled component -----------------------------------------------------------------


@dataclass(frozen=True)
class Scaled:
    """Nodes under one scaled component: the log of their gain in weight (S,), moments (S, p) of the coefficients."""

    log_ratio: Floats
    beta_mean: Floats
    beta_var: Floats


def power_scaled(
    inference: Inference, theta: Floats, alphas: tuple[float, ...]
) -> tuple[Scaled, dict[tuple[str, float], Scaled]]:
    """Evaluate the nodes theta (S, d) with each of `COMPONENTS` raised to each of the powers.

    Returns
    -------
    base : Scaled
        At a power of one; the gain is zero.
    scaled : dict
        By component and power; gains up to a constant. A node that cannot be evaluated gains NaN.
    """
    inner = inference.conditional.inner
    out: dict[tuple[str, float], Scaled] = {}
    with np.errstate(all="ignore"):
        points = inner.points(theta)
        ev = inner.system.evaluate(points)
        plain = inner.node_values(points, ev)
        hyperprior, explored = log_prior_parts(inner.hyper, theta)
        errors, total = log_errors(inner, theta), _log_total(inner, theta, points, ev)
        base = Scaled(np.zeros(theta.shape[0]), plain.beta_mean, plain.beta_var)
        informative = bool(np.any(inner.basis.prior))  # else its coefficients have flat priors
        for alpha in alphas:
            out["hyperprior", alpha] = replace(base, log_ratio=(alpha - 1.0) * hyperprior)
            gain = (alpha - 1.0) * explored
            out["coefficient_prior", alpha] = replace(base, log_ratio=gain)
            if informative:
                v = scaled_prior(inner, alpha).values(theta)
                gain = gain + v.log_marginal - plain.log_marginal
                out["coefficient_prior", alpha] = Scaled(gain, v.beta_mean, v.beta_var)
            out["likelihood", alpha] = _scaled_likelihood(inner, alpha, points, plain, ev, total, informative)
            v = scaled_observations(inner, alpha).values(theta)
            gain = v.log_marginal - plain.log_marginal + 0.5 * (1.0 - alpha) * errors
            out["observations", alpha] = Scaled(gain, v.beta_mean, v.beta_var)
    return base, out


def _log_total(inner: GaussianInner, theta: Floats, points: Points, ev: Evaluated) -> Floats:
    """log|V| of all that varies around the population (and unpooled) coefficients, up to a constant: (S,)."""
    log_s2 = np.log(points.sigma2)
    if not inner.n_free:
        return inner.system.y.size * log_s2 + ev.logdet_rows + ev.logdet_groups
    # the same without the unpooled terms, whose determinant is one of coefficients
    unpooled = {f.name: "complete" for f in inner.hyper.factors if f.pooling == "none"}
    without = GaussianInner.build(replace(inner.bound, pooling={**inner.bound.pooling, **unpooled}))
    factors = tuple(replace(f, pooling=unpooled.get(f.name, f.pooling)) for f in inner.hyper.factors)
    without = replace(without, hyper=replace(inner.hyper, factors=factors))
    lam = without.relative_factors(theta, np.sqrt(points.sigma2))
    fixed = np.zeros((theta.shape[0], without.system.n_fixed))
    again = without.system.evaluate(Points(lam, points.sigma2, points.row_s2, fixed))
    return inner.system.y.size * log_s2 + again.logdet_rows + again.logdet_groups


def _scaled_likelihood(
    inner: GaussianInner, alpha: float, points: Points, plain: NodeValues, ev: Evaluated, total: Floats,
    informative: bool,
) -> Scaled:  # fmt: skip
    """p(y | beta, theta)^alpha; see the module."""
    value, then = plain, ev
    if informative:
        wider = scaled_prior(inner, 1.0 / alpha)
        then = wider.system.evaluate(points)
        value = wider.node_values(points, then)

    def determinant(e: Evaluated) -> Floats:
        """log|H_x| up to a constant, of unpooled coefficients too."""
        log_s2 = np.log(points.sigma2)
        groups = inner.system.y.size * log_s2 + e.logdet_rows + e.logdet_groups - total
        return groups + e.logdet_x - (inner.system.p + inner.n_free) * log_s2

    quadratic = alpha * then.quadratic - ev.quadratic
    twice = (alpha - 1.0) * total + quadratic / points.sigma2 + determinant(then) - determinant(ev)
    return Scaled(-0.5 * twice, value.beta_mean, value.beta_var / alpha)
