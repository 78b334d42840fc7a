"""Figures of a fit, each a function that takes the fit and returns the axes, or a figure of several.

Every figure has a twin `<name>_figure` that is drawn outside pyplot, for files: no display is needed and
nothing stays open.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from finetti.show import forest as forest_drawing
from finetti.show import funnel as funnel_drawing
from finetti.show import hyper as hyper_drawing
from finetti.show import pairs as pair_drawing
from finetti.show import predictive as check
from finetti.show import shrinkage as drawing
from finetti.show import study_forest
from finetti.show import style as st
from finetti.show.axes import figure_of, one, several
from finetti.show.estimates import select
from finetti.show.reading import is_meta
from finetti.show.replicates import replicate
from finetti.show.studies import studies_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "forest",
    "forest_figure",
    "funnel",
    "funnel_figure",
    "hyper",
    "hyper_figure",
    "pairs",
    "pairs_figure",
    "predictive",
    "predictive_figure",
    "shrinkage",
    "shrinkage_figure",
]


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
    return _shrinkage(fit, group, coefficient, ax, interactive=True)


def shrinkage_figure(fit: Any, group: str | None = None, coefficient: str | None = None) -> Figure:
    """Draw the figure of `shrinkage` outside pyplot."""
    return figure_of(_shrinkage(fit, group, coefficient, None, interactive=False))


def _shrinkage(fit: Any, group: str | None, coefficient: str | None, ax: Axes | None, *, interactive: bool) -> Axes:
    rows = select(fit, group, coefficient)
    return one(lambda a: drawing.draw(a, rows), drawing.size(rows), ax, interactive)


def forest(fit: Any, group: str | None = None, coefficient: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw a row per group: its own estimate and the partially pooled one, each with a 90 % interval.

    To the right stand the number of rows and the weight of the group's own data. More than 60 groups are drawn
    without names, as a caterpillar. Of a meta-analysis the rows are its studies in the order given, with each one's
    share in the overall effect; below them the overall effect (diamond) and the prediction interval of a new study.

    Parameters
    ----------
    fit : Fit or Meta
        What `finetti.fit` or `finetti.meta` returned.
    group, coefficient : str, optional
        As in `shrinkage`. A meta-analysis shows its studies; with a group, that term like any other.
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
    >>> fit = fi.fit("effect | se(se) ~ 1 + (1 | school)", fi.datasets.load("eight_schools"))
    >>> fit.plot.forest().get_xlabel()
    'effect, by school'
    """
    return _forest(fit, group, coefficient, ax, interactive=True)


def forest_figure(fit: Any, group: str | None = None, coefficient: str | None = None) -> Figure:
    """Draw the figure of `forest` outside pyplot."""
    return figure_of(_forest(fit, group, coefficient, None, interactive=False))


def _forest(fit: Any, group: str | None, coefficient: str | None, ax: Axes | None, *, interactive: bool) -> Axes:
    if is_meta(fit) and group is None and coefficient is None:
        found = studies_of(fit, "forest")
        return one(lambda a: study_forest.draw(a, found), study_forest.size(found), ax, interactive)
    rows = select(fit, group, coefficient, "forest")
    return one(lambda a: forest_drawing.draw(a, rows), forest_drawing.size(rows), ax, interactive)


def hyper(fit: Any, ax: Axes | Iterable[Axes] | None = None) -> Figure:
    """Draw the posterior density of every standard deviation and correlation against its prior's.

    Densities are estimated from the weighted nodes with reflection at the ends of a parameter's range, so that
    none reaches below zero; medians and 90 % intervals are those of `summary`.

    Parameters
    ----------
    fit : Fit
        What `finetti.fit` returned.
    ax : Axes or sequence of Axes, optional
        Where to draw: one for each hyperparameter. Default: a new figure of small multiples.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    FinettiError
        If the model has no hyperparameters, or `ax` too few Axes.

    Examples
    --------
    >>> import finetti as fi
    >>> fit = fi.fit("effect | se(se) ~ 1 + (1 | school)", fi.datasets.load("eight_schools"))
    >>> fit.plot.hyper().axes[0].get_title(loc="left")
    'sd_school[Intercept]'
    """
    return _hyper(fit, ax, interactive=True)


def hyper_figure(fit: Any) -> Figure:
    """Draw the figure of `hyper` outside pyplot."""
    return _hyper(fit, None, interactive=False)


def _hyper(fit: Any, ax: Any, *, interactive: bool) -> Figure:
    panels = hyper_drawing.panels(fit)
    if ax is not None:
        axes = several(ax, "hyper")
        with st.style():
            hyper_drawing.draw(axes, panels)
        return figure_of(axes[0])
    rows, columns, height = hyper_drawing.size(panels)
    head = st.header_height(panels.title, panels.subtitle)
    fig, grid = st.panels(rows, columns, height + head, interactive=interactive)
    with st.style():
        hyper_drawing.draw(list(grid.flat), panels)
        st.header(fig, panels.title, panels.subtitle)
    return fig


