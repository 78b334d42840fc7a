"""How surprising each group is given all others, and all of them together.

Leave group j out. At hyperparameters theta the other groups predict its own coefficients with a normal law
(`finetti.inference.deletion`), and over theta, weighted by p(theta | y without j),

    PIT_j = sum_s w_js Phi(delta_js / sd_js).

Of several coefficients the joint p-value is the chi-squared tail of the whole vector, averaged over the same nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import chdtrc, ndtr, ndtri

from finetti.inference.deletion import deletion
from finetti.inference.left_out import exact_conditional
from finetti.inference.weights import weighted_quantiles
from finetti.posterior.companions import memory
from finetti.posterior.group_predictors import holm
from finetti.posterior.left_out import leave_groups
from finetti.posterior.moments import group_nodes
from finetti.posterior.parent_check import N_SETS, replicated_levels, tail_level

if TYPE_CHECKING:
    from finetti.posterior.fit import Fit

__all__ = ["LEVEL", "calibration_table", "surprise_table"]

Floats = npt.NDArray[np.float64]

# probability that exchangeable groups lead to any flag, and to any column called informative
LEVEL = 0.05
# groups below which the set of PITs is not tested, and values of a parent sd that are integrated over
FEWEST, GRID = 4, 40


def surprise_table(fit: Fit, group: str) -> tuple[pd.DataFrame, list[str]]:
    """The table, remembered by the fit, and notes on how far it can be trusted."""
    kept, key = memory(fit), ("exchangeability", group)
    if key not in kept:
        kept[key] = _against_others(fit, group)
    found: tuple[pd.DataFrame, list[str]] = kept[key]  # type: ignore[assignment]
    return found[0].copy(), list(found[1])


def _against_others(fit: Fit, group: str) -> tuple[pd.DataFrame, list[str]]:
    factor = next(f for f in fit.model.design.factors if f.name == group)
    J, q = len(factor.levels), len(factor.coefficients)
    conditional = fit.inference.conditional
    left = leave_groups(fit, group)
    sums = _Sums.empty(J, q)
    at = deletion(conditional, group, left.base)
    with np.errstate(all="ignore"):
        sums.add(np.arange(J), at.delta, at.sd, at.chi2, at.rank, np.exp(left.log_weights_at))
        for j in left.refitted:
            one = deletion(conditional, group, left.theta(j))
            only = slice(j, j + 1)
            sums.add(
                np.array([j]), one.delta[:, only], one.sd[:, only], one.chi2[:, only], one.rank[only],
                left.weights(j)[:, None],
            )  # fmt: skip
    pit = sums.lower
    p = np.minimum(2.0 * np.minimum(sums.lower, sums.upper), 1.0)
    joint = p[:, 0] if q == 1 else sums.joint
    adjusted = holm(joint)
    table = pd.DataFrame(
        {
            "level": np.repeat(np.array(factor.levels, dtype=object), q),
            "coefficient": np.tile(np.array(factor.coefficients, dtype=object), J),
            "n": np.repeat(np.bincount(factor.index, minlength=J), q),
            "estimate": sums.delta.ravel(),
            "predicted_sd": sums.sd.ravel(),
            "pit": pit.ravel(),
            "z": np.where(pit < 0.5, ndtri(pit), -ndtri(sums.upper)).ravel(),
            "p": p.ravel(),
            "p_joint": np.repeat(joint, q),
            "p_adjusted": np.repeat(adjusted, q),
            "flag": np.repeat(adjusted <= LEVEL, q),
        }
    )
    return table, _notes(fit, group, left.failed, factor.levels)


def _notes(fit: Fit, group: str, failed: tuple[int, ...], levels: tuple[str, ...]) -> list[str]:
    notes = []
    if fit.inference.hyper.theta.shape[0] == 1 and fit.inference.estimate is not None:
        notes.append(
            "The fit is empirical Bayes: its one estimate of the hyperparameters was made with all groups and is used "
            "for every group left out and every column, without a refit. Surprises look smaller than they are; "
            "fit with pooling='partial' to count what is not known."
        )
    if failed:
        names = ", ".join(repr(levels[j]) for j in failed[:5]) + (", ..." if len(failed) > 5 else "")
        notes.append(
            f"For {len(failed)} of {len(levels)} levels ({names}) the weights of the nodes without the level are not "
            "sure (their Pareto k is high) and no refit was made: their rows are rough."
        )
    return notes


@dataclass(frozen=True)
class _Sums:
    """Averages over the nodes of each group's own posterior without it: (J, q), `joint` (J,)."""

    delta: Floats
    sd: Floats
    lower: Floats
    upper: Floats
    joint: Floats

    @classmethod
    def empty(cls, J: int, q: int) -> _Sums:
        a, b, c, d = (np.full((J, q), np.nan) for _ in range(4))
        return cls(a, b, c, d, np.full(J, np.nan))

    def add(
        self, at: npt.NDArray[np.int64], delta: Floats, sd: Floats, chi2: Floats, rank: npt.NDArray[np.int64], w: Floats
    ) -> None:
        """Groups `at`: delta, sd (S, J', q), chi2 and weights (S, J')."""
        # nodes without weight may lie where nothing can be computed; what no node determines stays NaN
        never = ~np.isfinite(sd).any(axis=0)
        usable = np.isfinite(sd) & np.isfinite(delta)
        W = np.where(usable, w[:, :, None], 0.0)
        delta, sd = np.where(usable, delta, 0.0), np.where(usable, sd, 1.0)
        z = delta / sd
        with np.errstate(invalid="ignore"):
            total = W.sum(axis=0)
            mean = np.where(never, np.nan, np.sum(W * delta, axis=0) / total)
            self.delta[at] = mean
            self.sd[at] = np.sqrt(np.sum(W * (sd**2 + (delta - mean) ** 2), axis=0) / total)
            self.lower[at] = np.where(never, np.nan, np.sum(W * ndtr(z), axis=0) / total)
            self.upper[at] = np.where(never, np.nan, np.sum(W * ndtr(-z), axis=0) / total)
            fine = np.isfinite(chi2)
            tails = np.where(fine, chdtrc(np.maximum(rank, 1), np.where(fine, np.maximum(chi2, 0.0), 0.0)), 0.0)
            W = np.where(fine, w, 0.0)
            self.joint[at] = np.where(rank > 0, np.sum(W * tails, axis=0) / W.sum(axis=0), np.nan)


