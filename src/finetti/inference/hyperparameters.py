"""`Hyperparameters`: from a bound model to theta and back, with the relative covariance factors.

For a factor with coefficients k = 1..q the parent covariance is Sigma = D C C' D with D the
diagonal of standard deviations and C block-diagonal; the solver takes L = T D C / sigma, T
being the change of basis of the columns of Z (see `gaussian.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from finetti.inference.coordinates import (
    Coordinate,
    CorrelationBlock,
    cholesky_slopes,
    correlation_of,
    is_fixed,
)
from finetti.model.priors import Flat, Normal, Prior

__all__ = ["FactorSpec", "Hyperparameters"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FactorSpec:
    """The hyperparameters of one grouping factor.

    `sd_at` holds, per coefficient, the position in theta or -1 with the held value in `sd_value`;
    `cor_at` the first position in theta of each block's correlations.
    """

    name: str
    coefficients: tuple[str, ...]
    n_levels: int
    pooling: str
    sd_at: tuple[int, ...]
    sd_value: tuple[float, ...]
    blocks: tuple[CorrelationBlock, ...]
    cor_at: tuple[int, ...]
    held: Floats | None = None  # (q, q) covariance factor at which an empirical term is held

    @property
    def q(self) -> int:
        return len(self.coefficients)

    @property
    def modelled(self) -> bool:
        """Whether the term has a parent distribution with hyperparameters."""
        return self.pooling in ("partial", "empirical")

    def sds(self, theta: Floats, coordinates: tuple[Coordinate, ...]) -> Floats:
        """Standard deviations (S, q)."""
        if self.held is not None:
            return np.tile(np.sqrt(np.sum(self.held**2, axis=1)), (theta.shape[0], 1))
        out = np.empty((theta.shape[0], self.q))
        for k, (at, value) in enumerate(zip(self.sd_at, self.sd_value, strict=True)):
            out[:, k] = coordinates[at].natural(theta[:, at]) if at >= 0 else value
        return out

    def correlation_cholesky(self, theta: Floats) -> Floats:
        """Block-diagonal Cholesky factor C (S, q, q) of the correlation matrix."""
        C = np.zeros((theta.shape[0], self.q, self.q))
        C[:, np.arange(self.q), np.arange(self.q)] = 1.0
        if self.held is not None:
            raise AssertionError("an empirical term has a covariance factor, not a correlation factor")
        for block, at in zip(self.blocks, self.cor_at, strict=True):
            part = block.cholesky(theta[:, at : at + block.size])
            C[:, np.array(block.members)[:, None], np.array(block.members)] = part
        return C

    def labels(self) -> tuple[str, ...]:
        """Labels of standard deviations and correlations, in the order users see them."""
        if not self.modelled:
            return ()
        names = [f"sd_{self.name}[{c}]" for c in self.coefficients]
        for block in self.blocks:
            m = block.members
            names += [
                f"cor_{self.name}[{self.coefficients[m[i]]}, {self.coefficients[m[j]]}]"
                for i in range(len(m))
                for j in range(i + 1, len(m))
            ]
        return tuple(names)


@dataclass(frozen=True)
class Hyperparameters:
    """All coordinates of theta, in order: standard deviations, correlations, sigma, coefficients."""

    coordinates: tuple[Coordinate | None, ...]  # None where theta holds a partial correlation
    names: tuple[str, ...]  # of the coordinates of theta, for diagnostics
    factors: tuple[FactorSpec, ...]
    sigma_at: int  # position in theta, -1 held at sigma_value, -2 no sigma
    sigma_value: float
    given: tuple[tuple[str, int, float], ...]  # coefficients not integrated: label, position or -1, value

    @classmethod
    def build(
        cls,
        factors: list[tuple[str, tuple[str, ...], tuple[tuple[int, ...], ...], int, str]],
        priors: Mapping[str, Prior],
        given: tuple[str, ...],
        units: tuple[tuple[float, float], ...] = (),
    ) -> Hyperparameters:
        """Lay out theta.

        Parameters
        ----------
        factors : list of (name, coefficients, blocks, number of levels, pooling)
        priors : dict
            Resolved priors by label.
        given : tuple of str
            Labels of the coefficients whose prior is not Gaussian.
        units : tuple of (centre, unit)
            Of these coefficients, from the data, so that their coordinates are of order one.
        """
        coordinates: list[Coordinate | None] = []
        names: list[str] = []

        def scalar(
            label: str, prior: Prior, coefficient: bool = False, centre: float = 0.0, unit: float = 1.0
        ) -> tuple[int, float]:
            if is_fixed(prior):
                return -1, float(prior.value)  # type: ignore[attr-defined]
            coordinates.append(Coordinate(label, prior, coefficient, centre, unit))
            names.append(label)
            return len(names) - 1, np.nan

        specs = []
        for name, coefs, blocks, n_levels, pooling in factors:
            if pooling not in ("partial", "empirical"):
                held = 0.0 if pooling == "complete" else np.inf
                specs.append(
                    FactorSpec(name, coefs, n_levels, pooling, (-1,) * len(coefs), (held,) * len(coefs), (), ())
                )
                continue
            at, value = zip(*(scalar(f"sd_{name}[{c}]", priors[f"sd_{name}[{c}]"]) for c in coefs), strict=True)
            cors, cor_at = [], []
            for members in blocks:
                if len(members) > 1:
                    block = CorrelationBlock(tuple(members), priors[f"cor_{name}"])
                    cors.append(block)
                    cor_at.append(len(names))
                    coordinates += [None] * block.size
                    names += [f"cor_{name} ({j + 1})" for j in range(block.size)]
            specs.append(FactorSpec(name, coefs, n_levels, pooling, at, value, tuple(cors), tuple(cor_at)))
        sigma = scalar("sigma", priors["sigma"]) if "sigma" in priors else (-2, 1.0)
        units = units or ((0.0, 1.0),) * len(given)
        held_out = tuple(
            (label, *scalar(label, priors[label], True, *unit)) for label, unit in zip(given, units, strict=True)
        )
        return cls(tuple(coordinates), tuple(names), tuple(specs), *sigma, held_out)

    @property
    def d(self) -> int:
        return len(self.names)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Hyperparameters as users see them (coefficients are reported with the population's)."""
        out = [label for f in self.factors for label in f.labels()]
        return tuple(out + (["sigma"] if self.sigma_at >= -1 else []))

    def sigma(self, theta: Floats) -> Floats:
        """Residual standard deviation (S,), 1 where the model has none."""
        if self.sigma_at < 0:
            return np.full(theta.shape[0], self.sigma_value)
        c = self.coordinates[self.sigma_at]
        assert c is not None
        return c.natural(theta[:, self.sigma_at])

    def given_values(self, theta: Floats) -> Floats:
        """Values (S, F) of the coefficients that are not integrated."""
        out = np.empty((theta.shape[0], len(self.given)))
        for k, (_, at, value) in enumerate(self.given):
            out[:, k] = theta[:, at] if at >= 0 else value
            if at >= 0:
                c = self.coordinates[at]
                assert c is not None
                out[:, k] = c.natural(theta[:, at])
        return out

    def natural(self, theta: Floats) -> dict[str, Floats]:
        """Every hyperparameter by label, (S,) each."""
        out: dict[str, Floats] = {}
        for f in self.factors:
            if not f.modelled:
                continue
            sds = f.sds(theta, self.coordinates)  # type: ignore[arg-type]
            values = [sds[:, k] for k in range(f.q)]
            if f.blocks:
                if f.held is None:
                    R = correlation_of(f.correlation_cholesky(theta))
                else:
                    R = np.tile(_correlation(f.held @ f.held.T), (theta.shape[0], 1, 1))
                values += [
                    R[:, b.members[i], b.members[j]]
                    for b in f.blocks
                    for i in range(len(b.members))
                    for j in range(i + 1, len(b.members))
                ]
            out.update(zip(f.labels(), values, strict=True))
        if self.sigma_at >= -1:
            out["sigma"] = self.sigma(theta)
        return out

    def covariance_factor(self, index: int, theta: Floats) -> Floats:
        """L = D C (S, q, q) of factor `index` in raw coordinates; Sigma = L L'."""
        f = self.factors[index]
        if f.held is not None:
            return np.tile(f.held, (theta.shape[0], 1, 1))
        sds = f.sds(theta, self.coordinates)  # type: ignore[arg-type]
        return sds[:, :, None] * f.correlation_cholesky(theta)

    def log_prior(self, theta: Floats) -> Floats:
        """log p(theta) with Jacobians, (S,)."""
        total = np.zeros(theta.shape[0])
        for k, c in enumerate(self.coordinates):
            if c is not None:
                total += c.log_density(theta[:, k])
        for f in self.factors:
            for block, at in zip(f.blocks, f.cor_at, strict=True) if f.held is None else ():
                total += block.log_density(theta[:, at : at + block.size])
        return total

    def log_prior_gradient(self, theta: Floats) -> Floats:
        """Gradient of `log_prior`, (S, d)."""
        out = np.zeros_like(theta)
        for k, c in enumerate(self.coordinates):
            if c is not None:
                out[:, k] = c.gradient(theta[:, k])
        for f in self.factors:
            for block, at in zip(f.blocks, f.cor_at, strict=True) if f.held is None else ():
                part = slice(at, at + block.size)
                out[:, part] = block.gradient(theta[:, part])
        return out

    def chain_covariance(self, theta: Floats, sums: list[Floats]) -> Floats:
        """Gradient of log p(y | theta) through the covariance factors, (S, d).

        With G_f = J I - sum Cov(v_j) - sum v_j v_j' (q x q, whitened), d log p = -tr(G L^-1 dL):
        for a log standard deviation L^-1 dL = C^-1 e e' C, for a correlation C^-1 dC.
        """
        out = np.zeros_like(theta)
        for f, G in zip(self.factors, sums, strict=True):
            if not f.modelled or f.held is not None:
                continue
            C = f.correlation_cholesky(theta)
            GCi = np.linalg.solve(np.swapaxes(C, 1, 2), np.swapaxes(G, 1, 2))  # (G C^-1)'
            GCi = np.swapaxes(GCi, 1, 2)
            diag = np.einsum("sij,sji->si", C, GCi)
            sds = f.sds(theta, self.coordinates)  # type: ignore[arg-type]
            for k, at in enumerate(f.sd_at):
                if at >= 0:
                    c = self.coordinates[at]
                    assert c is not None
                    # d log sd / d theta
                    out[:, at] -= diag[:, k] * np.exp(c.log_slope(theta[:, at])) / sds[:, k]
            for block, at in zip(f.blocks, f.cor_at, strict=True):
                if not block.size:
                    continue
                m = np.array(block.members)
                part = slice(at, at + block.size)
                Cb = C[:, m[:, None], m]
                for j, (i, row) in enumerate(cholesky_slopes(theta[:, part], Cb)):
                    # tr(G C^-1 dC), dC having only row i
                    out[:, at + j] -= np.einsum("sk,sk->s", row, GCi[:, m, m[i]])
        return out

    def sigma_slope(self, theta: Floats) -> Floats:
        """d log sigma / d theta at sigma's coordinate, (S,)."""
        c = self.coordinates[self.sigma_at]
        assert c is not None
        t = theta[:, self.sigma_at]
        return np.exp(c.log_slope(t)) / c.natural(t)

    def given_slopes(self, theta: Floats) -> list[tuple[int, int, Floats]]:
        """(index among the given, position in theta, d value / d theta) of the free coefficients."""
        out = []
        for k, (_, at, _) in enumerate(self.given):
            if at >= 0:
                c = self.coordinates[at]
                assert c is not None
                out.append((k, at, np.exp(c.log_slope(theta[:, at]))))
        return out

    def hold(self, factors: dict[int, Floats], sigma: float | None, given: Floats | None) -> Hyperparameters:
        """The same with some covariance factors, and perhaps sigma and the given coefficients, held.

        `factors` maps positions to (q, q) factors. Coordinates that are held leave theta.
        """
        gone: set[int] = set()
        for i in factors:
            f = self.factors[i]
            gone |= {at for at in f.sd_at if at >= 0}
            for block, at in zip(f.blocks, f.cor_at, strict=True):
                gone |= set(range(at, at + block.size))
        if sigma is not None and self.sigma_at >= 0:
            gone.add(self.sigma_at)
        if given is not None:
            gone |= {at for _, at, _ in self.given if at >= 0}
        stay = [i for i in range(self.d) if i not in gone]
        new = {old: i for i, old in enumerate(stay)}

        def moved(at: int) -> int:
            return new.get(at, -1) if at >= 0 else at

        specs = tuple(
            replace(
                f,
                sd_at=tuple(moved(at) for at in f.sd_at),
                cor_at=tuple(max(moved(at), 0) for at in f.cor_at),
                held=factors.get(i, f.held),
            )
            for i, f in enumerate(self.factors)
        )
        held_sigma = sigma is not None and self.sigma_at >= -1
        return Hyperparameters(
            tuple(self.coordinates[i] for i in stay),
            tuple(self.names[i] for i in stay),
            specs,
            -1 if held_sigma else moved(self.sigma_at),
            sigma if held_sigma and sigma is not None else self.sigma_value,
            tuple(
                (label, moved(at) if given is None else -1, value if given is None else float(given[k]))
                for k, (label, at, value) in enumerate(self.given)
            ),
        )


def _correlation(covariance: Floats) -> Floats:
    """Correlation matrix, NaN where a standard deviation is zero, exactly one at a singular edge."""
    sd = np.sqrt(np.diag(covariance))
    with np.errstate(all="ignore"):
        R = covariance / np.outer(sd, sd)
    R[np.abs(np.abs(R) - 1.0) < 1e-9] = np.sign(R[np.abs(np.abs(R) - 1.0) < 1e-9])
    return R


def is_gaussian(prior: Prior) -> bool:
    """Whether a coefficient with this prior can be integrated out exactly."""
    return isinstance(prior, Normal | Flat)
