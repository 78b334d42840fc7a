"""NUTS for a bound model: set up, run, check, and run longer where the check says so.

The joint density of theta and all coefficients (`joint`) is what `method="nuts"` means: it shares no mathematics with
the exact path and can judge it. Its draws of theta alone are draws of the marginal posterior of theta, so that the
fallback of the outer step takes them as nodes and keeps the coefficients integrated out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from finetti.inference.conditional import GaussianConditional
from finetti.inference.convergence import Convergence, convergence
from finetti.inference.hyper import HyperPosterior, Progress, Settings
from finetti.inference.hyperparameters import Hyperparameters
from finetti.inference.joint import Joint, build_joint
from finetti.inference.modes import Modes, find_modes
from finetti.inference.nuts import CHAINS, Chains, Density, sample
from finetti.inference.precondition import preconditioned
from finetti.inference.sampled import Sampled, SampledConditional, chain_posterior
from finetti.inference.target import GaussianTarget

__all__ = ["integrated", "sample_joint"]

Floats = npt.NDArray[np.float64]

# of each chain
WARMUP, DRAWS = 500, 1000
# the rank-based effective sizes at which means are known to 2 %, and tail quantiles to 5 %, of a posterior sd
ENOUGH_BULK, ENOUGH_TAIL = 2500.0, 1800.0
# acceptance rates tried in turn while there are divergences
ACCEPT = (0.8, 0.95, 0.99)
# longest runs, relative to the first; and nominal seconds, from counted operations, beyond which none is repeated
LONGEST, MOST_SECONDS = 8.0, 60.0
# coefficients kept in memory, over all chains: 800 MB
MOST_VALUES = 1e8
# of each factor, coefficients whose convergence is looked at
LOOKED_AT = 50


@dataclass
class _Plan:
    """What the next run is to be."""

    accept: int
    draws: int
    warmup: int


def sample_joint(
    target: GaussianTarget, seed: int, settings: Settings, progress: Progress | None,
    modes: Modes | None = None, once: bool = False,
) -> tuple[HyperPosterior, SampledConditional, Sampled]:  # fmt: skip
    """Sample theta and all coefficients together.

    modes : of theta, where they are known already
    once : one run only, whatever the checks say of it
    """
    inner = target.inner
    modes = modes or _modes(target, settings, progress)
    d = inner.hyper.d
    theta, covariance = (modes.theta[0], modes.covariance[0]) if modes else (np.zeros(0), np.zeros((0, 0)))
    joint = preconditioned(build_joint(inner, theta), covariance)
    rng = np.random.default_rng(np.random.SeedSequence([seed, 7]))
    starts = np.array([_start(joint, modes, chain, rng) for chain in range(CHAINS)])
    most = max(int(MOST_VALUES // (CHAINS * joint.dim)), 50)

    def look(chains: Chains) -> Convergence:
        x = chains.x.reshape(-1, joint.dim)
        return convergence(_labelled(joint.hyper, x[:, :d]) | _some(joint, x))

    chains, sampled = _until_enough(
        joint, starts, seed, most, 0.0 if once else MOST_SECONDS / joint.cost, look, progress
    )
    theta_draws, beta, u = joint.parameters(chains.x.reshape(-1, joint.dim))
    theta_draws = np.ascontiguousarray(theta_draws)
    payload = (beta, np.zeros_like(beta))
    posterior = chain_posterior(inner.hyper.names, theta_draws, payload, CHAINS, settings, modes, sampled.gradients)
    conditional = SampledConditional(GaussianConditional(inner), theta_draws, beta, u)
    return posterior, conditional, replace(sampled, beta=beta, u=u)


def _modes(target: GaussianTarget, settings: Settings, progress: Progress | None) -> Modes | None:
    if target.inner.hyper.d == 0:
        return None
    if progress:
        progress("finding the mode", 0, None)
    return find_modes(target.gradient, target.starts(), target.curvature(), dear=settings.few(target.cost))


def _start(joint: Joint, modes: Modes | None, chain: int, rng: np.random.Generator) -> Floats:
    """A draw from the Gaussian approximation; the chains take the modes in turn."""
    z0 = np.zeros(joint.dim)
    if modes is not None:
        d, W = joint.hyper.d, joint.arrays["W"]
        z0[:d] = np.linalg.solve(W[:d, :d], modes.theta[chain % len(modes.theta)] - modes.theta[0])
    jump = rng.standard_normal(joint.dim)
    for _ in range(30):
        if np.isfinite(joint(z0 + jump)[0]):
            break
        jump *= 0.7
    return z0 + jump


def _labelled(hyper: Hyperparameters, theta: Floats) -> dict[str, Floats]:
    """Hyperparameters by label and explored coefficients, (CHAINS, draws) each."""
    values = dict(hyper.natural(theta))
    given = hyper.given_values(theta)
    values |= {label: given[:, k] for k, (label, at, _) in enumerate(hyper.given) if at >= 0}
    return {label: v.reshape(CHAINS, -1) for label, v in values.items()}


def _some(joint: Joint, x: Floats) -> dict[str, Floats]:
    """Population coefficients, and some deviations of every factor, by label."""
    _, beta, u = joint.parameters(x)
    design = joint.inner.bound.design
    out = {f"beta[{c}]": beta[:, k] for k, c in enumerate(design.columns)}
    for f in design.factors:
        flat = u[f.name].reshape(len(x), -1)
        q = len(f.coefficients)
        for at in np.unique(np.linspace(0, flat.shape[1] - 1, LOOKED_AT).round().astype(int)):
            out[f"u_{f.name}[{f.levels[at // q]}, {f.coefficients[at % q]}]"] = flat[:, at]
    return {label: v.reshape(CHAINS, -1) for label, v in out.items() if np.all(np.isfinite(v))}


def _until_enough(
    density: Density, starts: Floats, seed: int, most: int, patience: float,
    look: Callable[[Chains], Convergence], progress: Progress | None,
) -> tuple[Chains, Sampled]:  # fmt: skip
    """Run; again with smaller steps after divergences, longer where the effective sample is too small.

    most : draws of a chain that are kept; patience : gradients beyond which no run is repeated
    """
    plan, attempt = _Plan(0, DRAWS, WARMUP), 0
    while True:
        thin = -(-plan.draws // most)
        draws = plan.draws // thin * thin
        stage = "sampling with NUTS" if attempt == 0 else "sampling with NUTS, longer or with smaller steps"
        report = None if progress is None else partial(progress, stage)
        chains = sample(
            density, starts,
            warmup=plan.warmup, draws=draws, thin=thin,
            seed=np.random.SeedSequence([seed, 8, attempt]), target_accept=ACCEPT[plan.accept],
            progress=report,
        )  # fmt: skip
        seen = look(chains)
        divergences, gradients = int(chains.divergences.sum()), int(chains.gradients.sum())
        sampled = Sampled(CHAINS, plan.warmup, thin, divergences, gradients, ACCEPT[plan.accept], seen)
        attempt += 1
        finer = divergences > 0 and plan.accept + 1 < len(ACCEPT)
        short = max(ENOUGH_BULK / max(seen.bulk, 1.0), ENOUGH_TAIL / max(seen.tail, 1.0))
        longer = min(1.3 * short, LONGEST * DRAWS / plan.draws) if short > 1.0 else 1.0
        # a thinned run cannot show more than it keeps
        if not finer and (longer <= 1.05 or thin > 1):
            return chains, sampled
        if gradients * longer > patience or attempt > len(ACCEPT) + 2:
            return chains, sampled
        plan = _Plan(plan.accept + finer, int(plan.draws * longer), WARMUP * 2)


def integrated(
    target: GaussianTarget, drawn: HyperPosterior, sampled: Sampled, settings: Settings
) -> tuple[HyperPosterior, Sampled]:
    """The same draws of theta, the coefficients drawn with them exchanged for their exact conditional distribution."""
    _, payload = target.log_density(drawn.theta)
    posterior = chain_posterior(
        drawn.names, drawn.theta, payload, sampled.chains, settings, drawn.modes, sampled.gradients
    )
    return posterior, replace(sampled, beta=None, u=None)
