"""What simulated screens show: means with their simulation errors, the claims they bear out or do not, and the page."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from screen_methods import FULL, FULL_BY, METHODS
from screen_settings import SETTINGS
from table import machine

__all__ = ["Summary", "page", "verdicts"]

Floats = npt.NDArray[np.float64]

# simulation errors that a realised rate may lie above its nominal one; paired errors of a difference that counts
ABOVE, PAIRED = 3.0, 2.0
COVERAGE, NEAR_ORACLE, BETTER = 0.9, 0.02, 1.1
RIVALS = ("BH", "qvalue", "empirical, free null", "empirical, N(0, 1)")
DENSE = ("dense", "dense and weak")
SETS = "informative sets"
BY_NAME = {s.name: s for s in SETTINGS}


def mean_and_error(values: Floats) -> tuple[float, float]:
    """Mean over data sets and its simulation error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size))


@dataclass(frozen=True)
class Summary:
    """Means over data sets, indexed by (setting, method, rate); a column `x_se` has the simulation error of `x`.

    power : (runs,) of every data set, by (setting, method, rate)
    """

    table: pd.DataFrame
    power: dict[tuple[Any, ...], Floats]
    runs: int
    settings: list[str]

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Summary:
        """Summarise rows of data set, method and rate."""
        keys = ["setting", "method", "rate"]
        out, power = {}, {}
        for key, part in rows.groupby(keys, sort=False):
            m = {}
            for name in ("fdp", "power", "found", "false", "covered", "number", "mostly null", "seconds"):
                m[name], m[f"{name}_se"] = mean_and_error(part[name].to_numpy(dtype=float))
            # of all discoveries of all data sets: a ratio of sums
            inside, found = part["covered found"].to_numpy(), part["found"].to_numpy(dtype=float)
            some = found.sum() > 0 and np.isfinite(m["covered"])
            ratio = inside.sum() / found.sum() if some else np.nan
            m["covered found"] = float(ratio)
            scatter = np.std(inside - ratio * found, ddof=1) if some else np.nan
            m["covered found_se"] = float(scatter / np.sqrt(found.size) / max(found.mean(), 1e-12))
            m["failed"], m["least mostly null"] = float(part["failed"].sum()), float(part["mostly null"].min())
            out[key] = m
            power[key] = part.sort_values("run")["power"].to_numpy(dtype=float)
        for key, m in out.items():
            for other, name in (("oracle", "to oracle"), ("BH", "to BH")):
                m[name], m[f"{name}_se"] = mean_and_error(power[key] - power[key[0], other, key[2]])
        table = pd.DataFrame.from_dict(out, orient="index")
        table.index = pd.MultiIndex.from_tuples(table.index, names=keys)
        return cls(table.sort_index(), power, int(rows["run"].nunique()), list(dict.fromkeys(rows["setting"])))

    def has(self, setting: str, method: str) -> bool:
        return (setting, method) in {k[:2] for k in self.table.index}

    def best(self, setting: str) -> str:
        """What finetti offers for a setting: full Bayes, with `by` where tests come in sets."""
        return FULL_BY if self.has(setting, FULL_BY) else FULL

    def gap(self, setting: str, one: str, other: str, rate: float) -> tuple[float, float]:
        """Mean paired difference of power, and its error."""
        return mean_and_error(self.power[setting, one, rate] - self.power[setting, other, rate])

    def records(self) -> list[dict[str, Any]]:
        """For JSON: None in place of what is not defined."""
        frame = self.table.reset_index()
        return [{k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in r.items()}
                for r in frame.to_dict("records")]  # fmt: skip

    @property
    def methods(self) -> list[str]:
        there = set(self.table.index.get_level_values(1))
        return [m for m in METHODS if m in there]

    def in_family(self, setting: str) -> bool:
        """Whether the truth is one of those that the model of `best` knows."""
        truth = BY_NAME[setting]
        return truth.slab == "normal" and (isinstance(truth.pi0, float) or self.has(setting, FULL_BY))

    @property
    def rates(self) -> list[float]:
        return sorted(set(self.table.index.get_level_values(2)))


def percent(x: float, digits: int = 1) -> str:
    """100 x; a dash where there is no number."""
    return f"{100 * x:.{digits}f}" if np.isfinite(x) else "–"


def pair(row: pd.Series, name: str, digits: int = 1) -> str:
    """A share in per cent with its error."""
    return f"{percent(row[name], digits)} ± {percent(row[name + '_se'], digits + 1)}" if np.isfinite(row[name]) else "–"


