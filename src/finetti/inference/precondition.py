"""Coordinates in which the joint posterior is nearly a standard normal: how fast NUTS goes, not what it finds.

Everything comes from the density's own gradient at the mode of theta. There the density is Gaussian in b and the
scores s (u = L s), so that gradient differences are its Hessian. With the coefficients in the order of the tape (b,
then factor by factor, the largest last), a factorisation H = R R', R upper triangular, gives the distribution of each
coefficient given all before it, over all after it:

    precision R_kk^2,    mean  m_k - sum_{i<k} (R_ik / R_kk) (s_i - m_i).

A parent's share of the precision is 1; the rest is what the data add. That makes the constants of `joint_kernels`: the
information a, and the estimate h as a function of the coefficients before. The levels of the last factor are
independent given all the rest (the root), so that only the root is ever dense.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetti.inference import joint_kernels as kernels
from finetti.inference.joint import Joint

__all__ = ["preconditioned"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# the root and its product with all coordinates are dense: beyond this, factors only follow b
MOST_ROOT, MOST_CELLS = 1500, 5e7
# a precision that exceeds the parent's by less than this is the parent's alone
LEAST_INFORMATION = 1e-8


@dataclass(frozen=True)
class _Hessian:
    """At the centre: root (r, r), levels beyond it (L - r, r), and their blocks: one array (J, q, q) per factor."""

    root: Floats
    cross: Floats
    blocks: list[Floats]


def preconditioned(joint: Joint, covariance: Floats) -> Joint:
    """The same density in better coordinates; `covariance` (d, d) of theta at the centre."""
    a, d = joint.arrays, joint.hyper.d
    p = int(a["prior_mean"].size)
    root = _root_size(joint)
    H = _hessian(joint, root)
    S = H.root.copy()
    inside = len(a["q"]) - len(H.blocks)
    last_follows = len(H.blocks) == 1
    near: list[tuple[Ints, Ints, Floats]] = []  # coefficient, which other, how much
    unit = _Units(joint)
    information, estimate, centre = a["information"].copy(), np.zeros(a["kind"].size), a["centre"].copy()
    mean = centre[d:].copy()  # of b relative to its reference, and of the scores
    mean[:p] = 0.0

    at = root - d - p
    for f, B in enumerate(H.blocks, start=inside):
        J, q = B.shape[:2]
        C = H.cross[at - (root - d - p) :][: J * q].reshape(J, q, -1)
        R = _reverse_cholesky(B)
        follow = np.linalg.solve(R, C)[:, :, d:] if last_follows else np.zeros((J, q, 0))
        if last_follows:
            whole = np.linalg.solve(R, C)
            S -= np.einsum("jqa,jqb->ab", whole, whole)
        pivot = np.diagonal(R, axis1=1, axis2=2)
        own = -np.swapaxes(R, 1, 2) / pivot[:, :, None]  # row k: how s_k follows s_i, i < k
        others = -follow / pivot[:, :, None]
        for k in range(q):
            here = at + np.arange(J) * q + k
            near += _constants(
                unit, f, k, here, pivot[:, k] ** 2, others[:, k], own[:, k, :k], mean, information, estimate, centre, d
            )
        at += J * q
    W = np.zeros((d + p, d + p))
    if d:
        W[:d, :d] = np.linalg.cholesky(covariance)
    if root > d:
        R = _reverse_cholesky(S[d:, d:])
        if p:
            inverse = np.linalg.inv(R[:p, :p].T)
            W[d:, d:] = inverse
            # b follows theta, over everything else
            full = np.linalg.solve(S[d:, d:], S[d:, :d])[:p]
            W[d:, :d] = -full @ W[:d, :d]
        at = 0
        for f in range(inside):
            J, q = int(a["levels"][f]), int(a["q"][f])
            for _ in range(J):
                for k in range(q):
                    c = p + at + k
                    row = -R[:c, c] / R[c, c]
                    near += _constants(
                        unit, f, k, np.array([at + k]), np.array([R[c, c] ** 2]), row[None, : p + at],
                        row[None, p + at :], mean, information, estimate, centre, d,
                    )  # fmt: skip
                at += q
    who = np.concatenate([np.zeros(0, dtype=np.int64), *[n[0] for n in near]])
    order = np.argsort(who, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(who, minlength=a["kind"].size))]).astype(np.int64)
    return joint.replace(
        W=W, information=information, estimate=estimate, centre=centre, near_start=start,
        near_at=np.concatenate([np.zeros(0, dtype=np.int64), *[n[1] for n in near]])[order],
        near=np.concatenate([np.zeros(0), *[n[2] for n in near]])[order],
    )  # fmt: skip


class _Units:
    """From scores to coefficients: u = L s at the centre, one L per factor; b and free coefficients as they are."""

    def __init__(self, joint: Joint) -> None:
        a, hyper = joint.arrays, joint.hyper
        theta, terms = a["centre"][: hyper.d], joint.terms
        self.p = int(a["prior_mean"].size)
        self.L = [terms[i].factor(hyper, i, theta) for i in joint.order]
        self.usable = [
            terms[i].spec.modelled and terms[i].spec.held is None and bool(np.all(np.diag(L) > 0.0))
            for i, L in zip(joint.order, self.L, strict=True)
        ]
        self.free = [not terms[i].spec.modelled for i in joint.order]
        self.first = np.concatenate([[0], np.cumsum(a["q"] * a["levels"])]).astype(int)
        self.kind = a["kind"]

    def to_coefficients(self, rows: Floats) -> Floats:
        """Rows (N, p + c) that speak of b and of scores, as rows that speak of b and of u."""
        out = rows.copy()
        for f, L in enumerate(self.L):
            lo, hi = self.p + self.first[f], min(self.p + self.first[f + 1], rows.shape[1])
            if lo < hi:
                out[:, lo:hi] = (rows[:, lo:hi].reshape(len(rows), -1, len(L)) @ np.linalg.pinv(L)).reshape(
                    len(rows), -1
                )
        return out


def _constants(
    unit: _Units, f: int, k: int, here: Ints, precision: Floats, others: Floats, own: Floats,
    mean: Floats, information: Floats, estimate: Floats, centre: Floats, d: int,
) -> list[tuple[Ints, Ints, Floats]]:  # fmt: skip
    """Information and estimate of coefficients `here` (all the k-th of factor f), and what their estimate follows.

    others (N, c) : how the score follows b and the scores of earlier factors and levels; own (N, k) : of its own level
    """
    p, L = unit.p, unit.L[f]
    if np.all(unit.kind[here] == kernels.UNUSED):
        return []
    t = 1.0 if unit.free[f] else L[k, k]
    if unit.free[f]:
        used = unit.kind[here] == kernels.FREE
        information[here] = np.where(used, precision, 0.0)
        scale = used.astype(float)
    elif not unit.usable[f]:
        return []
    else:
        added = precision - 1.0
        used = added > LEAST_INFORMATION
        information[here] = np.where(used, added / t**2, 0.0)
        scale = np.where(used, t * precision / np.where(used, added, 1.0), 0.0)
    # own scores as own coefficients; the estimate is of u_k, which the parent moves with the scores before
    inverse = np.linalg.inv(L[:k, :k]) if k else np.zeros((0, 0))
    by_parent = L[k, :k] @ inverse if not unit.free[f] else np.zeros(k)
    mine = (own @ inverse) * scale[:, None] + by_parent * used[:, None]
    rest = unit.to_coefficients(others) * scale[:, None]
    before = p + here[:, None] - k + np.arange(k)
    own_mean = np.stack([mean[p + here - k + i] for i in range(k)], axis=1) if k else np.zeros((len(here), 0))
    score = mean[p + here]
    at_mean = score * scale - (others @ mean[: others.shape[1]] + np.sum(own * own_mean, axis=1)) * scale
    estimate[here] = np.where(used, at_mean, 0.0)
    centre[d + p + here] = np.where(used, 0.0, centre[d + p + here])
    columns = np.concatenate([np.broadcast_to(np.arange(others.shape[1]), others.shape), before], axis=1)
    values = np.concatenate([rest, mine], axis=1)
    r, c = np.nonzero(used[:, None] & (values != 0.0))
    return [(here[r].astype(np.int64), columns[r, c].astype(np.int64), values[r, c])]


def _reverse_cholesky(H: Floats) -> Floats:
    """Upper triangular R with H = R R', of one matrix or many."""
    flipped = H[..., ::-1, ::-1]
    return np.asarray(np.linalg.cholesky(flipped)[..., ::-1, ::-1], dtype=np.float64)


