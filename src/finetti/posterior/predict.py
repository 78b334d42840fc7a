"""Predictions as mixtures of normals over hyperparameter nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.errors import PredictionError, available
from finetti.inference.infer import Inference
from finetti.posterior.groups import node_quantiles, representative_nodes
from finetti.posterior.mixtures import mixture_moments
from finetti.posterior.summary import check_probs, quantile_names

__all__ = ["predict"]

Floats = npt.NDArray[np.float64]

KINDS = ("known", "new", "population")


def predict(
    inference: Inference, newdata: Any, groups: str | Mapping[str, str], kind: str, probs: npt.ArrayLike
) -> pd.DataFrame:
    """See `Fit.predict`."""
    p = check_probs(probs)
    if kind not in ("mean", "response"):
        raise PredictionError(f"kind={kind!r} is not known; {available(str(kind), ('mean', 'response'))}")
    kinds = _group_kinds(inference, groups)
    hyper = inference.hyper
    noise = kind == "response"
    own = newdata is None
    if own and all(k == "known" for k in kinds.values()):
        n = inference.bound.design.y.size
        nodes, w = representative_nodes(hyper.weights, n)
        stream, new_x = inference.conditional.rows(hyper.theta[nodes]), None
    else:
        design = inference.bound.design
        new = design.own_rows(kinds) if own else design.replay(newdata, groups=kinds, response_noise=noise)
        n, new_x = new.X.shape[0], new.X
        nodes, w = representative_nodes(hyper.weights, n)
        stream = inference.conditional.new_rows(hyper.theta[nodes], new, kinds)
    mean, variance = np.empty((nodes.size, n)), np.empty((nodes.size, n))
    for batch in stream:
        mean[batch.nodes] = batch.mean
        variance[batch.nodes] = batch.variance + (batch.noise if noise else 0.0)
    centre, sd = mixture_moments(w, mean, variance)
    quantiles = node_quantiles(inference, w, mean, variance, p)
    index = _tail_index(inference, new_x, kinds, noise)
    sd = np.where(index <= 2.0, np.nan, sd)  # moments that do not exist: see diagnostics
    centre = np.where(index <= 1.0, np.nan, centre)
    frame = pd.DataFrame({"mean": centre, "sd": sd})
    for k, column in enumerate(quantile_names(p)):
        frame[column] = quantiles[:, k]
    if isinstance(newdata, pd.DataFrame) and len(newdata.index) == n:
        frame.index = newdata.index
    return frame


def _tail_index(inference: Inference, X: Floats | None, kinds: Mapping[str, str], noise: bool) -> Floats:
    """Tail index (n,) or () of each prediction: moments of order below it exist."""
    index = np.asarray(inference.tails.get("sigma", np.inf) if noise else np.inf)
    if X is None:  # known groups only: their own data hold them
        return index
    for f in inference.coordinates.factors:
        if kinds[f.name] == "new":
            index = np.minimum(index, min((inference.tails.get(label, np.inf) for label in f.labels()), default=np.inf))
    if any(kind != "known" for kind in kinds.values()):
        used = np.where(X != 0.0, inference.coefficient_tails, np.inf)
        index = np.minimum(index, used.min(axis=1, initial=np.inf))
    return index


def _group_kinds(inference: Inference, groups: str | Mapping[str, str]) -> dict[str, str]:
    names = [f.name for f in inference.bound.design.factors]
    if not isinstance(groups, str | Mapping):
        raise PredictionError(
            f"groups={groups!r} is neither 'known', 'new' or 'population' nor a mapping of grouping terms to these"
        )
    if isinstance(groups, str):
        chosen = dict.fromkeys(names, groups)
        given = [groups]
    else:
        unknown = [k for k in groups if k not in names]
        if unknown:
            raise PredictionError(f"{unknown[0]!r} is not a grouping term; {available(str(unknown[0]), names)}")
        chosen = {name: groups.get(name, "known") for name in names}
        given = list(groups.values())
    for value in given:
        if not isinstance(value, str) or value not in KINDS:
            raise PredictionError(f"groups={value!r} is not known; {available(str(value), KINDS)}")
    for f in inference.coordinates.factors:
        if f.pooling == "none" and chosen[f.name] != "known":
            raise PredictionError(
                f"the term {f.name!r} is not pooled, so that the fit has no parent distribution or population value "
                f"for it: {chosen[f.name]!r} cannot be predicted. Fit with pooling='partial', or predict known groups"
            )
    return chosen