def predictive(fit: Any, n: int = 50, ax: Axes | None = None) -> Axes:
    """Draw the observed responses over data sets that the fitted model produces: a posterior predictive check.

    Every replicated data set has the groups, predictors and known errors of the data. Densities share one grid and one
    bandwidth; a response on a few even steps is shown as bars. The subtitle gives the share of replicates whose
    mean, sd, minimum and maximum exceed those observed.

    Parameters
    ----------
    fit : Fit
        What `finetti.fit` returned.
    n : int
        Number of replicated data sets.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    FinettiError
        If `n` is not between 1 and 1,000.

    References
    ----------
    Gelman, Meng and Stern (1996), Posterior predictive assessment of model fitness, Statistica Sinica 6, 733-807.

    Examples
    --------
    >>> import finetti as fi
    >>> fit = fi.fit("effect | se(se) ~ 1 + (1 | school)", fi.datasets.load("eight_schools"))
    >>> fit.plot.predictive(n=20).get_xlabel()
    'effect'
    """
    found = replicate(fit, n)
    return one(lambda a: check.draw(a, found), (check.HEIGHT, st.WIDTH), ax, True)


def predictive_figure(fit: Any, n: int = 50) -> Figure:
    """Draw the figure of `predictive` outside pyplot."""
    found = replicate(fit, n)
    return figure_of(one(lambda a: check.draw(a, found), (check.HEIGHT, st.WIDTH), None, False))


def pairs(fit: Any, ax: Axes | Iterable[Axes] | None = None) -> Figure:
    """Draw every pair of hyperparameters at the nodes of the posterior, dots darker and larger with their weight.

    The diagonal holds the posterior densities, the upper right the correlations of the weighted nodes. At most 6
    hyperparameters are shown; the subtitle says which are left out.

    Parameters
    ----------
    fit : Fit
        What `finetti.fit` returned.
    ax : array of Axes, optional
        Where to draw: k x k for k hyperparameters, as `plt.subplots` makes them. Default: a new figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    FinettiError
        If no hyperparameter was integrated over, or `ax` is too small.

    Examples
    --------
    >>> import finetti as fi
    >>> fit = fi.fit("y ~ 1 + (1 | g)", {"y": [1.0, 2.0, 4.0, 3.0, 7.0, 6.0], "g": list("aabbcc")})
    >>> len(fit.plot.pairs().axes)
    4
    """
    return _pairs(fit, ax, interactive=True)


def pairs_figure(fit: Any) -> Figure:
    """Draw the figure of `pairs` outside pyplot."""
    return _pairs(fit, None, interactive=False)


def _pairs(fit: Any, ax: Any, *, interactive: bool) -> Figure:
    found = pair_drawing.pairs(fit)
    k = len(found.shown)
    if ax is not None:
        axes = several(ax, "pairs")
        side = int(len(axes) ** 0.5)
        with st.style():
            pair_drawing.draw([axes[i * side : (i + 1) * side] for i in range(side)], found)
        return figure_of(axes[0])
    handles = found.handles
    head = st.header_height(found.title, found.subtitle, 1 if handles else 0)
    body = {1: 2.6, 2: 4.2, 3: 5.0}.get(k, 5.8)
    fig, grid = st.panels(k, k, body + head, interactive=interactive)
    with st.style():
        pair_drawing.draw([list(row) for row in grid], found)
        st.header(fig, found.title, found.subtitle, handles)
        fig.align_labels()
    return fig


def funnel(fit: Any, ax: Axes | None = None) -> Axes:
    """Draw the effects of a meta-analysis against their standard errors, with the funnels that chance allows.

    The inner funnel holds 95 % of studies that all estimate the overall effect, the outer one counts the heterogeneity
    tau (its posterior median). Partially pooled effects are faint.

    Parameters
    ----------
    fit : Meta
        What `finetti.meta` returned.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    FinettiError
        If the fit is no meta-analysis.

    Examples
    --------
    >>> import finetti as fi
    >>> fit = fi.meta([0.4, 0.1, 0.3, 0.2], [0.1, 0.1, 0.2, 0.1])
    >>> fit.plot.funnel().get_ylabel()
    'standard error (small at the top)'
    """
    found = studies_of(fit, "funnel")
    return one(lambda a: funnel_drawing.draw(a, found), (funnel_drawing.HEIGHT, st.WIDTH), ax, True)


def funnel_figure(fit: Any) -> Figure:
    """Draw the figure of `funnel` outside pyplot."""
    found = studies_of(fit, "funnel")
    return figure_of(one(lambda a: funnel_drawing.draw(a, found), (funnel_drawing.HEIGHT, st.WIDTH), None, False))
