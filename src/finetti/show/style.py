"""One quiet style for every figure: little ink, colours that colour-blind eyes and grey print tell apart.

The colours are from Okabe and Ito's palette ("Color Universal Design", 2008); what differs in colour differs
in shape too (hollow or filled, solid or dashed). The user's global rcParams are never changed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from finetti.show.numbers import number

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "INK",
    "LINK",
    "MUTED",
    "POOLED",
    "POOLED_PALE",
    "POPULATION",
    "PRIOR",
    "RAW",
    "WIDTH",
    "figure",
    "finish",
    "fitted",
    "header",
    "header_height",
    "headline",
    "panels",
    "plain",
    "points",
    "room_over",
    "shortened",
    "signed",
    "style",
    "text_width",
    "wrapped",
]

INK = "#222222"
MUTED = "#5f5f5f"
LINK = "#9a9a9a"
RAW = "#D55E00"  # vermillion
POOLED = "#0072B2"  # blue
POOLED_PALE = "#9cc8e0"  # the same, for areas and intervals behind a mark
PRIOR = "#6b6b6b"
POPULATION = "#222222"

WIDTH = 6.0  # inches: 10 pt text is still legible when a phone shows the figure 360 pixels wide
TITLE_SIZE = 11.0
SUBTITLE_SIZE = 9.0
MARGIN = 8.0  # points around the header of a figure of several panels

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
            _pad(fig)
            return fig, ax
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        fig = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(fig)
        _pad(fig)
        return fig, fig.subplots()


def _pad(fig: Figure) -> None:
    """A little more air at the edges than the layout's own three points."""
    engine: Any = fig.get_layout_engine()
    engine.set(w_pad=5 / 72, h_pad=6 / 72)


def panels(
    rows: int, columns: int, height: float, width: float = WIDTH, *, interactive: bool = True, **kind: Any
) -> tuple[Figure, np.ndarray]:
    """Make a figure with a grid of axes (rows, columns), otherwise as `figure`; `kind` goes to `subplots`."""
    with style():
        if interactive:
            import matplotlib.pyplot as plt

            return plt.subplots(rows, columns, figsize=(width, height), layout="constrained", squeeze=False, **kind)
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        fig = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(fig)
        return fig, fig.subplots(rows, columns, squeeze=False, **kind)


def signed(value: float, places: int | None = None) -> str:
    """Write a number with the minus sign that the axes have.

    >>> signed(-0.714, 2)
    '−0.71'
    """
    return number(value, places).replace("-", "−")


# --- text ------------------------------------------------------------------------------------------


