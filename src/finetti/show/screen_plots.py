"""Figures of a screen, each a function that takes the screen and returns the axes.

Every figure has a twin `<name>_figure` that is drawn outside pyplot, for files. Those that show every test take its
table, if it has been made already: of a million tests that takes seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetti.show import screen_curve, screen_histogram, screen_shrinkage, screen_volcano
from finetti.show import style as st
from finetti.show.axes import figure_of, one
from finetti.show.screen_facts import table_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "discoveries",
    "discoveries_figure",
    "histogram",
    "histogram_figure",
    "shrinkage",
    "shrinkage_figure",
    "volcano",
    "volcano_figure",
]


def histogram(screen: Any, ax: Axes | None = None) -> Axes:
    """Draw the histogram of z with the fitted null, the fitted slab, and their sum.

    Curves are posterior means with 90 % bands over the hyperparameters, averaged over the tests' standard errors and
    degrees of freedom. Heights are on a root scale, on which a small slab is seen beside its null. A null that was
    learned is compared with the theoretical one.

    Parameters
    ----------
    screen : Screen
        What `finetti.screen` returned.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    References
    ----------
    Efron (2004), Large-scale simultaneous hypothesis testing, J. Amer. Statist. Assoc. 99, 96-104.

    Examples
    --------
    >>> import finetti as fi, numpy as np
    >>> z = np.r_[np.linspace(-2, 2, 60), 4.0, 5.0, -6.0]
    >>> fi.screen(z, method="empirical", null="theoretical").plot.histogram().get_xlabel()
    'z'
    """
    return _histogram(screen, ax, interactive=True)


def histogram_figure(screen: Any) -> Figure:
    """Draw the figure of `histogram` outside pyplot."""
    return figure_of(_histogram(screen, None, interactive=False))


def _histogram(screen: Any, ax: Axes | None, *, interactive: bool) -> Axes:
    return one(lambda a: screen_histogram.draw(a, screen), (screen_histogram.HEIGHT, st.WIDTH), ax, interactive)


def shrinkage(screen: Any, ax: Axes | None = None, *, table: pd.DataFrame | None = None) -> Axes:
    """Draw what is left of an estimated effect: its posterior mean against the estimate.

    Where standard errors differ, both are in standard errors, and a curve is drawn for their 10, 50 and 90 %
    quantiles; with covariates, for those of pi0. At most 5,000
    tests are shown as points, the most extreme ones among them.

    Parameters
    ----------
    screen : Screen
        What `finetti.screen` returned.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure.
    table : pandas.DataFrame, optional
        `screen.table()`, if it has been made already.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> import finetti as fi, numpy as np
    >>> z = np.r_[np.linspace(-2, 2, 60), 4.0, 5.0, -6.0]
    >>> fi.screen(z, method="empirical", null="theoretical").plot.shrinkage().get_ylabel()
    'posterior mean'
    """
    return _shrinkage(screen, ax, table, interactive=True)


def shrinkage_figure(screen: Any, table: pd.DataFrame | None = None) -> Figure:
    """Draw the figure of `shrinkage` outside pyplot."""
    return figure_of(_shrinkage(screen, None, table, interactive=False))


def _shrinkage(screen: Any, ax: Axes | None, table: pd.DataFrame | None, *, interactive: bool) -> Axes:
    rows = table_of(screen, table)
    return one(lambda a: screen_shrinkage.draw(a, screen, rows), screen_shrinkage.size(screen), ax, interactive)


def volcano(screen: Any, ax: Axes | None = None, *, table: pd.DataFrame | None = None) -> Axes:
    """Draw every test's posterior mean against its local false sign rate, the convincing ones at the top.

    Discoveries at a false discovery rate of 5 % (`qvalue`) stand out, the most convincing of them are named. Rates
    below the lowest one shown lie at the upper edge as triangles. All discoveries are drawn, and at most 20,000 others.

    Parameters
    ----------
    screen : Screen
        What `finetti.screen` returned.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure.
    table : pandas.DataFrame, optional
        `screen.table()`, if it has been made already.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> import finetti as fi, numpy as np
    >>> z = np.r_[np.linspace(-2, 2, 60), 4.0, 5.0, -6.0]
    >>> fi.screen(z, method="empirical", null="theoretical").plot.volcano().get_xlabel()
    'posterior mean of effect'
    """
    return _volcano(screen, ax, table, interactive=True)


def volcano_figure(screen: Any, table: pd.DataFrame | None = None) -> Figure:
    """Draw the figure of `volcano` outside pyplot."""
    return figure_of(_volcano(screen, None, table, interactive=False))


def _volcano(screen: Any, ax: Axes | None, table: pd.DataFrame | None, *, interactive: bool) -> Axes:
    rows = table_of(screen, table)
    return one(lambda a: screen_volcano.draw(a, screen, rows), (screen_volcano.HEIGHT, st.WIDTH), ax, interactive)


def discoveries(screen: Any, ax: Axes | None = None, *, curve: pd.DataFrame | None = None) -> Axes:
    """Draw the number of discoveries against the false discovery rate, from 0.1 to 30 %.

    Below it the number of false ones among them: its posterior mean, and its 90 % interval.

    Parameters
    ----------
    screen : Screen
        What `finetti.screen` returned.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure.
    curve : pandas.DataFrame, optional
        What `finetti.studies.screen_discoveries.discovery_curve` returned, if it has been made already.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> import finetti as fi, numpy as np
    >>> z = np.r_[np.linspace(-2, 2, 60), 4.0, 5.0, -6.0]
    >>> fi.screen(z, method="empirical", null="theoretical").plot.discoveries().get_xlabel()
    'nominal false discovery rate (FDR), %'
    """
    return _discoveries(screen, ax, curve, interactive=True)


def discoveries_figure(screen: Any, curve: pd.DataFrame | None = None) -> Figure:
    """Draw the figure of `discoveries` outside pyplot."""
    return figure_of(_discoveries(screen, None, curve, interactive=False))


def _discoveries(screen: Any, ax: Axes | None, curve: pd.DataFrame | None, *, interactive: bool) -> Axes:
    if curve is None:
        from finetti.studies.screen_discoveries import discovery_curve

        curve = discovery_curve(screen, screen_curve.RATES)
    rows = curve
    return one(lambda a: screen_curve.draw(a, screen, rows), (screen_curve.HEIGHT, st.WIDTH), ax, interactive)
