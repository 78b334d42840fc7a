"""Does a column of the groups predict their effects: the model with the column, at the nodes of the model without.

De Finetti's condition for one parent is that the labels of the groups carry no information. A column c_j of level j
carries some if the model with c_j Z b added to the population has b away from zero. All coefficients of that
model are integrated out at a node as in the first one, so that

    p(theta_s | y, with c)  is proportional to  w_s p(y | theta_s, with c) / p(y | theta_s),

Pareto-smoothed; where that fails, the larger model is fitted anew. b has the default prior of a slope,
normal(0, 2.5 sd(y) / sd(column)), and given theta it is normal: its posterior is a mixture over nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import chdtrc, ndtr

from finetti.errors import FinettiError
from finetti.inference.added_columns import added_slopes, with_columns
from finetti.inference.hyper import Settings
from finetti.inference.infer import infer
from finetti.inference.left_out import exact_conditional
from finetti.inference.weights import k_threshold, smooth_ratios, weighted_quantiles
from finetti.linalg.blas import single_threaded
from finetti.posterior.left_out import exact_nodes
from finetti.posterior.mixtures import mixture_moments, mixture_quantiles

if TYPE_CHECKING:
    from finetti.data.design import Factor
    from finetti.inference.hyperparameters import Hyperparameters
    from finetti.posterior.fit import Fit
    from finetti.posterior.group_columns import GroupColumn

__all__ = ["COLUMNS", "column_table", "holm"]

Floats = npt.NDArray[np.float64]

COLUMNS = (
    "column", "coefficient", "kind", "contrast", "effect", "sd", "q5", "q95", "p_value", "p_adjusted", "informative",
    "explained", "pareto_k", "how", "advice",
)  # fmt: skip
# a test needs the sign and rough size of a slope: half the accuracy that a fit has
REFIT = Settings(mean_error=0.05, quantile_error=0.15, min_nodes=512)
# a column whose part outside the model's own columns is smaller than this says nothing new
INSIDE = 1e-7
# of more categories than this share of the levels nothing can be learned
MOST_CATEGORIES = 0.5
# levels below which no column is tested
FEWEST_LEVELS = 3


def holm(p: Floats) -> Floats:
    """Adjusted p-values of Holm (1979, Scand. J. Stat. 6, 65-70); NaN stays out.

    >>> holm(np.array([0.01, 0.04, np.nan, 0.03])).tolist()
    [0.03, 0.06, nan, 0.06]
    """
    out = np.full(p.shape, np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    factor = np.arange(order.size, 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(factor * p[order]), 1.0)
    return out


@dataclass(frozen=True)
class _Basis:
    """A column as numbers: B (J, m) per level, centred over rows, `unit` (m,) of each in the user's."""

    B: Floats
    unit: float
    names: tuple[str, ...]  # of the m columns; of categories all but the first, which is `reference`
    reference: str | None


def column_table(fit: Fit, group: str, columns: list[GroupColumn], level: float) -> pd.DataFrame:
    """One row per column and coefficient of a grouping term; see `Exchangeability.columns`."""
    factor = next(f for f in fit.model.design.factors if f.name == group)
    rows: list[dict[str, Any]] = []
    base = _Base.of(fit, group) if len(factor.levels) >= FEWEST_LEVELS else None
    for column in columns:
        reason = None
        if base is None:
            reason = f"with {len(factor.levels)} groups no column can be tested"
        basis = _basis(column, factor) if reason is None else ""
        if isinstance(basis, str):
            reason = reason or basis
        if reason is not None or base is None or isinstance(basis, str):
            rows += [_untested(column, c, str(reason)) for c in factor.coefficients]
            continue
        rows += _test(fit, base, factor, column, basis)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table["p_adjusted"] = holm(table["p_value"].to_numpy(dtype=float))
    table["informative"] = (table["p_adjusted"] <= level).to_numpy(dtype=bool)
    return table


def _untested(column: GroupColumn, coefficient: str, reason: str, how: str = "not tested") -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS, np.nan)
    return row | {
        "column": column.name, "coefficient": coefficient, "kind": column.kind, "contrast": "", "how": how,
        "advice": reason,
    }  # fmt: skip


