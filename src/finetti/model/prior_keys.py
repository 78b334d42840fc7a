"""Which key speaks of which kind of parameter, and which priors suit that kind.

The kinds are those of the model: a population `coefficient` (any real number), a `sd` (of a parent
distribution, >= 0), `sigma` (the residual sd, > 0) and a `correlation` matrix of a parent distribution.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from numbers import Real
from typing import Any, Literal

from finetti.errors import PriorError
from finetti.model.formula import Formula
from finetti.model.priors import Fixed, Flat, Lkj, Normal, Prior, StudentT, Uniform

__all__ = ["Kind", "check_key", "check_one_intercept", "check_priors", "check_suits", "group_names", "has_sigma"]

Kind = Literal["coefficient", "sd", "sigma", "correlation"]

CLASSES: Mapping[str, Kind] = {"beta": "coefficient", "sd": "sd", "cor": "correlation", "sigma": "sigma"}

_WORDS: Mapping[Kind, str] = {
    "coefficient": "a population coefficient, which is any real number",
    "sd": "a standard deviation, which is not negative",
    "sigma": "the residual standard deviation, which is positive",
    "correlation": "a correlation matrix",
}


def group_names(formula: Formula) -> tuple[str, ...]:
    """Names of the grouping factors, each once, in the order of the formula."""
    return tuple(dict.fromkeys(term.name for term in formula.groups))


def has_sigma(formula: Formula) -> bool:
    """Whether the residual sd is a parameter: not when se() gives the whole error."""
    return formula.response.se is None or formula.response.se_sigma


def no_sigma() -> str:
    return (
        "sigma does not exist in this model: the standard errors in se() are the whole error of the response. "
        "Drop the key 'sigma', or write se(..., sigma=True) to estimate a residual sd on top of them."
    )


def close_first(given: str, options: list[str]) -> str:
    """List every valid key, and before the list the one that was probably meant."""
    close = get_close_matches(given, options, n=1, cutoff=0.6)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return hint + "Valid keys: " + ", ".join(repr(o) for o in options) + "."


def check_key(key: str, formula: Formula) -> Kind:
    """Return the kind of parameter that `key` speaks of, as far as that is known before data.

    >>> from finetti.model.formula import parse
    >>> check_key("sd_Subject[Days]", parse("Reaction ~ 1 + Days + (1 + Days | Subject)"))
    'sd'
    """
    if key == "sigma" and not has_sigma(formula):
        raise PriorError(no_sigma())
    if key in ("sd", "cor") and not formula.groups:
        raise PriorError(
            f"priors: {key!r} speaks of group terms, and the formula has none. Drop the key, or add a term '(1 | g)'."
        )
    if key in CLASSES:
        return CLASSES[key]
    if key == "Intercept" or _is_member(key, "beta"):
        return "coefficient"
    for name in group_names(formula):
        if key == f"sd_{name}" or _is_member(key, f"sd_{name}"):
            return "sd"
        if key == f"cor_{name}" or _is_member(key, f"cor_{name}"):
            return "correlation"
        if key == f"u_{name}" or _is_member(key, f"u_{name}"):
            raise PriorError(
                f"priors: {key!r} names group effects, whose distribution is the parent's: "
                f"normal with standard deviations under 'sd_{name}' and correlations under 'cor_{name}'."
            )
    options = ["Intercept", "beta", "beta[...]"]
    for name in group_names(formula):
        options += [f"sd_{name}", f"sd_{name}[...]", f"cor_{name}"]
    options += (["sd", "cor"] if formula.groups else []) + (["sigma"] if has_sigma(formula) else [])
    raise PriorError(f"priors: {key!r} names no parameter of this model. {close_first(key, options)}")


def _is_member(key: str, variable: str) -> bool:
    return key.startswith(f"{variable}[") and key.endswith("]") and len(key) > len(variable) + 2


def check_priors(priors: Any, formula: Formula) -> dict[str, Prior]:
    """Return the user's priors as a checked dict, or say what is wrong with the first that does not fit."""
    if priors is None:
        return {}
    if not isinstance(priors, Mapping):
        raise PriorError(
            f"priors={priors!r} is of type {type(priors).__name__}; give a dict such as "
            "{'sd': fi.half_cauchy(5), 'beta': fi.normal(0, 10)}."
        )
    checked: dict[str, Prior] = {}
    for key, prior in priors.items():
        if not isinstance(key, str):
            raise PriorError(
                f"priors: the key {key!r} is of type {type(key).__name__}; keys are text, such as 'sd' or 'sigma'."
            )
        _check_value(key, prior)
        check_suits(prior, check_key(key, formula), key)
        checked[key] = prior
    check_one_intercept(checked)
    return checked


