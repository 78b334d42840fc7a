"""The funnel plot: effects against their standard errors, with the region that chance alone allows.

Around the overall effect mu, 95 % of effects with standard error s lie within mu +- 1.96 s if all studies estimate the
same, and within mu +- 1.96 sqrt(s^2 + tau^2) if their true effects differ with sd tau (Sterne and Egger 2001,
J. Clin. Epidemiol. 54, 1046-1055).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from finetti.show import style as st
from finetti.show.numbers import number
from finetti.show.studies import Studies

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

HEIGHT = 4.9  # inches
Z95 = 1.959963984540054


def message(s: Studies) -> tuple[str, str]:
    """How many studies lie outside of what chance allows, without and with heterogeneity."""
    k = len(s.names)
    away = np.abs(s.effect - s.overall[0])
    alone = int(np.sum(away > Z95 * s.se))
    both = int(np.sum(away > Z95 * np.sqrt(s.se**2 + s.tau[0] ** 2)))
    tau = f"tau\u00a0=\u00a0{s.text(s.tau[0])} (median)"
    title = f"{alone or 'None'} of {k} studies {_lie(alone)} outside the funnel of chance; "
    title += f"{both or 'none'} once {tau} is counted"
    words = f"Chance alone would put about {number(0.05 * k, 1)} outside. "
    words += "Precise studies are at the top; a gap in one lower corner may be missing studies."
    if s.moderated:
        words += " The line is the effect at mean covariates."
    return title, words


def _lie(n: int) -> str:
    return "lies" if n <= 1 else "lie"


def draw(ax: Axes, s: Studies) -> None:
    """Draw the figure in `ax`; the style is the caller's to set."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    mu, tau = s.overall[0], s.tau[0]
    bottom = 1.06 * float(s.se.max())
    se = np.linspace(0.0, bottom, 201)
    wide = Z95 * np.sqrt(se**2 + tau**2)
    ax.fill_betweenx(se, mu - wide, mu + wide, color="#f2f2f2", lw=0, zorder=0.5)
    ax.plot(mu - wide, se, color="#8f8f8f", lw=1.0, ls=(0, (1, 1.6)), zorder=1)
    ax.plot(mu + wide, se, color="#8f8f8f", lw=1.0, ls=(0, (1, 1.6)), zorder=1)
    ax.fill_betweenx(se, mu - Z95 * se, mu + Z95 * se, color="#dfdfdf", lw=0, zorder=0.7)
    for sign in (-1, 1):
        ax.plot(mu + sign * Z95 * se, se, color="#777777", lw=1.0, zorder=1)
    ax.plot([mu, mu], [0.0, bottom], color=st.POPULATION, lw=1.1, ls=(0, (4, 2.5)), zorder=1.5)
    ax.hlines(s.se, s.effect, s.mean, color=st.LINK, lw=0.7, alpha=0.7, zorder=2)
    small = len(s.names) > 60
    ax.scatter(s.mean, s.se, s=10 if small else 20, color=st.POOLED, alpha=0.45, linewidths=0, zorder=2.5)
    ax.scatter(
        s.effect, s.se, s=16 if small else 38, facecolors="white", edgecolors=st.RAW, linewidths=1.0 if small else 1.4,
        zorder=3,
    )  # fmt: skip
    reach = np.concatenate([s.effect, s.mean, [mu - wide[-1], mu + wide[-1]]])
    margin = 0.03 * float(np.ptp(reach))
    ax.set_xlim(float(reach.min()) - margin, float(reach.max()) + margin)
    ax.set_ylim(bottom, 0.0)
    ax.set_ylabel("standard error (small at the top)")
    ax.set_xlabel("\n".join(st.wrapped(st.shortened(s.effect_name), 9.5, max(120.0, st.points(ax)[0]))))
    handles: list[Any] = [
        Line2D([], [], ls="", marker="o", ms=6, mfc="white", mec=st.RAW, mew=1.4, label="study as observed"),
        Line2D([], [], ls="", marker="o", ms=5, mfc=st.POOLED, mew=0, alpha=0.45, label="after partial pooling"),
        Line2D([], [], color=st.POPULATION, lw=1.1, ls=(0, (4, 2.5)), label=f"overall effect, {s.text(mu)}"),
        Patch(facecolor="#dfdfdf", edgecolor="#777777", label="95 % of studies if they differ by chance alone"),
        Patch(facecolor="#f2f2f2", edgecolor="#8f8f8f", ls=":", label="95 % with heterogeneity tau"),
    ]
    title, subtitle = message(s)
    st.finish(ax, title, subtitle, handles)
