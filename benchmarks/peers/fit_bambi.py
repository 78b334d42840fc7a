"""Bambi with nutpie as a worker: a model that Bambi builds, compiled and sampled as `pm.sample` would have it.

The priors are finetti's. What Bambi has not: correlated group effects (its slopes are independent of the
intercepts). A known standard error enters as a weight of the log-likelihood beside a residual sd of 1, which is
the same density. Combinations `a:b` are made a column of their own beforehand, since Bambi's have a level for every
product of levels. It builds a dense table of rows by levels; where that exceeds the memory, the model that it would
build is written in PyMC by hand. Only hyperparameters are kept, which spares it memory and time.
"""

from __future__ import annotations

import json
import os
import re
import time
import warnings
from typing import Any

from serve import LeftOutError, combined, read, serve

# finetti's targets hold for the upper 90 % bound of its Monte Carlo error, 1.325 times the error from 16 replicates:
# an error of every hyperparameter's mean below 0.02 / 1.325 sd, which takes a Markov chain 4,389 effective draws.
# (Its sds and quantiles are not asked to be as good, in Bambi's favour.)
SAME_ERROR_ESS = (1.325 / 0.02) ** 2


def joined(group: str) -> str:
    """The column that stands for `a:b`."""
    return group.replace(":", "_and_")


