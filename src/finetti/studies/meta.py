"""`meta`: random-effects meta-analysis, with moderators, clustered effects and known covariance of the errors.

    y_i = x_i beta + u_cluster[c(i)] + u_study[i] + e_i,   e ~ Normal(0, V),
    u_cluster ~ Normal(0, tau_cluster^2),  u_study ~ Normal(0, tau_study^2)

with V the squared standard errors, or blocks of a known covariance. beta and u are integrated out exactly, tau is
explored on nodes, so that every table here is a mixture over nodes and no Markov chain is run. A fit of this model is a
`Fit` like any other; `Meta` adds the tables that a meta-analyst asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.data.bound import bind
from finetti.data.newdata import NewDesign
from finetti.errors import PredictionError
from finetti.inference.hyper import Progress
from finetti.model.model import Model
from finetti.model.priors import Prior
from finetti.posterior.api import fit_bound
from finetti.posterior.fit import PROBS, Fit
from finetti.posterior.groups import representative_nodes
from finetti.posterior.mixtures import mixture_moments, mixture_quantiles
from finetti.posterior.predict import predict
from finetti.posterior.summary import check_probs, function_rows, quantile_names, without_moments
from finetti.studies.effects import read_effects
from finetti.studies.heterogeneity import shares, squares, typical_variance

__all__ = ["Meta", "meta", "restore"]

Floats = npt.NDArray[np.float64]


def meta(
    effect: Any,
    se: Any = None,
    data: Any = None,
    *,
    labels: Any = None,
    moderators: str | None = None,
    cluster: Any = None,
    V: Any = None,
    priors: Mapping[str, Prior] | None = None,
    missing: str = "error",
    method: str = "auto",
    draws: int = 4000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Meta:
    """Combine the results of several studies: overall effect, heterogeneity, every study shrunk, a new study.

    Parameters
    ----------
    effect : str or array_like of shape (k,)
        Estimates, one per study or per effect of a study, on a scale where they are about normal (log odds ratios,
        mean differences): the name of a column of `data`, an expression of columns such as ``"log(rr)"``, or values.
    se : str or array_like of shape (k,), optional
        Their standard errors, in the units of the effect; of a column of variances, ``"sqrt(vi)"``. With `V` they may
        be left out.
    data : table or path, optional
        A pandas, polars or pyarrow table, anything else that narwhals reads eagerly, or the path of a CSV or Parquet
        file.
    labels : str or array_like, optional
        Names of the studies, all different; "1" to "k" by default.
    moderators : str, optional
        Right side of a formula, such as ``"year + C(design)"``: covariates of the studies (meta-regression).
    cluster : str or array_like, optional
        What several effects have in common, such as the paper that reports them: a third level, with its own sd.
    V : (k, k) array or table, or sequence of square blocks, optional
        Known covariance of the errors of effects that share participants, in units of the effect squared, in the
        order of the rows. Its diagonal holds the squared standard errors.
    priors : mapping of str to prior, optional
        As in `fit`: ``"Intercept"``, ``"beta"``, ``"sd"``, ``"sd_study"``, ``"sd_cluster"`` or labels. The
        heterogeneity has some of its own: `jeffreys`, `dumouchel`, `uniform_shrinkage`, and `uniform` without
        arguments. Defaults are weakly informative and scale with the data.
    missing : {"error", "drop"}
        What to do with rows that have missing values in the columns used.
    method : str
        How to infer, as in `fit`.
    draws, seed : int
        As in `fit`.
    progress : callable (stage, done, total), optional
        Called now and then.

    Returns
    -------
    Meta

    Raises
    ------
    DataError, ModelError, FormulaError
        For input that cannot be a meta-analysis: standard errors of zero, a `V` that is no covariance, repeated
        labels, more coefficients than studies.
    PriorError
        If an improper prior leaves the posterior improper: a flat prior of tau and flat coefficients need at least
        two studies more than coefficients, `jeffreys` one more.

    References
    ----------
    Rover (2020), Bayesian random-effects meta-analysis using the bayesmeta R package, J. Stat. Softw. 93(6).
    Rubin (1981), Estimation in parallel randomized experiments, J. Educ. Stat. 6, 377-401.

    Examples
    --------
    >>> import finetti as fi
    >>> schools = fi.datasets.load("eight_schools_unrounded")
    >>> priors = {"beta": fi.flat(), "sd": fi.uniform()}
    >>> fit = fi.meta("effect", "se", schools, labels="school", priors=priors)
    >>> fit.overall(probs=(0.025, 0.975)).loc["overall"].round(0).astype(int).to_dict()
    {'mean': 8, 'sd': 5, 'q2.5': -2, 'q97.5': 18}
    """
    found = read_effects(effect, se, data, labels=labels, moderators=moderators, cluster=cluster, V=V, missing=missing)
    model = Model(found.formula, priors=priors)
    bound = bind(model, found.with_other_columns(data), missing, found.covariance)
    fit = fit_bound(bound, method=method, draws=draws, seed=seed, progress=progress)
    return Meta(fit.inference, fit.n_draws, fit.seed, found.effect_name, found.se_name)


def restore(fit: Fit, extra: Mapping[str, Any]) -> Meta:
    """Give a fit that was loaded from a file back as the `Meta` that it was; `extra` is what `Meta.extra` gave."""
    return Meta(fit.inference, fit.n_draws, fit.seed, str(extra["effect_name"]), str(extra["se_name"]))


@dataclass(frozen=True, eq=False, repr=False)
class Meta(Fit):
    """The posterior of a meta-analysis: a `Fit` with the tables of the trade. Made by `finetti.meta`.

    Attributes
    ----------
    effect_name, se_name : str
        What the user calls the effect and its standard error.

    Examples
    --------
    >>> import finetti as fi
    >>> fit = fi.meta([0.4, 0.1, 0.3, 0.2], [0.1, 0.1, 0.3, 0.1], labels=["A", "B", "C", "D"])
    >>> fit.studies()[["study", "effect", "se"]].tail(1)
      study  effect   se
    3     D     0.2  0.1
    >>> list(fit.studies().columns[3:])
    ['share', 'weight', 'mean', 'sd', 'q5', 'q50', 'q95']
    """

    effect_name: str = "effect"
    se_name: str = "se"

    def extra(self) -> dict[str, str]:
        """What a saved fit must remember beyond a `Fit`, for `restore`."""
        return {"effect_name": self.effect_name, "se_name": self.se_name}

    # --- what was observed ----------------------------------------------------------------------

    @property
    def has_moderators(self) -> bool:
        """Whether the overall effect depends on covariates."""
        return self.model.design.columns != ("Intercept",)

    @property
    def observed(self) -> pd.DataFrame:
        """The studies as given: columns `study`, `cluster` (where there are clusters), `effect`, `se`."""
        design = self.model.design
        frame = {
            f.name: np.array(f.levels, dtype=object)[f.index]
            for f in sorted(design.factors, key=lambda f: f.name != "study")
        }
        return pd.DataFrame({**frame, "effect": design.y, "se": design.se})

    # --- tables ----------------------------------------------------------------------------------

    def studies(self, probs: npt.ArrayLike = PROBS) -> pd.DataFrame:
        """Every study: what it observed, what it weighs, and its own true effect after partial pooling.

        Parameters
        ----------
        probs : sequence of float, optional
            Probabilities of the quantiles.

        Returns
        -------
        pandas.DataFrame
            One row per study in the order of the data. `study`, `cluster` (where there are clusters), `effect` and
            `se` as observed; `share`, the weight of the study in the overall effect by generalised least squares,
            averaged over nodes (it sums to 1; with moderators it is the weight in the effect at their means, and may
            be negative); `weight`, the average of tau^2 / (tau^2 + se^2): how much of the study's own effect
            is left after shrinkage towards what the others and its covariates say; `mean`, `sd` and quantiles of the
            study's own true effect.
        """
        p = check_probs(probs)
        inference = self.inference
        found = predict(inference, None, "known", "mean", p)
        k = len(found)
        nodes, w = representative_nodes(inference.hyper.weights, k * (k + len(self.model.design.columns)))
        sds = self._sds(inference.hyper.theta[nodes], "")
        se = self.model.design.se
        assert se is not None
        tau2 = sds["study"][:, None] ** 2
        frame = self.observed
        frame["share"] = shares(self.model, sds, w, self._mean_row)
        frame["weight"] = w @ (tau2 / (tau2 + se**2))
        for column in found:
            frame[column] = found[column].to_numpy()
        return self._marked(frame)

    def overall(self, probs: npt.ArrayLike = PROBS) -> pd.DataFrame:
        """The overall effect, and the true effect in a new study (the prediction interval).

        Parameters
        ----------
        probs : sequence of float, optional
            Probabilities of the quantiles.

        Returns
        -------
        pandas.DataFrame
            Index "overall" and "new study"; columns `mean`, `sd` and quantiles. With moderators both stand at the
            means of their columns over the studies (for a category: at the shares of its values).
        """
        X = np.stack([self._mean_row] * 2)
        table = self._at(X, np.array([False, True]), probs)
        table.index = pd.Index(["overall", "new study"])
        return self._marked(table)

    def new_study(self, moderators: Any = None, probs: npt.ArrayLike = PROBS) -> pd.DataFrame:
        """Predict the true effect in new studies.

        Parameters
        ----------
        moderators : table, optional
            One row per new study with the columns that the moderators use; by default one study at their means.
        probs : sequence of float, optional
            Probabilities of the quantiles.

        Returns
        -------
        pandas.DataFrame
            One row per new study; columns `mean`, `sd` and quantiles, heterogeneity included, sampling error not.

        Raises
        ------
        PredictionError
            If the table does not fit the moderators.
        """
        if moderators is None:
            table = self._at(self._mean_row[None], np.array([True]), probs)
            table.index = pd.Index(["new study"])
            return self._marked(table)
        if not self.has_moderators:
            raise PredictionError(
                "this meta-analysis has no moderators, so that a new study is the same everywhere; leave them out"
            )
        kinds = dict.fromkeys(self.group_names, "new")
        X = self.model.design.replay(moderators, groups=kinds).X
        table = self._at(X, np.ones(X.shape[0], dtype=bool), probs)
        if isinstance(moderators, pd.DataFrame):
            table.index = moderators.index
        return self._marked(table)

    def heterogeneity(self, probs: npt.ArrayLike = PROBS) -> pd.DataFrame:
        """How much the true effects differ.

        Parameters
        ----------
        probs : sequence of float, optional
            Probabilities of the quantiles.

        Returns
        -------
        pandas.DataFrame
            Index `tau` (sd of the true effects, in units of the effect), `tau2` and `I2`, the share of tau^2 in the
            variance of a study with a typical error (Higgins and Thompson 2002; with moderators and V after Jackson,
            White and Riley 2012); with clusters `tau_cluster`, `tau_study`, `I2_cluster`, `I2_study`, `I2`. Columns
            `mean`, `sd` and quantiles. A moment that does not exist is NaN.
        """
        p = check_probs(probs)
        hyper, tails = self.inference.hyper, self.inference.tails
        prefix = "tau_" if "cluster" in self.group_names else "tau"
        rows: dict[str, list[float]] = {}
        s2 = typical_variance(self.model)

        def values(theta: Floats) -> dict[str, Floats]:
            sds = self._sds(theta, prefix)
            square = {} if len(sds) > 1 else {"tau2": sds["tau"] ** 2}
            return sds | square | squares(sds, s2)

        at_nodes = values(hyper.theta)
        at_dense = None if hyper.surrogate is None else values(hyper.surrogate.theta)
        shares_of = [name for name in at_nodes if name.startswith("I2")]
        found = function_rows(self.inference, at_nodes, at_dense, p, shares_of)
        for name, row in zip(at_nodes, found, strict=True):
            index = np.inf
            if name.startswith("tau"):
                group = "cluster" if name == "tau_cluster" else "study"
                index = tails.get(f"sd_{group}[Intercept]", np.inf) / (2.0 if name == "tau2" else 1.0)
            rows[name] = without_moments(row, index)[: 2 + p.size]
        table = pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "sd", *quantile_names(p)])
        if "tau2" in table.index:  # the same quantiles exactly: squaring keeps the order
            table.loc["tau2", quantile_names(p)] = table.loc["tau", quantile_names(p)] ** 2
        return self._marked(table)

    # --- machinery -------------------------------------------------------------------------------

    @property
    def _mean_row(self) -> Floats:
        return np.asarray(self.model.design.X.mean(axis=0))

    def _sds(self, theta: Floats, prefix: str) -> dict[str, Floats]:
        """Every heterogeneity sd at nodes: "tau", "tau_cluster" and "tau_study", or (prefix "") the terms' names."""
        natural = self.inference.coordinates.natural(theta)
        return {
            "tau" if prefix == "tau" else f"{prefix}{name}": natural[f"sd_{name}[Intercept]"]
            for name in self.group_names
        }

    def _at(self, X: Floats, new: npt.NDArray[np.bool_], probs: npt.ArrayLike) -> pd.DataFrame:
        """Mixtures for the population effect at rows of X, and where `new` the true effect of a study there."""
        p = check_probs(probs)
        inference, n = self.inference, X.shape[0]
        theta = inference.hyper.theta
        nodes, w = representative_nodes(inference.hyper.weights, n)
        kinds = dict.fromkeys(self.group_names, "population")
        nowhere = np.full(n, -1, dtype=np.int64)
        factors = tuple((name, np.zeros((n, 1)), nowhere) for name in self.group_names)
        design = NewDesign(np.ascontiguousarray(X), np.zeros(n), factors, None, None, n)
        mean, variance = np.empty((nodes.size, n)), np.empty((nodes.size, n))
        for batch in inference.conditional.new_rows(theta[nodes], design, kinds):
            mean[batch.nodes], variance[batch.nodes] = batch.mean, batch.variance
        between = np.sum([sd**2 for sd in self._sds(theta[nodes], "").values()], axis=0)
        variance = variance + np.where(new, between[:, None], 0.0)
        centre, sd = mixture_moments(w, mean, variance)
        # the moments that exist: see `Fit.diagnostics`
        index = np.where(X != 0.0, inference.coefficient_tails, np.inf).min(axis=1, initial=np.inf)
        index = np.where(new, np.minimum(index, min(inference.tails.values(), default=np.inf)), index)
        frame = pd.DataFrame({"mean": np.where(index <= 1.0, np.nan, centre), "sd": np.where(index <= 2.0, np.nan, sd)})
        quantiles = mixture_quantiles(w, mean, variance, p)
        for j, column in enumerate(quantile_names(p)):
            frame[column] = quantiles[:, j]
        return frame
