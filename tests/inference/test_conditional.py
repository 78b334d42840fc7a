"""b | theta, y against the dense conditional normal: groups, rows, new rows and draws."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from finetti.data.newdata import NewDesign
from finetti.inference.conditional import GaussianConditional
from finetti.inference.gaussian import GaussianInner
from tests.inference.cases import bound_of, case, every_feature, theta_of
from tests.oracle_problems import random_problem
from tests.oracles import Conditional, OracleFactor, Problem, dense_conditional

FEATURES = list(every_feature())


def population_of(problem: Problem, f: OracleFactor) -> np.ndarray:
    """(q, p): the combination of beta that each coefficient deviates from; columns not identified count zero."""
    out = np.zeros((len(f.coefficients), len(problem.columns)))
    for k in problem.kept():
        x = problem.X[:, k]
        c, *_ = np.linalg.lstsq(f.Z, x)
        if np.abs(f.Z @ c - x).max() < 1e-9 * np.abs(x).max():
            out[:, k] = c
    return out


def whole_coefficients(problem: Problem, f: OracleFactor) -> np.ndarray:
    """Rows that turn the oracle's vector of coefficients into population + deviation, level by level."""
    labels, kept = list(dense_labels(problem)), problem.kept()
    A = population_of(problem, f)
    rows = np.zeros((len(f.levels) * len(f.coefficients), len(labels)))
    for r, label in enumerate(f.labels):
        rows[r, labels.index(label)] = 1.0
        rows[r, : len(kept)] += A[r % len(f.coefficients), kept]
    return rows


def dense_labels(problem: Problem) -> tuple[str, ...]:
    kept = problem.kept()
    return tuple(f"beta[{problem.columns[k]}]" for k in kept) + tuple(x for f in problem.factors for x in f.labels)


def rows_design(problem: Problem, X: np.ndarray, factors: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """(m, coefficients of the oracle) for rows with the given Z and level of every factor; level -1 has no effect."""
    parts = [X[:, problem.kept()]]
    for f, (Z, index) in zip(problem.factors, factors, strict=True):
        D = np.zeros((len(X), len(f.levels), Z.shape[1]))
        known = index >= 0
        D[np.flatnonzero(known), index[known]] = Z[known]
        parts.append(D.reshape(len(X), -1))
    return np.hstack(parts)


def close(got: np.ndarray, expected: np.ndarray, what: object) -> None:
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7 * scale, err_msg=str(what))


def test_moments_of_groups_rows_and_population(root: str) -> None:
    for seed, features in enumerate(FEATURES[1::2]):
        problem, hypers, inner, theta = case(1500 + seed, nodes=2, **features)
        if not dense_labels(problem):  # nothing to condition: y ~ 0
            continue
        conditional = GaussianConditional(inner)
        exact = [dense_conditional(problem, h) for h in hypers]
        check_groups(problem, conditional, theta, exact, features)
        check_rows(problem, conditional, theta, exact, hypers, features)
        check_population(problem, inner, theta, exact, features)


def check_groups(problem: Problem, conditional: GaussianConditional, theta: np.ndarray, exact: list[Conditional],
                 what: object) -> None:  # fmt: skip
    for f in problem.factors:
        (batch,) = conditional.groups(f.name, theta)
        T = whole_coefficients(problem, f)
        q = len(f.coefficients)
        for s, dense in enumerate(exact):
            close(batch.mean[s].ravel(), T @ dense.mean, what)
            cov = T @ dense.cov @ T.T
            for j in range(len(f.levels)):
                at = slice(j * q, (j + 1) * q)
                close(batch.cov[s, j], cov[at, at], what)
            close(batch.deviation[s].ravel(), [dense[x][0] for x in f.labels], what)
            if f.kind != "none":
                kept = problem.kept()
                close(batch.population[s], population_of(problem, f)[:, kept] @ dense.mean[: len(kept)], what)


def check_rows(problem: Problem, conditional: GaussianConditional, theta: np.ndarray, exact: list[Conditional],
               hypers: list[dict[str, float]], what: object) -> None:  # fmt: skip
    (batch,) = conditional.rows(theta)
    W = rows_design(problem, problem.X, [(f.Z, f.index) for f in problem.factors])
    offset = 0.0 if problem.offset is None else problem.offset
    for s, (dense, hyper) in enumerate(zip(exact, hypers, strict=True)):
        close(batch.mean[s], offset + W @ dense.mean, what)
        close(batch.variance[s], np.einsum("ij,jk,ik->i", W, dense.cov, W), what)
        np.testing.assert_allclose(batch.noise[s], problem.error_variance(hyper), rtol=1e-12)


