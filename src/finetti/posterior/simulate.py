"""Draw from the model: hyperparameters from their priors, coefficients from their parents, a response from all.

    theta ~ hyperprior      beta ~ prior      u_g | theta ~ Normal(0, D C C' D) per level      y = eta + error

It is written from the statement of the model alone and shares nothing with the inner step that inverts it, so that
simulation-based calibration compares two accounts of one model. Everything is in the user's labels and units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from finetti.errors import ModelError, PriorError, available
from finetti.model.priors import (
    Beta,
    DuMouchel,
    Exponential,
    Fixed,
    Gamma,
    HalfCauchy,
    HalfNormal,
    HalfT,
    InverseGamma,
    Lkj,
    Normal,
    Prior,
    StudentT,
    Uniform,
    UniformShrinkage,
)

if TYPE_CHECKING:
    from finetti.data.bound import Bound
    from finetti.data.design import Factor

__all__ = ["Simulated", "check_drawable", "draw_prior", "labels", "simulate", "slim"]

Floats = npt.NDArray[np.float64]


class Simulated(NamedTuple):
    """One data set drawn from the model, and the parameters that made it.

    y : (n,) response, in units of the data's
    truth : every `beta[...]`, `sd_g[...]`, `cor_g[a, b]` and `sigma` by label
    u : (J, q) deviations of each grouping factor from the population, by name
    """

    y: Floats
    truth: dict[str, float]
    u: dict[str, Floats]


def labels(bound: Bound) -> tuple[str, ...]:
    """Labels of the parameters that `simulate` needs, in the order of a summary.

    >>> import finetti as fi
    >>> bound = fi.Model("y ~ 1 + (1 | g)").bind({"y": [1.0, 2.0, 6.0], "g": ["a", "a", "b"]})
    >>> labels(bound)
    ('beta[Intercept]', 'sd_g[Intercept]', 'sigma')
    """
    out = [f"beta[{c}]" for c in bound.design.columns]
    for f in bound.design.factors:
        if bound.pooling[f.name] in ("partial", "empirical"):
            out += [f"sd_{f.name}[{c}]" for c in f.coefficients]
            out += [_pair(f, i, j) for block in f.blocks for i, j in _pairs(block)]
    return (*out, "sigma") if "sigma" in bound.priors else tuple(out)


def simulate(bound: Bound, values: Mapping[str, float], rng: np.random.Generator) -> Simulated:
    """Draw group effects from their parents and a response from the model, at given parameter values.

    Parameters
    ----------
    bound : Bound
        The design: rows, groups, known errors with their covariance, weights, offsets.
    values : mapping of str to float
        Every label of `labels(bound)`; others are ignored.
    rng : numpy.random.Generator

    Raises
    ------
    ModelError
        If a value is missing or impossible, or if a term is not pooled, which has no parent to draw from.

    Examples
    --------
    >>> import finetti as fi
    >>> bound = fi.Model("y ~ 1 + (1 | g)").bind({"y": [1.0, 2.0, 6.0], "g": ["a", "a", "b"]})
    >>> made = simulate(bound, {"beta[Intercept]": 5, "sd_g[Intercept]": 0, "sigma": 1}, np.random.default_rng(1))
    >>> made.y.round(2).tolist(), made.u["g"].tolist()
    ([5.33, 3.7, 5.91], [[0.0], [0.0]])
    """
    design = bound.design
    check_parents(bound)
    truth = {}
    for label in labels(bound):
        if label not in values:
            raise ModelError(f"a value of {label!r} is needed to simulate; {available(label, values)}")
        truth[label] = _possible(label, values[label])
    beta = np.array([truth[f"beta[{c}]"] for c in design.columns])
    eta = design.offset + design.X @ beta
    u = {}
    for f in design.factors:
        u[f.name] = _effects(f, truth, rng, complete=bound.pooling[f.name] == "complete")
        eta = eta + np.sum(f.Z * u[f.name][f.index], axis=1)
    return Simulated(eta + _errors(bound, truth.get("sigma", 0.0), rng), truth, u)


def check_parents(bound: Bound) -> None:
    """Raise for unpooled terms."""
    unpooled = [name for name, kind in bound.pooling.items() if kind == "none"]
    if unpooled:
        raise ModelError(
            f"the term {unpooled[0]!r} is not pooled: its coefficients have no parent distribution, so that nothing "
            "can be simulated from this model. Use pooling='partial' for it"
        )


def _possible(label: str, value: float) -> float:
    value = float(value)
    wrong = not np.isfinite(value)
    wrong |= (label.startswith("sd_") and value < 0.0) or (label == "sigma" and value <= 0.0)
    wrong |= label.startswith("cor_") and not -1.0 <= value <= 1.0
    if wrong:
        raise ModelError(f"{label}={value:g} is impossible; give a finite value within the parameter's range")
    return value


def _pairs(block: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(block[i], block[j]) for i in range(len(block)) for j in range(i + 1, len(block))]


def _pair(f: Factor, i: int, j: int) -> str:
    return f"cor_{f.name}[{f.coefficients[i]}, {f.coefficients[j]}]"


def _effects(f: Factor, truth: Mapping[str, float], rng: np.random.Generator, complete: bool) -> Floats:
    """Deviations (J, q) of one factor."""
    J, q = len(f.levels), len(f.coefficients)
    if complete:
        return np.zeros((J, q))
    sd = np.array([truth[f"sd_{f.name}[{c}]"] for c in f.coefficients])
    R = np.eye(q)
    for block in f.blocks:
        for i, j in _pairs(block):
            R[i, j] = R[j, i] = truth[_pair(f, i, j)]
    return rng.standard_normal((J, q)) @ (sd[:, None] * _root(R, f"the correlations of {f.name}")).T


def _root(R: Floats, what: str) -> Floats:
    """A with A A' = R; R may be singular."""
    if R.shape[0] == 1 or not np.any(R - np.diag(np.diag(R))):
        return np.sqrt(R)
    value, vector = np.linalg.eigh(R)
    if value[0] < -1e-8 * value[-1]:
        raise ModelError(f"{what} do not form a correlation matrix: its smallest eigenvalue is {value[0]:.3g}")
    return np.asarray(vector * np.sqrt(np.maximum(value, 0.0)), dtype=np.float64)


