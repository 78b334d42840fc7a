"""Whether Markov chains agree: rank-normalised R-hat and effective sample sizes, as ArviZ computes them.

Vehtari, Gelman, Simpson, Carpenter and Buerkner (2021, Bayesian Analysis 16, 667-718): chains are trusted if R-hat is
below 1.01 and bulk and tail ESS exceed 100 per chain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

__all__ = ["HIGHEST_RHAT", "LEAST_ESS", "Convergence", "Errors", "chain_errors", "convergence"]

Floats = npt.NDArray[np.float64]

HIGHEST_RHAT = 1.01
LEAST_ESS = 400.0
# normal probabilities at -1 and 1
ONE_SIGMA = np.array([0.15865525393145707, 0.8413447460685429])


@dataclass(frozen=True)
class Convergence:
    """The worst of all parameters looked at: its value and its label."""

    rhat: float
    rhat_at: str
    bulk: float
    bulk_at: str
    tail: float
    tail_at: str

    @property
    def ok(self) -> bool:
        return self.rhat <= HIGHEST_RHAT and min(self.bulk, self.tail) >= LEAST_ESS


def convergence(values: Mapping[str, Floats]) -> Convergence:
    """Look at parameters by label, (chains, draws) each; those that do not vary are passed over."""
    import arviz as az

    rhat, bulk, tail = (1.0, ""), (np.inf, ""), (np.inf, "")
    for label, x in values.items():
        if not np.ptp(x) > 0.0:
            continue
        rhat = max(rhat, (_number(az.rhat(x), np.inf), label))
        bulk = min(bulk, (_number(az.ess(x, method="bulk"), 0.0), label))
        tail = min(tail, (_number(az.ess(x, method="tail"), 0.0), label))
    return Convergence(rhat[0], rhat[1], bulk[0], bulk[1], tail[0], tail[1])


def _number(value: object, otherwise: float) -> float:
    number = float(np.asarray(value))
    return number if np.isfinite(number) else otherwise


@dataclass(frozen=True)
class Errors:
    """Of one parameter: bulk ESS, and Monte Carlo standard errors of mean, sd, and 5, 50, 95 % quantiles."""

    ess: float
    mean: float
    sd: float
    quantiles: tuple[float, float, float]


def chain_errors(x: Floats) -> Errors:
    """Errors of one parameter from its chains (chains, draws)."""
    import arviz as az

    if not np.ptp(x) > 0.0:
        return Errors(np.nan, 0.0, 0.0, (0.0, 0.0, 0.0))
    deviation = x - x.mean()
    square = deviation**2
    variance = float(square.mean())
    # by effective sizes of the draws, of their squares, and of being below the quantile (Vehtari et al., section 4);
    # ArviZ 0.23 has these errors, too, but not with every NumPy
    mean = np.sqrt(variance / _number(az.ess(x, method="mean"), np.nan))
    sd = np.sqrt(float(square.var()) / _number(az.ess(square, method="mean"), np.nan) / (4.0 * variance))
    order = np.sort(x, axis=None)
    spread = []
    for p in (0.05, 0.5, 0.95):
        n = _number(az.ess(x, method="quantile", prob=p), np.nan)
        low, high = betaincinv(n * p + 1.0, n * (1.0 - p) + 1.0, ONE_SIGMA)
        spread.append(float(np.diff(np.interp([low, high], (np.arange(x.size) + 0.5) / x.size, order))[0]) / 2.0)
    return Errors(_number(az.ess(x, method="bulk"), np.nan), float(mean), float(sd), (spread[0], spread[1], spread[2]))
