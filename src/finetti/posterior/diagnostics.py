"""`Diagnostics`: how the posterior was computed and whether it passed its own checks, in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from finetti.inference.convergence import HIGHEST_RHAT, LEAST_ESS
from finetti.inference.hyper import UPPER_90, Settings
from finetti.inference.infer import Inference
from finetti.inference.sampled import Sampled

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
    chains, draws, thin : of NUTS; draws are those kept of each chain; zero where it was not used
    rhat, ess_bulk, ess_tail : the worst of all parameters looked at; NaN where NUTS was not used
    worst : for each of these the parameter's label
    divergences : transitions after warmup that NUTS had to abandon
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
    chains: int = 0
    draws: int = 0
    thin: int = 1
    rhat: float = np.nan
    ess_bulk: float = np.nan
    ess_tail: float = np.nan
    divergences: int = 0
    worst: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Sentences for print, report and command line; warnings last."""
        out = [f"Method: {self.method}. {self.reason[0].upper()}{self.reason[1:]}."]
        if self.chains:
            out += self._chain_lines()
        elif self.n_hyperparameters:
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

    def _chain_lines(self) -> list[str]:
        kept = "" if self.thin == 1 else f", every {_ordinal(self.thin)} of those made"
        out = [
            f"Chains: {self.chains} of {self.draws} draws{kept}, {self.divergences} divergences.",
            f"R-hat: at most {self.rhat:.4f}{self._at('rhat')} (the limit is {HIGHEST_RHAT}).",
            f"Effective sample: at least {self.ess_bulk:.0f}{self._at('ess_bulk')} in the bulk, "
            f"{self.ess_tail:.0f}{self._at('ess_tail')} in the tails (at least {LEAST_ESS:.0f} are needed).",
        ]
        if self.n_hyperparameters:
            out.append(
                f"Monte Carlo error, in posterior sds: at most {self.worst_mean_error:.3f} for means, "
                f"{self.worst_quantile_error:.3f} for quantiles of the hyperparameters."
            )
        return out

    def _at(self, what: str) -> str:
        return f" ({self.worst[what]})" if self.worst.get(what) else ""

    def as_dict(self) -> dict[str, Any]:
        """Every field, for files and tests."""
        return asdict(self)


def diagnose(inference: Inference, unidentified: tuple[str, ...]) -> Diagnostics:
    """Collect the facts of an inference."""
    hyper, design = inference.hyper, inference.bound.design
    settings = Settings()
    warnings: list[str] = []
    d, sampled = inference.coordinates.d, inference.sampled
    mean_error = quantile_error = 0.0
    ok = True
    if d:
        sd_error = 0.0 if sampled is not None else hyper.sd_mcse
        with np.errstate(all="ignore"):
            mean_error = float(np.max(UPPER_90 * np.maximum(hyper.mean_mcse, sd_error) / hyper.sd))
            quantile_error = float(np.max(UPPER_90 * hyper.quantile_mcse / hyper.sd))
    if sampled is not None:
        ok = sampled.ok
        warnings += _chain_warnings(sampled, inference.method)
    elif d:
        if not hyper.pareto_k < hyper.threshold:
            ok = False
            warnings.append(
                f"importance sampling failed its check (Pareto k {hyper.pareto_k:.2f}, limit {hyper.threshold:.2f}): "
                "the posterior of the hyperparameters has a shape that was not covered. Use more informative priors or "
                "a simpler covariance (`||`), or sample it: method='nuts'"
            )
        if not hyper.met:
            ok = False
            warnings.append(
                f"the Monte Carlo error is above its target (means and sds {mean_error:.3f} against "
                f"{settings.mean_error}, quantiles {quantile_error:.3f} against {settings.quantile_error} posterior "
                "sds). Use more informative priors on the standard deviations that the data say little about, or "
                "method='nuts'"
            )
    if hyper.modes is not None:
        if not hyper.modes.converged and sampled is None:
            warnings.append(
                "the search for the posterior mode stopped early; the weights correct for it, but check for a "
                "hyperparameter that the data hardly inform"
            )
        if len(hyper.modes.theta) > 1:
            warnings.append(
                f"the posterior of the hyperparameters has {len(hyper.modes.theta)} modes; "
                + ("all were visited and weighted" if sampled is None else "the chains started at all of them")
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
    seen = None if sampled is None else sampled.convergence
    of_chains: dict[str, Any] = (
        {}
        if sampled is None or seen is None
        else {
            "chains": sampled.chains,
            "draws": hyper.n_nodes // sampled.chains,
            "thin": sampled.thin,
            "rhat": seen.rhat,
            "ess_bulk": seen.bulk,
            "ess_tail": seen.tail,
            "divergences": sampled.divergences,
            "worst": {"rhat": seen.rhat_at, "ess_bulk": seen.bulk_at, "ess_tail": seen.tail_at},
        }
    )
    return Diagnostics(
        inference.method, inference.reason, ok, d, hyper.n_nodes,
        hyper.effective_nodes if seen is None else min(seen.bulk, hyper.n_nodes), hyper.pareto_k,
        hyper.threshold, mean_error, quantile_error,
        hyper.modes.converged if hyper.modes is not None else True,
        len(hyper.modes.theta) if hyper.modes is not None else 1,
        estimate.log_marginal if held and estimate is not None else np.nan,
        inference.seconds, tuple(dict.fromkeys(warnings)), **of_chains,
    )  # fmt: skip


def _chain_warnings(sampled: Sampled, method: str) -> list[str]:
    """What the chains have to say against themselves, with advice."""
    seen, out = sampled.convergence, []
    simpler = "Use more informative priors on the standard deviations, or a simpler covariance (`||`)"
    if seen.rhat > HIGHEST_RHAT:
        out.append(
            f"the chains do not agree (R-hat {seen.rhat:.3f} for {seen.rhat_at}, limit {HIGHEST_RHAT}): they have not "
            f"all seen the same posterior, which may have several modes. {simpler}"
            + ("; method='exact' weighs separate modes" if method == "nuts" else "")
        )
    if sampled.divergences:
        out.append(
            f"{sampled.divergences} divergent transitions remain at an acceptance rate of {sampled.target_accept}: "
            f"part of the posterior is too curved to be sampled, and may be missing. {simpler}"
        )
    low, where = min((seen.bulk, seen.bulk_at), (seen.tail, seen.tail_at))
    if low < LEAST_ESS:
        out.append(
            f"the effective sample is too small ({low:.0f} for {where}; {LEAST_ESS:.0f} are needed): the numbers are "
            f"too noisy to be used. {simpler}"
            + ("; method='auto' needs no chains where its checks pass" if method == "nuts" else "")
        )
    return out


def _ordinal(n: int) -> str:
    last = "th" if 10 <= n % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{last}"
