"""Where the uncertainty of every effect comes from: the law of total variance, twice.

    Var(b | x) = E[ Var(b | theta) ] + Var( E[b | theta] )
    Var(b | theta) = (1 - p) Var(b | theta, not null) + p (1 - p) E[b | theta, not null]^2

The first line splits off what not knowing the hyperparameters theta adds, as `Fit.uncertainty` does; the second splits
what would be left if they were known, with p = P(b = 0 | theta): the spread of an effect that is there, and not knowing
whether it is. All are sums over the nodes of the table, so that they add up to its variance.

Empirical Bayes takes theta as known at the maximum of the marginal likelihood. It leaves the second part of the first
line out, and takes the first at one theta instead of on average.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.errors import FinettiError
from finetti.inference.spike_slab import Nodes, Observed, Slab, make_slab
from finetti.inference.spike_slab_empirical import maximise
from finetti.inference.spike_slab_posterior import COLUMNS, effects
from finetti.inference.spike_slab_tests import at_nodes, pieces
from finetti.studies.screen_by import ByCurve, ByGroup
from finetti.studies.screen_by_fit import fit_by

if TYPE_CHECKING:
    from finetti.studies.screen import Screen

__all__ = ["ScreenUncertainty", "uncertainty"]

Floats = npt.NDArray[np.float64]

# the interval whose length is compared
ENDS = np.array([0.05, 0.95])
# a ratio of lengths within this of 1 is called the same
SAME = 0.005


class ScreenUncertainty(pd.DataFrame):
    """Table of the parts of every test's posterior variance. Made by `Screen.uncertainty`.

    Attributes
    ----------
    notes : tuple of str
        Sentences: what was found, and what to know when reading the table.
    """

    _metadata = ["notes"]  # noqa: RUF012
    notes: tuple[str, ...]

    @property
    def _constructor(self) -> type[ScreenUncertainty]:
        return ScreenUncertainty


def uncertainty(screen: Screen) -> ScreenUncertainty:
    """Split the posterior variance of every effect into its sources; see `Screen.uncertainty`."""
    notes = _about(screen)
    within, null_or_not, between = _parts(screen)
    nodes, weights = screen.nodes
    length = _lengths(effects(screen.tests, screen.slab, nodes, weights, ENDS))
    given = within + null_or_not
    total = given + between
    eb_sd, eb_length = np.full(screen.n_tests, np.nan), np.full(screen.n_tests, np.nan)
    if screen.estimate is not None:
        eb_sd, eb_length = np.sqrt(total), length
    else:
        plug_in = _companion(screen, notes)
        if plug_in is not None:
            found = effects(plug_in.tests, plug_in.slab, plug_in.nodes, plug_in.weights, ENDS)
            eb_sd, eb_length = found[:, COLUMNS.index("sd")].copy(), _lengths(found)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = {
            "within_slab": within,
            "null_or_not": null_or_not,
            "given_hyperparameters": given,
            "from_hyperparameters": between,
            "total": total,
            "share": np.where(total > 0.0, between / total, 0.0),
            "eb_sd": eb_sd,
            "eb_interval_ratio": np.where(length > 0.0, eb_length / length, np.nan),
        }
    table = ScreenUncertainty(pd.DataFrame(columns, index=screen.screened.labels))
    table.notes = tuple(notes + _reading(table, screen))
    return table


def _parts(screen: Screen) -> tuple[Floats, Floats, Floats]:
    """Variance within the slab, of being null or not, and from the hyperparameters, (n,) each."""
    nodes, weights = screen.nodes
    out = np.empty((3, screen.n_tests))
    for rows in pieces(screen.n_tests, nodes.n):
        found = at_nodes(screen.tests, screen.slab, nodes, rows=rows)
        w = screen.tests.node_weights(weights, rows)
        mean = np.sum(w * found.mean, axis=0)
        out[0, rows] = np.sum(w * found.within, axis=0)
        out[1, rows] = np.sum(w * found.null_or_not, axis=0)
        out[2, rows] = np.sum(w * (found.mean - mean) ** 2, axis=0)
    if nodes.n == 1:
        out[2] = 0.0
    return out[0], out[1], out[2]


def _lengths(found: Floats) -> Floats:
    return np.asarray(found[:, len(COLUMNS) + 1] - found[:, len(COLUMNS)])


# --- empirical Bayes -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _PlugIn:
    """The empirical-Bayes analysis of the same tests."""

    tests: Observed
    slab: Slab
    nodes: Nodes
    weights: Floats
    converged: bool


def _companion(screen: Screen, notes: list[str]) -> _PlugIn | None:
    """Return the empirical-Bayes analysis, made when first asked for; None with a note where it cannot be made."""
    memory = screen.__dict__.setdefault("_memory", {})
    if "plug_in" not in memory:
        try:
            memory["plug_in"] = _plug_in(screen)
        except FinettiError as error:
            memory["plug_in"] = str(error)
    found = memory["plug_in"]
    if isinstance(found, str):
        notes.append(f"eb_sd and eb_interval_ratio are NaN, since empirical Bayes cannot be fitted here: {found}")
        return None
    if not found.converged:
        notes.append("the maximisation of empirical Bayes did not converge: eb_sd and eb_interval_ratio are doubtful")
    return cast("_PlugIn", found)


def _plug_in(screen: Screen) -> _PlugIn:
    # a single estimate knows of one set of standard errors
    tests, slab = replace(screen.tests, sets=None), make_slab(screen.slab.name)
    by = screen.learned
    if isinstance(by, (ByCurve, ByGroup)):
        tests, _, learned, estimate = fit_by(
            tests, by.covariate, slab.name, screen.priors, dict(by.hyper.spreads), "empirical", screen.seed
        )
        assert estimate is not None, "of maximum likelihood"
        return _PlugIn(tests, slab, *learned.few, estimate.converged)
    estimate = maximise(tests, slab, screen.priors)
    return _PlugIn(tests, estimate.slab, estimate.nodes, np.ones(1), estimate.converged)


# --- words -----------------------------------------------------------------------------------------


def _about(screen: Screen) -> list[str]:
    if screen.estimate is not None and screen.nodes[0].n > 1:
        return [
            "this is an empirical-Bayes screen: what its groups have in common is held at its estimate, so that "
            "from_hyperparameters holds only what is not known of each group by itself"
        ]
    if screen.estimate is not None:
        return [
            "this is an empirical-Bayes screen: its hyperparameters are held at their estimates, so that "
            "from_hyperparameters is 0 because it was left out, not because they are known. Screen with method='full' "
            "to see it"
        ]
    if screen.nodes[0].n == 1:
        return ["all hyperparameters are held, so that none of the uncertainty comes from them"]
    return []


def _reading(table: ScreenUncertainty, screen: Screen) -> list[str]:
    """What the numbers say."""
    notes = []
    total = float(table["total"].sum())
    if total > 0.0:
        parts = [
            100.0 * float(table[name].sum()) / total for name in ("within_slab", "null_or_not", "from_hyperparameters")
        ]
        notes.append(
            f"of the posterior variance of all tests together {parts[0]:.0f} % is how large an effect is that is "
            f"there, {parts[1]:.0f} % whether it is there, and {parts[2]:.0f} % what is not known of the "
            f"hyperparameters (in single tests up to {100.0 * float(table['share'].max()):.0f} %)"
        )
    if screen.estimate is not None:
        return notes
    ratio = table["eb_interval_ratio"].to_numpy()
    some = np.isfinite(ratio)
    if some.any():
        below, above = int((ratio[some] < 1.0 - SAME).sum()), int((ratio[some] > 1.0 + SAME).sum())
        notes.append(
            f"empirical Bayes' 90 % intervals are {np.median(ratio[some]):.2f} times as long as full Bayes' (median of "
            f"the {int(some.sum()):,} tests whose full-Bayes interval has a length): shorter in {below:,}, longer in "
            f"{above:,}"
        )
        if above:
            notes.append(
                "where eb_interval_ratio exceeds 1, the one value of the hyperparameters that empirical Bayes goes by "
                "leaves more open than plausible ones do on average: overconfidence is not its only failure"
            )
    if not some.all() and not table["eb_sd"].isna().all():
        notes.append(
            f"eb_interval_ratio is NaN in {int((~some).sum()):,} tests whose full-Bayes interval is the point 0"
        )
    return notes
