"""Well-conditioned coordinates for the coefficients, and the way back to the user's.

Population: with an intercept the other columns are centred, so that the prior named
`Intercept` is on the first coefficient; then X = Q R, and gamma = R beta - shift with the
least-squares fit as shift. The solver sees orthonormal columns and residuals as response,
whatever the offsets and units of the data: cross-products of raw columns lose digits.

Groups: Z = Z' T, u' = T u, the columns of Z' centred (where the term has an intercept) and
scaled. The parent's factor becomes T D C; determinants are unchanged for penalised terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular

from finetti.errors import ModelError
from finetti.inference.hyperparameters import is_gaussian
from finetti.model.priors import Normal, Prior

__all__ = ["PopulationBasis", "free_columns", "group_basis", "population_basis", "unidentified_columns"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# relative size below which a column is taken for a combination of others
RANK_TOLERANCE = 1e-9


@dataclass(frozen=True)
class PopulationBasis:
    """beta = base + T gamma + B (given - given_shift), for all columns of the user's X.

    integrated, given, absent : column positions: integrated out; given at each node; not identified
    X : (n, p + F) Q of the integrated columns, then the given columns in the centred basis
    y : (n,) response minus offset minus its least-squares fit on all columns
    given_shift : (F,) the given columns' share of that fit; the solver sees given - given_shift
    prior : (p + 1, p + 1) upper triangle of [P, Pm; m'Pm] in gamma
    log_prior : log|P| of the proper directions in beta, minus 2 log|det R|
    n_flat : flat directions
    """

    columns: tuple[str, ...]
    integrated: tuple[int, ...]
    given: tuple[int, ...]
    absent: tuple[int, ...]
    X: Floats
    y: Floats
    prior: Floats
    log_prior: float
    n_flat: int
    means: Floats  # (p_all,) subtracted from the columns
    Rinv: Floats  # (p, p)
    shift: Floats  # (p,) least-squares gamma, part of `base`
    given_shift: Floats  # (F,)
    base: Floats  # (p_all,)
    T: Floats  # (p_all, p)
    B: Floats  # (p_all, F)

    def given_units(self) -> tuple[tuple[float, float], ...]:
        """(centre, unit) of each given coefficient: its least-squares value and about its standard error."""
        p, n = len(self.integrated), self.y.size
        spread = float(np.sqrt(np.sum(self.y**2) / max(n - p, 1)))
        sizes = np.sqrt(np.sum(self.X[:, p:] ** 2, axis=0))
        return tuple(
            (float(centre), spread / float(size) if spread > 0.0 and size > 0.0 else 1.0)
            for centre, size in zip(self.given_shift, sizes, strict=True)
        )

    def rows(self, X: Floats) -> tuple[Floats, Floats]:
        """Solver columns (n, p + F) of new rows of X, and the part of their predictor that is constant."""
        centred = X - self.means
        Q = centred[:, list(self.integrated)] @ self.Rinv
        given = centred[:, list(self.given)]
        return np.ascontiguousarray(np.concatenate([Q, given], axis=1)), Q @ self.shift + given @ self.given_shift

    def beta_mean(self, gamma: Floats, given: Floats) -> Floats:
        """Coefficients (S, p_all) of the user's columns; NaN where not identified.

        gamma (S, p) and given (S, F) as the solver has them, relative to the least-squares fit.
        """
        out = self.base + gamma @ self.T.T + given @ self.B.T
        out[:, list(self.absent)] = np.nan
        return out


def prior_key(column: str, priors: Mapping[str, Prior]) -> str:
    """Key of a column's prior: the intercept's is `Intercept` unless given for the raw coefficient."""
    return "Intercept" if column == "Intercept" and "Intercept" in priors else f"beta[{column}]"


def population_basis(
    X: Floats,
    y: Floats,
    columns: tuple[str, ...],
    intercept: bool,
    priors: Mapping[str, Prior],
    absent: tuple[int, ...] = (),
    centres: Mapping[str, float] | None = None,
) -> PopulationBasis:
    """Choose the basis of the population coefficients; see `PopulationBasis`.

    Parameters
    ----------
    X : (n, p_all), y : (n,)
        Raw columns, and the response minus the offset.
    absent : positions of columns that an unpooled term makes unidentifiable
    centres : mapping of column to mean, optional
        Where the prior named `Intercept` is, if not at the means of these rows (a refit to a part of them).
    """
    p_all = len(columns)
    present = [k for k in range(p_all) if k not in absent]
    keys = {k: prior_key(columns[k], priors) for k in present}
    integrated = [k for k in present if is_gaussian(priors[keys[k]])]
    given = [k for k in present if k not in integrated]
    has_one = intercept and 0 in present
    # the raw intercept is a plain coordinate only where no other coordinate is moved by centring
    raw_intercept = has_one and keys[0] != "Intercept"
    centre = has_one and not (raw_intercept and (given or 0 not in integrated))
    means = np.zeros(p_all)
    if centre:
        means[present] = X[:, present].mean(axis=0)
        for k in present if centres else ():
            means[k] = centres[columns[k]]  # type: ignore[index]
        means[0] = 0.0
    basis = X - means
    Xi = basis[:, integrated]
    p = len(integrated)
    scale = np.sqrt(np.mean(Xi**2, axis=0)) if p else np.zeros(0)
    scale[scale == 0.0] = 1.0
    Q, R = np.linalg.qr(Xi / scale)
    R = R * scale
    Xg = basis[:, given]
    alone = Xg - Q @ (Q.T @ Xg)
    given_shift = np.asarray(np.linalg.lstsq(alone, y, rcond=None)[0], dtype=np.float64)
    y = y - Xg @ given_shift
    shift = Q.T @ y
    residual = y - Q @ shift
    again = Q.T @ residual  # a second projection restores orthogonality lost to a large offset
    shift, residual = shift + again, residual - Q @ again

    # back to the user's columns: undo the centring in the intercept
    uncentre = np.eye(p_all)
    if centre:
        uncentre[0] -= means
        uncentre[0, 0] = 1.0
    Rinv = solve_triangular(R, np.eye(p)) if p else np.zeros((0, 0))
    T = uncentre[:, integrated] @ Rinv
    B = uncentre[:, given]
    base = T @ shift + B @ given_shift

    rows, target, log_prior, n_flat = [], [], 0.0, 0
    for j, k in enumerate(integrated):
        prior = priors[keys[k]]
        if not isinstance(prior, Normal):
            n_flat += 1
            continue
        # row of beta (raw intercept) or of the centred basis, in terms of gamma
        row = T[0] if (k == 0 and raw_intercept) else Rinv[j]
        rows.append(row / prior.sd)
        target.append((prior.mean - row @ shift) / prior.sd)
        log_prior -= 2.0 * np.log(prior.sd)
    log_prior -= 2.0 * float(np.sum(np.log(np.abs(np.diag(R))))) if p else 0.0
    A, m = np.array(rows).reshape(len(rows), p), np.array(target)
    prior_matrix = np.zeros((p + 1, p + 1))
    prior_matrix[:p, :p] = A.T @ A
    prior_matrix[:p, p] = A.T @ m
    prior_matrix[p, p] = m @ m
    return PopulationBasis(
        columns, tuple(integrated), tuple(given), absent,
        np.ascontiguousarray(np.concatenate([Q, Xg], axis=1)),
        residual, prior_matrix, log_prior, n_flat, means, Rinv, shift, given_shift, base, T, B,
    )  # fmt: skip


def group_basis(Z: Floats, coefficients: tuple[str, ...], centre: bool) -> tuple[Floats, Floats]:
    """Columns Z' and T with Z = Z' T (u' = T u): centred on the intercept if there is one, and scaled."""
    q = Z.shape[1]
    if q == 1 and coefficients[0] == "Intercept":
        return Z, np.eye(1)
    one = coefficients.index("Intercept") if "Intercept" in coefficients else -1
    out, T = Z.copy(), np.eye(q)
    for k in range(q):
        if k == one:
            continue
        if centre and one >= 0:
            mean = out[:, k].mean()
            out[:, k] -= mean
            T[one, k] = mean
        size = float(np.sqrt(np.mean(out[:, k] ** 2)))
        if size > 0.0:
            out[:, k] /= size
            T[k, k] = size
    return np.ascontiguousarray(out), T


def free_columns(index: npt.NDArray[np.int64], n_levels: int, Z: Floats) -> Bools:
    """Which coefficients (J, q) an unpooled term identifies: not a combination of earlier ones in that level."""
    J, q = n_levels, Z.shape[1]
    cross = np.zeros((J, q, q))
    for a in range(q):
        for b in range(a, q):
            cross[:, a, b] = cross[:, b, a] = np.bincount(index, Z[:, a] * Z[:, b], minlength=J)
    free = np.zeros((J, q), dtype=bool)
    left = cross.copy()
    for a in range(q):  # Gaussian elimination per level, skipping columns with nothing left
        pivot = left[:, a, a]
        free[:, a] = pivot > RANK_TOLERANCE * np.maximum(cross[:, a, a], 1e-300)
        safe = np.where(free[:, a], pivot, 1.0)
        factor = np.where(free[:, a, None], left[:, :, a], 0.0) / safe[:, None]
        left = left - factor[:, :, None] * left[:, None, a, :]
    return free


def unidentified_columns(
    X: Floats, terms: list[tuple[str, npt.NDArray[np.int64], int, Floats, Bools]], columns: tuple[str, ...]
) -> tuple[int, ...]:
    """Population columns that lie in the span of an unpooled term (and of earlier columns).

    Raises
    ------
    ModelError
        If two unpooled terms share a direction, so that neither is identified.
    """
    if not terms:
        return ()
    projected = X.copy()
    for _ in range(2 if len(terms) == 1 else 400):  # one term: exact; several: alternating projections
        before = projected.copy()
        for _, index, n_levels, Z, free in terms:
            projected = project_out(projected, index, n_levels, Z, free)
        if np.abs(before - projected).max(initial=0.0) <= 1e-13 * np.abs(X).max(initial=1.0):
            break
    absent: list[int] = []
    kept = np.zeros((X.shape[0], 0))
    for k in range(len(columns)):
        column = projected[:, k]
        if kept.shape[1]:
            column = column - kept @ (kept.T @ column)
        if np.linalg.norm(column) <= 1e-7 * max(float(np.linalg.norm(X[:, k])), 1e-300):
            absent.append(k)
        else:
            kept = np.concatenate([kept, (column / np.linalg.norm(column))[:, None]], axis=1)
    for i, (name, index, n_levels, Z, free) in enumerate(terms):
        for other, _, _, Z2, _ in terms[i + 1 :]:
            # a column of one term summed over its levels lies in the span of the other
            for k in range(Z2.shape[1]):
                rest = project_out(Z2[:, [k]], index, n_levels, Z, free)
                if np.linalg.norm(rest) <= 1e-7 * max(float(np.linalg.norm(Z2[:, k])), 1e-300):
                    raise ModelError(
                        f"the unpooled terms {name!r} and {other!r} overlap: without pooling, their coefficients "
                        "cannot be told apart. Pool at least one of them (pooling={...: 'partial'})"
                    )
    return tuple(absent)


def project_out(A: Floats, index: npt.NDArray[np.int64], n_levels: int, Z: Floats, free: Bools) -> Floats:
    """Residuals of the columns of A after least squares on Z within every level."""
    J, q = n_levels, Z.shape[1]
    G = np.zeros((J, q, q))
    c = np.zeros((J, q, A.shape[1]))
    for a in range(q):
        for b in range(q):
            both = (free[:, a] & free[:, b]).astype(float)
            G[:, a, b] = np.bincount(index, Z[:, a] * Z[:, b], minlength=J) * both
        for b in range(A.shape[1]):
            c[:, a, b] = np.bincount(index, Z[:, a] * A[:, b], minlength=J) * free[:, a]
        G[:, a, a] += ~free[:, a]
    coef = np.linalg.solve(G, c)
    return A - np.einsum("nq,nqk->nk", Z, coef[index])
