"""The drawing of a posterior predictive check: what was observed over what the fitted model would have produced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetti.show import style as st
from finetti.show.density import kernel_density, silverman
from finetti.show.numbers import plural
from finetti.show.replicates import Replicates

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

Floats = npt.NDArray[np.float64]

HEIGHT = 4.3  # inches
GRID = 512
FEW_ROWS = 60  # up to here every observation is also a tick on the axis
EXTREME = 0.005  # a p-value nearer to 0 or 1 is a feature that the model does not reproduce (four are looked at)
VISIBLE = 0.002  # share of rows from which on a bar can be seen
MOST_BEYOND = 4  # steps beyond the observed values for which bars are drawn


def draw(ax: Axes, r: Replicates) -> None:
    """Draw the figure in `ax`; the style is the caller's to set."""
    response = st.shortened(r.response)
    step = r.step
    beyond = 0.0
    handles = _densities(ax, r) if step is None else _bars(ax, r, step)
    if step is not None:
        low, high = r.observed.min() - 0.5 * step, r.observed.max() + 0.5 * step
        beyond = float(np.mean((r.drawn < low) | (r.drawn > high)))
    ax.set_ylim(bottom=0.0)
    ax.set_xlabel("\n".join(st.wrapped(response, 9.5, max(120.0, st.points(ax)[0]))))
    title, subtitle = message(r, beyond)
    st.finish(ax, title, subtitle, handles)


def message(r: Replicates, beyond: float) -> tuple[str, str]:
    """Whether the model reproduces the data, and the test quantities behind that."""
    p = r.p_values
    response = st.shortened(r.response)
    missed = [name for name, value in p.items() if not EXTREME < value < 1.0 - EXTREME]
    if missed:
        what = missed[0] if len(missed) == 1 else f"{', '.join(missed[:-1])} and {missed[-1]}"
        title = f"The model does not reproduce the {what} of {response}"
    else:
        title = f"Data drawn from the model look like the observed {response}"
    n = len(r.drawn)
    shares = ", ".join(f"{name} {100 * value:.0f} %" for name, value in p.items())
    words = f"Share of {plural(n, 'replicated data set')} with a larger value: {shares}."
    if beyond >= 0.005:
        words += f" {100 * beyond:.0f} % of replicated values round to steps below or above all observed."
    if r.observed.size < r.n_rows:
        words += f" {r.observed.size:,} of {r.n_rows:,} rows, at random."
    return title, words


def _densities(ax: Axes, r: Replicates) -> list[Any]:
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    h = silverman(r.observed)  # one bandwidth for all: what differs is then the data
    low, high = float(r.observed.min()), float(r.observed.max())
    near, far = np.quantile(r.drawn[: r.n], [0.001, 0.999])
    low, high = min(low, float(near)) - 3 * h, max(high, float(far)) + 3 * h
    grid = np.linspace(low, high, GRID)
    curves = [np.column_stack([grid, kernel_density(y, grid, h)]) for y in r.drawn[: r.n]]
    alpha = float(np.clip(12.0 / len(curves), 0.08, 0.6))
    ax.add_collection(LineCollection(curves, colors=st.POOLED, linewidths=0.9, alpha=alpha, zorder=2))
    ax.plot(grid, kernel_density(r.observed, grid, h), color=st.RAW, lw=2.2, zorder=3, label="observed")
    if r.observed.size <= FEW_ROWS:
        where = ax.get_xaxis_transform()
        at = np.full(r.observed.size, 0.012)
        ax.plot(r.observed, at, "|", color=st.RAW, ms=7, mew=1.0, transform=where, zorder=4)
    ax.set_xlim(low, high)
    top = max(float(c[:, 1].max()) for c in curves)
    ax.set_ylim(0.0, 1.05 * max(top, float(kernel_density(r.observed, grid, h).max())))
    ax.set_yticks([])
    ax.set_ylabel("density")
    ax.spines["left"].set_visible(False)
    return [
        Line2D([], [], color=st.RAW, lw=2.2, label=f"observed, {plural(r.observed.size, 'row')}"),
        Line2D([], [], color=st.POOLED, lw=0.9, alpha=0.6,
               label=f"{plural(r.n, 'data set')} drawn from the fitted model, same groups"),
    ]  # fmt: skip


def _bars(ax: Axes, r: Replicates, step: float) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    first, last = float(r.observed.min()), float(r.observed.max())
    n_steps = round((last - first) / step) + 1
    places = np.floor((r.drawn - first) / step + 0.5)
    below, above = (int(np.clip(v, 0, MOST_BEYOND)) for v in (-places.min(), places.max() - n_steps + 1))
    values = first + step * np.arange(-below, n_steps + above)
    places = np.clip(places + below, 0, values.size - 1).astype(int)
    shares = np.array([np.bincount(row, minlength=values.size) for row in places]) / r.observed.size
    seen = np.round((r.observed - first) / step).astype(int) + below
    share = np.bincount(seen, minlength=values.size) / r.observed.size
    # steps at the far ends that hardly any replicate reaches only take room
    q5, q50, q95 = np.quantile(shares, [0.05, 0.5, 0.95], axis=0)
    kept = np.flatnonzero((share > 0) | (q95 > VISIBLE))
    part = slice(kept.min(), kept.max() + 1)
    values, share, q5, q50, q95 = values[part], share[part], q5[part], q50[part], q95[part]
    ax.bar(values, 100 * share, width=0.72 * step, color="#f3c9a8", edgecolor=st.RAW, linewidth=1.1, zorder=2)
    ax.vlines(values, 100 * q5, 100 * q95, color=st.POOLED, lw=2.4, zorder=3)
    ax.scatter(values, 100 * q50, s=30, color=st.POOLED, linewidths=0.8, edgecolors="white", zorder=4)
    ax.set_xlim(values[0] - 0.6 * step, values[-1] + 0.6 * step)
    ax.set_ylim(0.0, 105 * max(float(share.max()), float(q95.max())))
    ax.set_ylabel("% of rows")
    ax.yaxis.grid(True)
    if values.size <= 14:
        ax.set_xticks(values, [f"{v:g}".replace("-", "−") for v in values])
    return [
        Patch(facecolor="#f3c9a8", edgecolor=st.RAW, label=f"observed, {plural(r.observed.size, 'row')}"),
        Line2D([], [], color=st.POOLED, lw=2.4, marker="o", ms=5.5, mec="white", mew=0.8,
               label=f"{plural(len(r.drawn), 'data set')} drawn from the fitted model, rounded: median and 90 %"),
    ]  # fmt: skip
