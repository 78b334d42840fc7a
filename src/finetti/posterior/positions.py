"""Where a known truth lies in a posterior: its CDF there, for every parameter.

    F(t) = p(parameter <= t | y)

Over data sets whose truth was drawn from the prior, F(truth) is uniform, whatever the model (Talts et al. 2018,
arXiv:1804.06788). F is read from what a summary shows: for coefficients the mixture of normal CDFs over the nodes,

    F(t) = sum_s w_s Phi((t - m_s) / sd_s),

for hyperparameters the weighted nodes, where they have one with the surrogate's dense points. No draws are made, so
that F has no ties, and no grain of its own but the one at its ends (`_resolved`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from finetti.inference.infer import Inference
from finetti.posterior.groups import representative_nodes
from finetti.posterior.mixtures import mixture_moments
from finetti.posterior.simulate import Simulated

__all__ = ["Position", "positions"]

Floats = npt.NDArray[np.float64]

# nodes that carry the mixture of a group effect, a smooth function of theta: their choice moves F by about 0.01
GROUP_NODES = 256
LARGEST = 1.0 - 1e-12


class Position(NamedTuple):
    """The posterior CDF at the truth, and the posterior sd on the scale `unbounded` makes."""

    pit: float
    sd: float
    truth: float


def unbounded(label: str, value: Floats) -> Floats:
    """Logs of standard deviations, inverse hyperbolic tangents of correlations: scales on which spreads exist."""
    if label.startswith("sd_") or label == "sigma":
        return np.log(np.maximum(value, 1e-300))
    # finite at the ends, where rounding puts nodes without weight
    return np.arctanh(np.clip(value, -LARGEST, LARGEST)) if label.startswith("cor_") else value


def positions(inference: Inference, made: Simulated, rng: np.random.Generator) -> dict[str, Position]:
    """Position of the truth in the posterior, for every parameter that is not held at a value.

    Parameters
    ----------
    inference : of `made.y`, by the exact method
    made : the simulated data with their truth
    rng : chooses one level of every pooled term, whose coefficients are looked at as `group g[c]`
    """
    hyper = inference.hyper
    out = _population(inference, made.truth)
    if inference.coordinates.d:
        nodes = inference.coordinates.natural(hyper.theta)
        dense = None if hyper.surrogate is None else inference.coordinates.natural(hyper.surrogate.theta)
        for label, at_nodes in nodes.items():
            if np.ptp(at_nodes) > 0.0:
                at_dense = None if dense is None else dense[label]
                out[label] = _of_theta(inference, label, at_nodes, at_dense, made.truth[label])
    out |= _groups(inference, made, rng)
    if hyper.n_nodes == 1:  # nothing is integrated over: every CDF is exact
        return out
    effective = hyper.effective_nodes
    return {label: p._replace(pit=_resolved(p.pit, effective, rng)) for label, p in out.items()}


def _population(inference: Inference, truth: Mapping[str, float]) -> dict[str, Position]:
    out, hyper = {}, inference.hyper
    mean, variance = hyper.payload
    sd = np.sqrt(variance)
    _, spread = mixture_moments(hyper.weights, mean, variance)
    for k, column in enumerate(inference.bound.design.columns):
        label = f"beta[{column}]"
        if np.any(variance[:, k] > 0.0):
            out[label] = _mixture(hyper.weights, mean[:, k], sd[:, k], truth[label], float(spread[k]))
        elif np.ptp(mean[:, k]) > 0.0:  # explored with theta
            dense = None
            if hyper.surrogate is not None:
                dense = inference.conditional.explored_beta(hyper.surrogate.theta)[:, k]
            out[label] = _of_theta(inference, label, mean[:, k], dense, truth[label])
    return out


def _groups(inference: Inference, made: Simulated, rng: np.random.Generator) -> dict[str, Position]:
    """The coefficients of one level of every pooled term: the population's value plus the deviation."""
    out, hyper, design = {}, inference.hyper, inference.bound.design
    beta = np.array([made.truth[f"beta[{c}]"] for c in design.columns])
    maps = inference.conditional.population_maps
    for f, spec, A in zip(design.factors, inference.coordinates.factors, maps, strict=True):
        level = int(rng.integers(len(f.levels)))
        if not spec.modelled:
            continue
        truth = A @ beta + made.u[f.name][level]
        size = len(f.levels) * spec.q + design.y.size
        nodes, w = representative_nodes(hyper.weights, size, GROUP_NODES)
        mean, variance = np.empty((nodes.size, spec.q)), np.empty((nodes.size, spec.q))
        for batch in inference.conditional.groups(f.name, hyper.theta[nodes]):
            mean[batch.nodes] = batch.mean[:, level]
            variance[batch.nodes] = np.diagonal(batch.cov[:, level], axis1=1, axis2=2)
        variance = np.maximum(variance, 0.0)
        _, spread = mixture_moments(w, mean, variance)
        for k, c in enumerate(f.coefficients):
            if np.any(variance[:, k] > 0.0):
                label = f"group {f.name}[{c}]"
                out[label] = _mixture(w, mean[:, k], np.sqrt(variance[:, k]), float(truth[k]), float(spread[k]))
    return out


def _mixture(w: Floats, mean: Floats, sd: Floats, truth: float, spread: float) -> Position:
    with np.errstate(divide="ignore"):
        return Position(float(np.clip(w @ ndtr((truth - mean) / sd), 0.0, 1.0)), spread, truth)


def _of_theta(
    inference: Inference,
    label: str,
    at_nodes: Floats,
    at_dense: Floats | None,
    truth: float,
) -> Position:
    hyper = inference.hyper
    x, w = unbounded(label, at_nodes), hyper.weights
    centre = w @ x
    sd = float(np.sqrt(w @ (x - centre) ** 2))
    pit = _steps(at_nodes, w, truth)
    if hyper.surrogate is not None and at_dense is not None:
        below = (at_nodes <= truth).astype(float)[:, None]
        value, error = hyper.surrogate.expect(below, (at_dense <= truth).astype(float)[:, None])
        plain_error = hyper.weighted.per_replicate(below).std(axis=0, ddof=1) / np.sqrt(hyper.n_replicates)
        # as in a summary, the control variate serves where its error is lower; it may leave [0, 1], and then does not
        if error[0] <= plain_error[0] and 0.0 < value[0] < 1.0:
            pit = float(value[0])
    return Position(pit, sd, truth)


def _steps(x: Floats, w: Floats, truth: float) -> float:
    """Weighted CDF, linear between the midpoints of its steps."""
    order = np.argsort(x)
    x, w = x[order], w[order]
    return float(np.interp(truth, x, np.cumsum(w) - 0.5 * w))


def _resolved(pit: float, effective: float, rng: np.random.Generator) -> float:
    """Spread what lies in the outermost cells, one effective node wide, evenly over them.

    That many nodes know that F(truth) is below delta, but not whether it is 1e-4 or 1e-9, on which a test of order
    statistics would rest. A uniform F, given that it is below delta, is uniform there: the spreading is exact.
    """
    delta = 1.0 / (1.0 + effective)
    share = delta * rng.random()
    return share if pit < delta else 1.0 - share if pit > 1.0 - delta else pit
