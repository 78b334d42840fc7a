"""One simulation of a coverage study: data from a model at known values, both analyses, and what their intervals hold.

With theta the hyperparameters and b a coefficient, full Bayes reports the central interval of

    p(b | y) = sum_s w_s Normal(b; m_s, v_s),

the mixture over the nodes of theta, and empirical Bayes that of the one component at the maximum of the marginal
likelihood. Whether the truth lies inside is averaged over the groups of a simulation, so that simulations are
independent observations and their spread is the standard error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from finetti.data.variants import with_pooling, with_response
from finetti.errors import FinettiError
from finetti.inference.hyper import Settings
from finetti.inference.infer import Inference, infer
from finetti.model.priors import Fixed
from finetti.posterior.groups import representative_nodes
from finetti.posterior.mixtures import mixture_quantiles
from finetti.posterior.simulate import Simulated, draw_prior, simulate
from finetti.posterior.summary import function_rows

if TYPE_CHECKING:
    from finetti.data.bound import Bound

__all__ = ["EMPIRICAL", "FULL", "Outcome", "Quantity", "Scenario", "Study", "quantities"]

Floats = npt.NDArray[np.float64]

EMPIRICAL, FULL = "empirical Bayes", "full Bayes"

# A Monte Carlo error of eps posterior sds in an interval's ends has mean zero and changes coverage only in second
# order, by z phi(z) eps^2: 0.0004 at 90 % and eps = 0.05, where 1,000 simulations have a standard error of 0.009.
COARSE = Settings(mean_error=0.04, quantile_error=0.1, min_nodes=512)
# Nodes in the mixture of a group's effect, fewer with many groups: theta is then a small part of what is uncertain
MIXED_NODES, FEWEST_MIXED, MIXED_VALUES = 256, 64, 20_000


@dataclass(frozen=True)
class Quantity:
    """Something that has an interval. `kind`: "group", "new", "population" or "hyper"; `at`: its column."""

    name: str
    kind: str
    factor: str = ""
    at: int = 0


@dataclass(frozen=True, eq=False)
class Scenario:
    """A design and the values that data are simulated from.

    bound : the model with its priors frozen, every modelled term partially pooled
    truth : values by label, or one such mapping for each simulation, or None to draw from the priors
    """

    bound: Bound
    truth: Mapping[str, float] | tuple[Mapping[str, float], ...] | None
    prob: float
    seed: tuple[int, int]

    def at(self, simulation: int, rng: np.random.Generator) -> Mapping[str, float]:
        """The values of one simulation."""
        if self.truth is None:
            return draw_prior(self.bound, rng)
        return self.truth[simulation] if isinstance(self.truth, tuple) else self.truth


@dataclass(frozen=True)
class Outcome:
    """Of one simulation: (Q, 2, 2) coverage and length under empirical and full Bayes, NaN where there is none.

    zero : (Q,) 1 where empirical Bayes put the standard deviation behind the quantity at exactly zero
    failure : why there are no numbers, "" where there are
    """

    values: Floats
    zero: Floats
    failure: str = ""


def both_poolings(bound: Bound) -> tuple[Bound, Bound]:
    """The model with its modelled terms under empirical and under full Bayes."""
    modelled = [g for g, kind in bound.pooling.items() if kind in ("partial", "empirical")]
    empirical = with_pooling(bound, dict.fromkeys(modelled, "empirical"))
    return empirical, with_pooling(bound, dict.fromkeys(modelled, "partial"))


def quantities(bound: Bound) -> tuple[Quantity, ...]:
    """What is looked at: group effects and a new group's, population coefficients, hyperparameters."""
    pilot = infer(both_poolings(bound)[1], "exact", settings=COARSE)  # of the design's own y: shows what is free
    found = []
    modelled = [(f, s) for f, s in zip(bound.design.factors, pilot.coordinates.factors, strict=True) if s.modelled]
    several = sum(len(f.coefficients) for f, _ in modelled) > 1
    for kind, words in (("group", "group effects"), ("new", "a new group")):
        for f, _ in modelled:
            for k, c in enumerate(f.coefficients):
                found.append(Quantity(f"{words} {f.name}[{c}]" if several else words, kind, f.name, k))
    for k, c in enumerate(bound.design.columns):
        prior = bound.priors.get(f"beta[{c}]", bound.priors.get(c))
        if c not in pilot.conditional.unidentified and not isinstance(prior, Fixed):
            found.append(Quantity(f"beta[{c}]", "population", "", k))
    values = pilot.coordinates.natural(pilot.hyper.theta)
    found += [Quantity(label, "hyper") for label, v in values.items() if np.ptp(v) > 0.0]
    maps = dict(zip([f.name for f in bound.design.factors], pilot.conditional.population_maps, strict=True))
    # the variance of a new group's coefficient is had for free where its population value is one coefficient
    return tuple(q for q in found if q.kind != "new" or np.count_nonzero(maps[q.factor][q.at]) <= 1)


