"""finetti as a worker: a screen or moderated variances, tables included."""

from __future__ import annotations

import platform
import resource
import sys
from typing import Any

from serve import serve


def prepare(spec: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    import finetti as fi

    data, last = np.load(spec["file"]), {}
    options = spec["options"]

    def megabytes() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / (1024 if sys.platform == "darwin" else 1)

    before = megabytes()
    if spec["what"] == "screen":
        x, se = np.ascontiguousarray(data[:, 0]), np.ascontiguousarray(data[:, 1])
        if options.pop("dirichlet", None):  # maximum likelihood, without a weight for the null
            options["priors"] = {"pi0": fi.beta(1, 1)}

        def go() -> None:
            found = fi.screen(x, se, **options)
            last["hyper"], last["table"], last["found"] = found.hyper(), found.table(), found

    else:
        design = np.column_stack([np.ones(data.shape[1]), np.arange(data.shape[1]) % 2])

        def go() -> None:
            found = fi.moderate(data, design, **options)
            last["hyper"], last["table"], last["found"] = found.hyper(), found.effects, found

    def estimates() -> dict[str, Any]:
        found = last["found"]
        ok = found.diagnostics.ok if spec["what"] == "screen" else not found.warnings
        likelihood = spec["what"] == "screen" and options.get("method") == "empirical"
        return {
            "estimates": {k: float(v) for k, v in last["hyper"]["mean"].items()},
            "ok": bool(ok),
            "log_likelihood": float(found.log_likelihood) if likelihood else None,
            "version": f"finetti {fi.__version__}, Python {platform.python_version()}, numpy {np.__version__}",
            "before_mb": before,
            "peak_mb": megabytes(),
        }

    return {"go": go, "estimates": estimates}


serve(prepare)
