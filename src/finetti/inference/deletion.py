"""What a group's own rows say against what all other groups predict for it, at hyperparameter nodes.

A shift delta_j of the coefficients of level j, flat and beside its deviation u_j, is the mean-shift model of outliers.
With Q the inverse of the marginal covariance of y (population and all deviations integrated out), R the covariance of
the errors and u_j | theta, y ~ N(m_j, C_j),

    f_j = Z_j'Q Z_j,  h_j = Z_j'Q y:     delta_j = f_j^-1 h_j,   Var(delta_j) = f_j^-1,   h_j'f_j^-1 h_j ~ chi2_q,

delta_j is the level's own coefficient minus its prediction from the others, and f_j^-1 counts the parent covariance
Sigma, what the others leave unsure of the population, and the sampling error of the level's own rows. All of it follows
from one solution for all data (mixed-model deletion diagnostics: Haslett and Hayes 1998, J. R. Stat. Soc. B 60,
201-215; Haslett and Haslett 2007, Int. Stat. Rev. 75, 1-14).

One factor. With M = Z_j'R^-1 Z_j, N = Z_j'R^-1 X, V the covariance of the population coefficients given y, and
r = Z_j'R^-1 (y - X b),

    f = P'^-1 K P^-1,   h = P'^-1 r,   P = I + Sigma M,   K = M + M Sigma M - N V N',

in which nothing cancels, whether a standard deviation is zero or beyond all bounds.

Several factors. f = Sigma^-1 - Sigma^-1 C Sigma^-1 and h = Sigma^-1 m serve while Sigma is not small beside M^-1;
where it is, f is smooth in Sigma, and what it is comes by extrapolation from Sigma + t U, the level's own share t U
taken off again exactly: f -> f (I - t U f)^-1; h is Z_j'R^-1 e of the residuals e, in which nothing cancels there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from finetti.inference.basis import free_columns
from finetti.inference.conditional import GaussianConditional, _LevelSums
from finetti.inference.left_out import exact_conditional
from finetti.linalg.blas import single_threaded
from finetti.linalg.system import Points

__all__ = ["Deletion", "deletion"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# parent variance over sampling variance, as powers of ten lost in f: beyond this it is extrapolated
MOST_LOST = 1e7
# steps of the extrapolation in units of the typical sampling variance, and the coefficients of three points at 0
STEP, AT_ZERO = 1e-4, (3.0, -3.0, 1.0)
# share of a level's information that must be left by the others' uncertainty, to be told from rounding
LEAST_LEFT = 1e-8
# size of a coefficient's part outside what the level's rows determine, relative to the coefficient's own
INSIDE = 1e-7


@dataclass(frozen=True)
class Deletion:
    """Every level of a factor at S nodes: its own coefficients minus what the other groups predict.

    delta, sd : (S, J, q) difference and predictive standard deviation, in the user's units; NaN where a level's own
        rows do not determine the coefficient, or where the others do not predict it
    chi2 : (S, J) squared distance of the whole vector, chi-squared with `rank` degrees of freedom
    rank : (J,) directions that the level's own rows determine
    """

    delta: Floats
    sd: Floats
    chi2: Floats
    rank: npt.NDArray[np.int64]


def deletion(conditional: Any, name: str, theta: Floats) -> Deletion:
    """Return the deletion residuals of a factor's levels at the nodes theta (S, d).

    Parameters
    ----------
    conditional : GaussianConditional or SampledConditional
    name : str
        The grouping factor; its pooling must be partial or empirical.
    theta : (S, d)
        In the coordinates of `conditional.inner.hyper`.
    """
    exact = exact_conditional(conditional)
    inner = exact.inner
    f = [spec.name for spec in inner.hyper.factors].index(name)
    g = inner.groupings[f]
    S, J, q = theta.shape[0], g.n_levels, g.Z.shape[1]
    span = _Span.of(exact, f)
    delta, sd, chi2 = np.empty((S, J, q)), np.empty((S, J, q)), np.empty((S, J))
    points = inner.points(theta)
    one = len(inner.groupings) == 1 and inner.noise is None
    with np.errstate(all="ignore"), single_threaded():
        few = np.unique(np.linspace(0, S - 1, min(3, S)).round().astype(np.int64))
        left = span.left(_one_factor(exact, points, few) if one else _several(exact, f, points, few))
        for part in exact._batches(inner.system, S, inner.system.y.size + 6 * J * q * q):
            at = np.arange(S)[part]
            form = _one_factor(exact, points, at) if one else _several(exact, f, points, at)
            delta[part], sd[part], chi2[part] = span.finish(form)
    known = left > LEAST_LEFT
    return Deletion(
        np.where(known[:, None], delta, np.nan), np.where(known[:, None], sd, np.nan),
        np.where(known, chi2, np.nan), np.where(known, span.rank, 0),
    )  # fmt: skip


@dataclass(frozen=True)
class _Form:
    """delta = P K^-1 r with variance P K^-1 P', chi2 = r'K^-1 r; K is at most `most`, reached if all else were known.

    r (S, J, q), K, P, most (S, J, q, q) in the solver's coordinates.
    """

    K: Floats
    r: Floats
    P: Floats
    most: Floats


# --- one factor ----------------------------------------------------------------------------------


def _one_factor(exact: GaussianConditional, points: Points, at: npt.NDArray[np.int64]) -> _Form:
    inner = exact.inner
    system, basis, g = inner.system, inner.basis, inner.groupings[0]
    points = _take(points, at)
    S, J, q, p = len(points), g.n_levels, g.Z.shape[1], system.p
    ev = system.evaluate(points)
    # Cov = sigma2 (U'U)^-1, everything relative to sigma2 until the end
    half = np.linalg.inv(np.where(np.isfinite(ev.quadratic)[:, None, None], ev.x_chol, np.nan)) if p else ev.x_chol
    V = half @ np.swapaxes(half, 1, 2)
    w = 1.0 / (exact._se2[None] + points.row_s2[:, None]) if system.se2.size else exact._weights[None]
    sums = _LevelSums(g)
    M = sums.matrix(w)
    given = points.fixed @ exact._given.T
    if w.shape[0] == 1:  # sums of the columns once, and combinations of them at every node
        columns = np.concatenate([basis.y[None], basis.X.T])
        totals = np.moveaxis(sums.vector(w * columns), 0, 2)  # (J, q, 1 + p + F)
        N = totals[None, :, :, 1 : 1 + p]
        r = totals[None, :, :, 0] - np.einsum("jap,sp->sja", totals[:, :, 1:], np.hstack([ev.x_mean, points.fixed]))
    else:
        fit = ev.x_mean @ basis.X[:, :p].T + given
        r = sums.vector(w * (basis.y - fit))
        N = np.stack([sums.vector(w * basis.X[:, k]) for k in range(p)], axis=3) if p else np.zeros((S, J, q, 0))
    L = points.lam.reshape(S, 1, q, q)
    Sigma = L @ np.swapaxes(L, 2, 3)
    MSigma = M @ Sigma
    most = M + MSigma @ M
    K = most - N @ V[:, None] @ np.swapaxes(N, 2, 3)
    s2 = points.sigma2[:, None, None]
    # in absolute units K / sigma2, r / sigma2, Sigma M unchanged
    P = np.eye(q) + np.swapaxes(MSigma, 2, 3)
    return _Form(K / s2[..., None], r / s2, P, most / s2[..., None])


# --- several factors -------------------------------------------------------------------------------


def _several(exact: GaussianConditional, f: int, points: Points, at: npt.NDArray[np.int64]) -> _Form:
    inner, g = exact.inner, exact.inner.groupings[f]
    points = _take(points, at)
    S, J, q = len(points), g.n_levels, g.Z.shape[1]
    lo = sum(s.q**2 for s in inner.hyper.factors[:f])
    L = points.lam[:, lo : lo + q * q].reshape(S, q, q)
    sums = _LevelSums(g)
    M = np.broadcast_to(sums.matrix(exact._precisions(points)) * points.sigma2[:, None, None, None], (S, J, q, q))
    Sigma = L @ np.swapaxes(L, 1, 2)
    typical = np.median(np.diagonal(M, axis1=2, axis2=3), axis=1)  # (S, q)
    whitened = np.sqrt(typical)[:, :, None] * Sigma * np.sqrt(typical)[:, None, :]
    ratio = np.linalg.eigvalsh(whitened)
    low, high = np.maximum(ratio[:, 0], 1e-300), ratio[:, -1]
    small = np.flatnonzero(high / low / np.minimum(low, 1.0) > MOST_LOST)
    K, r = np.empty((S, J, q, q)), np.empty((S, J, q))
    plain = np.setdiff1d(np.arange(S), small)
    if plain.size:
        mean, cov = _moments(exact, f, _take(points, plain))
        Li = np.linalg.inv(L[plain])[:, None]
        K[plain] = np.swapaxes(Li, 2, 3) @ (np.eye(q) - Li @ cov @ np.swapaxes(Li, 2, 3)) @ Li
        r[plain] = (np.swapaxes(Li, 2, 3) @ (Li @ mean[..., None]))[..., 0]
    if small.size:
        K[small], r[small] = _extrapolated(exact, f, _take(points, small), Sigma[small], typical[small], lo, sums)
    # (M^-1 + Sigma)^-1 without the inverse of M
    most = np.linalg.solve(np.eye(q) + M @ Sigma[:, None], M)
    s2 = points.sigma2[:, None, None]
    return _Form(K / s2[..., None], r / s2, np.broadcast_to(np.eye(q), K.shape), most / s2[..., None])


def _moments(exact: GaussianConditional, f: int, points: Points) -> tuple[Floats, Floats]:
    """Means (S, J, q) and covariances (S, J, q, q), relative to sigma2, of the deviations in solver coordinates."""
    mean, cov, _ = exact._raw_blocks(f, exact.inner.system.condition(points), points)
    return mean, cov / points.sigma2[:, None, None, None]


def _extrapolated(
    exact: GaussianConditional, f: int, points: Points, Sigma: Floats, typical: Floats, lo: int, sums: _LevelSums
) -> tuple[Floats, Floats]:
    """f and h, relative to sigma2, where Sigma is too small to be divided by."""
    system, q = exact.inner.system, Sigma.shape[-1]
    c = system.condition(points, rows=True)
    w = exact._precisions(points) * points.sigma2[:, None]
    r = sums.vector(w * (exact.inner.basis.y - c.fit - points.fixed @ exact._given.T))
    U = np.zeros_like(Sigma)
    U[:, np.arange(q), np.arange(q)] = STEP / typical
    total = np.zeros((*r.shape, q))
    for i, coefficient in enumerate(AT_ZERO):
        tU = (i + 1.0) * U
        L = np.linalg.cholesky(Sigma + tU)
        lam = points.lam.copy()
        lam[:, lo : lo + q * q] = L.reshape(-1, q * q)
        _, cov = _moments(exact, f, replace(points, lam=lam))
        Li = np.linalg.inv(L)[:, None]
        K = np.swapaxes(Li, 2, 3) @ (np.eye(q) - Li @ cov @ np.swapaxes(Li, 2, 3)) @ Li
        total += coefficient * np.linalg.solve(np.eye(q) - K @ tU[:, None], K)
    return 0.5 * (total + np.swapaxes(total, 2, 3)), r


def _take(points: Points, at: npt.NDArray[np.int64]) -> Points:
    return Points(points.lam[at], points.sigma2[at], points.row_s2[at], points.fixed[at])


# --- what a level's rows determine ------------------------------------------------------------------


@dataclass(frozen=True)
class _Span:
    """Directions of the coefficients that each level's own rows determine.

    whole : (J,) all of them; rank : (J,)
    E : (J', q, q) orthonormal directions of the other levels, kept : (J', q) which of them are determined
    known : (J', q) the user's coefficients that lie in these
    Ti : (q, q) from the solver's coordinates to the user's
    """

    whole: Bools
    rank: npt.NDArray[np.int64]
    E: Floats
    kept: Bools
    known: Bools
    Ti: Floats

    @classmethod
    def of(cls, exact: GaussianConditional, f: int) -> _Span:
        g, T = exact.inner.groupings[f], exact.inner.transforms[f]
        Ti = np.asarray(np.linalg.inv(T), dtype=np.float64)
        free = free_columns(g.index, g.n_levels, g.Z)
        rank = free.sum(axis=1).astype(np.int64)
        whole = rank == g.Z.shape[1]
        part = np.flatnonzero(~whole)
        q = g.Z.shape[1]
        cross = _LevelSums(g).matrix(np.ones((1, g.index.size)))[0, part]
        _, E = np.linalg.eigh(cross)  # ascending: the last `rank` directions are determined
        kept = np.arange(q)[None] >= q - rank[part][:, None]
        beyond = np.einsum("ka,jab->jkb", Ti, E) * ~kept[:, None]  # (J', q, q) of each coefficient, outside
        size = np.sqrt(np.sum(Ti**2, axis=1))
        known = np.sqrt(np.sum(beyond**2, axis=2)) <= INSIDE * size
        return cls(whole, rank, E, kept, known, Ti)

    def finish(self, form: _Form) -> tuple[Floats, Floats, Floats]:
        """Return delta, sd (S, J, q) in the user's coordinates and chi2 (S, J)."""
        S, J, q = form.r.shape
        delta, sd, chi2 = np.empty((S, J, q)), np.empty((S, J, q)), np.empty((S, J))
        w = self.whole
        if w.any():
            Ki, Kr = _solved(form.K[:, w], form.r[:, w])
            TP = self.Ti @ form.P[:, w]
            delta[:, w] = (TP @ Kr[..., None])[..., 0]
            sd[:, w] = np.sqrt(np.einsum("sjab,sjbc,sjac->sja", TP, Ki, TP)) if q > 1 else np.sqrt(Ki * TP**2)[..., 0]
            chi2[:, w] = np.sum(form.r[:, w] * Kr, axis=2)
        if not w.all():
            d = ~w
            Pt = np.swapaxes(form.P[:, d], 2, 3)
            f = np.linalg.solve(Pt, np.swapaxes(np.linalg.solve(Pt, form.K[:, d]), 2, 3))
            h = np.asarray(np.linalg.solve(Pt, form.r[:, d][..., None]), dtype=np.float64)
            Et, both = np.swapaxes(self.E, 1, 2), self.kept[:, :, None] & self.kept[:, None, :]
            G = np.asarray(np.where(both, Et @ f @ self.E, np.eye(q)), dtype=np.float64)
            h = np.where(self.kept, (Et @ h)[..., 0], 0.0)
            Gi, x = _solved(G, h)
            A = np.where(self.kept[:, None], self.Ti @ self.E, 0.0)
            delta[:, d] = np.where(self.known, np.einsum("jka,sja->sjk", A, x), np.nan)
            sd[:, d] = np.where(self.known, np.sqrt(np.einsum("jka,sjab,jkb->sjk", A, Gi, A)), np.nan)
            chi2[:, d] = np.sum(h * x, axis=2)
        return delta, sd, chi2

    def left(self, form: _Form) -> Floats:
        """Share (J,) of the information in the least informed direction that is left once all else is unsure."""
        q = form.r.shape[2]
        K, most = form.K, form.most
        if not self.whole.all():
            E = np.tile(np.eye(q), (self.whole.size, 1, 1))
            kept = np.ones((self.whole.size, q), dtype=bool)
            E[~self.whole], kept[~self.whole] = self.E, self.kept
            both = kept[:, :, None] & kept[:, None, :]
            Et = np.swapaxes(E, 1, 2)
            K, most = (np.where(both, Et @ A @ E, 1.0 * np.eye(q)) for A in (K, most))
        scale = 1.0 / np.sqrt(np.diagonal(most, axis1=2, axis2=3))
        K, most = (scale[..., :, None] * A * scale[..., None, :] for A in (K, most))
        share = np.full(form.r.shape[:2], 0.0)
        good = np.isfinite(K).all(axis=(2, 3)) & np.isfinite(most).all(axis=(2, 3))
        root = np.linalg.inv(np.linalg.cholesky(most[good] + 1e-14 * np.eye(q)))
        share[good] = np.linalg.eigvalsh(root @ K[good] @ np.swapaxes(root, 1, 2))[:, 0]
        return np.asarray(share.max(axis=0))


def _solved(K: Floats, r: Floats) -> tuple[Floats, Floats]:
    """K^-1 and K^-1 r, in units in which the diagonal of K is one."""
    if K.shape[-1] == 1:
        return 1.0 / K, r / K[..., 0]
    scale = 1.0 / np.sqrt(np.diagonal(K, axis1=-2, axis2=-1))
    inverse: Floats = np.asarray(np.linalg.inv(scale[..., :, None] * K * scale[..., None, :]), dtype=np.float64)
    inverse = scale[..., :, None] * inverse * scale[..., None, :]
    return inverse, np.einsum("...ab,...b->...a", inverse, r)