@dataclass(frozen=True, eq=False)
class Study:
    """Scenarios and what is looked at in each; called with (scenario, simulation) it runs that simulation."""

    scenarios: tuple[Scenario, ...]
    wanted: tuple[tuple[Quantity, ...], ...]

    def __call__(self, task: tuple[int, int]) -> Outcome:
        s, simulation = task
        return _one(self.scenarios[s], self.wanted[s], simulation)


def _one(scenario: Scenario, wanted: tuple[Quantity, ...], i: int) -> Outcome:
    rng = np.random.default_rng(np.random.SeedSequence([*scenario.seed, i]))
    values, zero = np.full((len(wanted), 2, 2), np.nan), np.full(len(wanted), np.nan)
    try:
        natural = scenario.at(i, rng)
        made = simulate(scenario.bound, natural, rng)
        data = with_response(scenario.bound, made.y)
        empirical, full = both_poolings(data)
        seed = int(rng.integers(2**31))
        inferences = infer(empirical, "exact", seed, settings=COARSE), _reliable(full, seed)
    except (FinettiError, np.linalg.LinAlgError) as error:
        return Outcome(values, zero, str(error))
    for m, inference in enumerate(inferences):
        for q, (covered, length) in _measure(inference, wanted, made, scenario.prob).items():
            values[q, m] = covered, length
    at_zero = _at_zero(inferences[0])
    for q, quantity in enumerate(wanted):
        zero[q] = any(_behind(quantity, scenario.bound, label) for label in at_zero)
    return Outcome(values, zero)


def _reliable(bound: Bound, seed: int) -> Inference:
    """Full Bayes with few nodes, or with all the nodes of an ordinary fit where those do not pass their check."""
    found = infer(bound, "exact", seed, settings=COARSE)
    if not found.hyper.reliable:
        found = infer(bound, "auto", seed)
        ok = found.hyper.reliable if found.sampled is None else found.sampled.ok
        if not ok:
            raise FinettiError("the full-Bayes fit did not pass its own check")
    return found


def _at_zero(empirical: Inference) -> tuple[str, ...]:
    return () if empirical.estimate is None else tuple(b for b in empirical.estimate.boundary if b.startswith("sd_"))


def _behind(quantity: Quantity, bound: Bound, label: str) -> bool:
    """Whether the sd of that label is the one a quantity hangs on; a population coefficient hangs on all."""
    if quantity.kind in ("group", "new"):
        f = next(f for f in bound.design.factors if f.name == quantity.factor)
        return label == f"sd_{f.name}[{f.coefficients[quantity.at]}]"
    return quantity.kind == "population" or label == quantity.name