def _errors(bound: Bound, sigma: float, rng: np.random.Generator) -> Floats:
    """Errors (n,): known, estimated or both, weighted, and in blocks where their covariance is known."""
    design = bound.design
    z = rng.standard_normal(design.y.size)
    if design.se is None:
        return sigma * z / (1.0 if design.weights is None else np.sqrt(design.weights))
    error = z * np.sqrt(design.se**2 + (sigma**2 if design.se_sigma else 0.0))
    for rows, cov in bound.error_covariance or ():
        error[rows] = np.linalg.cholesky(cov) @ z[rows]
    return error


# --- the prior ---------------------------------------------------------------------------------------


def draw_prior(bound: Bound, rng: np.random.Generator) -> dict[str, float]:
    """Draw every parameter of a model from its prior, by label.

    The prior named `Intercept` is on the predictor at the covariates' means of the data that the priors were resolved
    for (`bound.scales.x_mean`).

    Raises
    ------
    PriorError
        If a prior is improper; see `check_drawable`.

    Examples
    --------
    >>> import finetti as fi
    >>> priors = {"Intercept": fi.normal(0, 1), "sd": fi.fixed(2), "sigma": fi.exponential(1)}
    >>> model = fi.Model("y ~ 1 + (1 | g)", priors=priors)
    >>> bound = model.bind({"y": [1.0, 2.0, 6.0], "g": ["a", "a", "b"]})
    >>> {k: round(v, 2) for k, v in draw_prior(bound, np.random.default_rng(0)).items()}
    {'beta[Intercept]': 0.13, 'sd_g[Intercept]': 2.0, 'sigma': 1.02}
    """
    check_drawable(bound)
    design, priors = bound.design, bound.priors
    beta = {}
    for c in design.columns:
        key = "Intercept" if c == "Intercept" and "Intercept" in priors else f"beta[{c}]"
        beta[c] = draw_one(priors[key], rng)
    if "Intercept" in priors:
        beta["Intercept"] -= sum(bound.scales.x_mean[c] * beta[c] for c in design.columns if c != "Intercept")
    out = {f"beta[{c}]": beta[c] for c in design.columns}
    for f in design.factors:
        if bound.pooling[f.name] not in ("partial", "empirical"):
            continue
        out.update({f"sd_{f.name}[{c}]": draw_one(priors[f"sd_{f.name}[{c}]"], rng) for c in f.coefficients})
        for block in f.blocks:
            if len(block) < 2:
                continue
            R = draw_correlations(priors[f"cor_{f.name}"], len(block), rng)
            place = {member: k for k, member in enumerate(block)}
            out.update({_pair(f, i, j): float(R[place[i], place[j]]) for i, j in _pairs(block)})
    if "sigma" in priors:
        out["sigma"] = draw_one(priors["sigma"], rng)
    return out


