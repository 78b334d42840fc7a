"""The same data and priors under another pooling: what the simpler analyses would have said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from finetti.data.variants import with_pooling
from finetti.inference.infer import infer

if TYPE_CHECKING:
    from finetti.posterior.fit import Fit

__all__ = ["companion", "memory"]

# kinds of pooling with a parent distribution
MODELLED = ("partial", "empirical")


def memory(fit: Fit) -> dict[object, object]:
    """Return a place on the fit for what is costly to compute and asked for again; never saved, never compared."""
    return fit.__dict__.setdefault("_memory", {})


def companion(fit: Fit, pooling: str | Mapping[str, str]) -> Fit:
    """Return the fit of the same bound model with another pooling, made when first asked for.

    Parameters
    ----------
    fit : Fit
    pooling : str or mapping
        A kind of pooling for all terms, or for those named; the other terms keep theirs. Priors are those of the
        original fit.

    Raises
    ------
    FinettiError
        If the model cannot be fitted so, such as two unpooled terms that overlap.
    """
    from finetti.posterior.fit import Fit

    kinds = dict(fit.model.pooling)
    kinds.update(dict.fromkeys(kinds, pooling) if isinstance(pooling, str) else pooling)
    if kinds == dict(fit.model.pooling) and not (pooling == "empirical" and not kinds):
        return fit
    key = ("companion", tuple(sorted(kinds.items())))
    kept = memory(fit)
    if key not in kept:
        bound = with_pooling(fit.model, pooling)
        hyper = fit.inference.hyper
        # the same terms have a parent distribution: theta means the same, and its mean is near the maximum
        same = fit.inference.estimate is None and {a for a in kinds if kinds[a] in MODELLED} == {
            a for a, kind in fit.model.pooling.items() if kind in MODELLED
        }
        near = hyper.weights @ hyper.theta if same else None
        kept[key] = Fit(infer(bound, seed=fit.seed, near=near), fit.n_draws, fit.seed)
    return kept[key]  # type: ignore[return-value]
