"""`Fit`: what was learned, as frozen data plus methods that read it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.errors import FinettiError, FinettiWarning, available
from finetti.inference.infer import Inference
from finetti.posterior.compare_groups import GroupComparison, compare_groups
from finetti.posterior.dataset import arviz_data, posterior_dataset
from finetti.posterior.diagnostics import Diagnostics, diagnose
from finetti.posterior.draws import Draws
from finetti.posterior.evidence import Evidence, log_evidence
from finetti.posterior.groups import factor_index, group_table
from finetti.posterior.moments import summary_table
from finetti.posterior.predict import predict
from finetti.posterior.questions import Questions
from finetti.posterior.store import save
from finetti.posterior.views import Plots, report

if TYPE_CHECKING:
    import xarray as xr

    from finetti.data.bound import Bound

__all__ = ["Fit"]

PROBS = (0.05, 0.5, 0.95)


@dataclass(frozen=True, eq=False)
class Fit(Questions):
    """A posterior and everything that can be read off it. Made by `finetti.fit`.

    Examples
    --------
    >>> import finetti as fi
    >>> schools = fi.datasets.load("eight_schools")
    >>> priors = {"Intercept": fi.normal(0, 5), "sd": fi.half_cauchy(5)}
    >>> fit = fi.fit("effect | se(se) ~ 1 + (1 | school)", schools, priors=priors)
    >>> fit.summary().round(1)[["mean", "sd", "q50"]]
                              mean   sd  q50
    parameter
    beta[Intercept]            4.4  3.3  4.4
    sd_school[Intercept]       3.6  3.2  2.8
    """

    inference: Inference
    n_draws: int
    seed: int

    # --- what was assumed and observed --------------------------------------------------------

    @property
    def model(self) -> Bound:
        """The model with its data and resolved priors; `print` writes it as mathematics."""
        return self.inference.bound

    @property
    def formula(self) -> str:
        """The formula in canonical form."""
        return str(self.model.model.formula)

    @property
    def n_rows(self) -> int:
        """Number of rows used."""
        return int(self.model.design.y.size)

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the grouping factors."""
        return tuple(f.name for f in self.model.design.factors)

    @cached_property
    def priors(self) -> pd.DataFrame:
        """The priors that were used: index label, columns `prior` (text) and `source` ("default" or the user's key).

        Under `pooling="empirical"` the hyperpriors play no part and are left out, as are those of
        terms that have no parent distribution.
        """
        bound = self.model
        skip = {f.name for f in self.inference.coordinates.factors if not f.modelled or f.held is not None}
        held_sigma = self.inference.estimate is not None and self.inference.coordinates.sigma_at == -1
        rows = [
            (label, str(prior), bound.sources[label])
            for label, prior in bound.priors.items()
            if not any(label.startswith(f"sd_{g}[") or label == f"cor_{g}" for g in skip)
            and not (label == "sigma" and held_sigma)
        ]
        return pd.DataFrame(
            [r[1:] for r in rows],
            index=pd.Index([r[0] for r in rows], name="parameter", dtype=object),
            columns=["prior", "source"],
        )

    @cached_property
    def diagnostics(self) -> Diagnostics:
        """How the posterior was computed and whether it passed its checks."""
        return diagnose(self.inference, tuple(f"beta[{c}]" for c in self.inference.conditional.unidentified))

    def _marked(self, table: Any) -> Any:
        """The table; if the fit failed its own checks, with a warning given and attached."""
        if not self.diagnostics.ok:
            text = f"this fit failed its own checks: {self.diagnostics.warnings[0]}"
            table.attrs["warning"] = text
            warnings.warn(text, FinettiWarning, stacklevel=3)
        return table

    # --- tables --------------------------------------------------------------------------------

    def summary(self, probs: npt.ArrayLike = PROBS) -> pd.DataFrame:
        """Population coefficients and hyperparameters.

        Moments and quantiles are those of the mixture over hyperparameter nodes, not of draws.

        Parameters
        ----------
        probs : sequence of float, optional
            Probabilities of the quantiles.

        Returns
        -------
        pandas.DataFrame
            Index: labels; columns `mean`, `sd`, one per quantile (`q5`), `ess` = (sd/mcse)^2 and `mcse`, the
            Monte Carlo standard error of the mean from independent replicates. A moment that does not exist
            is NaN (see `diagnostics`).

        Raises
        ------
        FinettiError
            If a probability is outside (0, 1).
        """
        return self._marked(summary_table(self, probs))

    def groups(self, group: str | None = None, probs: npt.ArrayLike = PROBS) -> pd.DataFrame:
        """Every level of a grouping term: raw estimate, shrinkage weight, partially pooled estimate.

        At a node with residual covariance R and parent covariance Sigma, `raw` is the level's least-squares
        coefficient given the conditional means of everything else, and with
        W = (Z'R^-1 Z + Sigma^-1)^-1 Z'R^-1 Z the estimate is W raw + (I - W) population. The table shows
        averages over nodes.

        Parameters
        ----------
        group : str, optional
            Name of the grouping term; may be left out if there is only one.
        probs : sequence of float, optional
            Probabilities of the quantiles.

        Returns
        -------
        pandas.DataFrame
            Columns `level, coefficient, n, raw, raw_se, weight, population, mean, sd` and quantiles. `weight` is the
            diagonal of W; `mean`, `sd` and quantiles are of the whole coefficient (population value plus
            deviation); `raw` and `raw_se` are NaN where a level's own rows do not determine its coefficients.

        Raises
        ------
        FinettiError
            If there is no such term.
        """
        return self._marked(group_table(self, self._group(group), probs))

    def _group(self, group: str | None) -> str:
        """The grouping term meant, or an error that lists them."""
        if group is None and len(self.group_names) > 1:
            raise FinettiError(
                f"say which grouping term, such as {self.group_names[0]!r}; {available('', self.group_names)}"
            )
        if group is None:
            if not self.group_names:
                raise FinettiError("the model has no grouping terms; add one to the formula, such as (1 | group)")
            return self.group_names[0]
        return self.group_names[factor_index(self.inference, str(group))]

    # --- draws ----------------------------------------------------------------------------------

    @cached_property
    def _draws(self) -> Draws:
        return Draws(self.inference, self.n_draws, self.seed)

    def draws(self, label: str) -> npt.NDArray[np.float64]:
        """Posterior draws of one parameter.

        Parameters
        ----------
        label : str
            As in `summary`, or a deviation such as `u_Subject[308, Days]`.

        Returns
        -------
        ndarray of shape (draws,)
            Chain after chain; the same label always gives the same draws, jointly with all others.

        Raises
        ------
        FinettiError
            If there is no such label.
        """
        draws, design = self._draws, self.model.design
        if label in (hyper := draws.hyper()):
            return hyper[label].copy()
        columns = [f"beta[{c}]" for c in design.columns]
        if label in columns:
            return draws.beta()[:, columns.index(label)].copy()
        place = self._coefficient_places.get(label)
        if place is None:
            near = [*columns, *hyper, *self._coefficient_places]
            raise FinettiError(f"there is no parameter {label!r}; {available(str(label), near)}")
        return draws.one_u(*place).copy()

    @cached_property
    def _coefficient_places(self) -> dict[str, tuple[str, int, int]]:
        """Label of every group deviation, looked up and never parsed."""
        return {
            f"u_{f.name}[{level}, {c}]": (f.name, j, k)
            for f in self.model.design.factors
            for j, level in enumerate(f.levels)
            for k, c in enumerate(f.coefficients)
        }

    @cached_property
    def posterior(self) -> xr.Dataset:
        """Draws as an xarray Dataset (chain, draw, ...); group deviations of over 2 million values are left out."""
        return posterior_dataset(self._draws)

    def to_arviz(self, log_likelihood: bool | None = None) -> Any:
        """Return the draws as ArviZ takes them.

        Parameters
        ----------
        log_likelihood : bool, optional
            Whether to add the pointwise log-likelihood, which `arviz.loo` needs: draws x rows values. By default
            it is added up to 10 million of them.

        Returns
        -------
        arviz.InferenceData, or xarray.DataTree for ArviZ 1.0 and later
        """
        if log_likelihood is not None and not isinstance(log_likelihood, bool):
            raise FinettiError(
                f"log_likelihood={log_likelihood!r} must be True, False or None (up to 10 million values)"
            )
        return arviz_data(self._draws, self.posterior, log_likelihood)

    def compare_groups(
        self,
        group: str | None = None,
        pairs: Iterable[tuple[str, str]] | None = None,
        coefficient: str | None = None,
        probs: npt.ArrayLike = PROBS,
    ) -> GroupComparison:
        """Which group is larger, and how sure that is: pairwise probabilities, ranks, the best of the groups.

        Probabilities of pairs are mixtures over hyperparameter nodes of exact normal probabilities, covariances
        between levels included; ranks come from the joint draws of the fit, their Monte Carlo error being at most
        0.008 for 4,000 draws. The population value, which all levels share, plays no part: of a
        meta-analysis with moderators or clusters it is what they leave of the studies that is compared.

        Parameters
        ----------
        group : str, optional
            Name of the grouping term; may be left out if there is only one.
        pairs : iterable of (level, level), optional
            The comparisons to make; by default all, where the term has at most 50 levels.
        coefficient : str, optional
            The coefficient compared; by default the first of the term.
        probs : sequence of float, optional
            Probabilities of the quantiles.

        Returns
        -------
        GroupComparison
            Tables `pairs` (with `prob_greater`, the probability that the first level is larger) and `ranks` (rank 1
            is the largest; `prob_best`, `prob_worst`), and `matrix()` of all probabilities.

        Raises
        ------
        FinettiError
            If there is no such term, coefficient or level, or if there are more than 10,000 levels and no pairs.
        """
        return compare_groups(self, group, pairs, coefficient, probs)

    # --- what follows ---------------------------------------------------------------------------

    def predict(
        self,
        newdata: Any = None,
        groups: str | Mapping[str, str] = "known",
        kind: str = "mean",
        probs: npt.ArrayLike = PROBS,
    ) -> pd.DataFrame:
        """Predict the mean or new observations.

        Parameters
        ----------
        newdata : table, optional
            Any table that `fit` takes; by default the data of the fit. The response is not needed.
        groups : {"known", "new", "population"} or mapping of term to one of them
            "known" uses each row's own level, and an unseen level is an error; "new" draws an unseen group
            from the parent distribution; "population" leaves group effects out.
        kind : {"mean", "response"}
            The linear predictor, or a new observation (residual noise added).
        probs : sequence of float
            Probabilities of the quantiles.

        Returns
        -------
        pandas.DataFrame
            One row per row of the data; columns `mean`, `sd` and quantiles.

        Raises
        ------
        PredictionError
            If the new data do not fit the model.
        """
        return self._marked(predict(self.inference, newdata, groups, kind, probs))

    def evidence(self) -> Evidence:
        """Log marginal likelihood of the model (its evidence) and the Monte Carlo error of it.

        Raises
        ------
        PriorError
            If a prior is improper, or hyperparameters were estimated and not integrated over.
        """
        return log_evidence(self.inference)

    @property
    def plot(self) -> Plots:
        """Figures: `fit.plot.shrinkage()`, `forest`, `hyper`, `predictive`, `pairs`; of a meta-analysis `funnel`."""
        return Plots(self)

    def report(self, path: str | os.PathLike[str], title: str | None = None) -> Path:
        """Write one self-contained HTML file about this fit, to send to a colleague.

        Parameters
        ----------
        path : str or path
            Where to; a directory gets `report.html` in it.
        title : str, optional
            Heading of the page; by default the formula.

        Returns
        -------
        pathlib.Path
            The file written.

        Raises
        ------
        FinettiError
            If the file cannot be written.
        """
        return report(self, path, title=title)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the fit to one NetCDF file that `finetti.load` reads back, on any machine.

        The file holds the columns of the data that the formula uses, so that nothing else is needed to load it;
        whoever gets the file gets these data. xarray and other NetCDF readers open it, group by group.

        Parameters
        ----------
        path : str or path
            Such as ``"fit.nc"``. A file of that name is replaced, once the new one is complete.

        Returns
        -------
        pathlib.Path
            The file written.

        Raises
        ------
        FinettiError
            If the file cannot be written, or if a prior is of a class of your own.
        """
        return save(self, path)

    def __repr__(self) -> str:
        design = self.model.design
        sizes = ", ".join(f"{len(f.levels)} levels of {f.name}" for f in design.factors)
        return f"<Fit of {self.formula}: {self.n_rows} rows{', ' + sizes if sizes else ''}>"

    def __str__(self) -> str:
        with pd.option_context("display.width", 120, "display.max_columns", 20, "display.max_rows", 60):
            table = summary_table(self, PROBS).to_string(float_format=lambda v: f"{v:.4g}")
        banner = "" if self.diagnostics.ok else "*** THIS FIT FAILED ITS OWN CHECKS: see the diagnostics below ***\n\n"
        return f"{banner}{self.model}\n\n{table}\n\n" + "\n".join(self.diagnostics.lines())
