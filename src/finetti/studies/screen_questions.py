"""What can be asked of a screen once its prior is learned: methods of `Screen`, each answered by a module of its own.

Which claims can be made, and how many of them are false? What are joint draws? What would a replication measure? Where
does the uncertainty come from? How do groups of tests differ? The mathematics stand in the modules that compute the
answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from finetti.posterior import views

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from finetti.studies.screen import Screen
    from finetti.studies.screen_discoveries import Discoveries
    from finetti.studies.screen_uncertainty import ScreenUncertainty

__all__ = ["ScreenQuestions"]

PROBS = (0.05, 0.5, 0.95)


class ScreenQuestions:
    """Methods of `Screen` about claims, draws, replications, sources of uncertainty, groups, figures and reports."""

    def _marked(self, table: Any) -> Any:
        raise NotImplementedError

    def discoveries(
        self, fdr: float | None = None, *, fsr: float | None = None, at_least: float | None = None
    ) -> Discoveries:
        """Make as many claims as an expected share of false ones allows, and say how many of them are false.

        A claim is made of the tests that most probably satisfy it, as many as keep the mean probability of a false
        claim at the rate: the rows of `table` with a `qvalue` (or `svalue`) at most the rate.

        Parameters
        ----------
        fdr : float, optional
            Bayesian false discovery rate, strictly between 0 and 1; 0.05 by default. The claim is that an effect is
            not 0, or that its size is above `at_least`.
        fsr : float, optional
            False sign rate, in place of `fdr`: the claim includes the sign that the effect seems to have.
        at_least : float, optional
            The size that matters, in units of the effect (standard errors where z-values were given), from 0 up.

        Returns
        -------
        Discoveries
            `table`, the rows of `Screen.table` of the tests claimed, the most convincing first, with `direction` ("up"
            or "down") and, with `at_least`, `prob_at_least`; `labels`, `n`, `rate`, `claim` in words;
            `expected_false` and `expected_rate`; `interval` and `rate_interval`, central 90 % intervals of the number
            and the share of false claims, `interval_of(prob)` for others, and `false`, the whole distribution. Under
            ``method="empirical"`` the hyperparameters are taken as known. `len`, iteration and `print` work.

        Raises
        ------
        FinettiError
            If both rates are given, or if a rate or a size is out of its range.

        References
        ----------
        Mueller, Parmigiani, Robert and Rousseau (2004), Optimal sample size for multiple testing: the case of gene
        expression microarrays, J. Amer. Statist. Assoc. 99, 990-1001. Stephens (2017), False discovery rates: a new
        deal, Biostatistics 18, 275-294.

        Examples
        --------
        >>> import finetti as fi
        >>> import numpy as np
        >>> rng = np.random.default_rng(1)
        >>> effects = np.where(np.arange(500) < 50, rng.normal(0, 4, 500), 0.0) + rng.normal(size=500)
        >>> found = fi.screen(effects, null="theoretical")
        >>> print(found.discoveries(fdr=0.1))
        18 discoveries among 500 tests: effects that are not 0, at a false discovery rate of 10 %
        Expected to be false: 1.7 (9.37 %); 90 % interval 0 to 4 (0 % to 22.2 %)
        >>> found.discoveries(fsr=0.1, at_least=2).table[["effect", "prob_at_least", "direction"]].head(2).round(2)
              effect  prob_at_least direction
        test
        33      8.78            1.0        up
        24     -8.55            1.0      down
        """
        from finetti.studies.screen_discoveries import discoveries

        return discoveries(cast("Screen", self), fdr=fdr, fsr=fsr, at_least=at_least)

    def draws(self, what: Any, n: int = 4000) -> npt.NDArray[np.float64] | pd.DataFrame:
        """Joint posterior draws of hyperparameters and of the effects of tests.

        Row i of everything comes from the same draw of the hyperparameters, in this call and in others with the same
        `n`, and the draws of a test do not depend on which other tests are asked for.

        Parameters
        ----------
        what : str, label, or list of them
            Names of hyperparameters (the index of `hyper`) and labels of tests (the index of `table`); where both
            share a name it is the hyperparameter's.
        n : int, optional
            Number of draws. A column takes 8 n bytes.

        Returns
        -------
        numpy.ndarray of shape (n,), or pandas.DataFrame
            Of one name or label an array; of a list a table of n rows with a column each. Effects are in units of the
            effect, 0 where a draw says that there is none.

        Raises
        ------
        FinettiError
            For a label that no test has, or several have, and if `n` is not a number of draws.

        Examples
        --------
        >>> import finetti as fi
        >>> import numpy as np
        >>> rng = np.random.default_rng(1)
        >>> effects = np.where(np.arange(500) < 50, rng.normal(0, 4, 500), 0.0) + rng.normal(size=500)
        >>> drawn = fi.screen(effects, null="theoretical").draws(["pi0", 4, 24])
        >>> drawn.shape, bool(0.6 < (drawn[4] == 0.0).mean() < 0.8)
        ((4000, 3), True)
        """
        from finetti.studies.screen_draws import draws

        return draws(cast("Screen", self), what, n)

    def predict(self, se: Any = None, probs: npt.ArrayLike = PROBS) -> pd.DataFrame:
        """What a replication of every test would measure, and whether it would agree in sign.

        A replication measures x' = null_mean se' + b + null_sd se' error: it shares the shift and the width of the
        empirical null, which are taken for features of how the experiment is done, and has an error of its own, with
        the degrees of freedom of the test. Uncertainty of b and of the hyperparameters is included.

        Parameters
        ----------
        se : float or array_like of shape (n,), optional
            Standard errors of the replication, in units of the effect; by default those of the screen.
        probs : sequence of float, optional
            Probabilities of the quantiles.

        Returns
        -------
        pandas.DataFrame
            One row per test, indexed by its label: `mean`, `sd` and quantiles of the effect that the replication
            measures; `prob_same_sign`, the probability that it has the sign of the measured effect, and
            `prob_true_same_sign`, that the true effect b has, NaN where the effect is exactly 0. Moments that do not
            exist are NaN or infinite: the mean for df of at most 1, the sd for df of at most 2.

        Raises
        ------
        PredictionError
            If `se` is not positive and finite, or not one number per test.

        References
        ----------
        Killeen (2005), An alternative to null-hypothesis significance tests, Psychol. Sci. 16, 345-353, for the
        probability of agreement; here under the learned prior.

        Examples
        --------
        >>> import finetti as fi
        >>> import numpy as np
        >>> rng = np.random.default_rng(1)
        >>> effects = np.where(np.arange(500) < 50, rng.normal(0, 4, 500), 0.0) + rng.normal(size=500)
        >>> again = fi.screen(effects, null="theoretical").predict(se=0.5)
        >>> again.loc[[4, 24], ["mean", "prob_same_sign", "prob_true_same_sign"]].round(1)
              mean  prob_same_sign  prob_true_same_sign
        test
        4      0.6             0.6                  0.3
        24    -7.9             1.0                  1.0
        """
        from finetti.studies.screen_predict import predict

        return cast("pd.DataFrame", self._marked(predict(cast("Screen", self), se, probs)))

    def uncertainty(self) -> ScreenUncertainty:
        """Return the law of total variance of every effect: what is not known of it, and of the hyperparameters.

        Var(b | x) = E[Var(b | theta)] + Var(E[b | theta]), and Var(b | theta) = (1 - p) Var(b | theta, not null) +
        p (1 - p) E[b | theta, not null]^2 with p = P(b = 0 | theta). Empirical Bayes leaves out Var(E[b | theta]), and
        takes the other parts at one theta instead of on average.

        Returns
        -------
        ScreenUncertainty
            A DataFrame by test. In squared units of the effect `within_slab`, how large an effect is that is there, and
            `null_or_not`, whether it is there; their sum `given_hyperparameters`, what would be left with known
            hyperparameters; `from_hyperparameters`, what not knowing them adds; `total`, the variance of `table`, and
            `share` = from_hyperparameters / total (0 where the total is). Of the empirical-Bayes analysis of the same
            screen, fitted when first asked for, `eb_sd`, and `eb_interval_ratio`, the length of its 90 % interval
            over that of full Bayes: below 1 it claims too much, 0 where its interval is the point 0 and that of full
            Bayes is not; NaN where that of full Bayes has no length itself. `notes` say in words what was found.

        References
        ----------
        Morris (1983), Parametric empirical Bayes inference, J. Amer. Statist. Assoc. 78, 47-55. Kass and Steffey
        (1989), J. Amer. Statist. Assoc. 84, 717-726.

        Examples
        --------
        >>> import finetti as fi
        >>> import numpy as np
        >>> rng = np.random.default_rng(1)
        >>> effects = np.where(np.arange(500) < 50, rng.normal(0, 4, 500), 0.0) + rng.normal(size=500)
        >>> table = fi.screen(effects, null="theoretical").uncertainty()
        >>> table.loc[[4, 24], ["within_slab", "null_or_not", "from_hyperparameters"]].round(2)
              within_slab  null_or_not  from_hyperparameters
        test
        4            0.25         0.97                  0.02
        24           0.93         0.00                  0.03
        """
        from finetti.studies.screen_uncertainty import uncertainty

        return cast("ScreenUncertainty", self._marked(uncertainty(cast("Screen", self))))

    def groups(self, probs: npt.ArrayLike = PROBS) -> pd.DataFrame:
        """The null's share and the size of effects as they vary with the covariate `by` of the screen.

        Parameters
        ----------
        probs : sequence of float, optional
            Probabilities of the quantiles.

        Returns
        -------
        pandas.DataFrame
            One row per level of `by`, indexed by it, or, of a number, per bin, indexed by its mean, with its ends `low`
            and `high`. `n`, its tests; `pi0_mean`, `pi0_sd` and quantiles (`pi0_q5`, ...) of the share of nulls among
            them; `slab_sd_mean` and so on, of the standard deviation of the effects that are not null, in units of the
            effect; `expected_nonnull`, how many of its tests are expected not to be null. All but `n` are posterior,
            under ``method="empirical"`` given the estimated spreads between groups.

        Raises
        ------
        FinettiError
            If the screen was made without `by`.

        References
        ----------
        Scott, Kelly, Smith, Zhou and Kass (2015), False discovery rate regression, J. Amer. Statist. Assoc. 110,
        459-471, for nulls whose share depends on a covariate.

        Examples
        --------
        >>> import finetti as fi
        >>> import numpy as np
        >>> rng = np.random.default_rng(1)
        >>> pathway = np.repeat(["busy", "idle"], 300)
        >>> busy = (pathway == "busy") & (rng.random(600) < 0.4)
        >>> z = np.where(busy, rng.normal(0, 4, 600), 0.0) + rng.normal(size=600)
        >>> groups = fi.screen(z, by=pathway, null="theoretical", method="empirical").groups()
        >>> groups["n"].to_dict(), bool(groups.loc["busy", "pi0_mean"] < groups.loc["idle", "pi0_mean"])
        ({'busy': 300, 'idle': 300}, True)
        """
        from finetti.studies.screen_by import groups

        return groups(cast("Screen", self), probs)

    @property
    def plot(self) -> views.ScreenPlots:
        """Figures of the screen, each in a call of its own that takes `ax=` and returns the matplotlib Axes.

        `plot.histogram()`: fitted null and slab over the histogram of z. `plot.shrinkage()`: effect to posterior mean,
        with a band. `plot.volcano()`: posterior mean against the local false sign rate. `plot.discoveries()`: how many
        discoveries there are at each rate, and how many of them are false, with a band.

        Examples
        --------
        >>> import finetti as fi
        >>> import numpy as np
        >>> found = fi.screen(np.linspace(-4, 4, 40), method="empirical", null="theoretical")
        >>> found.plot.volcano().get_xlabel()
        'posterior mean of effect'
        """
        return views.ScreenPlots(self)

    def report(self, path: Any) -> Path:
        """Write the screen as one HTML page that needs no network: figures, tables, diagnostics, what to know.

        The volcano and the table of tests answer to pointer and keyboard: search, sort, choose a rate, select, save the
        selection as CSV. Of more than 10,000 tests the table holds the most convincing.

        Parameters
        ----------
        path : str or path
            The file to write; in an existing directory `report.html`.

        Returns
        -------
        pathlib.Path
            The file written.

        Raises
        ------
        FinettiError
            If the directory does not exist, or the file cannot be written.

        Examples
        --------
        >>> import finetti as fi
        >>> import numpy as np
        >>> import tempfile
        >>> found = fi.screen(np.linspace(-4, 4, 40), method="empirical", null="theoretical")
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     found.report(directory).name
        'report.html'
        """
        return cast("Path", views.screen_report(self, path))
