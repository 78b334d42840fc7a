"""gpboost as a worker: maximum likelihood (it has no REML), the design built by hand as its users do.

Slopes are independent of intercepts (it has no correlated group effects). With two or more terms it solves by
conjugate gradients with a stochastic trace unless told otherwise; the first call times that and its Cholesky
factorisation, and the faster is kept.
"""

from __future__ import annotations

import time
from typing import Any

from serve import LeftOutError, combined, read, serve


def prepare(spec: dict[str, Any]) -> dict[str, Any]:
    import gpboost
    import numpy as np

    if not spec["lme4"]:
        raise LeftOutError("no such model: the error variances are known")
    data, last, notes = read(spec), {}, []
    slopes = [(i, x) for i, (_, xs) in enumerate(spec["terms"]) for x in xs]
    if slopes:
        notes.append("independent slopes")

    def fit(method: str) -> None:
        groups = np.column_stack([combined(data, group) for group, _ in spec["terms"]])
        X = np.column_stack([np.ones(len(data)), *(data[x].to_numpy(float) for x in spec["covariates"])])
        more: dict[str, Any] = {}
        if slopes:
            more["group_rand_coef_data"] = data[[x for _, x in slopes]].to_numpy(float)
            more["ind_effect_group_rand_coef"] = [i + 1 for i, _ in slopes]
        last["fit"] = gpboost.GPModel(group_data=groups, likelihood="gaussian", matrix_inversion_method=method, **more)
        last["fit"].fit(y=data[spec["response"]].to_numpy(float), X=X)

    def go() -> None:
        if "method" not in last:
            methods, seconds = ["default"] if len(spec["terms"]) + len(slopes) == 1 else ["default", "cholesky"], {}
            for method in methods:
                start = time.perf_counter()
                fit(method)
                seconds[method] = time.perf_counter() - start
            last["method"] = min(methods, key=seconds.__getitem__)
            if len(methods) > 1:
                notes.append("iterative" if last["method"] == "default" else "Cholesky")
        fit(last["method"])

    def estimates() -> dict[str, Any]:
        variance = last["fit"].get_cov_pars().to_numpy()[0]
        labels = ["sigma", *(f"sd_{group}[Intercept]" for group, _ in spec["terms"])]
        labels += [f"sd_{spec['terms'][i][0]}[{x}]" for i, x in slopes]
        out = {k: float(v) ** 0.5 for k, v in zip(labels, variance, strict=True)}
        beta = last["fit"].get_coef().to_numpy()[0]
        out |= {f"beta[{c}]": float(b) for c, b in zip(["Intercept", *spec["covariates"]], beta, strict=True)}
        # its estimates are of maximum likelihood, and are judged against those
        return {"estimates": out, "criterion": "ml", "version": f"gpboost {gpboost.__version__}", "notes": notes}

    return {"go": go, "estimates": estimates}


serve(prepare)
