"""The figure of shrinkage weights: how far each group is pulled, against how much it knows, with the law behind it.

For one coefficient that is constant within a group the weight is a function of one number. With n rows of variance
sigma^2 it is n / (n + sigma^2 / tau^2); of a group whose own estimate has the known standard error s, it is
tau^2 / (tau^2 + s^2). The curve is the posterior mean of that function, its band the central 90 % over the
hyperparameter nodes. Where several coefficients vary by group, or rows differ in precision, no one curve holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetti.inference.weights import weighted_quantiles
from finetti.show import style as st
from finetti.show.axes import figure_of, one
from finetti.show.estimates import GroupRows, select
from finetti.show.numbers import number, percent, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["weights", "weights_figure"]

Floats = npt.NDArray[np.float64]

HEIGHT = 4.6
GRID = 120  # points of the curve
LOG_FROM = 8.0  # the horizontal axis is logarithmic where the largest value is this many times the smallest
MOST_NAMED = 12  # up to here every group that there is room for is named, beyond that the extreme ones
NAME_SIZE, NAME_ROOM = 8.0, 130.0


@dataclass(frozen=True)
class _Curve:
    """The law at x: posterior mean, and central 90 %; `half` is where own data and population count equally."""

    x: Floats
    mean: Floats
    low: Floats
    high: Floats
    half: float


@dataclass(frozen=True)
class _Picture:
    rows: GroupRows
    x: Floats
    errors: bool  # whether x is a standard error, not a number of rows
    curve: _Curve | None
    factor: float
    coefficients: tuple[str, ...]


def weights(fit: Any, group: str | None = None, coefficient: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw every group's shrinkage weight against its number of rows, and the law that it follows.

    The weight is the share of a group's estimate that its own data decide; the population decides the rest. Of a
    random intercept with one residual sd it is n / (n + sigma^2 / tau^2), drawn with a 90 % band for what is not known
    of sigma and tau; of estimates with known standard errors it is drawn against these. The most extreme groups are
    named.

    Parameters
    ----------
    fit : Fit
        What `finetti.fit` returned.
    group : str, optional
        The grouping factor. Default: the first of the model.
    coefficient : str, optional
        The coefficient that varies by group. Default: the first of the grouping factor.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure.

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
    >>> fit = fi.fit("log_radon ~ 1 + floor + (1 | county)", fi.datasets.load("radon"))
    >>> fit.plot.weights().get_xlabel()
    'rows of the county'
    """
    return _weights(fit, group, coefficient, ax, interactive=True)


def weights_figure(fit: Any, group: str | None = None, coefficient: str | None = None) -> Figure:
    """Draw the figure of `weights` outside pyplot."""
    return figure_of(_weights(fit, group, coefficient, None, interactive=False))


def _weights(fit: Any, group: str | None, coefficient: str | None, ax: Axes | None, *, interactive: bool) -> Axes:
    picture = _picture(fit, group, coefficient)
    return one(lambda a: _draw(a, picture), (HEIGHT, st.WIDTH), ax, interactive)


# --- what is drawn -----------------------------------------------------------------------------------


def _picture(fit: Any, group: str | None, coefficient: str | None) -> _Picture:
    rows = select(fit, group, coefficient, "weights")
    factor = next(f for f in fit.model.design.factors if f.name == rows.group)
    design = fit.model.design
    # one coefficient, the same in all rows of a group
    simple = factor.Z.shape[1] == 1 and bool(np.all(factor.Z == 1.0)) and rows.pooling in ("partial", "empirical")
    known = design.se is not None and not design.se_sigma and simple
    x = rows.raw_se if known else rows.n
    curve = None
    if known or (simple and design.se is None and design.weights is None):
        curve = _curve(fit, f"sd_{rows.group}[{rows.coefficient}]", x, known)
    pooling_factor = float(fit.weights(rows.group).pooling_factor[rows.coefficient])
    return _Picture(rows, x, known, curve, pooling_factor, factor.coefficients)


def _curve(fit: Any, label: str, x: Floats, errors: bool) -> _Curve | None:
    inference = fit.inference
    natural, w = inference.coordinates.natural(inference.hyper.theta), inference.hyper.weights
    tau2, noise2 = natural[label] ** 2, natural["sigma"] ** 2 if not errors else np.ones_like(w)
    alive = w > 1e-12
    tau2, noise2, w = tau2[alive], noise2[alive], w[alive] / w[alive].sum()
    x = x[np.isfinite(x) & (x > 0)]
    if not x.size:
        return None
    low, high = _limits(x)
    wide = np.geomspace(min(low, x.min()) / 1e3, max(high, x.max()) * 1e3, 400)  # where the half may lie
    grid = np.geomspace(low, high, GRID) if _logarithmic(x) else np.linspace(low, high, GRID)

    def law(at: Floats) -> Floats:
        information = at[None] / noise2[:, None] if not errors else np.tile(at**-2.0, (w.size, 1))
        return tau2[:, None] * information / (tau2[:, None] * information + 1.0)

    values = law(np.maximum(grid, 1e-12 * high))
    ends = np.stack([weighted_quantiles(values[:, i], w, [0.05, 0.95]) for i in range(GRID)])
    middle = w @ law(wide)
    order = np.argsort(middle)
    inside = middle[order[0]] < 0.5 < middle[order[-1]]
    half = float(np.exp(np.interp(0.5, middle[order], np.log(wide[order])))) if inside else np.nan
    return _Curve(grid, w @ values, ends[:, 0], ends[:, 1], half)


