"""`infer`: chooses how, and returns one object whatever the model.

"auto" takes the exact inner step with the outer step of `hyper`, and where that does not pass its own checks, or has
too many dimensions, what `fallback` finds; "exact" never falls back; "nuts" samples everything jointly. Pooling
"empirical" takes the maximum of the marginal likelihood instead of integrating over it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from finetti.errors import InferenceError, NotBuiltError, available
from finetti.inference.conditional import GaussianConditional
from finetti.inference.empirical import PointEstimate, maximise
from finetti.inference.fallback import MOST_EXPLORED, fall_back
from finetti.inference.gaussian import GaussianInner
from finetti.inference.hyper import HyperPosterior, Progress, Settings, explore, single_node
from finetti.inference.hyperparameters import Hyperparameters
from finetti.inference.sampled import Sampled, SampledConditional
from finetti.inference.sampling import sample_joint
from finetti.inference.tails import check_exact_fit, tail_indices
from finetti.inference.target import GaussianTarget
from finetti.linalg.blas import single_threaded

if TYPE_CHECKING:
    from finetti.data.bound import Bound

Floats = npt.NDArray[np.float64]

__all__ = ["METHODS", "Inference", "infer"]

METHODS = ("auto", "exact", "nuts")
DESIGNED = ("laplace", "gibbs")


@dataclass(frozen=True)
class Inference:
    """The posterior as nodes, and the conditional distributions at them.

    hyper : weighted nodes of theta; payload (beta mean (S, p), beta variance (S, p))
    coordinates : what theta means
    conditional : b | theta, y
    method, reason : what was done and why
    tails : tail index of each scale parameter (moments of order below it exist)
    coefficient_tails : (p,) tail index that each population coefficient inherits
    estimate : the maximum, where hyperparameters were estimated and not integrated
    sampled : how the chains ran, where the nodes are draws of NUTS
    seconds : wall time of the inference
    """

    bound: Bound
    hyper: HyperPosterior
    coordinates: Hyperparameters
    conditional: GaussianConditional | SampledConditional
    method: str
    reason: str
    tails: dict[str, float]
    coefficient_tails: Floats
    estimate: PointEstimate | None
    dear: bool  # whether a node costs so much that few are used
    seconds: float
    sampled: Sampled | None = None


def infer(
    bound: Bound,
    method: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
    settings: Settings | None = None,
    near: Floats | None = None,
) -> Inference:
    """Compute the posterior of a bound model.

    Parameters
    ----------
    bound : Bound
    method : "auto", "exact" or "nuts"
    seed : int
        Scramblings of the Sobol points; the same seed gives the same numbers.
    progress : callable (stage, done, total), optional
    settings : Settings, optional
        Error targets of the outer step.
    near : (d,), optional
        Where the maximum of the marginal likelihood is looked for, in coordinates of the model with partial pooling.

    Raises
    ------
    NotBuiltError
        For a method of the design that is not built yet.
    InferenceError, PriorError, ModelError
        If the posterior is improper, the fit exact, or coefficients are not identified.
    """
    if method in DESIGNED:
        raise NotBuiltError(f"method={method!r} is part of the design, but it is not built yet; use 'auto' or 'exact'")
    if method not in METHODS:
        raise InferenceError(f"method={method!r} is not known; {available(str(method), METHODS)}")
    # one BLAS thread: our own run over nodes, and on a busy machine two BLAS threads wait for each other
    with single_threaded():
        return _infer(bound, method, seed, progress, settings or Settings(), near)


def _infer(
    bound: Bound, method: str, seed: int, progress: Progress | None, settings: Settings, near: Floats | None
) -> Inference:
    began = time.perf_counter()
    inner = GaussianInner.build(bound)
    target = GaussianTarget(inner)
    inner.check(target.start(0.5, 0.8)[None])
    check_exact_fit(target)
    kinds = [f.pooling for f in inner.hyper.factors if f.modelled]
    estimate = None
    if "empirical" in kinds or (not kinds and bound.model.pooling == "empirical"):
        if progress:
            progress("maximising the marginal likelihood", 0, None)
        estimate = maximise(inner, near)
        everything = "partial" not in kinds
        held = {i: L for i, L in enumerate(estimate.factors) if inner.hyper.factors[i].pooling == "empirical"}
        hyper = inner.hyper.hold(held, estimate.sigma if everything else None, estimate.given if everything else None)
        inner = replace(inner, hyper=hyper)
        target = GaussianTarget(inner)
    d = inner.hyper.d
    tails: dict[str, float] = {}
    coefficient_tails = np.full(len(bound.design.columns), np.inf)
    if d:  # before the search: an improper posterior has no mode to find
        tails, coefficient_tails = tail_indices(target)
    conditional: GaussianConditional | SampledConditional = GaussianConditional(inner)
    sampled = None
    if method == "nuts":
        posterior, conditional, sampled = sample_joint(target, seed, settings, progress)
        used, reason = "nuts", _asked(d)
    elif d == 0:
        posterior = _single(target)
        used, reason = ("empirical", _EMPIRICAL) if estimate else ("exact", _NOTHING_FREE)
    else:
        used, reason = "exact", _integrated(d)
        if method == "exact" or d <= MOST_EXPLORED:
            posterior = explore(target, seed, settings, progress)
        if method == "auto" and (d > MOST_EXPLORED or not posterior.reliable):
            found = fall_back(target, seed, settings, progress, posterior if d <= MOST_EXPLORED else None)
            posterior, conditional, sampled = found.posterior, found.conditional, found.sampled
            used, reason = found.method, found.reason
    if estimate and d:
        reason += "; terms with empirical pooling are held at the maximum of the marginal likelihood"
    if progress:
        progress("done", 1, 1)
    return Inference(
        bound, posterior, inner.hyper, conditional, used, reason, tails, coefficient_tails, estimate,
        target.cost > settings.dear, time.perf_counter() - began, sampled,
    )  # fmt: skip


_EMPIRICAL = "empirical Bayes: hyperparameters at the maximum of the marginal likelihood, coefficients given them exact"
_NOTHING_FREE = "no free hyperparameters: the posterior of the coefficients is Gaussian and exact"


def _single(target: GaussianTarget) -> HyperPosterior:
    theta = np.zeros((1, 0))
    log_density, payload = target.log_density(theta)
    return single_node((), theta, payload, float(log_density[0]))


def _integrated(d: int) -> str:
    return "all coefficients are Gaussian given the hyperparameters and are integrated out exactly; " + (
        f"the {d} hyperparameters are explored by importance sampling"
        if d > 1
        else "the hyperparameter is explored by importance sampling"
    )


def _asked(d: int) -> str:
    what = f"the {d} hyperparameters and all coefficients" if d > 1 else "all parameters"
    return f"asked for: {what} are sampled jointly by the No-U-Turn sampler, none integrated out"
