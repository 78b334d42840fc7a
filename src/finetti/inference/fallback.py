"""When importance sampling over theta does not pass its checks: NUTS, and what its draws can do for the outer step.

1. The modes are looked for again, from the nodes that carry the weight.
2. NUTS on the joint density, chains starting at every mode in turn. (On the marginal density of theta it would need
   fewer gradients, but each of them a whole elimination, and Python between: 50 times slower where it was tried.)
3. Chains do not weigh separate modes: each stays in its own. But their draws show the shape of every mode, so that a
   mixture of normals fitted to them is a new proposal, whose importance weights are right wherever the chains have
   been. If those pass the checks of the outer step, they are the answer.
4. Else the draws of theta are, if the chains agree, with the coefficients integrated out at each of them where a node
   is cheap; if they do not agree, the fit says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetti.errors import InferenceError
from finetti.inference.conditional import GaussianConditional
from finetti.inference.hyper import HyperPosterior, Progress, Settings, explore
from finetti.inference.modes import Modes, find_modes
from finetti.inference.proposal import Mixture, with_safety
from finetti.inference.sampled import Sampled, SampledConditional
from finetti.inference.sampling import integrated, sample_joint
from finetti.inference.target import GaussianTarget
from finetti.inference.warp import identity_warp
from finetti.inference.weights import log_sum_exp

__all__ = ["MOST_EXPLORED", "Found", "fall_back", "fit_mixture"]

Floats = npt.NDArray[np.float64]

# importance sampling is not tried with more hyperparameters than this
MOST_EXPLORED = 15
# nominal seconds of a node up to which thousands of them are afforded
CHEAP = 2e-3
# nodes from which modes are looked for again
CLIMBERS = 12
# components of the mixture, steps of its fit, share of it that stays with the modes' own, and its degrees of freedom
COMPONENTS, STEPS, KEPT_SHARE, DF = 6, 60, 0.2, 5.0


@dataclass(frozen=True)
class Found:
    """The posterior that takes the place of the outer step's, and why."""

    posterior: HyperPosterior
    conditional: GaussianConditional | SampledConditional
    sampled: Sampled | None
    method: str
    reason: str


def fall_back(
    target: GaussianTarget, seed: int, settings: Settings, progress: Progress | None, tried: HyperPosterior | None
) -> Found:
    """Find the posterior another way; `tried` is what importance sampling found, None where it was not tried."""
    conditional = GaussianConditional(target.inner)
    d = target.inner.hyper.d
    why = f"{d} hyperparameters are too many for importance sampling" if tried is None else _failure(tried)
    rng = np.random.default_rng(np.random.SeedSequence([seed, 9]))
    try:
        modes = _modes_again(target, rng, tried)
        weigh = tried is not None and target.cost <= CHEAP
        drawn, points, sampled = sample_joint(target, seed, settings, progress, modes, once=weigh)
    except InferenceError:
        if tried is None:
            raise
        return Found(tried, conditional, None, "exact", f"{why}; NUTS was tried and could not run")
    if weigh:
        modes = _modes_again(target, rng, drawn, modes)
        weighed = explore(target, seed, settings, progress, (modes, fit_mixture(drawn.theta, modes, rng)))
        if weighed.reliable:
            reason = f"{why} from the modes alone; proposals fitted to draws of NUTS pass it, and weigh them"
            return Found(weighed, conditional, None, "exact", reason)
        tried = weighed
        if not sampled.ok:
            drawn, points, sampled = sample_joint(target, seed, settings, progress, modes)
    if tried is not None and not sampled.ok:
        return Found(tried, conditional, None, "exact", f"{why}; NUTS was tried and did not pass its checks either")
    if target.cost > CHEAP:
        return Found(drawn, points, sampled, "nuts", f"{why}; NUTS sampled them jointly with all coefficients")
    posterior, sampled = integrated(target, drawn, sampled, settings)
    reason = f"{why}; their nodes are draws of NUTS, and all coefficients are integrated out exactly at each"
    return Found(posterior, conditional, sampled, "nuts (marginal)", reason)


def _failure(tried: HyperPosterior) -> str:
    if not tried.pareto_k < tried.threshold:
        return f"importance sampling failed its check (Pareto k {tried.pareto_k:.2f}, limit {tried.threshold:.2f})"
    return "importance sampling did not reach its error target"


def _modes_again(
    target: GaussianTarget, rng: np.random.Generator, nodes: HyperPosterior | None, known: Modes | None = None
) -> Modes:
    """Modes from the usual starts or those known, and from nodes that carry the weight."""
    starts = target.starts() if known is None else known.theta
    if nodes is not None:
        picked = nodes.theta[rng.choice(nodes.n_nodes, size=CLIMBERS, p=nodes.weights)]
        starts = np.concatenate([starts, picked])
    return find_modes(target.gradient, starts, target.curvature())


def fit_mixture(draws: Floats, modes: Modes, rng: np.random.Generator) -> Mixture:
    """A mixture of t whose shape is that of the draws (S, d), whatever their shares, with one component per mode.

    Normal components by expectation-maximisation, started at random draws; what is found is scaled to a t.
    """
    S, d = draws.shape
    unit = draws.std(axis=0) + 1e-300
    x = (draws - draws.mean(axis=0)) / unit
    K = int(np.clip(S // (20 * d), 1, COMPONENTS))
    ridge = 1e-6 * np.eye(d)
    # far apart: each next centre is the draw farthest from those before
    centre = [x[rng.integers(S)]]
    for _ in range(K - 1):
        centre.append(x[np.argmax(np.min([np.sum((x - c) ** 2, axis=1) for c in centre], axis=0))])
    mean, share = np.array(centre), np.full(K, 1.0 / K)
    near = np.argmin([np.sum((x - c) ** 2, axis=1) for c in mean], axis=0)
    resp = np.eye(K)[near]
    cov = np.tile(np.eye(d), (K, 1, 1))
    for _ in range(STEPS):
        mass = resp.sum(axis=0) + 1e-9
        share = mass / mass.sum()
        mean = (resp.T @ x) / mass[:, None]
        gap = x[:, None] - mean
        cov = np.einsum("sk,ski,skj->kij", resp, gap, gap) / mass[:, None, None] + ridge
        cov[mass < 2.0 * d] = np.eye(d)  # a component of hardly any draws is none
        root = np.linalg.cholesky(cov)
        z = np.stack([np.linalg.solve(root[k], gap[:, k].T) for k in range(K)], axis=0)
        log_p = (
            np.log(share) - 0.5 * np.sum(z**2, axis=1).T - np.sum(np.log(np.diagonal(root, axis1=1, axis2=2)), axis=1)
        )
        resp = np.exp(log_p - log_sum_exp(log_p)[:, None])
    means = np.concatenate([mean * unit + draws.mean(axis=0), modes.theta])
    scales = np.concatenate([unit[:, None] * np.linalg.cholesky(cov), np.linalg.cholesky(modes.covariance)])
    scales *= np.sqrt((DF - 2.0) / DF)
    M = len(modes.theta)
    weights = np.concatenate([(1.0 - KEPT_SHARE) * np.maximum(share, 0.02), np.full(M, KEPT_SHARE / M)])
    return with_safety(means, scales, weights, DF, identity_warp(d))
