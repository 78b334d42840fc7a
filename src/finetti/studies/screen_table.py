"""The table of a screen: every test's effect after shrinkage, how likely it is null, and whether its sign is known.

With P_j = P(b_j = 0 | x) and S_j = P(b_j has not the sign it seems to have | x) = P_j + min(P(b_j < 0), P(b_j > 0)),

    qvalue_j = mean of P over all tests with P <= P_j,      svalue_j = mean of S over all tests with S <= S_j

(Efron 2008, Statist. Sci. 23, 1-22; Stephens 2017, Biostatistics 18, 275-294): the expected share of nulls, or of wrong
signs, among the tests at least as convincing as this one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.inference.spike_slab import Nodes, Observed, Slab
from finetti.inference.spike_slab_posterior import COLUMNS, effects
from finetti.posterior.summary import quantile_names
from finetti.studies.screen_input import Screened

__all__ = ["running_mean", "screen_table"]

Floats = npt.NDArray[np.float64]


def running_mean(p: Floats) -> Floats:
    """Mean of all values up to each one, ties taken together.

    Examples
    --------
    >>> running_mean(np.array([0.3, 0.1, 0.1])).round(4).tolist()
    [0.1667, 0.1, 0.1]
    """
    order = np.argsort(p, kind="stable")
    ordered = p[order]
    last = np.searchsorted(ordered, ordered, side="right") - 1
    out = np.empty_like(p)
    out[order] = (np.cumsum(ordered) / np.arange(1.0, p.size + 1.0))[last]
    return out


def screen_table(
    screened: Screened, tests: Observed, slab: Slab, nodes: Nodes, weights: Floats, probs: Floats
) -> pd.DataFrame:
    """One row per test; see `Screen.table`."""
    found = effects(tests, slab, nodes, weights, probs)
    by = {name: found[:, k] for k, name in enumerate(COLUMNS)}
    frame = {"effect": screened.effect, "se": screened.se, "mean": by["mean"], "sd": by["sd"]}
    frame |= {name: found[:, len(COLUMNS) + k] for k, name in enumerate(quantile_names(probs))}
    null = by["prob_null"]
    sign = np.minimum(null + np.minimum(by["prob_negative"], by["prob_positive"]), 1.0)
    frame |= {
        "prob_null": null,
        "lfsr": sign,
        "qvalue": running_mean(null),
        "svalue": running_mean(sign),
        "prob_null_sd": by["prob_null_sd"],
        "mean_hyper_sd": by["mean_hyper_sd"],
    }
    return pd.DataFrame(frame, index=screened.labels)