def check_drawable(bound: Bound) -> None:
    """Raise unless every parameter can be drawn: all priors proper, all terms with a parent.

    Raises
    ------
    PriorError
        With every improper prior that plays a part, and what to give instead.
    ModelError
        For unpooled terms.
    """
    check_parents(bound)
    skip = {name for name, kind in bound.pooling.items() if kind == "complete"}
    used = {
        label: prior
        for label, prior in bound.priors.items()
        if not any(label.startswith(f"sd_{g}[") or label == f"cor_{g}" for g in skip)
    }
    improper = [f"{label} ~ {prior}" for label, prior in used.items() if not prior.proper]
    if improper:
        example = "{'beta': fi.normal(0, 10), 'sd': fi.half_normal(5), 'sigma': fi.half_normal(5)}"
        raise PriorError(
            f"nothing can be drawn from an improper prior: {'; '.join(improper)}. Give proper ones that say what you "
            f"would believe before the data, such as priors={example}, or leave them out for the defaults"
        )
    for label, prior in used.items():
        if not isinstance(prior, _DRAWN | Lkj):
            raise PriorError(
                f"no draws can be made of {label} ~ {prior}, a prior of a class that finetti does not know; use one of "
                "its own, such as fi.half_t(3, 5)"
            )


_DRAWN = (
    Beta | DuMouchel | Exponential | Fixed | Gamma | HalfCauchy | HalfNormal | HalfT | InverseGamma | Normal | StudentT
    | Uniform | UniformShrinkage
)  # fmt: skip


def draw_one(prior: Prior, rng: np.random.Generator) -> float:
    """One draw of a scalar parameter; of a standard deviation also where the prior is on the variance."""
    match prior:
        case Fixed():
            return prior.value
        case Normal():
            return float(rng.normal(prior.mean, prior.sd))
        case StudentT():
            return float(prior.mean + prior.scale * rng.standard_t(prior.df))
        case HalfNormal():
            return float(abs(rng.normal(0.0, prior.scale)))
        case HalfCauchy():
            return float(abs(prior.scale * rng.standard_cauchy()))
        case HalfT():
            return float(abs(prior.scale * rng.standard_t(prior.df)))
        case Exponential():
            return float(rng.exponential(1.0 / prior.rate))
        case Gamma():
            return float(rng.gamma(prior.shape, 1.0 / prior.rate))
        case InverseGamma():
            return float(np.sqrt(prior.scale / rng.gamma(prior.shape)))
        case Uniform():
            return float(rng.uniform(prior.low, prior.high))
        case Beta():
            return float(rng.beta(prior.a, prior.b))
        case DuMouchel() | UniformShrinkage() if prior.s0 is not None:
            share = 1.0 - rng.random()  # in (0, 1]: the weight s0 / (s0 + tau), or the shrinkage, is uniform
            odds = (1.0 - share) / share
            return float(prior.s0 * (odds if isinstance(prior, DuMouchel) else np.sqrt(odds)))
        case _:
            raise PriorError(f"no draws can be made of {prior}")


def draw_correlations(prior: Prior, q: int, rng: np.random.Generator) -> Floats:
    """One q x q correlation matrix.

    Of LKJ through its canonical partial correlations, which are independent: the one of variables i and j < i given
    those before j is 2 Beta(b, b) - 1 with b = eta + (q - 2 - j) / 2 (Lewandowski, Kurowicka and Joe 2009).
    """
    if isinstance(prior, Fixed):
        return np.full((q, q), prior.value) + (1.0 - prior.value) * np.eye(q)
    assert isinstance(prior, Lkj)
    C = np.zeros((q, q))
    C[0, 0] = 1.0
    for i in range(1, q):
        left = 1.0
        for j in range(i):
            b = prior.eta + 0.5 * (q - 2 - j)
            partial = 2.0 * rng.beta(b, b) - 1.0
            C[i, j] = partial * np.sqrt(left)
            left *= 1.0 - partial**2
        C[i, i] = np.sqrt(left)
    R = C @ C.T
    np.fill_diagonal(R, 1.0)
    return np.asarray(R, dtype=np.float64)


def slim(bound: Bound) -> Bound:
    """Return the model without the columns it came from, which simulations do not need: it travels to processes."""
    return replace(bound, design=replace(bound.design, used={}, table=None))