def verdicts(s: Summary) -> list[dict[str, Any]]:
    """Every claim with whether it holds, how many cases there were, and the cases where it does not."""
    out: list[dict[str, Any]] = []
    cells = [(name, rate) for name in s.settings for rate in s.rates]
    real = [(name, rate) for name, rate in cells if not BY_NAME[name].null]

    def claim(
        words: str, cases: Sequence[tuple[Any, ...]], check: Callable[..., tuple[bool, float, str]], listed: bool = True
    ) -> None:
        said = [(case, *check(*case)) for case in cases]
        if not said:
            return
        against = [f"{', '.join(str(c) for c in case)}: {text}" for case, good, _, text in said if not good]
        worst = min(said, key=lambda item: item[2])
        told = f"{', '.join(str(c) for c in worst[0])}: {worst[3]}"
        out.append({"claim": words, "holds": not against, "cases": len(said), "failed": len(against),
                    "against": against if listed else [], "closest": told})  # fmt: skip

    def row(name: str, method: str, rate: float) -> pd.Series:
        return s.table.loc[(name, method, rate)]

    def controls(name: str, rate: float) -> tuple[bool, float, str]:
        r = row(name, s.best(name), rate)
        room = rate + ABOVE * r["fdp_se"] - r["fdp"]
        return bool(room >= 0), room / max(r["fdp_se"], 1e-12), f"{pair(r, 'fdp', 2)} % false"

    def oracle(name: str, rate: float) -> tuple[bool, float, str]:
        r = row(name, s.best(name), rate)
        return bool(r["to oracle"] >= -NEAR_ORACLE), r["to oracle"], f"{pair(r, 'to oracle', 2)} points"

    def rival(strict: bool) -> Callable[..., tuple[bool, float, str]]:
        def check(name: str, rate: float, other: str) -> tuple[bool, float, str]:
            r = row(name, other, rate)
            d, e = s.gap(name, s.best(name), other, rate)
            allowed = rate + (0.0 if strict else ABOVE * r["fdp_se"])
            if r["fdp"] > allowed or not np.isfinite(d):
                return True, np.inf, ""
            text = f"{100 * d:+.2f} ± {100 * e:.2f} points, theirs {pair(r, 'fdp', 2)} % false"
            return bool(d >= -PAIRED * e), d, text

        return check

    def above_bh(name: str, rate: float) -> tuple[bool, float, str]:
        mine, theirs = row(name, s.best(name), rate)["power"], row(name, "BH", rate)["power"]
        return bool(mine >= BETTER * theirs), mine / theirs, f"{100 * (mine / theirs - 1):+.1f} %"

    def covers(column: str) -> Callable[..., tuple[bool, float, str]]:
        def check(name: str, rate: float) -> tuple[bool, float, str]:
            r = row(name, s.best(name), rate)
            if not np.isfinite(r[column]):
                return True, np.inf, ""
            error = max(r[f"{column}_se"], 1e-12)
            if column == "number":  # of a share of runs, from its nominal value
                error = np.sqrt(COVERAGE * (1 - COVERAGE) / s.runs)
            above = r[column] - COVERAGE + ABOVE * error
            return bool(above >= 0), r[column], f"{pair(r, column, 1)} %"

        return check

    def mostly_null(name: str) -> tuple[bool, float, str]:
        r = row(name, FULL, s.rates[0])
        return bool(r["mostly null"] > COVERAGE), r["mostly null"], (
            f"mean {r['mostly null']:.4f}, smallest {r['least mostly null']:.4f}"
        )  # fmt: skip

    def passed(name: str) -> tuple[bool, float, str]:
        failed = row(name, s.best(name), s.rates[0])["failed"]
        return failed == 0, -failed, f"{failed:.0f} of {s.runs}"

    theirs = [(name, rate, other) for name, rate in real for other in RIVALS]
    kept = f"false discoveries at most nominal + {ABOVE:.0f} simulation errors"
    claim(f"full Bayes with a free null: {kept}", cells, controls)
    near = f"its power is within {100 * NEAR_ORACLE:.0f} points of the oracle's"
    inside, outside = ([c for c in real if s.in_family(c[0]) is known] for known in (True, False))
    claim(f"{near}, where the model can be true", inside, oracle)
    claim(f"{near}, where the oracle knows another slab, or sets", outside, oracle)
    others = "; ".join(RIVALS)
    claim(f"none of {others} with realised rate at most nominal has more power (by {PAIRED:.0f} paired errors)", theirs,
          rival(True))  # fmt: skip
    claim(f"nor has one with realised rate at most nominal + {ABOVE:.0f} simulation errors", theirs, rival(False),
          listed=False)  # fmt: skip
    gains = [(name, rate) for name, rate in real if name in DENSE or (name == SETS and s.has(name, FULL_BY))]
    claim(f"its power is {100 * BETTER - 100:.0f} % above BH's where pi0 = 0.5 or `by` is informative", gains, above_bh)
    once = [c for c in cells if c[1] == s.rates[0]]
    claim("its 90 % intervals of effects cover, over all tests", once, covers("covered"))
    claim("and over the discoveries", cells, covers("covered found"))
    if np.isfinite(s.table["number"]).any():
        claim("its 90 % interval of the number of false discoveries holds it", cells, covers("number"))
    claim("where all is null, P(pi0 > 0.9) is above 0.9 on average",
          [(name,) for name in s.settings if BY_NAME[name].null], mostly_null)  # fmt: skip
    claim("it passes its own checks in every data set", [(name,) for name in s.settings], passed)
    return out


