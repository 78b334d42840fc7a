"""From the user's prior keys and the scales of the data to exactly one prior for every parameter.

The narrowest key wins: a label (`sd_Subject[Days]`), then a variable (`sd_Subject`), then a class (`sd`).
What no key reaches gets a weakly informative default that moves with the units, with s the sd of y - offset (with
known standard errors at least their median: studies that happen to agree say nothing about how small an effect is):

    Intercept (the predictor at the covariates' means)   normal(mean(y), 2.5 s)
    slopes                                               normal(0, 2.5 s / sd(x))
    sd_g[Intercept] and sigma                            half_t(3, s)
    sd_g[x]                                              half_t(3, s / sd(x))
    correlations                                         lkj(2)

Without an intercept the slopes alone must carry the level of y, and s / sd(x) knows nothing of it (at y around
1e8 with sd 1 it would hold them near 0); the slopes then get normal(0, 2.5 rms(y) / rms(x)), with rms the root
mean square, which is the same rule measured from 0 instead of from the means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from typing import Protocol

from finetti.errors import PriorError
from finetti.model.prior_keys import Kind, check_one_intercept, check_suits, close_first, no_sigma
from finetti.model.priors import Fixed, HalfT, Lkj, Normal, Prior, Uniform
from finetti.model.scales import Scales

__all__ = ["Blocks", "Parameter", "parameters", "pick", "resolve", "symbolic"]

Blocks = Sequence[Sequence[int]]

# Weakly informative: an effect of 2.5 sd(y) per sd(x) is about as large as effects come (Gelman et al. 2008).
COEFFICIENT_WIDTH = 2.5
SD_DF = 3.0
LKJ_ETA = 2.0


class HasPriors(Protocol):
    """The one thing that is read from a `Model` here."""

    @property
    def priors(self) -> Mapping[str, Prior]: ...


@dataclass(frozen=True)
class Parameter:
    """One entry of the resolved priors.

    Parameters
    ----------
    label : str
        Its key in the result: "Intercept", "beta[Days]", "sd_Subject[Days]", "cor_Subject", "sigma".
    kind : str
        What a prior must suit: "coefficient", "sd", "correlation" or "sigma".
    keys : tuple of str
        The keys that reach it, the narrowest first.
    group, column : str
        The grouping factor ("" for population coefficients and sigma) and the column or coefficient.
    blocks : tuple of int
        Sizes of the correlated blocks, for a correlation.
    """

    label: str
    kind: Kind
    keys: tuple[str, ...]
    group: str = ""
    column: str = ""
    blocks: tuple[int, ...] = ()


def parameters(
    columns: Sequence[str],
    intercept: bool,
    factors: Iterable[tuple[str, Sequence[str], Blocks]],
    has_sigma: bool,
) -> list[Parameter]:
    """List the parameters of a model that carry a prior, in the order in which they are shown."""
    found: list[Parameter] = []
    for column in columns:
        if intercept and column == "Intercept":
            found.append(Parameter("Intercept", "coefficient", ("Intercept", "beta[Intercept]", "beta"), "", column))
        else:
            found.append(Parameter(f"beta[{column}]", "coefficient", (f"beta[{column}]", "beta"), "", column))
    for group, coefficients, blocks in factors:
        for c in coefficients:
            found.append(Parameter(f"sd_{group}[{c}]", "sd", (f"sd_{group}[{c}]", f"sd_{group}", "sd"), group, c))
        joint = [block for block in blocks if len(block) > 1]
        if joint:
            keys: tuple[str, ...] = (f"cor_{group}", "cor")
            if len(joint) == 1 and len(joint[0]) == 2:
                first, second = sorted(joint[0])
                keys = (f"cor_{group}[{coefficients[first]}, {coefficients[second]}]", *keys)
            sizes = tuple(len(block) for block in joint)
            found.append(Parameter(f"cor_{group}", "correlation", keys, group, "", sizes))
    if has_sigma:
        found.append(Parameter("sigma", "sigma", ("sigma",)))
    return found


def pick(parameter: Parameter, priors: Mapping[str, Prior]) -> str | None:
    """Return the narrowest of the user's keys that reaches the parameter, or None."""
    return next((key for key in parameter.keys if key in priors), None)


