"""`fit.loo()` and `fit.logo(group)`: expected log predictive density, rows or whole groups left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.inference.left_out import exact_conditional, nominal_cost, rows_given_others
from finetti.inference.weights import log_sum_exp
from finetti.posterior.companions import memory
from finetti.posterior.groups import factor_index
from finetti.posterior.left_out import LeftOut, exact_nodes, leave_groups, leave_rows
from finetti.posterior.scores import some, total

if TYPE_CHECKING:
    from finetti.posterior.fit import Fit

__all__ = ["Logo", "Loo", "logo", "loo"]

Floats = npt.NDArray[np.float64]

LOG_2PI = float(np.log(2.0 * np.pi))


@dataclass(frozen=True, eq=False, repr=False)
class Loo:
    """Leave-one-row-out score of a fit; names are those of ArviZ's `ELPDData`.

    Attributes
    ----------
    elpd_loo, se : float
        Sum over rows of log p(y_i | y_-i), in natural-log units, and its standard error.
    mcse : float
        Monte Carlo error of the sum, beside which smaller differences mean nothing.
    p_loo : float
        Effective number of parameters: how much better the rows are predicted when they are not left out.
    n_samples, n_data_points : int
        Hyperparameter nodes used, and rows.
    loo_i : ndarray of shape (n,)
        Score of every row, in the order of the rows used; NaN where the other rows cannot predict it.
    pareto_k : ndarray of shape (n,)
        Of the weights over hyperparameters; below `good_k` they are trusted. What exceeds it was refitted, and what
        has a large Monte Carlo error.
    mcse_i : ndarray of shape (n,)
        Monte Carlo error of each score.
    refitted, failed : tuple of int
        Rows that were refitted, and rows that should have been and could not be.
    """

    elpd_loo: float
    se: float
    p_loo: float
    n_samples: int
    n_data_points: int
    loo_i: Floats
    pareto_k: Floats
    good_k: float
    mcse_i: Floats
    refitted: tuple[int, ...]
    failed: tuple[int, ...]
    mcse: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def warning(self) -> bool:
        """Whether some row has a score that is not trusted."""
        return bool(self.failed)

    def to_arviz(self) -> Any:
        """Return the score as `arviz.ELPDData`, which `arviz.compare` and `arviz.plot_khat` take."""
        import arviz as az
        import xarray as xr

        rows = {"row": np.arange(self.n_data_points)}
        loo_i, k = (xr.DataArray(values, coords=rows, dims="row") for values in (self.loo_i, self.pareto_k))
        data = [
            self.elpd_loo, self.se, self.p_loo, self.n_samples, self.n_data_points, self.warning, loo_i, k, "log",
            self.good_k,
        ]  # fmt: skip
        index = [
            "elpd_loo", "se", "p_loo", "n_samples", "n_data_points", "warning", "loo_i", "pareto_k", "scale", "good_k",
        ]  # fmt: skip
        return az.ELPDData(data=data, index=index)

    def __str__(self) -> str:
        lines = [
            f"elpd_loo {self.elpd_loo:.2f} (se {self.se:.2f}), p_loo {self.p_loo:.2f}: {self.n_data_points} rows left "
            f"out one by one, coefficients integrated out at {self.n_samples} nodes"
        ]
        return "\n".join(
            lines + _k_lines(self.pareto_k, self.good_k, self.refitted, self.failed, "row", self.notes, self.mcse)
        )

    __repr__ = __str__


@dataclass(frozen=True, eq=False, repr=False)
class Logo:
    """Leave-one-group-out score of a fit: how well a new group is predicted from the others.

    Attributes
    ----------
    elpd_logo, se : float
        Sum over groups of log p(y of the group | all other rows), in natural-log units, and its standard error.
    mcse : float
        Monte Carlo error of the sum, beside which smaller differences mean nothing.
    group : str
        The grouping term.
    n_samples : int
        Hyperparameter nodes used.
    levels : tuple of str
    logo_i : ndarray of shape (J,)
        Score of every group; -inf under no pooling; NaN where the other rows cannot predict it.
    pareto_k : ndarray of shape (J,)
        Of the weights over hyperparameters; below `good_k` they are trusted. What exceeds it was refitted, and what
        has a large Monte Carlo error.
    refitted, failed : tuple of str
        Groups that were refitted, and groups that should have been and could not be.
    table : pandas.DataFrame
        One row per group: `level, n, elpd, mcse, pareto_k, refitted`.
    """

    elpd_logo: float
    se: float
    group: str
    n_samples: int
    levels: tuple[str, ...]
    logo_i: Floats
    pareto_k: Floats
    good_k: float
    refitted: tuple[str, ...]
    failed: tuple[str, ...]
    table: pd.DataFrame
    mcse: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def warning(self) -> bool:
        """Whether some group has a score that is not trusted."""
        return bool(self.failed)

    def __str__(self) -> str:
        lines = [
            f"elpd_logo {self.elpd_logo:.2f} (se {self.se:.2f}): {len(self.levels)} levels of {self.group} left out "
            f"one by one, coefficients integrated out at {self.n_samples} nodes"
        ]
        refitted, failed = self.refitted, self.failed
        return "\n".join(lines + _k_lines(self.pareto_k, self.good_k, refitted, failed, "group", self.notes, self.mcse))

    __repr__ = __str__


def _k_lines(
    k: Floats,
    good: float,
    refitted: tuple[Any, ...],
    failed: tuple[Any, ...],
    what: str,
    notes: tuple[str, ...],
    mcse: float,
) -> list[str]:
    lines = []
    if mcse > 0.0:
        lines.append(f"Monte Carlo error of the sum: {mcse:.2g}")
    if np.isfinite(good):
        worst = float(np.nanmax(k, initial=-np.inf))
        lines.append(
            f"Pareto k of the weights over the hyperparameters: largest {worst:.2f}, trusted below {good:.2f}"
            + (f"; {_count(refitted, what)} refitted" if refitted else "")
        )
    if failed:
        lines.append(
            f"*** {_count(failed, what)} could neither be reweighted nor refitted: {some(failed)}. Their scores are "
            "not to be trusted; look at what sets them apart (fit.exchangeability) ***"
        )
    return [*lines, *notes]


def _count(items: tuple[Any, ...], what: str) -> str:
    return f"{len(items)} {what}{'s' if len(items) != 1 else ''}"


def _notes(fit: Fit, left: LeftOut, what: str) -> tuple[str, ...]:
    out = []
    if fit.inference.estimate is not None:
        out.append(
            "the hyperparameters stand at their estimate from all the data, what is left out included, which flatters "
            "the score; fit.pooling() and fi.compare() estimate them anew each time"
        )
    unknown = int(np.isnan(left.elpd).sum())
    if unknown:
        out.append(f"{unknown} {what}{'s' if unknown != 1 else ''} cannot be predicted from the others: no score (NaN)")
    return tuple(out)


def loo(fit: Fit) -> Loo:
    """Leave-one-out cross-validation over rows.

    At each hyperparameter node the density of a row given all other rows is exact, the coefficients integrated
    out, so that a group of one row, as in eight schools, is no difficulty. Over the few hyperparameters, the nodes'
    weights are divided by that density and Pareto-smoothed; where that fails the row is left out in earnest.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    Loo

    References
    ----------
    Vehtari, Gelman and Gabry (2017), Statistics and Computing 27, 1413-1432; Vehtari, Simpson, Gelman, Yao and
    Gabry (2024), Journal of Machine Learning Research 25(72).

    Examples
    --------
    >>> import finetti as fi
    >>> schools = fi.datasets.load("eight_schools")
    >>> fit = fi.fit("effect | se(se) ~ 1 + (1 | school)", schools, priors={"sd": fi.half_cauchy(5)})
    >>> score = fit.loo()
    >>> round(score.elpd_loo, 1), score.warning
    (-30.8, False)
    """
    left = leave_rows(fit)
    elpd, se = total(left.elpd)
    p = _in_sample(fit) - left.elpd
    return Loo(
        elpd, se, float(p.sum()), left.base.shape[0], left.elpd.size, left.elpd, left.pareto_k, left.threshold,
        left.mcse, left.refitted, left.failed, left.total_mcse, _notes(fit, left, "row"),
    )  # fmt: skip


def _in_sample(fit: Fit) -> Floats:
    """log p(y_i | y): what is predicted for a row with itself in the data, (n,); remembered by the fit."""
    kept = memory(fit)
    if "in_sample" not in kept:
        kept["in_sample"] = _rows_in_sample(fit)
    return kept["in_sample"]  # type: ignore[return-value]


def _rows_in_sample(fit: Fit) -> Floats:
    exact = exact_conditional(fit.inference.conditional)
    theta, w, _ = exact_nodes(fit, fit.n_rows, nominal_cost(exact, None))
    log_p = np.empty((w.size, fit.n_rows))
    if exact.inner.noise is not None:  # the fit of the rows holds their errors
        y = fit.model.design.y
        for batch in exact.rows(theta):
            variance = batch.variance + exact.inner.noise.marginal**2
            log_p[batch.nodes] = -0.5 * (LOG_2PI + np.log(variance) + (y - batch.mean) ** 2 / variance)
    else:
        for part, deviation, precision, share in rows_given_others(exact, theta):
            inside = precision / (share * (2.0 - share))  # 1 / (R + variance of the predictor)
            log_p[part] = 0.5 * (np.log(inside) - LOG_2PI - inside * (deviation * share) ** 2)
    return log_sum_exp((np.where(np.isnan(log_p), -np.inf, log_p) + np.log(w)[:, None]).T)


def logo(fit: Fit, name: str) -> Logo:
    """Leave-one-group-out cross-validation: each level of a term is left out with all its rows.

    Parameters
    ----------
    fit : Fit
    name : str
        The grouping term.

    Returns
    -------
    Logo

    Raises
    ------
    FinettiError
        If there is no such term, or it has one level only.

    Examples
    --------
    >>> import finetti as fi
    >>> fit = fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", fi.datasets.load("sleepstudy"))
    >>> score = fit.logo("Subject")
    >>> round(score.elpd_logo), len(score.levels)
    (-886, 18)
    """
    left = leave_groups(fit, name)
    factor = fit.model.design.factors[factor_index(fit.inference, name)]
    elpd, se = total(left.elpd)
    names = np.array(left.levels, dtype=object)
    table = pd.DataFrame(
        {
            "level": names,
            "n": np.bincount(factor.index, minlength=names.size),
            "elpd": left.elpd,
            "mcse": left.mcse,
            "pareto_k": left.pareto_k,
            "refitted": np.isin(np.arange(names.size), left.refitted),
        }
    )
    return Logo(
        elpd, se, name, left.base.shape[0], left.levels, left.elpd, left.pareto_k, left.threshold,
        tuple(names[list(left.refitted)]), tuple(names[list(left.failed)]), table, left.total_mcse,
        _notes(fit, left, "group"),
    )  # fmt: skip
