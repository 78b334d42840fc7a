"""The drawing of a calibration: for every parameter the ECDF of the truth's position, minus the uniform one.

A line above zero at p: truths lie below the posterior's p-quantile too often. A hill then a valley is a posterior that
is too narrow, the reverse one that is too wide; a hill all along is one that lies too high. The band is simultaneous
over p and adjusted for the number of parameters, so that it is left exactly where the table says "not calibrated".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetti.errors import FinettiError
from finetti.posterior.calibration import Calibration
from finetti.posterior.calibration_table import ALARM
from finetti.posterior.uniformity import ecdf_band
from finetti.show import style as st
from finetti.show.axes import figure_of
from finetti.show.numbers import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["calibration", "calibration_figure"]

MOST_PANELS = 24  # more is a table, not a figure; the worst are shown
NARROW = 4  # up to here two panels stand side by side, and beyond three


def calibration(result: Calibration, ax: Axes | Iterable[Axes] | None = None) -> Figure:
    """Draw the ECDF difference of every parameter with its simultaneous band.

    Parameters
    ----------
    result : Calibration
        What `finetti.calibrate` returned.
    ax : Axes or sequence of Axes, optional
        Where to draw: one for each parameter. Default: a new figure of small multiples.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    FinettiError
        If `ax` has too few Axes.

    References
    ----------
    Säilynoja, Bürkner and Vehtari (2022), Graphical test for discrete uniformity and its applications in
    goodness-of-fit evaluation and multiple sample comparison, Statistics and Computing 32, 32.

    Examples
    --------
    >>> import finetti as fi
    >>> result = fi.calibrate("Yield ~ 1 + (1 | Batch)", fi.datasets.load("dyestuff"), n_sims=20)
    >>> [ax.get_title(loc="left") for ax in result.plot.calibration().axes[:2]]
    ['beta[Intercept]', 'sd_Batch[Intercept]']
    """
    return _calibration(result, ax, interactive=True)


def calibration_figure(result: Calibration) -> Figure:
    """Draw the figure of `calibration` outside pyplot."""
    return _calibration(result, None, interactive=False)


def _calibration(result: Calibration, ax: Any, *, interactive: bool) -> Figure:
    shown = _shown(result)
    if ax is not None:
        axes = [ax] if not isinstance(ax, Iterable) else list(getattr(ax, "flat", ax))
        if len(axes) < len(shown) or not all(hasattr(a, "transAxes") for a in axes):
            raise FinettiError(
                f"plot.calibration needs {plural(len(shown), 'panel')} ({', '.join(shown)}): give as many matplotlib "
                "Axes as ax=, or none"
            )
        with st.style():
            _panels(axes, result, shown)
        return figure_of(axes[0])
    columns = min(len(shown), 2 if len(shown) <= NARROW else 3)
    rows = -(-len(shown) // columns)
    title, subtitle = _title(result), _subtitle(result, len(shown))
    body = 2.6 if len(shown) == 1 else (1.95 if columns == 2 else 1.75) * rows + 0.3
    height = body + st.header_height(title, subtitle)
    fig, grid = st.panels(rows, columns, height, interactive=interactive)
    with st.style():
        _panels(list(grid.flat), result, shown)
        # one name for what all panels share
        for at in grid[:, 0]:
            at.set_ylabel("ECDF − uniform", fontsize=8.5)
        st.header(fig, title, subtitle)
        fig.supxlabel("posterior CDF at the truth", fontsize=9, color=st.INK)
    return fig


def _shown(result: Calibration) -> list[str]:
    """Parameters in the table's order; of too many the ones that look worst."""
    if len(result.table) <= MOST_PANELS:
        return list(result.table.index)
    worst = set(result.table["p_value"].nsmallest(MOST_PANELS).index)
    return [label for label in result.table.index if label in worst]


