"""Discoveries at a chosen rate of false ones, and what is believed of the number of false ones among them.

A claim about test j, such as "its effect is not 0", is false with probability F_j given the data. Of all sets of claims
whose expected share of false ones is at most the rate, the largest is that of the smallest F_j (Mueller, Parmigiani,
Robert and Rousseau 2004, J. Amer. Statist. Assoc. 99, 990-1001): sorted by F, as many as keep the mean at the rate.

    fdr                 the effect is not 0                       F = P(b = 0)
    fsr                 it has the sign it seems to have          F = P(b = 0) + P(other sign)
    at_least, fdr       it is beyond delta on either side         F = P(|b| <= delta)
    at_least, fsr       it is beyond delta on the seeming side    F = 1 - P(beyond on that side)

The expectation is not all. Given the hyperparameters theta tests are independent, so that the number V of false claims
among those made is Poisson-binomial; and no theta is certain, which moves all F_j together. Both are in

    P(V = k | x) = E[ PoissonBinomial(k; F_j(theta) for the j claimed) | x ],

an average over joint draws of theta. Under method="empirical" there is one theta and the first part alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.errors import FinettiError
from finetti.inference.poisson_binomial import count_distributions, count_quantile
from finetti.inference.spike_slab_tests import HELD, at_nodes, nulls_at_nodes, pieces
from finetti.studies.screen_table import running_mean

if TYPE_CHECKING:
    from finetti.inference.spike_slab import Nodes
    from finetti.studies.screen import Screen

__all__ = ["Discoveries", "discoveries", "discovery_curve"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

RATE = 0.05
# joint draws of the hyperparameters: as many as this, fewer where very many claims are made
DRAWS, FEWEST, EVALUATIONS = 400, 200, 20_000_000
# columns of the table: probability that a claim is false, and the mean of it
NULL, SIGN = ("prob_null", "qvalue"), ("lfsr", "svalue")
CURVE = np.linspace(0.005, 0.25, 50)


@dataclass(frozen=True, eq=False, repr=False)
class Discoveries:
    """Claims made at a rate of false ones. Made by `Screen.discoveries`.

    Attributes
    ----------
    table : rows of `Screen.table`, the most convincing first, with `direction` ("up" or "down") and, where a size is
        asked for, `prob_at_least`, the probability of the claim
    rows : (n,) positions of these tests in `Screen.table`
    claim : what is claimed of every one, in words
    rate : the expected share of false claims that was allowed
    kind : of which rate: "false discovery" or "false sign"
    n_tests : how many tests there were
    false : (n + 1,) posterior probability that 0, 1, ..., n of the claims are false
    expected_false : expected number of false claims, the sum of their probabilities to be false in the table
    estimated : whether the hyperparameters were taken as known at their estimates (``method="empirical"``)

    Examples
    --------
    >>> import finetti as fi
    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> effects = np.where(np.arange(500) < 50, rng.normal(0, 4, 500), 0.0) + rng.normal(size=500)
    >>> found = fi.screen(effects, null="theoretical").discoveries(fdr=0.1)
    >>> found
    <18 discoveries among 500 tests: effects that are not 0, at a false discovery rate of 10 %>
    >>> len(found), found.interval, found.labels[:3].tolist()
    (18, (0, 4), [33, 24, 25])
    """

    table: pd.DataFrame
    rows: Ints
    claim: str
    rate: float
    kind: str
    n_tests: int
    false: Floats
    expected_false: float
    estimated: bool

    @property
    def n(self) -> int:
        """Number of discoveries."""
        return len(self.table)

    @property
    def labels(self) -> pd.Index:
        """Labels of the tests, the most convincing first."""
        return self.table.index

    @property
    def expected_rate(self) -> float:
        """Expected share of false claims, at most `rate`; 0 where nothing is claimed."""
        return self.expected_false / self.n if self.n else 0.0

    @property
    def interval(self) -> tuple[int, int]:
        """Central 90 % interval of the number of false claims."""
        return self.interval_of(0.9)

    @property
    def rate_interval(self) -> tuple[float, float]:
        """Central 90 % interval of the share of false claims."""
        low, high = self.interval
        return (low / self.n, high / self.n) if self.n else (0.0, 0.0)

    def interval_of(self, prob: float) -> tuple[int, int]:
        """Central interval of the number of false claims that holds at least the probability `prob`.

        Raises
        ------
        FinettiError
            Unless 0 < prob < 1.
        """
        p = _between("prob", prob, 0.9)
        return count_quantile(self.false, 0.5 - 0.5 * p), count_quantile(self.false, 0.5 + 0.5 * p)

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Any]:
        """Labels, the most convincing first."""
        return iter(self.labels)

    def __repr__(self) -> str:
        return f"<{self._head()}>"

    def _head(self) -> str:
        noun = "discovery" if self.n == 1 else "discoveries"
        return (
            f"{self.n:,} {noun} among {self.n_tests:,} tests: {self.claim}, at a {self.kind} rate of "
            f"{_percent(self.rate)}"
        )

    def __str__(self) -> str:
        lines = [self._head()]
        if "warning" in self.table.attrs:
            lines.append(f"DO NOT RELY ON THEM: {self.table.attrs['warning']}")
        if not self.n:
            return "\n".join([*lines, "No set of claims, however small, has so small an expected share of false ones."])
        low, high = self.interval
        low_rate, high_rate = self.rate_interval
        lines.append(
            f"Expected to be false: {self.expected_false:.2g} ({_percent(self.expected_rate)}); 90 % interval {low} to "
            f"{high} ({_percent(low_rate)} to {_percent(high_rate)})"
        )
        if self.estimated:
            lines.append(
                "The interval takes the hyperparameters as known at their estimates: it leaves out that they are not."
            )
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class _Claims:
    """What could be claimed of every test.

    false : (n,) probability that it is false; mean : (n,) of all claims at least as convincing
    up : (n,) the seeming direction
    delta, signed : the size claimed, and whether the direction is part of the claim
    """

    screen: Screen
    table: pd.DataFrame
    false: Floats
    mean: Floats
    up: Bools
    delta: float
    signed: bool

    @classmethod
    def of(cls, screen: Screen, signed: bool, at_least: float | None, rate: float) -> _Claims:
        """All claims; their direction where they are made at `rate`."""
        table = screen.table()
        up = table["mean"].to_numpy() > 0.0
        if at_least is None:
            false, mean = (table[name].to_numpy() for name in (SIGN if signed else NULL))
            rows = np.flatnonzero(mean <= rate)
            _, _, below, above = _sides(screen, 0.0, rows)
            up[rows] = np.where(above == below, up[rows], above > below)
        else:
            null, inside, below, above = _sides(screen, at_least, np.arange(screen.n_tests))
            # where both are nothing in numbers, the sign of the mean
            up = np.where(above == below, up, above > below)
            false = np.minimum(null + inside + (np.where(up, below, above) if signed else 0.0), 1.0)
            mean = running_mean(false)
            table["prob_at_least"] = np.minimum(np.where(up, above, below) if signed else below + above, 1.0)
        table["direction"] = np.where(up, "up", "down")
        return cls(screen, table, false, mean, up, at_least or 0.0, signed)

    @cached_property
    def order(self) -> Ints:
        """Positions, the most convincing first."""
        return np.lexsort((self.table["prob_null"].to_numpy(), self.false))

    def size(self, rate: float) -> int:
        """How many claims can be made."""
        return int(np.count_nonzero(self.mean <= rate))

    def false_at(self, nodes: Nodes, rows: Ints) -> Floats:
        """Probabilities (S, m) that claims are false, node by node."""
        tests, slab = self.screen.tests, self.screen.slab
        if self.delta == 0.0 and not self.signed:
            return nulls_at_nodes(tests, slab, nodes, rows)
        found = at_nodes(tests, slab, nodes, self.delta, rows)
        other = np.where(self.up[rows], found.below, found.above) if self.signed else 0.0
        return np.asarray(found.prob_null + found.inside + other)

    def counts(self, sizes: Ints) -> list[Floats]:
        """Distributions of the number of false claims among the first `sizes` (ascending)."""
        screen, most = self.screen, int(sizes[-1]) if sizes.size else 0
        if most == 0:
            return [np.ones(1) for _ in sizes]
        nodes, _ = screen.nodes
        if nodes.n > 1:
            nodes, _ = screen.learned.joint(int(np.clip(EVALUATIONS // most, FEWEST, DRAWS)), screen.seed)
        rows = self.order[:most]

        def batches() -> Iterator[Floats]:
            step = max(HELD // most, 1)
            for first in range(0, nodes.n, step):
                yield self.false_at(nodes.take(np.arange(first, min(first + step, nodes.n))), rows)

        return count_distributions(batches(), sizes)


def _sides(screen: Screen, delta: float, rows: Ints) -> Floats:
    """P(b = 0), P(0 < |b| <= delta), P(b < -delta), P(b > delta) of some tests, (4, m)."""
    nodes, weights = screen.nodes
    out = np.zeros((4, rows.size))
    for piece in pieces(rows.size, nodes.n):
        found = at_nodes(screen.tests, screen.slab, nodes, delta, rows[piece])
        w = screen.tests.node_weights(weights, rows[piece])
        for k, part in enumerate((found.prob_null, found.inside, found.below, found.above)):
            out[k, piece] = np.sum(w * part, axis=0)
    return out


def discoveries(
    screen: Screen, fdr: float | None = None, *, fsr: float | None = None, at_least: float | None = None
) -> Discoveries:
    """Make as many claims as an expected share of false ones allows; see `Screen.discoveries`."""
    if fdr is not None and fsr is not None:
        raise FinettiError(
            f"fdr={fdr!r} and fsr={fsr!r} exclude each other: give fdr, the share of claimed effects that are 0, or "
            "fsr, the share that are 0 or of the other sign"
        )
    signed = fsr is not None
    given = fsr if signed else RATE if fdr is None else fdr
    rate = _between("fsr" if signed else "fdr", given, RATE)
    claims = _Claims.of(screen, signed, _size(at_least), rate)
    n = claims.size(rate)
    chosen = claims.order[:n]
    (pmf,) = claims.counts(np.array([n]))
    return Discoveries(
        claims.table.iloc[chosen], chosen, _words(signed, at_least), rate,
        "false sign" if signed else "false discovery", screen.n_tests, pmf, float(claims.false[chosen].sum()),
        screen.estimate is not None,
    )  # fmt: skip


def discovery_curve(
    screen: Screen,
    rates: npt.ArrayLike | None = None,
    *,
    signed: bool = False,
    at_least: float | None = None,
    prob: float = 0.9,
) -> pd.DataFrame:
    """How many discoveries there are at many rates of false ones, and how many of them are false.

    Parameters
    ----------
    screen : Screen
    rates : sequence of float, optional
        Expected shares of false claims; by default 50 of them up to 0.25.
    signed : bool, optional
        Whether the sign is part of the claim: rates are then false sign rates.
    at_least : float, optional
        The size that is claimed, in units of the effect.
    prob : float, optional
        Probability of the intervals.

    Returns
    -------
    pandas.DataFrame
        A row per rate, ascending: `rate`, `n`, `expected_false`, and the ends `false_low`, `false_high` of the central
        interval of the number of false ones.

    Raises
    ------
    FinettiError
        For rates, sizes and probabilities out of their range.

    Examples
    --------
    >>> import finetti as fi
    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> effects = np.where(np.arange(500) < 50, rng.normal(0, 4, 500), 0.0) + rng.normal(size=500)
    >>> discovery_curve(fi.screen(effects, null="theoretical"), [0.01, 0.1])[["rate", "n", "false_high"]]
       rate   n  false_high
    0  0.01  12           1
    1  0.10  18           4
    """
    p = _between("prob", prob, 0.9)
    asked = np.atleast_1d(np.asarray(CURVE if rates is None else rates, dtype=float))
    if asked.ndim != 1 or asked.size == 0 or not np.all((asked > 0.0) & (asked < 1.0)):
        raise FinettiError(
            f"rates must be numbers strictly between 0 and 1, such as (0.01, 0.05, 0.1); given {rates!r}"
        )
    asked = np.sort(asked)
    claims = _Claims.of(screen, bool(signed), _size(at_least), float(asked[-1]))
    n = np.array([claims.size(rate) for rate in asked])
    sizes = np.unique(n)
    total = np.concatenate([[0.0], np.cumsum(claims.false[claims.order[: sizes[-1]]])])
    ends = {
        int(size): (count_quantile(pmf, 0.5 - 0.5 * p), count_quantile(pmf, 0.5 + 0.5 * p))
        for size, pmf in zip(sizes, claims.counts(sizes), strict=True)
    }
    low, high = np.array([ends[int(size)] for size in n]).T
    columns = {"rate": asked, "n": n, "expected_false": total[n], "false_low": low, "false_high": high}
    return pd.DataFrame(columns)


def _between(name: str, value: Any, such: float) -> float:
    """A number strictly between 0 and 1."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not (number and 0.0 < value < 1.0):
        raise FinettiError(f"{name}={value!r} must be a number strictly between 0 and 1, such as {such:g}")
    return float(value)


def _size(at_least: Any) -> float | None:
    if at_least is None:
        return None
    number = isinstance(at_least, (int, float, np.integer, np.floating)) and not isinstance(at_least, bool)
    if not (number and 0.0 <= at_least < np.inf):
        raise FinettiError(
            f"at_least={at_least!r} must be a size that matters, a number from 0 up in units of the effect; leave it "
            "out to claim effects of any size"
        )
    return float(at_least)


def _words(signed: bool, at_least: float | None) -> str:
    if at_least is None:
        return "effects that have the sign they seem to have" if signed else "effects that are not 0"
    beyond = f"effects of size above {at_least:g}"
    return f"{beyond} in the direction they seem to have" if signed else beyond


def _percent(share: float) -> str:
    return f"{100.0 * share:.3g} %"