def check_population(
    problem: Problem, inner: GaussianInner, theta: np.ndarray, exact: list[Conditional], what: object
) -> None:
    values, kept = inner.values(theta), problem.kept()
    absent = [k for k in range(len(problem.columns)) if k not in kept]
    for s, dense in enumerate(exact):
        p = len(kept)
        close(values.beta_mean[s, kept], dense.mean[:p], what)
        close(values.beta_var[s][kept], np.diag(dense.cov)[:p], what)
        assert np.all(np.isnan(values.beta_mean[s, absent]))


def test_a_term_that_is_in_every_span_is_found_by_name() -> None:
    """(1 + x1 | a) beside 1 + x1 + x2: population values are beta[Intercept] and beta[x1], whatever x2 is."""
    problem, hypers, inner, theta = case(3, layout="one", q=2, slopes=2, pooling="partial", intercept="normal")
    (batch,) = GaussianConditional(inner).groups("a", theta)
    dense = dense_conditional(problem, hypers[0])
    np.testing.assert_allclose(batch.population[0], [dense["beta[Intercept]"][0], dense["beta[x1]"][0]], rtol=1e-7)


@pytest.mark.parametrize("kind", ["known", "new", "population", "mixture"])
def test_new_rows(kind: str, root: str) -> None:
    """Known levels keep their joint posterior; a new one adds its parent's variance; population leaves it out."""
    for seed, features in enumerate(FEATURES[::3]):
        if features["pooling"] == "none" and kind != "known":
            continue
        problem, hypers, inner, theta = case(2500 + seed, nodes=2, **features)
        rng = np.random.default_rng(seed)
        m = 7
        which = rng.integers(0, len(problem.y), m)
        choices = ["known", "new", "population"]
        kinds = {f.name: kind if kind != "mixture" else str(rng.choice(choices)) for f in problem.factors}
        X = problem.X[which].copy()
        X[:, int(problem.columns[:1] == ("Intercept",)) :] *= rng.choice([1.0, 1.0, 2.0], m)[:, None]
        factors, new_factors = [], []
        for f in problem.factors:
            level = rng.integers(0, len(f.levels), m)
            Z = f.Z[which] + 0.1 * (np.arange(f.Z.shape[1]) > 0)
            at = level if kinds[f.name] == "known" else np.full(m, -1)
            shown = Z if kinds[f.name] != "population" else np.zeros_like(Z)
            factors.append((shown, at))
            new_factors.append((f.name, shown, at.astype(np.int64)))
        offset = rng.normal(size=m)
        se, weights = rng.uniform(0.5, 2.0, m), rng.uniform(0.5, 2.0, m)
        new = NewDesign(X, offset, tuple(new_factors), None if problem.se is None else se,
                        None if problem.weights is None else weights, m)  # fmt: skip
        (batch,) = GaussianConditional(inner).new_rows(theta, new, kinds)
        W = rows_design(problem, X, factors)
        for s, hyper in enumerate(hypers):
            dense = dense_conditional(problem, hyper)
            variance = np.einsum("ij,jk,ik->i", W, dense.cov, W)
            for f, (Z, _) in zip(problem.factors, factors, strict=True):
                if kinds[f.name] == "new" and f.varying:
                    variance += np.einsum("ij,jk,ik->i", Z, f.covariance(hyper), Z)
            close(batch.mean[s], offset + W @ dense.mean, features)
            close(batch.variance[s], variance, features)
            noisy = dataclasses.replace(problem, y=np.zeros(m), se=None if problem.se is None else se,
                                        weights=None if problem.weights is None else weights)  # fmt: skip
            noise = np.broadcast_to(batch.noise, batch.mean.shape)
            np.testing.assert_allclose(noise[s], noisy.error_variance(hyper), rtol=1e-12)


def test_predicting_the_data_themselves_is_the_rows() -> None:
    """The training rows as new rows: two code paths, one answer."""
    problem, _, inner, theta = case(
        77, nodes=3, layout="mixed", pooling="partial", errors="weights", intercept="student_t"
    )
    conditional, kinds = GaussianConditional(inner), dict.fromkeys((f.name for f in problem.factors), "known")
    (rows,) = conditional.rows(theta)
    (again,) = conditional.new_rows(theta, inner.bound.design.own_rows(kinds), kinds)
    np.testing.assert_allclose(again.mean, rows.mean, rtol=1e-9)
    np.testing.assert_allclose(again.variance, rows.variance, rtol=1e-7)