def _title(result: Calibration) -> str:
    wrong = result.table[result.table["p_adjusted"] < ALARM]
    k = len(result.table)
    if len(wrong):
        worst = int(np.argmin(wrong["p_value"].to_numpy()))
        first = f"the posterior of {st.shortened(str(wrong.index[worst]), 40)} is {wrong['verdict'].iloc[worst]}"
        return f"Not calibrated: {first}" + (f" ({len(wrong)} of {k} parameters fail)" if len(wrong) > 1 else "")
    if not result.ok:
        return f"{plural(k, 'parameter')} calibrated where the model could be fitted, but too many fits failed"
    if k == 1:
        return "Calibrated: the posterior holds the truth as often as it says"
    return f"Calibrated: all {k} posteriors hold the truth as often as they say"


def _subtitle(result: Calibration, shown: int) -> str:
    n = int(result.table["n"].max())
    words = f"{n:,} data sets simulated from the priors and fitted. A right posterior stays in the grey band"
    k = len(result.table)
    words += f" ({100 * (1 - ALARM):g} % probability" + (f" for all {k} together)." if k > 1 else ").")
    if len(result.failed):
        words += f" {len(result.failed)} more could not be fitted."
    if shown < k:
        words += f" The worst {shown} of {k} are shown."
    return words


def _panels(axes: Sequence[Axes], result: Calibration, shown: Sequence[str]) -> None:
    band = ecdf_band(int(result.table["n"].max()), 1.0 - ALARM / len(result.table))
    # steps drawn at both of their ends: the difference falls between them
    z = np.repeat(band.z, 2)[1:-1]
    low, high = (np.repeat(side[:-1], 2) - z for side in (band.lower, band.upper))
    lines = {label: _difference(result.pit[label].dropna().to_numpy()) for label in shown}
    top = 1.08 * max([float(np.max(high)), *(float(np.abs(y).max()) for _, y in lines.values())])
    bads = (result.table["p_adjusted"] < ALARM).to_dict()
    for ax, label in zip(axes, shown, strict=False):
        bad = bads[label]
        ax.fill_between(z, low, high, color="#e3e3e3", lw=0, zorder=1)
        ax.axhline(0.0, color=st.LINK, lw=0.8, zorder=2)
        ax.plot(*lines[label], color=st.RAW if bad else st.POOLED, lw=1.8 if bad else 1.3, zorder=3)
        ax.set_xlim(0.0, 1.0)
        ax.set_ylim(-top, top)
        ax.set_xticks([0.0, 0.5, 1.0], ["0", "0.5", "1"])
        ax.locator_params(axis="y", nbins=4)
        ax.tick_params(labelsize=8)
        _words(ax, label, str(result.table["verdict"][label]), bad)
        st.plain(ax)
    for ax in axes[len(shown) :]:
        ax.set_axis_off()


def _difference(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ECDF minus uniform at both sides of every step, from 0 to 1."""
    n = u.size
    at = np.concatenate([[0.0], np.repeat(np.sort(u), 2), [1.0]])
    steps = np.repeat(np.arange(n + 1) / n, 2)
    return at, steps - at


def _words(ax: Axes, label: str, verdict: str, bad: bool) -> None:
    """Over the panel: the parameter, and what is wrong with it."""
    room = st.points(ax)[0]
    label = st.shortened(label, 60)
    if st.text_width(label, 8.5, bold=True) <= room:
        name = [label]
    else:  # broken before its bracket
        first, bracket, rest = label.partition("[")
        name = [line for part in (first, bracket + rest) if part for line in st.wrapped(part, 8.5, room, bold=True)]
    pad = 4.0
    if bad:
        ax.annotate(
            verdict, (0, 1), (0, 3), xycoords="axes fraction", textcoords="offset points", ha="left", va="bottom",
            fontsize=8.5, color=st.RAW, annotation_clip=False,
        )  # fmt: skip
        pad += 11.0
    ax.set_title("\n".join(name), loc="left", fontsize=8.5, fontweight="bold", color=st.INK, pad=pad)
