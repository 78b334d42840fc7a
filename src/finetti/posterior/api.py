"""`fit`: the front door."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any

from finetti.errors import FinettiError, ModelError
from finetti.inference.hyper import Progress
from finetti.inference.infer import infer
from finetti.model.model import Model
from finetti.model.priors import Prior
from finetti.posterior.draws import CHAINS
from finetti.posterior.fit import Fit

if TYPE_CHECKING:
    from finetti.data.bound import Bound

__all__ = ["fit", "fit_bound"]


def fit(
    formula: str | Model,
    data: Any,
    *,
    family: str = "gaussian",
    link: str | None = None,
    priors: Mapping[str, Prior] | None = None,
    structure: Any = None,
    parent: Any = None,
    pooling: str | Mapping[str, str] = "partial",
    method: str = "auto",
    missing: str = "error",
    draws: int = 4000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Fit:
    """Fit a Bayesian hierarchical model.

    Parameters
    ----------
    formula : str or Model
        Such as ``"Reaction ~ 1 + Days + (1 + Days | Subject)"``; with a `Model` the arguments `family` to
        `pooling` are its own and may not be given here.
    data : table or path
        A pandas, polars or pyarrow table, anything else that narwhals reads eagerly, or the path of a CSV or
        Parquet file.
    family, link : str
        The response's distribution; "gaussian" with the identity link.
    priors : mapping of str to prior, optional
        By label (``"sd_Subject[Days]"``), variable (``"sd_Subject"``) or class (``"beta"``, ``"sd"``, ``"cor"``,
        ``"sigma"``), the narrowest winning; ``"Intercept"`` is the prior on the predictor at the covariates'
        means. Defaults are weakly informative and scale with the data.
    structure, parent : None
        Known covariance among levels and non-Gaussian parents: not built yet.
    pooling : {"partial", "empirical", "complete", "none"} or mapping of term to one of them
        "partial" integrates over the hyperparameters; "empirical" maximises the marginal likelihood over them;
        "complete" leaves the group effects out; "none" frees them.
    method : {"auto", "exact", "nuts"}
        "exact" integrates the coefficients out and explores the hyperparameters by importance sampling; "nuts"
        samples everything by the No-U-Turn sampler, an independent check; "auto" is "exact", with NUTS where that
        fails its own checks.
    missing : {"error", "drop"}
        What to do with rows that have missing values in the columns used.
    draws : int
        Number of posterior draws that `Fit.draws` and `Fit.posterior` make, in four chains.
    seed : int
        The same seed gives the same numbers, whatever the number of threads.
    progress : callable (stage, done, total), optional
        Called now and then; `total` may be None.

    Returns
    -------
    Fit

    Raises
    ------
    FinettiError
        With what was given, what was expected, and what to do.

    Examples
    --------
    >>> import finetti as fi
    >>> fit = fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", fi.datasets.load("sleepstudy"))
    >>> fit.summary().loc["beta[Days]", ["mean", "sd"]].round(1).tolist()
    [10.5, 1.7]
    """
    _check_run(draws, seed, progress)
    if isinstance(formula, Model):
        given = {
            "family": family != "gaussian",
            "link": link is not None,
            "priors": priors is not None,
            "structure": structure is not None,
            "parent": parent is not None,
            "pooling": not (isinstance(pooling, str) and pooling == "partial"),
        }
        if any(given.values()):
            names = ", ".join(k for k, v in given.items() if v)
            raise ModelError(
                f"a Model was given, and beside it {names}, which the Model decides: leave them out here and give them "
                "to fi.Model(formula, ...)"
            )
        model = formula
    else:
        model = Model(
            formula, family=family, link=link, priors=priors, structure=structure, parent=parent, pooling=pooling
        )
    return fit_bound(model.bind(data, missing=missing), method=method, draws=draws, seed=seed, progress=progress)


def fit_bound(bound: Bound, *, method: str, draws: int, seed: int, progress: Progress | None) -> Fit:
    """Fit a model that has met its data already; the arguments are those of `fit`."""
    _check_run(draws, seed, progress)
    inference = infer(bound, method=method, seed=int(seed), progress=progress)
    return Fit(inference, -(-int(draws) // CHAINS) * CHAINS, int(seed))


def _check_run(draws: Any, seed: Any, progress: Any) -> None:
    if isinstance(draws, bool) or not isinstance(draws, Integral) or draws < CHAINS:
        raise FinettiError(f"draws={draws!r} must be a whole number of at least {CHAINS}, such as 4000")
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise FinettiError(f"seed={seed!r} must be a whole number of at least 0")
    if progress is not None and not callable(progress):
        raise FinettiError(f"progress={progress!r} is not callable; give a function of (stage, done, total), or None")
