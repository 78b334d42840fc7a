"""What the figures of a screen share: its numbers with their intervals, its densities of z, and what is drawn of many.

At one node the density of a test's z = x / se is pi0 f0(z) + (1 - pi0) f1(z). The null f0 has one shape for all tests
with the same degrees of freedom; the slab's f1 depends on slab_sd / se. A histogram of all tests is to be compared with
the mean over tests, which is taken over a few that stand for all: the middles of strata of equal size, by group and se.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.errors import FinettiWarning
from finetti.inference.spike_slab import Nodes, Observed, Slab
from finetti.show import style as st
from finetti.show.numbers import decimals, significant
from finetti.show.text import FAILED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from finetti.studies.screen import Screen

__all__ = [
    "Curves",
    "Known",
    "expected",
    "finish",
    "known",
    "mixture_curves",
    "not_null",
    "percent_range",
    "reach",
    "representatives",
    "some_of",
    "table_of",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# of the tests that stand for all: drawn from this many, and at most so many
POOL, MOST = 20_000, 40
# joint draws behind a band, and behind a share that no row of `hyper` holds
BAND_DRAWS, SHARE_DRAWS = 100, 2_000
# nominal seconds that all densities of one figure may take, see `Observed.cost`
SECONDS = 0.6
# a side of a figure of z reaches so many times as far as nearly all tests do, and as the least that it must show
FAR, FAR_LEAST = 1.6, 2.5


@dataclass(frozen=True)
class Known:
    """A number with its 90 % interval; both ends equal the number where it is held or estimated."""

    mean: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        return not self.high > self.low

    @property
    def places(self) -> int | None:
        """Decimals that show two digits of its uncertainty, or three of a number without any."""
        return decimals((self.high - self.low) / 3.29, 2) if not self.sure else decimals(abs(self.mean), 3)


def table_of(screen: Screen, table: pd.DataFrame | None) -> pd.DataFrame:
    """The table given, or the screen's own, which takes seconds of a million tests."""
    return screen.table() if table is None else table


