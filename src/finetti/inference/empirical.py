"""Empirical Bayes: the maximum of the marginal likelihood over relative Cholesky factors.

Hyperpriors play no part. The parameters are lme4's: the lower triangle of each block's factor
relative to sigma, with a nonnegative diagonal, so that a variance of exactly zero and a
correlation of exactly one are points of the space and not limits at infinity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetti.errors import InferenceError, NotBuiltError
from finetti.inference.gaussian import GaussianInner
from finetti.inference.hyperparameters import Hyperparameters
from finetti.inference.target import GaussianTarget
from finetti.linalg.system import Points

__all__ = ["PointEstimate", "maximise", "triangular"]

Floats = npt.NDArray[np.float64]

# a relative standard deviation below this is tried at exactly zero
NEAR_ZERO = 1e-3
# where to look for a rise beside zero
BESIDE = (0.003, 0.01, 0.03, 0.1, 0.3)
# nominal seconds of an evaluation beyond which one climb must do
DEAR = 0.005


@dataclass(frozen=True)
class PointEstimate:
    """The maximiser.

    hyper : hyperparameters with everything held at the maximum (no free coordinates)
    factors : (q, q) covariance factors of every grouping factor; sigma; given coefficients
    log_marginal : log p(y | theta) at the maximum; -2 times it is lme4's criterion under flat coefficients
    boundary : labels at the edge of their space
    """

    hyper: Hyperparameters
    factors: list[Floats]
    sigma: float
    given: Floats
    log_marginal: float
    converged: bool
    boundary: tuple[str, ...]
    evaluations: int


@dataclass(frozen=True)
class _Space:
    """Packing of the free entries: block factors, then log sigma, then given coefficients.

    A factor whose coefficients are all correlated is taken on the centred and scaled columns of the solver, T L, so
    that a covariate far from zero does not tie intercepts to slopes; other factors in the user's coordinates, L.
    """

    inner: GaussianInner
    entries: tuple[tuple[int, int, int], ...]  # factor, row, column of L
    diagonal: tuple[bool, ...]
    fixed: tuple[tuple[int, int, float], ...]  # factor, row, absolute sd that the user holds

    @classmethod
    def of(cls, inner: GaussianInner) -> _Space:
        entries, fixed = [], []
        for f, spec in enumerate(inner.hyper.factors):
            if not spec.modelled:
                continue
            partner = {m: b.members for b in spec.blocks for m in b.members}
            held = [k for k, at in enumerate(spec.sd_at) if at < 0]
            if any(k in partner for k in held) or any(not b.size for b in spec.blocks):
                raise NotBuiltError(
                    f"pooling='empirical' of {spec.name!r} with a fixed sd or correlation among correlated "
                    "coefficients is not built; use `||`, leave the prior out, or fit with pooling='partial'"
                )
            fixed += [(f, k, spec.sd_value[k]) for k in held]
            for k in range(spec.q):
                if k in held:
                    continue
                for j in partner.get(k, (k,)):
                    if j <= k:
                        entries.append((f, k, j))
        return cls(inner, tuple(entries), tuple(r == c for _, r, c in entries), tuple(fixed))

    @property
    def has_sigma(self) -> bool:
        return self.inner.hyper.sigma_at >= -1

    def centred(self, f: int) -> bool:
        """Whether the entries of a factor are those of T L."""
        spec = self.inner.hyper.factors[f]
        return len(spec.blocks) == 1 and len(spec.blocks[0].members) == spec.q

    def units(self, spread: float) -> list[Floats]:
        """Size (q,) of the rows of every factor in which entries are of order one."""
        one = 1.0 if self.has_sigma and not self.inner.system.se2.size else spread
        return [
            np.full(spec.q, one)
            if self.centred(f)
            else np.array([one / _unit(self.inner, f, k) for k in range(spec.q)])
            for f, spec in enumerate(self.inner.hyper.factors)
        ]

    @property
    def size(self) -> int:
        return len(self.entries) + int(self.has_sigma) + len(self.inner.hyper.given)

    def points(self, x: Floats, units: list[Floats]) -> tuple[Points, Floats]:
        """Solver points of parameter vectors (S, m), and sigma (S,)."""
        inner, S = self.inner, x.shape[0]
        m = len(self.entries)
        sigma = np.exp(x[:, m]) if self.has_sigma else np.ones(S)
        varying = inner.system.se2.size > 0
        scale = np.ones(S) if varying else sigma
        parts = []
        for f, (spec, T) in enumerate(zip(inner.hyper.factors, inner.transforms, strict=True)):
            L = np.zeros((S, spec.q, spec.q))
            if spec.pooling == "none":
                L[:] = np.eye(spec.q)
            elif spec.modelled:
                for at, (g, r, c) in enumerate(self.entries):
                    if g == f:
                        L[:, r, c] = x[:, at] * units[f][r]
                for g, r, value in self.fixed:
                    if g == f:
                        L[:, r, r] = value / scale
                L = L if self.centred(f) else T @ L
            parts.append(L.reshape(S, -1))
        if inner.noise is not None:  # known correlated errors, of sd 1
            parts.append(np.eye(inner.noise.q).ravel() / scale[:, None])
        lam = np.ascontiguousarray(np.concatenate(parts, axis=1)) if parts else np.zeros((S, 0))
        given = x[:, m + int(self.has_sigma) :] - inner.basis.given_shift
        points = Points(lam, scale**2, sigma**2 if varying else np.zeros(S), np.ascontiguousarray(given))
        return points, sigma


def maximise(inner: GaussianInner, near: Floats | None = None) -> PointEstimate:
    """Maximise log p(y | theta); exact zeros and ones are tried wherever the optimum comes near them.

    near : theta (d,) to start from where an evaluation is dear

    Raises
    ------
    InferenceError
        If the marginal likelihood is not finite.
    """
    from scipy.optimize import minimize

    space = _Space.of(inner)
    target = GaussianTarget(inner)
    spread = target.spread()
    units = space.units(spread)
    count = 0
    # about how well each parameter is known: a step that suits the sd of a few levels is huge for sigma, known from
    # every row
    known_to = np.ones(space.size)
    known_to[: len(space.entries)] = [(2.0 * inner.hyper.factors[f].n_levels) ** -0.5 for f, _, _ in space.entries]
    if space.has_sigma:
        known_to[len(space.entries)] = (2.0 * inner.system.y.size) ** -0.5

    def value(x: Floats) -> Floats:
        nonlocal count
        count += x.shape[0]
        with np.errstate(all="ignore"):
            points, _ = space.points(x, units)
            out = inner.node_values(points, inner.system.evaluate(points)).log_marginal
        return np.where(np.isfinite(out), out, -1e300)

    def climb(x0: Floats, held: npt.NDArray[np.bool_]) -> tuple[Floats, float, bool]:
        free = np.flatnonzero(~held)
        if not free.size:
            return x0, float(value(x0[None])[0]), True
        at = {i: j for j, i in enumerate(free)}
        unit = known_to[free]
        lower = [0.0 if i < len(space.entries) and space.diagonal[i] else -np.inf for i in free]

        def negative(z: Floats) -> tuple[float, Floats]:
            x = x0.copy()
            x[free] = z * unit
            # central differences, all in one parallel call; the density is even in each diagonal
            # entry's column sign, so that stepping below zero is harmless
            h = 1e-5 * np.maximum(np.abs(x[free]), 1.0)
            block = np.repeat(x[None], 2 * free.size + 1, axis=0)
            for i, j in at.items():
                block[1 + 2 * j, i] += h[j]
                block[2 + 2 * j, i] -= h[j]
            v = value(block)
            return -float(v[0]), -(v[1::2] - v[2::2]) / (2.0 * h) * unit

        best = minimize(
            negative, x0[free] / unit, jac=True, method="L-BFGS-B", bounds=[(low, None) for low in lower],
            options={"ftol": 1e-13, "gtol": 1e-6 * max(1.0, abs(float(value(x0[None])[0])) * 1e-3), "maxiter": 500},
        )  # fmt: skip
        x = x0.copy()
        x[free] = best.x * unit
        return x, -float(best.fun), bool(best.success)

    def start(share: float) -> Floats:
        x = np.zeros(space.size)
        x[: len(space.entries)] = np.array(space.diagonal) * share
        if space.has_sigma:
            x[len(space.entries)] = np.log(0.8 * spread)
        if inner.hyper.given:
            theta = target.start(0.5, 0.8)
            x[-len(inner.hyper.given) :] = inner.hyper.given_values(theta[None])[0]
        return x

    held = np.zeros(space.size, dtype=bool)
    if inner.hyper.sigma_at == -1:
        held[len(space.entries)] = True
    held[space.size - len(inner.hyper.given) :] = [at < 0 for _, at, _ in inner.hyper.given]  # by the user's `fixed`
    best_x, best_f, ok = np.zeros(0), -np.inf, False
    starts = [start(1.0), start(0.2)]
    if target.cost > DEAR:
        starts = starts[:1]
        if near is not None:
            starts = [_coordinates(space, near, units)]
            known_to[: len(space.entries)] *= np.clip(np.abs(starts[0][: len(space.entries)]), 1e-2, 1.0)
    for x0 in starts:
        if inner.hyper.sigma_at == -1:
            x0[len(space.entries)] = np.log(inner.hyper.sigma_value)
        x, f, good = climb(x0, held)
        if f > best_f:
            best_x, best_f, ok = x, f, good
    if not best_f > -1e299:
        raise InferenceError("the marginal likelihood is not finite; check the scale of the response")
    best_x, best_f = _lift(space, climb, value, best_x, best_f, held)
    if target.cost <= DEAR:
        best_x, best_f = _elsewhere(space, climb, start, best_x, best_f, held)
    best_x, best_f = _snap(space, climb, value, best_x, best_f, held)
    points, sigma = space.points(best_x[None], units)
    factors = _factors(space, points)
    modelled = {i: L for i, L in enumerate(factors) if inner.hyper.factors[i].modelled}
    given = points.fixed[0] + inner.basis.given_shift
    hyper = inner.hyper.hold(modelled, float(sigma[0]), given)
    return PointEstimate(hyper, factors, float(sigma[0]), given, best_f, ok, _edges(hyper), count)


def _coordinates(space: _Space, theta: Floats, units: list[Floats]) -> Floats:
    """The parameters (m,) of a point theta (d,)."""
    inner = space.inner
    sigma = float(inner.hyper.sigma(theta[None])[0])
    scale = 1.0 if inner.system.se2.size else sigma
    L = {f: inner.hyper.covariance_factor(f, theta[None])[0] for f, s in enumerate(inner.hyper.factors) if s.modelled}
    L = {f: triangular(inner.transforms[f] @ one) if space.centred(f) else one for f, one in L.items()}
    x = [L[f][r, c] / (scale * units[f][r]) for f, r, c in space.entries]
    return np.array([*x, *([np.log(sigma)] if space.has_sigma else []), *inner.hyper.given_values(theta[None])[0]])


def _unit(inner: GaussianInner, f: int, k: int) -> float:
    """Root mean square of a column: what its coefficient's sd is multiplied by in the data."""
    return max(float(np.sqrt(np.mean(inner.bound.design.factors[f].Z[:, k] ** 2))), 1e-300)


