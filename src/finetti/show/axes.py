"""Where a figure is drawn: in the Axes that a user gave, or in new ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from finetti.errors import FinettiError
from finetti.show import style as st

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["checked", "figure_of", "one", "several"]


def checked(ax: Any) -> Any:
    """Return the Axes that a user gave, or raise if it is none."""
    if not hasattr(ax, "transAxes"):
        raise FinettiError(f"ax={ax!r} is not a matplotlib Axes; give one, as plt.subplots makes them, or none")
    return ax


def one(draw: Callable[[Axes], None], size: tuple[float, float], ax: Axes | None, interactive: bool) -> Axes:
    """Draw in the Axes given, or in new ones of that height and width."""
    ax = st.figure(*size, interactive=interactive)[1] if ax is None else checked(ax)
    with st.style():
        draw(ax)
    return ax


def several(ax: Any, name: str) -> list[Axes]:
    """The Axes that a user gave: one, a list, or the array that `plt.subplots` returns."""
    given = [ax] if not isinstance(ax, Iterable) else list(getattr(ax, "flat", ax))
    if not given or not all(hasattr(a, "transAxes") for a in given):
        raise FinettiError(f"plot.{name}: ax={ax!r} is neither matplotlib Axes nor a sequence of them")
    return given


def figure_of(ax: Axes) -> Figure:
    """Return the whole figure that Axes belong to."""
    figure: Any = ax.figure.get_figure(root=True)
    return figure
