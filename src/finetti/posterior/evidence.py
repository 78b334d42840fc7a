"""Marginal likelihood of a model, a by-product of the weighted nodes."""

from __future__ import annotations

from typing import NamedTuple

from finetti.errors import InferenceError, PriorError
from finetti.inference.infer import Inference

__all__ = ["Evidence", "log_evidence"]


class Evidence(NamedTuple):
    """Natural log of the evidence p(y), and its Monte Carlo standard error."""

    log: float
    mcse: float


def log_evidence(inference: Inference) -> Evidence:
    """See `Fit.evidence`."""
    bound = inference.bound
    used = set(inference.coordinates.names) | {f"cor_{f.name}" for f in inference.coordinates.factors}
    improper = [
        label
        for label, prior in bound.priors.items()
        if not prior.proper and (label in used or label == "Intercept" or label.startswith("beta["))
    ]
    unpooled = [name for name, kind in bound.pooling.items() if kind == "none"]
    if improper:
        raise PriorError(
            f"the evidence needs proper priors: that of {', '.join(improper)} is improper, so that it is only "
            "defined up to a constant. Give it a proper prior, such as normal(mean, sd) or half_t(3, scale)"
        )
    if unpooled:
        raise PriorError(
            f"the evidence needs proper priors: the unpooled coefficients of {', '.join(unpooled)} have none. "
            "Fit with pooling='partial' or 'complete'"
        )
    if inference.estimate is not None:
        raise PriorError(
            "empirical Bayes has no evidence: its hyperparameters were maximised, not integrated over. "
            "Fit with pooling='partial'; the maximised log marginal likelihood is in fit.diagnostics.log_marginal"
        )
    if inference.sampled is not None:
        raise InferenceError(
            f"this fit was made by NUTS (method {inference.method!r}), whose draws do not give the evidence; fit with "
            "method='exact' and read its diagnostics"
        )
    return Evidence(inference.hyper.log_evidence, inference.hyper.log_evidence_mcse)
