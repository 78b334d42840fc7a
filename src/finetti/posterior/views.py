"""Views that live higher up, by name: this file imports nothing from `studies` or `show`.

Together with `model/bind.py` it is the only place that looks upward (see docs/decisions).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

__all__ = ["Plots", "ScreenPlots", "draw", "report", "restore", "screen_report"]


def draw(module: str, name: str, result: Any, **options: Any) -> Any:
    """Draw a result that has a figure of its own: `finetti.show.<module>.<name>(result, ...)`."""
    return getattr(import_module(f"finetti.show.{module}"), name)(result, **options)


def report(fit: Any, path: Any, **page: Any) -> Any:
    """Write the HTML report of a fit; see `finetti.show.report.write`."""
    return import_module("finetti.show.report").write(fit, path, **page)


def screen_report(screen: Any, path: Any) -> Any:
    """Write the HTML report of a screen; see `finetti.show.screen_report.write`."""
    return import_module("finetti.show.screen_report").write(screen, path)


def restore(study: str, fit: Any, extra: Any) -> Any:
    """Give a loaded fit back to the study that made it, such as "meta"; see `finetti.studies.meta.restore`."""
    return import_module(f"finetti.studies.{study}").restore(fit, extra)


@dataclass(frozen=True)
class Plots:
    """Figures of one fit, as `fit.plot.shrinkage(...)`. Each returns the matplotlib Axes, or a Figure of several."""

    fit: Any

    def _draw(self, name: str, module: str = "plots", **options: Any) -> Any:
        return getattr(import_module(f"finetti.show.{module}"), name)(self.fit, **options)

    def shrinkage(self, group: str | None = None, coefficient: str | None = None, ax: Any = None) -> Any:
        """Raw estimate to partially pooled estimate for every group; returns the matplotlib Axes.

        See `finetti.show.plots.shrinkage`.
        """
        return self._draw("shrinkage", group=group, coefficient=coefficient, ax=ax)

    def forest(self, group: str | None = None, coefficient: str | None = None, ax: Any = None) -> Any:
        """Every group's raw and partially pooled estimate with intervals and weight, a row each; returns the Axes.

        See `finetti.show.plots.forest`.
        """
        return self._draw("forest", group=group, coefficient=coefficient, ax=ax)

    def hyper(self, ax: Any = None) -> Any:
        """Posterior of each standard deviation and correlation against its prior; returns the Figure.

        See `finetti.show.plots.hyper`.
        """
        return self._draw("hyper", ax=ax)

    def predictive(self, n: int = 50, ax: Any = None) -> Any:
        """Responses drawn from the fitted model over those observed; returns the Axes.

        See `finetti.show.plots.predictive`.
        """
        return self._draw("predictive", n=n, ax=ax)

    def pairs(self, ax: Any = None) -> Any:
        """Hyperparameter nodes in pairs, coloured by weight; returns the Figure.

        See `finetti.show.plots.pairs`.
        """
        return self._draw("pairs", ax=ax)

    def funnel(self, ax: Any = None) -> Any:
        """Effects of a meta-analysis against their standard errors; returns the Axes.

        See `finetti.show.plots.funnel`.
        """
        return self._draw("funnel", ax=ax)

    def weights(self, group: str | None = None, coefficient: str | None = None, ax: Any = None) -> Any:
        """Shrinkage weight of every group against its size; returns the Axes.

        See `finetti.show.weights.weights`.
        """
        return self._draw("weights", "weights", group=group, coefficient=coefficient, ax=ax)

    def pooling(self, group: str | None = None, coefficient: str | None = None, ax: Any = None) -> Any:
        """Every group under four kinds of pooling; returns the Axes.

        See `finetti.show.pooling.pooling`.
        """
        return self._draw("pooling", "pooling", group=group, coefficient=coefficient, ax=ax)

    def uncertainty(self, group: str | None = None, coefficient: str | None = None, ax: Any = None) -> Any:
        """Variance of every group's effect, in its two parts, as stacked bars; returns the Axes.

        See `finetti.show.uncertainty.uncertainty`.
        """
        return self._draw("uncertainty", "uncertainty", group=group, coefficient=coefficient, ax=ax)

    def exchangeability(self, group: str | None = None, by: Any = None, ax: Any = None) -> Any:
        """Are the groups draws from one parent: quantiles of their surprise, effects against columns.

        See `finetti.show.exchangeability.exchangeability`.
        """
        return self._draw("exchangeability", "exchangeability", group=group, by=by, ax=ax)

    def sensitivity(self, ax: Any = None) -> Any:
        """How far each parameter moves when prior or likelihood are scaled; returns the Axes or Figure.

        See `finetti.show.sensitivity.sensitivity`.
        """
        return self._draw("sensitivity", "sensitivity", ax=ax)


@dataclass(frozen=True)
class ScreenPlots:
    """Figures of one screen, as `found.plot.volcano()`. Each returns the matplotlib Axes."""

    screen: Any

    def _draw(self, name: str, **options: Any) -> Any:
        return draw("screen_plots", name, self.screen, **options)

    def histogram(self, ax: Any = None) -> Any:
        """Fitted null and slab over the histogram of z; see `finetti.show.screen_plots.histogram`."""
        return self._draw("histogram", ax=ax)

    def shrinkage(self, ax: Any = None) -> Any:
        """Effect to posterior mean, with a band; see `finetti.show.screen_plots.shrinkage`."""
        return self._draw("shrinkage", ax=ax)

    def volcano(self, ax: Any = None) -> Any:
        """Posterior mean against the local false sign rate; see `finetti.show.screen_plots.volcano`."""
        return self._draw("volcano", ax=ax)

    def discoveries(self, ax: Any = None) -> Any:
        """Number of discoveries against the false discovery rate; see `finetti.show.screen_plots.discoveries`."""
        return self._draw("discoveries", ax=ax)
