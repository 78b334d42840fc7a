"""Joint posterior draws of hyperparameters and of the effects of single tests.

Row i of everything is of the same draw of the hyperparameters; given these, tests are independent. The draws of a test
come from a random stream of its own, that of its position in the data, so that they are the same whichever other tests
are asked for, in this call or in another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.errors import FinettiError, available
from finetti.inference.spike_slab_tests import effects_of_uniforms, pieces, uniforms

if TYPE_CHECKING:
    from finetti.studies.screen import Screen

__all__ = ["draws", "position"]

Floats = npt.NDArray[np.float64]

# of the random streams of tests, apart from those that the screen uses otherwise
STREAM = 5


def draws(screen: Screen, what: Any, n: int = 4000) -> Floats | pd.DataFrame:
    """Joint posterior draws; see `Screen.draws`."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise FinettiError(f"n={n!r} must be a number of draws, at least 1")
    many = isinstance(what, (list, np.ndarray, pd.Index, pd.Series)) or (
        isinstance(what, tuple) and not _is_label(screen, what)
    )
    asked = list(what) if many else [what]
    nodes, values = screen.learned.joint(int(n), screen.seed)
    names = set(values)
    rows = np.array([-1 if _is_name(a, names) else position(screen, a, names) for a in asked], dtype=np.int64)
    out = np.empty((int(n), len(asked)))
    for k in np.flatnonzero(rows < 0):
        out[:, k] = values[asked[k]]
    tests = np.flatnonzero(rows >= 0)
    for piece in pieces(tests.size, int(n)):
        some = tests[piece]
        u = [uniforms(np.random.default_rng([screen.seed, STREAM, int(rows[k])]), (2, int(n))) for k in some]
        out[:, some] = effects_of_uniforms(
            screen.tests, screen.slab, nodes, np.ascontiguousarray(np.stack(u, axis=-1)), rows[some]
        )
    if not many:
        return out[:, 0]
    return pd.DataFrame(out, columns=pd.Index(asked, tupleize_cols=False), index=pd.RangeIndex(int(n), name="draw"))


def position(screen: Screen, label: Any, names: set[str] | None = None) -> int:
    """Where a test stands in the data.

    Raises
    ------
    FinettiError
        If no test has the label, or several.
    """
    labels = screen.screened.labels
    try:
        found = labels.get_loc(label)
    except (KeyError, TypeError, ValueError):
        tests = [repr(v) if not isinstance(v, str) else v for v in labels[:100_000]]
        wanted = label if isinstance(label, str) else repr(label)
        raise FinettiError(
            f"{label!r} is neither a test nor a hyperparameter of this screen; "
            f"{available(wanted, [*sorted(names or ()), *tests])}"
        ) from None
    if not isinstance(found, int):
        rows = np.arange(len(labels))[found]
        raise FinettiError(
            f"{label!r} is the label of {rows.size} tests (in rows {', '.join(str(r) for r in rows[:5])}"
            f"{', ...' if rows.size > 5 else ''}, counting from 0), so that it names none of them; "
            "give screen() labels that are unique"
        )
    return found


def _is_name(value: Any, names: set[str]) -> bool:
    return isinstance(value, str) and value in names


def _is_label(screen: Screen, value: Any) -> bool:
    try:
        return bool(value in screen.screened.labels)
    except TypeError:
        return False
