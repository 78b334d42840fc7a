"""The outer step: p(theta | y) as weighted nodes, by importance sampling without Markov chains.

Modes -> mixture of t at the modes with a safety component -> pilot rounds that choose the
degrees of freedom and match moments -> the proposal is frozen -> 16 independently scrambled
Sobol sets, kept apart as replicates -> nodes double until the replicates agree.

The spread of the replicates is the Monte Carlo error of everything that is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from finetti.inference.estimate import WeightedNodes
from finetti.inference.modes import Modes, find_modes
from finetti.inference.proposal import Mixture, bent_mixture, laplace_mixture, refit
from finetti.inference.sobol import SobolStreams
from finetti.inference.surrogate import Surrogate, fit_surrogate, n_terms
from finetti.inference.warp import scanned_warp
from finetti.inference.weights import effective_fraction, k_threshold, log_sum_exp, normalise, smooth

__all__ = ["HyperPosterior", "Progress", "Settings", "Target", "explore", "single_node"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Progress = Callable[[str, int, int | None], None]

# A polynomial that misses log w by more than this is no help where nodes are cheap.
USEFUL_SURROGATE = 0.5
# nodes in a round of the pilot
PILOT = 256
# Effective fractions below which a proposal is made anew, from nodes that are cheap or from dear ones.
POOR, WORTH_A_PILOT = 0.3, 0.8
# sqrt(15 / 8.547): upper 90 % bound of a standard deviation estimated from 16 replicates
UPPER_90 = 1.325


@dataclass(frozen=True)
class Settings:
    """Targets of the outer step, in units of the posterior sd of each unconstrained hyperparameter."""

    mean_error: float = 0.02
    quantile_error: float = 0.05
    replicates: int = 16
    min_nodes: int = 1024  # where that many cost less than `min_seconds`, nominal
    min_seconds: float = 0.04  # elsewhere as many as cost this, and at least `dear_nodes`
    max_nodes: int = 65536
    dear: float = 1e-3  # nominal seconds of a node beyond which gradients are asked for one by one
    dear_nodes: int = 64
    dear_max_nodes: int = 2048
    dear_seconds: float = 30.0  # nominal, one core: more nodes than that where they are not so dear

    def few(self, cost: float) -> bool:
        """Whether nodes of this nominal cost are too dear for `min_nodes` of them."""
        return cost * self.min_nodes > self.min_seconds


class Target(Protocol):
    """An unnormalised log posterior of theta."""

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def cost(self) -> float:
        """Nominal seconds per node, from counted operations (so that results do not hang on a clock)."""

    def log_density(self, theta: Floats) -> tuple[Floats, tuple[Floats, ...]]:
        """Log density (S,) and whatever else a node yields, arrays with a leading axis S."""

    def gradient(self, theta: Floats) -> tuple[Floats, Floats]:
        """Log density (S,) and gradient (S, d)."""

    def starts(self) -> Floats:
        """Starting points (K, d), the most plausible first."""

    def curvature(self) -> Floats:
        """A guess of the negative Hessian's diagonal (d,)."""


@dataclass(frozen=True)
class HyperPosterior:
    """Weighted nodes of p(theta | y), and how far they can be trusted.

    theta : (S, d); log_weights : (S,), Pareto-smoothed, summing to one; replicate : (S,)
    payload : what the target yielded at the nodes
    mean, sd, mean_mcse, sd_mcse : (d,) of the unconstrained coordinates, warped to near-Gaussian shape
    quantile_mcse : (3, d) at 5, 50 and 95 %
    log_evidence, log_evidence_mcse : log of the integral of the unnormalised density
    """

    names: tuple[str, ...]
    theta: Floats
    log_weights: Floats
    replicate: Ints
    payload: tuple[Floats, ...]
    mean: Floats
    sd: Floats
    mean_mcse: Floats
    sd_mcse: Floats
    quantile_mcse: Floats
    log_evidence: float
    log_evidence_mcse: float
    pareto_k: float
    threshold: float
    met: bool
    proposal: Mixture | None = None
    modes: Modes | None = None
    surrogate: Surrogate | None = None
    notes: tuple[str, ...] = ()
    evaluations: int = 0
    _cache: dict[str, Floats] = field(default_factory=dict, repr=False, compare=False)

    @property
    def weights(self) -> Floats:
        """Normalised weights (S,)."""
        if "w" not in self._cache:
            self._cache["w"] = normalise(self.log_weights)
        return self._cache["w"]

    @property
    def n_nodes(self) -> int:
        return int(self.log_weights.size)

    @property
    def n_replicates(self) -> int:
        return int(self.replicate.max()) + 1 if self.replicate.size else 0

    @property
    def effective_nodes(self) -> float:
        """1 / sum w^2."""
        return 1.0 / float(np.sum(self.weights**2))

    @property
    def reliable(self) -> bool:
        """Whether the weights pass Pareto's check and the error target was met."""
        return self.met and self.pareto_k < self.threshold

    @property
    def weighted(self) -> WeightedNodes:
        """Expectations of functions of theta, with errors."""
        return WeightedNodes(self.theta, self.weights, self.replicate, self.surrogate)


