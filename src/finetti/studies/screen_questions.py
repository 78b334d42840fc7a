"""What can be asked of a screen once its prior is learned: methods of `Screen`, each answered by a module of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetti.posterior import views

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from finetti.studies.screen_discoveries import Discoveries
    from finetti.studies.screen_uncertainty import ScreenUncertainty

__all__ = ["ScreenQuestions"]

PROBS = (0.05, 0.5, 0.95)


class ScreenQuestions:
    """Questions to a `Screen`."""

    def discoveries(
        self, fdr: float | None = None, *, fsr: float | None = None, at_least: float | None = None
    ) -> Discoveries:
        from finetti.studies.screen_discoveries import discoveries

        return discoveries(self, fdr=fdr, fsr=fsr, at_least=at_least)  # type: ignore[arg-type]

    def draws(self, what: Any, n: int = 4000) -> npt.NDArray[np.float64] | pd.DataFrame:
        from finetti.studies.screen_draws import draws

        return draws(self, what, n)  # type: ignore[arg-type]

    def predict(self, se: Any = None, probs: npt.ArrayLike = PROBS) -> pd.DataFrame:
        from finetti.studies.screen_predict import predict

        return predict(self, se, probs)  # type: ignore[arg-type]

    def uncertainty(self) -> ScreenUncertainty:
        from finetti.studies.screen_uncertainty import uncertainty

        return uncertainty(self)  # type: ignore[arg-type]

    def groups(self, probs: npt.ArrayLike = PROBS) -> pd.DataFrame:
        from finetti.studies.screen_by import groups

        return groups(self, probs)  # type: ignore[arg-type]

    @property
    def plot(self) -> views.ScreenPlots:
        """Figures: `plot.histogram`, `plot.shrinkage`, `plot.volcano`, `plot.discoveries`."""
        return views.ScreenPlots(self)

    def report(self, path: Any) -> Any:
        return views.screen_report(self, path)
