"""`screen`: thousands of tests at once, as draws from a spike at zero and a slab, with the whole prior learned.

    x_j | b_j ~ Normal(null_mean se_j + b_j, (null_sd se_j)^2)     or a t with df_j degrees of freedom
    b_j = 0 with probability pi0, else b_j ~ slab, centred at 0 with standard deviation slab_sd

The effects are integrated out test by test, in closed form or by quadrature; the two to four hyperparameters are
explored on weighted nodes. No point estimate of pi0 is plugged in anywhere, and what is not known about the
prior is in every row of the table.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.errors import DataError, FinettiError, FinettiWarning, ModelError, NotBuiltError, available
from finetti.inference.hyper import HyperPosterior, Progress, Settings, Target, explore, single_node
from finetti.inference.spike_slab import Nodes, Observed, Slab, make_slab
from finetti.inference.spike_slab_by_priors import spread_priors
from finetti.inference.spike_slab_empirical import Estimate, maximise, maximise_mixture
from finetti.inference.spike_slab_priors import Hyper, resolve_priors
from finetti.inference.spike_slab_sets import SetsTarget
from finetti.inference.spike_slab_target import ScreenTarget
from finetti.model.densities import Beta, Fixed
from finetti.model.priors import Prior
from finetti.posterior.fit import PROBS
from finetti.posterior.summary import check_probs, quantile_names
from finetti.studies.moderate import Moderated
from finetti.studies.screen_by_fit import SETTINGS, fit_by
from finetti.studies.screen_by_input import read_by
from finetti.studies.screen_diagnostics import ScreenDiagnostics, diagnose
from finetti.studies.screen_hyper import Common, Estimated, Learned
from finetti.studies.screen_input import FEW, Screened, few_degrees, read_moderated, read_screen
from finetti.studies.screen_questions import ScreenQuestions
from finetti.studies.screen_table import screen_table

__all__ = ["Screen", "ScreenDiagnostics", "screen"]

Floats = npt.NDArray[np.float64]

NULLS, SLABS, METHODS = ("free", "theoretical"), ("normal", "laplace", "student_t", "mixture"), ("full", "empirical")


def screen(
    effect: Any,
    se: Any = None,
    *,
    data: Any = None,
    df: Any = None,
    labels: Any = None,
    null: str = "free",
    slab: str = "normal",
    priors: Mapping[str, Prior] | None = None,
    by: Any = None,
    method: str = "full",
    seed: int = 0,
    contrast: str | None = None,
    progress: Progress | None = None,
) -> Screen:
    """Screen many tests: which effects are not null, how large are they, and how sure is that.

    Parameters
    ----------
    effect : str, array_like of shape (n,) or Moderated
        Estimated effects, one per test: the name of a column of `data`, or values. Without `se` they are z-values. Or
        what `moderate` returned: its effects, with errors averaged over the posterior of its variances.
    se : str, float or array_like of shape (n,), optional
        Their standard errors, in the units of the effect; all 1 by default.
    data : table or path, optional
        A pandas, polars or pyarrow table, anything else that narwhals reads eagerly, or the path of a CSV or Parquet
        file.
    df : str, float or array_like of shape (n,), optional
        Degrees of freedom of the standard errors: the errors are then t-distributed. Infinite for normal ones.
    labels : str or array_like of shape (n,), optional
        Names of the tests: a column of `data`, or values. They become the index of `table`.
    null : {"free", "theoretical"}
        Whether the null is N(null_mean, null_sd^2) in standard errors, both learned (Efron's empirical null), or
        N(0, 1).
    slab : {"normal", "laplace", "student_t", "mixture"}
        Distribution of the effects that are not null; `slab_sd` is its standard deviation. The t has 4 degrees of
        freedom. A mixture of normals on a grid of standard deviations is fitted by ``method="empirical"`` only.
    priors : mapping of str to prior, optional
        Under ``"pi0"`` (default beta(10, 1)), ``"slab_sd"`` (log-normal, median 3 median standard errors),
        ``"null_mean"`` and ``"null_sd"`` (t with 3 df around 0 and, in logs, around 1, between 0.2 and 5; in standard
        errors). `fixed`
        holds one at a value. Of a mixture, beta(a, b) gives the null the weight a of a Dirichlet(a, 1, ..., 1).
    by : str or array_like, optional
        A covariate of the tests, a column of `data` or values: pi0 and the slab's scale vary with it through a
        hierarchical prior. Text, categories and booleans are levels, each with a pi0 and a slab of its own around those
        of a typical one; numbers (whole ones too: ``.astype(str)`` makes levels of them) are cut into at most 50 bins
        of about as many tests, over which logit pi0 and log slab_sd are splines of three terms. How much they vary is
        learned: `hyper` then has `sd_pi0` and `sd_slab_sd`, standard deviations of logit pi0 and log slab_sd between
        levels or of each spline term, priors half-normal(1) and half-normal(0.5); its `pi0` is the share of nulls among
        all tests, its `slab_sd` that of the typical level. ``priors["pi0"]`` is of the typical level, too.
    method : {"full", "empirical"}
        Full Bayes, or maximum likelihood for the hyperparameters, which ignores hyperpriors and their uncertainty.
    seed : int
        Of the scrambled Sobol nodes.
    contrast : str, optional
        Of a `Moderated` with several contrasts, the one to screen.
    progress : callable (stage, done, total), optional
        Called now and then.

    Returns
    -------
    Screen

    Raises
    ------
    DataError, ModelError, PriorError
        For input that cannot be a screen, and for priors that leave the posterior improper.

    References
    ----------
    Efron (2008), Microarrays, empirical Bayes and the two-groups model, Statist. Sci. 23, 1-22.
    Stephens (2017), False discovery rates: a new deal, Biostatistics 18, 275-294.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> effects = np.where(np.arange(500) < 50, rng.normal(0, 4, 500), 0.0)
    >>> found = screen(effects + rng.normal(size=500), null="theoretical")
    >>> found.hyper().loc["pi0", ["q5", "q50", "q95"]].round(2).tolist()
    [0.87, 0.92, 0.95]
    >>> int((found.table()["qvalue"] < 0.05).sum())
    15
    """
    for name, value, options in (("null", null, NULLS), ("slab", slab, SLABS), ("method", method, METHODS)):
        if value not in options:
            raise ModelError(f"{name}={value!r} is unknown; {available(str(value), options)}")
    if slab == "mixture" and by is None and method == "full":
        raise NotBuiltError(
            "slab='mixture' is fitted by method='empirical' only: the posterior of its weights is not built yet. Give "
            "method='empirical', or slab='student_t' or 'laplace', which have heavy tails, too."
        )
    moderated, sets = None, None
    if isinstance(effect, Moderated):
        moderated = effect
        screened, tests, sets = read_moderated(effect, contrast, se=se, data=data, df=df, labels=labels)
    else:
        if contrast is not None:
            raise ModelError(
                f"contrast={contrast!r} chooses among those of fi.moderate's result, but here effects are given; leave "
                "it out."
            )
        screened = read_screen(effect, se, data, df=df, labels=labels)
        tests = Observed.of(screened.effect, screened.se, screened.df)
    covariate = None if by is None else read_by(_by_gene(by, screened) if moderated else by, data, screened.n)
    if sets is not None and (covariate is not None or method == "empirical"):
        # one t for each gene, the closest: an estimate has no nodes to average over, and groups of tests times sets of
        # standard errors would be dear
        tests, sets = Observed.of(screened.effect, screened.se, few_degrees(screened.df)), None
    spreads, priors = (None, priors) if covariate is None else spread_priors(priors)
    resolved = resolve_priors(priors, null, float(np.median(screened.se)))
    if np.ptp(tests.z) == 0.0 and not isinstance(resolved["null_sd"], Fixed):
        raise DataError(
            f"All {tests.n} effects are the same number of standard errors ({tests.z[0]:g}), so that a null learned "
            "from them would have no width. Check the input, or give null='theoretical'."
        )
    start = time.perf_counter()
    estimate: Estimate | None = None
    learned: Learned
    if covariate is not None and spreads is not None:
        tests, posterior, learned, estimate = fit_by(tests, covariate, slab, resolved, spreads, method, seed, progress)
        used = make_slab(slab)
    elif method == "empirical":
        estimate = _estimate(tests, slab, resolved)
        learned, used = Estimated(estimate), estimate.slab
        posterior = single_node((), np.zeros((1, 0)), (), estimate.log_likelihood)
    else:
        used, hyper = make_slab(slab), Hyper(resolved, float(np.median(screened.se)))
        target = ScreenTarget(tests, used, hyper)
        posterior = (
            _explore(target, seed, progress) if sets is None
            else _explore(SetsTarget(target, sets), seed, progress, SETTINGS)
        )  # fmt: skip
        learned = Common(tests, used, posterior, hyper, sets)
    seconds = time.perf_counter() - start
    out = Screen(screened, tests, posterior, used, learned, estimate, resolved, null, method, seed, seconds, moderated)
    if screened.n < FEW:
        warnings.warn(out.diagnostics.warnings[-1], FinettiWarning, stacklevel=2)
    return out


def _by_gene(by: Any, screened: Screened) -> Any:
    """Values in the order of the genes, where they are named by gene; genes that were dropped are passed over."""
    if not isinstance(by, (pd.Series, Mapping)):
        return by
    given = by if isinstance(by, pd.Series) else pd.Series(by)
    if isinstance(given.index, pd.RangeIndex) and len(given) == screened.n:
        return given
    given = given.set_axis(given.index.map(str))  # moderate writes every name as text, a number's too
    if not given.index.is_unique:
        raise DataError("by names a gene twice; give one value for each.")
    unknown = screened.labels[~screened.labels.isin(given.index)]
    if len(unknown):
        raise DataError(
            f"by has no value for gene {unknown[0]!r} ({len(unknown)} such genes in all). Its index must name the "
            "genes as the matrix does."
        )
    return given.loc[screened.labels]


def _explore(target: Target, seed: int, progress: Progress | None, settings: Settings | None = None) -> HyperPosterior:
    """The posterior of the hyperparameters; of one node where all are held."""
    if target.names:
        return explore(target, seed, settings, progress)
    theta = np.zeros((1, 0))
    return single_node((), theta, (), float(target.log_density(theta)[0][0]))


def _estimate(tests: Observed, slab: str, priors: dict[str, Prior]) -> Estimate:
    if slab == "mixture":
        share = priors["pi0"]
        if not isinstance(share, Beta) or share.a < 1.0 or isinstance(priors["slab_sd"], Fixed):
            raise ModelError(
                f"slab='mixture' takes priors={{'pi0': fi.beta(a, 1)}} with a of at least 1, the Dirichlet weight of "
                f"the null (1 for maximum likelihood), and none on slab_sd held at a value; given {share} and "
                f"{priors['slab_sd']}."
            )
        return maximise_mixture(tests, priors, share.a)
    return maximise(tests, make_slab(slab), priors)


@dataclass(frozen=True, eq=False)
class Screen(ScreenQuestions):
    """The posterior of a screen. Made by `finetti.screen`.

    Attributes
    ----------
    screened : the tests as given: `effect`, `se`, `df` (n,), df infinite for normal errors; `labels`
    tests, slab : the sampling model in the solver's terms
    posterior : weighted nodes of the hyperparameters, unconstrained; one node where they are estimated or held
    learned : the same as nodes, draws and table rows of the hyperparameters
    estimate : of maximum likelihood; None under full Bayes
    priors : dict of the priors used, by name of the hyperparameter; `fixed` where held
    null, method, seed : as asked for
    seconds : wall time of the inference
    moderated : what `moderate` returned, where it was screened; else None

    Examples
    --------
    >>> import numpy as np
    >>> found = screen(np.linspace(-4, 4, 40), method="empirical", null="theoretical")
    >>> found
    <Screen of 40 tests: normal slab, theoretical null, empirical>
    >>> list(found.table().columns[:7])
    ['effect', 'se', 'mean', 'sd', 'q5', 'q50', 'q95']
    """

    screened: Screened
    tests: Observed
    posterior: HyperPosterior
    slab: Slab
    learned: Learned
    estimate: Estimate | None
    priors: dict[str, Prior]
    null: str
    method: str
    seed: int
    seconds: float
    moderated: Moderated | None = None

    # --- what was learned of all tests together -------------------------------------------------------

    @property
    def n_tests(self) -> int:
        """Number of tests."""
        return self.screened.n

    @property
    def log_likelihood(self) -> float:
        """Maximised log p(x | hyperparameters), natural logarithm, in units of the effect.

        Raises
        ------
        FinettiError
            Under full Bayes, where nothing is maximised; `log_evidence` is its counterpart.
        """
        if self.estimate is None:
            raise FinettiError(
                "log_likelihood is the maximised one, of method='empirical'; this screen averages over its "
                "hyperparameters: see log_evidence"
            )
        return self.estimate.log_likelihood

    @property
    def log_evidence(self) -> float:
        """Log p(x), hyperparameters integrated out; full Bayes only.

        Raises
        ------
        FinettiError
            Under ``method="empirical"``, which has no hyperpriors.
        """
        if self.estimate is not None:
            raise FinettiError("log_evidence needs hyperpriors, which method='empirical' ignores; see log_likelihood")
        return self.posterior.log_evidence

    def hyper(self, probs: npt.ArrayLike = PROBS) -> pd.DataFrame:
        """The hyperparameters.

        Parameters
        ----------
        probs : sequence of float, optional
            Probabilities of the quantiles.

        Returns
        -------
        pandas.DataFrame
            Index `pi0`, `slab_sd` (in units of the effect), `null_mean`, `null_sd` (in standard errors); columns
            `mean`, `sd`, quantiles, `ess` and `mcse`. A hyperparameter that is held, or estimated by
            ``method="empirical"``, has its value in `mean` and the quantiles, and sd 0.
        """
        p = check_probs(probs)
        columns = ["mean", "sd", *quantile_names(p), "ess", "mcse"]
        rows, names = self.learned.rows(p), self.learned.names
        table = pd.DataFrame([rows[n] for n in names], index=pd.Index(names, name="parameter"), columns=columns)
        return self._marked(table)

    @property
    def nodes(self) -> tuple[Nodes, Floats]:
        """At most 32 nodes that stand for the posterior of the hyperparameters, and their weights: `screen_nodes`."""
        return self.learned.few

    @cached_property
    def diagnostics(self) -> ScreenDiagnostics:
        """How the posterior was computed and whether it passed its checks."""
        return diagnose(self)

    # --- what was learned of each test ----------------------------------------------------------------

    def table(self, probs: npt.ArrayLike = PROBS) -> pd.DataFrame:
        """Every test: its effect after shrinkage, how likely it is null, and how sure that is.

        Parameters
        ----------
        probs : sequence of float, optional
            Probabilities of the quantiles.

        Returns
        -------
        pandas.DataFrame
            One row per test in the order of the data, indexed by its label. `effect` and `se` as given; `mean`, `sd`
            and quantiles of the true effect b, its point mass at 0 included; `prob_null`, the probability that it is 0
            (local false discovery rate); `lfsr`, that it has not the sign it seems to have, 0 counted as wrong (local
            false sign rate); `qvalue` and `svalue`, the means of either over all tests at least as convincing;
            `prob_null_sd` and `mean_hyper_sd`, how far `prob_null` and `mean` vary over what is believed of the
            hyperparameters (standard deviations over nodes; 0 under ``method="empirical"``, which knows of none).
        """
        p = check_probs(probs)
        nodes, weights = self.nodes
        return self._marked(screen_table(self.screened, self.tests, self.slab, nodes, weights, p))

    def _marked(self, table: Any) -> Any:
        """The table; if the screen failed its own checks, with a warning given and attached."""
        if not self.diagnostics.ok:
            text = f"this screen failed its own checks: {self.diagnostics.warnings[0]}"
            table.attrs["warning"] = text
            warnings.warn(text, FinettiWarning, stacklevel=3)
        return table

    def __repr__(self) -> str:
        return f"<Screen of {self.n_tests:,} tests: {self.slab.name} slab, {self.null} null, {self.method}>"

    def __str__(self) -> str:
        head = [repr(self)[1:-1]] if self.diagnostics.ok else [f"{repr(self)[1:-1]}. IT FAILED ITS OWN CHECKS"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FinettiWarning)
            text = self.hyper().to_string(float_format=lambda v: f"{v:.4g}")
        return "\n".join([*head, "", text, "", *self.diagnostics.lines()])
