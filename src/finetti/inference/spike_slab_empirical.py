"""Maximum likelihood for a screen: the point-normal and its relatives, and the mixture by convex optimisation.

With one slab the likelihood is concave in pi0 for every slab, but not in the slab: it is climbed from every local
maximum of a grid, and compared with what the single components alone achieve, all null and no null, where pi0
is 1 or 0 and the derivative need not vanish.

With a slab that is a mixture of normals on a grid of standard deviations (Stephens 2017, Biostatistics 18, 275-294),
only the weights w on the simplex are unknown, and

    F(w) = sum_j log (L w)_j + (a - 1) log w_0

is concave; a = 10 by default, which keeps narrow components from posing as the null. For any w

    F(best) - F(w) <= max_k dF/dw_k - (n + a - 1),

because F is concave and w'dF/dw = n + a - 1: a certificate that needs no faith in the algorithm, which is sequential
quadratic programming with an active set (Kim, Carbonetto, Stephens and Anitescu 2020, J. Comput. Graph. Stat. 29).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from finetti.inference.modes import find_modes
from finetti.inference.spike_slab import Nodes, Observed, Slab, make_slab, mixture_slab
from finetti.inference.spike_slab_priors import Hyper
from finetti.inference.spike_slab_target import ScreenTarget, scan, sketch
from finetti.model.densities import Fixed
from finetti.model.distribution import Prior

__all__ = ["Estimate", "maximise", "maximise_mixture", "maximise_simplex", "mixture_sds"]

Floats = npt.NDArray[np.float64]

# log-likelihood that an interior optimum must have above a boundary to be preferred
WORTH = 1e-6
# log-likelihood by which a special case must fall short on a sketch of the data to be left out
FAR_BELOW = 50.0
# steps of the convex programme, the gap aimed at (per test), what is added to the Hessian, weights taken as zero
STEPS, GAP, RIDGE, NOTHING = 200, 1e-8, 1e-10, 1e-10
# tests whose likelihoods are held in memory at once
CHUNK = 50_000


@dataclass(frozen=True, eq=False)
class Estimate:
    """Hyperparameters that maximise the marginal likelihood.

    boundary : names of those estimated at the edge of the possible values
    weight, sd : (K,) of a mixture slab with its null first, all weights; empty otherwise
    gap : an upper bound of what the best weights would add to the objective; 0 where there is no mixture
    """

    pi0: float
    slab_sd: float
    null_mean: float
    null_sd: float
    slab: Slab
    log_likelihood: float
    boundary: tuple[str, ...]
    converged: bool
    n_optima: int
    weight: Floats
    sd: Floats
    gap: float = 0.0

    @property
    def values(self) -> dict[str, float]:
        return {"pi0": self.pi0, "slab_sd": self.slab_sd, "null_mean": self.null_mean, "null_sd": self.null_sd}

    @property
    def nodes(self) -> Nodes:
        return Nodes.of(self.pi0, self.slab_sd, self.null_mean, self.null_sd)


def _climb(tests: Observed, slab: Slab, priors: Mapping[str, Prior]) -> tuple[dict[str, float], float, bool, int]:
    """The best optimum found from all starts: values, log-likelihood, whether it converged, how many optima."""
    hyper = Hyper(priors, float(np.median(tests.se)), use_priors=False)
    target = ScreenTarget(tests, slab, hyper)
    if not hyper.names:
        theta = np.zeros((1, 0))
        value = float(tests.log_likelihood(slab, hyper.nodes(theta))[0])
        return {k: float(v[0]) for k, v in hyper.natural(theta).items()}, value, True, 1
    modes = find_modes(target.gradient, target.starts(), target.curvature())
    best = {k: float(v[0]) for k, v in hyper.natural(modes.theta[:1]).items()}
    return best, float(modes.height[0]), modes.converged, len(modes.theta)


def _unless_far_below(
    tests: Observed, slab: Slab, special: Mapping[str, Prior], best: Mapping[str, float]
) -> tuple[dict[str, float], float, bool]:
    """The best of a special case; minus infinity where a sketch of many tests shows that it cannot win."""
    rough = sketch(tests)
    hyper = Hyper(special, float(np.median(tests.se)), use_priors=False)
    if rough is not tests and hyper.names:
        target = ScreenTarget(rough, slab, hyper)
        found = find_modes(target.gradient, scan(rough, slab, hyper)[:1], target.curvature())
        at_best = Nodes.of(best["pi0"], best["slab_sd"], best["null_mean"], best["null_sd"])
        if found.height[0] < float(rough.log_likelihood(slab, at_best)[0]) - FAR_BELOW:
            return {}, -np.inf, True
    return _climb(tests, slab, special)[:3]


def maximise(tests: Observed, slab: Slab, priors: Mapping[str, Prior]) -> Estimate:
    """Maximise log p(x | theta) over what is not held; priors serve only to say what is."""
    best, value, converged, count = _climb(tests, slab, priors)
    boundary: tuple[str, ...] = ()
    if not isinstance(priors["pi0"], Fixed):
        unit = float(np.median(tests.se))
        only_null = {**priors, "pi0": Fixed(1.0), "slab_sd": Fixed(unit)}
        no_null = {**priors, "pi0": Fixed(0.0)}
        null, null_value, null_ok = _unless_far_below(tests, slab, only_null, best)
        alone, alone_value, alone_ok = _unless_far_below(tests, slab, no_null, best)
        if max(null_value, alone_value) > value - WORTH:
            if null_value >= alone_value - WORTH:
                best, value, converged, boundary = {**null, "slab_sd": 0.0}, null_value, null_ok, ("pi0", "slab_sd")
                if isinstance(priors["slab_sd"], Fixed):
                    best["slab_sd"], boundary = priors["slab_sd"].value, ("pi0",)
            else:
                best, value, converged, boundary = alone, alone_value, alone_ok, ("pi0",)
    none = np.zeros(0)
    return Estimate(**best, slab=slab, log_likelihood=value, boundary=boundary, converged=converged, n_optima=count,
                    weight=none, sd=none)  # fmt: skip


# ---- a mixture of normals --------------------------------------------------------------------------------------------


def mixture_sds(tests: Observed) -> Floats:
    """Standard deviations (K,) from far below the errors to beyond the largest effect, in steps of sqrt(2)."""
    low = float(tests.se.min()) / 10.0
    excess = float(np.max(tests.se**2 * (tests.z**2 - 1.0)))
    high = 2.0 * np.sqrt(excess) if excess > 0.0 else 8.0 * low
    steps = int(np.ceil(np.log2(max(high / low, 8.0)) * 2.0))
    return np.asarray(high * 2.0 ** (-0.5 * np.arange(steps, -1.0, -1.0)))


def maximise_mixture(tests: Observed, priors: Mapping[str, Prior], null_weight: float) -> Estimate:
    """Weights of the null and of a grid of normals; a free null is first found beside one normal slab, then held."""
    point = maximise(tests, make_slab("normal"), priors)
    mu, kappa = point.null_mean, point.null_sd
    sds = mixture_sds(tests)
    normal, K = make_slab("normal"), sds.size
    L = np.ones((tests.n, K + 1))
    shift = np.empty(tests.n)
    for i in range(0, tests.n, CHUNK):
        part = slice(i, i + CHUNK)
        some = Observed(tests.z[part], tests.se[part], tests.df[part], tests.group[part], tests.count[part])
        log_ratio, log_f0 = some.log_ratio(normal, sds, np.full(K, mu), np.full(K, kappa))
        top = np.maximum(log_ratio.max(axis=0), 0.0)
        L[part, 0] = np.exp(-top)
        L[part, 1:] = np.exp(log_ratio - top).T
        shift[part] = log_f0[0] + top
    weight, gap = maximise_simplex(L, null_weight)
    value = float(np.sum(np.log(L @ weight)) + shift.sum())
    pi0 = float(weight[0])
    slab, sd = mixture_slab(weight[1:], sds) if pi0 < 1.0 else (normal, 0.0)
    edge = ("pi0",) if pi0 in (0.0, 1.0) else ()
    return Estimate(pi0, sd, mu, kappa, slab, value, edge, gap < 1e-6 * tests.n, 1, weight,
                    np.concatenate([[0.0], sds]), gap)  # fmt: skip


def maximise_simplex(L: Floats, null_weight: float = 1.0) -> tuple[Floats, float]:
    """Weights (K,) on the simplex that maximise sum log(L w) + (null_weight - 1) log w_0, and the duality gap.

    Parameters
    ----------
    L : (n, K) likelihoods, each row up to a factor of its own; a row of zeros is not allowed
    null_weight : at least 1

    Examples
    --------
    >>> w, gap = maximise_simplex(np.array([[1.0, 0.2], [1.0, 0.5], [0.1, 1.0]]))
    >>> w.round(3).tolist(), gap < 1e-6
    ([0.572, 0.428], True)
    """
    n, K = L.shape
    extra = null_weight - 1.0
    total = n + extra

    def objective(w: Floats) -> float:
        with np.errstate(divide="ignore"):
            value = float(np.sum(np.log(L @ w))) + (extra * float(np.log(w[0])) if extra else 0.0)
        return value / total - float(w.sum())

    # On the whole orthant F(w) / total - sum(w) has its maximum on the simplex: no equality to keep.
    w = np.full(K, 1.0 / K)
    gap = np.inf
    for _ in range(STEPS):
        R = L / (L @ w)[:, None]
        slope = R.sum(axis=0)
        H = R.T @ R
        if extra:
            slope[0] += extra / w[0]
            H[0, 0] += extra / w[0] ** 2
        gap = float(slope.max() - total)
        if gap < GAP * n:
            break
        g, H = slope / total - 1.0, H / total
        # maximise g'(y - w) - (y - w)'H(y - w) / 2 over y >= 0: least squares with the root of H
        root = np.linalg.cholesky(H + RIDGE * np.trace(H) / K * np.eye(K)).T
        aim, _ = nnls(root, root @ w + np.linalg.solve(root.T, g), maxiter=50 * K)
        step, now, rise = 1.0, objective(w), float(g @ (aim - w))
        while step > 1e-10 and not objective(w + step * (aim - w)) >= now + 0.01 * step * rise:
            step *= 0.5
        if step <= 1e-10:
            break
        w = w + step * (aim - w)
        w[w < NOTHING] = 0.0
        if extra:
            w[0] = max(w[0], NOTHING)
        w /= w.sum()
    return w, max(gap, 0.0)
