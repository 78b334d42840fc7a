"""How numbers are written: three significant digits of the standard deviation, never more than is known.

A mean of 8.0514 with a standard deviation of 4.73 is written 8.05: digits beyond the third of the
standard deviation describe Monte Carlo noise, not the data.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["MISSING", "count", "decimals", "duration", "number", "percent", "plural", "shared_decimals", "significant"]

MISSING = "–"
_MOST_DECIMALS = 7  # beyond this a column is unreadable, and scientific notation is clearer
_LARGEST_PLAIN = 1e9
_LARGEST_COUNT = 10_000_000


def decimals(sd: float, digits: int = 3) -> int | None:
    """Return the decimals that show `digits` significant digits of `sd`; None where that has no meaning.

    >>> decimals(4.73), decimals(0.0123), decimals(812.0)
    (2, 4, 0)
    """
    if not math.isfinite(sd) or sd <= 0:
        return None
    return max(0, digits - 1 - math.floor(math.log10(sd)))


def shared_decimals(sds: object, digits: int = 3) -> int | None:
    """Return one number of decimals for a column of standard deviations (from their median), so that points align."""
    values = np.asarray(sds, dtype=float)
    values = values[np.isfinite(values) & (values > 0)]
    return decimals(float(np.median(values)), digits) if values.size else None


def number(value: float, places: int | None = None) -> str:
    """Write a number with `places` decimals, or with 3 significant digits where `places` is None.

    >>> number(8.0514, 2), number(float("nan"), 2), number(-0.0001, 2), number(1234.5)
    ('8.05', '–', '0.00', '1234')
    """
    value = float(value)
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if places is None:
        return significant(value, 3)
    if places > _MOST_DECIMALS or abs(value) >= _LARGEST_PLAIN:
        return f"{value:.3g}"
    text = f"{value:.{places}f}"
    return text[1:] if text.startswith("-") and float(text) == 0.0 else text


def percent(share: float) -> str:
    """Write a share as whole per cent.

    >>> percent(0.184), percent(-1e-9), percent(float("nan"))
    ('18 %', '0 %', '–')
    """
    return MISSING if math.isnan(share) else f"{number(100.0 * share, 0)} %"


def significant(value: float, digits: int) -> str:
    """Write a number with `digits` significant digits and without an exponent where that is readable.

    >>> significant(0.02345, 2), significant(56.3, 3), significant(1.2e-11, 2)
    ('0.023', '56.3', '1.2e-11')
    """
    value = float(value)
    if math.isnan(value):
        return MISSING
    if value == 0 or not math.isfinite(value):
        return number(value, 0)
    places = decimals(abs(value), digits)
    if places is None or places > _MOST_DECIMALS or abs(value) >= _LARGEST_PLAIN:
        return f"{value:.{digits}g}"
    return f"{value:.{places}f}"


def count(value: float) -> str:
    """Write a count with thousands apart; beyond ten million only its size, for an ess there means "exact".

    >>> count(12345.0), count(3.2e11)
    ('12,345', '>10,000,000')
    """
    if not math.isfinite(float(value)):
        return MISSING
    return f"{round(float(value)):,}" if value <= _LARGEST_COUNT else f">{_LARGEST_COUNT:,}"


def plural(n: int, noun: str) -> str:
    """Write a count with its noun.

    >>> plural(1, "row"), plural(919, "row"), plural(3, "county")
    ('1 row', '919 rows', '3 counties')
    """
    if n == 1:
        return f"{n:,} {noun}"
    if noun.endswith("y") and not noun.endswith(("ay", "ey", "oy", "uy")):
        return f"{n:,} {noun[:-1]}ies"
    return f"{n:,} {noun}s"


def duration(seconds: float) -> str:
    """Write a time as people say it.

    >>> duration(0.0432), duration(2.34), duration(125)
    ('43 ms', '2.3 s', '2 min 5 s')
    """
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