def _measure(
    inference: Inference, wanted: tuple[Quantity, ...], made: Simulated, prob: float
) -> dict[int, tuple[float, float]]:
    """Coverage and length of each quantity's interval, by its position."""
    tails = np.array([0.5 - 0.5 * prob, 0.5 + 0.5 * prob])
    out: dict[int, tuple[float, float]] = {}
    hyper, design = inference.hyper, inference.bound.design
    (beta, variance), natural, u = hyper.payload, made.truth, made.u
    true_beta = np.array([natural[f"beta[{c}]"] for c in design.columns])
    ends = mixture_quantiles(hyper.weights, beta, variance, tails)
    for f, A in zip(design.factors, inference.conditional.population_maps, strict=True):
        mine = [(i, q) for i, q in enumerate(wanted) if q.factor == f.name]
        if not mine:
            continue
        wn, mean, var = _mixed(inference, f.name)
        low, high = np.moveaxis(mixture_quantiles(wn, mean, var, tails), -1, 0)
        inside = (low <= A @ true_beta + u[f.name]) & (A @ true_beta + u[f.name] <= high)
        index = [s.name for s in inference.coordinates.factors].index(f.name)
        parent = np.sum(inference.coordinates.covariance_factor(index, hyper.theta) ** 2, axis=2)
        new = mixture_quantiles(hyper.weights, np.nan_to_num(beta) @ A.T, variance @ (A**2).T + parent, tails)
        for i, q in mine:
            if q.kind == "group":
                out[i] = float(inside[:, q.at].mean()), float((high - low)[:, q.at].mean())
            else:
                label = f"sd_{f.name}[{f.coefficients[q.at]}]"
                out[i] = _chance(new[q.at], float((A @ true_beta)[q.at]), natural[label]), float(np.ptp(new[q.at]))
    for i, q in enumerate(wanted):
        estimated = inference.estimate is not None and not variance[:, q.at].any()  # and has no interval
        if q.kind == "population" and not estimated:
            out[i] = _inside(ends[q.at], true_beta[q.at])
    if inference.estimate is None:
        out.update(_hyperparameters(inference, wanted, natural, tails))
    return out


def _mixed(inference: Inference, name: str) -> tuple[Floats, Floats, Floats]:
    """Weights (S,), means and variances (S, J, q) of the whole coefficients at representative nodes."""
    hyper = inference.hyper
    f = next(f for f in inference.bound.design.factors if f.name == name)
    most = int(np.clip(MIXED_VALUES // (len(f.levels) * len(f.coefficients)), FEWEST_MIXED, MIXED_NODES))
    nodes, w = representative_nodes(hyper.weights, 1, most)
    batches = list(inference.conditional.groups(name, hyper.theta[nodes]))
    return (
        w,
        np.concatenate([b.mean for b in batches]),
        np.concatenate([np.diagonal(b.cov, axis1=2, axis2=3) for b in batches]),
    )


def _hyperparameters(
    inference: Inference, wanted: tuple[Quantity, ...], natural: Mapping[str, float], tails: Floats
) -> dict[int, tuple[float, float]]:
    hyper, names = inference.hyper, {q.name: i for i, q in enumerate(wanted) if q.kind == "hyper"}
    at_nodes = {k: v for k, v in inference.coordinates.natural(hyper.theta).items() if k in names}
    dense = None
    if hyper.surrogate is not None:
        dense = {k: v for k, v in inference.coordinates.natural(hyper.surrogate.theta).items() if k in names}
    rows = function_rows(inference, at_nodes, dense, tails)
    return {names[k]: _inside(np.array(row[2:4]), natural[k]) for k, row in zip(at_nodes, rows, strict=True)}


def _inside(ends: Floats, truth: float) -> tuple[float, float]:
    return float(ends[0] <= truth <= ends[1]), float(ends[1] - ends[0])


def _chance(ends: Floats, mean: float, sd: float) -> float:
    """Probability that a draw from Normal(mean, sd^2) lies between the ends: less noise than one such draw."""
    if sd == 0.0:
        return float(ends[0] <= mean <= ends[1])
    low, high = (ends - mean) / sd
    return float(ndtr(high) - ndtr(low))