def _logarithmic(x: Floats) -> bool:
    x = x[np.isfinite(x) & (x > 0)]
    return bool(x.size and x.max() >= LOG_FROM * x.min())


def _limits(x: Floats) -> tuple[float, float]:
    """Horizontal limits around positive values."""
    x = x[np.isfinite(x) & (x > 0)]
    low, high = (float(x.min()), float(x.max())) if x.size else (1.0, 2.0)
    if _logarithmic(x):
        room = (high / low) ** 0.05
        return low / room, high * room
    room = 0.07 * (high - low) or 0.5 * high
    return max(low - room, 0.0), high + room


# --- drawing -----------------------------------------------------------------------------------------


def _draw(ax: Axes, picture: _Picture) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    rows, curve = picture.rows, picture.curve
    known = np.isfinite(picture.x) & np.isfinite(rows.weight)
    ax.set_xlim(*_limits(picture.x[known]))
    if _logarithmic(picture.x[known]):
        ax.set_xscale("log")
        ax.set_xticks(_ticks(*ax.get_xlim()))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.minorticks_off()
    elif not picture.errors:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    low = float(np.min(rows.weight[known], initial=0.0))  # a matrix's diagonal may leave [0, 1] a little
    high = float(np.max(rows.weight[known], initial=1.0))
    ax.set_ylim(min(low, 0.0) - 0.03, max(high, 1.0) + 0.03)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: percent(float(v))))
    ax.grid(True)
    handles: list[Any] = []
    if curve is not None:
        law = "s: its standard error" if picture.errors else "n: its rows"
        formula = "τ² / (τ² + s²)" if picture.errors else "n / (n + σ²/τ²)"
        if fit_is_point := bool(np.allclose(curve.low, curve.high)):
            label = f"{formula} at the estimated hyperparameters ({law})"
        else:
            label = f"{formula}, posterior mean and 90 % band ({law})"
            ax.fill_between(curve.x, curve.low, curve.high, color=st.POOLED_PALE, alpha=0.45, lw=0, zorder=1.5)
        ax.plot(curve.x, curve.mean, color=st.POOLED, lw=1.3, zorder=2)
        line = Line2D([], [], color=st.POOLED, lw=1.3, label=label)
        handles.append(line if fit_is_point else (Patch(facecolor=st.POOLED_PALE, alpha=0.45), line))
    k = int(known.sum())
    alpha = float(np.clip(12.0 / np.sqrt(max(k, 1)), 0.15, 0.9))
    ax.scatter(
        picture.x[known], rows.weight[known], s=30 if k <= 200 else 9, color=st.RAW, alpha=alpha, linewidths=0,
        zorder=3, rasterized=k > 2000,
    )  # fmt: skip
    handles.insert(
        0, Line2D([], [], color=st.RAW, marker="o", ls="", ms=5.5, mew=0, label=_one(rows, picture.x[known]))
    )
    _name(ax, picture, known)
    group = st.shortened(rows.group)
    ax.set_xlabel(f"standard error of the {group}'s own estimate" if picture.errors else f"rows of the {group}")
    ax.set_ylabel("weight of its own data")
    title, subtitle = _message(picture, rows.weight[known])
    _finish(ax, title, subtitle, handles)


def _finish(ax: Axes, title: str, subtitle: str, handles: list[Any]) -> None:
    """As `style.finish`; a band and its line share one entry of the legend."""
    lines = [h[1] if isinstance(h, tuple) else h for h in handles]
    st.finish(ax, title, subtitle, lines)
    legend = ax.get_legend()
    if legend is None or len(lines) == len([h for h in handles if not isinstance(h, tuple)]):
        return
    ax.legend(
        handles=handles, labels=[str(h.get_label()) for h in lines], loc="lower left", bbox_to_anchor=(0.0, 1.0),
        bbox_transform=ax.transAxes, borderaxespad=0.2, borderpad=0.2, ncols=1, labelspacing=0.25, handletextpad=0.6,
    )  # fmt: skip
    st.plain(ax)


def _ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ... within the limits; 1, 10, 100, ... where these would be too many."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1, 2, 5), (1,)):
        ticks = [s * 10.0**d for d in decades for s in steps if low <= s * 10.0**d <= high]
        if len(ticks) <= 9:
            break
    return ticks


