"""The figure of the law of total variance: a bar per group, in two parts, and what empirical Bayes makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetti.errors import FinettiError, available
from finetti.show import style as st
from finetti.show.axes import figure_of, one
from finetti.show.forest import text_columns
from finetti.show.nodes import response_of
from finetti.show.numbers import percent
from finetti.show.reading import pooling_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MOST_BARS", "uncertainty", "uncertainty_figure"]

Floats = npt.NDArray[np.float64]

MOST_BARS = 30  # more groups than that are represented by as many, at even steps of the share
NAME_SIZE, NAME_ROOM = 9.0, 150.0
ROW, HEAD = 0.24, 2.05  # inches


@dataclass(frozen=True)
class _Bars:
    """One bar per group, largest variance first."""

    group: str
    coefficient: str
    response: str
    level: list[str]
    given: Floats
    between: Floats
    eb: Floats  # variance under empirical Bayes
    shares: Floats  # of all groups
    ratios: Floats
    n_all: int
    pooling: str
    held: bool  # no hyperparameter was integrated over


def uncertainty(fit: Any, group: str | None = None, coefficient: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the posterior variance of every group's coefficient, split in two as stacked bars.

    The pale part would be left if the hyperparameters were known; the dark part is what not knowing them adds. The
    mark is the variance that empirical Bayes reports, which takes them as known at their estimates: left of the end of
    the bar it is overconfident, right of it it claims less than the data tell. More than 30 groups are represented by
    30 at even steps of the share of the dark part, the largest and the smallest included.

    Parameters
    ----------
    fit : Fit
        What `finetti.fit` returned.
    group : str, optional
        The grouping factor. Default: the first of the model.
    coefficient : str, optional
        The coefficient that varies by group. Default: the first of the grouping factor.
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
    >>> fit.plot.uncertainty().get_xlabel()
    'posterior variance, in squared units of effect'
    """
    return _uncertainty(fit, group, coefficient, ax, interactive=True)


def uncertainty_figure(fit: Any, group: str | None = None, coefficient: str | None = None) -> Figure:
    """Draw the figure of `uncertainty` outside pyplot."""
    return figure_of(_uncertainty(fit, group, coefficient, None, interactive=False))


def _uncertainty(fit: Any, group: str | None, coefficient: str | None, ax: Axes | None, *, interactive: bool) -> Axes:
    bars = _bars(fit, group, coefficient)
    return one(lambda a: _draw(a, bars), (HEAD + ROW * max(len(bars.level), 3), st.WIDTH), ax, interactive)


def _bars(fit: Any, group: str | None, coefficient: str | None) -> _Bars:
    names = [str(g) for g in fit.group_names]
    if not names:
        raise FinettiError(
            f"plot.uncertainty needs a grouping factor, but {fit.formula!r} has none; the population's coefficients "
            "are in fit.uncertainty()"
        )
    group = names[0] if group is None else group
    if group not in names:
        raise FinettiError(f"No grouping factor is called {group!r}: {available(str(group), names)}")
    table = fit.uncertainty(group)
    table = table[table["term"].to_numpy() == group]
    options = [str(c) for c in dict.fromkeys(table["coefficient"])]
    coefficient = options[0] if coefficient is None else coefficient
    if coefficient not in options:
        raise FinettiError(f"{coefficient!r} does not vary by {group!r}: {available(str(coefficient), options)}")
    table = table[table["coefficient"].to_numpy() == coefficient]
    column = {c: table[c].to_numpy(float) for c in table.columns[4:]}
    known = np.flatnonzero(np.isfinite(column["total"]))
    shown = known
    if known.size > MOST_BARS:
        by_share = known[np.argsort(-column["share"][known], kind="stable")]
        shown = by_share[np.linspace(0, known.size - 1, MOST_BARS).round().astype(int)]
    shown = shown[np.argsort(-column["total"][shown], kind="stable")]
    level = table["level"].to_numpy()
    return _Bars(
        group, coefficient, response_of(fit), [str(level[i]) for i in shown],
        column["given_hyperparameters"][shown], column["from_hyperparameters"][shown], column["eb_sd"][shown] ** 2,
        column["share"][known], column["eb_interval_ratio"][known], len(table), pooling_of(fit, group),
        bool(known.size and np.all(column["from_hyperparameters"][known] == 0.0)),
    )  # fmt: skip


