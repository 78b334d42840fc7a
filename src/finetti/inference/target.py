"""The marginal posterior of theta of a Gaussian model, as the outer step wants it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetti.inference.gaussian import GaussianInner
from finetti.model.priors import StudentT

__all__ = ["GaussianTarget"]

Floats = npt.NDArray[np.float64]

# counted operations per second of scattered updates, in-kernel factorisation and LAPACK:
# nominal figures of one present-day core; they only decide which regime a model belongs to
SCATTER, SMALL, LAPACK = 1e9, 1.5e9, 1.5e10


# nominal seconds of a node beyond which one start must do; the proposal's wide component and Pareto's k stay on guard
COSTLY = 4e-5


@dataclass(frozen=True)
class GaussianTarget:
    """log p(theta) + log p(y | theta) in unconstrained coordinates; payload: moments of beta."""

    inner: GaussianInner

    @property
    def names(self) -> tuple[str, ...]:
        return self.inner.hyper.names

    @property
    def cost(self) -> float:
        """Nominal seconds per node from operation counts."""
        system = self.inner.system
        pat, p = system.layout.pattern, system.X.shape[1]
        total = 0.0
        for d, q in enumerate(pat.q):
            lists = np.diff(pat.dense_ptr[pat.first[d] : pat.first[d + 1] + 1])
            later = float(pat.q[d + 1 :].sum()) + lists + p + 1
            total += float(np.sum(q * (q * (q + later) + 0.5 * later**2) + 20.0)) / SCATTER
        k = system.k
        total += (k**3 / 3.0) / (SMALL if system.small else LAPACK) + k**2 / SCATTER
        if system.se2.size:
            total += system.y.size * 0.5 * (system.Zl.shape[1] + system.Zd.shape[1] + p + 1) ** 2 / SCATTER
        return total

    def log_density(self, theta: Floats) -> tuple[Floats, tuple[Floats, ...]]:
        with np.errstate(all="ignore"):  # nodes far out may overflow: they come back as NaN or -inf
            values = self.inner.values(theta)
            log_density = values.log_marginal + self.inner.hyper.log_prior(theta)
            return log_density, (values.beta_mean, values.beta_var)

    def gradient(self, theta: Floats) -> tuple[Floats, Floats]:
        with np.errstate(all="ignore"):
            value, slope = self.inner.gradient(theta)
            hyper = self.inner.hyper
            return value + hyper.log_prior(theta), slope + hyper.log_prior_gradient(theta)

    def spread(self) -> float:
        """sd of the response around the population's least-squares fit (or the typical known error)."""
        design, y = self.inner.bound.design, self.inner.basis.y
        spread = float(np.sqrt(np.sum(y**2) / max(y.size - len(self.inner.basis.integrated), 1)))
        floor = float(np.mean(design.se)) if design.se is not None else 1e-3 * self.inner.bound.scales.y_sd
        return max(spread, 0.5 * floor)

    def starts(self) -> Floats:
        """From one-way moments, then small and large group variation; the first only where evaluations are dear."""
        first = self.start(self.moments())
        starts = [first] if self.cost > COSTLY else [first, self.start(0.05, 1.0), self.start(1.0, 0.3)]
        return np.array(starts + self.conflicts(first))

    def conflicts(self, first: Floats) -> list[Floats]:
        """Starts where an explored coefficient is at the centre of its prior, far from where the data have it.

        A heavy-tailed prior in conflict with the data has a mode of its own there, which no other start would find.
        """
        everywhere, out = first.copy(), []
        for (_, at, _), value in zip(self.inner.hyper.given, self.inner.basis.given_shift, strict=True):
            c = self.inner.hyper.coordinates[at] if at >= 0 else None
            if c is not None and isinstance(c.prior, StudentT) and abs(value - c.prior.mean) > 2.0 * c.prior.scale:
                theta = first.copy()
                everywhere[at] = theta[at] = c.theta(c.prior.mean)
                out.append(theta)
        return [*out, everywhere] if len(out) > 1 else out

    def moments(self) -> dict[str, float]:
        """One-way analysis of variance of each factor: its intercept's sd as a share of the spread.

        Crossed factors disturb each other's little; it is where the climb begins.
        """
        e, design = self.inner.basis.y, self.inner.bound.design
        n, total = e.size, float(e @ e)
        out = {}
        for f in design.factors:
            count = np.bincount(f.index, minlength=len(f.levels)).astype(float)
            sums = np.bincount(f.index, weights=e, minlength=len(f.levels))
            between, J = float(np.sum(sums**2 / count)), count.size
            known = 0.0 if design.se is None else float(np.mean(design.se**2))
            within = (total - between) / (n - J) if n > J else max(known, 0.5 * total / n)
            variance = (between - J * within) / max(n - float(np.sum(count**2)) / n, 1.0)
            out[f.name] = float(np.sqrt(np.clip(variance, 0.0, None)) / self.spread())
        return out

    def start(self, group: float | dict[str, float], residual: float | None = None) -> Floats:
        """theta with group sds at shares of the spread (intercepts by factor, or all), sigma too, correlations zero."""
        hyper, scales = self.inner.hyper, self.inner.bound.scales
        spread = self.spread()
        if residual is None:
            assert isinstance(group, dict)
            residual = float(np.sqrt(max(1.0 - sum(v * v for v in group.values()), 0.1)))
        theta = np.zeros(hyper.d)
        for f in hyper.factors:
            for c, at in zip(f.coefficients, f.sd_at, strict=True):
                if at >= 0:
                    unit = 1.0 if c == "Intercept" else max(scales.z_sd[(f.name, c)], 1e-300)
                    # slopes begin at half the spread; nothing at a variance of zero, where the log has no slope
                    share = group if isinstance(group, float) else (group[f.name] if c == "Intercept" else 0.5)
                    theta[at] = hyper.coordinates[at].theta(np.clip(share, 0.05, 1.0) * spread / unit)  # type: ignore[union-attr]
        if hyper.sigma_at >= 0:
            theta[hyper.sigma_at] = hyper.coordinates[hyper.sigma_at].theta(residual * spread)  # type: ignore[union-attr]
        for (_, at, _), value in zip(hyper.given, self.inner.basis.given_shift, strict=True):
            if at >= 0:
                theta[at] = hyper.coordinates[at].theta(float(value))  # type: ignore[union-attr]
        return theta

    def curvature(self) -> Floats:
        """Information in theta if everything were observed: rough, only for first steps."""
        hyper, n = self.inner.hyper, self.inner.system.y.size
        out = np.ones(hyper.d)
        for f in hyper.factors:
            out[[at for at in f.sd_at if at >= 0]] = max(0.5 * f.n_levels, 1.0)
            for block, at in zip(f.blocks, f.cor_at, strict=True):
                out[at : at + block.size] = max(0.5 * f.n_levels, 1.0)
        if hyper.sigma_at >= 0:
            out[hyper.sigma_at] = max(1.5 * n, 1.0)
        return out  # a given coefficient is explored in units of its standard error
