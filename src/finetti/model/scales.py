"""The few numbers of the data that default priors scale with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Scales"]


@dataclass(frozen=True)
class Scales:
    """Location and spread of the response and of every column, filled by `finetti.data`.

    Parameters
    ----------
    y_mean, y_sd : float
        Mean and standard deviation of y - offset on the link scale, in units of y; `y_sd` > 0. With known standard
        errors `y_sd` is at least half their median.
    x_mean, x_sd : mapping of str to float
        Mean and standard deviation of every population column, in units of the column.
    noise_sd : float, optional
        Scale of sigma, `y_sd` if not given: with weights w the error sd is sigma / sqrt(w), so that sigma is of
        the size of `y_sd` times the square root of a typical weight.
    z_sd : mapping of (factor, coefficient) to float
        Standard deviation of every group-level column, in units of the column.
    level_variances : mapping of (factor, coefficient) to tuple of float, optional
        Error variances of the levels, filled only for priors that are made from them; empty where the errors are not
        known.

    Examples
    --------
    >>> Scales(y_mean=298.5, y_sd=56.3, x_mean={"Days": 4.5}, x_sd={"Days": 2.9}, z_sd={}).x_sd["Days"]
    2.9
    """

    y_mean: float
    y_sd: float
    x_mean: Mapping[str, float]
    x_sd: Mapping[str, float]
    z_sd: Mapping[tuple[str, str], float]
    noise_sd: float | None = None
    level_variances: Mapping[tuple[str, str], tuple[float, ...]] = field(default_factory=dict)