def test_streaming_in_batches_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import finetti.inference.conditional as module

    _, _, inner, theta = case(12, nodes=9, layout="mixed", pooling="partial")
    conditional = GaussianConditional(inner)
    (whole,) = conditional.groups("a", theta)
    (rows,) = conditional.rows(theta)
    monkeypatch.setattr(module, "BATCH_FLOATS", 1.0)
    pieces, row_pieces = list(conditional.groups("a", theta)), list(conditional.rows(theta))
    assert len(pieces) == len(row_pieces) == 9
    np.testing.assert_array_equal(np.concatenate([p.mean for p in pieces]), whole.mean)
    np.testing.assert_array_equal(np.concatenate([p.weight for p in pieces]), whole.weight)
    np.testing.assert_array_equal(np.concatenate([p.variance for p in row_pieces]), rows.variance)


# --------------------------------------------------------------------------------------------------------------- draws
DRAWS = 6000
DRAWN = [
    {"layout": "one", "errors": "sigma", "q": 2},
    {"layout": "nested", "errors": "weights", "q": 2},
    {"layout": "crossed", "errors": "se", "q": 1},
    {"layout": "mixed", "errors": "se_sigma", "q": 2, "intercept": "student_t"},
    {"layout": "mixed", "errors": "sigma", "q": 3, "intercept": "normal_raw"},
    {"layout": "one", "errors": "sigma", "q": 2, "pooling": "none", "slopes": 3},
]


def test_draws_have_the_dense_mean_and_covariance(root: str) -> None:
    """Every mean, variance and covariance of the whitened draws; alarm at random: about 1e-4 in all."""
    z_scores: list[np.ndarray] = []
    for seed, features in enumerate(DRAWN):
        problem, hypers, inner, theta = case(40 + seed, nodes=2, **({"pooling": "partial"} | features))
        names = tuple(f.name for f in problem.factors)
        beta, u = GaussianConditional(inner).draw(theta, np.array([0, DRAWS]), np.random.default_rng(seed), names)
        dense, kept = dense_conditional(problem, hypers[1]), problem.kept()
        x = np.hstack([beta[:, kept], *[u[name].reshape(DRAWS, -1) for name in names]]) - dense.mean
        values, vectors = np.linalg.eigh(dense.cov)
        moving = values > 1e-9 * values.max()
        assert np.abs(x @ vectors[:, ~moving]).max(initial=0.0) < 1e-3 * np.sqrt(values.max())
        z = x @ vectors[:, moving] / np.sqrt(values[moving])
        m = z.shape[1]
        second = z.T @ z / DRAWS
        z_scores.append(z.mean(axis=0) * np.sqrt(DRAWS))
        z_scores.append((np.diag(second) - 1.0) * np.sqrt(DRAWS / 2))
        z_scores.append(second[np.triu_indices(m, 1)] * np.sqrt(DRAWS))
    scores = np.concatenate(z_scores)
    # one more for the skewness of the variances' chi-square
    assert np.abs(scores).max() < norm.isf(0.5e-4 / scores.size) + 0.5
    assert abs(np.mean(scores**2) - 1.0) < 5.0 * np.sqrt(2.0 / scores.size)


def test_draws_are_distributed_over_nodes_as_asked() -> None:
    problem, hypers, inner, theta = case(41, nodes=3, layout="one", pooling="partial", errors="sigma")
    counts = np.array([4000, 0, 2000])
    beta, u = GaussianConditional(inner).draw(theta, counts, np.random.default_rng(0), ("a",))
    assert u["a"].shape[0] == 6000 and beta.shape[0] == 6000
    for part, node in ((slice(0, 4000), 0), (slice(4000, None), 2)):
        x = u["a"][part].reshape(-1, len(problem.factors[0].labels))
        expected = np.array([dense_conditional(problem, hypers[node])[label] for label in problem.factors[0].labels])
        error = (x.mean(axis=0) - expected[:, 0]) / (expected[:, 1] / np.sqrt(len(x)))
        assert np.abs(error).max() < 5.0


