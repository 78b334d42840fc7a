"""ashrink as a worker: adaptive shrinkage with its default grid of normals, and its table."""

from __future__ import annotations

from typing import Any

from serve import serve


def prepare(spec: dict[str, Any]) -> dict[str, Any]:
    from importlib.metadata import version

    import ashrink
    import numpy as np

    data, last = np.load(spec["file"]), {}

    def go() -> None:
        last["fit"] = ashrink.fit(data[:, 0], data[:, 1])
        if spec["options"].get("table"):
            last["table"] = last["fit"].summary(0.9)

    def estimates() -> dict[str, Any]:
        fit = last["fit"]
        return {
            "estimates": {"pi0": float(fit.prior.weights[0])},
            "ok": bool(fit.diagnostics["converged"]),
            "log_likelihood": float(fit.diagnostics["log_likelihood"]),
            "version": f"ashrink {version('ashrink')}",
        }

    return {"go": go, "estimates": estimates}


serve(prepare)