def _basis(column: GroupColumn, factor: Factor) -> _Basis | str:
    """The column as numbers, or why it cannot be tested."""
    J, index = len(factor.levels), factor.index
    if column.categories is None:
        values = column.values.astype(float)
        if np.ptp(values) <= 1e-12 * np.abs(values).max():
            return f"{column.name} is the same in all groups, so it cannot tell them apart"
        values = values - values[index].mean()
        unit = float(np.sqrt(np.mean(values[index] ** 2)))
        return _Basis(values[:, None] / unit, unit, ("",), None)
    names = [c for c in column.categories if np.any(column.values == c)]
    if len(names) == 1:
        return f"{column.name} is {names[0]!r} in all groups, so it cannot tell them apart"
    if len(names) > max(2.0, MOST_CATEGORIES * J):
        return (
            f"{column.name} has {len(names)} categories for {J} groups, too many to compare; if its categories are "
            f"groups of groups, make them a term of their own: + (1 | {_quoted(column.name)})"
        )
    B = np.stack([(column.values == c).astype(float) for c in names[1:]], axis=1)
    return _Basis(B - B[index].mean(axis=0), 1.0, tuple(names[1:]), names[0])


@dataclass(frozen=True)
class _Base:
    """The fit's own nodes: theta (S, d), weights and log p(y | theta), and its variances between groups."""

    hyper: Hyperparameters
    theta: Floats
    w: Floats
    log_marginal: Floats
    variance: dict[str, float]  # median of each coefficient's parent variance

    @classmethod
    def of(cls, fit: Fit, group: str) -> _Base:
        inner = exact_conditional(fit.inference.conditional).inner
        theta, w, _ = exact_nodes(fit, 1)
        with np.errstate(all="ignore"), single_threaded():
            log_marginal = inner.log_marginal(theta)
        return cls(inner.hyper, theta, w, log_marginal, _variances(inner.hyper, group, theta, w))


def _variances(hyper: Hyperparameters, group: str, theta: Floats, w: Floats) -> dict[str, float]:
    spec = next(s for s in hyper.factors if s.name == group)
    natural = hyper.natural(theta)
    return {
        c: float(weighted_quantiles(natural[f"sd_{group}[{c}]"], w, [0.5])[0]) ** 2
        for c, at in zip(spec.coefficients, spec.sd_at, strict=True)
        if at >= 0  # one that is held cannot be explained away
    }


def _test(fit: Fit, base: _Base, factor: Factor, column: GroupColumn, basis: _Basis) -> list[dict[str, Any]]:
    m, q = basis.B.shape[1], len(factor.coefficients)
    new = np.einsum("na,nk->nka", basis.B[factor.index], factor.Z).reshape(-1, q * m)  # coefficient by coefficient
    inside = np.any(_inside(fit.model.design.X, new).reshape(q, m), axis=1).tolist()
    tested = [k for k in range(q) if not inside[k]]
    rows: dict[int, dict[str, Any]] = {
        k: _untested(
            column, factor.coefficients[k],
            f"{column.name} is in the model already, or a combination of columns that are",
        )
        for k in range(q) if inside[k]
    }  # fmt: skip
    if tested:
        keep = np.concatenate([np.arange(k * m, (k + 1) * m) for k in tested])
        found = _posterior(fit, base, factor.name, new[:, keep])
        for i, k in enumerate(tested):
            c = factor.coefficients[k]
            if isinstance(found, str):
                rows[k] = _untested(column, c, found, "failed")
            else:
                rows[k] = _row(column, c, basis, found, slice(i * m, (i + 1) * m), base)
    return [rows[k] for k in range(q)]