# ----------------------------------------------------------------------------------------------- the weight identity
def level_information(
    problem: Problem, f: OracleFactor, hyper: dict[str, float]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Z_j' R^-1 Z_j and the rows of every level."""
    r = problem.error_variance(hyper)
    out = []
    for j in range(len(f.levels)):
        rows = np.flatnonzero(f.index == j)
        Z = f.Z[rows]
        out.append(((Z.T / r[rows]) @ Z, rows))
    return out


@pytest.mark.parametrize("blocks", ["correlated", "independent"])
def test_the_weight_identity_holds_at_every_node(blocks: str, root: str) -> None:
    """estimate = W raw + (I - W) population to 1e-10, raw from the residual of everything else, for every level."""
    checked = singular = 0
    for seed, features in enumerate(FEATURES[2::3]):
        if features["layout"] == "none" or features["pooling"] != "partial":
            continue
        problem, hypers, inner, theta = case(3500 + seed, nodes=3, blocks=blocks, **features)
        conditional = GaussianConditional(inner)
        for f in problem.factors:
            (batch,) = conditional.groups(f.name, theta)
            (rows,) = conditional.rows(theta)
            q = len(f.coefficients)
            for s, hyper in enumerate(hypers):
                Sigma = f.covariance(hyper)
                own = np.einsum("nq,nq->n", f.Z, batch.deviation[s][f.index])
                residual = problem.y - rows.mean[s] + own  # after the conditional means of everything else
                r = problem.error_variance(hyper)
                population = batch.population[s]
                for j, (info, at) in enumerate(level_information(problem, f, hyper)):
                    b = f.Z[at].T @ (residual[at] / r[at])
                    P = np.linalg.inv(Sigma)
                    W = np.linalg.solve(info + P, info)
                    scale = np.abs(batch.mean[s, j]).max() + np.abs(population).max() + 1.0
                    np.testing.assert_allclose(batch.weight[s, j], W, rtol=1e-7, atol=1e-8)
                    W = batch.weight[s, j]
                    if np.linalg.matrix_rank(f.Z[at], tol=1e-6) < q:
                        assert np.all(np.isnan(batch.raw[s, j])) and np.all(np.isnan(batch.raw_se[s, j]))
                        W_raw = np.linalg.solve(info + P, b) + W @ population
                        singular += 1
                    else:
                        raw = population + np.linalg.solve(info, b)
                        condition = np.linalg.cond(info)
                        if condition < 1e4:
                            np.testing.assert_allclose(batch.raw[s, j], raw, rtol=1e-7, atol=1e-8 * scale)
                            se = np.sqrt(np.diag(np.linalg.inv(info)))
                            np.testing.assert_allclose(batch.raw_se[s, j], se, rtol=1e-8)
                        W_raw = W @ batch.raw[s, j]
                        checked += 1
                        bound = 1e-10 * scale * max(1.0, condition * 1e-4)
                    if np.linalg.matrix_rank(f.Z[at], tol=1e-6) < q:
                        bound = 1e-7 * scale
                    gap = W_raw + population - W @ population - batch.mean[s, j]
                    assert np.abs(gap).max() < bound, (features, f.name, j)
    assert checked > 300 and singular > 10


def test_weights_at_standard_deviations_of_zero_and_correlations_of_one() -> None:
    """W stays finite where Sigma has no inverse, and the identity with it."""
    import finetti as fi

    kinds: dict[str, Any] = {
        "layout": "one",
        "q": 2,
        "blocks": "correlated",
        "slopes": 1,
        "intercept": "normal",
        "n": 50,
    }
    problem, hyper = random_problem(np.random.default_rng(6), pooling="partial", errors="sigma", **kinds)
    zero = {
        "sd_a[x1]": fi.fixed(0.0),
        "sd_a[Intercept]": fi.fixed(1.3),
        "cor_a": fi.fixed(0.0),
        "sigma": fi.half_cauchy(2),
    }
    inner = GaussianInner.build(bound_of(problem, zero))
    theta = theta_of(inner.hyper, hyper)
    (batch,) = GaussianConditional(inner).groups("a", theta)
    np.testing.assert_allclose(batch.weight[0, :, 1], 0.0, atol=1e-14)
    np.testing.assert_allclose(batch.deviation[0, :, 1], 0.0, atol=1e-14)
    held = hyper | {"sd_a[x1]": 0.0, "sd_a[Intercept]": 1.3, "cor_a[Intercept, x1]": 0.0}
    dense = dense_conditional(problem, held)
    f = problem.factors[0]
    close(batch.mean[0].ravel(), whole_coefficients(problem, f) @ dense.mean, "sd of zero")
    whole = ~np.isnan(batch.raw[0]).any(axis=1)
    gap = np.einsum("jab,jb->ja", batch.weight[0], batch.raw[0] - batch.population[0]) - batch.deviation[0]
    assert np.abs(gap[whole]).max() < 1e-9
