"""The questions of trust that a fit answers, one method each; `Fit` inherits them.

How far was each group pulled, and why? What would the simpler analyses have said? How much of the uncertainty comes
from not knowing the hyperparameters? Were the groups exchangeable? How well are new rows and new groups predicted? Does
the answer depend on the prior? The mathematics stand in the modules that compute the answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy.typing as npt

if TYPE_CHECKING:
    from finetti.posterior.exchangeability import Exchangeability
    from finetti.posterior.fit import Fit
    from finetti.posterior.loo import Logo, Loo
    from finetti.posterior.pooling import Pooling
    from finetti.posterior.sensitivity import Sensitivity
    from finetti.posterior.uncertainty import Uncertainty
    from finetti.posterior.weights import Weights

__all__ = ["Questions"]


class Questions:
    """Methods of `Fit` about shrinkage, sources of uncertainty, exchangeability, prediction and priors."""

    def _marked(self, table: Any) -> Any:
        raise NotImplementedError

    def _group(self, group: str | None) -> str:
        raise NotImplementedError

    def weights(self, group: str | None = None) -> Weights:
        """How far every group is pulled towards the population, and why: whole weight matrices, pooling factors.

        Given the hyperparameters, a level's estimate is W raw + (I - W) population. `weight` is the diagonal of W, the
        share of a coefficient that the level's own data decide; with one coefficient and n rows of variance sigma^2 it
        is n / (n + sigma^2 / tau^2). The table shows averages over nodes.

        Parameters
        ----------
        group : str, optional
            Name of the grouping term; may be left out if there is only one.

        Returns
        -------
        Weights
            A DataFrame with columns `level, coefficient, n, weight` and one `weight[c]` for each raw coefficient c. Its
            property `matrices` holds W by level (xarray.DataArray), its attribute `pooling_factor` Gelman and Pardoe's
            factor of each coefficient, from 0 (no pooling) to 1 (complete pooling), and `notes` what to know.

        Raises
        ------
        FinettiError
            If there is no such term, or several and none is named.

        References
        ----------
        Gelman and Pardoe (2006), Bayesian measures of explained variance and pooling in multilevel (hierarchical)
        models, Technometrics 48, 241-251.

        Examples
        --------
        >>> import finetti as fi
        >>> fit = fi.fit("log_radon ~ 1 + floor + (1 | county)", fi.datasets.load("radon"))
        >>> table = fit.weights("county")
        >>> table[["level", "n", "weight"]].head(2).round(2)
            level   n  weight
        0  AITKIN   4    0.43
        1   ANOKA  52    0.91
        >>> round(float(table.pooling_factor["Intercept"]), 1)
        0.5
        """
        from finetti.posterior.weights import weights

        return cast("Weights", self._marked(weights(cast("Fit", self), self._group(group))))

    def pooling(self, group: str | None = None, probs: npt.ArrayLike = (0.05, 0.5, 0.95)) -> Pooling:
        """Every group under no, complete, empirical-Bayes and full-Bayes pooling, and how well each predicts.

        The same data and priors each time. `no_pooling` frees the whole term and leaves the other terms as they are; it
        is not the column `raw` of `groups`, which is what a level's rows say given the partially pooled rest.

        Parameters
        ----------
        group : str, optional
            Name of the grouping term; may be left out if there is only one.
        probs : sequence of float, optional
            The smallest and the largest are the ends of the intervals; by default they hold 90 %.

        Returns
        -------
        Pooling
            A DataFrame with columns `level, coefficient, n` and for each analysis A of `no_pooling`,
            `complete_pooling`, `empirical_bayes`, `full_bayes` the mean `A` of the whole coefficient, `A_sd`, `A_low`,
            `A_high`, `A_length`. Its property `scores` ranks the four by rows (`loo`) and groups (`logo`) left out, and
            `notes` say in words what was found; both are computed when first asked for.

        Raises
        ------
        FinettiError
            If there is no such term, or several and none is named, or if `probs` names fewer than two probabilities.

        References
        ----------
        Gelman and Hill (2007), Data Analysis Using Regression and Multilevel/Hierarchical Models, chapter 12.

        Examples
        --------
        >>> import finetti as fi
        >>> schools = fi.datasets.load("eight_schools")
        >>> fit = fi.fit("effect | se(se) ~ 1 + (1 | school)", schools, priors={"sd": fi.half_cauchy(5)})
        >>> fit.pooling("school")[["level", "no_pooling", "empirical_bayes", "full_bayes"]].head(1).round(0)
          level  no_pooling  empirical_bayes  full_bayes
        0     A        28.0              8.0         9.0
        """
        from finetti.posterior.pooling import pooling

        return cast("Pooling", self._marked(pooling(cast("Fit", self), self._group(group), probs)))

    def uncertainty(self, group: str | None = None) -> Uncertainty:
        """Return the law of total variance: what the data leave open, and what not knowing the hyperparameters adds.

        Var(b | y) = E[Var(b | theta, y)] + Var(E[b | theta, y]). Empirical Bayes leaves the second part out, and takes
        the first at one theta instead of on average.

        Parameters
        ----------
        group : str, optional
            Name of a grouping term; by default all of them. The population's coefficients are always there.

        Returns
        -------
        Uncertainty
            A DataFrame by label, such as `beta[Days]` and `Subject[308, Days]`. Columns `term, level, coefficient, n`;
            in squared units `given_hyperparameters`, `from_hyperparameters` and their sum `total`; `share`, the second
            over the sum; `eb_sd`, what empirical Bayes reports, and `eb_interval_ratio`, the length of its 90 %
            interval over that of full Bayes: below 1 it claims too much. Above 1 it claims too little, because its
            point estimate stands at a larger group sd or sigma than the average of what is plausible. `notes` say so.

        Raises
        ------
        FinettiError
            If there is no such term.

        References
        ----------
        Morris (1983), Parametric empirical Bayes inference, J. Amer. Statist. Assoc. 78, 47-55. Kass and Steffey
        (1989), J. Amer. Statist. Assoc. 84, 717-726.

        Examples
        --------
        >>> import finetti as fi
        >>> schools = fi.datasets.load("eight_schools")
        >>> fit = fi.fit("effect | se(se) ~ 1 + (1 | school)", schools, priors={"sd": fi.half_cauchy(5)})
        >>> fit.uncertainty("school").loc[["school[A, Intercept]"], ["share", "eb_interval_ratio"]].round(1)
                              share  eb_interval_ratio
        parameter
        school[A, Intercept]    0.1                0.7
        """
        from finetti.posterior.uncertainty import uncertainty

        name = None if group is None else self._group(group)
        return cast("Uncertainty", self._marked(uncertainty(cast("Fit", self), name)))

    def exchangeability(self, group: str | None = None, by: Any = None) -> Exchangeability:
        """Were the groups draws from one parent: surprising groups, and columns that tell groups apart.

        Each group is compared with what the others predict of it (leave-one-group-out PIT, flags after Holm), all of
        them with the uniform distribution, and every column of the groups with their effects.

        Parameters
        ----------
        group : str, optional
            Name of the grouping term; may be left out if there is only one.
        by : str, list of str, table or Series, optional
            Columns known of the groups, tested beside their size, known error and order of appearance: names of columns
            of the data; a table with a row per row of the data, or a row per level and the column of the group in it; a
            pandas Series indexed by level. A column has one value per level. Numbers and dates are tested by a slope,
            text and categories by their differences.

        Returns
        -------
        Exchangeability
            `table` of the groups, `calibration` of all together, `columns`, and in words `advice`; `flagged` and
            `informative` name the groups and columns that were found. `print` reads it out.

        Raises
        ------
        FinettiError
            If there is no such term, if it has one level or is not partially pooled, or if a column cannot be read.

        References
        ----------
        Holm (1979), A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6, 65-70.

        Examples
        --------
        >>> import finetti as fi
        >>> fit = fi.meta("log_rr", "se", fi.datasets.load("bcg"), labels="trial")
        >>> fit.exchangeability("study", by="latitude").informative
        ('latitude',)
        """
        from finetti.posterior.exchangeability import exchangeability

        return exchangeability(cast("Fit", self), self._group(group), by)

    def loo(self) -> Loo:
        """How well are further rows of the same groups predicted: every row left out once.

        Coefficients are integrated out exactly; only the few hyperparameters are reweighted, and refitted where Pareto
        k fails.

        Returns
        -------
        Loo
            `elpd_loo`, the sum of log predictive densities, `se`, `p_loo`, `loo_i` and `pareto_k` by row; `to_arviz()`
            for ArviZ. Of an empirical fit the hyperparameters stay at their estimates, which flatters the score.

        References
        ----------
        Vehtari, Gelman and Gabry (2017), Practical Bayesian model evaluation using leave-one-out cross-validation and
        WAIC, Statistics and Computing 27, 1413-1432.

        Examples
        --------
        >>> import finetti as fi
        >>> fit = fi.fit("effect | se(se) ~ 1 + (1 | school)", fi.datasets.load("eight_schools"))
        >>> round(fit.loo().elpd_loo)
        -31
        """
        from finetti.posterior.loo import loo

        return loo(cast("Fit", self))

    def logo(self, group: str | None = None) -> Logo:
        """How well are new groups predicted: every group left out once, all its rows together.

        Parameters
        ----------
        group : str, optional
            Name of the grouping term; may be left out if there is only one.

        Returns
        -------
        Logo
            `elpd_logo`, the sum over groups of the log predictive density of all its rows, `se`, and the `table` of
            groups with their scores and Pareto k. Minus infinity under `pooling="none"`, which says nothing of a group
            that was not seen; NaN where the other groups cannot estimate what a group needs.

        Raises
        ------
        FinettiError
            If there is no such term, or several and none is named, or if it has one level.

        References
        ----------
        Vehtari, Gelman and Gabry (2017), Practical Bayesian model evaluation using leave-one-out cross-validation and
        WAIC, Statistics and Computing 27, 1413-1432; the same with groups in the place of rows.

        Examples
        --------
        >>> import finetti as fi
        >>> fit = fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", fi.datasets.load("sleepstudy"))
        >>> found = fit.logo("Subject")
        >>> round(found.elpd_logo), found.table.shape[0]
        (-886, 18)
        """
        from finetti.posterior.loo import logo

        return logo(cast("Fit", self), self._group(group))

    def sensitivity(self, refit: bool = True) -> Sensitivity:
        """Does the answer depend on the prior: power-scaling of prior and likelihood, and alternative hyperpriors.

        Parameters
        ----------
        refit : bool, optional
            Whether alternatives that the nodes of this fit do not reach (Pareto k) are fitted anew.

        Returns
        -------
        Sensitivity
            `table` with a verdict for every parameter, `alternatives` with its posterior under half-Cauchy, half-t,
            half-normal, exponential and uniform hyperpriors and with scales halved and doubled, and in words `advice`.

        References
        ----------
        Kallioinen, Paananen, Buerkner and Vehtari (2023), Detecting and diagnosing prior and likelihood sensitivity
        with power-scaling, Statistics and Computing 34:57.

        Examples
        --------
        >>> import finetti as fi
        >>> fit = fi.fit("log_radon ~ 1 + floor + (1 | county)", fi.datasets.load("radon"))
        >>> print(fit.sensitivity().advice[0])
        The data decide: no parameter depends on its prior by more than the threshold.
        """
        from finetti.posterior.sensitivity import sensitivity

        return sensitivity(cast("Fit", self), refit)
