"""From a covariate to what is learned with it: the work of `screen(..., by=)`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from finetti.errors import ModelError
from finetti.inference.hyper import HyperPosterior, Progress, Settings, explore, single_node
from finetti.inference.modes import find_modes
from finetti.inference.spike_slab import Observed, Slab, make_slab
from finetti.inference.spike_slab_by import CategoryTarget, Grouped
from finetti.inference.spike_slab_by_curve import CurveTarget, curve_basis
from finetti.inference.spike_slab_by_priors import LEAST, MOST, SPREADS, ByHyper, Unsheared
from finetti.inference.spike_slab_empirical import Estimate
from finetti.model.distribution import Prior
from finetti.studies.screen_by import ByCurve, ByGroup
from finetti.studies.screen_by_input import Covariate

__all__ = ["SETTINGS", "fit_by"]

Floats = npt.NDArray[np.float64]

# Nodes that cost a millisecond and more (groups, sets of standard errors): errors of 4 % of a posterior sd, not 2 %; a
# proposal learned in pilot rounds, which spares more nodes than it takes, as long as 512 of them take seconds.
SETTINGS = Settings(mean_error=0.04, quantile_error=0.1, dear=0.02, dear_nodes=512)


def fit_by(
    tests: Observed, covariate: Covariate, slab: str, priors: dict[str, Prior], spreads: dict[str, Prior],
    method: str, seed: int, progress: Progress | None = None,
) -> tuple[Observed, HyperPosterior, ByGroup | ByCurve, Estimate | None]:  # fmt: skip
    """Tests with their groups, the posterior of theta, what is learned, and the estimate of maximum likelihood.

    Raises
    ------
    ModelError
        For a mixture slab.
    """
    if slab == "mixture":
        raise ModelError(
            "by= needs a slab of one scale, and a mixture has many; give slab='student_t' or 'laplace', which have "
            "heavy tails, too."
        )
    tests = replace(tests, group=covariate.group)
    unit, shape = float(np.median(tests.se)), make_slab(slab)
    hyper = ByHyper(Unsheared(priors, unit, use_priors=method == "full"), spreads)
    grouped = Grouped.of(tests)
    target: CategoryTarget | CurveTarget
    if covariate.value is None:
        target = CategoryTarget(grouped, shape, hyper)
    else:
        target = CurveTarget(grouped, shape, hyper, curve_basis(covariate.value, covariate.sizes))
    if method == "full":
        posterior, estimate = _explored(target, seed, progress), None
    else:
        posterior, estimate = _maximised(target, hyper, shape)
    known = (covariate, posterior, hyper, grouped, shape, seed, method != "full")
    learned = ByGroup(*known, target) if isinstance(target, CategoryTarget) else ByCurve(*known)
    return tests, posterior, learned, estimate


def _explored(target: CategoryTarget | CurveTarget, seed: int, progress: Progress | None) -> HyperPosterior:
    if not target.names:
        theta = np.zeros((1, 0))
        value, payload = target.log_density(theta)
        return single_node((), theta, payload, float(value[0]))
    first = target.first() if isinstance(target, CurveTarget) and target.hyper.names else None
    return explore(target, seed, SETTINGS, progress, first)


def _maximised(target: CategoryTarget | CurveTarget, hyper: ByHyper, slab: Slab) -> tuple[HyperPosterior, Estimate]:
    """One node, and the same as an estimate; curves are at their most probable values given theta."""
    converged, theta = True, np.zeros((1, 0))
    if hyper.names:
        if isinstance(target, CurveTarget):
            modes = target.marginal_modes()
        else:
            modes = find_modes(target.gradient, target.starts(), target.curvature())
        converged, theta = modes.converged, modes.theta[:1]
    if isinstance(target, CurveTarget):
        value = target.laplace(theta)[0]
        theta = np.concatenate([theta, np.zeros((1, 2 * target.basis.shape[1]))], axis=1)
        payload = target.log_density(theta)[1]
    else:
        value, payload = target.log_density(theta)
    at = {name: float(v[0]) for name, v in hyper.natural(theta).items()}
    edge = tuple(n for n in SPREADS if n in hyper.names and not 20.0 * LEAST < at[n] < 0.95 * MOST)
    none = np.zeros(0)
    estimate = Estimate(
        float(payload[0][0]), at["slab_sd"], at["null_mean"], at["null_sd"], slab, float(value[0]), edge, converged, 1,
        none, none,
    )  # fmt: skip
    return single_node((), theta, payload, float(value[0])), estimate
