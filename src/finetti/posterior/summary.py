"""Table of the population coefficients and hyperparameters: mixture moments, not averages of draws.

Where NUTS sampled the posterior its draws are all there is: `ess` is then ArviZ's rank-normalised bulk ESS over the
four chains, and `mcse` that of the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit

from finetti.errors import FinettiError
from finetti.inference.convergence import chain_errors
from finetti.inference.infer import Inference
from finetti.posterior.mixtures import mixture_moments, mixture_quantiles

__all__ = ["check_probs", "function_rows", "quantile_names", "summarise", "without_moments"]

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
    if inference.sampled is not None and inference.sampled.beta is not None:
        tails = inference.coefficient_tails
        labels = [f"beta[{c}]" for c in columns]
        return labels, [without_moments(_drawn(inference, mean[:, k], p), float(tails[k])) for k in range(len(columns))]
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
            rows += function_rows(inference, {label: at_nodes}, None if dense is None else {label: dense}, p)
            continue
        m, s = float(centre[k]), float(sd[k])
        index = float(inference.coefficient_tails[k])
        if index <= 2.0:
            s, m = np.nan, (m if index > 1.0 else np.nan)
        rows.append([m, s, *quantiles[k], _ess(float(sd[k]), float(errors[k])), float(errors[k])])
    return [f"beta[{c}]" for c in columns], rows


def _replicate_error(inference: Inference, values: Floats) -> Floats:
    hyper = inference.hyper
    if inference.sampled is not None:
        return np.array([chain_errors(_chains(inference, values[:, k])).mean for k in range(values.shape[1])])
    return hyper.weighted.per_replicate(values).std(axis=0, ddof=1) / np.sqrt(hyper.n_replicates)


def _same(x: Floats) -> Floats:
    return x


def _chains(inference: Inference, values: Floats) -> Floats:
    """Values (S,) at the nodes as chains (C, S / C)."""
    assert inference.sampled is not None
    return values.reshape(inference.sampled.chains, -1)


def _drawn(inference: Inference, values: Floats, p: Floats) -> list[float]:
    """Mean, sd, quantiles, ESS and mcse of the draws (S,) of one parameter; NaN where it is not identified."""
    if np.any(np.isnan(values)):
        return [np.nan] * (4 + p.size)
    errors = chain_errors(_chains(inference, values))
    return [float(values.mean()), float(values.std()), *np.quantile(values, p), errors.ess, errors.mean]


def without_moments(row: list[float], tail_index: float) -> list[float]:
    """The row with NaN for moments that do not exist, and for their error."""
    if tail_index <= 2.0:
        row[1] = row[-2] = np.nan
    if tail_index <= 1.0:
        row[0] = row[-1] = np.nan
    return row


def function_rows(
    inference: Inference,
    at_nodes: Mapping[str, Floats],
    at_dense: Mapping[str, Floats] | None,
    p: Floats,
    shares: Collection[str] = (),
) -> list[list[float]]:
    """Rows (mean, sd, quantiles, ess, mcse) of functions of theta, by label at the nodes (S,) and dense points (M,).

    `shares`: labels of those that lie between 0 and 1.
    """
    hyper, rows = inference.hyper, {}
    for label, values in at_nodes.items():
        if hyper.n_nodes == 1 or np.ptp(values) == 0.0:  # a point, or held at a value
            rows[label] = [float(values[0]), 0.0, *([float(values[0])] * p.size), np.nan, 0.0]
        elif inference.sampled is not None:
            rows[label] = _drawn(inference, values, p)
    free = [label for label in at_nodes if label not in rows]
    if free:
        # quantiles on an unbounded scale, where a correction cannot leave the parameter's range
        maps: list[tuple[Map, Map]] = [
            (np.arctanh, np.tanh) if label.startswith("cor_")
            else (logit, expit) if label in shares
            else (_same, _same) if label.startswith("beta[") or np.any(at_nodes[label] <= 0)
            else (np.log, np.exp)
            for label in free
        ]  # fmt: skip

        def stack(values: Mapping[str, Floats]) -> tuple[Floats, Floats]:
            natural = np.stack([values[label] for label in free], axis=1)
            with np.errstate(divide="ignore"):
                return natural, np.stack([to(values[label]) for (to, _), label in zip(maps, free, strict=True)], axis=1)

        natural, unbounded = stack(at_nodes)
        dense, dense_unbounded = (None, None) if at_dense is None else stack(at_dense)
        with np.errstate(over="ignore", invalid="ignore"):
            mean, sd, error, _ = hyper.weighted.moments(natural, dense)
        quantiles, _ = hyper.weighted.quantiles(unbounded, dense_unbounded, p)
        order = np.argsort(p)
        quantiles[order] = np.maximum.accumulate(quantiles[order], axis=0)
        for k, label in enumerate(free):
            m, s, e = float(mean[k]), float(sd[k]), float(error[k])
            rows[label] = [m, s, *maps[k][1](quantiles[:, k]), _ess(s, e), e]
    return [rows[label] for label in at_nodes]


def _hyperparameters(inference: Inference, p: Floats) -> tuple[list[str], list[list[float]]]:
    hyper, coords = inference.hyper, inference.coordinates
    at_nodes = coords.natural(hyper.theta)
    dense = None if hyper.surrogate is None else coords.natural(hyper.surrogate.theta)
    rows = function_rows(inference, at_nodes, dense, p)
    return list(at_nodes), [
        without_moments(row, inference.tails.get(label, np.inf)) for label, row in zip(at_nodes, rows, strict=True)
    ]
