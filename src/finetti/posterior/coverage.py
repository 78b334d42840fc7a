"""Do intervals hold what they promise? Empirical and full Bayes on simulated data, where the truth is known.

A central 90 % interval should contain the truth in 90 % of data sets. Averaged over hyperparameters drawn from the
prior, those of full Bayes do so by construction (for any set A(y) of posterior probability 0.9, P(truth in A(y)) is
the mean of 0.9 over y); at one fixed truth they may hold more or less. Intervals of empirical Bayes are computed as
if the hyperparameters were known, and fall short where the data say little about them: few groups, small variance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.errors import FinettiError
from finetti.posterior.coverage_runs import Outcome, Quantity, Scenario, Study, quantities
from finetti.posterior.coverage_table import advise, outcome_table, written
from finetti.posterior.coverage_truth import Truth, from_design, one_way
from finetti.posterior.parallel import run

if TYPE_CHECKING:
    from finetti.model.priors import Prior
    from finetti.posterior.fit import Fit

__all__ = ["Coverage", "CoveragePlots", "coverage"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Coverage:
    """What `finetti.coverage` returns; `print` shows the groups' effects in short and says what to conclude.

    Attributes
    ----------
    table : pandas.DataFrame
        A row for each design, quantity and method:
        `groups`, `rows_per_group` (of the one-way model) or `design` (the formula of a fit);
        `quantity` ("group effects", "a new group", or a label as in `Fit.summary`); `method` ("empirical Bayes" or
        "full Bayes"); `nominal` and `coverage`, shares between 0 and 1; `se`, the simulation error of `coverage`;
        `length`, the mean length of the intervals, in units of the response; `length_ratio`, that length over the one
        of full Bayes; `n_sims` that entered, `n_failed` that did not; `sd_zero`, the share of simulations in which
        empirical Bayes put the standard deviation behind the quantity at exactly zero.
    advice : tuple of str
        What was found and what to do about it.
    truth : str or dict
        "prior", "posterior", or the values that all data sets were simulated from.
    prob : float
        What the intervals promise.
    """

    table: pd.DataFrame
    advice: tuple[str, ...]
    truth: Truth
    prob: float

    @cached_property
    def plot(self) -> CoveragePlots:
        """Figures: `plot.coverage()`."""
        return CoveragePlots(self)

    def __str__(self) -> str:
        return written(self.table, self.advice, self.truth, self.prob)

    __repr__ = __str__


@dataclass(frozen=True)
class CoveragePlots:
    """Figures of a coverage study."""

    result: Coverage

    def coverage(self, quantity: str | None = None, ax: Any = None) -> Any:
        """Coverage of both kinds of intervals against the number of groups; returns the matplotlib Figure.

        See `finetti.show.coverage.coverage`.
        """
        from finetti.posterior.views import draw

        return draw("coverage", "coverage", self.result, quantity=quantity, ax=ax)


def coverage(
    fit: Fit | None = None,
    *,
    groups: int | Sequence[int] | None = None,
    rows_per_group: int | Sequence[int] | None = None,
    truth: Mapping[str, float] | str | None = None,
    n_sims: int = 200,
    prob: float = 0.9,
    priors: Mapping[str, Prior] | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int | None], None] | None = None,
    n_jobs: int | None = None,
) -> Coverage:
    """Simulate data, analyse them by empirical and by full Bayes, and count how often intervals contain the truth.

    Two questions, one function. Without a fit: how many groups and rows does it take? Data come from the one-way model
    `y ~ 1 + (1 | group)` with every combination of `groups` and `rows_per_group`. With a fit: what do the two analyses
    deliver on MY design? Data come from its own rows, groups, known errors, weights and offsets.

    Parameters
    ----------
    fit : Fit, optional
        What `finetti.fit` or `finetti.meta` returned. Terms that it pooled partially or empirically are studied;
        its priors are used as they are.
    groups, rows_per_group : int or sequence of int
        Designs of the one-way model, each at least 2 (from one row per group the two standard deviations cannot be
        told apart).
    truth : mapping, "prior", "posterior" or None
        The values to simulate from. Keys are labels as in `Fit.summary`, or short: "mean" (the intercept), "sd" (where
        there is one), "sigma". For the one-way model what is not named is mean 0, sd 0.3, sigma 1; for a fit it is
        the posterior median (the mean, for correlations). "prior" draws hyperparameters and coefficients from the
        priors anew for each simulation: full Bayes then has its nominal coverage by construction. "posterior" (of a
        fit) draws them from the posterior.
    n_sims : int
        Data sets per design. 200 leave a simulation error of about 1 % in the coverage of group effects and 2 % in
        that of a single parameter; 1,000 halve it.
    prob : float
        Probability of the central intervals.
    priors : mapping, optional
        Priors by key as in `finetti.fit`; for a fit, by label as in `Fit.priors`. Those not given are, for the one-way
        model, the default rule on the scale of the truth and not of any simulated data set: with
        s = sqrt(sd² + sigma²), Intercept normal(mean, 2.5 s), `sd_group[Intercept]` and `sigma` half_t(3, s); with
        `truth="prior"` s = 1 and mean = 0.
    seed : int
        The same seed gives the same numbers, for any number of jobs.
    progress : callable (stage, done, total), optional
        Told how far it is.
    n_jobs : int, optional
        Processes; by default the cores there are.

    Returns
    -------
    Coverage
        `.table`, `.advice`, `.plot.coverage()`; `print` shows it in words.

    Raises
    ------
    FinettiError
        If the arguments contradict each other, a label is not known, or a value is out of range.

    Notes
    -----
    The interval of a group's effect is that of its whole coefficient, population value plus deviation; "a new group" is
    one that was not observed, drawn from the same parent. Coverage is averaged over the groups of a simulation first,
    so that simulations are independent and their spread gives the standard error.

    Fits use fewer nodes than `finetti.fit` (Monte Carlo errors up to 4 % of a posterior sd in means and 10 % in
    quantiles). These errors have mean zero; their effect on coverage is of second order and far below the simulation
    error.

    References
    ----------
    Morris (1983), Parametric empirical Bayes inference, J. Am. Stat. Assoc. 78, 47-55.
    Carlin and Gelfand (1990), Approaches for empirical Bayes confidence intervals, J. Am. Stat. Assoc. 85, 105-114.

    Examples
    --------
    >>> import finetti as fi
    >>> found = fi.coverage(groups=[5, 50], rows_per_group=5, truth={"sd": 0.3}, n_sims=20, n_jobs=1)
    >>> found.table["quantity"].unique().tolist()
    ['group effects', 'a new group', 'beta[Intercept]', 'sd_group[Intercept]', 'sigma']
    >>> few = found.table.query("groups == 5 and quantity == 'group effects'").set_index("method")
    >>> bool(few.loc["empirical Bayes", "coverage"] < few.loc["full Bayes", "coverage"])
    True
    """
    _check(n_sims, prob, seed, progress)
    if fit is None:
        where, scenarios, said = one_way(groups, rows_per_group, truth, priors, prob, seed)
    else:
        if groups is not None or rows_per_group is not None:
            raise FinettiError(
                "fi.coverage was given a fit and groups= or rows_per_group=: a fit is studied with its own design. "
                "Leave the fit out to study the one-way model, or groups= and rows_per_group= to study the fit"
            )
        where, scenarios, said = from_design(fit, truth, priors, n_sims, prob, seed)
    outcomes = _run(scenarios, n_sims, progress, n_jobs)
    table = outcome_table(where, outcomes, prob)
    return Coverage(table, advise(table, said, prob), said, prob)


def _run(
    scenarios: list[Scenario], n_sims: int, progress: Any, n_jobs: int | None
) -> list[tuple[tuple[Quantity, ...], list[Outcome]]]:
    """Every simulation of every scenario."""
    study = Study(tuple(scenarios), tuple(quantities(s.bound) for s in scenarios))
    k = len(scenarios)
    # a simulation of every design in turn: pieces of work are then alike, and progress is even
    found = run(study, [(s, i) for i in range(n_sims) for s in range(k)], progress, n_jobs)
    return [(study.wanted[s], found[s::k]) for s in range(k)]


def _check(n_sims: Any, prob: Any, seed: Any, progress: Any) -> None:
    if isinstance(n_sims, bool) or not isinstance(n_sims, Integral) or n_sims < 2:
        raise FinettiError(f"n_sims={n_sims!r} must be a whole number of at least 2, such as 200")
    if isinstance(prob, bool) or not isinstance(prob, Real) or not 0.0 < float(prob) < 1.0:
        raise FinettiError(f"prob={prob!r} must lie strictly between 0 and 1, such as 0.9")
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise FinettiError(f"seed={seed!r} must be a whole number of at least 0")
    if progress is not None and not callable(progress):
        raise FinettiError(f"progress={progress!r} is not callable; give a function of (stage, done, total), or None")
