"""`Joint`: a bound Gaussian model as one density of (theta, b, u), written down without integrating anything.

    log p(y, b, u, theta) = log N(y; offset + X b + Z u, R(theta))
                            + log p(b) + sum log N(u_j; 0, Sigma(theta)) + log p(theta)

up to a constant. The data and the meaning of theta are those of the exact path; the mathematics is not, so that
sampling this density judges it. b are the coefficients in the coordinates of their priors: with a prior named
`Intercept` the other columns are centred.

What is sampled are coordinates z (see `joint_kernels` and `precondition`); they change the speed, not the answer.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from finetti.inference import joint_kernels as kernels
from finetti.inference.conditional import GaussianConditional
from finetti.inference.coordinates import Coordinate
from finetti.inference.gaussian import GaussianInner
from finetti.inference.hyperparameters import FactorSpec, Hyperparameters
from finetti.model.priors import (
    Exponential,
    Flat,
    Gamma,
    HalfCauchy,
    HalfNormal,
    HalfT,
    InverseGamma,
    Normal,
    Prior,
    StudentT,
    Uniform,
)

__all__ = ["Joint", "build_joint"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Joint:
    """The density on its tape, and the way from sampled coordinates z back to parameters.

    arrays : every array of `joint_kernels.ARRAYS` by name
    tape : the same in one buffer of 8-byte words
    exotic : positions in theta whose prior the kernel does not know; Python adds it
    """

    inner: GaussianInner
    arrays: Mapping[str, npt.NDArray[Any]]
    tape: Ints
    exotic: tuple[int, ...]

    @property
    def dim(self) -> int:
        return int(self.arrays["centre"].size)

    @property
    def hyper(self) -> Hyperparameters:
        return self.inner.hyper

    @property
    def terms(self) -> list[Term]:
        return _terms(self.inner)

    @property
    def order(self) -> list[int]:
        """Positions of the terms that have coordinates, in their order here; the last one is that of known errors."""
        return _order(_terms(self.inner))

    @property
    def cost(self) -> float:
        """Nominal seconds of one gradient, from counted operations."""
        n, _, _, K, _, _, _, size, Q = (int(v) for v in self.arrays["sizes"])
        return 1e-9 * (n * (12 + 4 * (K + Q)) + 25 * size + 4 * self.arrays["near"].size) + 1e-6

    def replace(self, **arrays: npt.NDArray[Any]) -> Joint:
        """The same density with some arrays exchanged: those that do not change what is sampled."""
        new = dict(self.arrays) | arrays
        return Joint(self.inner, new, _tape(new), self.exotic)

    def __call__(self, z: Floats) -> tuple[float, Floats]:
        """Log density and gradient with respect to z (D,); NaN where there is no density."""
        z = np.ascontiguousarray(z, dtype=np.float64)
        grad, value = np.empty_like(z), np.empty(1)
        if kernels.compiled().ctypes(z.size, _pointer(z), _pointer(grad), _pointer(value), self.tape.ctypes.data):
            return np.nan, np.full_like(z, np.nan)
        lp = float(value[0])
        if self.exotic:
            d, W = self.hyper.d, self.arrays["W"]
            theta = self.arrays["centre"][:d] + W[:d, :d] @ z[:d]
            slope = np.zeros(d)
            with np.errstate(all="ignore"):
                for at in self.exotic:
                    c = self.hyper.coordinates[at]
                    assert c is not None
                    lp += float(c.log_density(theta[at : at + 1])[0])
                    slope[at] = c.gradient(theta[at : at + 1])[0]
            grad[:d] += W[:d, :d].T @ slope
        return lp, grad

    @property
    def on_tape(self) -> bool:
        """Whether the kernel knows all of the density."""
        return not self.exotic

    def shelf(self, skip: int, thin: int, room: int) -> Ints:
        """The tape with room for draws behind it, as `joint_kernels.compiled_store` fills it."""
        head = np.array([0, skip, thin, room], dtype=np.int64)
        return np.concatenate([self.tape, head, np.zeros(room * self.dim, dtype=np.int64)])

    def draws_on(self, shelf: Ints) -> Floats:
        """Draws (room, D) of theta, b relative to its reference, and u."""
        return shelf[self.tape.size + kernels.SHELF :].view(np.float64).reshape(-1, self.dim)

    def decode(self, z: Floats) -> Floats:
        """theta, b relative to its reference, and u (N, D) of points z (N, D)."""
        shelf, call = self.shelf(0, 1, len(z)), np.empty(1)
        for row in np.ascontiguousarray(z):
            kernels.compiled_store().ctypes(row.size, 1, _pointer(row), _pointer(call), shelf.ctypes.data)
        return self.draws_on(shelf)

    def parameters(self, x: Floats) -> tuple[Floats, Floats, dict[str, Floats]]:
        """theta (N, d), beta (N, p_all) in the user's columns, u (N, J, q) of every factor; NaN where not identified.

        x : (N, D) as `decode` and `draws_on` give them
        """
        a, d, p, N = self.arrays, self.hyper.d, self.arrays["prior_mean"].size, len(x)
        u: dict[str, Floats] = {}
        sizes = a["q"] * a["levels"]
        for i, spec in enumerate(self.hyper.factors):
            if i not in self.order:
                u[spec.name] = np.zeros((N, spec.n_levels, spec.q))
                continue
            at = int(sizes[: self.order.index(i)].sum())
            mine = slice(at, at + spec.n_levels * spec.q)
            values = x[:, d + p + mine.start : d + p + mine.stop]
            if spec.pooling == "none":  # relative to their reference, too
                values = np.where(a["kind"][mine] == kernels.UNUSED, np.nan, values + a["reference"][mine])
            u[spec.name] = values.reshape(N, spec.n_levels, spec.q)
        return x[:, :d], self._beta(x), u

    def _beta(self, x: Floats) -> Floats:
        design, d = self.inner.bound.design, self.hyper.d
        beta = np.full((len(x), len(design.columns)), np.nan)
        labels = [label for label, _, _ in self.hyper.given]
        given = dict(zip(labels, self.hyper.given_values(x[:, :d]).T, strict=True))
        at = d
        for k, key in _columns(self.inner):
            if key in given:
                beta[:, k] = given[key]
            else:
                beta[:, k] = self.arrays["centre"][at] + x[:, at]
                at += 1
        if slopes := _centred(self.inner):
            beta[:, 0] -= beta[:, slopes] @ design.X[:, slopes].mean(axis=0)
        return beta


def _pointer(a: Floats) -> Any:
    return a.ctypes.data_as(ctypes.POINTER(ctypes.c_double))


def _columns(inner: GaussianInner) -> list[tuple[int, str]]:
    """Identified columns of X and the key of each one's prior."""
    design, priors = inner.bound.design, inner.bound.priors
    return [
        (k, "Intercept" if c == "Intercept" and "Intercept" in priors else f"beta[{c}]")
        for k, c in enumerate(design.columns)
        if k not in inner.basis.absent
    ]