def known(screen: Screen, name: str) -> Known:
    """A row of `hyper`, whose warning of a failed check is given in the figure itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FinettiWarning)
        row = screen.hyper().loc[name, ["mean", "q5", "q95"]].to_numpy(float)
    return Known(float(row[0]), float(row[1]), float(row[2]))


def not_null(screen: Screen) -> Known:
    """Share of the tests that are not null: 1 - pi0, or its mean over tests where pi0 varies between them."""
    nodes, _ = screen.nodes
    if nodes.n_groups == 1:
        pi0 = known(screen, "pi0")
        return Known(1.0 - pi0.mean, 1.0 - pi0.high, 1.0 - pi0.low)
    draws, _ = screen.learned.joint(SHARE_DRAWS, screen.seed)
    size = np.bincount(screen.tests.group, minlength=nodes.n_groups) / screen.n_tests
    share = draws.rest @ size
    return Known(float(share.mean()), *(float(v) for v in np.quantile(share, [0.05, 0.95])))


def percent_range(k: Known) -> tuple[str, str]:
    """A share and its interval in per cent: two digits, one of an end that is small beside the others.

    Examples
    --------
    >>> percent_range(Known(0.0123, 0.008, 0.019))
    ('1.2 %', '0.80 to 1.9 %')
    >>> percent_range(Known(0.0178, 0.0003, 0.072))
    ('1.8 %', '0.03 to 7.2 %')
    >>> percent_range(Known(0.0123, 0.0123, 0.0123))
    ('1.23 %', '')
    """
    if k.sure:
        return f"{significant(100 * k.mean, 3)} %", ""
    low = significant(100 * k.low, 1 if k.low < 0.3 * k.mean else 2)
    return f"{significant(100 * k.mean, 2)} %", f"{low} to {significant(100 * k.high, 2)} %"


def expected(count: float) -> str:
    """Write an expected number of tests.

    >>> expected(1234.5), expected(6.24), expected(0.0238)
    ('1,234', '6.2', '0.024')
    """
    return f"{count:,.0f}" if count >= 100 else significant(count, 2)


def reach(z: Floats, least: float, middle: float = 0.0) -> tuple[float, float, int]:
    """Limits that show z to both sides of `middle`, at least as far as `least`, and how many lie beyond them.

    A few extremes that would squeeze all others lie beyond. No side is shorter than half the other: labels go there.

    Examples
    --------
    >>> reach(np.r_[np.linspace(-3, 3, 999), 80.0], 4.0)
    (-5.0, 10.0, 1)
    """
    sides = []
    for sign in (-1.0, 1.0):
        away = sign * (z - middle)
        k = max(1, away.size // 1000)
        nearly = float(np.partition(away, -k - 1)[-k - 1]) if away.size > k else 0.0
        most = max(FAR_LEAST * least, FAR * nearly)
        sides.append(min(most, max(1.03 * float(away.max()), least)))
    left, right = max(sides[0], 0.5 * sides[1]), max(sides[1], 0.5 * sides[0])
    low, high = middle - left, middle + right
    return low, high, int(np.count_nonzero((z < low) | (z > high)))


def some_of(n: int, most: int, always: npt.NDArray[np.bool_] | None = None) -> Ints:
    """Positions of at most `most` of n tests, at random but the same each time, with all of `always`."""
    always = np.zeros(n, dtype=bool) if always is None else always
    others = np.flatnonzero(~always)
    if others.size > most:
        others = np.random.default_rng(5).choice(others, most, replace=False)
    return np.sort(np.concatenate([np.flatnonzero(always), others]))


# --- densities of z ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Curves:
    """Densities of z at `z` (Z,): posterior means, and 5 and 95 % quantiles (2, Z) over joint draws, None of one node.

    null, slab : pi0 f0 and (1 - pi0) f1, averaged over the tests
    theoretical : pi0 f0 of a null of mean 0 and sd 1
    """

    z: Floats
    null: Floats
    slab: Floats
    theoretical: Floats
    null_band: Floats | None
    slab_band: Floats | None

    @property
    def both(self) -> Floats:
        return self.null + self.slab


def representatives(tests: Observed, most: int) -> Ints:
    """Positions of at most `most` tests, each of which stands for equally many.

    Examples
    --------
    >>> representatives(Observed.of(np.zeros(9), np.arange(1.0, 10.0)), 3).tolist()
    [1, 4, 7]
    """
    alike = np.all(tests.se == tests.se[0]) and np.all(tests.df == tests.df[0]) and np.all(tests.group == 0)
    if alike and tests.sets is None:
        return np.zeros(1, dtype=np.int64)
    pool = some_of(tests.n, POOL)
    if pool.size <= most:
        return pool
    order = pool[np.lexsort((tests.se[pool], tests.group[pool]))]
    return order[((np.arange(most) + 0.5) / most * pool.size).astype(np.int64)]


def densities(tests: Observed, slab: Slab, nodes: Nodes, z: Floats) -> tuple[Floats, Floats]:
    """Densities f0 and f1 of z = x / se of every test at every node, (S, n, Z)."""
    out = np.empty((2, nodes.n, tests.n, z.size))
    which = nodes.layered[-1]
    for k in np.unique(which):
        rows, one = np.flatnonzero(which == k), tests.of_set(int(k))
        for g in np.unique(tests.group):
            mine = np.flatnonzero(tests.group == g)
            spread = np.repeat(one.se[mine], z.size)
            x = (tests.se[mine, None] * z).ravel()
            log_ratio, log_null = Observed.of(x, spread, np.repeat(one.df[mine], z.size)).log_ratio(
                slab, np.ascontiguousarray(nodes.tau[rows, g]), nodes.mu[rows].copy(), nodes.kappa[rows].copy()
            )
            log_null += np.log(np.repeat(tests.se[mine], z.size))  # per unit of z, not of x
            shape = (rows.size, mine.size, z.size)
            out[0][np.ix_(rows, mine)] = np.exp(log_null).reshape(shape)
            out[1][np.ix_(rows, mine)] = np.exp(log_null + log_ratio).reshape(shape)
    return out[0], out[1]


def mixture_curves(screen: Screen, z: Floats) -> Curves:
    """The fitted null and slab at `z`, averaged over the tests, with bands for what is not known of the prior."""
    nodes, weights = screen.nodes
    tests, slab = screen.tests, screen.slab
    unit = Observed.of(tests.z[:1], tests.se[:1], tests.df[:1]).cost(slab) * z.size
    most = int(np.clip(SECONDS / (unit * (nodes.n + 0.5 * BAND_DRAWS)), 4, MOST))
    some = tests.take(representatives(tests, most))
    n_draws = int(np.clip(SECONDS / (unit * some.n) - nodes.n, 24, BAND_DRAWS))

    def parts(at: Nodes) -> tuple[Floats, Floats]:
        f0, f1 = densities(some, slab, at, z)
        return at.pi0[:, some.group, None] * f0, at.rest[:, some.group, None] * f1

    w = weights[:, some.group] if weights.ndim == 2 else np.repeat(weights[:, None], some.n, axis=1)
    null, slab_part = (np.einsum("sr,srz->z", w, part) / some.n for part in parts(nodes))
    heaviest = nodes.take(np.array([int(np.argmax(w.sum(axis=1)))]))
    plain = replace(heaviest, mu=np.zeros(1), kappa=np.ones(1))
    share = float((w * nodes.pi0[:, some.group]).sum() / some.n)
    theoretical = share * densities(some, slab, plain, z)[0].mean(axis=(0, 1))
    if nodes.n == 1:
        return Curves(z, null, slab_part, theoretical, None, None)
    drawn = parts(screen.learned.joint(n_draws, screen.seed)[0])
    bands = [np.quantile(part.mean(axis=1), [0.05, 0.95], axis=0) for part in drawn]
    return Curves(z, null, slab_part, theoretical, bands[0], bands[1])


# --- the message -------------------------------------------------------------------------------------


def finish(
    ax: Axes, screen: Screen, title: str, subtitle: str, handles: tuple[Any, ...] = (), room: float | None = None
) -> None:
    """The message over the axes; of a screen that failed its own checks first of all that, and in vermillion."""
    from matplotlib.text import Text

    if screen.diagnostics.ok:
        st.finish(ax, title, subtitle, handles, room)
        return
    loud = f"{FAILED}. {title}"
    st.finish(ax, loud, f"{subtitle} Failed: {screen.diagnostics.warnings[0]}.", handles, room)
    for text in ax.findobj(Text):
        if isinstance(text, Text) and text.get_text().startswith(FAILED[:12]):
            text.set_color(st.RAW)
