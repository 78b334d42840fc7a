"""mixedlm (PyPI) as a worker: REML, formula and data frame as given."""

from __future__ import annotations

from typing import Any

from serve import LeftOutError, read, serve


def prepare(spec: dict[str, Any]) -> dict[str, Any]:
    import mixedlm

    if not spec["lme4"]:
        raise LeftOutError("no such model: the error variances are known")
    data, last = read(spec), {}

    def go() -> None:
        last["fit"] = mixedlm.lmer(spec["formula"], data)

    def estimates() -> dict[str, Any]:
        fit = last["fit"]
        out = {"sigma": float(fit.sigma)}
        for name, group in fit.VarCorr().groups.items():
            terms = list(group.term_names)
            sd = [float(group.stddev[t]) for t in terms]
            out |= {f"sd_{name}[{t}]": s for t, s in zip(terms, sd, strict=True)}
            if len(terms) == 2:
                out[f"cor_{name}[{terms[0]}, {terms[1]}]"] = float(group.corr[0][1])
        out |= {f"beta[{k}]": float(v) for k, v in fit.fixef().items()}
        return {"estimates": out, "version": f"mixedlm {mixedlm.__version__}", "notes": []}

    return {"go": go, "estimates": estimates}


serve(prepare)