def _one(rows: GroupRows, x: Floats) -> str:
    if x.size > 1 and np.ptp(x) == 0.0 and np.ptp(rows.weight) < 1e-6:
        return f"all {x.size:,} {st.shortened(rows.group)} groups, at the same place"
    return f"one {st.shortened(rows.group)}"


def _message(picture: _Picture, weight: Floats) -> tuple[str, str]:
    rows = picture.rows
    group = st.shortened(rows.group)
    what = "" if rows.coefficient == "Intercept" else f" of {st.shortened(rows.coefficient)}"
    if rows.pooling == "none":
        return (
            f"Not pooled: own data decide all of a {group}'s estimate{what}",
            "No parent, no pull: every weight is 1.",
        )
    if rows.pooling == "complete":
        return f"Completely pooled: the population decides every {group}'s estimate{what}", "Every weight is 0."
    low, high = percent(float(weight.min())), percent(float(weight.max()))
    share = low if low == high else f"{low.removesuffix(' %')} to {high}"
    title = f"How far each {group} is pulled, and why: own data decide {share} of an estimate{what}"
    words = "The rest is the population's."
    if picture.curve is None and len(picture.coefficients) > 1:
        words = "The coefficients of a group share its rows, so that no one curve holds."
    half = np.nan if picture.curve is None else picture.curve.half
    if np.isfinite(half):
        at = f"a standard error of {number(half)}" if picture.errors else f"{plural(max(1, round(half)), 'row')}"
        words = f"With {at} own data and population count equally."
    if np.isfinite(picture.factor):
        words += f" Pooling factor of the term: {number(picture.factor, 2)} (0 none, 1 complete)."
    return title, words


def _name(ax: Axes, picture: _Picture, known: npt.NDArray[np.bool_]) -> None:
    """Name groups, the most extreme first, each where its name covers no other name and no point."""
    rows, x = picture.rows, picture.x
    at = np.flatnonzero(known)
    if at.size < 2 or np.ptp(rows.weight[at]) < 1e-9:
        return
    order = at[np.argsort(-np.abs(rows.weight[at] - np.median(rows.weight[at])), kind="stable")]
    if at.size > MOST_NAMED:
        order = np.array([at[np.argmin(rows.weight[at])], at[np.argmax(rows.weight[at])]])
    width, height = st.points(ax)
    x0, x1 = ax.get_xlim()
    y0, y1 = ax.get_ylim()
    across = np.log(x / x0) / np.log(x1 / x0) if ax.get_xscale() == "log" else (x - x0) / (x1 - x0)
    spots = np.column_stack([width * across, height * (rows.weight - y0) / (y1 - y0)])[at]
    # the law rises with rows and falls with the standard error: names go to the empty side of it first
    near = [(7, -9, "left"), (-7, 9, "right"), (-7, -9, "right"), (7, 9, "left")]
    if picture.errors:
        near = [(7, 9, "left"), (-7, -9, "right"), (7, -9, "left"), (-7, 9, "right")]
    sides = near + [(0, dy, ha) for dy in (22, -22, 36, -36) for ha in ("left", "right")]
    taken: list[tuple[float, float, float, float]] = []
    named: set[int] = set()
    for i in order:
        same = at[np.abs(rows.weight[at] - rows.weight[i]) + np.abs(across[at] - across[i]) < 1e-9]
        if named & set(same.tolist()):
            continue
        name = _label(rows, same)
        wide, high = st.text_width(name, NAME_SIZE), 1.2 * NAME_SIZE
        px, py = spots[at == i][0]
        for dx, dy, ha in sides:
            left, bottom = px + dx - (wide if ha == "right" else 0.0), py + dy - 0.5 * high
            right, top = left + wide, bottom + high
            inside = left >= 2 and right <= width - 2 and bottom >= 2 and top <= height - 2
            free = all(right < b[0] or b[2] < left or top < b[1] or b[3] < bottom for b in taken)
            clear = not np.any(np.all((spots > [left - 3, bottom - 3]) & (spots < [right + 3, top + 3]), axis=1))
            if inside and free and clear:
                ax.annotate(
                    name, (x[i], rows.weight[i]), (dx, dy), textcoords="offset points", ha=ha, va="center",
                    fontsize=NAME_SIZE, color=st.INK, zorder=5,
                )  # fmt: skip
                taken.append((left, bottom, right, top))
                named |= set(same.tolist())
                break


def _label(rows: GroupRows, same: npt.NDArray[np.int64]) -> str:
    """Names of groups at one place, and their weight."""
    names = [st.fitted(st.shortened(rows.level[i], 60), NAME_SIZE, NAME_ROOM / min(same.size, 2)) for i in same]
    who = ", ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1:,} more"
    return f"{who}: {percent(float(rows.weight[same[0]]))}"
