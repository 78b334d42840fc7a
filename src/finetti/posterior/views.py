"""Views that live higher up, by name: this file imports nothing from `studies` or `show`.

Together with `model/bind.py` it is the only place that looks upward (see docs/decisions).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

__all__ = ["Plots"]


@dataclass(frozen=True)
class Plots:
    """Figures of one fit, as `fit.plot.shrinkage(...)`."""

    fit: Any

    def shrinkage(self, group: str | None = None, coefficient: str | None = None, ax: Any = None) -> Any:
        """Raw estimate to partially pooled estimate for every group; returns the matplotlib Axes.

        See `finetti.show.plots.shrinkage`.
        """
        return import_module("finetti.show.plots").shrinkage(self.fit, group=group, coefficient=coefficient, ax=ax)