def _lift(space, climb, value, x, f, held):  # type: ignore[no-untyped-def]
    """Look beside diagonal entries of zero: the slope vanishes there, be it a hill or a valley the climb stopped in."""
    for i, diagonal in enumerate(space.diagonal):
        if not diagonal or held[i] or abs(x[i]) > NEAR_ZERO:
            continue
        trials = np.repeat(x[None], len(BESIDE), axis=0)
        trials[:, i] = BESIDE
        g = value(trials)
        if g.max() > f + 1e-7:
            trial, h, _ = climb(trials[int(np.argmax(g))], held)
            if h > f:
                x, f = trial, h
    return x, f


def _elsewhere(space, climb, start, x, f, held):  # type: ignore[no-untyped-def]
    """Look for another maximum where one on the edge was found: of few levels there may be one at each end.

    A correlation of -1 and one of +1, say, or all variance in the slopes and none in the intercepts.
    """
    diagonal = np.array([*space.diagonal, *[False] * (space.size - len(space.entries))])
    if diagonal.sum() < 2 or not np.any(np.abs(x[diagonal & ~held]) < NEAR_ZERO):
        return x, f
    beside = np.arange(space.size) < len(space.entries)
    beside &= ~diagonal
    trials = []
    for sign in (-1.0, 1.0) if beside.any() else ():
        trials.append(start(0.3))
        trials[-1][beside] = 0.3 * sign
    for i in np.flatnonzero(diagonal):
        trials.append(start(0.03))
        trials[-1][i] = 1.0
    for trial in trials:
        trial[held] = x[held]
        z, g, _ = climb(trial, held)
        if g > f + 1e-7:
            x, f = z, g
    return x, f