def _centred(inner: GaussianInner) -> list[int]:
    """Columns of X that are centred: all but the intercept, where its prior speaks of the covariates' means."""
    columns = _columns(inner)
    return [k for k, _ in columns[1:]] if columns[:1] == [(0, "Intercept")] else []


@dataclass(frozen=True)
class Term:
    """One grouping factor, or the hidden one whose coefficients have sd 1: known correlated errors."""

    spec: FactorSpec
    index: Ints
    Z: Floats
    free: Any
    hidden: bool = False

    def factor(self, hyper: Hyperparameters, i: int, theta: Floats) -> Floats:
        """L (q, q) at theta (d,)."""
        if self.hidden or not self.spec.modelled:
            return np.eye(self.spec.q)
        return hyper.covariance_factor(i, theta[None])[0]


def _terms(inner: GaussianInner) -> list[Term]:
    factors = zip(inner.hyper.factors, inner.bound.design.factors, inner.free, strict=True)
    out = [Term(spec, f.index, f.Z, free) for spec, f, free in factors]
    if inner.noise is not None:
        g, J, q = inner.noise.grouping, len(inner.noise.blocks), inner.noise.q
        # rows outside all blocks have columns of zero: any level will do
        index = np.where(g.index < J, g.index, 0)
        out.append(Term(FactorSpec("", ("",) * q, J, "partial", (-1,) * q, (1.0,) * q, (), ()), index, g.Z, None, True))
    return out


def _order(terms: list[Term]) -> list[int]:
    """Positions of the terms that have coordinates, the smallest first: the dense part then holds most."""
    mine = [i for i, t in enumerate(terms) if t.spec.pooling != "complete"]
    return sorted(mine, key=lambda i: terms[i].spec.n_levels * terms[i].spec.q)


# --- the tape -------------------------------------------------------------------------------


def _tape(arrays: Mapping[str, npt.NDArray[Any]]) -> Ints:
    header = np.zeros(len(kernels.ARRAYS) + 1, dtype=np.int64)
    at = header.size
    for i, name in enumerate(kernels.ARRAYS):
        header[i] = at
        at += arrays[name].size
    header[-1] = at
    tape = np.zeros(at, dtype=np.int64)
    tape[: header.size] = header
    for i, name in enumerate(kernels.ARRAYS):
        values = np.ascontiguousarray(arrays[name]).ravel()
        tape[header[i] : header[i] + values.size] = (
            values if values.dtype == np.int64 else values.astype(np.float64).view(np.int64)
        )
    return tape


