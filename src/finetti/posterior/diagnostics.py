"""`Diagnostics`: how the posterior was computed and whether it passed its own checks, in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from finetti.inference.hyper import UPPER_90, Settings
from finetti.inference.infer import Inference

__all__ = ["Diagnostics", "diagnose"]


@dataclass(frozen=True)
class Diagnostics:
    """Plain facts about one fit.

    Attributes
    ----------
    method, reason : what was done and why it was chosen
    ok : whether every check passed
    n_hyperparameters, n_nodes : free hyperparameters, and nodes they were evaluated at
    effective_nodes : 1 / sum of squared weights
    pareto_k, pareto_threshold : shape of the largest weights, and the most that is reliable for this many nodes
    worst_mean_error, worst_quantile_error : upper 90 % bounds of the Monte Carlo error, in posterior sds
    mode_converged, n_modes : of the search for the posterior mode
    log_marginal : log p(y | theta) at the estimate (empirical Bayes), else NaN
    seconds : wall time of the inference
    warnings : what the user should know, each with advice
    """

    method: str
    reason: str
    ok: bool
    n_hyperparameters: int
    n_nodes: int
    effective_nodes: float
    pareto_k: float
    pareto_threshold: float
    worst_mean_error: float
    worst_quantile_error: float
    mode_converged: bool
    n_modes: int
    log_marginal: float
    seconds: float
    warnings: tuple[str, ...]

    def lines(self) -> list[str]:
        """Sentences for print, report and command line; warnings last."""
        out = [f"Method: {self.method}. {self.reason[0].upper()}{self.reason[1:]}."]
        if self.n_hyperparameters:
            out.append(
                f"Nodes: {self.n_nodes}, worth {self.effective_nodes:.0f} independent draws of the hyperparameters "
                f"({100 * self.effective_nodes / self.n_nodes:.0f} %)."
            )
            k = "below 0" if self.pareto_k < 0 else f"{self.pareto_k:.2f}"
            verdict = "reliable" if self.pareto_k < self.pareto_threshold else "NOT reliable"
            out.append(f"Pareto k of the weights: {k} ({verdict}; the limit is {self.pareto_threshold:.2f}).")
            out.append(
                f"Monte Carlo error, in posterior sds: at most {self.worst_mean_error:.3f} for means and sds, "
                f"{self.worst_quantile_error:.3f} for quantiles of the hyperparameters."
            )
        if np.isfinite(self.log_marginal):
            out.append(
                f"Log marginal likelihood at the estimate: {self.log_marginal:.4f} "
                f"(-2 times it: {-2 * self.log_marginal:.4f})."
            )
        out.append("All checks passed." if self.ok else "CHECKS FAILED: do not rely on these numbers.")
        out += [f"Warning: {w}" for w in self.warnings]
        return out

    def as_dict(self) -> dict[str, Any]:
        """Every field, for files and tests."""
        return asdict(self)


def diagnose(inference: Inference, unidentified: tuple[str, ...]) -> Diagnostics:
    """Collect the facts of an inference."""
    hyper, design = inference.hyper, inference.bound.design
    settings = Settings()
    warnings: list[str] = []
    d = inference.coordinates.d
    mean_error = quantile_error = 0.0
    ok = True
    if d:
        with np.errstate(all="ignore"):
            mean_error = float(np.max(UPPER_90 * np.maximum(hyper.mean_mcse, hyper.sd_mcse) / hyper.sd))
            quantile_error = float(np.max(UPPER_90 * hyper.quantile_mcse / hyper.sd))
        if not hyper.pareto_k < hyper.threshold:
            ok = False
            warnings.append(
                f"importance sampling failed its check (Pareto k {hyper.pareto_k:.2f}, limit {hyper.threshold:.2f}): "
                "the posterior of the hyperparameters has a shape that was not covered. Use more informative priors or "
                "a simpler covariance (`||`); an independent sampler (method='nuts') is not built yet"
            )
        if not hyper.met:
            ok = False
            warnings.append(
                f"the Monte Carlo error is above its target (means and sds {mean_error:.3f} against "
                f"{settings.mean_error}, quantiles {quantile_error:.3f} against {settings.quantile_error} posterior "
                "sds). Use more informative priors on the standard deviations that the data say little about"
            )
        assert hyper.modes is not None
        if not hyper.modes.converged:
            warnings.append(
                "the search for the posterior mode stopped early; the weights correct for it, but check for a "
                "hyperparameter that the data hardly inform"
            )
        if len(hyper.modes.theta) > 1:
            warnings.append(
                f"the posterior of the hyperparameters has {len(hyper.modes.theta)} modes; "
                "all were visited and weighted"
            )
    for label, index in inference.tails.items():
        if index <= 2.0:
            lost = "mean and sd" if index <= 1.0 else "sd"
            warnings.append(
                f"the posterior of {label} has a tail so heavy (index {index:.1f}) that its {lost} "
                f"{'do' if index <= 1.0 else 'does'} not exist and {'are' if index <= 1.0 else 'is'} shown as NaN; "
                "quantiles are sound. A prior with a lighter tail (half_t(3, s), half_normal(s)) would give it moments"
            )
    inherited = [
        f"beta[{c}]" for c, index in zip(design.columns, inference.coefficient_tails, strict=True) if index <= 2.0
    ]
    if inherited:
        warnings.append(
            f"{', '.join(inherited)}: the heavy tail of a group's standard deviation is inherited, and moments that do "
            "not exist are shown as NaN. A proper prior on these coefficients would help, too"
        )
    if unidentified:
        warnings.append("not identified beside unpooled terms, shown as NaN: " + ", ".join(unidentified))
    estimate = inference.estimate
    if estimate is not None:
        if not estimate.converged:
            warnings.append("the maximisation of the marginal likelihood did not converge")
        if estimate.boundary:
            warnings.append(
                "estimated at the edge of the possible values: "
                + ", ".join(estimate.boundary)
                + ". Empirical Bayes then claims a certainty that the data do not give; compare pooling='partial'"
            )
    if design.n_dropped:
        warnings.append(f"{design.n_dropped} rows with missing values were dropped, as asked")
    warnings += design.warnings
    held = estimate is not None and inference.coordinates.d == 0
    return Diagnostics(
        inference.method, inference.reason, ok, d, hyper.n_nodes, hyper.effective_nodes, hyper.pareto_k,
        hyper.threshold, mean_error, quantile_error,
        hyper.modes.converged if hyper.modes is not None else True,
        len(hyper.modes.theta) if hyper.modes is not None else 1,
        estimate.log_marginal if held and estimate is not None else np.nan,
        inference.seconds, tuple(dict.fromkeys(warnings)),
    )  # fmt: skip