def check_one_intercept(priors: Mapping[str, Prior]) -> None:
    """Refuse two priors for the one intercept."""
    if "Intercept" in priors and "beta[Intercept]" in priors:
        raise PriorError(
            "priors: 'Intercept' (the predictor at the covariates' means) and 'beta[Intercept]' (the coefficient "
            "itself, where every covariate is 0) are two priors for one parameter; give one of them."
        )


def _check_value(key: str, prior: Any) -> None:
    if isinstance(prior, Prior):
        return
    if isinstance(prior, Real):
        advice = f"use fi.fixed({prior}) to hold the parameter there, or a distribution such as fi.normal(0, {prior})"
    elif isinstance(prior, str):
        advice = f"write it without quotes, as in fi.{prior}" if "(" in prior else "use one such as fi.normal(0, 5)"
    elif callable(prior):
        advice = f"call it with its arguments, as in fi.{getattr(prior, '__name__', 'normal')}(...)"
    else:
        advice = "use one such as fi.normal(0, 5) or fi.half_t(3, 1)"
    raise PriorError(f"priors: {key!r} was given {prior!r}, which is not a prior; {advice}.")


def check_suits(prior: Prior, kind: Kind, key: str) -> None:
    """Refuse a prior whose support does not fit the parameter, and name one that does."""
    advice = _misfit(prior, kind)
    if advice:
        raise PriorError(f"priors: {key!r} is {_WORDS[kind]}; {prior} does not suit it. {advice}")


def _misfit(prior: Prior, kind: Kind) -> str | None:
    if kind == "coefficient":
        if isinstance(prior, (Normal, StudentT, Uniform, Flat, Fixed)):
            return None
        return "Use fi.normal, fi.student_t, fi.uniform, fi.flat or fi.fixed."
    if kind == "correlation":
        if isinstance(prior, Lkj) or prior == Uniform(-1.0, 1.0):
            return None
        if isinstance(prior, Fixed):
            return None if -1.0 < prior.value < 1.0 else "A held correlation lies strictly between -1 and 1."
        return "Use fi.lkj(eta), fi.fixed(value), or fi.uniform(-1, 1) for a single correlation."
    return _sd_misfit(prior, positive=kind == "sigma")


def _sd_misfit(prior: Prior, *, positive: bool) -> str | None:
    if isinstance(prior, Normal):
        return f"Use fi.half_normal({prior.sd:.4g})."
    if isinstance(prior, StudentT):
        return f"Use fi.half_t({prior.df:.4g}, {prior.scale:.4g})."
    if isinstance(prior, Lkj):
        return "Use fi.half_t(3, scale), fi.half_normal(scale) or another prior on [0, inf)."
    if positive and prior.from_errors:
        return "It is made from known standard errors, and then there is no sigma. Use fi.half_t(3, scale)."
    if isinstance(prior, Fixed):
        if prior.value < 0.0 or (positive and prior.value == 0.0):
            return f"Hold it at a value {'above 0' if positive else 'of 0 or more'}."
        return None
    if isinstance(prior, Uniform) and prior.low < 0.0:
        return f"Use {'fi.' + str(Uniform(0.0, prior.high)) if prior.high > 0.0 else 'an interval within [0, inf)'}."
    # The others live on [0, inf), or on a part of it; flat() is read as constant above 0.
    return None
