"""How the posterior of each scale falls off: improper posteriors and moments that do not exist.

Far out, p(sd | y) falls as sd^-(1 + a). In the log coordinate the density falls linearly with
slope -a, so that two evaluations far along the axis give the tail index: a <= 0 is an improper
posterior, a <= 1 has no mean, a <= 2 no variance. Near zero, the density of log sigma must rise
with sigma; if it falls, the model fits the data exactly and the posterior piles up at zero.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt

from finetti.errors import InferenceError, PriorError
from finetti.inference.target import GaussianTarget

__all__ = ["check_exact_fit", "tail_indices"]

Floats = npt.NDArray[np.float64]

# log-distances from an ordinary value at which the tail is taken as reached
FAR, FARTHER = 11.0, 15.0
# below this many levels a tail can be heavy enough to matter (its index grows with the levels)
FEW_LEVELS = 15
# scales with improper priors up to which every subset is looked at
MOST_TOGETHER = 6


def check_exact_fit(target: GaussianTarget) -> None:
    """Raise if the residual variance is driven to zero by a perfect fit."""
    inner = target.inner
    at = inner.hyper.sigma_at
    if at < 0:
        return
    # sigma alone: an exact fit by groups and predictors; with the groups' sds: by the predictors alone
    scales = [sd for f in inner.hyper.factors for sd in f.sd_at if sd >= 0]
    theta = np.repeat(target.start(0.5, 0.8)[None], 4, axis=0)
    theta[:, at] -= np.array([14.0, 16.0, 14.0, 16.0])
    theta[2:, scales] -= np.array([[14.0], [16.0]])
    value, _ = target.log_density(theta)
    near, far = value[::2], value[1::2]
    if any(np.isfinite(n) and np.isfinite(f) and f - n > 1.0 for n, f in zip(near, far, strict=True)):
        raise InferenceError(
            "the model fits the response exactly (to within 1e-6 of its spread), so that sigma cannot be estimated. "
            "Is the response constant within every group, or computed from the predictors? Drop terms, or give the "
            "known error with `y | se(s)`"
        )


def tail_indices(target: GaussianTarget) -> tuple[dict[str, float], Floats]:
    """Tail indices of each scale and of each population coefficient (inf where surely light).

    Returns
    -------
    dict
        Of each standard deviation and of sigma, by label.
    ndarray of shape (p,)
        Of each coefficient: it inherits the tail of a scale if its conditional variance grows with it.

    Raises
    ------
    PriorError
        If an improper prior leaves an improper posterior.
    """
    hyper = target.inner.hyper
    groups = [(at, f.n_levels) for f in hyper.factors for at in f.sd_at if at >= 0]
    if hyper.sigma_at >= 0:
        groups.append((hyper.sigma_at, target.inner.system.y.size))
    out: dict[str, float] = {}
    coefficients = np.full(len(target.inner.bound.design.columns), np.inf)
    axes: list[tuple[str, list[int]]] = []
    improper: list[int] = []
    for at, n in groups:
        c = hyper.coordinates[at]
        assert c is not None
        out[c.label] = np.inf
        if np.isfinite(c.support[1]):
            continue
        if not c.prior.proper:
            improper.append(at)
        if not c.prior.proper or (np.isfinite(c.prior.tail_index()) and n <= FEW_LEVELS):
            axes.append((c.label, [at]))
    # they may be improper only together: each two, ..., all of them (of very many, each two and all)
    sizes = range(2, len(improper) + 1) if len(improper) <= MOST_TOGETHER else (2, len(improper))
    for together in (list(some) for size in sizes for some in combinations(improper, size)):
        axes.append((" and ".join(hyper.names[at] for at in together), together))
    if not axes:
        return out, coefficients
    theta = np.repeat(target.start(0.5, 0.8)[None], 2 * len(axes), axis=0)
    for i, (_, move) in enumerate(axes):
        theta[2 * i, move] += FAR
        theta[2 * i + 1, move] += FARTHER
    value, (_, variance) = target.log_density(theta)
    for i, (label, move) in enumerate(axes):
        near, far = value[2 * i], value[2 * i + 1]
        if not np.isfinite(far):
            continue
        # rounded: at this distance the slope has reached its limit to a few parts in 1e5
        index = round(float((near - far) / (FARTHER - FAR)), 3)
        if index < 0.02:
            priors = ", ".join(str(hyper.coordinates[at].prior) for at in move)  # type: ignore[union-attr]
            raise PriorError(
                f"the posterior of {label} is improper: with the prior {priors} its density does not fall off "
                f"(tail index {index:.2f}). There are too few groups for an improper prior: beside flat coefficients, "
                "uniform() and flat() need at least two groups more than coefficients, jeffreys() one more. Give "
                f"{hyper.names[move[0]]} a proper one, such as half_cauchy(scale) or half_t(3, scale)"
            )
        if len(move) == 1:
            out[label] = index
            # proportional to the squared scale it would grow by e^8
            grows = variance[2 * i + 1] > 100.0 * variance[2 * i]
            coefficients[grows] = np.minimum(coefficients[grows], index)
    return out, coefficients
