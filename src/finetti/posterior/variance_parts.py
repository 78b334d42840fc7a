"""The two parts of a posterior variance over hyperparameter nodes, and the length of the interval they make.

    Var(b | y) = E[Var(b | theta, y)] + Var(E[b | theta, y]),

both sums over weighted nodes, so that they add up to the variance of the tables exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from finetti.inference.sampled import SampledConditional
from finetti.posterior.mixtures import mixture_quantiles
from finetti.posterior.moments import group_nodes, group_quantiles, summary_table

if TYPE_CHECKING:
    from finetti.posterior.fit import Fit

__all__ = ["DRAWN_NODES", "Parts", "explored_coefficients", "group_parts", "population_parts"]

Floats = npt.NDArray[np.float64]

# central interval whose lengths are compared
PROBS = (0.05, 0.95)
# draws of NUTS at which exact conditional moments are computed
DRAWN_NODES = 256


@dataclass(frozen=True)
class Parts:
    """The two parts of the variance and the length of the 90 % interval, (m,) each."""

    given: Floats
    between: Floats
    length: Floats


def _split(
    fit: Fit, theta: Floats, w: Floats, mean: Floats, variance: Floats, quantiles: Floats | None = None
) -> Parts:
    """Parts over nodes theta (S, d) with weights w (S,), of moments (S, m); `quantiles` (m, 2) if known already."""
    variance = np.where(np.isnan(mean), np.nan, variance)
    given = w @ variance
    between = w @ (mean - w @ mean) ** 2
    if w.size == 1:
        return Parts(given, between, _normal_length(given))
    if quantiles is None:
        quantiles = mixture_quantiles(w, mean, variance, PROBS)
    length = quantiles[:, 1] - quantiles[:, 0]
    explored = explored_coefficients(fit)
    if explored:
        hyper = [k for k in range(theta.shape[1]) if k not in explored.values()]
        share = _explained(theta[:, hyper], w, mean)
        return Parts(given + (1.0 - share) * between, share * between, length)
    return Parts(given, between, length)


def explored_coefficients(fit: Fit) -> dict[str, int]:
    """Population coefficients that are explored with the hyperparameters, and their positions in theta."""
    return {label: at for label, at, _ in fit.inference.coordinates.given if at >= 0}


def _explained(theta: Floats, w: Floats, values: Floats) -> Floats:
    """Share (m,) of the variance of functions of nodes, values (S, m), that some coordinates theta (S, d) explain.

    By least squares on polynomials of their normal scores, degrees of freedom counted: a population coefficient that is
    explored beside the hyperparameters is no hyperparameter, and has no density given them to integrate with.
    """
    S, d = theta.shape
    order = np.argsort(theta, axis=0)
    middle = np.take_along_axis(np.cumsum(w[order], axis=0) - 0.5 * w[order], np.argsort(order, axis=0), axis=0)
    z = ndtri(np.clip(middle, 1e-6, 1.0 - 1e-6))
    effective = 1.0 / float(np.sum(w**2))
    terms = [np.ones((S, 1)), z, z**2, z**3, *(z[:, [i]] * z[:, i + 1 :] for i in range(d))]
    basis = np.concatenate(terms, axis=1)
    if basis.shape[1] > 0.1 * effective:  # too few nodes for curves
        basis = np.concatenate(terms[:2], axis=1)
    centred, root = values - w @ values, np.sqrt(w)[:, None]
    found = np.zeros(values.shape[1])
    known = np.flatnonzero(np.isfinite(values).all(axis=0) & (w @ centred**2 > 0.0))
    coef, *_ = np.linalg.lstsq(root * basis, root * centred[:, known], rcond=None)
    left = w @ (centred[:, known] - basis @ coef) ** 2 / (w @ centred[:, known] ** 2)
    found[known] = np.clip(1.0 - left * (effective - 1.0) / max(effective - basis.shape[1], 1.0), 0.0, 1.0)
    return found


def _normal_length(variance: Floats) -> Floats:
    """Length of the central 90 % interval of a normal distribution."""
    return np.asarray(2.0 * ndtri(PROBS[1]) * np.sqrt(variance))


def _some_draws(fit: Fit, conditional: SampledConditional) -> Floats:
    """Hyperparameters (S, d) at draws of NUTS at even distances; one where there are none to vary."""
    theta = conditional.theta
    most = min(DRAWN_NODES, len(theta)) if theta.shape[1] else 1
    return np.ascontiguousarray(theta[np.linspace(0, len(theta) - 1, most).round().astype(int)])


def group_parts(fit: Fit, name: str) -> Parts:
    """Of every level and coefficient of a term, in the order of `Fit.groups`."""
    conditional = fit.inference.conditional
    if not isinstance(conditional, SampledConditional):
        at = group_nodes(fit, name)
        S, nodes = at.w.size, fit.inference.hyper.theta[at.nodes]
        ends = None if S == 1 else group_quantiles(fit, name, PROBS).reshape(-1, 2)
        return _split(fit, nodes, at.w, at.mean.reshape(S, -1), at.variance.reshape(S, -1), ends)
    theta = _some_draws(fit, conditional)
    means, variances = [], []
    for batch in conditional.exact.groups(name, theta):
        means.append(batch.mean.reshape(len(batch.mean), -1))
        variances.append(np.diagonal(batch.cov, axis1=2, axis2=3).reshape(len(batch.mean), -1))
    return _split(fit, theta, np.full(len(theta), 1.0 / len(theta)), np.concatenate(means), np.concatenate(variances))


def population_parts(fit: Fit) -> Parts:
    """Of the population's coefficients, NaN where the variance does not exist or the coefficient is not identified."""
    inference = fit.inference
    conditional, hyper = inference.conditional, inference.hyper
    if isinstance(conditional, SampledConditional):
        theta = _some_draws(fit, conditional)
        found = conditional.inner.values(theta)
        w, mean, variance = np.full(len(theta), 1.0 / len(theta)), found.beta_mean, found.beta_var
    else:
        theta, w, (mean, variance) = hyper.theta, hyper.weights, hyper.payload
    parts = _split(fit, theta, w, mean, variance)
    if (
        explored_coefficients(fit) and inference.sampled is None
    ):  # the summary of these has less Monte Carlo error than the nodes
        table = summary_table(fit, PROBS)[: mean.shape[1]]
        total = parts.given + parts.between
        with np.errstate(invalid="ignore"):
            scale = np.where(total > 0.0, table["sd"].to_numpy() ** 2 / total, 1.0)
        length = (table["q95"] - table["q5"]).to_numpy()
        parts = Parts(parts.given * scale, parts.between * scale, length)
    endless = inference.coefficient_tails <= 2.0
    given, between = (np.where(endless, np.nan, v) for v in (parts.given, parts.between))
    return Parts(given, between, parts.length)