@lru_cache(maxsize=20_000)
def text_width(text: str, size: float, bold: bool = False) -> float:
    """Width of one line in points, measured in the font itself and not guessed from the number of letters.

    >>> text_width("WWW", 10) > 2 * text_width("iii", 10)
    True
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=_RC["font.sans-serif"], size=size, weight="bold" if bold else "normal")
    with warnings.catch_warnings():  # a letter that the font lacks is drawn as a box of known width
        warnings.filterwarnings("ignore", message="(?s)Glyph .* missing from font")
        return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]) if text else 0.0


def wrapped(text: str, size: float, room: float, bold: bool = False) -> list[str]:
    """Lines of `text` that are at most `room` points wide; a word that is longer is broken.

    >>> wrapped("partial pooling narrows the spread", 10, 100)
    ['partial pooling', 'narrows the spread']
    """
    lines: list[str] = []
    line = ""
    for word in filter(None, text.replace("\n", " ").split(" ")):  # a no-break space holds its words together
        longer = f"{line} {word}" if line else word
        if text_width(longer, size, bold) <= room:
            line = longer
            continue
        if line:
            lines.append(line)
        while len(word) > 1 and text_width(word, size, bold) > room:
            fits = next((k for k in range(len(word) - 1, 1, -1) if text_width(word[:k], size, bold) <= room), 1)
            lines.append(word[:fits])
            word = word[fits:]
        line = word
    return [*lines, line] if line or not lines else lines


def fitted(name: str, size: float, room: float) -> str:
    """Return a name in at most `room` points, both ends kept.

    >>> fitted("county", 9, 100), fitted("a very long name of a county", 9, 60)
    ('county', 'a very…unty')
    """
    if text_width(name, size) <= room:
        return name
    most = len(name) - 1
    while most > 3 and text_width(shortened(name, most), size) > room:
        most -= 1
    return shortened(name, most)


def shortened(name: str, most: int = 32) -> str:
    """Return a name that fits in a figure, both ends kept; what cannot be printed becomes a space.

    >>> shortened("county"), shortened("a" * 30 + "b" * 30, 12)
    ('county', 'aaaaaaa…bbbb')
    """
    name = "".join(c if c.isprintable() else " " for c in name)
    tail = (most - 1) * 2 // 5
    return name if len(name) <= most else f"{name[: most - 1 - tail]}…{name[-tail:]}"


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
    room = max(room, 90.0)
    title_lines = wrapped(title, TITLE_SIZE, room, bold=True)
    sub_lines = wrapped(subtitle, SUBTITLE_SIZE, room)
    below = above + 4 + 1.25 * SUBTITLE_SIZE * len(sub_lines)
    ax.set_title("\n".join(title_lines), loc="left", pad=below + 3, fontsize=TITLE_SIZE, fontweight="bold", color=INK)
    ax.annotate(
        "\n".join(sub_lines), (0, 1), (0, above + 4), xycoords="axes fraction", textcoords="offset points",
        ha="left", va="bottom", fontsize=SUBTITLE_SIZE, color=MUTED, linespacing=1.2, annotation_clip=False,
    )  # fmt: skip


def finish(ax: Axes, title: str, subtitle: str, handles: Sequence[Any] = (), room: float | None = None) -> None:
    """Put the message over the axes and the legend between both, a line each."""
    room = room_over(ax) if room is None else room
    if handles:
        ax.legend(
            handles=list(handles), loc="lower left", bbox_to_anchor=(0.0, 1.0), bbox_transform=ax.transAxes,
            borderaxespad=0.2, borderpad=0.2, ncols=1, labelspacing=0.25, handletextpad=0.6,
        )  # fmt: skip
    headline(ax, title, subtitle, above=13.4 * len(handles) + 2, room=room)
    plain(ax)


def header(fig: Figure, title: str, subtitle: str, handles: Sequence[Any] = (), ncols: int = 3) -> None:
    """Write the message at the top of a figure of several panels, which move down; the figure must be ours."""
    width, height = (72 * float(v) for v in fig.get_size_inches())
    title_lines, sub_lines = _header_lines(title, subtitle, width)
    at = height - MARGIN
    # A `suptitle`, so that whoever reads the figure's message finds it; the room for it is made below.
    fig.suptitle(
        "\n".join(title_lines), x=MARGIN / width, y=at / height, ha="left", va="top", fontsize=TITLE_SIZE,
        fontweight="bold", color=INK, linespacing=1.2,
    ).set_in_layout(False)  # fmt: skip
    at -= 1.25 * TITLE_SIZE * len(title_lines) + 3
    fig.text(
        MARGIN / width, at / height, "\n".join(sub_lines), ha="left", va="top", fontsize=SUBTITLE_SIZE, color=MUTED,
        linespacing=1.2,
    ).set_in_layout(False)  # fmt: skip
    at -= 1.25 * SUBTITLE_SIZE * len(sub_lines) + 2
    if handles:
        fig.legend(
            handles=list(handles), loc="upper left", bbox_to_anchor=(MARGIN / width, at / height), borderaxespad=0.0,
            borderpad=0.2, ncols=ncols, labelspacing=0.25, handletextpad=0.4, columnspacing=1.4,
        ).set_in_layout(False)  # fmt: skip
    engine: Any = fig.get_layout_engine()
    if engine is not None:
        lines = -(-len(handles) // ncols)
        top = header_height(title, subtitle, lines, width / 72) * 72
        side = (MARGIN - 3.0) / width  # the layout adds 3 points of its own
        engine.set(rect=(side, 0.0, 1.0 - 2 * side, 1.0 - top / height), wspace=0.06, hspace=0.06)


def header_height(title: str, subtitle: str, legend_lines: int = 0, width: float = WIDTH) -> float:
    """Inches that `header` will take."""
    title_lines, sub_lines = _header_lines(title, subtitle, 72 * width)
    text = 1.25 * (TITLE_SIZE * len(title_lines) + SUBTITLE_SIZE * len(sub_lines))
    return (MARGIN + text + 13.4 * legend_lines + 13) / 72


def _header_lines(title: str, subtitle: str, width: float) -> tuple[list[str], list[str]]:
    room = width - 2 * MARGIN
    return wrapped(title, TITLE_SIZE, room, bold=True), wrapped(subtitle, SUBTITLE_SIZE, room)


def plain(ax: Axes) -> None:
    """Show every text of the axes as it stands: a level named "$5" is a name, not mathematics.

    The style says so for axes that are made under it; those that a user gives were made before.
    """
    legend = ax.get_legend()
    texts: list[Any] = [*ax.texts, ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels(), *ax.get_yticklabels()]
    texts += [child for child in ax.get_children() if hasattr(child, "set_parse_math")]
    for text in [*texts, *(legend.get_texts() if legend else [])]:
        text.set_parse_math(False)


# --- room ------------------------------------------------------------------------------------------


def points(ax: Axes) -> tuple[float, float]:
    """Width and height of the axes in points, before any layout engine has moved them."""
    inches = ax.figure.get_figure(root=True).get_size_inches()
    box = ax.get_position()
    return 72 * float(inches[0]) * box.width, 72 * float(inches[1]) * box.height


def room_over(ax: Axes) -> float:
    """Points for text over the axes. Alone in a figure, the axes end where the level names begin."""
    root = ax.figure.get_figure(root=True)
    if len(root.axes) > 1:
        return points(ax)[0]
    widths = [
        text_width(line, float(t.get_fontsize()), t.get_fontweight() == "bold")
        for t in ax.get_yticklabels()
        for line in t.get_text().split("\n")
    ]
    name = 1.6 * float(ax.yaxis.label.get_fontsize()) if ax.get_ylabel() else 0.0
    return 72 * float(root.get_size_inches()[0]) - max(widths, default=0.0) - name - 26
