"""Every shrinkage figure of a fit as bytes: PNG for the report, PNG and SVG for the files of `--out`."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from finetti.show import plots
from finetti.show.estimates import coefficients
from finetti.show.style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Picture", "pictures"]

MOST = 12  # figures per fit; a model with more varying coefficients is looked at one by one


@dataclass(frozen=True)
class Picture:
    """One figure, drawn once.

    Attributes
    ----------
    group, coefficient : str
        What it shows.
    title : str
        Its message in words, for those who cannot see it.
    """

    group: str
    coefficient: str
    title: str
    png: bytes
    _figure: Figure = field(repr=False, compare=False)

    def svg(self) -> bytes:
        """Return the same figure as vector graphics."""
        return _encode(self._figure, "svg")


def _encode(figure: Figure, kind: str) -> bytes:
    from matplotlib import rcParams
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    # Without a date and with a fixed salt, the same fit gives the same file.
    with style(), _boxes_for_lacking_letters():
        if kind == "svg":
            figure.savefig(buffer, format="svg", metadata={"Date": None})
        else:  # what `savefig` does, but drawn once and not twice
            figure.set_dpi(rcParams["savefig.dpi"])
            FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": "finetti"})
    return buffer.getvalue()


@contextmanager
def _boxes_for_lacking_letters() -> Iterator[None]:
    """A level named in a script that the font lacks is drawn as boxes; that is no news for a terminal."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def pictures(fit: Any) -> tuple[Picture, ...]:
    """Draw one shrinkage figure for each grouping factor and coefficient, at most 12."""
    drawn: list[Picture] = []
    for group in fit.group_names:
        for coefficient in coefficients(fit, group):
            if len(drawn) == MOST:
                return tuple(drawn)
            with _boxes_for_lacking_letters():
                figure = plots.shrinkage_figure(fit, group, coefficient)
            png = _encode(figure, "png")
            figure.set_layout_engine("none")  # laid out once; the SVG then agrees with the PNG and costs half
            title = " ".join(figure.axes[0].get_title(loc="left").split())
            drawn.append(Picture(str(group), coefficient, title, png, figure))
    return tuple(drawn)
