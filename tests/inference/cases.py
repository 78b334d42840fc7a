"""Problems of the oracle as finetti takes them, and hyperparameters by label as coordinates theta."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

import finetti as fi
from finetti.data.bound import Bound, scales_of
from finetti.inference.gaussian import GaussianInner
from finetti.inference.hyperparameters import Hyperparameters
from tests.oracle_problems import ERRORS, INTERCEPTS, LAYOUTS, as_design, random_hyper, random_problem
from tests.oracles import Problem

DEFAULT_PRIORS = {"sd": "half_t(3, 2)", "cor": "lkj(2)", "sigma": "half_cauchy(3)"}


def hyper_priors(problem: Problem, rng: np.random.Generator | None = None) -> dict[str, Any]:
    """A hyperprior for every sd, correlation block and sigma; drawn from all kinds if `rng` is given."""

    def some(kind: str) -> Any:
        if rng is None:
            return {"sd": fi.half_t(3, 2), "cor": fi.lkj(2), "sigma": fi.half_cauchy(3)}[kind]
        if kind == "cor":
            return fi.lkj(float(rng.choice([1.0, 2.0, 3.5])))
        choices = [
            fi.half_t(3, 2), fi.half_normal(2), fi.half_cauchy(3), fi.exponential(0.7), fi.gamma(2, 0.5),
            fi.inverse_gamma(3, 4), fi.uniform(0, 40),
        ]  # fmt: skip
        return choices[int(rng.integers(len(choices)))]

    out: dict[str, Any] = {}
    for f in problem.factors:
        out |= {f"sd_{f.name}[{c}]": some("sd") for c in f.coefficients}
        out |= {f"cor_{f.name}": some("cor") for b in f.blocks if len(b) > 1}
    return out | ({"sigma": some("sigma")} if problem.has_sigma else {})


def bound_of(problem: Problem, priors: Mapping[str, Any] | None = None) -> Bound:
    """The same problem, bound. `priors` are the hyperpriors, by default `hyper_priors(problem)`."""
    design, beta, pooling = as_design(problem)
    priors = beta | dict(hyper_priors(problem) if priors is None else priors)
    model: Any = SimpleNamespace(pooling="partial")
    return Bound(model, design, scales_of(design), priors, dict.fromkeys(priors, "test"), pooling)


def theta_of(spec: Hyperparameters, hyper: Mapping[str, float]) -> np.ndarray:
    """Coordinates (1, d) of hyperparameters given by label: the inverse of the maps that finetti applies."""
    theta = np.full(spec.d, np.nan)

    def place(at: int, value: float) -> None:
        low, high = spec.coordinates[at].support
        if np.isinf(low):
            theta[at] = (value - spec.coordinates[at].centre) / spec.coordinates[at].unit
        else:
            theta[at] = np.log(value - low) - (0.0 if np.isinf(high) else np.log(high - value))

    for f in spec.factors:
        for c, at in zip(f.coefficients, f.sd_at, strict=True):
            if at >= 0:
                place(at, hyper[f"sd_{f.name}[{c}]"])
        for block, at in zip(f.blocks, f.cor_at, strict=True):
            if not block.size:
                continue
            names = [f.coefficients[m] for m in block.members]
            corr = np.eye(len(names))
            for i in range(len(names)):
                for j in range(i + 1, len(names)):
                    corr[i, j] = corr[j, i] = hyper[f"cor_{f.name}[{names[i]}, {names[j]}]"]
            C = np.linalg.cholesky(corr)
            for i in range(1, len(names)):
                left = 1.0
                for j in range(i):
                    partial = C[i, j] / left
                    theta[at] = np.arctanh(partial)
                    left *= np.sqrt(1.0 - partial**2)
                    at += 1
    if spec.sigma_at >= 0:
        place(spec.sigma_at, hyper["sigma"])
    for label, at, _ in spec.given:
        if at >= 0:
            place(at, hyper[label])
    assert np.all(np.isfinite(theta))
    return theta[None]


def case(
    seed: int, nodes: int = 1, **features: Any
) -> tuple[Problem, list[dict[str, float]], GaussianInner, np.ndarray]:
    """A random problem, `nodes` sets of hyperparameters, the inner step, and the same hyperparameters as theta."""
    rng = np.random.default_rng(seed)
    features.setdefault("n", 30 + seed % 30)  # 28 rows are the least that seven unpooled levels may ask for
    problem, hyper = random_problem(rng, **features)
    hypers = [hyper] + [random_hyper(rng, problem) for _ in range(nodes - 1)]
    inner = GaussianInner.build(bound_of(problem))
    return problem, hypers, inner, np.concatenate([theta_of(inner.hyper, h) for h in hypers])


def every_feature() -> Iterator[dict[str, str]]:
    """Every pair of layout, errors, intercept and pooling appears at least once, in as few cases as a cycle gives."""
    poolings = ("partial", "none", "complete")
    slopes = ("normal", "flat", "fixed", "student_t")
    at = 0
    for layout in LAYOUTS:
        for errors in ERRORS:
            for k, intercept in enumerate(INTERCEPTS):
                yield {
                    "layout": layout,
                    "errors": errors,
                    "intercept": intercept,
                    "pooling": poolings[(k + at) % 3],
                    "slope_prior": slopes[(k // 2 + at) % 4],
                }
            at += 1
