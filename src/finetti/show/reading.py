"""A fit as `show` reads it: each table is computed once, however often it is printed, drawn and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from finetti.posterior.pooling import Pooling
    from finetti.posterior.weights import Weights

__all__ = ["Reading", "is_meta", "pooling_of", "sentences"]

PROBS = (0.05, 0.5, 0.95)


class Reading:
    """A fit that remembers its tables; everything else is the fit's own.

    A table of 85 counties takes 50 ms to make, and is asked for by the terminal, the figures, the page and the files.
    """

    def __init__(self, fit: Any) -> None:
        self._fit: Any = fit
        self._tables: dict[tuple[Any, ...], Any] = {}
        if isinstance(fit, Reading):  # share what is known already
            self._fit, self._tables = fit._fit, fit._tables

    def summary(self, probs: Sequence[float] = PROBS) -> pd.DataFrame:
        """As `Fit.summary`."""
        return self._table("summary", probs)

    def groups(self, group: str, probs: Sequence[float] = PROBS) -> pd.DataFrame:
        """As `Fit.groups`."""
        return self.kept(("groups", group, *probs), lambda: self._fit.groups(group, probs=tuple(probs)))

    def studies(self, probs: Sequence[float] = PROBS) -> pd.DataFrame:
        """As `Meta.studies`; of a meta-analysis only."""
        return self._table("studies", probs)

    def overall(self, probs: Sequence[float] = PROBS) -> pd.DataFrame:
        """As `Meta.overall`; of a meta-analysis only."""
        return self._table("overall", probs)

    def heterogeneity(self, probs: Sequence[float] = PROBS) -> pd.DataFrame:
        """As `Meta.heterogeneity`; of a meta-analysis only."""
        return self._table("heterogeneity", probs)

    def weights(self, group: str | None = None) -> Weights:
        """As `Fit.weights`."""
        return self.kept(("weights", group), lambda: self._fit.weights(group))

    def pooling(self, group: str | None = None) -> Pooling:
        """As `Fit.pooling`, with 90 % intervals."""
        return self.kept(("pooling", group), lambda: self._fit.pooling(group))

    def uncertainty(self, group: str | None = None) -> pd.DataFrame:
        """As `Fit.uncertainty`."""
        return self.kept(("uncertainty", group), lambda: self._fit.uncertainty(group))

    def _table(self, kind: str, probs: Sequence[float]) -> pd.DataFrame:
        return self.kept((kind, *probs), lambda: getattr(self._fit, kind)(probs=tuple(probs)))

    def kept(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """What `make` returns, made when first asked for."""
        if key not in self._tables:
            self._tables[key] = make()
        return self._tables[key]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fit, name)


def sentences(fit: Any) -> list[tuple[str, bool]]:
    """Return the diagnostics, a sentence each, and whether it is a warning; no warning is said twice."""
    found = fit.diagnostics
    lines = [(line, any(w in line for w in found.warnings)) for line in found.lines()]
    said = [line for line, _ in lines]
    return lines + [(w, True) for w in found.warnings if not any(w in line for line in said)]


def is_meta(fit: Any) -> bool:
    """Whether the fit is a meta-analysis, which has tables of studies."""
    return hasattr(type(fit._fit if isinstance(fit, Reading) else fit), "studies")


def pooling_of(fit: Any, group: str) -> str:
    """Return how a term was pooled: "partial", "empirical", "complete" or "none"."""
    return str(fit.model.pooling.get(group, "partial"))
