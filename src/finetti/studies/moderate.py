"""`moderate`: from an expression matrix to effects whose variances borrow strength from all genes.

    y_j = X beta_j + e_j,   e_j ~ Normal(0, sigma_j^2),   sigma_j^2 ~ d0 s0_j^2 / chi^2(d0)

Every gene has few samples, so that its own variance is a poor estimate; thousands of genes together tell how variances
are distributed. This is the model of limma (Smyth 2004). limma plugs in one estimate of (d0, s0^2); here they have a
posterior, explored on nodes, and what follows from a gene's variance is averaged over them. At one node

    (c'b_j - c'beta_j) / (u_j s~_j) ~ t(d0 + d_j),    s~_j^2 = (d0 s0_j^2 + d_j s_j^2) / (d0 + d_j),

u_j the unscaled standard error. The mixture over nodes is told by one t, whose scaled inverse chi-square for sigma_j^2
is the closest in Kullback-Leibler divergence: it has the mixture's E[1 / sigma_j^2] and E[log sigma_j^2]. `at_nodes`
gives the mixture itself, for those who average over it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtr

from finetti.data.contrasts import read_contrasts
from finetti.data.matrix import column_names, open_matrix, read_matrix
from finetti.data.samples import read_samples
from finetti.errors import DataError, FinettiError, available
from finetti.inference.hyper import Progress
from finetti.inference.row_regression import RowFits, fit_rows
from finetti.inference.variance_moments import Trend, learn_trend, moment_estimate
from finetti.inference.variances import VarianceNodes, VariancePosterior, closest_chi_square, explore_variances
from finetti.posterior.summary import check_probs, quantile_names

__all__ = ["EffectNodes", "Moderated", "moderate"]

Floats = npt.NDArray[np.float64]

PROBS = (0.05, 0.5, 0.95)
# fewer genes than that cannot tell how variances are distributed
FEWEST_GENES = 20
# nodes of a screen: d0, times s0^2 at each
FEW_STRIPS, FEW_LEVELS = 3, 3


def moderate(
    matrix: Any,
    design: Any,
    contrasts: Any = None,
    trend: bool = False,
    method: str = "full",
    seed: int = 0,
    *,
    data: Any = None,
    labels: str | Sequence[Any] | None = None,
    samples: str | None = None,
    zero_variance: str = "keep",
    progress: Progress | None = None,
) -> Moderated:
    """Estimate effects for every gene, with variances moderated by those of all genes.

    Parameters
    ----------
    matrix : (G, n) table, array or path
        Expression on a logarithmic scale, or whatever has about normal errors: genes in rows, samples in columns. A
        pandas, polars or pyarrow table, a numpy array, or the path of a CSV, TSV or Parquet file. A gene with missing
        values is fitted on the samples where it was observed.
    design : str, table or (n, p) array
        The right side of a formula such as ``"~ 0 + group"`` on the columns of `data`, or the design matrix itself.
        Where both sides name the samples they are matched by name, else by position.
    contrasts : str, sequence of str, mapping or matrix, optional
        Combinations of coefficients: ``"b - a"``, several such, a mapping of names to text or to
        ``{coefficient: weight}``, or a matrix (p, C). By default every coefficient but the intercept.
    trend : bool
        Whether s0^2 is a smooth function of the average expression (a natural spline, as in limma).
    method : {"full", "empirical"}
        The posterior of (d0, s0^2), or limma's moment estimate of them.
    seed : int
        Of the nodes.
    data : table, optional
        The samples that the formula speaks of, one row for each.
    labels : str or sequence of G values, optional
        The column of the matrix that names the genes, or the names; see `finetti.data.matrix.read_matrix`.
    samples : str, optional
        The column of `data` that names the samples.
    zero_variance : {"keep", "drop"}
        What to do with genes whose residual variance is exactly zero, such as those with the same value everywhere.
        Kept, they have effects like any other, with a variance that comes from the other genes; "empirical" lets
        them count in the estimate as limma does, "full" leaves them out of it, for a continuous distribution has no
        zeros. Dropped, they are counted.
    progress : callable (stage, done, total), optional
        Called now and then.

    Returns
    -------
    Moderated

    Raises
    ------
    DataError, ModelError, FormulaError
        For cells that are no numbers, samples without values or with repeated names, designs that do not fit the
        matrix or leave fewer than 2 residual degrees of freedom, unknown coefficients, fewer than 20 usable genes.

    References
    ----------
    Smyth (2004), Linear models and empirical Bayes methods for assessing differential expression in microarray
    experiments, Stat. Appl. Genet. Mol. Biol. 3(1):3.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> sd = np.sqrt(8 / rng.chisquare(8, size=(500, 1)))
    >>> matrix = pd.DataFrame(rng.normal(size=(500, 6)) * sd, columns=list("abcdef"))
    >>> found = moderate(matrix, "~ group", data={"group": ["old"] * 3 + ["new"] * 3})
    >>> found.contrasts, found.hyper().index.tolist()
    (('group[T.old]',), ['d0', 's0_squared'])
    >>> bool(found.hyper().loc["d0", "q5"] < 8 < found.hyper().loc["d0", "q95"])
    True
    """
    if method not in ("full", "empirical"):
        raise FinettiError(f"method={method!r} is unknown; use 'full' (the default) or 'empirical' (limma's estimate)")
    if zero_variance not in ("keep", "drop"):
        raise FinettiError(f"zero_variance={zero_variance!r} is unknown; use 'keep' (the default) or 'drop'")
    opened = open_matrix(matrix)
    plan = read_samples(design, data, samples, column_names(opened))
    names, weights = read_contrasts(contrasts, plan.columns, plan.X)
    expression = read_matrix(opened, labels, plan.samples)
    order = plan.order(expression.samples, expression.values.shape[1])
    if order != list(range(len(order))):
        expression = expression.take_samples(order)
    Y, genes = expression.values, expression.genes
    counts = {"genes": len(Y), "samples": Y.shape[1], "columns left out": len(expression.left_out)}

    seen = ~np.isnan(Y)
    n_seen = seen.sum(axis=1)
    counts["with missing values"] = int(np.sum((n_seen < Y.shape[1]) & (n_seen > 0)))
    counts["dropped: no value"] = int(np.sum(n_seen == 0))
    if counts["dropped: no value"]:
        Y, genes = Y[n_seen > 0], genes[n_seen > 0]
    _check_enough(len(Y), "with values")
    fits = fit_rows(np.ascontiguousarray(Y), plan.X, weights)
    estimable = ~np.isnan(fits.unscaled)
    kept = np.asarray(estimable.any(axis=1))
    counts["dropped: no contrast estimable"] = int(np.sum(~kept))
    zero = kept & (fits.variance == 0.0)
    if zero_variance == "drop":
        kept &= ~zero
    counts["dropped: zero variance" if zero_variance == "drop" else "kept with zero variance"] = int(zero.sum())
    counts["kept without residual df"] = int(np.sum(kept & (fits.df == 0)))
    counts["effects not estimable"] = int(np.sum(~estimable[kept]))
    fits, genes = _take(fits, kept), genes[kept]
    counts["genes kept"] = len(genes)

    use = fits.df > 0 if method == "empirical" else (fits.df > 0) & (fits.variance > 0)
    _check_enough(int(use.sum()), "with a residual variance" + (" above zero" if method == "full" else ""))
    warnings = _warnings(fits, use, method, counts)
    spline = learn_trend(fits.mean[use]) if trend else None
    if trend and spline is None:
        warnings.append("every gene has the same average expression, so that there is no trend to estimate")
    columns = None if spline is None else spline.columns(fits.mean)
    s2, df = fits.variance[use], fits.df[use]
    some = None if columns is None else columns[use]
    posterior: VariancePosterior | None = None
    if method == "empirical":
        found = moment_estimate(s2, df, some)
        nodes = VarianceNodes(np.ones(1), np.array([found.d0]), found.coefficients[None])
    else:
        posterior = explore_variances(s2, df, some, seed, progress)
        nodes = posterior.nodes()
        if not posterior.hyper.reliable:
            warnings.append(
                "the posterior of (d0, s0^2) failed its own check (Monte Carlo error or Pareto k); compare with "
                "method='empirical' before relying on it"
            )
    return Moderated(
        genes, names, fits, nodes, method, spline, counts, tuple(warnings), plan.formula, plan.columns, posterior
    )


def _check_enough(n: int, what: str) -> None:
    if n < FEWEST_GENES:
        raise DataError(
            f"The matrix has {n} genes {what}; at least {FEWEST_GENES} are needed to learn how variances are "
            "distributed. (Genes are in rows and samples in columns: is the matrix transposed?)"
        )


def _take(fits: RowFits, kept: npt.NDArray[np.bool_]) -> RowFits:
    if kept.all():
        return fits
    return RowFits(
        fits.effect[kept], fits.unscaled[kept], fits.variance[kept], fits.df[kept], fits.n[kept], fits.mean[kept],
        fits.n_patterns,
    )  # fmt: skip


def _warnings(fits: RowFits, use: npt.NDArray[np.bool_], method: str, counts: Mapping[str, int]) -> list[str]:
    told = []
    zero = counts.get("kept with zero variance", 0)
    if zero > 0.5 * len(use):
        told.append(
            f"the residual variance of {zero} of {len(use)} genes is exactly zero, so that the moderated "
            "variances mean little: drop genes that are not expressed, or give zero_variance='drop'"
        )
    elif zero:
        how = "count in the estimate as 1e-5 of the median, as in limma" if method == "empirical" else "do not count"
        told.append(f"the residual variance of {zero} genes is exactly zero: in the distribution of all they {how}")
    return told


@dataclass(frozen=True, eq=False)
class EffectNodes:
    """One contrast at every node: m genes, K nodes. At node k, effect - truth ~ se[k] t(df[k]).

    Attributes
    ----------
    genes : (m,) labels; rows : (m,) their positions in `Moderated.genes`
    weights : (K,) of the nodes, summing to one
    effect : (m,); se, df : (K, m), df = inf where variances are known
    """

    genes: npt.NDArray[Any]
    rows: npt.NDArray[np.int64]
    weights: Floats
    effect: Floats
    se: Floats
    df: Floats


@dataclass(frozen=True, eq=False, repr=False)
class Moderated:
    """Effects of all genes with moderated variances. Made by `finetti.moderate`, made to go into `finetti.screen`.

    Attributes
    ----------
    genes : (G,) labels of the genes kept, in the order of the matrix
    contrasts : names of the C contrasts
    fits : least squares of every gene (`effect`, `unscaled` (G, C); `variance`, `df`, `mean`, `n` (G,))
    nodes : at most 32 weighted values of (d0, s0^2) that stand for their posterior; one under "empirical"
    method : "full" or "empirical"
    trend : the spline of log s0^2 in average expression, or None
    counts : how many genes there were, had missing values, were dropped and why
    warnings : in plain sentences
    formula, coefficients : the design
    posterior : all the nodes, or None under "empirical"

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> found = moderate(rng.normal(size=(100, 6)), [[1, 0]] * 3 + [[1, 1]] * 3, method="empirical")
    >>> found
    <Moderated: 100 genes, 6 samples, 1 contrast, empirical>
    >>> list(found.effects.columns), found.counts["genes kept"]
    (['gene', 'contrast', 'effect', 'se', 'df'], 100)
    """

    genes: npt.NDArray[Any]
    contrasts: tuple[str, ...]
    fits: RowFits
    nodes: VarianceNodes
    method: str
    trend: Trend | None
    counts: Mapping[str, int]
    warnings: tuple[str, ...]
    formula: str | None
    coefficients: tuple[str, ...]
    posterior: VariancePosterior | None

    # --- what the screen reads -------------------------------------------------------------------

    @cached_property
    def prior_variance(self) -> Floats:
        """s0^2 at each node: (K, 1), or (K, G) where it has a trend."""
        return self.nodes.prior_variance(None if self.trend is None else self.trend.columns(self.fits.mean))

    @cached_property
    def df_at_nodes(self) -> Floats:
        """Total degrees of freedom d0 + d_j (K, G); under "empirical" at most those of all genes, as in limma."""
        total = self.nodes.d0[:, None] + self.fits.df
        return np.minimum(total, self.fits.df.sum()) if self.method == "empirical" else total

    @cached_property
    def variance_at_nodes(self) -> Floats:
        """Moderated variances s~_j^2 (K, G)."""
        own, df = np.where(self.fits.df > 0, self.fits.variance, 0.0), self.fits.df
        weight = df / (self.nodes.d0[:, None] + df)  # 0 where d0 is infinite
        return (1.0 - weight) * self.prior_variance + weight * own

    def at_nodes(self, contrast: str | None = None) -> EffectNodes:
        """Return one contrast as a mixture over nodes of (d0, s0^2), for those who average over them.

        Parameters
        ----------
        contrast : str, optional
            Its name; may be left out where there is one.

        Returns
        -------
        EffectNodes
            Of the m genes of which the contrast is estimable, at K of at most 32 nodes.

        Raises
        ------
        FinettiError
            For a name that is no contrast, or none where there are several.
        """
        c = self._contrast(contrast)
        rows = np.flatnonzero(~np.isnan(self.fits.unscaled[:, c]))
        se = np.sqrt(self.variance_at_nodes[:, rows]) * self.fits.unscaled[rows, c]
        return EffectNodes(
            self.genes[rows], rows, self.nodes.weights, self.fits.effect[rows, c], se, self.df_at_nodes[:, rows]
        )

    def few_nodes(self, contrast: str | None = None) -> EffectNodes:
        """`at_nodes` with fewer nodes (3 x 3), each of which a screen explores in full."""
        if self.posterior is None:
            return self.at_nodes(contrast)
        return replace(self, nodes=self.posterior.nodes(FEW_STRIPS, FEW_LEVELS)).at_nodes(contrast)

    # --- tables ----------------------------------------------------------------------------------

    @cached_property
    def _single(self) -> tuple[Floats, Floats]:
        """Variance and degrees of freedom (G,) of the scaled inverse chi-square closest to the mixture over nodes."""
        if self.nodes.weights.size == 1:
            return self.variance_at_nodes[0], self.df_at_nodes[0]
        return closest_chi_square(self.nodes.weights, self.variance_at_nodes, self.df_at_nodes)

    @cached_property
    def effects(self) -> pd.DataFrame:
        """Every gene and contrast that is estimable: columns `gene`, `contrast`, `effect`, `se`, `df`.

        Contrast by contrast, genes in the order of the matrix; (effect - truth) / se is about t with `df` degrees of
        freedom.
        """
        s2, df = self._single
        parts = []
        for c, name in enumerate(self.contrasts):
            rows = np.flatnonzero(~np.isnan(self.fits.unscaled[:, c]))
            parts.append(
                pd.DataFrame(
                    {
                        "gene": self.genes[rows],
                        "contrast": np.full(rows.size, name, dtype=object),
                        "effect": self.fits.effect[rows, c],
                        "se": np.sqrt(s2[rows]) * self.fits.unscaled[rows, c],
                        "df": df[rows],
                    }
                )
            )
        return pd.concat(parts, ignore_index=True)

    def hyper(self, probs: npt.ArrayLike = PROBS) -> pd.DataFrame:
        """The distribution of the variances.

        Parameters
        ----------
        probs : sequence of float, optional
            Probabilities of the quantiles.

        Returns
        -------
        pandas.DataFrame
            Index `d0` (prior degrees of freedom), `s0_squared` (prior variance, in units of the matrix squared; with
            a trend its geometric mean over genes) and `log_s0_squared[1]`, ... (the trend); columns `mean`, `sd`,
            quantiles, `ess`, `mcse`. Under "empirical" `mean` holds the estimate, and the rest is NaN. Where d0 may
            well be infinite (all variances equal) its mean and sd do not exist and are NaN; its quantiles do.
        """
        p = check_probs(probs)
        columns = ["mean", "sd", *quantile_names(p), "ess", "mcse"]
        if self.posterior is not None:
            labels, rows = self.posterior.summary(p)
        else:
            k = self.nodes.coefficients.shape[1]
            labels = ["d0", "s0_squared", *(f"log_s0_squared[{i}]" for i in range(1, k))]
            rows = np.full((len(labels), len(columns)), np.nan)
            rows[:, 0] = [self.nodes.d0[0], np.exp(self.nodes.coefficients[0, 0]), *self.nodes.coefficients[0, 1:]]
        return pd.DataFrame(rows, index=pd.Index(labels, name="parameter"), columns=columns)

    def table(self, contrast: str | None = None) -> pd.DataFrame:
        """One contrast gene by gene, as limma's `topTable`, in the order of the matrix.

        Parameters
        ----------
        contrast : str, optional
            Its name; may be left out where there is one.

        Returns
        -------
        pandas.DataFrame
            Columns `gene`, `effect`, `average` (mean of the observed values), `se`, `df`, `t`, `p` (two-sided, averaged
            over nodes) and `p_bh` (adjusted after Benjamini and Hochberg 1995). For decisions use `finetti.screen`.

        Raises
        ------
        FinettiError
            For a name that is no contrast, or none where there are several.
        """
        c = self._contrast(contrast)
        at = self.at_nodes(contrast)
        s2, df = self._single
        se = np.sqrt(s2[at.rows]) * self.fits.unscaled[at.rows, c]
        p = np.zeros(at.effect.size)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(at.effect == 0.0, 0.0, at.effect / se)
            for w, se_k, df_k in zip(at.weights, at.se, at.df, strict=True):
                t_k = np.where(at.effect == 0.0, 0.0, -np.abs(at.effect) / se_k)
                p += w * 2.0 * stdtr(np.minimum(df_k, 1e15), t_k)
        return pd.DataFrame(
            {
                "gene": at.genes, "effect": at.effect, "average": self.fits.mean[at.rows], "se": se, "df": df[at.rows],
                "t": t, "p": p, "p_bh": _adjusted(p),
            }
        )  # fmt: skip

    def top(self, n: int = 10, contrast: str | None = None) -> pd.DataFrame:
        """Return the genes of the smallest p-values of one contrast.

        Parameters
        ----------
        n : int
            How many.
        contrast : str, optional
            Its name; may be left out where there is one.

        Returns
        -------
        pandas.DataFrame
            Columns as in `table`, the smallest p-value first; the index is the row in `table`.

        Raises
        ------
        FinettiError
            For a name that is no contrast, or none where there are several.
        """
        table = self.table(contrast)
        order = np.lexsort((-np.abs(table["t"].to_numpy()), table["p"].to_numpy()))
        return table.iloc[order[:n]]

    def _contrast(self, name: str | None) -> int:
        if name is None:
            if len(self.contrasts) > 1:
                known = available("", self.contrasts)
                raise FinettiError(f"there are {len(self.contrasts)} contrasts, so name one; {known}")
            return 0
        if name not in self.contrasts:
            raise FinettiError(f"{name!r} is not a contrast; {available(str(name), self.contrasts)}")
        return self.contrasts.index(name)

    def __repr__(self) -> str:
        what = "1 contrast" if len(self.contrasts) == 1 else f"{len(self.contrasts)} contrasts"
        return f"<Moderated: {len(self.genes):,} genes, {self.counts['samples']} samples, {what}, {self.method}>"

    def __str__(self) -> str:
        design = self.formula or f"a matrix of {len(self.coefficients)} columns"
        how = "posterior" if self.method == "full" else "limma's moment estimate"
        told = [f"{name} {n:,}" for name, n in self.counts.items() if n or name.startswith("genes")]
        table = self.hyper().dropna(axis=1, how="all").to_string(float_format=lambda v: f"{v:.4g}")
        trend = ", with a trend in average expression" if self.trend is not None else ""
        lines = [
            f"Moderated variances: {len(self.genes):,} genes, {self.counts['samples']} samples, design {design}",
            f"Contrasts: {', '.join(self.contrasts)}",
            "",
            f"sigma_j^2 ~ d0 s0^2 / chi^2(d0){trend}; {how}:",
            table,
            "",
            "Counts: " + ", ".join(told) + ".",
            *(f"Warning: {w}." for w in self.warnings),
        ]
        return "\n".join(lines)


def _adjusted(p: Floats) -> Floats:
    """p-values adjusted for the false discovery rate (Benjamini and Hochberg 1995)."""
    order = np.argsort(p)[::-1]
    out = np.empty_like(p)
    out[order] = np.minimum(np.minimum.accumulate(p[order] * p.size / np.arange(p.size, 0, -1)), 1.0)
    return out
