"""One quiet style for every figure: little ink, colours that colour-blind eyes and grey print tell apart.

The colours are from Okabe and Ito's palette ("Color Universal Design", 2008); what differs in colour differs
in shape too (hollow or filled, solid or dashed). The user's global rcParams are never changed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["INK", "LINK", "MUTED", "POOLED", "POPULATION", "RAW", "WIDTH", "figure", "headline", "style"]

INK = "#222222"
MUTED = "#5f5f5f"
LINK = "#9a9a9a"
RAW = "#D55E00"  # vermillion
POOLED = "#0072B2"  # blue
POPULATION = "#222222"

WIDTH = 6.0  # inches: 10 pt text is still legible when a phone shows the figure 360 pixels wide
TITLE_SIZE = 11.0
SUBTITLE_SIZE = 9.0

_RC: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib: the same figure on every machine
    "font.size": 9.5,
    "text.color": INK,
    "text.usetex": False,
    "text.parse_math": False,  # a level named "$5" is a name, not mathematics
    "axes.facecolor": "white",
    "axes.edgecolor": "#bbbbbb",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "white",
    "figure.dpi": 110,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "savefig.facecolor": "white",
    "savefig.dpi": 200,
    "savefig.bbox": None,
    "svg.fonttype": "path",
    "svg.hashsalt": "finetti",  # the same fit gives the same file, byte for byte
}


@contextmanager
def style() -> Iterator[None]:
    """Use finetti's style inside a `with` block and leave the global one as it was.

    Examples
    --------
    >>> import matplotlib
    >>> before = matplotlib.rcParams["font.size"]
    >>> with style():
    ...     inside = matplotlib.rcParams["font.size"]
    >>> inside, matplotlib.rcParams["font.size"] == before
    (9.5, True)
    """
    import matplotlib

    settings: Any = _RC  # newer matplotlib types the keys one by one
    with matplotlib.rc_context(settings):
        yield


def figure(height: float, width: float = WIDTH, *, interactive: bool = True) -> tuple[Figure, Axes]:
    """Make a figure with one pair of axes; `interactive=False` keeps it out of pyplot (no window, no leak).

    Parameters
    ----------
    height, width : float
        Size in inches.
    interactive : bool
        Whether pyplot should know the figure, as notebooks and `plt.show` need.
    """
    with style():
        if interactive:
            import matplotlib.pyplot as plt

            fig, ax = plt.subplots(figsize=(width, height), layout="constrained")
            return fig, ax
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        fig = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(fig)
        return fig, fig.subplots()


def headline(ax: Axes, title: str, subtitle: str, *, above: float, room: float) -> None:
    """Write the message of a figure, and a quieter second line, left-aligned over the axes.

    Both are wrapped, because text that overflows a figure is cut.

    Parameters
    ----------
    above : float
        Points kept free between the axes and the text, for a legend.
    room : float
        Points from the left end of the axes to the right edge of the figure.
    """
    # 0.61 and 0.55 em are generous mean widths of a character in bold and regular DejaVu Sans.
    title_lines = textwrap.wrap(title, max(20, int(room / (0.61 * TITLE_SIZE))))
    sub_lines = textwrap.wrap(subtitle, max(24, int(room / (0.55 * SUBTITLE_SIZE))))
    below = above + 4 + 1.25 * SUBTITLE_SIZE * len(sub_lines)
    ax.set_title("\n".join(title_lines), loc="left", pad=below + 3, fontsize=TITLE_SIZE, fontweight="bold", color=INK)
    ax.annotate(
        "\n".join(sub_lines), (0, 1), (0, above + 4), xycoords="axes fraction", textcoords="offset points",
        ha="left", va="bottom", fontsize=SUBTITLE_SIZE, color=MUTED, linespacing=1.2, annotation_clip=False,
    )  # fmt: skip
