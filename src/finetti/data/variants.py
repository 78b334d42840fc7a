"""The same model on other data: another response, fewer rows, another pooling, other priors.

Priors stay as they were resolved for the original data, the covariate means that the prior of the intercept refers to
included: a refit answers what the same prior knowledge says of other data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from finetti.data.bound import Bound
from finetti.data.covariance import kept_blocks
from finetti.data.design import Factor
from finetti.errors import DataError, ModelError, available
from finetti.model.priors import Prior

__all__ = ["with_pooling", "with_priors", "with_response", "without_rows"]

Floats = npt.NDArray[np.float64]


def with_response(bound: Bound, y: Floats) -> Bound:
    """Return the model with another response y (n,), in the units of the old one."""
    y = np.ascontiguousarray(y, dtype=np.float64)
    if y.shape != bound.design.y.shape or not np.all(np.isfinite(y)):
        raise DataError(f"a response of shape {y.shape} does not fit {bound.design.y.size} rows, or is not finite")
    return replace(bound, design=replace(bound.design, y=y, used={}, table=None, warnings=()))


def without_rows(bound: Bound, rows: npt.NDArray[np.int64]) -> Bound:
    """Return the model without some rows (positions in the design); levels that have no row left leave with them.

    Raises
    ------
    DataError
        If no row is left.
    """
    design = bound.design
    stay = np.ones(design.y.size, dtype=bool)
    stay[rows] = False
    if not stay.any():
        raise DataError("without these rows there are no data left")
    at = np.flatnonzero(stay)
    factors = []
    for f in design.factors:
        used, index = np.unique(f.index[at], return_inverse=True)
        levels = tuple(f.levels[j] for j in used)
        Z = np.ascontiguousarray(f.Z[at])
        factors.append(Factor(f.name, levels, index.ravel().astype(np.int64), f.coefficients, Z, f.blocks))
    covariance = kept_blocks(bound.error_covariance, at) if bound.error_covariance else None
    smaller = replace(
        design,
        y=design.y[at],
        offset=design.offset[at],
        X=np.ascontiguousarray(design.X[at]),
        factors=tuple(factors),
        se=None if design.se is None else design.se[at],
        weights=None if design.weights is None else design.weights[at],
        rows=design.rows[at],
        used={},
        table=None,
        warnings=(),
    )
    return replace(bound, design=smaller, error_covariance=covariance or None)


def with_pooling(bound: Bound, pooling: str | Mapping[str, str]) -> Bound:
    """Return the model with another pooling of all terms, or of those named.

    Raises
    ------
    ModelError
        For a term that the model does not have.
    """
    names = list(bound.pooling)
    if isinstance(pooling, str):
        return replace(bound, model=replace(bound.model, pooling=pooling), pooling=dict.fromkeys(names, pooling))
    for name in pooling:
        if name not in names:
            raise ModelError(f"{name!r} is not a grouping term of this model; {available(name, names)}")
    kinds = {**bound.pooling, **pooling}
    return replace(bound, model=replace(bound.model, pooling=kinds), pooling=kinds)


def with_priors(bound: Bound, priors: Mapping[str, Prior]) -> Bound:
    """Return the model with other priors for some labels of `Bound.priors`."""
    for label in priors:
        if label not in bound.priors:
            raise ModelError(f"{label!r} has no prior in this model; {available(label, list(bound.priors))}")
    return replace(
        bound, priors={**bound.priors, **priors}, sources={**bound.sources, **dict.fromkeys(priors, "alternative")}
    )
