"""finetti as a worker: the full posterior and its summary, formula parsing included."""

from __future__ import annotations

import platform
import re
import resource
import sys
import time
from dataclasses import replace
from typing import Any

from serve import read, serve

PROBS = (0.05, 0.5, 0.95)


def prior_parts(text: str) -> list[Any]:
    """`half_t(3, 2.5)` as ["half_t", 3.0, 2.5], for programs that have other names for it."""
    name, inside = re.fullmatch(r"(\w+)\((.*)\)", text).groups()  # type: ignore[union-attr]
    return [name, *(float(x) for x in inside.split(",") if x.strip())]


def prepare(spec: dict[str, Any]) -> dict[str, Any]:
    data, last = read(spec), {}
    start = time.perf_counter()
    import finetti as fi

    importing = time.perf_counter() - start

    def go() -> None:
        last["fit"] = fi.fit(spec["formula"], data)
        last["table"] = last["fit"].summary(PROBS)

    def estimates() -> dict[str, Any]:
        d, table = last["fit"].diagnostics, last["table"]
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
        return {
            "estimates": table["mean"].to_dict(),
            "sd": table["sd"].to_dict(),
            "priors": {k: prior_parts(repr(v)) for k, v in last["fit"].model.priors.items()},
            "version": f"finetti {fi.__version__}, Python {platform.python_version()}",
            "rows": len(data),
            "hyperparameters": d.n_hyperparameters,
            "nodes": d.n_nodes,
            "ok": bool(d.ok),
            "mean_error": d.worst_mean_error,
            "quantile_error": d.worst_quantile_error,
            "import": importing,
            "peak_mb": kilobytes / 1024,
            "notes": [],
        }

    def reference() -> dict[str, Any]:
        """Largest difference of hyperparameters from a run of many more nodes with another seed, in posterior sds."""
        from finetti.inference.hyper import Settings
        from finetti.inference.infer import infer
        from finetti.posterior.fit import Fit

        long = replace(Settings(), min_nodes=65_536, max_nodes=131_072, dear_nodes=1024, dear_max_nodes=2048)
        inference = infer(last["fit"].model, seed=20_240_607, settings=long)
        truth = Fit(inference, 4000, 0).summary(PROBS)
        rows = [label for label in truth.index if not label.startswith("beta[")]
        truth, table = truth.loc[rows], last["table"].loc[rows]
        gaps = (table - truth).abs().div(truth["sd"], axis=0)
        return {
            "moments": float(gaps[["mean", "sd"]].max(axis=None)),
            "quantiles": float(gaps[["q5", "q50", "q95"]].max(axis=None)),
            "nodes": inference.hyper.n_nodes,
            "truth": {label: [float(row["mean"]), float(row["sd"])] for label, row in truth.iterrows()},
        }

    return {"go": go, "estimates": estimates, "reference": reference}


serve(prepare)
