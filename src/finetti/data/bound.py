"""A model that has met its data: the design, the scales of its columns, and one prior for every parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from finetti.data.covariance import Covariance, check_block, kept_blocks, level_variances
from finetti.data.design import Design, build
from finetti.errors import ModelError
from finetti.model.display import board
from finetti.model.model import Model
from finetti.model.prior_keys import has_sigma
from finetti.model.priors import Prior
from finetti.model.resolve import resolve
from finetti.model.scales import Scales

__all__ = ["Bound", "Scales", "bind", "scales_of"]


@dataclass(frozen=True, eq=False, repr=False)
class Bound:
    """A model, its data, and its priors with numbers.

    Attributes
    ----------
    model : what is assumed
    design : what was observed
    scales : means and standard deviations that the default priors were made from
    priors : one for each parameter, by label ("Intercept" or "beta[Intercept]", "beta[x]", "sd_g[x]", "cor_g", "sigma")
    sources : for each of these, "default" or the key under which the user gave it
    pooling : for each grouping factor "partial", "empirical", "complete" or "none"
    error_covariance : blocks (rows, covariance) of known correlated errors, rows in the numbering of the design; None
        where all errors are independent. Rows outside the blocks have the design's standard errors.
    """

    model: Model
    design: Design
    scales: Scales
    priors: Mapping[str, Prior]
    sources: Mapping[str, str]
    pooling: Mapping[str, str]
    error_covariance: Covariance | None = None

    def __str__(self) -> str:
        return board(
            self.model.formula,
            columns=self.design.columns,
            factors=self.design.factors,
            priors=self.priors,
            sources=self.sources,
            pooling=self.pooling,
            n=len(self.design.y),
            blocks=[len(rows) for rows, _ in self.error_covariance or ()],
        )

    __repr__ = __str__


def bind(model: Model, data: Any, missing: str = "error", error_covariance: Covariance | None = None) -> Bound:
    """Return the model bound to a table.

    Parameters
    ----------
    model : Model
    data : any table that `finetti.data.frames.read` takes
    missing : "error" or "drop"
    error_covariance : tuple of (rows, covariance), optional
        Blocks of known correlated errors, rows in the numbering of the table, for a model with `y | se(s)`, whose
        s² the diagonal repeats.

    Raises
    ------
    DataError, ModelError
        See `finetti.data.design.build`.
    PriorError
        Where a key of the priors names no parameter of this design.

    Examples
    --------
    >>> bound = bind(Model("y ~ 1 + (1 | g)"), {"y": [1.0, 2.0, 6.0], "g": ["a", "a", "b"]})
    >>> bound.scales.y_mean, str(bound.priors["sigma"])
    (3.0, 'half_t(3, 2.646)')
    """
    design = build(model.formula, data, missing)
    blocks = _checked_blocks(error_covariance, design)
    scales = scales_of(design)
    if any(prior.from_errors for prior in model.priors.values()):
        scales = replace(scales, level_variances=_level_variances(design, blocks or ()))
    priors, sources = resolve(
        model,
        columns=design.columns,
        intercept=design.intercept,
        factors=[(f.name, f.coefficients, f.blocks) for f in design.factors],
        has_sigma=has_sigma(model.formula),
        scales=scales,
    )
    pooling = {f.name: model.pooling_of(f.name) for f in design.factors}
    return Bound(model, design, scales, priors, sources, pooling, blocks)


def _checked_blocks(blocks: Covariance | None, design: Design) -> Covariance | None:
    if not blocks:
        return None
    if design.se is None or design.se_sigma:
        raise ModelError(
            "A known covariance of the errors needs known standard errors that are the whole error: 'y | se(s) ~ ...'."
        )
    return kept_blocks(tuple(check_block(rows, cov) for rows, cov in blocks), design.rows) or None


def _level_variances(design: Design, blocks: Covariance) -> dict[tuple[str, str], tuple[float, ...]]:
    """For every group coefficient; empty where the errors are not known."""
    if design.se is None or design.se_sigma:
        return {}
    return {
        (f.name, c): tuple(level_variances(f.index, len(f.levels), f.Z[:, k], design.se, blocks).tolist())
        for f in design.factors
        for k, c in enumerate(f.coefficients)
    }


def scales_of(design: Design) -> Scales:
    """Return the location and spread of y - offset and of every column, in their own units.

    With known standard errors the sd of y is at least half their median: studies that happen to agree (or a single one)
    say nothing about how small an effect or its variation is, and a default prior of their spread would say otherwise.
    Without any spread it is the median itself.
    A group-level column that is constant has no sd, and its size stands in, so that its default prior still moves
    with its unit.

    >>> from finetti.model.formula import parse
    >>> design = build(parse("y ~ 1 + x"), {"y": [1e8 + 1, 1e8 + 2, 1e8 + 3], "x": [0.0, 0.0, 3.0]})
    >>> scales = scales_of(design)
    >>> scales.y_sd, scales.x_mean["x"]
    (1.0, 1.0)
    """
    y_mean, y_sd = _moments(design.y - design.offset)
    if design.se is not None:
        typical = float(np.median(design.se))
        y_sd = typical if y_sd <= 1e-13 * abs(y_mean) else max(y_sd, 0.5 * typical)
    x = {name: _moments(design.X[:, j]) for j, name in enumerate(design.columns)}
    z_sd = {}
    for factor in design.factors:
        for k, coefficient in enumerate(factor.coefficients):
            mean, sd = _moments(factor.Z[:, k])
            z_sd[factor.name, coefficient] = sd if sd > 1e-13 * abs(mean) else abs(mean)
    # a change of the weights' unit rescales sigma, and so its default prior
    weight = 1.0 if design.weights is None else float(np.exp(np.mean(np.log(design.weights))))
    return Scales(
        y_mean=y_mean,
        y_sd=y_sd,
        noise_sd=y_sd * weight**0.5,
        x_mean={name: mean for name, (mean, _) in x.items()},
        x_sd={name: sd for name, (_, sd) in x.items()},
        z_sd=z_sd,
    )


def _moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and sample sd (0 for one value) through deviations from the first value, which lose no digits at 1e8."""
    deviation = values - values[0]
    centre = float(np.mean(deviation))
    sd = float(np.sqrt(np.sum((deviation - centre) ** 2) / (len(values) - 1))) if len(values) > 1 else 0.0
    return float(values[0]) + centre, sd