def _root_size(joint: Joint) -> int:
    """Coordinates of theta, b and all factors that fit but the last."""
    sizes = joint.arrays["q"] * joint.arrays["levels"]
    first = joint.hyper.d + int(joint.arrays["prior_mean"].size)
    root = first
    for size in sizes[:-1]:
        root += int(size)
    if root > MOST_ROOT or root * joint.dim > MOST_CELLS:
        return first
    return root


def _steps(joint: Joint) -> Floats:
    """Sizes of the differences: the density is quadratic in all but theta, so that they only have to move it."""
    a, d = joint.arrays, joint.hyper.d
    step = np.ones(joint.dim)
    step[:d] = 1e-4
    size = np.sqrt(np.mean(a["e0"] ** 2)) or 1.0
    for k, role in enumerate(a["role"]):
        if role >= d:
            step[role] = size / max(float(np.sqrt(np.mean(a["X"][:, k] ** 2))), 1e-300)
    step[d + a["prior_mean"].size :][a["kind"] == kernels.FREE] = size
    return step


def _hessian(joint: Joint, root: int) -> _Hessian:
    """Negative Hessian at the centre, by differences of gradients in two directions."""
    D, a = joint.dim, joint.arrays
    step = _steps(joint)

    def column(direction: Floats) -> Floats:
        return 0.5 * (joint(-direction)[1] - joint(direction)[1])

    columns = np.empty((root, D))
    for k in range(root):
        e = np.zeros(D)
        e[k] = step[k]
        columns[k] = column(e) / step[k]
    blocks: list[Floats] = []
    at = joint.hyper.d + int(a["prior_mean"].size)
    for q, J in zip(a["q"], a["levels"], strict=True):
        if at >= root:
            own = np.empty((J, q, q))
            for k in range(q):
                e = np.zeros(D)
                mine = at + np.arange(J) * q + k
                e[mine] = step[mine]
                own[:, :, k] = column(e)[at : at + J * q].reshape(J, q) / step[mine][:, None]
            blocks.append(0.5 * (own + own.swapaxes(1, 2)))
        at += J * q
    return _Hessian(0.5 * (columns[:, :root] + columns[:, :root].T), columns[:, root:].T, blocks)
