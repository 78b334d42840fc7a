"""Data sets drawn from a fitted model, row by row in the groups of the data: y_rep ~ p(y | eta, sigma), eta, sigma | y.

A test quantity T(y) that the model catches lies amid T(y_rep): the posterior predictive p-value is the share of
replicates with T(y_rep) >= T(y) (Gelman, Meng and Stern 1996, Statistica Sinica 6, 733-807).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from finetti.errors import FinettiError
from finetti.posterior.draws import CHAINS, Draws
from finetti.show.nodes import response_of

__all__ = ["Replicates", "replicate"]

Floats = npt.NDArray[np.float64]

MOST_VALUES = 1_000_000  # rows times data sets; beyond it rows are left out at random
MOST_SETS = 1_000
FOR_P_VALUES = 400
AT_ONCE = 8  # data sets whose group effects are in memory together
STREAM = 7  # of the seed: apart from those of the draws
# Fewer values than this on an even grid are a scale of steps, and no density
MOST_STEPS = 24


@dataclass(frozen=True)
class Replicates:
    """Observed and drawn responses.

    Attributes
    ----------
    response : its expression, as in the formula
    observed : (m,) of the rows that are shown; drawn : (N, m), N >= n
    n : data sets to show; all N serve for the p-values
    n_rows : rows of the data
    """

    response: str
    observed: Floats
    drawn: Floats
    n_rows: int
    n: int

    @property
    def p_values(self) -> dict[str, float]:
        """Share of replicates whose mean, sd, minimum and maximum are at least that observed; ties count half."""
        out = {}
        for name, quantity in _QUANTITIES.items():
            t, t_rep = quantity(self.observed[None])[0], quantity(self.drawn)
            out[name] = float(np.mean(t_rep > t) + 0.5 * np.mean(t_rep == t))
        return out

    @property
    def step(self) -> float | None:
        """The step between observed values where they are few and even, else None."""
        values = np.unique(self.observed)
        if not 2 <= values.size <= MOST_STEPS or self.observed.size < 4 * values.size:
            return None
        gaps = np.diff(values)
        multiples = gaps / gaps.min()
        even = np.all(np.abs(multiples - np.round(multiples)) < 1e-6) and multiples.sum() < MOST_STEPS
        return float(gaps.min()) if even else None


def _sd(y: Floats) -> Floats:
    return y.std(axis=1, ddof=1) if y.shape[1] > 1 else np.zeros(y.shape[0])


_QUANTITIES: dict[str, Any] = {
    "mean": lambda y: y.mean(axis=1),
    "sd": _sd,
    "minimum": lambda y: y.min(axis=1),
    "maximum": lambda y: y.max(axis=1),
}


def replicate(fit: Any, n: int) -> Replicates:
    """Draw `n` data sets from the posterior predictive distribution, groups and predictors as in the data.

    Parameters
    ----------
    fit : Fit
    n : int
        Number of data sets, 1 to 1,000.

    Raises
    ------
    FinettiError
        If `n` is not such a number.
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 1 <= n <= MOST_SETS:
        raise FinettiError(f"plot.predictive: n={n!r} must be a whole number of data sets, 1 to {MOST_SETS:,}")
    response = response_of(fit)
    n = int(n)
    inference, design = fit.inference, fit.model.design
    rng = np.random.default_rng(np.random.SeedSequence([fit.seed, STREAM]))
    N = design.y.size
    m = min(N, max(MOST_VALUES // n, 1))
    rows = np.sort(rng.choice(N, m, replace=False)) if m < N else np.arange(N)
    # a p-value wants more data sets than an eye; where a node is dear, those drawn must do
    total = n if inference.dear else int(np.clip(MOST_VALUES // m, n, max(n, FOR_P_VALUES)))
    theta = Draws(inference, CHAINS * -(-total // CHAINS), fit.seed).theta[:total]
    names = tuple(f.name for f in design.factors)
    drawn = np.empty((total, m))
    for start in range(0, total, AT_ONCE):
        part = theta[start : start + AT_ONCE]
        # one node serves all draws where hyperparameters have one value: no second factorisation
        one = inference.hyper.n_nodes == 1
        counts = np.array([len(part)] if one else [1] * len(part), dtype=np.int64)
        beta, u = inference.conditional.draw(part[:1] if one else part, counts, rng, names)
        # columns that an unpooled term makes unidentifiable have no coefficient of their own
        eta = design.offset[rows] + np.nan_to_num(beta) @ design.X[rows].T
        for f in design.factors:
            index, Z = f.index[rows], f.Z[rows]
            for k in range(Z.shape[1]):
                eta += np.nan_to_num(u[f.name][:, index, k]) * Z[:, k]
        sd = np.sqrt(_variance(design, rows, inference.coordinates.sigma(part)))
        drawn[start : start + len(part)] = eta + sd * rng.standard_normal(eta.shape)
    return Replicates(response, design.y[rows], drawn, int(N), n)


def _variance(design: Any, rows: npt.NDArray[np.int64], sigma: Floats) -> Floats:
    """Variance of each row's error, (S, m) or what broadcasts to it."""
    s2 = sigma[:, None] ** 2
    if design.se is not None:
        return design.se[rows] ** 2 + (s2 if design.se_sigma else 0.0)
    return s2 / design.weights[rows] if design.weights is not None else s2
