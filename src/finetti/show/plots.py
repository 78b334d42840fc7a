"""Figures of a fit, each a function that takes the fit and returns the axes. So far: shrinkage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetti.show import shrinkage as drawing
from finetti.show import style as st
from finetti.show.estimates import select

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["shrinkage", "shrinkage_figure"]


def shrinkage(fit: Any, group: str | None = None, coefficient: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw every group's raw estimate and the partially pooled estimate that it is pulled to.

    Up to 120 groups have a row each: hollow dot (raw, larger with more rows), segment, filled dot (partially
    pooled, with its 90 % interval), and the population value as a dashed line. More groups than that are
    drawn as a cloud, raw against partially pooled: on the diagonal nothing was shrunk, on the dashed line everything.

    Parameters
    ----------
    fit : Fit
        What `finetti.fit` returned.
    group : str, optional
        The grouping factor, e.g. ``"Subject"``. Default: the first of the model.
    coefficient : str, optional
        The coefficient that varies by group, e.g. ``"Days"``. Default: the first of the grouping factor.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure of a fitting height.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    FinettiError
        If the model has no such group or coefficient; the message lists those it has.

    Examples
    --------
    >>> import finetti as fi
    >>> schools = {"school": list("ABC"), "effect": [28.0, 8.0, -3.0], "se": [15.0, 10.0, 16.0]}
    >>> import pandas as pd
    >>> fit = fi.fit("effect | se(se) ~ 1 + (1 | school)", pd.DataFrame(schools))
    >>> fit.plot.shrinkage("school").get_xlabel()
    'effect, by school'
    """
    rows = select(fit, group, coefficient)
    if ax is None:
        ax = st.figure(*drawing.size(rows))[1]
    with st.style():
        drawing.draw(ax, rows)
    return ax


def shrinkage_figure(fit: Any, group: str | None = None, coefficient: str | None = None) -> Figure:
    """Draw the same figure outside pyplot, for files: no display is needed and nothing stays open."""
    rows = select(fit, group, coefficient)
    fig, ax = st.figure(*drawing.size(rows), interactive=False)
    with st.style():
        drawing.draw(ax, rows)
    return fig
