"""What the report's sections on honest uncertainty may take, in nominal seconds of one core.

Costs come from sizes alone and not from a clock, so that the same fit has the same page on every machine.
"""

from __future__ import annotations

from typing import Any

from finetti.inference.left_out import exact_conditional, nominal_cost
from finetti.inference.target import GaussianTarget
from finetti.posterior.groups import factor_index

__all__ = ["Cost"]

# seconds that a part may take, and all together, of which scores of pooling at most half
MOST_SECONDS, MOST_IN_ALL = 3.0, 8.0
# seconds per value of a table (nodes x rows or levels), of which at most so many are made; per level of the test of
# exchangeability, which simulates sets of groups; measured, one core
PER_VALUE, MOST_VALUES, PER_LEVEL = 4e-7, 1e7, 1.7e-3
# nodes that an empirical-Bayes fit evaluates; most nodes that tables rest on, and most draws of NUTS
CLIMB, MOST_NODES, MOST_DRAWS = 150, 2048, 1000


class Cost:
    """Nominal seconds of one core: from sizes alone, so that the same fit has the same page on every machine."""

    def __init__(self, fit: Any) -> None:
        self._fit, self._spent = fit, 0.0

    def allows(self, seconds: float, share: float = 1.0) -> bool:
        """Whether the page may take so long, up to a share of all that it may take; if so, it is spent."""
        if seconds > MOST_SECONDS or self._spent + seconds > share * MOST_IN_ALL:
            return False
        self._spent += seconds
        return True

    def _exact(self) -> Any:
        return exact_conditional(self._fit.inference.conditional)

    def _n_nodes(self) -> int:
        most = MOST_DRAWS if self._fit.inference.sampled is not None else MOST_NODES
        return min(self._fit.inference.hyper.n_nodes, most)

    def node(self) -> float:
        """One node."""
        return float(GaussianTarget(self._exact().inner).cost)

    def nodes(self) -> float:
        """All nodes once: a fit, about."""
        return self.node() * self._n_nodes()

    def uncertainty(self) -> float:
        """An empirical-Bayes fit."""
        return CLIMB * self.node()

    def pooling(self) -> float:
        """Three more fits."""
        return 2.0 * self.nodes() + self.uncertainty()

    def left_out(self, group: str) -> float:
        """Every level of a term, or every row (group "")."""
        size = len(self._factor(group).levels) if group else self._fit.n_rows
        each = nominal_cost(self._fit.inference.conditional, group or None)
        return each * self._n_nodes() + PER_VALUE * min(self._n_nodes() * size, MOST_VALUES)

    def scores(self, group: str) -> float:
        """Three analyses at all nodes, and the folds of empirical Bayes."""
        folds = CLIMB * nominal_cost(self._fit.inference.conditional, None)
        return 3.0 * (self.left_out("") + self.left_out(group)) + folds

    def exchangeability(self, group: str) -> float:
        """Every group against the others, and sets of simulated groups."""
        factor = self._factor(group)
        return self.left_out(group) + PER_LEVEL * len(factor.levels) * len(factor.coefficients)

    def _factor(self, group: str) -> Any:
        return self._fit.model.design.factors[factor_index(self._fit.inference, group)]