def _coordinate(c: Coordinate) -> tuple[int, float, float, int, tuple[float, float, float]]:
    """Map, its two numbers, code of the prior and its parameters."""
    low, high = c.support
    if np.isinf(low):
        how = (kernels.LINE, c.centre, c.unit)
    elif np.isinf(high):
        how = (kernels.LOG, low, np.inf)
    else:
        how = (kernels.LOGIT, low, high)
    return (*how, *_density(c.prior, c.is_coefficient))


def _density(prior: Prior, is_coefficient: bool) -> tuple[int, tuple[float, float, float]]:
    none = (0.0, 0.0, 0.0)
    match prior:
        case Flat() | Uniform():
            return kernels.FLAT, none
        case Normal(mean, sd):
            return kernels.NORMAL, (mean, sd, 0.0)
        case HalfNormal(scale):
            return kernels.NORMAL, (0.0, scale, 0.0)
        case StudentT(df, mean, scale):
            return kernels.STUDENT, (df, mean, scale)
        case HalfCauchy(scale):
            return kernels.STUDENT, (1.0, 0.0, scale)
        case HalfT(df, scale):
            return kernels.STUDENT, (df, 0.0, scale)
        case Exponential(rate):
            return kernels.GAMMA, (1.0, rate, 0.0)
        case Gamma(shape, rate):
            return kernels.GAMMA, (shape, rate, 0.0)
        case InverseGamma(shape, scale) if not is_coefficient:
            return kernels.INVERSE_GAMMA, (shape, scale, 0.0)
        case _:
            return kernels.EXOTIC, none


def _theta_arrays(hyper: Hyperparameters) -> dict[str, npt.NDArray[Any]]:
    d = hyper.d
    how, code = np.zeros(d, dtype=np.int64), np.zeros(d, dtype=np.int64)
    low, high, par = np.zeros(d), np.ones(d), np.zeros((d, 3))
    for k, c in enumerate(hyper.coordinates):
        if c is not None:
            how[k], low[k], high[k], code[k], par[k] = _coordinate(c)
    for f in hyper.factors:
        for block, at in zip(f.blocks, f.cor_at, strict=True) if f.held is None else ():
            q = len(block.members)
            for i in range(1, q if block.size else 0):
                for j in range(i):
                    where = at + i * (i - 1) // 2 + j
                    how[where], code[where] = kernels.TANH, kernels.PARTIAL
                    # det R is the product of all 1 - t^2, |dR/dt| of (1 - t_ij^2)^((q - 2 - j) / 2)
                    par[where, 0] = block.eta - 1.0 + 0.5 * (q - 2 - j)
    return {"map": how, "low": low, "high": high, "code": code, "par": par}


def _factor_arrays(spec: FactorSpec) -> dict[str, npt.NDArray[Any]]:
    """Where the standard deviations and partial correlations of one factor are, or their values."""
    q = spec.q
    sd_at = np.array([at if at >= 0 else -1 for at in spec.sd_at], dtype=np.int64)
    sd_value = np.array(
        [v if at < 0 and np.isfinite(v) else 0.0 for at, v in zip(spec.sd_at, spec.sd_value, strict=True)]
    )
    cor_at, cor_value = np.full((q, q), -1, dtype=np.int64), np.zeros((q, q))
    held = np.zeros((q, q)) if spec.held is None else spec.held
    for block, at in zip(spec.blocks, spec.cor_at, strict=True) if spec.held is None else ():
        m = block.members
        fixed = None if block.size else block.cholesky(np.zeros((1, 0)))[0]
        for i in range(1, len(m)):
            left = 1.0
            for j in range(i):
                if fixed is None:
                    cor_at[m[i], m[j]] = at + i * (i - 1) // 2 + j
                else:
                    t = fixed[i, j] / left
                    cor_value[m[i], m[j]] = t
                    left *= np.sqrt((1.0 - t) * (1.0 + t))
    return {
        "sd_at": sd_at, "sd_value": sd_value, "cor_at": cor_at, "cor_value": cor_value,
        "held": np.array([spec.held is not None], dtype=np.int64), "held_L": held,
    }  # fmt: skip