def _snap(space, climb, value, x, f, held):  # type: ignore[no-untyped-def]
    """Try small diagonal entries at exactly zero, keep what is not worse."""
    for i, diagonal in enumerate(space.diagonal):
        if not diagonal or held[i] or abs(x[i]) > NEAR_ZERO:
            continue
        trial = x.copy()
        trial[i] = 0.0
        mine = held.copy()
        mine[i] = True
        g = float(value(trial[None])[0])
        if g < f - 1e-7:
            trial, g, _ = climb(trial, mine)
        if g >= f - 1e-7:
            x, f, held = trial, g, mine
    return x, f


def _factors(space: _Space, points: Points) -> list[Floats]:
    """Absolute covariance factors (q, q) in the user's coordinates."""
    out, at, scale = [], 0, np.sqrt(points.sigma2[0])
    for spec, T in zip(space.inner.hyper.factors, space.inner.transforms, strict=True):
        q = spec.q
        L = points.lam[0, at : at + q * q].reshape(q, q)
        at += q * q
        raw, size = np.linalg.solve(T, L), np.abs(np.linalg.inv(T)) @ np.abs(L)
        out.append(triangular(np.where(np.abs(raw) > 1e-13 * size, raw, 0.0) * scale))
    return out


def triangular(L: Floats) -> Floats:
    """The lower-triangular A with A A' = L L' and a diagonal that is not negative; exact zeros stay or become exact."""
    if np.any(np.triu(L, 1)):
        L = np.asarray(np.linalg.qr(L.T, mode="r")).T
        size = np.linalg.norm(L, axis=1)
        small = np.abs(np.diag(L)) <= 1e-12 * size
        L = np.tril(L)
        L[np.diag_indices_from(L)] = np.where(small, 0.0, np.diag(L))
    return np.asarray(L * np.where(np.diag(L) < 0.0, -1.0, 1.0))


def _edges(hyper: Hyperparameters) -> tuple[str, ...]:
    """Labels of standard deviations at exactly zero and correlations at exactly one."""
    values = hyper.natural(np.zeros((1, hyper.d)))
    return tuple(
        label
        for label, v in values.items()
        if (label.startswith("sd_") and v[0] == 0.0) or (label.startswith("cor_") and abs(v[0]) == 1.0)
    )