def failures(s: Summary) -> list[str]:
    """By method, where the realised rate is beyond nominal + 3 simulation errors."""
    lines = []
    for method in s.methods:
        said = []
        for name in s.settings:
            if not s.has(name, method):
                continue
            for rate in s.rates[:1]:
                r = s.table.loc[(name, method, rate)]
                if r["fdp"] > rate + ABOVE * r["fdp_se"]:
                    said.append(f"{name} {percent(r['fdp'])} %")
        lines.append(f"- {method}: " + (", ".join(said) if said else "nowhere"))
    return lines


def overview(s: Summary, rate: float, column: str, words: str) -> list[str]:
    """Settings by methods: one number in per cent; too many false discoveries in bold."""
    methods = s.methods
    lines = [f"{words}, per cent, at a nominal rate of {100 * rate:.0f} %:", "",
             "| setting | " + " | ".join(methods) + " |", "| --- |" + " ---: |" * len(methods)]  # fmt: skip
    for name in s.settings:
        if column == "power" and BY_NAME[name].null:
            continue
        cells = []
        for method in methods:
            if not s.has(name, method):
                cells.append("")
                continue
            r = s.table.loc[(name, method, rate)]
            over = r["fdp"] > rate + ABOVE * r["fdp_se"]
            text = percent(r[column])
            cells.append((f"**{text}**" if column == "fdp" else f"({text})") if over else text)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def detail(s: Summary, name: str) -> list[str]:
    """One setting, everything."""
    setting = BY_NAME[name]
    lines = [f"### {name}: {setting.words}", "",
             "| method | rate | false, % | power, % | discoveries | false | to the oracle, points | to BH, points | "
             "covered, all, % | covered, found, % | number held, % | P(pi0 > 0.9) | checks failed | seconds |",
             "| --- |" + " ---: |" * 13]  # fmt: skip
    for rate in s.rates:
        for method in s.methods:
            if not s.has(name, method):
                continue
            r = s.table.loc[(name, method, rate)]
            null = f"{r['mostly null']:.3f}" if np.isfinite(r["mostly null"]) else ""
            own = method not in ("BH", "qvalue", "oracle")
            cells = [method, f"{100 * rate:.0f} %", pair(r, "fdp", 2), pair(r, "power"), f"{r['found']:,.1f}",
                     f"{r['false']:,.1f}", pair(r, "to oracle", 2) if method != "oracle" else "",
                     pair(r, "to BH", 2) if method != "BH" else "", percent(r["covered"]), percent(r["covered found"]),
                     percent(r["number"]) if own else "", null, f"{r['failed']:.0f}" if own else "",
                     f"{r['seconds']:.2f}" if own else ""]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def page(s: Summary, recipe: dict[str, Any], agreement: dict[str, Any] | None) -> str:
    """The whole page."""
    first = s.rates[0]
    lines = [
        "# Error control of screens, in simulation", "",
        f"{s.runs} data sets of {recipe['n']:,} tests per setting (the same for every method); realised share of false "
        "discoveries and power, mean ± simulation error.", "",
        *overview(s, first, "fdp", "Realised false discovery proportion"),
        f"**Bold**: over nominal by more than {ABOVE:.0f} simulation errors. In brackets: power bought that way.", "",
        *overview(s, first, "power", "Power"),
        "## What holds", "",
    ]  # fmt: skip
    for v in verdicts(s):
        lines.append(f"- **{'holds' if v['holds'] else 'FAILS'}** ({v['cases'] - v['failed']} of {v['cases']}): "
                     f"{v['claim']}. Closest: {v['closest']}.")  # fmt: skip
        lines += [f"    - against: {text}" for text in v["against"]]
    lines += ["", f"Realised rate too high at nominal {100 * first:.0f} %:", "", *failures(s), "",
              "## Everything", ""]  # fmt: skip
    for name in s.settings:
        lines += detail(s, name)
    checked = "R's qvalue was not there to compare with"
    if agreement is not None:
        stopped = f"; R's stopped on {', '.join(agreement['R stopped'])}" if "R stopped" in agreement else ""
        checked = (
            f"beside R's qvalue {agreement['version']} on {agreement['data sets']} data sets its pi0 differs by at "
            f"most {agreement['pi0']:.1e}, its q-values by {agreement['qvalue']:.1e}, decisions by "
            f"{agreement['discoveries differ']}{stopped}"
        )
    versions = ", ".join(f"{p} {version(p)}" for p in ("finetti", "numpy", "scipy", "numba"))
    lines += [
        f"Made by `{recipe['command']}` on {machine()}, {recipe['jobs']} processes of one thread, "
        f"{recipe['seconds']:,.0f} s. {versions}, Python {platform.python_version()}.", "",
        "- **to the oracle, to BH**: paired differences of power. The oracle knows every hyperparameter of the truth "
        "and its slab's shape, and rejects while the running mean of its lfdr is at most the rate.",
        "- **covered**: 90 % intervals of effects that hold them: over all tests (nulls included: an interval with 0 "
        "in it holds a null), and over each method's own discoveries. For BH and qvalue effect ± 1.64 se.",
        "- **number held**: data sets in which the 90 % interval of the number of false discoveries holds it.",
        f"- **qvalue** is written anew for the simulation (pi0 by the smoother); {checked}.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)
