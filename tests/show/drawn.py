"""What the tests of figures read off a drawn figure: positions of marks, texts, and which texts are cut or collide."""

from __future__ import annotations

import warnings

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg


def laid_out(figure):
    """Draw the figure, once; letters that the font lacks are boxes, and no news here."""
    if getattr(figure, "_drawn_before", False):
        return figure.canvas.get_renderer(), figure.canvas.get_width_height()
    figure._drawn_before = True
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s)Glyph .* missing from font")
        canvas.draw()
    return canvas.get_renderer(), canvas.get_width_height()


def texts(figure):
    """Every text that is drawn, with its box in pixels."""
    renderer, _ = laid_out(figure)
    found = [*figure.texts, *(t for legend in figure.legends for t in legend.get_texts())]
    for ax in figure.axes:
        found += ax.texts
        if ax.get_legend():
            found += ax.get_legend().get_texts()
        if ax.axison:
            found += [ax._left_title, ax.title, ax.xaxis.label, ax.yaxis.label]
            for axis, ends in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
                # matplotlib keeps ticks beyond the limits, and does not draw them
                inside = [tick for tick in axis.get_major_ticks() if min(ends) <= tick.get_loc() <= max(ends)]
                found += [tick.label1 for tick in inside if tick.label1.get_visible()]
    found = [t for t in found if t is not None and t.get_visible() and t.get_text().strip()]
    return [(t.get_text(), t.get_window_extent(renderer)) for t in found]


def outside(figure):
    """Texts that reach beyond the edge of the figure, i.e. that a file would cut."""
    boxes, (w, h) = texts(figure), figure.canvas.get_width_height()
    return [t for t, b in boxes if b.x0 < -1 or b.y0 < -1 or b.x1 > w + 1 or b.y1 > h + 1]


def collisions(figure, slack=2.0):
    """Pairs of texts that overlap by more than `slack` pixels both ways."""
    boxes = texts(figure)
    found = []
    for i, (a, p) in enumerate(boxes):
        for b, q in boxes[i + 1 :]:
            wide = min(p.x1, q.x1) - max(p.x0, q.x0)
            high = min(p.y1, q.y1) - max(p.y0, q.y0)
            if wide > slack and high > slack:
                found.append((a, b))
    return found


def marks(ax):
    """Positions of every scatter of the axes, a list of (k, 2) arrays."""
    return [np.asarray(c.get_offsets(), float) for c in ax.collections if type(c).__name__ == "PathCollection"]


def has_marks(ax, x, y=None):
    """Whether some scatter is at just these x (sorted), and these y."""
    for points in marks(ax):
        if len(points) == len(x) and np.allclose(sorted(points[:, 0]), sorted(x)):
            return True if y is None else bool(np.allclose(points[:, 1], y))
    return False


def segments(ax):
    """Start and end of every line of every line collection, (k, 2, 2)."""
    found = [np.asarray(s) for c in ax.collections if type(c).__name__ == "LineCollection" for s in c.get_segments()]
    return [s for s in found if s.shape == (2, 2)]


def has_intervals(ax, low, high):
    """Whether every interval (low_i, high_i) is a line of the axes."""
    ends = np.array([[s[0, 0], s[1, 0]] for s in segments(ax)])
    gaps = np.abs(ends[:, None, :] - np.column_stack([low, high])[None]).sum(axis=2)
    return bool(np.all(gaps.min(axis=0) < 1e-9 * (1.0 + np.abs(low) + np.abs(high))))


def words(figure):
    """Everything that the figure says, on one line."""
    return " ".join(" ".join(t.split()) for t, _ in texts(figure))
