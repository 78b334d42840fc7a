"""The small data set that the robustness tests spoil in every way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

N, GROUPS = 60, "abcdef"


def table(**columns: Any) -> pd.DataFrame:
    """Sixty rows in six groups crossed with five; `columns` replaces or adds."""
    rng = np.random.default_rng(1)
    x, u = rng.normal(size=N), rng.normal(size=6)
    frame = pd.DataFrame(
        {
            "y": 2.0 + 0.5 * x + np.repeat(u, 10) + rng.normal(size=N),
            "x": x,
            "g": np.repeat(list(GROUPS), 10),
            "h": np.tile(list("pqrst"), 12),
            "s": rng.uniform(0.5, 1.5, N),
            "w": rng.uniform(0.5, 2.0, N),
        }
    )
    return frame.assign(**columns)


DATA = table()
