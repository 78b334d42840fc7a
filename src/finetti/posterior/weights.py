"""How far every group is pulled towards the population, and why: shrinkage weights and pooling factors.

Given the hyperparameters theta, let Z_j be the design of level j, R_j the covariance of its errors and Sigma that of
the parent. With the level's own least-squares estimate `raw_j`, given the conditional means of everything else, and the
population value `mu`,

    E(b_j | theta, y) = W_j raw_j + (I - W_j) mu,    W_j = (Z_j'R_j^-1 Z_j + Sigma^-1)^-1 Z_j'R_j^-1 Z_j,

so that row k of W_j says how much of coefficient k is the level's own data (its diagonal), and what coefficient k takes
over from the deviations of the level's other raw coefficients (the rest of the row: a subject whose intercept is high
gets another slope where the two are correlated in the population). With one coefficient and n_j rows of variance
sigma^2 it is n_j / (n_j + sigma^2 / tau^2). The identity is exact at every node; the table shows averages over nodes.

A whole term is summed up by the pooling factor of Gelman and Pardoe (2006),

    lambda = 1 - V_j(E(u_j | y)) / E(V_j(u_j) | y),    V_j(x_j) = sum_j (x_j - mean x)^2 / (J - 1):

0 where every group's deviation is known from its own data, 1 where all are pooled completely; above 0.5 the population
says more about the groups than they do themselves. The denominator needs covariances between levels, through the
variance of their average alone:

    E(V_j(u_j) | theta, y) = V_j(m_j) + [sum_j v_j - J Var(mean_j u_j | theta, y)] / (J - 1),

which is computed exactly at the nodes by the elimination of the inner step. (The population value is the same for all
levels, so that whole coefficients have the same V_j as deviations.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.errors import FinettiError
from finetti.inference.conditional import GaussianConditional
from finetti.inference.contrasts import level_mean_variance
from finetti.posterior.companions import memory
from finetti.posterior.groups import factor_index, representative_nodes
from finetti.posterior.moments import GroupNodes, group_nodes

if TYPE_CHECKING:
    import xarray as xr

    from finetti.posterior.fit import Fit

__all__ = ["Weights", "weights"]

Floats = npt.NDArray[np.float64]

# Nodes for the variance of the average over levels: a smooth function of theta, and of J levels about 1 / J of the
# pooling factor's denominator. Where a node costs over a millisecond 16 of them give it to a few per cent.
VALUES_PER_LEVEL, DEAR_NODES = 100, 16
# a finite-sample variance below this share of the conditional variance is rounding
NOTHING = 1e-10


class Weights(pd.DataFrame):
    """Table of shrinkage weights of one grouping term, with its pooling factors. Made by `Fit.weights`.

    One row per level and coefficient: `level, coefficient, n, weight` as in `Fit.groups`, then the whole row of the
    level's matrix W, one column `weight[c]` for each raw coefficient c.

    Attributes
    ----------
    pooling_factor : pandas.Series
        Gelman and Pardoe's factor of each coefficient, between 0 (no pooling) and 1 (complete pooling).
    notes : tuple of str
        What to know when reading the table, such as why a pooling factor is NaN.
    """

    _metadata = ["pooling_factor", "notes"]  # noqa: RUF012
    pooling_factor: pd.Series
    notes: tuple[str, ...]

    @property
    def _constructor(self) -> type[Weights]:
        return Weights

    @property
    def matrices(self) -> xr.DataArray:
        """The weight matrices W, with dimensions (level, coefficient, coefficient_of_raw).

        Of a part of the table, the matrices of the levels and coefficients in it, NaN where a row is missing.

        Raises
        ------
        FinettiError
            If the columns that hold the matrices were taken out.
        """
        import xarray as xr

        levels = pd.unique(self["level"]) if "level" in self else np.zeros(0)
        columns = [c for c in self.columns if str(c).startswith("weight[")]
        if not columns or not len(levels) or "coefficient" not in self:
            raise FinettiError(
                "the table holds no matrices any more: keep its rows and its columns level, coefficient and "
                "weight[...], or call fit.weights(...) again"
            )
        own = pd.unique(self["coefficient"])
        out = np.full((len(levels), len(own), len(columns)), np.nan)
        at = tuple(
            pd.Index(values, dtype=object).get_indexer(pd.Index(self[name], dtype=object))
            for values, name in ((levels, "level"), (own, "coefficient"))
        )
        out[at] = self[columns].to_numpy(float)
        return xr.DataArray(
            out,
            dims=("level", "coefficient", "coefficient_of_raw"),
            coords={
                "level": [str(level) for level in levels],
                "coefficient": [str(c) for c in own],
                "coefficient_of_raw": [str(c)[len("weight[") : -1] for c in columns],
            },
            name="weight",
        )


def weights(fit: Fit, name: str) -> Weights:
    """Shrinkage weights of every level of a grouping term, and its pooling factors.

    Given the hyperparameters, a level's partially pooled coefficients are W raw + (I - W) population: `raw` is the
    level's own least-squares estimate given everything else, W the matrix of shrinkage weights. The identity holds at
    every hyperparameter node; the table shows averages over nodes. `weight` is the diagonal of W, the share of a
    coefficient that the level's own data decide; `weight[c]` is what its raw coefficient c contributes.

    Parameters
    ----------
    fit : Fit
        What `finetti.fit` returned.
    name : str
        Name of the grouping term.

    Returns
    -------
    Weights
        A DataFrame with columns `level, coefficient, n, weight` and one `weight[c]` per coefficient c of the term,
        the property `matrices` (an xarray.DataArray of W by level), and the attribute `pooling_factor`: per coefficient
        1 - V_j(E(u_j|y)) / E(V_j(u_j)|y), V_j the finite-sample variance over levels. Its denominator is computed
        from exact moments at the nodes, covariances between levels included; of a fit by NUTS from its draws.
        A term with `pooling="none"` has weights of 1 and no pooling factor (NaN; `notes` say why), one with
        `pooling="complete"` weights of 0 and a pooling factor of 1.

    Raises
    ------
    FinettiError
        If there is no such term.

    References
    ----------
    Gelman and Pardoe (2006), Bayesian measures of explained variance and pooling in multilevel (hierarchical) models,
    Technometrics 48, 241-251.

    Examples
    --------
    >>> import finetti as fi
    >>> schools = fi.datasets.load("eight_schools")
    >>> priors = {"Intercept": fi.normal(0, 5), "sd": fi.half_cauchy(5)}
    >>> fit = fi.fit("effect | se(se) ~ 1 + (1 | school)", schools, priors=priors)
    >>> table = fit.weights("school")
    >>> table[["level", "n", "weight"]].head(3).round(2)
      level  n  weight
    0     A  1    0.07
    1     B  1    0.13
    2     C  1    0.07
    >>> table.pooling_factor.round(1).to_dict()
    {'Intercept': 0.9}
    >>> fit = fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", fi.datasets.load("sleepstudy"))
    >>> fit.weights().matrices.sel(level="308").shape
    (2, 2)
    """
    inference = fit.inference
    f = factor_index(inference, name)
    factor, spec = inference.bound.design.factors[f], inference.coordinates.factors[f]
    J, q = len(factor.levels), len(factor.coefficients)
    at = group_nodes(fit, name)
    frame: dict[str, Any] = {
        "level": np.repeat(np.array(factor.levels, dtype=object), q),
        "coefficient": np.tile(np.array(factor.coefficients, dtype=object), J),
        "n": np.repeat(np.bincount(factor.index, minlength=J), q),
        "weight": np.diagonal(at.weight, axis1=1, axis2=2).ravel(),
    }
    rows = at.weight.reshape(J * q, q)
    frame |= {f"weight[{c}]": rows[:, k] for k, c in enumerate(factor.coefficients)}
    table = Weights(frame)
    factors, notes = np.full(q, np.nan), []
    if spec.pooling == "none":
        notes.append(
            f"{name} is not pooled: its coefficients have no parent distribution, so that every weight is 1 and there "
            "is no pooling factor"
        )
    elif spec.pooling == "complete":
        factors[:] = 1.0
        notes.append(f"{name} is pooled completely: every weight is 0 and the pooling factor 1")
    elif J < 2:
        notes.append(f"{name} has one level, and a pooling factor compares levels; use data with more groups")
    else:
        kept, key = memory(fit), ("pooling_factors", name)
        if key not in kept:
            kept[key] = _pooling_factors(fit, name, at)
        factors = np.asarray(kept[key])
        if np.any(at_zero := factors == 1.0):
            which = ", ".join(c for c, zero in zip(factor.coefficients, at_zero, strict=True) if zero)
            notes.append(
                f"the deviations of {which} are all zero, because their sd is held or estimated at 0: completely pooled"
            )
    if inference.hyper.n_nodes == 1 and inference.estimate is not None:
        notes.append("weights and pooling factors are those at the estimated hyperparameters (empirical Bayes)")
    table.pooling_factor = pd.Series(
        factors, index=pd.Index(factor.coefficients, name="coefficient", dtype=object), name="pooling_factor"
    )
    table.notes = tuple(notes)
    return table


def _pooling_factors(fit: Fit, name: str, at: GroupNodes) -> Floats:
    """Return lambda (q,), exactly 1 where the deviations have no variance."""
    J = at.mean.shape[1]
    expected = at.w @ at.mean.var(axis=1, ddof=1)
    conditional = fit.inference.conditional
    if isinstance(conditional, GaussianConditional):  # else the nodes are draws, and their variance all there is
        dear = fit.inference.dear
        few, w = representative_nodes(at.w, VALUES_PER_LEVEL * at.mean[0].size, DEAR_NODES if dear else None)
        of_mean = w @ level_mean_variance(conditional, name, fit.inference.hyper.theta[at.nodes[few]])
        within = (at.w @ at.variance.sum(axis=1) - J * of_mean) / (J - 1)
        expected = expected + np.where(within > NOTHING * (at.w @ at.variance.mean(axis=1)), within, 0.0)
    explained = np.tensordot(at.w, at.mean, axes=1).var(axis=0, ddof=1)
    size = np.abs(at.mean).max(axis=(0, 1)) ** 2
    nothing = expected <= NOTHING**2 * size
    with np.errstate(invalid="ignore", divide="ignore"):
        factors = 1.0 - explained / expected
    return np.where(nothing, 1.0, np.clip(factors, 0.0, np.nextafter(1.0, 0.0)))