def build_joint(inner: GaussianInner, theta: Floats) -> Joint:
    """The joint density of a bound model, in coordinates centred at theta (d,) and not yet preconditioned.

    Every term is non-centred here; see `precondition.preconditioned`.

    Parameters
    ----------
    inner : GaussianInner
        Read for the data, the meaning of theta, and the conditional means of the coefficients at theta (the centre).
    """
    design, hyper, priors = inner.bound.design, inner.hyper, inner.bound.priors
    d, columns = hyper.d, _columns(inner)
    X, slopes = design.X.copy(), _centred(inner)
    X[:, slopes] -= X[:, slopes].mean(axis=0)
    given = {label: (at, value) for label, at, value in hyper.given}
    b_columns = [k for k, key in columns if key not in given]
    p = len(b_columns)
    alpha, u = _guess(inner, theta)
    alpha[:1] += alpha[slopes] @ design.X[:, slopes].mean(axis=0) if slopes else 0.0
    arrays = _theta_arrays(hyper)
    e0 = design.y - design.offset
    role, used = [], []
    for k, key in columns:
        at, value = given.get(key, (-1, float(alpha[k])))
        e0 = e0 - X[:, k] * (arrays["low"][at] if at >= 0 else value)
        if at >= 0 or key not in given:
            role.append(at if at >= 0 else d + b_columns.index(k))
            used.append(k)
    mean, precision = np.zeros(p), np.zeros(p)
    for j, (_, key) in enumerate((k, key) for k, key in columns if key not in given):
        prior = priors[key]
        if isinstance(prior, Normal):
            mean[j], precision[j] = prior.mean, prior.sd**-2.0
    terms = _terms(inner)
    order = _order(terms)
    centre, kinds, reference = [], [], []
    for i in order:
        spec, f, free = terms[i].spec, terms[i], terms[i].free
        kind = np.full(u[i].shape, kernels.PARENT, dtype=np.int64)
        if spec.pooling == "none":
            assert free is not None
            kind = np.where(free, kernels.FREE, kernels.UNUSED).astype(np.int64)
            base, v = np.where(free, u[i], 0.0), np.zeros_like(u[i])
            e0 = e0 - np.sum(f.Z * base[f.index], axis=1)
        else:
            base = np.zeros_like(u[i])
            v = np.asarray(np.linalg.lstsq(f.factor(hyper, i, theta), u[i].T, rcond=None)[0].T, dtype=np.float64)
        kinds.append(kind.ravel())
        centre.append(v.ravel())
        reference.append(base.ravel())
    parts = [_factor_arrays(terms[i].spec) for i in order]

    def joined(pieces: list[npt.NDArray[Any]], dtype: Any) -> npt.NDArray[Any]:
        return np.concatenate([np.zeros(0, dtype), *[piece.ravel() for piece in pieces]]).astype(dtype)

    errors = kernels.ERRORS_SIGMA
    if design.se is not None:
        errors = kernels.ERRORS_BOTH if design.se_sigma else kernels.ERRORS_KNOWN
    n, empty, none = design.y.size, np.zeros(0), np.zeros(0, dtype=np.int64)
    size = sum(c.size for c in centre)
    kind = joined(kinds, np.int64)
    arrays |= {
        "sizes": np.array(
            [n, d, p, len(used), len(order), errors, hyper.sigma_at, size, sum(terms[i].spec.q for i in order)],
            dtype=np.int64,
        ),
        "sigma": np.array([hyper.sigma_value]),
        "e0": e0,
        "X": X[:, used],
        "role": np.array(role, dtype=np.int64),
        "weight": np.ones(n) if design.weights is None else design.weights,
        "se2": empty if design.se is None else (design.se if inner.noise is None else inner.noise.se) ** 2,
        "prior_mean": mean,
        "prior_precision": precision,
        "q": np.array([terms[i].spec.q for i in order], dtype=np.int64),
        "levels": np.array([terms[i].spec.n_levels for i in order], dtype=np.int64),
        "index": np.stack([terms[i].index for i in order], axis=1) if order else none,
        "Z": np.concatenate([terms[i].Z for i in order], axis=1) if order else empty,
        "kind": kind,
        "reference": joined(reference, np.float64),
        "information": np.where(kind == kernels.FREE, 1.0, 0.0),
        "estimate": np.zeros(size),
        "near_start": np.zeros(size + 1, dtype=np.int64),
        "near_at": none,
        "near": empty,
        "centre": np.concatenate([theta, alpha[b_columns], *centre]),
        "W": np.eye(d + p),
    }
    for name in ("sd_at", "cor_at", "held"):
        arrays[name] = joined([part[name] for part in parts], np.int64)
    for name in ("sd_value", "cor_value", "held_L"):
        arrays[name] = joined([part[name] for part in parts], np.float64)
    exotic = tuple(int(k) for k in np.flatnonzero(arrays["code"] == kernels.EXOTIC))
    return Joint(inner, arrays, _tape(arrays), exotic)


def _guess(inner: GaussianInner, theta: Floats) -> tuple[Floats, list[Floats]]:
    """Means of beta (p_all,) and of every factor's u (J, q) given theta: where sampling starts."""
    conditional = GaussianConditional(inner)
    beta = np.nan_to_num(inner.values(theta[None]).beta_mean[0])
    u = []
    for f in inner.hyper.factors:
        (moments,) = conditional.groups(f.name, theta[None])
        u.append(np.nan_to_num(moments.deviation[0]))
    if inner.noise is not None:
        u.append(np.zeros((len(inner.noise.blocks), inner.noise.q)))
    return beta, u
