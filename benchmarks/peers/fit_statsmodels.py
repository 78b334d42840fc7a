"""statsmodels' MixedLM as a worker: REML through its formula interface.

Its random effects belong to one grouping factor; a nested factor is a variance component inside it. Crossed
factors fit only as variance components of one group that holds every row, dense, so that they are tried on small
data alone. Its default optimiser may stop early: the first call tries that and Powell's, and keeps the faster of
those that reach the best likelihood.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

from serve import LeftOutError, read, serve

MOST_DENSE_ROWS = 1000
SAME_HEIGHT = 0.01  # of the log-likelihood


def prepare(spec: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    import statsmodels
    from statsmodels.regression.mixed_linear_model import MixedLM

    if not spec["lme4"]:
        raise LeftOutError("no such model: the error variances are known")
    data, last, notes = read(spec), {}, []
    terms = spec["terms"]
    if len(terms) > 1 and spec["crossed"] and len(data) > MOST_DENSE_ROWS:
        raise LeftOutError("crossed terms only as one dense group of all rows")
    fixed = f"{spec['response']} ~ " + " + ".join(["1", *spec["covariates"]])

    def fit(method: str | None) -> Any:
        if len(terms) == 1:
            more = {"groups": terms[0][0], "re_formula": " + ".join(["1", *terms[0][1]])}
        elif spec["crossed"]:
            data["every_row"] = 1
            more = {"groups": "every_row", "vc_formula": {g: f"0 + C({g})" for g, _ in terms}, "re_formula": "0"}
        else:
            outer, inner = terms[0][0], terms[1][0]
            last_part = inner.split(":")[-1]
            more = {"groups": outer, "vc_formula": {inner: f"0 + C({last_part})"}, "re_formula": "1"}
        if more.get("re_formula") == "0":
            del more["re_formula"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return MixedLM.from_formula(fixed, data, **more).fit(reml=True, method=method)

    def go() -> None:
        if "method" in last:
            last["fit"] = fit(last["method"])
            return
        tried = []
        for method in (None, "powell"):
            start = time.perf_counter()
            last["fit"] = fit(method)
            seconds, height = time.perf_counter() - start, last["fit"].llf
            tried.append((method, seconds, height if np.isfinite(height) else -np.inf))
        best = max(height for _, _, height in tried)
        last["method"] = min((t for t in tried if t[2] > best - SAME_HEIGHT), key=lambda t: t[1])[0]
        if last["method"]:
            notes.append("Powell")

    def estimates() -> dict[str, Any]:
        fit = last["fit"]
        out = {"sigma": float(fit.scale) ** 0.5}
        if fit.k_re:
            cov, (group, slopes) = np.asarray(fit.cov_re), terms[0]
            sd = np.sqrt(np.diag(cov))
            names = ["Intercept", *slopes]
            out |= {f"sd_{group}[{c}]": float(s) for c, s in zip(names, sd, strict=True)}
            if slopes:
                out[f"cor_{group}[{names[0]}, {names[1]}]"] = float(cov[0, 1] / (sd[0] * sd[1]))
        if fit.k_vc:
            pairs = zip(fit.model.exog_vc.names, fit.vcomp, strict=True)
            out |= {f"sd_{name}[Intercept]": float(v) ** 0.5 for name, v in pairs}
        out |= {f"beta[{k}]": float(v) for k, v in fit.fe_params.items()}
        if not fit.converged and "not converged, it says" not in notes:
            notes.append("not converged, it says")
        return {"estimates": out, "version": f"statsmodels {statsmodels.__version__}", "notes": notes}

    return {"go": go, "estimates": estimates}


serve(prepare)
