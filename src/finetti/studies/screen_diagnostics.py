"""How a screen was computed, and whether it passed its own checks, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetti.inference.hyper import UPPER_90, Settings
from finetti.model.densities import Fixed
from finetti.studies.screen_by import ByCurve, ByGroup
from finetti.studies.screen_by_fit import SETTINGS as BY
from finetti.studies.screen_input import FEW

if TYPE_CHECKING:
    from finetti.studies.screen import Screen

__all__ = ["ScreenDiagnostics", "diagnose"]


# null sds from which a test is called far out, the fewest that can be lopsided, and the share that makes them so
FAR_OUT, FEWEST_FAR_OUT, LOPSIDED = 3.0, 20, 0.8


@dataclass(frozen=True)
class ScreenDiagnostics:
    """How a screen was computed, and whether it passed its own checks.

    Attributes
    ----------
    method, ok : what was done, and whether every check passed
    n_tests, n_nodes, n_modes : tests, hyperparameter nodes, modes found
    effective_nodes : 1 / sum of squared weights
    pareto_k, pareto_threshold : shape of the largest weights, and the most that is reliable
    worst_mean_error, worst_quantile_error : upper 90 % bounds of the Monte Carlo error, in posterior sds
    duality_gap : of a mixture: upper bound of what better weights would add to the log-likelihood; else 0
    seconds : wall time of the inference
    warnings : what the user should know, each with advice
    """

    method: str
    ok: bool
    n_tests: int
    n_nodes: int
    n_modes: int
    effective_nodes: float
    pareto_k: float
    pareto_threshold: float
    worst_mean_error: float
    worst_quantile_error: float
    duality_gap: float
    seconds: float
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """Sentences for print, report and command line; warnings last."""
        if self.n_nodes == 1:
            out = [f"Method: {self.method}; hyperparameters at one value."]
            if self.duality_gap > 0.0:
                out.append(f"Duality gap of the weights: {self.duality_gap:.1e} (no weights are better by more).")
        else:
            verdict = "reliable" if self.pareto_k < self.pareto_threshold else "NOT reliable"
            out = [
                f"Method: {self.method}. {self.n_nodes} hyperparameter nodes, worth {self.effective_nodes:.0f} "
                f"independent draws; {self.n_modes} mode{'s' if self.n_modes > 1 else ''}.",
                f"Pareto k of the weights: {self.pareto_k:.2f} ({verdict}; the limit is {self.pareto_threshold:.2f}).",
                f"Monte Carlo error, in posterior sds: at most {self.worst_mean_error:.3f} for means and sds, "
                f"{self.worst_quantile_error:.3f} for quantiles.",
            ]
        out.append("All checks passed." if self.ok else "CHECKS FAILED: do not rely on these numbers.")
        return out + [f"Warning: {w}" for w in self.warnings]


def diagnose(s: Screen) -> ScreenDiagnostics:
    """Collect the facts of a screen."""
    settings = BY if isinstance(s.learned, (ByCurve, ByGroup)) or s.tests.sets is not None else Settings()
    told: list[str] = []
    posterior, ok = s.posterior, True
    mean_error = quantile_error = 0.0
    if posterior.n_nodes > 1:
        with np.errstate(all="ignore"):
            worst = np.maximum(posterior.mean_mcse, posterior.sd_mcse)
            mean_error = float(np.max(UPPER_90 * worst / posterior.sd))
            quantile_error = float(np.max(UPPER_90 * posterior.quantile_mcse / posterior.sd))
        if not posterior.pareto_k < posterior.threshold:
            ok = False
            told.append(
                f"importance sampling failed its check (Pareto k {posterior.pareto_k:.2f}, limit "
                f"{posterior.threshold:.2f}): the posterior of the hyperparameters has a shape that was not covered. "
                "Use null='theoretical' or more informative priors"
            )
        if not posterior.met:
            ok = False
            told.append(
                f"the Monte Carlo error is above its target (means and sds {mean_error:.3f} against "
                f"{settings.mean_error}, quantiles {quantile_error:.3f} against {settings.quantile_error} posterior "
                "sds). Use null='theoretical' or more informative priors"
            )
        if posterior.modes is not None and len(posterior.modes.theta) > 1:
            told.append(
                f"the posterior of the hyperparameters has {len(posterior.modes.theta)} modes; all were visited and "
                "weighted"
            )
    if s.estimate is not None:
        if not s.estimate.converged:
            ok = False
            told.append("the maximisation of the marginal likelihood did not converge")
        if s.estimate.boundary:
            told.append(
                f"estimated at the edge of the possible values: {', '.join(s.estimate.boundary)}. Maximum likelihood "
                "then claims a certainty that the data do not give; compare method='full'"
            )
        if s.slab.name == "mixture" and s.null == "free":
            told.append("the null was estimated beside one normal slab and held for the mixture")
    one_sided = _one_sided(s)
    if one_sided is not None:
        told.append(one_sided)
    if s.n_tests < FEW:
        told.append(
            f"there are only {s.n_tests} tests: what is said of pi0 and the slab rests on the priors"
            + ("" if s.method == "full" else ", and maximum likelihood has none; give method='full'")
        )
    return ScreenDiagnostics(
        s.method, ok, s.n_tests, posterior.n_nodes, 1 if posterior.modes is None else len(posterior.modes.theta),
        posterior.effective_nodes, posterior.pareto_k, posterior.threshold, mean_error, quantile_error,
        s.estimate.gap if s.estimate is not None else 0.0, s.seconds, tuple(told),
    )  # fmt: skip


def _one_sided(s: Screen) -> str | None:
    """What to say if effects are mostly of one sign, which a slab that is symmetric does not expect.

    Under the model a test is as likely to lie far above the null as far below it. Where effects have one sign, a null
    that is free to move is bent towards them, and power is lost.
    """
    if "null_mean" not in s.learned.names or isinstance(s.priors["null_mean"], Fixed):
        return None
    nodes, weights = s.learned.few
    w = weights if weights.ndim == 1 else weights.mean(axis=1)
    e = (s.tests.z - w @ nodes.mu) / (w @ nodes.kappa)
    above, below = int(np.sum(e > FAR_OUT)), int(np.sum(e < -FAR_OUT))
    total, drawn = above + below, float(w @ nodes.mu)
    many, side = (above, "above") if above > below else (below, "below")
    if total < FEWEST_FAR_OUT or many < LOPSIDED * total or (drawn > 0.0) != (above > below):
        return None
    return (
        f"of the {total} tests beyond {FAR_OUT:g} null sds {many} lie {side}: the effects are mostly of one sign, the "
        f"slab is symmetric, and so the null's mean is drawn towards them ({drawn:.3f} standard errors). If "
        "nothing but effects can shift a test, hold it: priors={'null_mean': fi.fixed(0)}"
    )