def single_node(
    names: tuple[str, ...], theta: Floats, payload: tuple[Floats, ...], log_density: float
) -> HyperPosterior:
    """A point posterior: empirical Bayes, or a model without free hyperparameters."""
    d = theta.shape[1]
    zero, none = np.zeros(d), np.full(d, np.nan)
    return HyperPosterior(
        names, theta, np.zeros(1), np.zeros(1, dtype=np.int64), payload, theta[0], zero, none, none,
        np.full((3, d), np.nan), log_density, 0.0, -np.inf, 0.7, True,
    )  # fmt: skip


@dataclass
class _Nodes:
    """Nodes drawn so far from one frozen proposal."""

    theta: Floats
    log_p: Floats
    log_q: Floats
    replicate: Ints
    payload: tuple[Floats, ...]

    @property
    def log_ratio(self) -> Floats:
        return np.where(np.isnan(self.log_p), -np.inf, self.log_p) - self.log_q


def explore(
    target: Target, seed: int, settings: Settings | None = None, progress: Progress | None = None,
    first: tuple[Modes, Mixture] | None = None,
) -> HyperPosterior:  # fmt: skip
    """Explore p(theta | y); see the module's docstring. `first`: modes and a proposal that are known already.

    Raises
    ------
    InferenceError
        If the density is not finite at any start.
    """
    settings = settings or Settings()
    report = progress or (lambda stage, done, total: None)
    d = len(target.names)
    dear = target.cost > settings.dear
    few = settings.few(target.cost)
    entropy = np.random.SeedSequence(seed)
    pilot_seed, dense_seed, replicate_seed = entropy.spawn(3)
    report("finding the mode", 0, None)
    if first is None:
        modes = find_modes(target.gradient, target.starts(), target.curvature(), dear=few)
        proposal = laplace_mixture(modes.theta, modes.covariance, modes.height, 20.0 if dear else 5.0)
    else:
        modes, proposal = first
    scan = None
    if dear and first is None and modes.theta.shape[0] == 1:
        warp, scan = scanned_warp(
            lambda t: target.log_density(t)[0], modes.theta[0], modes.height[0], modes.covariance[0]
        )
        proposal = bent_mixture(warp, modes.covariance[0], 20.0)
    if not dear:
        report("adapting the proposal", 0, None)
        proposal = _pilot(target, proposal, pilot_seed, PILOT // 2 if few else PILOT)

    wanted = settings.min_nodes
    if few:
        least = max(settings.dear_nodes, int(2.5 * n_terms(d, 2)))
        wanted = max(int(settings.min_seconds / target.cost), least)
    per_replicate = _power_of_two(wanted / settings.replicates)
    limit = settings.max_nodes
    if dear:
        limit = int(np.clip(settings.dear_seconds / target.cost, settings.dear_max_nodes, settings.max_nodes))
    streams = SobolStreams(d + 2, settings.replicates, replicate_seed)
    nodes = _draw(target, proposal, streams, per_replicate, report)
    restarts = 0
    while True:
        result = _assess(target.names, nodes, proposal, modes, settings, few, dense_seed, scan)
        if result.reliable or nodes.log_p.size * 2 > limit:
            return result
        fraction = effective_fraction(nodes.log_ratio)
        # dear models have no pilot: a first set that serves badly becomes one
        if restarts < 2 and fraction < (WORTH_A_PILOT if dear else POOR):
            # a poor proposal: its nodes are worth more as a pilot than as a start
            good = result.surrogate if dear else None
            if good is not None and good.residual_sd < USEFUL_SURROGATE:
                # the moments of few nodes are noisier than the proposal is wrong; the smooth surrogate's are not
                proposal = refit(proposal, good.theta, good.weights)
            else:
                proposal = refit(proposal, nodes.theta, normalise(nodes.log_ratio))
            restarts += 1
            streams = SobolStreams(d + 2, settings.replicates, np.random.SeedSequence([seed, restarts]))
            nodes = _draw(target, proposal, streams, nodes.log_p.size // settings.replicates, report)
            continue
        more = _draw(target, proposal, streams, nodes.log_p.size // settings.replicates, report, nodes.log_p.size)
        nodes = _join(nodes, more)


def _power_of_two(n: float) -> int:
    return int(2 ** np.ceil(np.log2(max(n, 1))))


def _pilot(target: Target, proposal: Mixture, seed: np.random.SeedSequence, n: int) -> Mixture:
    """Choose the degrees of freedom and match moments, recycling all pilot nodes; n in each round."""
    stream = SobolStreams(proposal.d + 2, 1, seed)
    thetas, log_ps, used = [], [], []
    for attempt in range(4):
        theta = proposal.sample(stream.next(n))
        log_p, _ = target.log_density(theta)
        log_p = np.where(np.isnan(log_p), -np.inf, log_p)
        log_q = proposal.log_density(theta)
        if attempt == 0:
            # effective size under 20 df, estimated from the nodes of 5 df
            lighter = proposal.with_df(20.0)
            log_l = lighter.log_density(theta)
            under5 = _second_moment(log_p - log_q, np.zeros(n))
            under20 = _second_moment(log_p - log_l, log_l - log_q)
            if under20 < under5:
                proposal, log_q = lighter, log_l
                fraction = 1.0 / under20 if np.isfinite(under20) else 0.0
            else:
                fraction = 1.0 / under5 if np.isfinite(under5) else 0.0
            first = proposal.with_df(5.0)
        else:
            fraction = effective_fraction(log_p - log_q)
        thetas.append(theta)
        log_ps.append(log_p)
        used.append(first if attempt == 0 else proposal)
        # the first pilot always pays for a refit: it takes the skewness out
        if (fraction > 0.8 and attempt > 0) or attempt == 3:
            return proposal
        everything = np.concatenate(thetas)
        mixed = log_sum_exp(np.stack([q.log_density(everything) for q in used], axis=1)) - np.log(len(used))
        weights = normalise(np.concatenate(log_ps) - mixed)
        proposal = refit(proposal, everything, weights)
    return proposal


def _second_moment(log_w: Floats, log_tilt: Floats) -> float:
    """E[w^2] / E[w]^2 under the tilted distribution: one over the effective fraction."""
    a = float(log_sum_exp(2.0 * log_w + log_tilt) - log_sum_exp(log_tilt))
    b = float(log_sum_exp(log_w + log_tilt) - log_sum_exp(log_tilt))
    return float(np.exp(min(a - 2.0 * b, 700.0))) if np.isfinite(b) else np.inf


def _draw(
    target: Target, proposal: Mixture, streams: SobolStreams, n: int, report: Progress, already: int = 0
) -> _Nodes:
    theta = proposal.sample(streams.next(n))
    R = theta.shape[0] // n
    pieces, step = [], max(R * n // 8, 1)
    for i in range(0, theta.shape[0], step if target.cost > 1e-3 else theta.shape[0]):
        report("evaluating hyperparameter nodes", already + i, already + theta.shape[0])
        pieces.append(target.log_density(theta[i : i + (step if target.cost > 1e-3 else theta.shape[0])]))
    log_p = np.concatenate([p[0] for p in pieces])
    payload = tuple(np.concatenate(parts) for parts in zip(*(p[1] for p in pieces), strict=True))
    return _Nodes(theta, log_p, proposal.log_density(theta), np.repeat(np.arange(R), n), payload)


def _join(a: _Nodes, b: _Nodes) -> _Nodes:
    return _Nodes(
        np.concatenate([a.theta, b.theta]),
        np.concatenate([a.log_p, b.log_p]),
        np.concatenate([a.log_q, b.log_q]),
        np.concatenate([a.replicate, b.replicate]),
        tuple(np.concatenate(pair) for pair in zip(a.payload, b.payload, strict=True)),
    )


def _assess(
    names: tuple[str, ...],
    nodes: _Nodes,
    proposal: Mixture,
    modes: Modes,
    settings: Settings,
    few: bool,
    dense_seed: np.random.SeedSequence,
    scan: tuple[Floats, Floats] | None,
) -> HyperPosterior:
    """Weights, moments of the coordinates and their errors from the replicates."""
    R = settings.replicates
    log_w, k = smooth(nodes.log_ratio)
    w = normalise(log_w)
    theta = nodes.theta
    log_z = np.array(
        [log_sum_exp(nodes.log_ratio[nodes.replicate == r]) - np.log(np.sum(nodes.replicate == r)) for r in range(R)]
    )
    z = np.exp(log_z - log_sum_exp(log_z) + np.log(R))
    log_evidence = float(log_sum_exp(log_z) - np.log(R))
    surrogate = fit_surrogate(proposal, theta, nodes.log_ratio, nodes.replicate, dense_seed, scan)
    if surrogate is not None and surrogate.residual_sd > USEFUL_SURROGATE and not few:
        surrogate = None
    log_evidence_mcse = float(z.std(ddof=1) / np.sqrt(R))
    weighted = WeightedNodes(theta, w, nodes.replicate, surrogate)
    # errors are judged where the coordinates are nearly Gaussian: a long left tail of a log standard
    # deviation near zero would otherwise dominate its own sd and say nothing of what users read
    phi = proposal.warp.inverse(theta)
    phi_dense = None if surrogate is None else proposal.warp.inverse(surrogate.theta)
    mean, sd, mean_e, sd_e = weighted.moments(phi, phi_dense)
    _, quant_e = weighted.quantiles(phi, phi_dense, np.array([0.05, 0.5, 0.95]))
    close = (
        np.all(UPPER_90 * mean_e <= settings.mean_error * sd)
        and np.all(UPPER_90 * sd_e <= settings.mean_error * sd)
        and np.all(UPPER_90 * quant_e <= settings.quantile_error * sd)
    )
    return HyperPosterior(
        names, theta, np.log(np.maximum(w, 1e-300)), nodes.replicate, nodes.payload,
        mean, sd, mean_e, sd_e, quant_e, log_evidence, log_evidence_mcse,
        float(k), k_threshold(int(np.isfinite(nodes.log_ratio).sum())), bool(close), proposal, modes, surrogate,
        evaluations=theta.shape[0],
    )  # fmt: skip
