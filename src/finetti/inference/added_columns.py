"""More population columns beside those of a model, at the hyperparameter nodes of the model without them.

The slopes of the new columns have the default prior of slopes, normal(0, 2.5 sd(y) / sd(column)), and are integrated
out like all other coefficients, so that the nodes of the smaller model serve: log p(y | theta, with columns) weighs
them, and given theta the slopes are normal.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from finetti.inference.gaussian import GaussianInner
from finetti.linalg.blas import single_threaded
from finetti.model.priors import Normal
from finetti.model.resolve import COEFFICIENT_WIDTH

if TYPE_CHECKING:
    from finetti.data.bound import Bound
    from finetti.inference.hyperparameters import Hyperparameters

__all__ = ["added_slopes", "with_columns"]

Floats = npt.NDArray[np.float64]


def with_columns(bound: Bound, new: Floats) -> Bound:
    """Return the model with more population columns (n, r), their priors those that slopes have by default."""
    design, scales = bound.design, bound.scales
    labels = tuple(f"(tested {i})" for i in range(new.shape[1]))
    mean, sd = new.mean(axis=0), new.std(axis=0, ddof=1)
    sd = np.where(sd > 0.0, sd, np.abs(mean))  # a level that is all of the data
    priors = {
        f"beta[{label}]": Normal(0.0, COEFFICIENT_WIDTH * scales.y_sd / float(s))
        for label, s in zip(labels, sd, strict=True)
    }
    return replace(
        bound,
        design=replace(
            design, X=np.ascontiguousarray(np.hstack([design.X, new])), columns=(*design.columns, *labels),
        ),
        scales=replace(
            scales,
            x_mean={**scales.x_mean, **dict(zip(labels, mean.tolist(), strict=True))},
            x_sd={**scales.x_sd, **dict(zip(labels, sd.tolist(), strict=True))},
        ),
        priors={**bound.priors, **priors},
        sources={**bound.sources, **dict.fromkeys(priors, "default")},
    )  # fmt: skip


def added_slopes(bound: Bound, hyper: Hyperparameters, theta: Floats, r: int) -> tuple[Floats, Floats, Floats]:
    """log p(y | theta) (S,), means (S, r) and covariances (S, r, r) of the last r population coefficients.

    Parameters
    ----------
    bound : the model with r columns added by `with_columns`
    hyper : what theta means, as of the model that the nodes are from: held values and units of explored coefficients
    theta : (S, d)
    """
    inner = replace(GaussianInner.build(bound), hyper=hyper)
    with np.errstate(all="ignore"), single_threaded():
        points = inner.points(theta)
        ev = inner.system.evaluate(points)
        log_p = inner.node_values(points, ev).log_marginal
    mean = inner.basis.beta_mean(ev.x_mean, points.fixed)[:, -r:]
    T = inner.basis.T[-r:]
    good = np.isfinite(ev.quadratic)
    half = np.full((len(points), r, T.shape[1]), np.nan)
    U = ev.x_chol[good]
    half[good] = np.swapaxes(np.linalg.solve(np.swapaxes(U, 1, 2), np.broadcast_to(T.T, (len(U), *T.T.shape))), 1, 2)
    return log_p, mean, half @ np.swapaxes(half, 1, 2) * points.sigma2[:, None, None]