def prepare(spec: dict[str, Any]) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    import bambi
    import numpy as np
    import nutpie
    import pandas as pd
    import pymc
    from arviz_stats.base import array_stats  # arviz 0.23's own mcse of an sd fails with numpy 2.4

    data = read(spec)
    for group, _ in spec["terms"]:
        if ":" in group:
            data[joined(group)] = pd.Categorical(combined(data, group).astype(str))
    dense = max(len(data) * data[joined(group)].nunique() * 8 for group, _ in spec["terms"])
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    by_hand = 3 * dense > memory  # it holds the table more than once

    def number(x: Any) -> float:
        return float(np.asarray(x).item())

    def prior(parts: list[Any]) -> Any:
        name, *given = parts
        if name == "normal":
            return bambi.Prior("Normal", mu=given[0], sigma=given[1])
        if name == "half_t":
            return bambi.Prior("HalfStudentT", nu=given[0], sigma=given[1])
        raise LeftOutError(f"no counterpart of the prior {name}")

    def model(priors: dict[str, list[Any]], noncentered: bool) -> tuple[Any, dict[str, str], list[str]]:
        """The model, the names of its hyperparameters by finetti's labels, and notes."""
        theirs: dict[str, Any] = {}
        names: dict[str, str] = {}
        notes = []
        for label, parts in priors.items():
            sd = re.fullmatch(r"sd_(.+)\[(.+)\]", label)
            if sd:
                term = f"{'1' if sd[2] == 'Intercept' else sd[2]}|{joined(sd[1])}"
                theirs[term] = bambi.Prior("Normal", mu=0, sigma=prior(parts))
                names[label] = f"{term}_sigma"
            elif label.startswith("cor_"):
                notes.append("independent slopes")
            elif label == "sigma":
                theirs["sigma"], names["sigma"] = prior(parts), "sigma"
            else:
                theirs[re.sub(r"beta\[(.+)\]", r"\1", label)] = prior(parts)
        groups = [f"({' + '.join(['1', *slopes])} | {joined(group)})" for group, slopes in spec["terms"]]
        formula = f"{spec['response']} ~ " + " + ".join(["1", *spec["covariates"], *groups])
        known = re.match(r"\s*(\w+)\s*\|\s*se\((\w+)\)\s*~", spec["formula"])
        if known:
            data["precision"] = data[known[2]].astype(float) ** -2
            formula = f"weighted({known[1]}, precision) ~" + formula.split("~", 1)[1]
            theirs["sigma"] = 1.0
            notes.append("known errors as weights")
        if by_hand:
            notes.append(f"its table of rows by levels would take {dense / 1e9:,.0f} GB; its model by hand in PyMC")
            return written(priors, names, noncentered), names, notes
        built = bambi.Model(formula, data, priors=theirs, noncentered=noncentered)
        built.build()
        return built.backend.model, names, notes

    def written(priors: dict[str, list[Any]], names: dict[str, str], noncentered: bool) -> Any:
        """What Bambi would build: covariates centred, group intercepts scaled after the fact or before."""

        def variable(name: str, parts: list[Any]) -> Any:
            kind = {"normal": pymc.Normal, "half_t": pymc.HalfStudentT}[parts[0]]
            keys = ("mu", "sigma") if parts[0] == "normal" else ("nu", "sigma")
            return kind(name, **dict(zip(keys, parts[1:], strict=True)))

        if any(slopes for _, slopes in spec["terms"]):
            raise LeftOutError("too large for Bambi's dense table")
        with pymc.Model() as by_hand_model:
            eta = variable("Intercept", priors["Intercept"])
            for x in spec["covariates"]:
                values = data[x].to_numpy(float)
                eta = eta + variable(x, priors[f"beta[{x}]"]) * (values - values.mean())
            for group, _ in spec["terms"]:
                label = f"sd_{group}[Intercept]"
                codes, k = data[joined(group)].cat.codes.to_numpy("int64"), data[joined(group)].nunique()
                sd = variable(names[label], priors[label])
                if noncentered:
                    effect = pymc.Normal(f"{group}_offset", 0, 1, shape=k) * sd
                else:
                    effect = pymc.Normal(f"{group}_effect", 0, sd, shape=k)
                eta = eta + effect[codes]
            sigma = variable("sigma", priors["sigma"])
            pymc.Normal("y", eta, sigma, observed=data[spec["response"]].to_numpy(float))
        return by_hand_model

    def sample(arguments: str) -> dict[str, Any]:
        """One run; the answer scales the time of the draws to the same error, adaptation counted once."""
        asked = json.loads(arguments)
        start = time.perf_counter()
        built, names, notes = model(asked["priors"], asked["noncentered"])
        build = time.perf_counter() - start
        start = time.perf_counter()
        compiled = nutpie.compile_pymc_model(built, var_names=list(names.values()))
        compiling = time.perf_counter() - start
        start = time.perf_counter()
        sampler = nutpie.sample(
            compiled, draws=asked["draws"], tune=asked["tune"], chains=4, seed=asked["seed"], progress_bar=False,
            blocking=False,
        )  # fmt: skip
        cut = False
        try:
            trace = sampler.wait(timeout=asked["limit"])
        except TimeoutError:
            trace, cut = sampler.abort(), True
        if trace is None:
            trace = sampler.abort()
        seconds = time.perf_counter() - start
        done = int(trace.posterior.sizes["draw"])
        if cut and done < asked["draws"]:
            done_of = f"{done} of {asked['draws']} draws"
            raise LeftOutError(f"over {asked['limit']:.0f} s with {asked['tune']} + {done_of}")
        steps = float(trace.sample_stats["n_steps"].sum())
        warmup = float(trace.warmup_sample_stats["n_steps"].sum())
        adaptation = seconds * warmup / (steps + warmup)
        ess, rhat, means, errors = np.inf, 0.0, {}, {}
        for label, name in names.items():
            x = np.asarray(trace.posterior[name]).reshape(4, done)
            ess = min(ess, number(array_stats.ess(x, chain_axis=0, draw_axis=1, method="bulk")))
            rhat = max(rhat, number(array_stats.rhat(x, chain_axis=0, draw_axis=1)))
            means[label] = float(x.mean())
            errors[label] = number(array_stats.mcse(x, chain_axis=0, draw_axis=1, method="mean"))
        return {
            "build": build, "compile": compiling, "sampling": seconds, "adaptation": adaptation,
            "same_error": adaptation + (seconds - adaptation) * SAME_ERROR_ESS / ess, "ess": ess, "rhat": rhat,
            "divergences": int(trace.sample_stats["diverging"].sum()), "draws": done, "tune": asked["tune"],
            "estimates": means, "mcse": errors, "notes": notes, "noncentered": asked["noncentered"],
            "version": f"Bambi {bambi.__version__}, nutpie {nutpie.__version__}",
        }  # fmt: skip

    return {"sample": sample}


serve(prepare)
