"""How the posterior of each scale falls off: improper posteriors and moments that do not exist.

Far out, p(sd | y) falls as sd^-(1 + a). In the log coordinate the density falls linearly with
slope -a, so that two evaluations far along the axis give the tail index: a <= 0 is an improper
posterior, a <= 1 has no mean, a <= 2 no variance. Near zero, the density of log sigma must rise
with sigma; if it falls, the model fits the data exactly and the posterior piles up at zero.
"""

from __future__ import annotations

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


def check_exact_fit(target: GaussianTarget) -> None:
    """Raise if the residual variance is driven to zero by a perfect fit."""
    inner = target.inner
    at = inner.hyper.sigma_at
    if at < 0 or np.isfinite(inner.hyper.coordinates[at].support[1]):  # type: ignore[union-attr]
        return
    theta = np.repeat(target.start(0.5, 0.8)[None], 2, axis=0)
    theta[:, at] -= np.array([14.0, 16.0])
    value, _ = target.log_density(theta)
    if np.all(np.isfinite(value)) and value[0] - value[1] < -1.0:
        raise InferenceError(
            "the model fits the response exactly (the residual variance is zero), so that sigma cannot be estimated. "
            "Is the response constant within every group, or computed from the predictors? Drop terms, or give the "
            "known error with `y | se(s)`"
        )


def tail_indices(target: GaussianTarget, mode: Floats) -> dict[str, float]:
    """Tail index of each standard deviation and of sigma (inf where it is bounded or surely light).

    Raises
    ------
    PriorError
        If an improper prior leaves an improper posterior.
    """
    hyper, out = target.inner.hyper, {}
    rows: list[tuple[str, int]] = []
    for f in hyper.factors:
        for at in f.sd_at:
            if at >= 0:
                c = hyper.coordinates[at]
                assert c is not None
                heavy = not c.prior.proper or (np.isfinite(c.prior.tail_index()) and f.n_levels <= FEW_LEVELS)
                out[c.label] = np.inf
                if heavy:
                    rows.append((c.label, at))
    if hyper.sigma_at >= 0:
        c = hyper.coordinates[hyper.sigma_at]
        assert c is not None
        out[c.label] = np.inf
        if not c.prior.proper or target.inner.system.y.size <= FEW_LEVELS:
            rows.append((c.label, hyper.sigma_at))
    if not rows:
        return out
    theta = np.repeat(mode[None], 2 * len(rows), axis=0)
    for i, (_, at) in enumerate(rows):
        if np.isfinite(hyper.coordinates[at].support[1]):  # type: ignore[union-attr]
            continue
        theta[2 * i, at] += FAR
        theta[2 * i + 1, at] += FARTHER
    value, _ = target.log_density(theta)
    for i, (label, at) in enumerate(rows):
        near, far = value[2 * i], value[2 * i + 1]
        if np.isfinite(hyper.coordinates[at].support[1]) or not np.isfinite(far):  # type: ignore[union-attr]
            continue
        index = float((near - far) / (FARTHER - FAR))
        if index < 0.02:
            prior = hyper.coordinates[at].prior  # type: ignore[union-attr]
            raise PriorError(
                f"the posterior of {label} is improper: with the prior {prior} its density does not fall off "
                f"(tail index {index:.2f}). There are too few groups for an improper prior; give {label} a proper one, "
                "such as half_cauchy(scale) or half_t(3, scale)"
            )
        out[label] = index
    return out