def resolve(
    model: HasPriors,
    *,
    columns: Sequence[str],
    intercept: bool,
    factors: Iterable[tuple[str, Sequence[str], Blocks]],
    has_sigma: bool,
    scales: Scales,
) -> tuple[dict[str, Prior], dict[str, str]]:
    """Give every parameter its prior and say where it came from.

    Parameters
    ----------
    model : Model
        Read for its `priors`, the user's.
    columns : sequence of str
        Population columns, "Intercept" first when there is one.
    intercept : bool
        Whether the first column is the constant 1. The class key `beta` then speaks of the intercept as
        `Intercept`, the predictor at the covariates' means, not of the coefficient where every covariate is 0.
    factors : iterable of (name, coefficients, blocks)
        Grouping factors, their coefficients, and the correlated blocks as indices into the coefficients.
    has_sigma : bool
        Whether the residual sd is a parameter.
    scales : Scales
        What the defaults scale with. A column without spread counts as having sd 1.

    Returns
    -------
    priors, sources : dict
        By label, one for each parameter: "Intercept" or "beta[Intercept]", "beta[x]", "sd_g[c]", "cor_g"
        (one for all correlated blocks of a factor), "sigma". A source is "default" or the user's key.

    Raises
    ------
    PriorError
        When a key reaches no parameter, or a prior does not suit one that it reaches.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> model = SimpleNamespace(priors={"sd": HalfT(3, 5)})
    >>> scales = Scales(y_mean=10.0, y_sd=4.0, x_mean={"x": 0.0}, x_sd={"x": 2.0}, z_sd={})
    >>> groups = [("g", ("Intercept",), ((0,),))]
    >>> resolve(model, columns=("Intercept", "x"), intercept=True, factors=groups, has_sigma=True, scales=scales)[0]
    {'Intercept': normal(10, 10), 'beta[x]': normal(0, 5), 'sd_g[Intercept]': half_t(3, 5), 'sigma': half_t(3, 4)}
    """
    factors = list(factors)
    known = parameters(columns, intercept, factors, has_sigma)
    _check_keys(model.priors, known, factors, intercept, has_sigma)
    default = _defaults(scales, level_free=intercept)
    priors: dict[str, Prior] = {}
    sources: dict[str, str] = {}
    for parameter in known:
        key = pick(parameter, model.priors)
        prior = default(parameter) if key is None else _as_joint(model.priors[key], parameter, key)
        if key is not None and prior.from_errors:
            prior = _from_errors(prior, parameter, key, scales)
        # A prior on the coefficient itself goes by its own name, since it is another statement than 'Intercept'.
        label = key if key == "beta[Intercept]" else parameter.label
        priors[label] = prior
        sources[label] = key or "default"
    return priors, sources


def symbolic(
    model: HasPriors,
    *,
    columns: Sequence[str],
    intercept: bool,
    factors: Iterable[tuple[str, Sequence[str], Blocks]],
    has_sigma: bool,
    response: str,
) -> tuple[dict[str, Prior | str], dict[str, str]]:
    """As `resolve` for a model without data: a default is a formula in text, and a key that must wait is kept.

    `response` is the text of y - offset, with s its sd. The columns are the formula's terms; a key such as
    `beta[period[T.2]]` waits for the category's columns and is listed as the user gave it.
    """
    known = parameters(columns, intercept, factors, has_sigma)
    priors: dict[str, Prior | str] = {}
    sources: dict[str, str] = {}
    for parameter in known:
        key = pick(parameter, model.priors)
        label = key if key == "beta[Intercept]" else parameter.label
        priors[label] = _symbol(parameter, response, level_free=intercept) if key is None else model.priors[key]
        sources[label] = key or "default"
    reached = {key for parameter in known for key in parameter.keys}
    for key in model.priors:
        if key not in reached:
            priors[key] = model.priors[key]
            sources[key] = key
    return priors, sources


def _symbol(parameter: Parameter, y: str, *, level_free: bool) -> str:
    x = parameter.column
    if parameter.label == "Intercept":
        return f"normal(mean({y}), {COEFFICIENT_WIDTH:g}·s)"
    if parameter.kind == "coefficient":
        return f"normal(0, {COEFFICIENT_WIDTH:g}·" + (f"s/sd({x}))" if level_free else f"rms({y})/rms({x}))")
    if parameter.kind == "correlation":
        return str(Lkj(LKJ_ETA))
    return f"half_t({SD_DF:g}, s)" if x in ("", "Intercept") else f"half_t({SD_DF:g}, s/sd({x}))"


