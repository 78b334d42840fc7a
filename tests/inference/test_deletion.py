"""Deletion residuals at a node against the dense mean-shift model, for every layout, error and rank of a level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg

from finetti.inference.conditional import GaussianConditional
from finetti.inference.deletion import deletion
from finetti.inference.gaussian import GaussianInner
from tests.inference.cases import bound_of, case, every_feature, theta_of
from tests.oracle_problems import random_problem
from tests.oracles import OracleFactor, Problem, _assemble

# one factor agrees to 1e-9; several, where sds are tiny and f is extrapolated, to 4e-7
TOL = 1e-6
FEATURES = [f for f in every_feature() if f["layout"] != "none"]


class DenseDeletion:
    """Mean-shift estimates by generalised least squares on n x n matrices."""

    def __init__(self, problem: Problem, hyper: dict[str, float]) -> None:
        r, V, F = _assemble(problem, hyper, float)
        self.chol = scipy.linalg.cholesky(V, lower=True)
        self.y = self.solve(r)
        self.flat = np.linalg.qr(self.solve(F))[0] if F.shape[1] else np.zeros((len(r), 0))

    def solve(self, A: Any) -> Any:
        return scipy.linalg.solve_triangular(self.chol, A, lower=True)

    def level(self, factor: OracleFactor, level: int) -> tuple[Any, Any, float, int]:
        """delta and sd of the coefficients that the level's rows determine, chi2 and rank."""
        Z = np.where((factor.index == level)[:, None], factor.Z, 0.0)
        q, size = Z.shape[1], np.sqrt(np.sum(Z**2, axis=0))
        size = np.where(size > 0, size, 1.0)
        U, s, Wt = np.linalg.svd(Z / size, full_matrices=False)
        rank = int(np.sum(s > 1e-6 * s[0]))
        # Z delta = (U s) xi with delta = E xi; a coefficient is determined if the null space does not move it
        E = Wt[:rank].T / size[:, None]
        known = np.sum(Wt[rank:] ** 2, axis=0) < 1e-12
        D = self.solve(U[:, :rank] * s[:rank])
        most = D.T @ D
        y, D = (A - self.flat @ (self.flat.T @ A) for A in (self.y, D))
        info = D.T @ D
        if np.min(np.real(scipy.linalg.eigvals(info, most))) < 1e-8:  # confounded with a flat direction
            return np.full(q, np.nan), np.full(q, np.nan), np.nan, 0
        xi, cov = np.linalg.solve(info, D.T @ y), E @ np.linalg.inv(info) @ E.T
        delta, sd = np.where(known, E @ xi, np.nan), np.where(known, np.sqrt(np.diag(cov)), np.nan)
        return delta, sd, float(xi @ info @ xi), rank


def compare(problem: Problem, hypers: list[dict[str, float]], inner: GaussianInner, theta: Any, tol: float) -> int:
    """Number of levels compared."""
    checked = 0
    dense = [DenseDeletion(problem, hyper) for hyper in hypers]
    for factor in problem.factors:
        if not factor.varying:
            continue
        found = deletion(GaussianConditional(inner), factor.name, theta)
        for s, exact in enumerate(dense):
            for j in range(len(factor.levels)):
                delta, sd, chi2, rank = exact.level(factor, j)
                assert found.rank[j] == rank
                np.testing.assert_array_equal(np.isnan(found.delta[s, j]), np.isnan(delta))
                np.testing.assert_allclose(found.sd[s, j], sd, rtol=tol)
                np.testing.assert_allclose(found.delta[s, j], delta, rtol=tol, atol=tol * np.nanmax(sd, initial=0.0))
                np.testing.assert_allclose(found.chi2[s, j], chi2, rtol=tol, atol=tol)
                checked += 1
    return checked


@pytest.mark.parametrize("layout", ["one", "nested", "crossed", "mixed"])
def test_every_layout_and_error(layout: str) -> None:
    total = 0
    for seed, features in [(i, f) for i, f in enumerate(FEATURES) if f["layout"] == layout]:
        problem, hypers, inner, theta = case(9100 + seed, nodes=2, **features)
        total += compare(problem, hypers, inner, theta, TOL)
    assert total > 70


@pytest.mark.parametrize("ratio", [1e-8, 1e-6, 1e-4, 1e-2, 1e3])
@pytest.mark.parametrize("layout", ["one", "nested", "crossed", "mixed"])
def test_sds_far_from_sigma(layout: str, ratio: float) -> None:
    """From a parent that hardly varies to one that varies without bounds; all sds, and one of several."""
    for seed in range(3):
        for every in (True, False):
            rng = np.random.default_rng(9300 + seed)
            problem, hyper = random_problem(
                rng, n=45, layout=layout, errors=("sigma", "se_sigma", "se")[seed], pooling="partial",
                intercept="normal", slope_prior="normal", q=1 + seed % 3,
            )  # fmt: skip
            hyper = {
                k: v * ratio if k.startswith("sd_") and (every or k == "sd_a[Intercept]") else v
                for k, v in hyper.items()
            }
            inner = GaussianInner.build(bound_of(problem))
            assert compare(problem, [hyper], inner, theta_of(inner.hyper, hyper), TOL) > 3