def _message(bars: _Bars) -> tuple[str, str]:
    group = st.shortened(bars.group)
    what = f"{group} estimates"
    if bars.coefficient != "Intercept":
        what += f" of {st.shortened(bars.coefficient)}"
    known = bars.shares.size
    if not known:
        return f"No variance is known of {what}", "It is not identified, or does not exist."
    if bars.held:
        title = f"Hyperparameters taken as known: nothing is added to the variance of {what}"
        words = "They were held at a value or estimated; what not knowing them would add is left out."
    else:
        low, high = percent(float(bars.shares.min())), percent(float(bars.shares.max()))
        share = low if low == high else f"{low.removesuffix(' %')} to {high}"
        title = f"Not knowing the hyperparameters makes {share} of the variance of {what}"
        words = ""
    ratio = bars.ratios[np.isfinite(bars.ratios)]
    if ratio.size and not bars.held:
        middle = float(np.median(ratio))
        off = percent(abs(1.0 - middle))
        how = "as long as" if off == "0 %" else f"{off} {'shorter' if middle < 1.0 else 'longer'} than"
        words = f"Empirical Bayes' 90 % intervals are {how} full Bayes' (median)."
    if bars.n_all > len(bars.level):
        words += f" {len(bars.level)} of {bars.n_all:,} shown, at even steps of the share."
    return title, words.strip()


def _draw(ax: Axes, bars: _Bars) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    k = len(bars.level)
    y = np.arange(k, dtype=float)
    ax.barh(y, bars.given, height=0.72, color=st.POOLED_PALE, zorder=2)
    ax.barh(y, bars.between, left=bars.given, height=0.72, color=st.POOLED, zorder=2)
    handles: list[Any] = [Patch(facecolor=st.POOLED_PALE, label="with known hyperparameters")]
    if not bars.held:
        handles.append(Patch(facecolor=st.POOLED, label="from not knowing the hyperparameters"))
    seen = np.isfinite(bars.eb)
    if seen.any() and not bars.held:
        ax.scatter(bars.eb[seen], y[seen], marker="D", s=26, facecolors="white", edgecolors=st.RAW, lw=1.4, zorder=4)
        mark = Line2D([], [], color="none", marker="D", ms=5, mfc="white", mec=st.RAW, mew=1.3,
                      label="what empirical Bayes reports")  # fmt: skip
        handles.append(mark)
    most = float(np.nanmax(np.concatenate([bars.given + bars.between, bars.eb, [0.0]])))
    ax.set_xlim(0.0, 1.04 * most or 1.0)
    ax.locator_params(axis="x", nbins=6)  # or labels such as 0.0025 touch
    ax.set_ylim(max(k, 1) - 0.4, -0.6)
    ax.xaxis.grid(True)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.set_yticks(
        y, [st.fitted(st.shortened(name, 60), NAME_SIZE, NAME_ROOM) for name in bars.level], fontsize=NAME_SIZE
    )
    if k and not bars.held:
        total = bars.given + bars.between
        share = np.divide(bars.between, total, out=np.zeros(k), where=total > 0.0)
        text_columns(ax, {"share": [percent(float(v)) for v in share]}, y)
    unit = f"squared units of {st.shortened(bars.response)}"
    if bars.coefficient != "Intercept":
        unit += f" per {st.shortened(bars.coefficient)}"
    ax.set_xlabel("\n".join(st.wrapped(f"posterior variance, in {unit}", 9.5, max(120.0, st.points(ax)[0]))))
    st.finish(ax, *_message(bars), handles)
