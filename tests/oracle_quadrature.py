"""Posteriors by brute force: Gauss-Legendre tensor grids over the hyperparameters, dense algebra at every node.

Coordinates with finite boxes and no singular ends, so that the rule converges spectrally:
an sd or sigma = s sinh(z), z >= 0 (includes 0, where a posterior may have mass; heavy right tails become exponential);
a correlation = sin(t), |t| <= pi/2; a coefficient that is conditioned on = c + s sinh(z).
The box is found by zooming: scan a coarse grid, keep what lies within e^-CUT of the best profile, and scan again.
Inside it, a second sinh puts the nodes where the marginal posterior is: z = mean + sd sinh(t), Gauss-Legendre in t.

Every answer is computed twice, on grids of different size over boxes of different cut; `error` is the difference.

The named problems, and the answers that take long, are in tests.oracle_references.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial import legendre
from scipy.optimize import brentq
from scipy.special import logsumexp, ndtr

from tests.oracles import LOG_2PI, Problem, coefficient_design, coefficient_prior, dist, log_prior_hyper

PROBS = {"q5": 0.05, "q50": 0.5, "q95": 0.95}
CUT = 24.0  # e^-24 = 4e-11 of the peak is left outside the box
PRUNE = 30.0  # nodes below e^-30 of the best do not get conditional moments
BATCH = 4096
RANGE = 9.0  # the search starts from 0 to sinh(9) = 4,000 times the sd of y; beyond, no digits are left


@dataclass(frozen=True)
class Axis:
    """One hyperparameter: value = centre + scale sinh(z), or sin(z) for a correlation; z = t, or mean + sd sinh(t)."""

    label: str
    correlation: bool
    scale: float
    centre: float
    low: float
    high: float  # the box, in t
    bulk: tuple[float, float] | None = None  # mean and sd of z

    def z(self, t: np.ndarray) -> np.ndarray:
        return t if self.bulk is None else self.bulk[0] + self.bulk[1] * np.sinh(t)

    def value(self, t: np.ndarray) -> np.ndarray:
        z = self.z(t)
        return np.sin(z) if self.correlation else self.centre + self.scale * np.sinh(z)

    def log_jacobian(self, t: np.ndarray) -> np.ndarray:
        z = self.z(t)
        with np.errstate(divide="ignore"):
            outer = np.log(np.cos(z)) if self.correlation else np.log(self.scale * np.cosh(z))
        return outer if self.bulk is None else outer + np.log(self.bulk[1] * np.cosh(t))

    def around(self, t: np.ndarray, weight: np.ndarray) -> Axis:
        """The same box, with the nodes gathered where the weights on the points t are."""
        z, ends = self.z(t), self.z(np.array([self.low, self.high]))
        mean = float(weight @ z)
        # no narrower than the points could tell
        gap = float(np.interp(mean, z[:-1], np.diff(z)))
        sd = max(math.sqrt(float(weight @ (z - mean) ** 2)), 0.5 * gap)
        low, high = np.arcsinh((ends - mean) / sd)
        return dataclasses.replace(self, low=float(low), high=float(high), bulk=(mean, sd))


def free_axes(problem: Problem, priors: Mapping[str, Any]) -> tuple[list[Axis], dict[str, float]]:
    """Axes of the free hyperparameters over their whole range, and the values of those held by ``fixed(v)``."""
    unit = float(np.std(problem.y)) or 1.0
    axes, held = [], {}
    for label in problem.hyper_labels():
        if label.startswith("cor_"):
            name = next(f.name for f in problem.factors if label.startswith(f"cor_{f.name}["))
            prior = dist(priors[f"cor_{name}"])
            if prior.name != "fixed":
                axes.append(Axis(label, True, 1.0, 0.0, -math.pi / 2, math.pi / 2))
        elif label.startswith("sd_") or label == "sigma":
            prior = dist(priors[label])
            if prior.name != "fixed":
                high = prior.args[1] if prior.name == "uniform" else math.inf
                axes.append(Axis(label, False, unit, 0.0, 0.0, min(math.asinh(high / unit), RANGE)))
        else:
            prior = problem.beta[problem.beta_keys.index(label)]
            axes.append(Axis(label, False, unit, float(np.mean(problem.y)), -RANGE, RANGE))
        if prior.name == "fixed":
            held[label] = prior.args[0]
    return axes, held


class Batched:
    """log p(y | theta) and conditional moments at many nodes: H = P + W'R^-1 W through Lambda, one batch at a time.

    b = m + Lambda z, Lambda Lambda' = prior covariance (1 for flat directions), so H_z = Lambda'GLambda + I (no I where
    flat), G = W'R^-1 W. Nodes that share sigma share G: cost per node depends on the number of coefficients, not rows.
    """

    def __init__(self, problem: Problem, labels: Sequence[str], held: Mapping[str, float]):
        self.problem, self.labels, self.held = problem, tuple(labels), dict(held)
        self.W, labels_of_columns, self.back = coefficient_design(problem)
        combine, sums = [np.eye(len(labels_of_columns))], []
        for f in problem.factors:
            for level, c in itertools.product(f.levels, f.coefficients):
                if f.kind != "none" and f"beta[{c}]" in labels_of_columns:
                    row = np.zeros((1, len(labels_of_columns)))
                    row[0, labels_of_columns.index(f"beta[{c}]")] = 1.0
                    row[0, labels_of_columns.index(f"u_{f.name}[{level}, {c}]")] = 1.0
                    combine.append(row)
                    sums.append(f"theta_{f.name}[{level}, {c}]")
        self.coefficients = (*labels_of_columns, *sums)
        self.reported = np.vstack(combine) @ self.back
        self.given = [k for k in labels if not k.startswith(("sd_", "cor_")) and k != "sigma"]
        if any(len(b) > 2 for f in problem.factors for b in f.blocks):
            raise ValueError("quadrature knows blocks of one or two correlated coefficients")

    def hyper(self, theta: np.ndarray) -> dict[str, float]:
        return self.held | dict(zip(self.labels, (float(t) for t in theta), strict=True))

    def roots(self, theta: np.ndarray) -> np.ndarray:
        """Lambda (S, m, m) for nodes that agree on sigma and on the coefficients conditioned on."""
        column = {k: theta[:, i] for i, k in enumerate(self.labels)} | {
            k: np.full(len(theta), v) for k, v in self.held.items()
        }
        _, C, flat = coefficient_prior(self.problem, self.hyper(theta[0]))
        p = len(self.problem.kept())
        m = len(flat)
        out = np.zeros((len(theta), m, m))
        out[:, range(p), range(p)] = np.where(flat[:p], 1.0, np.sqrt(np.diag(C)[:p]))
        at = p
        for f in self.problem.factors:
            q, J = len(f.coefficients), len(f.levels)
            root = np.zeros((len(theta), q, q))
            if f.kind == "none":
                root[:] = np.eye(q)
            if f.varying:
                for block in f.blocks:
                    sd = [column[f"sd_{f.name}[{f.coefficients[i]}]"] for i in block]
                    root[:, block[0], block[0]] = sd[0]
                    if len(block) == 2:
                        r = column[f.cor_label(*block)]
                        root[:, block[1], block[0]] = sd[1] * r
                        root[:, block[1], block[1]] = sd[1] * np.sqrt(1.0 - r**2)
            for j in range(J):
                out[:, at + j * q : at + (j + 1) * q, at + j * q : at + (j + 1) * q] = root
            at += q * J
        return out

    def groups(self, theta: np.ndarray) -> list[np.ndarray]:
        """Positions of the nodes that share R and the known mean, in batches."""
        keys = [i for i, k in enumerate(self.labels) if k == "sigma" or k in self.given]
        _, inverse = np.unique(theta[:, keys], axis=0, return_inverse=True)
        order = np.argsort(inverse.ravel(), kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(inverse.ravel()[order])) + 1)
        return [part[i : i + BATCH] for part in parts for i in range(0, len(part), BATCH)]

    def _system(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
        """Lambda, H_z, right side, flat directions, and log p without its theta-dependent determinant and quadratic."""
        first = self.hyper(theta[0])
        mean, _, flat = coefficient_prior(self.problem, first)
        v = self.problem.error_variance(first)
        r = self.problem.y - (0.0 if self.problem.offset is None else self.problem.offset) - self.W @ mean
        G, c = (self.W.T / v) @ self.W, (self.W.T / v) @ r
        root = self.roots(theta)
        H = np.swapaxes(root, 1, 2) @ G @ root
        H[:, range(len(flat)), range(len(flat))] += np.where(flat, 0.0, 1.0)
        base = -0.5 * ((len(r) - flat.sum()) * LOG_2PI + np.log(v).sum() + r @ (r / v))
        return root, H, np.swapaxes(root, 1, 2) @ c, mean, float(base)

    def log_marginal(self, theta: np.ndarray) -> np.ndarray:
        out = np.empty(len(theta))
        for part in self.groups(theta):
            _, H, c, _, base = self._system(theta[part])
            L = np.linalg.cholesky(H)
            z = np.linalg.solve(H, c[:, :, None])[:, :, 0]
            logdet = 2.0 * np.log(np.einsum("sii->si", L)).sum(axis=1)
            out[part] = base - 0.5 * logdet + 0.5 * (c * z).sum(axis=1)
        return out

    def moments(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Conditional means and standard deviations of `coefficients`: every beta and u, and theta = beta + u."""
        mean, sd = np.empty((2, len(theta), len(self.coefficients)))
        for part in self.groups(theta):
            root, H, c, m, _ = self._system(theta[part])
            inverse = np.linalg.inv(H)
            to_raw = self.reported @ root
            mean[part] = self.reported @ m + (to_raw @ (inverse @ c[:, :, None]))[:, :, 0]
            moving = (root != 0).any(axis=2)  # conditioned on, fixed, completely pooled: Lambda has an empty row
            inverse *= moving[:, :, None] & moving[:, None, :]
            sd[part] = np.sqrt(np.maximum(((to_raw @ inverse) * to_raw).sum(axis=2), 0.0))
        return mean, sd


