"""The priors as users write them, and the density of a standard deviation under any of them.

Each constructor checks its arguments and returns a frozen value from `finetti.model.densities`. A prior
under a key such as `sd_Subject` is a distribution of the standard deviation, in units of the response per
unit of the column; only `inverse_gamma` speaks of the variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np
from numpy.typing import ArrayLike

from finetti.model.densities import (
    Beta,
    Exponential,
    Fixed,
    Flat,
    Gamma,
    HalfCauchy,
    HalfNormal,
    HalfT,
    InverseGamma,
    Lkj,
    Normal,
    StudentT,
    Uniform,
)
from finetti.model.distribution import Array, Prior
from finetti.model.tau import DuMouchel, Jeffreys, UniformShrinkage

__all__ = [
    "Beta",
    "DuMouchel",
    "Exponential",
    "Fixed",
    "Flat",
    "Gamma",
    "HalfCauchy",
    "HalfNormal",
    "HalfT",
    "InverseGamma",
    "Jeffreys",
    "Lkj",
    "Normal",
    "Prior",
    "StudentT",
    "Uniform",
    "UniformShrinkage",
    "beta",
    "dumouchel",
    "exponential",
    "fixed",
    "flat",
    "gamma",
    "half_cauchy",
    "half_normal",
    "half_t",
    "inverse_gamma",
    "jeffreys",
    "lkj",
    "normal",
    "sd_dlogpdf",
    "sd_logpdf",
    "student_t",
    "uniform",
    "uniform_shrinkage",
]


def normal(mean: float, sd: float) -> Normal:
    """Normal prior of a coefficient.

    Parameters
    ----------
    mean : float
        Mean, in units of the response per unit of the column.
    sd : float
        Standard deviation (not variance, not precision), same units; > 0.

    Examples
    --------
    >>> normal(0, 5)
    normal(0, 5)
    >>> round(float(normal(0, 5).logpdf(0)), 4)
    -2.5284
    """
    return Normal(mean, sd)


def student_t(df: float, mean: float, scale: float) -> StudentT:
    """Student t prior of a coefficient: a normal with heavier tails.

    Parameters
    ----------
    df : float
        Degrees of freedom, > 0; moments of order below `df` exist.
    mean : float
        Centre, in units of the response per unit of the column.
    scale : float
        Scale, same units, > 0; smaller than the standard deviation, which is scale sqrt(df / (df - 2)).

    Examples
    --------
    >>> student_t(3, 0, 2.5).tail_index()
    3.0
    """
    return StudentT(df, mean, scale)


def half_normal(scale: float) -> HalfNormal:
    """Half-normal prior of a standard deviation.

    Parameters
    ----------
    scale : float
        The sd of the normal that is folded at 0, in units of the sd; > 0. The median is 0.67 `scale`.

    Examples
    --------
    >>> print(half_normal(2.5))
    half_normal(2.5)
    """
    return HalfNormal(scale)


def half_cauchy(scale: float) -> HalfCauchy:
    """Half-Cauchy prior of a standard deviation (Gelman 2006, Bayesian Analysis 1, 515-533).

    Its tail falls only as the square of the sd, so that with few groups the posterior sd may lack moments.

    Parameters
    ----------
    scale : float
        The median, in units of the sd; > 0.

    Examples
    --------
    >>> half_cauchy(5).tail_index()
    1.0
    """
    return HalfCauchy(scale)


def half_t(df: float, scale: float) -> HalfT:
    """Half-t prior of a standard deviation; the default, with 3 degrees of freedom.

    Parameters
    ----------
    df : float
        Degrees of freedom, > 0; 1 is `half_cauchy`, large values approach `half_normal`.
    scale : float
        The scale of the t that is folded at 0, in units of the sd; > 0.

    Examples
    --------
    >>> print(half_t(3, 56.32876))
    half_t(3, 56.33)
    """
    return HalfT(df, scale)


def exponential(rate: float) -> Exponential:
    """Exponential prior of a standard deviation.

    Parameters
    ----------
    rate : float
        One over the mean, in units of 1 / sd; > 0.

    Examples
    --------
    >>> float(exponential(0.5).dlogpdf(3.0))
    -0.5
    """
    return Exponential(rate)


def gamma(shape: float, rate: float) -> Gamma:
    """Gamma prior of a standard deviation (of the sd itself, not of the variance or the precision).

    Parameters
    ----------
    shape : float
        Shape, > 0; above 1 the density is zero at sd = 0 (2 and a small rate keep a mode away from 0).
    rate : float
        Rate, in units of 1 / sd; > 0. The mean is shape / rate.

    Examples
    --------
    >>> print(gamma(2, 0.1))
    gamma(2, 0.1)
    """
    return Gamma(shape, rate)


def inverse_gamma(shape: float, scale: float) -> InverseGamma:
    """Inverse gamma prior on the VARIANCE: under the key `sd_g` it is sd_g squared that it describes.

    Parameters
    ----------
    shape : float
        Shape, > 0; half the number of prior observations in a conjugate analysis.
    scale : float
        Scale, in units of the variance; > 0. The mean of the variance is scale / (shape - 1).

    Examples
    --------
    >>> prior = inverse_gamma(2, 9)
    >>> bool(np.isclose(sd_logpdf(prior, 3.0), prior.logpdf(9.0) + np.log(6.0)))
    True
    """
    return InverseGamma(shape, scale)


def uniform(low: float = 0.0, high: float = inf) -> Uniform:
    """Uniform prior; without arguments improper, constant on all standard deviations above 0.

    Parameters
    ----------
    low, high : float
        Ends of the interval, in units of the parameter; low < high. An infinite `high` is improper.

    Examples
    --------
    >>> uniform(), uniform(0, 20), uniform().proper
    (uniform(), uniform(0, 20), False)
    """
    return Uniform(low, high)


def lkj(eta: float) -> Lkj:
    """LKJ prior of a correlation matrix, with density proportional to det(C)^(eta - 1).

    Parameters
    ----------
    eta : float
        Concentration, > 0: 1 is uniform over correlation matrices, larger values favour weak correlations.

    Examples
    --------
    >>> round(float(lkj(1).logpdf(0.3)), 4)
    -0.6931
    """
    return Lkj(eta)


def beta(a: float, b: float) -> Beta:
    """Beta prior of a parameter between 0 and 1.

    Parameters
    ----------
    a, b : float
        Shapes, > 0: like `a` - 1 successes and `b` - 1 failures seen before. The mean is a / (a + b).

    Examples
    --------
    >>> beta(2, 2).support
    (0.0, 1.0)
    """
    return Beta(a, b)


def fixed(value: float) -> Fixed:
    """Hold a parameter at a value instead of estimating it.

    Parameters
    ----------
    value : float
        The value, in units of the parameter (for an sd: the sd, not the variance).

    Examples
    --------
    >>> fixed(0).value
    0.0
    """
    return Fixed(value)


def flat() -> Flat:
    """Constant, improper prior: on the whole line for a coefficient, above 0 for a standard deviation.

    The posterior can still be proper; the evidence cannot be computed.

    Examples
    --------
    >>> flat().proper
    False
    """
    return Flat()


def jeffreys(variances: Sequence[float] | None = None) -> Jeffreys:
    """Jeffreys prior of a heterogeneity sd tau, from the known standard errors; improper, falling as 1 / tau.

    The density is proportional to sqrt(sum_i (tau / (v_i + tau^2))^2) (Rover 2020, J. Stat. Softw. 93(6), 2.3). The
    posterior is proper if there is at least one more study than there are coefficients with a flat prior.

    Parameters
    ----------
    variances : sequence of float, optional
        Error variances v_i of the levels, in units of the response squared. By default those of the data that the
        model is bound to: the squared standard errors where every row is a level of its own (the eigenvalues of a
        known covariance), otherwise the variances of the levels' means.

    Examples
    --------
    >>> jeffreys(), jeffreys().proper
    (jeffreys(), False)
    >>> float(jeffreys([1.0]).logpdf(1.0)) == float(np.log(0.5))
    True
    """
    return Jeffreys(variances)  # type: ignore[arg-type]  # made a tuple of floats there, or refused


def dumouchel(s0: float | None = None) -> DuMouchel:
    """DuMouchel prior of a heterogeneity sd tau, from the known standard errors: p(tau) = s0 / (s0 + tau)^2.

    Proper, with median s0 and so heavy a tail that it has no mean (DuMouchel and Normand 2000).

    Parameters
    ----------
    s0 : float, optional
        The median, in units of the sd; > 0. By default s0^2 = k / sum(1 / se^2) of the data that the model is bound
        to, the harmonic mean of the error variances.

    Examples
    --------
    >>> dumouchel(), dumouchel(2)
    (dumouchel(), dumouchel(2))
    >>> round(float(np.exp(dumouchel(2).logpdf(2.0))), 4)
    0.125
    """
    return DuMouchel(s0)


def uniform_shrinkage(s0: float | None = None) -> UniformShrinkage:
    """Uniform prior of the shrinkage s0^2 / (s0^2 + tau^2) of a typical study (Daniels 1999).

    Proper, with median s0; the density of tau is 2 tau s0^2 / (s0^2 + tau^2)^2, which is zero at 0 and has a mean
    but no variance.

    Parameters
    ----------
    s0 : float, optional
        The median, in units of the sd; > 0. By default s0^2 = k / sum(1 / se^2) of the data that the model is bound
        to, the harmonic mean of the error variances.

    Examples
    --------
    >>> uniform_shrinkage(3).tail_index()
    2.0
    """
    return UniformShrinkage(s0)


def sd_logpdf(prior: Prior, sd: ArrayLike) -> Array:
    """Log density of the standard deviation under `prior`, whichever scale the prior speaks of.

    Parameters
    ----------
    prior : Prior
        A prior of an sd, or `inverse_gamma` of its square, whose Jacobian 2 sd is then included.
    sd : array_like
        Standard deviations, any shape; -inf is returned where sd <= 0 (unless held there by `fixed`).

    Examples
    --------
    >>> float(sd_logpdf(flat(), -1.0))
    -inf
    """
    sd = np.asarray(sd, dtype=np.float64)
    if isinstance(prior, Fixed):
        return prior.logpdf(sd)
    with np.errstate(all="ignore"):
        density = prior.logpdf(sd * sd) + np.log(2.0 * sd) if prior.on_variance else prior.logpdf(sd)
    return np.where(sd <= 0.0, -inf, density)


def sd_dlogpdf(prior: Prior, sd: ArrayLike) -> Array:
    """Derivative of `sd_logpdf` with respect to the standard deviation; NaN outside the support.

    Parameters
    ----------
    prior : Prior
        As for `sd_logpdf`.
    sd : array_like
        Standard deviations, any shape.

    Examples
    --------
    >>> float(sd_dlogpdf(half_normal(2), 4.0))
    -1.0
    """
    sd = np.asarray(sd, dtype=np.float64)
    if isinstance(prior, Fixed):
        return prior.dlogpdf(sd)
    with np.errstate(all="ignore"):
        slope = 2.0 * sd * prior.dlogpdf(sd * sd) + 1.0 / sd if prior.on_variance else prior.dlogpdf(sd)
    return np.where(sd <= 0.0, np.nan, slope)
