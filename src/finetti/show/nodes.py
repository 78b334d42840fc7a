"""What figures of the hyperparameters read: each one's weighted values, its prior, and its meaning in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from finetti.errors import FinettiError
from finetti.model.priors import Fixed, Lkj, Prior, sd_logpdf
from finetti.posterior.draws import GOOD_SURROGATE
from finetti.show.density import bounded_density
from finetti.show.numbers import plural
from finetti.show.reading import is_meta
from finetti.show.style import shortened, text_width, wrapped

__all__ = ["Hyperparameter", "hyperparameters", "response_of"]

Floats = npt.NDArray[np.float64]

ESTIMATED = "estimated, not integrated: the maximum of the marginal likelihood"


@dataclass(frozen=True)
class Hyperparameter:
    """One standard deviation or correlation.

    Attributes
    ----------
    label : as in `summary`
    meaning : what it is, with its unit
    prior : its prior; `dimensions` is the size of the correlation matrix it is part of, 0 for a standard deviation
    held : "" if it was integrated over, else in words why it has one value
    x, weights : (S,) points of the posterior; weights sum to one, and a few may be negative (see `hyperparameters`)
    """

    label: str
    meaning: str
    prior: Prior | None
    dimensions: int
    held: str
    x: Floats
    weights: Floats

    @property
    def is_correlation(self) -> bool:
        """Whether it is a correlation, between -1 and 1."""
        return self.dimensions > 0

    @property
    def positive_at_ends(self) -> bool:
        """Whether the posterior density is finite and positive where the range ends.

        The likelihood is, as a function of the parameter, so that the prior decides.
        """
        low, high = self.ends
        top = high if np.isfinite(high) else low + float(np.median(self.x) - low) or 1.0
        near = self.prior_density(low + np.array([1e-6, 1e-3]) * (top - low)) if self.prior is not None else np.ones(2)
        return bool(np.all(near > 0.0) and 0.5 < near[0] / near[1] < 2.0)

    def lines(self, size: float, room: float, bold: bool = False) -> list[str]:
        """The label on lines of at most `room` points, broken before its bracket where it does not fit on one."""
        label = shortened(self.label, 60)
        if text_width(label, size, bold) <= room:
            return [label]
        name, bracket, rest = label.partition("[")
        return wrapped(name, size, room, bold) + (wrapped(bracket + rest, size, room, bold) if bracket else [])

    def density(self, at: Floats) -> Floats:
        """Posterior density at the points `at`."""
        return bounded_density(self.x, self.weights, at, *self.ends, reflect=self.positive_at_ends)

    @property
    def ends(self) -> tuple[float, float]:
        """The parameter's own range."""
        if self.is_correlation:
            return -1.0, 1.0
        low, high = self.prior.support if self.prior is not None and not self.prior.on_variance else (0.0, np.inf)
        return max(low, 0.0), high

    def prior_density(self, x: Floats) -> Floats:
        """Prior density at x; of an improper prior only its shape.

        One correlation of a q x q matrix under lkj(eta) is 2 Beta(a, a) - 1, a = eta - 1 + q / 2.
        """
        assert self.prior is not None
        if not self.is_correlation:
            with np.errstate(over="ignore"):
                return np.exp(sd_logpdf(self.prior, x))
        from scipy.special import betaln

        eta = float(self.prior.eta) if isinstance(self.prior, Lkj) else 1.0
        a = eta - 1.0 + 0.5 * self.dimensions
        with np.errstate(divide="ignore", invalid="ignore"):
            log_density = (a - 1.0) * np.log((1.0 - x) * (1.0 + x)) - (2.0 * a - 1.0) * np.log(2.0) - betaln(a, a)
        return np.where(np.abs(x) < 1.0, np.exp(log_density), 0.0)


def response_of(fit: Any) -> str:
    """What the numbers are called: the response of the formula, or the effect of a meta-analysis."""
    return str(fit.effect_name if is_meta(fit) else fit.model.model.formula.response.expression)


def hyperparameters(fit: Any, *, smooth: bool = True) -> list[Hyperparameter]:
    """Every standard deviation and correlation of a fit, in the order of `summary`.

    Parameters
    ----------
    fit : Fit
    smooth : bool
        Whether a good surrogate may carry the weight, for a density without the roughness of nodes.

    Raises
    ------
    FinettiError
        If the model has none.
    """
    inference = fit.inference
    hyper, coordinates, bound = inference.hyper, inference.coordinates, inference.bound
    surrogate = hyper.surrogate
    at_nodes, weights = coordinates.natural(hyper.theta), hyper.weights
    values = at_nodes
    if smooth and surrogate is not None and surrogate.residual_sd < GOOD_SURROGATE:
        # E f = mean of f s over dense points + mean of f (w - s) over nodes: what the surrogate misses is put back,
        # some of it with negative weight
        dense = coordinates.natural(surrogate.theta)
        values = {label: np.concatenate([dense[label], at_nodes[label]]) for label in at_nodes}
        weights = np.concatenate([surrogate.dense / surrogate.dense.size, surrogate.residual / surrogate.residual.size])
        weights = weights / weights.sum()
    if not values:
        raise FinettiError(
            f"{bound.model.formula!s} has no hyperparameters to draw: no standard deviation of groups or residuals "
            "is part of it. Fit a model with a term such as (1 | group)"
        )
    response = shortened(response_of(fit))
    out = []
    for factor in coordinates.factors:
        group = shortened(factor.name)
        held = ESTIMATED if factor.held is not None else ""
        labels = list(factor.labels())
        for k, label in enumerate(labels[: factor.q]):
            meaning = f"sd between {group} groups, in units of {response}"
            if is_meta(fit):
                meaning = f"sd of true effects between {plural(2, group)[2:]}, in units of {response}"
            if factor.coefficients[k] != "Intercept":
                meaning = f"sd of {shortened(factor.coefficients[k])} between {group} groups, in {response} per unit"
            out.append(_one(label, meaning, bound.priors.get(label), 0, held, values[label], weights))
        at = factor.q
        for block in factor.blocks:
            q = len(block.members)
            for label in labels[at : at + q * (q - 1) // 2]:
                i, j = _pair(label, factor, block)
                meaning = f"correlation of {shortened(i, 20)} and {shortened(j, 20)} across {group} groups"
                prior = bound.priors.get(f"cor_{factor.name}")
                out.append(_one(label, meaning, prior, q, held, values[label], weights))
            at += q * (q - 1) // 2
    if "sigma" in values:
        held = ESTIMATED if inference.estimate and coordinates.sigma_at < 0 else ""
        meaning = f"residual sd, in units of {response}"
        out.append(_one("sigma", meaning, bound.priors.get("sigma"), 0, held, values["sigma"], weights))
    return [h for h in out if h.label in values]


def _pair(label: str, factor: Any, block: Any) -> tuple[str, str]:
    """The two coefficients of a correlation's label, found by writing every label, never by parsing one."""
    names = [factor.coefficients[m] for m in block.members]
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            if label == f"cor_{factor.name}[{first}, {second}]":
                return first, second
    raise AssertionError(label)


def _one(
    label: str, meaning: str, prior: Prior | None, dimensions: int, held: str, x: Floats, weights: Floats
) -> Hyperparameter:
    if isinstance(prior, Fixed) and not held:
        held = f"held by its prior, {prior}"
    if not held and np.ptp(x) == 0.0:
        held = "held at one value"
    return Hyperparameter(label, meaning, prior, dimensions, held, x, weights)
