"""Which group is larger, and how sure that is: pairwise probabilities, ranks and the best of the groups.

Pairs. Given the hyperparameters the difference of two levels is normal, with a variance that counts what the two
share (`finetti.inference.contrasts`), so that with the weights w_s of the nodes

    P(a > b | y) = sum_s w_s Phi(d_s / sqrt(v_s)),

exact at the nodes: its only error is that of the nodes themselves (see `Fit.diagnostics`). Of a fit by NUTS it is the
share of draws in which a is larger. Ties, which have
probability zero unless the groups are held equal, count half.

Ranks are not a function of pairs. They come from the joint draws of the fit, the same as `Fit.draws` gives: with n
draws the Monte Carlo error of a probability p is sqrt(p (1 - p) / n), at most 0.008 for 4,000.

The levels' coefficients are the population value plus a deviation. The population value is the same for all, so it
plays no part: deviations rank like whole coefficients, and terms without a population column can be compared, too.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtr

from finetti.errors import FinettiError, FinettiWarning, available
from finetti.inference.contrasts import level_differences
from finetti.posterior.groups import MOST_VALUES, factor_index, representative_nodes
from finetti.posterior.mixtures import mixture_moments, mixture_quantiles
from finetti.posterior.summary import check_probs, quantile_names

if TYPE_CHECKING:
    from finetti.posterior.draws import Draws
    from finetti.posterior.fit import Fit

__all__ = ["ALL_PAIRS", "MOST_RANKED", "GroupComparison", "compare_groups"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# all pairs are compared unasked up to this many levels (1,225 pairs)
ALL_PAIRS = 50
# levels x draws of ranks are held in memory: 160 MB at 4,000 draws
MOST_RANKED = 10_000
# values that are sorted at a time: they stay in cache
RANKED_AT_ONCE = 50_000
# lines of each table that `print` shows
SHOWN = 10
# a pair with a probability beyond this, either way, is called decided
DECIDED = 0.95


@dataclass(frozen=True, eq=False, repr=False)
class GroupComparison:
    """Comparison of the levels of one grouping term. Made by `Fit.compare_groups`.

    Attributes
    ----------
    group, coefficient : the term and the coefficient compared, such as "Subject" and "Days"
    levels : the levels, as in `Fit.groups`
    n_draws : joint draws behind the ranks
    warning : why the fit failed its own checks, or None

    Examples
    --------
    >>> import finetti as fi
    >>> schools = fi.datasets.load("eight_schools")
    >>> priors = {"Intercept": fi.normal(0, 5), "sd": fi.half_cauchy(5)}
    >>> fit = fi.fit("effect | se(se) ~ 1 + (1 | school)", schools, priors=priors)
    >>> comparison = fit.compare_groups(pairs=[("A", "C"), ("B", "C")])
    >>> comparison.pairs[["level_a", "level_b", "prob_greater"]].round(1)
      level_a level_b  prob_greater
    0       A       C           0.6
    1       B       C           0.6
    >>> comparison.ranks.columns.tolist()
    ['level', 'mean', 'q5', 'q50', 'q95', 'prob_best', 'prob_worst']
    """

    group: str
    coefficient: str
    levels: tuple[str, ...]
    n_draws: int
    warning: str | None
    _pairs: pd.DataFrame | None
    _ranks: pd.DataFrame | None

    @property
    def pairs(self) -> pd.DataFrame:
        """One row per pair: `level_a, level_b`, then of a minus b `mean, sd` and quantiles, and `prob_greater`.

        `prob_greater` is P(a > b | y), exact at the hyperparameter nodes.

        Raises
        ------
        FinettiError
            If there are so many levels that the pairs to compare must be named.
        """
        if self._pairs is None:
            J = len(self.levels)
            raise FinettiError(
                f"{self.group!r} has {J:,} levels, which make {J * (J - 1) // 2:,} pairs; name those of interest, as "
                f"in fit.compare_groups({self.group!r}, pairs=[({self.levels[0]!r}, {self.levels[1]!r})]). Ranks are "
                "there"
            )
        return self._pairs

    @property
    def ranks(self) -> pd.DataFrame:
        """One row per level: `level`, `mean` and quantiles of its rank, `prob_best`, `prob_worst`.

        Rank 1 is the LARGEST coefficient; `prob_best` is the probability of being largest, `prob_worst` of being
        smallest. NaN where a coefficient is not identified (`pooling="none"`).

        Raises
        ------
        FinettiError
            If there are more than 10,000 levels.
        """
        if self._ranks is None:
            raise FinettiError(
                f"{self.group!r} has {len(self.levels):,} levels, too many to rank in every draw (at most "
                f"{MOST_RANKED:,}); compare pairs, or rank the means: fit.groups({self.group!r})['mean'].rank()"
            )
        return self._ranks

    def matrix(self) -> pd.DataFrame:
        """P(row > column | y) for the levels in `pairs`, NaN for pairs not compared and on the diagonal."""
        table = self.pairs
        named = {*table["level_a"], *table["level_b"]}
        labels = [level for level in self.levels if level in named]
        place = {level: i for i, level in enumerate(labels)}
        out = np.full((len(labels), len(labels)), np.nan)
        a, b = ([place[level] for level in table[side]] for side in ("level_a", "level_b"))
        out[a, b], out[b, a] = table["prob_greater"], 1.0 - table["prob_greater"]
        return pd.DataFrame(out, index=pd.Index(labels, dtype=object), columns=pd.Index(labels, dtype=object))

    def __str__(self) -> str:
        head = f"{self.group}, coefficient {self.coefficient}: {len(self.levels)} levels"
        parts = [] if self.warning is None else [f"*** {self.warning} ***"]
        if self._ranks is None:
            parts.append(f"{head}, too many to rank.")
        else:
            order = self._ranks.sort_values("mean", kind="stable")
            parts.append(
                f"{head}. Rank 1 is the largest; from {self.n_draws:,} joint draws."
                + (f" First {SHOWN}:" if len(order) > SHOWN else "")
            )
            parts.append(_text(order.head(SHOWN)))
        if self._pairs is None:
            parts.append("Pairs: too many to compare unasked; give pairs=[(level, level), ...].")
        elif len(self._pairs):
            p = self._pairs["prob_greater"]
            decided = int(((p > DECIDED) | (p < 1.0 - DECIDED)).sum())
            parts.append(
                f"Pairs: {len(p)}, in {decided} of them one level is larger with a probability above {DECIDED}."
                + (" See .pairs and .matrix()." if len(p) > SHOWN else "")
            )
            if len(p) <= SHOWN:
                parts.append(_text(self._pairs))
        return "\n\n".join(parts)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        tables = [t for t in (self._ranks, self._pairs) if t is not None]
        head = f"<p>{escape(self.group)}: rank 1 is the largest coefficient <em>{escape(self.coefficient)}</em>.</p>"
        note = "" if self.warning is None else f"<p><strong>{escape(self.warning)}</strong></p>"
        return note + head + "".join(t.to_html(index=False, max_rows=60, float_format="{:.3g}".format) for t in tables)


def _text(table: pd.DataFrame) -> str:
    with pd.option_context("display.width", 120, "display.max_columns", 20):
        return table.to_string(index=False, float_format=lambda v: f"{v:.3g}")


def compare_groups(
    fit: Fit,
    group: str | None,
    pairs: Iterable[tuple[str, str]] | None,
    coefficient: str | None,
    probs: npt.ArrayLike,
) -> GroupComparison:
    """Compare the levels of a grouping term; see `Fit.compare_groups`."""
    p = check_probs(probs)
    if group is None:
        if len(fit.group_names) > 1:
            raise FinettiError(
                f"say which grouping term, such as {fit.group_names[0]!r}; {available('', fit.group_names)}"
            )
        group = fit.group_names[0] if fit.group_names else "group"
    factor = fit.model.design.factors[factor_index(fit.inference, group)]
    k = 0
    if coefficient is not None:
        if coefficient not in factor.coefficients:
            raise FinettiError(
                f"{coefficient!r} is not a coefficient of {group!r}; {available(str(coefficient), factor.coefficients)}"
            )
        k = factor.coefficients.index(coefficient)
    J = len(factor.levels)
    chosen = None if pairs is None and J > ALL_PAIRS else _chosen(pairs, factor.levels, group)
    if chosen is None and J > MOST_RANKED:
        raise FinettiError(
            f"{group!r} has {J:,} levels, too many to compare all (pairs of up to {ALL_PAIRS}, ranks of up to "
            f"{MOST_RANKED:,}); give the pairs of interest: fit.compare_groups({group!r}, pairs=[(level, level), ...])"
        )
    warning = None
    if not fit.diagnostics.ok:
        warning = f"this fit failed its own checks: {fit.diagnostics.warnings[0]}"
        warnings.warn(warning, FinettiWarning, stacklevel=3)
    comparison = GroupComparison(
        group,
        factor.coefficients[k],
        factor.levels,
        fit.n_draws,
        warning,
        None if chosen is None else _pair_table(fit, group, k, chosen, factor.levels, p),
        None if J > MOST_RANKED else _rank_table(fit._draws, group, k, factor.levels, p),
    )
    for table in (comparison._pairs, comparison._ranks):
        if table is not None and warning is not None:
            table.attrs["warning"] = warning
    return comparison


def _chosen(pairs: Any, levels: tuple[str, ...], group: str) -> Ints:
    """Positions (P, 2) of the pairs asked for, or of all."""
    if pairs is None:
        return np.array(list(combinations(range(len(levels)), 2)), dtype=np.int64).reshape(-1, 2)
    place = {level: j for j, level in enumerate(levels)}
    out = []
    if isinstance(pairs, str) or not isinstance(pairs, Iterable):
        raise FinettiError(f"pairs={pairs!r} is not a list of pairs; give such as [({levels[0]!r}, {levels[-1]!r})]")
    for pair in pairs:
        if isinstance(pair, str) or not isinstance(pair, Iterable) or len(two := list(pair)) != 2:
            raise FinettiError(
                f"{pair!r} is not a pair; give two levels of {group!r}, as ({levels[0]!r}, {levels[-1]!r})"
            )
        named = [level if isinstance(level, str) else str(level) for level in two]  # 308 finds "308"
        for level in named:
            if level not in place:
                raise FinettiError(f"{level!r} is not a level of {group!r}; {available(level, levels)}")
        if named[0] == named[1]:
            raise FinettiError(f"the pair ({named[0]!r}, {named[1]!r}) compares a level with itself; give two levels")
        out.append((place[named[0]], place[named[1]]))
    if not out:
        raise FinettiError(f"pairs is empty; give such as [({levels[0]!r}, {levels[-1]!r})], or leave it out")
    return np.array(out, dtype=np.int64)


def _pair_table(fit: Fit, group: str, k: int, chosen: Ints, levels: tuple[str, ...], p: Floats) -> pd.DataFrame:
    hyper, sampled = fit.inference.hyper, fit.inference.sampled
    nodes, w = representative_nodes(hyper.weights, len(chosen))
    if sampled is not None and hyper.n_nodes * len(chosen) <= MOST_VALUES:  # draws: all of them count
        nodes, w = np.arange(hyper.n_nodes), hyper.weights
    mean, variance = level_differences(
        fit.inference.conditional, group, k, chosen[:, 0], chosen[:, 1], hyper.theta[nodes]
    )
    centre, sd = mixture_moments(w, mean, variance)
    quantiles = mixture_quantiles(w, mean, variance, p)
    names = np.array(levels, dtype=object)
    frame = {"level_a": names[chosen[:, 0]], "level_b": names[chosen[:, 1]], "mean": centre, "sd": sd}
    frame |= {column: quantiles[:, i] for i, column in enumerate(quantile_names(p))}
    return pd.DataFrame(frame | {"prob_greater": w @ _above_zero(mean, np.sqrt(variance))})


def _above_zero(mean: Floats, sd: Floats) -> Floats:
    """P(N(mean, sd^2) > 0), a point mass at zero counting half."""
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(sd > 0.0, mean / sd, np.sign(mean) * np.inf)
    return np.asarray(np.where((sd == 0.0) & (mean == 0.0), 0.5, ndtr(z)))


def _rank_table(draws: Draws, group: str, k: int, levels: tuple[str, ...], p: Floats) -> pd.DataFrame:
    J = len(levels)
    ranks = np.empty((draws.n, J), dtype=np.float32)  # whole and half numbers up to 10,000: exact
    best, worst = np.zeros(J), np.zeros(J)
    step = max(1, RANKED_AT_ONCE // J)
    for at, values in _deviations(draws, group, k):
        place = np.arange(draws.n)[at]
        for start in range(0, len(values), step):
            part = slice(start, start + step)
            ranks[place[part]], top, bottom = rank_rows(values[part])
            best, worst = best + top, worst + bottom
    mean = ranks.mean(axis=0, dtype=np.float64)
    quantiles = np.empty((J, p.size))
    for start in range(0, J, 500):  # the ranks that occurred, not values between them
        part = slice(start, start + 500)
        quantiles[part] = np.quantile(ranks[:, part], p, axis=0, method="inverted_cdf").T
    frame: dict[str, Any] = {"level": np.array(levels, dtype=object), "mean": mean}
    frame |= {column: quantiles[:, i] for i, column in enumerate(quantile_names(p))}
    unknown = np.isnan(mean)
    frame |= {
        "prob_best": np.where(unknown, np.nan, best / draws.n),
        "prob_worst": np.where(unknown, np.nan, worst / draws.n),
    }
    return pd.DataFrame(frame)


def _deviations(draws: Draws, group: str, k: int) -> Iterable[tuple[npt.NDArray[np.int64] | slice, Floats]]:
    """Draws (m, J) of one coefficient of every level, in pieces of bounded size, with their positions."""
    if group in draws.small_factors():
        yield slice(None), draws.u(group)[:, :, k]
        return
    for theta, counts, at, rng in draws._batches():
        _, values = draws.inference.conditional.draw(theta, counts, rng, (group,))
        yield at, values[group][:, :, k]


def rank_rows(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Ranks within each row, 1 the largest, and how often each column was largest and smallest.

    Ties share their mean rank and their share of being first or last; a column of NaN stays out.

    Parameters
    ----------
    values : (m, J)

    Returns
    -------
    ranks (m, J), times largest (J,), times smallest (J,)

    Examples
    --------
    >>> ranks, best, _ = rank_rows(np.array([[3.0, 1.0, 2.0], [5.0, 5.0, 4.0]]))
    >>> ranks.tolist(), best.tolist()
    ([[1.0, 3.0, 2.0], [1.5, 1.5, 3.0]], [1.5, 0.5, 0.0])
    """
    known = ~np.isnan(values).all(axis=0)
    out, best, worst = np.full(values.shape, np.nan), np.zeros(values.shape[1]), np.zeros(values.shape[1])
    if not known.any():
        return out, best, worst
    x = values[:, known]
    order = np.argsort(-x, axis=1, kind="stable")
    in_order = np.take_along_axis(x, order, axis=1)
    place: Any = np.arange(x.shape[1])[None]
    tied = in_order[:, 1:] == in_order[:, :-1]
    if tied.any():
        edge = np.ones((x.shape[0], 1), dtype=bool)
        starts, ends = np.hstack([edge, ~tied]), np.hstack([~tied, edge])
        low = np.maximum.accumulate(np.where(starts, place, 0), axis=1)
        high = np.minimum.accumulate(np.where(ends, place, x.shape[1])[:, ::-1], axis=1)[:, ::-1]
        place = 0.5 * (low + high)
    ranks = np.empty(x.shape)
    np.put_along_axis(ranks, order, np.broadcast_to(place + 1.0, x.shape), axis=1)
    out[:, known] = ranks
    n_known = x.shape[1]
    columns = np.flatnonzero(known)
    for sums, end in ((best, slice(0, 1)), (worst, slice(n_known - 1, n_known))):
        tied_there = in_order == in_order[:, end]
        share = 1.0 / tied_there.sum(axis=1)
        row, at = np.nonzero(tied_there)
        np.add.at(sums, columns[order[row, at]], share[row])
    return out, best, worst