def calibration_table(fit: Fit, group: str, table: pd.DataFrame) -> pd.DataFrame:
    """Compare the PITs of each coefficient, all groups together, with those of exchangeable groups."""
    factor = next(f for f in fit.model.design.factors if f.name == group)
    own = group_nodes(fit, group).raw_se ** 2
    rng = np.random.default_rng([fit.seed, 4])
    rows = []
    for k, c in enumerate(factor.coefficients):
        pit = table.loc[table["coefficient"] == c, "pit"].to_numpy(dtype=float)
        known = np.isfinite(pit)
        u, v = np.sort(pit[known]), own[known, k]
        n = u.size
        if n < FEWEST:
            rows.append((c, n, np.nan, np.nan, np.nan))
            continue
        distance = max(float(np.max(np.arange(1, n + 1) / n - u)), float(np.max(u - np.arange(n) / n)))
        v = np.where(np.isfinite(v), v, np.nanmedian(v) if np.isfinite(v).any() else 0.0)
        taus, grid, log_prior = _parent_sds(fit, group, k, rng)
        levels = replicated_levels(v, taus, grid, log_prior, rng)
        p = (1.0 + np.sum(levels <= tail_level(u))) / (1.0 + N_SETS)
        rows.append((c, n, distance, float(p), float(np.quantile(levels, LEVEL))))
    return pd.DataFrame(rows, columns=["coefficient", "n_groups", "distance", "p_value", "pointwise_level"])


def _parent_sds(fit: Fit, group: str, k: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Draws of one parent sd from its posterior; a grid of its values, and the log of their prior masses."""
    inner = exact_conditional(fit.inference.conditional).inner
    f = next(i for i, s in enumerate(inner.hyper.factors) if s.name == group)
    at = inner.hyper.factors[f].sd_at[k]
    coordinate = inner.hyper.coordinates[at] if at >= 0 else None
    w = fit.inference.hyper.weights
    if coordinate is None:  # held at one value
        theta = fit.inference.hyper.theta[:1]
        sd = np.sqrt(np.sum(inner.hyper.covariance_factor(f, theta)[0, k] ** 2))
        return np.full(N_SETS, sd), np.array([sd]), np.zeros(1)
    t = fit.inference.hyper.theta[:, at]
    drawn = t[rng.choice(t.size, size=N_SETS, p=w)]
    low, high = weighted_quantiles(t, w, [0.0005, 0.9995])
    room = 0.5 * (high - low)
    grid = np.linspace(low - room, high + room, GRID)
    return coordinate.natural(drawn), coordinate.natural(grid), coordinate.log_density(grid)
