"""How far a posterior moves when prior or likelihood are raised to a power: the cumulative Jensen-Shannon distance.

With P and Q the distribution functions of a parameter before and after, M = (P + Q) / 2,

    D^2 = integral of P log2(P / M) + Q log2(Q / M)  over  integral of P + Q,

the larger of that and of the same for 1 - P, 1 - Q (Nguyen and Vreeken 2015, ECML PKDD; Kallioinen, Paananen, Buerkner
and Vehtari 2023, Statistics and Computing 34:57). The sensitivity is D per doubling of the power, averaged over powers
just above and just below one. A shift of the mean by 0.3 sd per doubling is about 0.05, the threshold of that paper.

Distribution functions are those of mixtures over nodes, not of draws; only the range of the integrals is taken from
draws: it ends where 4,000 of them would, at the quantiles 1 / 4,000 and 1 - 1 / 4,000, so that the threshold keeps the
meaning that it has there.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, xlog1py

from finetti.inference.infer import Inference
from finetti.inference.scaled import COMPONENTS, Scaled, log_prior_parts, power_scaled
from finetti.inference.surrogate import n_terms
from finetti.inference.weights import normalise
from finetti.posterior.draws import GOOD_SURROGATE
from finetti.posterior.groups import representative_nodes, whole_replicates
from finetti.posterior.mixtures import mixture_moments, mixture_quantiles

__all__ = [
    "ALPHAS",
    "WANTED",
    "Cloud",
    "Evaluated",
    "distance",
    "evaluate",
    "functions_of",
    "hyper_cloud",
    "sensitivities",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ALPHAS = (1.0 / 1.01, 1.01)
WANTED = ("prior", *COMPONENTS)
PULLED = ("prior", "likelihood")
ROW = (*WANTED, *(f"{c}_pull" for c in PULLED))
# the range of the integrals ends where 4,000 draws would
EDGE = 1.0 / 4000
# nodes at which the inner step is evaluated anew
MOST_NODES = 256
# points of the distribution function of a coefficient: over the whole range, and over its middle
WHOLE, MIDDLE = 40, 72
MIDDLE_ENDS = (0.002, 0.998)
# and of a function of theta, of which dense points know thousands
MOST_POINTS = 400
# nodes for each term of the polynomial that carries gains to dense points, and sds to which it is used
NODES_PER_TERM, REACH = 10, 4.0


# --- nodes ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evaluated:
    """Nodes with what they yield under every scaled component.

    at : (S,) positions among the nodes of the posterior; w : (S,) their weights, summing to one; theta : (S, d)
    base : moments of the coefficients as fitted; scaled : by component of `COMPONENTS` and power
    """

    at: Ints
    w: Floats
    theta: Floats
    base: Scaled
    scaled: dict[tuple[str, float], Scaled]

    def gain(self, component: str, alpha: float) -> Floats:
        """Gain of the nodes in log weight (S,) under one of `COMPONENTS`, or "prior" for all priors together."""
        parts = COMPONENTS[:2] if component == "prior" else (component,)
        return np.asarray(sum(self.scaled[part, alpha].log_ratio for part in parts))


def evaluate(inference: Inference) -> Evaluated:
    """Evaluate the inner step under every scaled component, at the nodes that carry weight or a part of them.

    Coefficients are integrated out at draws of NUTS too.
    """
    at, w = _thinned(inference)
    theta = np.ascontiguousarray(inference.hyper.theta[at])
    return Evaluated(at, w, theta, *power_scaled(inference, theta, ALPHAS))


def _thinned(inference: Inference) -> tuple[Ints, Floats]:
    hyper = inference.hyper
    if inference.sampled is not None or hyper.n_nodes <= MOST_NODES:
        return representative_nodes(hyper.weights, 1, 2 * MOST_NODES)
    return whole_replicates(hyper, MOST_NODES)


@dataclass(frozen=True)
class Cloud:
    """Weighted points of theta (M, d) for functions of theta alone; some weights may be negative, their sum is one."""

    theta: Floats
    weights: Floats

    def reweighted(self, log_ratio: Floats) -> Floats:
        """Weights after a gain (M,) in logs."""
        gain = np.where(np.isnan(log_ratio), -np.inf, log_ratio)
        w = self.weights * np.exp(gain - np.max(gain, where=self.weights != 0.0, initial=-np.inf))
        return w / w.sum()


def hyper_cloud(inference: Inference) -> Cloud | None:
    """The dense points of a good surrogate with what the nodes add to them; None if there is none."""
    surrogate = inference.hyper.surrogate
    if surrogate is None or surrogate.residual_sd > GOOD_SURROGATE:
        return None
    theta = np.concatenate([surrogate.theta, inference.hyper.theta])
    w = np.concatenate([surrogate.dense / surrogate.dense.size, surrogate.residual / surrogate.residual.size])
    return Cloud(theta, w / w.sum())


# --- sensitivities ----------------------------------------------------------------------------------


def sensitivities(inference: Inference, nodes: Evaluated) -> dict[str, dict[str, float]]:
    """Sensitivity of every row of `summary` to "prior" and to each of `COMPONENTS`; NaN for a row of one value."""
    out: dict[str, dict[str, float]] = {}
    columns = inference.bound.design.columns
    functions = _functions(inference, nodes)
    for k, column in enumerate(columns):
        label = f"beta[{column}]"
        out[label] = functions.pop(label) if label in functions else _of_mixture(nodes, k)
    return out | functions


def _average(distances: dict[float, float]) -> float:
    """Distance per doubling, averaged over powers above and below one."""
    return sum(distances.values()) / (2.0 * float(np.log2(max(ALPHAS))))


def _slope(values: dict[float, float]) -> float:
    """Derivative with respect to log2 of the power, central."""
    return (values[max(ALPHAS)] - values[min(ALPHAS)]) / (2.0 * float(np.log2(max(ALPHAS))))


def _of_mixture(nodes: Evaluated, k: int) -> dict[str, float]:
    """Coefficient k, whose distribution is a mixture of normals over nodes."""
    mean, var = nodes.base.beta_mean[:, k], nodes.base.beta_var[:, k]
    low, left, right, high = mixture_quantiles(nodes.w, mean, var, [EDGE, *MIDDLE_ENDS, 1.0 - EDGE])
    if not high > low:  # NaN is not identified
        return dict.fromkeys(ROW, np.nan)
    x = np.union1d(np.linspace(low, high, WHOLE), np.linspace(left, right, MIDDLE))
    log_w, steps = np.log(nodes.w), _steps(nodes.base, k, x)
    P = nodes.w @ steps
    centre, sd = (float(v[0]) for v in mixture_moments(nodes.w, mean[:, None], var[:, None]))
    row, means = {}, {}
    moved = {"hyperprior": dict.fromkeys(ALPHAS, steps)}
    for component in COMPONENTS[1:]:
        moved[component] = {alpha: _steps(nodes.scaled[component, alpha], k, x) for alpha in ALPHAS}
    moved["prior"] = moved["coefficient_prior"]
    for component in WANTED:
        w = {alpha: normalise(log_w + nodes.gain(component, alpha)) for alpha in ALPHAS}
        row[component] = _average({a: distance(x, P, w[a] @ moved[component][a]) for a in ALPHAS})
        if component in PULLED:
            kind = "coefficient_prior" if component == "prior" else component
            means = {a: float(w[a] @ (nodes.scaled[kind, a].beta_mean[:, k] - centre)) for a in ALPHAS}
            row[f"{component}_pull"] = _slope(means) / sd
    return row


def _steps(s: Scaled, k: int, x: Floats) -> Floats:
    """Distribution function of coefficient k at every node, (S, G); zero at a node that could not be evaluated."""
    sd = np.sqrt(np.maximum(s.beta_var[:, k, None], 1e-300))
    return np.nan_to_num(ndtr((x - s.beta_mean[:, k, None]) / sd))


def functions_of(inference: Inference, nodes: Evaluated, theta: Floats) -> dict[str, Floats]:
    """Rows of `summary` that are functions of theta alone, at points theta (M, d): (M,) each, by label."""
    out = {}
    for k in np.flatnonzero(np.all(nodes.base.beta_var == 0.0, axis=0)) if theta.shape[1] else ():
        label = f"beta[{inference.bound.design.columns[k]}]"
        out[label] = inference.conditional.explored_beta(theta)[:, k]
    return out | inference.coordinates.natural(theta)


def _functions(inference: Inference, nodes: Evaluated) -> dict[str, dict[str, float]]:
    """Functions of theta alone: explored coefficients, standard deviations, correlations, sigma."""
    if not nodes.theta.shape[1]:
        return {label: dict.fromkeys(ROW, np.nan) for label in functions_of(inference, nodes, nodes.theta)}
    cloud, weights = _reweighted(inference, nodes)
    values = functions_of(inference, nodes, cloud.theta)
    out = {}
    for label, value in values.items():
        if not np.ptp(value) > 0.0:
            out[label] = dict.fromkeys(ROW, np.nan)
            continue
        order = np.argsort(value)
        x, P = value[order], np.cumsum(cloud.weights[order])
        first, last = int(np.argmax(P > EDGE)), x.size - 1 - int(np.argmax(P[::-1] < 1.0 - EDGE))
        steps = last - first < MOST_POINTS
        at = np.arange(first, last + 1) if steps else np.linspace(first, last, MOST_POINTS).astype(np.int64)
        x, P = x[at], P[at]
        row = {
            c: _average({a: distance(x, P, np.cumsum(weights[c, a][order])[at], steps) for a in ALPHAS}) for c in WANTED
        }
        with np.errstate(divide="ignore"):
            free = np.arctanh(value) if label.startswith("cor_") else value
            free = np.log(free) if label.startswith("sd_") or label == "sigma" else free
        mean = float(cloud.weights @ free)
        sd = float(np.sqrt(np.maximum(cloud.weights @ (free - mean) ** 2, 0.0)))
        for c in PULLED:
            row[f"{c}_pull"] = _slope({a: float(weights[c, a] @ (free - mean)) for a in ALPHAS}) / (sd or np.nan)
        out[label] = row
    return out


def _reweighted(inference: Inference, nodes: Evaluated) -> tuple[Cloud, dict[tuple[str, float], Floats]]:
    """Points for functions of theta, and their weights (M,) under "prior" and every component, by power.

    Where dense points serve, a polynomial in the warped coordinates carries the gains there; what it misses at the
    nodes is put back with weights of either sign, as the surrogate itself does.
    """
    keys = [(c, alpha) for c in WANTED for alpha in ALPHAS]
    gains = {key: nodes.gain(*key) for key in keys}
    dense, proposal = hyper_cloud(inference), inference.hyper.proposal
    if dense is None or proposal is None or not all(np.all(np.isfinite(g)) for g in gains.values()):
        log_w = np.log(nodes.w)
        return Cloud(nodes.theta, nodes.w), {key: normalise(log_w + gain) for key, gain in gains.items()}
    phi, phi_dense = proposal.warp.inverse(nodes.theta), proposal.warp.inverse(dense.theta)
    centre, spread = nodes.w @ phi, np.sqrt(nodes.w @ (phi - nodes.w @ phi) ** 2)
    degree = max(k for k in (1, 2, 3, 4) if k == 1 or NODES_PER_TERM * n_terms(phi.shape[1], k) <= nodes.w.size)
    F, F_dense = (_monomials(np.clip((p - centre) / spread, -REACH, REACH), degree) for p in (phi, phi_dense))
    root = np.sqrt(nodes.w)[:, None]
    fitted = np.linalg.lstsq(root * F, root * np.stack([gains[key] for key in keys], axis=1), rcond=None)[0]
    exact = log_prior_parts(inference.conditional.inner.hyper, dense.theta)[0]
    weights = {}
    for j, (component, alpha) in enumerate(keys):
        gain = gains[component, alpha]
        if component == "hyperprior":  # known everywhere
            at_dense, at_nodes = (alpha - 1.0) * exact, gain
        else:
            at_dense, at_nodes = F_dense @ fitted[:, j], F @ fitted[:, j]
        # no extrapolation: far out the surrogate falls off more slowly than the posterior may
        low, high = float(gain.min()), float(gain.max())
        ratio_dense, ratio_nodes = (np.exp(np.clip(g, low, high) - high) for g in (at_dense, at_nodes))
        w = np.concatenate([dense.weights * ratio_dense, nodes.w * (np.exp(gain - high) - ratio_nodes)])
        weights[component, alpha] = w / w.sum()
    everywhere = Cloud(
        np.concatenate([dense.theta, nodes.theta]), np.concatenate([dense.weights, np.zeros(nodes.w.size)])
    )
    return everywhere, weights


def _monomials(z: Floats, degree: int) -> Floats:
    """Products of up to `degree` columns of z (S, d): (S, K)."""
    terms = [()] + [c for k in range(1, degree + 1) for c in combinations_with_replacement(range(z.shape[1]), k)]
    return np.stack([np.prod(z[:, list(term)], axis=1) for term in terms], axis=1)


def distance(x: Floats, P: Floats, Q: Floats, steps: bool = False) -> float:
    """Cumulative Jensen-Shannon distance of two distribution functions (G,) at increasing points x (G,).

    Parameters
    ----------
    steps : bool
        Whether they are constant from each point to the next; otherwise they are smooth.

    Examples
    --------
    >>> x = np.linspace(-3.5, 3.5, 201)
    >>> round(distance(x, ndtr(x), ndtr(x - 0.3)), 3)
    0.066
    >>> distance(x, ndtr(x), ndtr(x))
    0.0
    """
    width = np.diff(x)
    P, Q = np.clip(P, 0.0, 1.0), np.clip(Q, 0.0, 1.0)

    def integral(f: Floats) -> float:
        return float(width @ (f[:-1] if steps else 0.5 * (f[1:] + f[:-1])))

    def one_way(P: Floats, Q: Floats) -> float:
        total = P + Q
        d = np.divide(Q - P, total, out=np.zeros_like(P), where=total > 0.0)
        divergence = 0.5 * total * (xlog1py(1.0 - d, -d) + xlog1py(1.0 + d, d)) / np.log(2.0)
        bound = integral(total)
        return float(np.sqrt(max(integral(divergence), 0.0) / bound)) if bound > 0.0 else 0.0

    return max(one_way(P, Q), one_way(1.0 - P, 1.0 - Q))
