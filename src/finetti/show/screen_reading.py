"""A screen as `show` reads it: each table is computed once, however often it is printed, drawn and written."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetti.errors import FinettiWarning
from finetti.show.reading import PROBS

if TYPE_CHECKING:
    import pandas as pd

    from finetti.studies.screen_discoveries import Discoveries

__all__ = ["ScreenReading", "subject"]


class ScreenReading:
    """A screen that remembers its tables; everything else is the screen's own.

    The table of a million tests takes half a minute, and is asked for by the page, the figures and the files. A screen
    that failed its checks says so in a banner here, and not once more by a warning for every table.
    """

    def __init__(self, screen: Any) -> None:
        known = isinstance(screen, ScreenReading)
        self._screen: Any = screen._screen if known else screen
        self._kept: dict[Any, Any] = screen._kept if known else {}

    def table(self, probs: Sequence[float] = PROBS) -> pd.DataFrame:
        """As `Screen.table`; a new frame on the same columns, to which those who ask may add their own."""
        made: pd.DataFrame = self.kept(("table", *probs), lambda: self._screen.table(tuple(probs)))
        return made.copy(deep=False)

    def hyper(self, probs: Sequence[float] = PROBS) -> pd.DataFrame:
        """As `Screen.hyper`."""
        return self.kept(("hyper", *probs), lambda: self._screen.hyper(tuple(probs)))

    def discoveries(
        self, fdr: float | None = None, *, fsr: float | None = None, at_least: float | None = None
    ) -> Discoveries:
        """As `Screen.discoveries`."""
        from finetti.studies.screen_discoveries import discoveries

        this: Any = self  # whose table is made already
        key = ("discoveries", fdr, fsr, at_least)
        return self.kept(key, lambda: discoveries(this, fdr, fsr=fsr, at_least=at_least))

    def groups(self, probs: Sequence[float] = PROBS) -> pd.DataFrame | None:
        """As `Screen.groups`; None where all tests share one prior."""
        if self.covariate is None:
            return None
        return self.kept(("groups", *probs), lambda: self._screen.groups(tuple(probs)))

    @property
    def covariate(self) -> Any:
        """What the prior varies with (`by=`), else None."""
        return getattr(self._screen.learned, "covariate", None)

    @property
    def all_priors(self) -> dict[str, Any]:
        """Priors of the hyperparameters, those of the spreads between groups of tests among them."""
        spreads = (
            getattr(getattr(self._screen.learned, "hyper", None), "spreads", {}) if self.covariate is not None else {}
        )
        return {**self._screen.priors, **spreads}

    @property
    def moderated(self) -> Any:
        """What `finetti.moderate` returned, where it was screened, else None."""
        return getattr(self._screen, "moderated", None)

    @property
    def order(self) -> np.ndarray:
        """Positions of all tests, the most convincing first: by `prob_null`, then by `lfsr`, then as given."""

        def make() -> np.ndarray:
            table = self.table()
            return np.lexsort((table["lfsr"].to_numpy(), table["prob_null"].to_numpy()))

        return self.kept("order", make)

    def kept(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` returns, made when first asked for."""
        if key not in self._kept:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FinettiWarning)
                self._kept[key] = make()
        return self._kept[key]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._screen, name)


def subject(screen: Any) -> str:
    """Return what was screened, in the user's words.

    >>> from types import SimpleNamespace as S
    >>> subject(S(screened=S(effect_name="log2FC", z_values=False)))
    'log2FC'
    """
    name = str(screen.screened.effect_name)
    if name == "effect" and screen.screened.z_values:
        return "z-values"
    return name
