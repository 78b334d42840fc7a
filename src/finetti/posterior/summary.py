"""Table of the population coefficients and hyperparameters: mixture moments, not averages of draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.errors import FinettiError
from finetti.inference.infer import Inference
from finetti.posterior.mixtures import mixture_moments, mixture_quantiles

__all__ = ["check_probs", "quantile_names", "summarise"]

Floats = npt.NDArray[np.float64]
Map = Callable[[Floats], Floats]


def check_probs(probs: npt.ArrayLike) -> Floats:
    """Probabilities as an array, strictly between 0 and 1."""
    try:
        p = np.atleast_1d(np.asarray(probs, dtype=float))
    except (TypeError, ValueError):
        raise FinettiError(f"probs={probs!r} is not a sequence of numbers; give such as (0.05, 0.5, 0.95)") from None
    if p.ndim == 1 and (p.size == 0 or len(set(quantile_names(p))) < p.size):
        raise FinettiError(f"probs={probs!r} must name at least one probability, and none of them twice")
    if p.ndim != 1 or not np.all((p > 0.0) & (p < 1.0)):
        raise FinettiError(f"probs must lie strictly between 0 and 1, such as (0.05, 0.5, 0.95); given {probs!r}")
    return p


def quantile_names(probs: Floats) -> list[str]:
    """Column names q5, q50, q97.5 of quantiles."""
    return [f"q{100 * p:g}" for p in probs]


def summarise(inference: Inference, probs: npt.ArrayLike) -> pd.DataFrame:
    """Rows beta[...], sd_g[...], cor_g[...], sigma; columns mean, sd, quantiles, ess, mcse."""
    p = check_probs(probs)
    labels, rows = _population(inference, p)
    more, more_rows = _hyperparameters(inference, p)
    frame = pd.DataFrame(
        np.array(rows + more_rows).reshape(-1, 4 + p.size),
        index=pd.Index(labels + more, name="parameter"),
        columns=["mean", "sd", *quantile_names(p), "ess", "mcse"],
    )
    return frame


def _ess(sd: float, mcse: float) -> float:
    # an error at the level of rounding is none: the value is exact
    return float((sd / mcse) ** 2) if mcse > 1e-8 * sd and np.isfinite(sd) else np.nan


def _population(inference: Inference, p: Floats) -> tuple[list[str], list[list[float]]]:
    hyper, coords = inference.hyper, inference.coordinates
    mean, variance = hyper.payload
    columns = inference.bound.design.columns
    centre, sd = mixture_moments(hyper.weights, mean, variance)
    quantiles = mixture_quantiles(hyper.weights, mean, variance, p)
    point = hyper.n_nodes == 1
    errors = np.zeros(len(columns)) if point else _replicate_error(inference, mean)
    given = {label for label, at, _ in coords.given if at >= 0}
    held = {label: value for label, at, value in coords.given if at < 0}
    rows = []
    for k, column in enumerate(columns):
        label = f"beta[{column}]"
        key = label if label in given else ("Intercept" if column == "Intercept" and "Intercept" in given else None)
        if label in held and np.all(variance[:, k] == 0.0):
            rows.append([held[label], 0.0, *([held[label]] * p.size), np.nan, 0.0])
            continue
        if key is not None and np.all(variance[:, k] == 0.0):  # a coefficient explored with theta
            at_nodes = mean[:, k]
            dense = None
            if hyper.surrogate is not None:
                dense = inference.conditional.explored_beta(hyper.surrogate.theta)[:, k]
            rows.append(_scalar(inference, at_nodes, dense, p))
            continue
        m, s = float(centre[k]), float(sd[k])
        index = float(inference.coefficient_tails[k])
        if index <= 2.0:
            s, m = np.nan, (m if index > 1.0 else np.nan)
        rows.append([m, s, *quantiles[k], _ess(float(sd[k]), float(errors[k])), float(errors[k])])
    return [f"beta[{c}]" for c in columns], rows


def _replicate_error(inference: Inference, values: Floats) -> Floats:
    hyper = inference.hyper
    return hyper.weighted.per_replicate(values).std(axis=0, ddof=1) / np.sqrt(hyper.n_replicates)


def _same(x: Floats) -> Floats:
    return x


def _scalar(
    inference: Inference, at_nodes: Floats, at_dense: Floats | None, p: Floats, correlation: bool = False
) -> list[float]:
    """One function of theta."""
    hyper = inference.hyper
    if hyper.n_nodes == 1:
        value = float(at_nodes[0])
        return [value, 0.0, *([value] * p.size), np.nan, 0.0]
    if np.ptp(at_nodes) == 0.0:  # held at a value
        return [float(at_nodes[0]), 0.0, *([float(at_nodes[0])] * p.size), np.nan, 0.0]
    weighted = hyper.weighted
    dense = None if at_dense is None else at_dense[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        mean, sd, error, _ = weighted.moments(at_nodes[:, None], dense)
    # quantiles on an unbounded scale, where a correction cannot leave the parameter's range
    to: Map = np.log if np.all(at_nodes > 0) else _same
    back: Map = np.exp if np.all(at_nodes > 0) else _same
    if correlation:
        to, back = np.arctanh, np.tanh
    with np.errstate(divide="ignore"):
        quantiles, _ = weighted.quantiles(to(at_nodes), None if at_dense is None else to(at_dense), p)
    quantiles = back(np.maximum.accumulate(quantiles[np.argsort(p)])[np.argsort(np.argsort(p))])
    return [float(mean[0]), float(sd[0]), *quantiles, _ess(float(sd[0]), float(error[0])), float(error[0])]


def _hyperparameters(inference: Inference, p: Floats) -> tuple[list[str], list[list[float]]]:
    hyper, coords = inference.hyper, inference.coordinates
    at_nodes = coords.natural(hyper.theta)
    dense = {} if hyper.surrogate is None else coords.natural(hyper.surrogate.theta)
    rows = []
    for label, values in at_nodes.items():
        row = _scalar(inference, values, dense.get(label), p, label.startswith("cor_"))
        index = inference.tails.get(label, np.inf)
        if index <= 2.0:
            row[1] = np.nan
            row[-2] = np.nan
        if index <= 1.0:
            row[0] = np.nan
            row[-1] = np.nan
        rows.append(row)
    return list(at_nodes), rows