@dataclass(frozen=True)
class Quadrature:
    """`table[label]`: mean, sd, q5, q50, q95 of hyperparameters, beta, u, and theta_g = beta + u.

    `error` is the largest difference between two resolutions, as a fraction of the posterior sd for moments and
    quantiles, absolute for the log evidence; `worst` says where.
    """

    table: dict[str, dict[str, float]]
    log_evidence: float
    error: float
    worst: str
    points: tuple[int, ...]
    box: dict[str, tuple[float, float]]  # in natural units


def _log_prior(axes: Sequence[Axis], zs: Sequence[np.ndarray], problem: Problem, priors: Mapping[str, Any],
               held: Mapping[str, float]) -> np.ndarray:  # fmt: skip
    """log p(theta) + log Jacobian on the grid, a sum of one-dimensional terms (all priors are independent)."""
    middle = {a.label: float(a.value(0.5 * (a.low + a.high))) for a in axes}
    at_middle = log_prior_hyper(problem, middle | dict(held), priors)
    total = np.full([len(z) for z in zs], at_middle)
    for d, (axis, z) in enumerate(zip(axes, zs, strict=True)):
        line = np.array(
            [log_prior_hyper(problem, middle | dict(held) | {axis.label: float(v)}, priors) for v in axis.value(z)]
        )
        line = line - at_middle + axis.log_jacobian(z)
        total = total + line.reshape([-1 if i == d else 1 for i in range(len(zs))])
    return total