def _inside(X: Floats, new: Floats) -> npt.NDArray[np.bool_]:
    """Which new columns are combinations of X and of the new ones before them."""
    out = np.zeros(new.shape[1], dtype=bool)
    sizes = np.sqrt(np.sum(X**2, axis=0))
    Q = np.linalg.qr(X / np.where(sizes > 0.0, sizes, 1.0))[0] if X.shape[1] else np.zeros((X.shape[0], 0))
    for k in range(new.shape[1]):
        size = float(np.linalg.norm(new[:, k]))
        rest = new[:, k] - Q @ (Q.T @ new[:, k])
        rest = rest - Q @ (Q.T @ rest)
        length = float(np.linalg.norm(rest))
        out[k] = length <= INSIDE * size
        if not out[k]:
            Q = np.concatenate([Q, (rest / length)[:, None]], axis=1)
    return out


@dataclass(frozen=True)
class _Slopes:
    """Slopes of the new columns at S nodes, normal given each: mean (S, r), cov (S, r, r)."""

    w: Floats
    mean: Floats
    cov: Floats
    variance: dict[str, float]
    pareto_k: float
    how: str


def _posterior(fit: Fit, base: _Base, group: str, new: Floats) -> _Slopes | str:
    bound = with_columns(fit.model, new)
    S, r = base.w.size, new.shape[1]
    log_p, mean, cov = added_slopes(bound, base.hyper, base.theta, r)
    if S == 1:
        how = "exact" if fit.inference.estimate is None else "at the estimate"
        return _Slopes(base.w, mean, cov, {}, np.nan, how)
    log_w, k = smooth_ratios(np.log(base.w), (log_p - base.log_marginal)[:, None])
    if k[0] < k_threshold(S):
        w = np.exp(log_w[:, 0])
        return _Slopes(w, mean, cov, _variances(base.hyper, group, base.theta, w), float(k[0]), "reweighted")
    try:
        found = infer(bound, "exact", fit.seed, settings=REFIT)
    except FinettiError as error:
        return f"the model with this column could not be fitted: {error}"
    hyper, theta, w = found.coordinates, found.hyper.theta, found.hyper.weights
    _, mean, cov = added_slopes(bound, hyper, theta, r)
    return _Slopes(w, mean, cov, _variances(hyper, group, theta, w), float(k[0]), "refitted")


def _row(
    column: GroupColumn, coefficient: str, basis: _Basis, found: _Slopes, part: slice, base: _Base
) -> dict[str, Any]:
    alive = found.w > 1e-12
    w = found.w[alive] / found.w[alive].sum()
    mean, cov = found.mean[alive, part] / basis.unit, found.cov[alive, part, part] / basis.unit**2
    m = mean.shape[1]
    contrast = ""
    if basis.reference is None:
        centre, spread, p = mean[:, 0], cov[:, 0, 0], None
    else:  # the largest difference between two categories
        size = np.concatenate([[0.0], w @ mean])
        names = (basis.reference, *basis.names)
        high, low = int(np.argmax(size)), int(np.argmin(size))
        a = np.zeros(m + 1)
        a[high], a[low] = 1.0, -1.0
        contrast = f"{names[high]} - {names[low]}"
        centre, spread = mean @ a[1:], np.einsum("a,sab,b->s", a[1:], cov, a[1:])
        # Wald's statistic of all differences, given theta
        p = w @ chdtrc(m, np.einsum("sa,sa->s", mean, np.linalg.solve(cov, mean[..., None])[..., 0])) if m > 1 else None
    effect, sd = mixture_moments(w, centre, spread)
    q5, q95 = mixture_quantiles(w, centre, spread, (0.05, 0.95))
    if p is None:
        z = centre / np.sqrt(spread)
        p = 2.0 * min(float(w @ ndtr(z)), float(w @ ndtr(-z)))
    before, after = base.variance.get(coefficient, np.nan), found.variance.get(coefficient, np.nan)
    return {
        "column": column.name, "coefficient": coefficient, "kind": column.kind, "contrast": contrast,
        "effect": float(effect), "sd": float(sd), "q5": float(q5), "q95": float(q95), "p_value": float(min(p, 1.0)),
        "p_adjusted": np.nan, "informative": False,
        "explained": max(0.0, 1.0 - after / before) if before > 0.0 else np.nan,
        "pareto_k": found.pareto_k, "how": found.how, "advice": "",
    }  # fmt: skip


def _quoted(name: str) -> str:
    return name if name.isidentifier() else f"`{name}`"
