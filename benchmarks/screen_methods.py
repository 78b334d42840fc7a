"""Methods that decide which of many tests to believe, each as a score per test: reject where it is at most the rate.

finetti's are full Bayes and the empirical plug-in, with the null free or N(0, 1); `by` where the tests come in sets.
Benjamini and Hochberg (1995) and Storey's q-value (Storey and Tibshirani 2003, PNAS 100:9440) see two-sided p-values of
N(0, 1), or of t where df are known. The oracle ranks by the true lfdr and stops where its running mean is the rate.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ndtr, stdtr
from screen_settings import NORMAL, SETTINGS, Draw, Setting

import finetti as fi
from finetti.errors import FinettiWarning, NotBuiltError

__all__ = ["METHODS", "Answer", "answer", "bh", "methods_of", "p_values", "qvalue_agreement", "storey"]

Floats = npt.NDArray[np.float64]

FULL, FULL_BY, FULL_T = "full Bayes, free null", "full Bayes, free null, by", "full Bayes, free null, t slab"
FINETTI: dict[str, dict[str, Any]] = {
    FULL: {},
    FULL_BY: {},
    FULL_T: {"slab": "student_t"},
    "full Bayes, N(0, 1)": {"null": "theoretical"},
    "empirical, free null": {"method": "empirical"},
    "empirical, N(0, 1)": {"method": "empirical", "null": "theoretical"},
}
METHODS = (*FINETTI, "BH", "qvalue", "oracle")
# 90 % of a normal distribution
Z90 = 1.6448536269514722
LIKELY_NULL = 0.9


@dataclass
class Answer:
    """A method's score per test, and of finetti's the rest.

    low, high : (n,) ends of 90 % intervals of the effects; ok : passed its checks
    mostly_null : P(pi0 > 0.9), where all is null; false : 90 % interval of the number of false discoveries by rate
    """

    score: Floats
    low: Floats | None = None
    high: Floats | None = None
    ok: bool = True
    mostly_null: float = float("nan")
    false: dict[float, tuple[float, float]] = field(default_factory=dict)


def methods_of(setting: Setting) -> tuple[str, ...]:
    """Methods that a setting is given to: `by` only where there are sets, a t slab where tails are heavy."""
    left_out = {FULL_BY} if isinstance(setting.pi0, float) else set()
    if setting.slab != "t3":
        left_out.add(FULL_T)
    return tuple(m for m in METHODS if m not in left_out)


def p_values(setting: Setting, data: Draw) -> Floats:
    """Two-sided, of N(0, 1) or t."""
    z = -np.abs(data.x / data.se)
    return np.asarray(2.0 * (ndtr(z) if setting.df == NORMAL else stdtr(setting.df, z)))


def bh(p: Floats) -> Floats:
    """p-values adjusted after Benjamini and Hochberg."""
    order = np.argsort(p)[::-1]
    out = np.empty_like(p)
    out[order] = np.minimum(np.minimum.accumulate(p[order] * p.size / np.arange(p.size, 0, -1.0)), 1.0)
    return out


def storey_pi0(p: Floats) -> float:
    """Share of nulls: #{p >= l} / (m (1 - l)) at l = 0.05, ..., 0.95, smoothed by a cubic spline of 3 df, at the end.

    The natural cubic smoothing spline (I + a K)^-1 y, K = Q R^-1 Q' (Green and Silverman 1994), a chosen so that the
    smoother's trace is 3.
    """
    at = np.arange(1, 20) / 20.0
    y = np.array([np.mean(p >= v) / (1.0 - v) for v in at])
    h, n = 0.05, at.size
    Q, R = np.zeros((n, n - 2)), np.zeros((n - 2, n - 2))
    for j in range(n - 2):
        Q[j : j + 3, j] = 1.0 / h, -2.0 / h, 1.0 / h
        R[j, j] = 2.0 * h / 3.0
        if j:
            R[j, j - 1] = R[j - 1, j] = h / 6.0
    d, U = np.linalg.eigh(Q @ np.linalg.solve(R, Q.T))
    d = np.maximum(d, 0.0)
    a = np.exp(brentq(lambda v: float(np.sum(1.0 / (1.0 + np.exp(v) * d))) - 3.0, -30.0, 10.0))
    return float(min((U @ ((U.T @ y) / (1.0 + a * d)))[-1], 1.0))


def storey(p: Floats) -> Floats:
    """Storey's q-values, pi0 from the smoother; as R's qvalue, which stops where pi0 is not above 0."""
    pi0 = storey_pi0(p)
    return bh(p) * pi0 if pi0 > 0.0 else np.ones_like(p)


def answer(method: str, setting: Setting, data: Draw, rates: tuple[float, ...]) -> Answer | None:
    """What a method says; None if it does not exist yet."""
    if method == "oracle":
        order = np.argsort(data.lfdr, kind="stable")
        score = np.empty_like(data.lfdr)
        score[order] = np.cumsum(data.lfdr[order]) / np.arange(1.0, order.size + 1.0)
        return Answer(score)
    if method in ("BH", "qvalue"):
        p = p_values(setting, data)
        # what is customary beside them: the effect and 1.64 standard errors
        return Answer(bh(p) if method == "BH" else storey(p), data.x - Z90 * data.se, data.x + Z90 * data.se)
    options = dict(FINETTI[method])
    if method == FULL_BY:
        options["by"] = data.group.astype(str)
    if setting.df != NORMAL:
        options["df"] = setting.df
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FinettiWarning)
        try:
            found = fi.screen(data.x, data.se, **options)
        except NotBuiltError:
            return None
        table = found.table((0.05, 0.95))
        out = Answer(table["qvalue"].to_numpy(), table["q5"].to_numpy(), table["q95"].to_numpy(), found.diagnostics.ok)
        if setting.null:
            _, values = found.learned.joint(4000, 0)
            out.mostly_null = float(np.mean(np.asarray(values["pi0"]) > LIKELY_NULL))
        for rate in rates:
            try:
                low, high = found.discoveries(fdr=rate).interval
            except (ImportError, NotBuiltError, AttributeError):
                break
            out.false[rate] = float(low), float(high)
    return out


def qvalue_agreement(n: int) -> dict[str, Any] | None:
    """Largest differences of `storey` from R's qvalue on the first data set of every setting; None without it."""
    if shutil.which("Rscript") is None:
        return None
    script = (
        'suppressMessages(library(qvalue)); p <- scan(file("stdin"), quiet = TRUE); q <- qvalue(p); '
        'cat(format(c(q$pi0, q$qvalues), digits = 17), "\\n"); cat(as.character(packageVersion("qvalue")), "\\n")'
    )
    worst: dict[str, Any] = {"pi0": 0.0, "qvalue": 0.0, "data sets": 0, "discoveries differ": 0}
    for setting in SETTINGS:
        p = p_values(setting, setting.draw(0, n))
        run = subprocess.run(["Rscript", "--vanilla", "-e", script], input="\n".join(map(repr, p.tolist())), text=True,
                             capture_output=True)  # fmt: skip
        if run.returncode:
            if worst["data sets"] == 0:
                return None
            worst.setdefault("R stopped", []).append(setting.name)
            continue
        numbers, version = run.stdout.strip().splitlines()
        theirs = np.array([float(v) for v in numbers.split()])
        mine = storey(p)
        worst["pi0"] = max(worst["pi0"], abs(theirs[0] - storey_pi0(p)))
        worst["qvalue"] = max(worst["qvalue"], float(np.max(np.abs(theirs[1:] - mine))))
        worst["discoveries differ"] += int(np.sum((theirs[1:] <= 0.05) != (mine <= 0.05)))
        worst["data sets"] += 1
        worst["version"] = version.strip()
    return worst


if __name__ == "__main__":
    print(json.dumps(qvalue_agreement(10_000)))
