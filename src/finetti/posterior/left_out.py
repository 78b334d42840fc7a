"""Leave rows or groups out of a fit: nodes reweighted to p(theta | y_-I), and refits where the weights fail.

At each node the density of what is left out given the rest is exact. Between nodes

    p(theta_s | y_-I)  is proportional to  w_s / p(y_I | y_-I, theta_s),

Pareto-smoothed (Vehtari et al. 2024, J. Mach. Learn. Res. 25(72)). Few hyperparameters carry these weights and not the
many coefficients, so that they hold where those of draws of everything fail: eight schools, say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from finetti.errors import FinettiError, InferenceError
from finetti.inference.cavity import explore_without, proper_without
from finetti.inference.hyper import Settings
from finetti.inference.left_out import exact_conditional, groups_left_out, nominal_cost, rows_left_out
from finetti.inference.tails import FEW_LEVELS
from finetti.inference.target import GaussianTarget
from finetti.inference.weights import k_threshold, log_sum_exp, smooth_ratios
from finetti.linalg.blas import single_threaded
from finetti.posterior.companions import memory
from finetti.posterior.groups import factor_index, representative_nodes, whole_replicates

if TYPE_CHECKING:
    from finetti.posterior.fit import Fit

__all__ = ["LeftOut", "exact_nodes", "leave_groups", "leave_rows"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# nodes that are draws of NUTS stand for themselves alone: as many of them as cost little
MOST_DRAWS = 1000
# nominal seconds of one core to leave everything out at all nodes; at least this many nodes are used, at any cost
MOST_SECONDS, FEWEST = 30.0, 48
# nodes that do where many parts are left out; their error is told by the replicates
ENOUGH, MANY_VALUES = 1024, 1e5
# weight of nodes at which a part's density is not known, up to which the others answer for them
NEGLIGIBLE = 1e-3
# Monte Carlo error of a score beyond which it is computed anew, if a node costs nominally less than this
LARGE_ERROR, CHEAP = 0.03, 1e-3
# a log density whose quadratic misses its nodes by no more than this (rms) is carried to the others; to how many sds
SMOOTH, LARGEST_SCORE = 0.03, 4.0
# nominal seconds for all refits together, and nodes that a refit takes, its search included
REFIT_SECONDS, REFIT_NODES = 60.0, 1000
# refits made at most, the worst first: a model in which more fail is wrong for its data, and says so by their number
MOST_REFITS = 100
# a refit is one term of a sum: the outer step's usual targets, from fewer nodes
REFIT = Settings(mean_error=0.05, quantile_error=0.15, min_nodes=512)


@dataclass(frozen=True)
class LeftOut:
    """m parts of the data (rows, or groups), each left out in turn.

    base : (S, d) nodes of the fit that served; log_density_at : (S, m) log p(y_I | y_-I, theta) there
    log_weights_at : (S, m) smoothed log weights of p(theta | y_-I), each column summing to one
    pareto_k : (m,) of these weights; threshold : beyond which they are not trusted
    elpd, mcse : (m,) score of every part, and its Monte Carlo error from the replicates
    total_mcse : of the sum of the scores, which share their nodes, so that errors add up rather than cancel
    refits : theta (S_j, d), weights (S_j,) and log density (S_j,) of the parts that were refitted
    failed : parts whose weights are not trusted and that could not be refitted
    """

    levels: tuple[str, ...]
    base: Floats
    log_density_at: Floats
    log_weights_at: Floats
    pareto_k: Floats
    threshold: float
    refits: dict[int, tuple[Floats, Floats, Floats]]
    failed: tuple[int, ...]
    elpd: Floats
    mcse: Floats
    total_mcse: float

    @property
    def refitted(self) -> tuple[int, ...]:
        """Positions of the parts that were refitted."""
        return tuple(sorted(self.refits))

    def theta(self, j: int) -> Floats:
        """Nodes (S_j, d) of p(theta | y without part j)."""
        return self.refits[j][0] if j in self.refits else self.base

    def weights(self, j: int) -> Floats:
        """Their weights (S_j,), summing to one."""
        return self.refits[j][1] if j in self.refits else np.exp(self.log_weights_at[:, j])

    def log_density(self, j: int) -> Floats:
        """log p(y_j | y_-j, theta) at these nodes."""
        return self.refits[j][2] if j in self.refits else self.log_density_at[:, j]


def exact_nodes(fit: Fit, size: int, cost: float = 0.0) -> tuple[Floats, Floats, Ints]:
    """Nodes (S, d), their weights and replicates for a table of `size` values, coefficients integrated out at each.

    `cost` : nominal seconds that a node takes; of dear nodes a few must do.
    """
    inference = fit.inference
    most = MOST_DRAWS if inference.sampled is not None else None
    if cost * inference.hyper.n_nodes > MOST_SECONDS:
        most = min(most or inference.hyper.n_nodes, max(FEWEST, int(MOST_SECONDS / cost)))
    every = inference.hyper.weights
    alive = np.flatnonzero(every > 1e-12)
    nodes, w = representative_nodes(every, size, most)
    if most is None and nodes.size > ENOUGH and nodes.size * size > MANY_VALUES:
        nodes, w = whole_replicates(inference.hyper, ENOUGH)
    elif nodes.size < alive.size:  # a resample's weights come in steps, whose ratios have no tail: take a part
        nodes = np.sort(np.random.default_rng(0).permutation(alive)[: nodes.size])
        w = every[nodes] / every[nodes].sum()
    return inference.hyper.theta[nodes], w, inference.hyper.replicate[nodes]


def leave_groups(fit: Fit, name: str) -> LeftOut:
    """Leave every level of a grouping term out in turn, with all its rows; remembered by the fit.

    Raises
    ------
    FinettiError
        If there is no such term, or it has one level only.
    """
    kept, key = memory(fit), ("leave_groups", name)
    if key not in kept:
        factor = fit.model.design.factors[factor_index(fit.inference, name)]
        if len(factor.levels) < 2:
            raise FinettiError(
                f"{name!r} has one level only ({factor.levels[0]!r}): without it nothing is left to predict it from. "
                "Leave rows out with fit.loo(), or fit data with more groups"
            )
        conditional = fit.inference.conditional

        def at(theta: Floats, only: int | None = None) -> Floats:
            return groups_left_out(conditional, name, theta, None if only is None else np.array([only]))

        rows = [np.flatnonzero(factor.index == j) for j in range(len(factor.levels))]
        cost = nominal_cost(conditional, name)
        with single_threaded():
            kept[key] = _leave(fit, at, tuple(factor.levels), _still_proper(fit, rows), cost)
    return kept[key]  # type: ignore[return-value]


def leave_rows(fit: Fit) -> LeftOut:
    """Leave every row out in turn; remembered by the fit."""
    kept, key = memory(fit), ("leave_rows",)
    if key not in kept:
        conditional, n = fit.inference.conditional, fit.n_rows
        if n < 2:
            raise FinettiError("a single row cannot be left out: nothing is left to predict it from")

        def at(theta: Floats, only: int | None = None) -> Floats:
            out = rows_left_out(conditional, theta)
            return out if only is None else out[:, only : only + 1]

        labels = tuple(str(i) for i in fit.model.design.rows)
        proper = _still_proper(fit, [np.array([i]) for i in range(n)])
        with single_threaded():
            kept[key] = _leave(fit, at, labels, proper, nominal_cost(conditional, None))
    return kept[key]  # type: ignore[return-value]


def _leave(
    fit: Fit, at: Callable[..., Floats], labels: tuple[str, ...], proper: npt.NDArray[np.bool_] | None, cost: float
) -> LeftOut:
    m = len(labels)
    theta, w, replicate = exact_nodes(fit, m, cost)
    density = at(theta)
    dead = np.isneginf(density).all(axis=0)  # an unpooled group: nothing is known of it
    # a node without an answer has lost its digits, where sigma is next to nothing; if it matters, so has the part
    known = np.isfinite(density)
    open_ = w @ ~known > NEGLIGIBLE
    if proper is not None:
        open_ |= ~proper
    single = theta.shape[0] == 1
    if single:
        log_w, k = np.zeros((1, m)), np.full(m, -np.inf)
    else:
        log_w, k = smooth_ratios(np.log(w), -density)
    elpd = log_sum_exp((log_w + np.where(known, density, -np.inf)).T)
    elpd = np.where(dead, -np.inf, np.where(open_, np.nan, elpd))
    k = np.where(open_, np.nan, k)
    threshold = k_threshold(theta.shape[0]) if not single else np.inf
    each = _replicates(w, replicate, density)
    smooth = np.zeros(m, dtype=bool)
    wide = None if single else _interpolated(fit, theta, w, density)
    if wide is not None:
        # few dear nodes know the density of each part as a function of theta; its average needs the others too
        w_all, replicate_all, density_all, smooth = wide
        smooth &= ~open_ & ~dead
        log_all, k_all = smooth_ratios(np.log(w_all), -density_all)
        elpd = np.where(smooth, log_sum_exp((log_all + density_all).T), elpd)
        wider = _replicates(w_all, replicate_all, density_all)
        each = np.where(smooth, wider, each) if wider.shape == each.shape else wider
        k, threshold = np.where(smooth, k_all, k), k_threshold(w_all.size)
        plain = np.log(w)[:, None] - np.where(known, density, np.inf)
        log_w = np.where(smooth, plain - log_sum_exp(plain.T), log_w)
    mcse = np.where(open_ | dead, np.nan, _error(each))
    refits: dict[int, tuple[Floats, Floats, Floats]] = {}
    bad = ~open_ & ~(k < threshold)
    # a good k with a large error is no answer either, where a refit is cheap
    poor = ~open_ & ~dead & ~bad & (mcse > LARGE_ERROR) & (cost < CHEAP)
    wanted = np.flatnonzero(bad | poor)
    failed = [int(j) for j in np.flatnonzero(bad)]
    if not single:
        affordable = min(MOST_REFITS, int(REFIT_SECONDS / (REFIT_NODES * cost)) if cost else MOST_REFITS)
        for j in wanted[np.argsort(-(bad[wanted] * 1e6 + mcse[wanted]))][:affordable]:
            found = _refit(fit, lambda t, j=int(j): at(t, j)[:, 0], theta, np.exp(log_w[:, j]))  # type: ignore[misc]
            if found is not None:
                refits[int(j)] = found[:3]
                elpd[j], mcse[j] = found[3:]
                if bad[j]:
                    failed.remove(int(j))
    anew = np.isin(np.arange(m), list(refits))
    kept = ~(open_ | dead | anew)
    total = float(np.hypot(_error(each[:, kept].sum(axis=1)), mcse[anew].sum()))
    return LeftOut(labels, theta, density, log_w, k, threshold, refits, tuple(failed), elpd, mcse, total)


def _interpolated(
    fit: Fit, theta: Floats, w: Floats, density: Floats
) -> tuple[Floats, Ints, Floats, npt.NDArray[np.bool_]] | None:
    """Carry the densities (S, m) from few nodes to all of the fit, as quadratic functions of theta.

    Returns weights, replicates and densities of all nodes, and which parts are as smooth as that: their residuals, each
    node predicted from the others, must be small. None if all nodes are there already, or too few for a quadratic.
    """
    hyper = fit.inference.hyper
    d = theta.shape[1]
    terms = (d + 1) * (d + 2) // 2
    if hyper.proposal is None or theta.shape[0] < 2 * terms or theta.shape[0] >= 0.8 * np.sum(hyper.weights > 1e-12):
        return None
    to = hyper.proposal.warp.inverse  # coordinates in which the posterior is nearly normal
    centre, spread = w @ to(theta), np.sqrt(w @ (to(theta) - w @ to(theta)) ** 2)

    def basis(nodes: Floats) -> Floats:
        z = np.clip((to(nodes) - centre) / spread, -LARGEST_SCORE, LARGEST_SCORE)
        pairs = [z[:, i] * z[:, j] for i in range(d) for j in range(i, d)]
        return np.stack([np.ones(len(z)), *z.T, *pairs], axis=1)

    root = np.sqrt(w)[:, None]
    A, finite = root * basis(theta), np.where(np.isfinite(density), density, 0.0)
    coef, *_ = np.linalg.lstsq(A, root * finite, rcond=None)
    leverage = np.einsum("st,ts->s", A, np.linalg.pinv(A))
    residual = (finite - basis(theta) @ coef) / np.maximum(1.0 - leverage, 1e-3)[:, None]
    good = np.sqrt(w @ residual**2) < SMOOTH
    alive = np.flatnonzero(hyper.weights > 1e-12)
    weights = hyper.weights[alive] / hyper.weights[alive].sum()
    return weights, hyper.replicate[alive], basis(hyper.theta[alive]) @ coef, good


def _replicates(w: Floats, replicate: Ints, density: Floats) -> Floats:
    """Scores (R, m) by each replicate alone: minus the log of sum w / p."""
    parts = [mine for r in range(int(replicate.max()) + 1) if (mine := replicate == r).any()]
    low = np.min(np.where(np.isfinite(density), density, np.inf), axis=0)
    with np.errstate(all="ignore"):
        over = np.where(np.isfinite(density), np.exp(low - density), 0.0)
        return low - np.log(np.stack([np.average(over[mine], axis=0, weights=w[mine]) for mine in parts]))


def _error(each: Floats) -> Floats:
    """Monte Carlo error of the average of R replicates (R, ...); zero of a single one."""
    with np.errstate(all="ignore"):
        return np.asarray(each.std(axis=0, ddof=1) / np.sqrt(len(each))) if len(each) > 1 else np.zeros(each.shape[1:])


def _refit(
    fit: Fit, left_out: Callable[[Floats], Floats], theta: Floats, w: Floats
) -> tuple[Floats, Floats, Floats, float, float] | None:
    """Nodes, weights and densities without a part; its score and the error of that. None where this fails too."""
    full = fit.inference.hyper
    target = GaussianTarget(exact_conditional(fit.inference.conditional).inner)
    # from where the weights point to, and from the mean of the fit
    starts = [w @ theta, theta[int(np.argmax(w))], full.weights @ full.theta]
    try:
        with single_threaded(), np.errstate(all="ignore"):
            found = explore_without(target, left_out, np.array(starts), fit.seed, REFIT)
    except InferenceError:
        return None
    if not found.pareto_k < found.threshold:
        return None
    nodes = found.theta, found.weights, found.payload[0]
    if np.isfinite(full.log_evidence):
        # log p(y) - log p(y_-I): each known to a few thousandths, however unequal p(y_I | y_-I, theta) is at the nodes
        return (
            *nodes,
            full.log_evidence - found.log_evidence,
            float(np.hypot(full.log_evidence_mcse, found.log_evidence_mcse)),
        )
    score = found.weighted.per_replicate(np.exp(nodes[2])[:, None])[:, 0]
    error = float(score.std(ddof=1) / score.mean() / np.sqrt(score.size))
    return (*nodes, float(log_sum_exp(np.log(np.maximum(nodes[1], 1e-300)) + nodes[2])), error)


def _still_proper(fit: Fit, parts: list[Ints]) -> npt.NDArray[np.bool_] | None:
    """Whether the posterior stays proper without each part; None where it cannot become improper."""
    inference = fit.inference
    hyper = inference.coordinates
    loose = [c for c in hyper.coordinates if c is not None and not c.prior.proper]
    if not loose or min(f.n_levels for f in hyper.factors) > FEW_LEVELS or len(parts) > 10 * FEW_LEVELS:
        return None
    return np.array([proper_without(inference.bound, rows) for rows in parts])