def _defaults(scales: Scales, *, level_free: bool) -> Callable[[Parameter], Prior]:
    s = scales.y_sd

    def of_slope(column: str) -> Prior:
        if level_free:
            return Normal(0.0, COEFFICIENT_WIDTH * s / (scales.x_sd[column] or 1.0))
        y_size = hypot(scales.y_mean, s)
        x_size = hypot(scales.x_mean[column], scales.x_sd[column])
        return Normal(0.0, COEFFICIENT_WIDTH * y_size / (x_size or 1.0))

    def of(parameter: Parameter) -> Prior:
        if parameter.label == "Intercept":
            return Normal(scales.y_mean, COEFFICIENT_WIDTH * s)
        if parameter.kind == "coefficient":
            return of_slope(parameter.column)
        if parameter.kind == "correlation":
            return Lkj(LKJ_ETA)
        if parameter.kind == "sigma":
            return HalfT(SD_DF, scales.noise_sd or s)
        if parameter.column == "Intercept":
            return HalfT(SD_DF, s)
        return HalfT(SD_DF, s / (scales.z_sd[parameter.group, parameter.column] or 1.0))

    return of


def _as_joint(prior: Prior, parameter: Parameter, key: str) -> Prior:
    """Check the prior against the parameter that it reached; make it joint where the parameter is a matrix."""
    check_suits(prior, parameter.kind, key)
    if parameter.kind != "correlation":
        return prior
    only_pairs = all(size == 2 for size in parameter.blocks)
    many = f"{parameter.group} has {max(parameter.blocks)} correlated coefficients"
    if isinstance(prior, Uniform):
        if not only_pairs:
            raise PriorError(
                f"priors: {key!r} was given {prior}, but {many}, and separate uniform correlations need not form "
                "a correlation matrix. Use fi.lkj(1), which is uniform over correlation matrices."
            )
        return Lkj(1.0)
    if isinstance(prior, Fixed) and prior.value != 0.0 and not only_pairs:
        raise PriorError(
            f"priors: {key!r} was given {prior}, but {many}, and one value held for all correlations is possible "
            "only at 0. Use fi.fixed(0), fi.lkj(eta), or || in the formula."
        )
    return prior


def _from_errors(prior: Prior, parameter: Parameter, key: str, scales: Scales) -> Prior:
    """Give a prior that is made from the known standard errors its numbers."""
    variances = scales.level_variances.get((parameter.group, parameter.column))
    if variances is None:
        raise PriorError(
            f"priors: {key!r} was given {prior}, which is made from known standard errors, but this model estimates "
            "its error. Write the response as y | se(s), or use a prior with a scale of its own, such as "
            "fi.half_t(3, scale)."
        )
    return prior.with_errors(variances)


def _check_keys(
    priors: Mapping[str, Prior],
    known: list[Parameter],
    factors: list[tuple[str, Sequence[str], Blocks]],
    intercept: bool,
    has_sigma: bool,
) -> None:
    check_one_intercept(priors)
    valid = list(dict.fromkeys(key for parameter in known for key in parameter.keys))
    for key in priors:
        if key in valid:
            continue
        if key == "sigma" and not has_sigma:
            raise PriorError(no_sigma())
        if key in ("Intercept", "beta[Intercept]") and not intercept:
            raise PriorError(
                f"priors: {key!r} was given, but the formula has no intercept. Drop the key, or the 0 in the formula."
            )
        why = _why_no_correlation(key, factors)
        raise PriorError(f"priors: {key!r} names no parameter of this model. {why}{close_first(key, valid)}")


def _why_no_correlation(key: str, factors: list[tuple[str, Sequence[str], Blocks]]) -> str:
    """Say why the correlation that a key asks for does not exist, with a space after it; "" for other keys."""
    if key == "cor" or any(key == f"cor_{name}" for name, _, _ in factors):
        reasons = [
            f"{name} has one coefficient"
            if len(coefficients) == 1
            else f"the coefficients of {name} are independent (||)"
            for name, coefficients, _ in factors
            if key in ("cor", f"cor_{name}")
        ]
        return f"There are no correlations: {'; '.join(reasons) or 'the model has no group terms'}. "
    if any(key.startswith(f"cor_{name}[") for name, _, _ in factors):
        return "A correlation matrix has one joint prior: a pair is a key only where it is the only pair. "
    return ""
