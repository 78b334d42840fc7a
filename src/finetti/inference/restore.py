"""A stored posterior meets its model again: the conditional distributions are built anew, and checked.

Nodes, weights and draws of theta are numbers and are stored as such. b | theta, y is a function of the data
and is not: the inner step is built again from them, and must return at the heaviest nodes what it returned
when the fit was made. Another machine's arithmetic moves the last digits; more than that means other data
or another way of computing, and is refused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from finetti.errors import InferenceError
from finetti.inference.conditional import GaussianConditional
from finetti.inference.gaussian import GaussianInner
from finetti.inference.hyper import HyperPosterior
from finetti.inference.hyperparameters import Hyperparameters
from finetti.inference.sampled import Sampled, SampledConditional
from finetti.linalg.blas import single_threaded

if TYPE_CHECKING:
    from finetti.data.bound import Bound

__all__ = ["conditional_again"]

# how far a coefficient may move, in conditional sds, before the stored nodes count as another model's
LARGEST_MOVE = 1e-5
CHECKED_NODES = 2
# draws scatter around the conditional mean: their mean squared distance, about 1, over this many of them
LARGEST_SQUARE, CHECKED_DRAWS = 10.0, 100


def conditional_again(
    bound: Bound, coordinates: Hyperparameters, hyper: HyperPosterior, sampled: Sampled | None
) -> GaussianConditional | SampledConditional:
    """Build b | theta, y of a stored fit.

    Parameters
    ----------
    bound : Bound
        The model, bound to the stored data.
    coordinates : Hyperparameters
        What theta means, as stored: some hyperparameters may be held at an estimate.
    hyper : HyperPosterior
        The stored nodes, their payload being means and variances (S, p) of the population coefficients.
    sampled : Sampled or None
        With coefficients, if the nodes are joint draws of NUTS.

    Raises
    ------
    InferenceError
        If the inner step no longer returns what is stored, or the draws are not from its neighbourhood.
    """
    drawn = sampled is not None and sampled.beta is not None and sampled.u is not None
    S = hyper.n_nodes
    at = (
        np.linspace(0, S - 1, min(S, CHECKED_DRAWS)).astype(int)
        if drawn
        else np.argsort(hyper.weights)[-CHECKED_NODES:]
    )
    with single_threaded():
        inner = replace(GaussianInner.build(bound), hyper=coordinates)
        again = inner.values(np.ascontiguousarray(hyper.theta[at]))
    mean, variance = hyper.payload[0][at], hyper.payload[1][at]
    unit = np.sqrt(again.beta_var) + 1e-6 * np.abs(again.beta_mean) + 1e-300
    with np.errstate(invalid="ignore"):
        move = (mean - again.beta_mean) / unit
        if drawn:
            wrong = bool(move.size) and np.mean(np.nan_to_num(move) ** 2) > LARGEST_SQUARE
        else:
            gap = np.abs(variance - again.beta_var) / np.maximum(again.beta_var, 1e-300)
            wrong = max(np.nanmax(np.abs(move), initial=0.0), np.nanmax(gap, initial=0.0)) > LARGEST_MOVE
    if wrong:
        raise InferenceError(
            "the stored data and hyperparameters no longer give the stored coefficients: the file was changed, or this "
            "version of finetti computes this model differently; fit the model again"
        )
    exact = GaussianConditional(inner)
    if sampled is None or sampled.beta is None or sampled.u is None:
        return exact
    return SampledConditional(exact, hyper.theta, sampled.beta, sampled.u)