def _grid(axes: Sequence[Axis], zs: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack(np.meshgrid(*[a.value(z) for a, z in zip(axes, zs, strict=True)], indexing="ij"), -1).reshape(
        -1, len(axes)
    )


def find_box(problem: Problem, priors: Mapping[str, Any], cut: float = CUT) -> tuple[list[Axis], dict[str, float]]:
    """Zoom: each pass keeps, per axis, the points whose profile is within e^-cut, and neighbours; then `around`."""
    axes, held = free_axes(problem, priors)
    exact = Batched(problem, [a.label for a in axes], held)
    points = {1: 400, 2: 60, 3: 20, 4: 11}.get(len(axes), 9)
    for _ in range(9):
        # the very ends (sigma = 0, correlation 1) can be singular: step inside
        inner = 0.5 + 0.5 * (1.0 - 4e-4) * np.linspace(-1.0, 1.0, points)
        zs = [a.low + inner * (a.high - a.low) for a in axes]
        with np.errstate(all="ignore"):
            values = exact.log_marginal(_grid(axes, zs)).reshape([points] * len(axes))
            values = values + _log_prior(axes, zs, problem, priors, held)
        values = np.where(np.isfinite(values), values, -np.inf)
        narrowed = []
        for d, (axis, z) in enumerate(zip(axes, zs, strict=True)):
            profile = values.max(axis=tuple(i for i in range(len(axes)) if i != d))
            inside = np.flatnonzero(profile > values.max() - cut)
            low = axis.low if inside[0] == 0 else z[inside[0] - 1]
            high = axis.high if inside[-1] == points - 1 else z[inside[-1] + 1]
            narrowed.append(dataclasses.replace(axis, low=float(low), high=float(high)))
        done = all(n.high - n.low > 0.9 * (a.high - a.low) for n, a in zip(narrowed, axes, strict=True))
        axes = narrowed
        if done:
            break
    for _ in range(2):
        ts, _, log_w = _weights(problem, priors, axes, held, [points] * len(axes))
        weight = np.exp(log_w - logsumexp(log_w))
        axes = [a.around(t, _margin(weight, d)) for d, (a, t) in enumerate(zip(axes, ts, strict=True))]
    return axes, held


def _margin(tensor: np.ndarray, d: int) -> np.ndarray:
    return tensor.sum(axis=tuple(i for i in range(tensor.ndim) if i != d))


def _weights(problem: Problem, priors: Mapping[str, Any], axes: Sequence[Axis], held: Mapping[str, float],
             points: Sequence[int]) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:  # fmt: skip
    """Gauss-Legendre points and weights per axis, and log of (posterior density x weight) on the grid."""
    rules = [legendre.leggauss(k) for k in points]
    ts = [a.low + 0.5 * (x + 1.0) * (a.high - a.low) for a, (x, _) in zip(axes, rules, strict=True)]
    log_w = _log_prior(axes, ts, problem, priors, held)
    for d, (axis, (_, w)) in enumerate(zip(axes, rules, strict=True)):
        shape = [-1 if i == d else 1 for i in range(len(axes))]
        log_w = log_w + np.log(w * 0.5 * (axis.high - axis.low)).reshape(shape)
    exact = Batched(problem, [a.label for a in axes], held)
    return ts, [w for _, w in rules], log_w + exact.log_marginal(_grid(axes, ts)).reshape(list(points))


def _marginal_row(axis: Axis, t: np.ndarray, weight: np.ndarray, w: np.ndarray) -> dict[str, float]:
    """Moments and quantiles of one hyperparameter: its marginal density is a polynomial through the Gauss points."""
    value = axis.value(t)
    mean = float(weight @ value)
    row = {"mean": mean, "sd": math.sqrt(float(weight @ (value - mean) ** 2))}
    x = (2.0 * t - axis.low - axis.high) / (axis.high - axis.low)
    density = weight / w
    k = np.arange(len(t))
    series = legendre.legvander(x, len(t) - 1).T @ (w * density) * (2 * k + 1) / 2
    cdf = legendre.legint(series, lbnd=-1)
    for name, p in PROBS.items():
        low, high = -1.0, 1.0
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if legendre.legval(middle, cdf) < p else (low, middle)
        row[name] = float(axis.value(np.array(axis.low + 0.5 * (low + 1.0) * (axis.high - axis.low))))
    return row


def mixture_quantile(p: float, weight: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> float:
    """Quantile of sum_s weight_s N(mean_s, sd_s^2)."""
    low, high = float((mean - 9.0 * sd).min()), float((mean + 9.0 * sd).max())
    return float(brentq(lambda x: float(weight @ ndtr((x - mean) / sd)) - p, low, high, xtol=1e-10 * (high - low)))


def _short(x: Any) -> float:
    """Six digits, and an end that is 0 but for rounding is 0."""
    return float(f"{float(x):.6g}") if abs(x) > 1e-12 else 0.0


def integrate(problem: Problem, priors: Mapping[str, Any], points: Sequence[int], cut: float = CUT) -> Quadrature:
    """The posterior on one tensor grid."""
    axes, held = find_box(problem, priors, cut)
    ts, ws, log_w = _weights(problem, priors, axes, held, points)
    log_evidence = float(logsumexp(log_w))
    weight = np.exp(log_w - log_evidence)
    table = {
        a.label: _marginal_row(a, t, _margin(weight, d), w)
        for d, (a, t, w) in enumerate(zip(axes, ts, ws, strict=True))
    }
    exact = Batched(problem, [a.label for a in axes], held)
    keep = np.flatnonzero(log_w.ravel() > log_w.max() - PRUNE)
    w = weight.ravel()[keep] / weight.ravel()[keep].sum()
    means, sds = exact.moments(_grid(axes, ts)[keep])
    for i, label in enumerate(exact.coefficients):
        m, s = means[:, i], sds[:, i]
        mean = float(w @ m)
        sd = math.sqrt(float(w @ (s**2 + (m - mean) ** 2)))
        if s.min() > 0:
            rows = {name: mixture_quantile(p, w, m, s) for name, p in PROBS.items()}
        elif sd == 0:
            rows = dict.fromkeys(PROBS, mean)
        else:  # conditioned on: its quantiles are in the table under the name of its prior, or shifted by other slopes
            rows = dict.fromkeys(PROBS, math.nan)
        table[label] = table[label] if label in table else {"mean": mean, "sd": sd} | rows
    box = {a.label: (_short(a.value(np.array(a.low))), _short(a.value(np.array(a.high)))) for a in axes}
    return Quadrature(table, log_evidence, math.nan, "", tuple(points), box)


DEFAULT_POINTS = {1: (300,), 2: (120, 50), 3: (44, 44, 40), 4: (26, 26, 24, 22)}


def quadrature_posterior(
    problem: Problem, priors: Mapping[str, Any], points: Sequence[int] | None = None, coarse: float = 0.8
) -> Quadrature:
    """Posterior of every hyperparameter and coefficient, for 1-4 free hyperparameters; `error` from a coarser grid.

    Parameters
    ----------
    priors : of every sd, correlation (`lkj`, blocks of two) and sigma: `Dist`, text, or finetti's priors.
    points : Gauss points per hyperparameter, in the order of `problem.hyper_labels()` without fixed ones.
    coarse : the second grid has this fraction of the points per axis, over a box cut closer.
    """
    axes, _ = free_axes(problem, priors)
    points = tuple(points or DEFAULT_POINTS[len(axes)])
    fine = integrate(problem, priors, points)
    rough = integrate(problem, priors, [max(int(k * coarse), 4) for k in points], cut=CUT - 3.0)
    errors = {"log evidence": abs(fine.log_evidence - rough.log_evidence)}
    for label, row in fine.table.items():
        sd = row["sd"] or 1.0
        other = rough.table[label]
        errors |= {f"{k} of {label}": abs(v - other[k]) / sd for k, v in row.items() if not math.isnan(v)}
    worst = max(errors, key=lambda k: errors[k])
    return dataclasses.replace(fine, error=errors[worst], worst=worst)
