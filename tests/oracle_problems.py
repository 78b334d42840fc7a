"""Random Gaussian multilevel problems with every feature, for comparing a fast computation with `tests.oracles`.

`random_problem(rng)` chooses everything at random; any feature can be fixed by name. `as_design` hands the same
arrays to finetti, so that both sides see the identical problem.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tests.oracles import Dist, OracleFactor, Problem, dist

LAYOUTS = ("none", "one", "nested", "crossed", "mixed")
ERRORS = ("sigma", "weights", "se", "se_sigma")
INTERCEPTS = ("normal", "normal_raw", "flat", "fixed", "student_t", "absent")
POOLINGS = ("partial", "none", "complete")


def _index(rng: np.random.Generator, n: int, levels: int, at_least: int) -> np.ndarray:
    """Very unbalanced levels, each with `at_least` rows; with at_least = 1, the last level has exactly one row."""
    guaranteed = np.repeat(np.arange(levels), at_least)
    usable = levels if at_least > 1 or levels == 1 else levels - 1
    rest = rng.choice(usable, size=n - len(guaranteed), p=rng.dirichlet(np.full(usable, 1.5)))
    return rng.permutation(np.concatenate([guaranteed, rest])).astype(np.int64)


def _blocks(rng: np.random.Generator, q: int, blocks: str | None) -> tuple[tuple[int, ...], ...]:
    """`correlated`: one block; `independent`: each alone; `split`: the first alone, the others together."""
    kind = blocks or rng.choice(["correlated", "independent", "split"])
    if kind == "correlated":
        return (tuple(range(q)),)
    if kind == "independent" or q < 3:
        return tuple((i,) for i in range(q))
    return ((0,), tuple(range(1, q)))


def random_problem(
    rng: np.random.Generator,
    *,
    n: int | None = None,
    layout: str | None = None,
    q: int | None = None,
    blocks: str | None = None,
    errors: str | None = None,
    offset: bool | None = None,
    slopes: int | None = None,
    intercept: str | None = None,
    slope_prior: str | None = None,
    pooling: str | None = None,
    levels: int | None = None,
) -> tuple[Problem, dict[str, float]]:
    """A random problem and random hyperparameters for it; every feature left at None is random.

    Parameters
    ----------
    rng : numpy Generator
    n : number of rows (default 25-60).
    layout : grouping factors: ``none``, ``one`` (a), ``nested`` (a, a:b), ``crossed`` (a, c) or ``mixed`` (a, a:b, c).
    q : coefficients per level of the first factor, 1-3 (the other factors have one or two).
    blocks : ``correlated``, ``independent`` or ``split`` (one alone, two correlated; needs q = 3).
    errors : ``sigma``, ``weights``, ``se`` (known, no sigma) or ``se_sigma`` (s^2 + sigma^2).
    offset : whether there is an offset.
    slopes : population columns besides the intercept, 0-3; the second one is constant within levels of a.
    intercept : ``normal`` (prior on the predictor at the column means), ``normal_raw`` (on the coefficient), ``flat``,
        ``fixed``, ``student_t`` (conditioned on: its value is in hyper), ``absent`` (no such column).
    slope_prior : ``normal``, ``flat``, ``fixed`` or ``student_t`` for all slopes; default each its own.
    pooling : of the first factor: ``partial``, ``none`` (q <= 2) or ``complete``. The others are partial.
    levels : levels of the first factor (default 3-7).
    """
    layout = layout or str(rng.choice(LAYOUTS))
    pooling = pooling or str(rng.choice(POOLINGS, p=[0.6, 0.2, 0.2]))
    errors = errors or str(rng.choice(ERRORS))
    intercept = intercept or str(rng.choice(INTERCEPTS))
    n = int(rng.integers(25, 61)) if n is None else n
    J = int(rng.integers(3, 8)) if levels is None else levels
    q = int(rng.integers(1, 4 if pooling != "none" else 3)) if q is None else q
    slopes = int(rng.integers(0, 4)) if slopes is None else slopes

    a = _index(rng, n, J, at_least=q + 2 if pooling == "none" else 1)
    raw = rng.normal(size=(n, 3)) * [1.0, 5.0, 0.3] + [0.5, 10.0, 0.0]
    raw[:, 1] = raw[rng.permutation(n)[:J], 1][a]  # a covariate of the level
    names = ("x1", "x2", "x3")[:slopes]
    with_intercept = intercept != "absent"
    X = np.hstack([np.ones((n, int(with_intercept))), raw[:, :slopes]])
    columns = (("Intercept",) if with_intercept else ()) + names

    def prior(kind: str, scale: float) -> Dist:
        value = scale * float(rng.normal())
        return {
            "normal": Dist("normal", (value, scale)),
            "flat": Dist("flat"),
            "fixed": Dist("fixed", (value,)),
            "student_t": Dist("student_t", (4.0, value, scale)),
        }[kind]

    beta = [prior(intercept.removesuffix("_raw"), 3.0)] if with_intercept else []
    beta += [prior(slope_prior or str(rng.choice(["normal", "flat", "fixed", "student_t"])), 1.0) for _ in names]

    def factor(name: str, levels: tuple[str, ...], index: np.ndarray, q: int, first: bool) -> OracleFactor:
        # the first column of Z is the constant or, now and then, a covariate alone (0 + x | g)
        varying = raw[:, [0, 2]] if pooling == "none" else np.column_stack([raw[:, 0], raw[:, 2] + 0.3 * raw[:, 0]])
        Z = np.column_stack([np.ones(n), varying])[:, :q]
        coefficients = ("Intercept", "x1", "z")[:q]
        if q == 1 and not first and rng.random() < 0.3:
            Z, coefficients = raw[:, [2]].copy(), ("x3",)
        kind = pooling if first else "partial"
        how = _blocks(rng, q, blocks if first else None)
        return OracleFactor(name, levels, index, coefficients, np.ascontiguousarray(Z), how, kind)

    factors = []
    a_levels = tuple(f"A{j + 1}" for j in range(J))
    if layout != "none":
        factors.append(factor("a", a_levels, a, q, True))
    if layout in ("nested", "mixed"):
        pairs, index = np.unique(np.column_stack([a, rng.integers(0, 3, n)]), axis=0, return_inverse=True)
        inner = tuple(f"A{i + 1}:b{j + 1}" for i, j in pairs)
        factors.append(factor("a:b", inner, index.ravel().astype(np.int64), int(rng.integers(1, 3)), False))
    if layout in ("crossed", "mixed"):
        K = int(rng.integers(2, 6))
        crossed = _index(rng, n, K, at_least=1)
        factors.append(factor("c", tuple(f"C{j + 1}" for j in range(K)), crossed, int(rng.integers(1, 3)), False))

    problem = Problem(
        y=rng.normal(size=n) * 2.0 + 4.0 + X @ rng.normal(size=X.shape[1]),
        X=np.ascontiguousarray(X),
        columns=columns,
        beta=tuple(beta),
        factors=tuple(factors),
        offset=rng.normal(size=n) * 3.0 if (rng.random() < 0.5 if offset is None else offset) else None,
        se=rng.uniform(0.3, 2.0, size=n) if errors in ("se", "se_sigma") else None,
        se_sigma=errors == "se_sigma",
        weights=rng.uniform(0.2, 5.0, size=n) if errors == "weights" else None,
        centred=with_intercept and intercept != "normal_raw",
    )
    return problem, random_hyper(rng, problem)


def random_hyper(rng: np.random.Generator, problem: Problem) -> dict[str, float]:
    """Random hyperparameters: sds over two orders of magnitude, correlation matrices from Gaussian factors."""
    hyper: dict[str, float] = {}
    for f in problem.factors:
        if f.varying:
            for c in f.coefficients:
                hyper[f"sd_{f.name}[{c}]"] = float(np.exp(rng.normal() * 1.2))
            for block in f.blocks:
                root = rng.normal(size=(len(block), len(block) + 1))
                cov = root @ root.T
                cor = cov / np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
                for i, row in enumerate(block):
                    for j in range(i + 1, len(block)):
                        hyper[f.cor_label(row, block[j])] = float(cor[i, j])
    for label in problem.hyper_labels():
        if label == "sigma":
            hyper[label] = float(np.exp(rng.normal() * 0.7))
        elif label not in hyper:
            hyper[label] = float(rng.normal() * 2.0)
    assert set(hyper) == set(problem.hyper_labels())
    return hyper


def as_prior(prior: Dist | str) -> Any:
    """The same prior as an object of finetti."""
    import finetti

    prior = dist(prior)
    return getattr(finetti, prior.name)(*prior.args)


def as_design(problem: Problem) -> tuple[Any, dict[str, Any], dict[str, str]]:
    """The same problem for finetti: its Design, the priors of the coefficients (as in `Bound.priors`), the pooling."""
    from finetti.data.design import Design, Factor

    n = len(problem.y)
    fields = {
        "y": problem.y,
        "offset": np.zeros(n) if problem.offset is None else problem.offset,
        "X": problem.X,
        "columns": problem.columns,
        "intercept": problem.columns[:1] == ("Intercept",),
        "factors": tuple(
            Factor(name=f.name, levels=f.levels, index=f.index, coefficients=f.coefficients, Z=f.Z, blocks=f.blocks)
            for f in problem.factors
        ),
        "se": problem.se,
        "se_sigma": problem.se_sigma,
        "weights": problem.weights,
        "n_dropped": 0,
        "rows": np.arange(n),
    }
    # whatever else Design carries (how to replay it on new data) has no part in the likelihood
    extra = [f for f in dataclasses.fields(Design) if f.init and f.name not in fields]
    missing = {
        f.name: () if f.name == "warnings" else None
        for f in extra
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    known = {f.name for f in dataclasses.fields(Design)}
    design = Design(**{k: v for k, v in fields.items() if k in known}, **missing)
    priors = {key: as_prior(d) for key, d in zip(problem.beta_keys, problem.beta, strict=True)}
    return design, priors, {f.name: f.kind for f in problem.factors}
