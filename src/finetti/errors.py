"""The exception tree. Every message says what was given, what was expected, and what to do.

All of finetti's own errors are `FinettiError`, which is a `ValueError`, so that a caller
who knows nothing of finetti can still catch them. Bugs of ours are never dressed up as one.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "DataError",
    "FinettiError",
    "FinettiWarning",
    "FormulaError",
    "InferenceError",
    "ModelError",
    "NotBuiltError",
    "PredictionError",
    "PriorError",
    "available",
]


class FinettiError(ValueError):
    """Anything that finetti refuses to do, with the reason and the way out."""


class FormulaError(FinettiError):
    """The formula cannot be read, or asks for something outside the safe grammar."""


class PriorError(FinettiError):
    """A prior is malformed, unsuited to its parameter, or leaves the posterior improper."""


class ModelError(FinettiError):
    """The parts of the model contradict each other or the data cannot identify them."""


class DataError(FinettiError):
    """The data are missing, malformed, or outside what the model can describe."""


class FinettiWarning(UserWarning):
    """A result that failed its own checks is being read."""


class InferenceError(FinettiError):
    """The posterior could not be computed."""


class PredictionError(FinettiError):
    """The new data do not fit the fitted model."""


class NotBuiltError(FinettiError):
    """The argument is part of the design, but its part of finetti is not built yet."""


def available(given: str, options: Iterable[str], *, most: int = 12) -> str:
    """Return the tail of a message that lists the valid options, the closest one first.

    >>> available("Day", ["Days", "Subject"])
    "did you mean 'Days'? Available: 'Days', 'Subject'"
    """
    names = [str(o) for o in options]
    shown = ", ".join(repr(n) for n in names[:most])
    if len(names) > most:
        shown += f", ... ({len(names)} in all)"
    close = get_close_matches(str(given), names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}? Available: {shown}" if close else f"Available: {shown}"
