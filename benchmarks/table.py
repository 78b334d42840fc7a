"""The race as a Markdown table with notes, and as JSON."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench import Row

POINT_HEADS = {
    "lme4": "lme4",
    "lme4 without derivatives": "lme4, no derivative check",
    "mixedlm": "mixedlm",
    "gpboost": "gpboost",
    "statsmodels": "statsmodels",
}
HEAD = """# Benchmarks

finetti computes the **full posterior** (every mean, sd and quantile of `summary()`); lme4, mixedlm, gpboost and
statsmodels compute **one point estimate**; Bambi samples the posterior. Seconds, medians; smaller is better.
"""


class Footnotes:
    """Each text once, numbered in the order in which it is met."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, texts: list[str]) -> str:
        """The marks of these notes, such as " [1] [2]"."""
        for text in texts:
            if text not in self.texts:
                self.texts.append(text)
        return "".join(f" [{self.texts.index(text) + 1}]" for text in texts)


def seconds(x: float) -> str:
    """Three figures where they mean something."""
    return f"{x:.4f}" if x < 0.01 else f"{x:.3f}" if x < 1 else f"{x:.2f}" if x < 10 else f"{x:,.0f}"


def ratio(x: float) -> str:
    """Two figures."""
    return f"{x:.2f}" if x < 10 else f"{x:,.0f}"


def best_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Of Bambi's parameterisations the one that is sooner at the same error."""
    return min(runs, key=lambda run: run["same_error"])


def table(rows: list[Row], notes: Footnotes) -> list[str]:
    """The one table."""
    heads = ["data", "rows", "θ", "finetti", "error", *POINT_HEADS.values()]
    heads += ["finetti / lme4", "Bambi to the same error", "Bambi / finetti"]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for row in rows:
        mine = statistics.median(row.seconds["finetti"]) if row.seconds.get("finetti") else None
        answer = row.answers.get("finetti", {})
        cells = [row.case.name, f"{answer['rows']:,}" if answer else "", str(answer.get("hyperparameters", ""))]
        if mine is None or not answer:
            cells += ["–" + notes.mark([f"finetti on {row.case.name}: {row.left_out.get('finetti', 'no answer')}"]), ""]
        else:
            flag = [] if answer["ok"] else [f"finetti on {row.case.name}: its own checks failed"]
            cells.append(f"**{seconds(mine)}**" + notes.mark(flag))
            cells.append(f"{row.error['moments']:.3f}, {row.error['quantiles']:.3f}" if row.error else "")
        for program in POINT_HEADS:
            cells.append(_point(row, program, notes))
        theirs = row.seconds.get("lme4")
        cells.append(ratio(mine / statistics.median(theirs)) if mine and theirs and "lme4" in row.answers else "")
        cells += _bambi(row, mine, notes)
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _point(row: Row, program: str, notes: Footnotes) -> str:
    if program in row.left_out:
        return "–" + notes.mark([f"{program.split()[0]}: {row.left_out[program]}"])
    if not row.seconds.get(program):
        return ""
    marks = [f"{program}: {text}" for text in row.notes.get(program, [])]
    return seconds(statistics.median(row.seconds[program])) + notes.mark(marks)


def _bambi(row: Row, mine: float | None, notes: Footnotes) -> list[str]:
    if row.bambi:
        best = best_of(row.bambi)
        texts = [f"Bambi: {text}" for text in best["notes"]]
        if row.case.large:
            texts.append(f"Bambi: a draw limit, 4 chains of {best['tune']} + {best['draws']}")
        if best["rhat"] > 1.05:
            texts.append(f"Bambi on {row.case.name}: not converged in these draws, R-hat {best['rhat']:.2f}")
        return [seconds(best["same_error"]) + notes.mark(texts), ratio(best["same_error"] / mine) if mine else ""]
    reason = row.left_out.get("bambi")
    if row.bambi_over is not None:
        mark = notes.mark([f"Bambi on {row.case.name}: {reason}"])
        return [f"> {row.bambi_over:.0f}" + mark, f"> {ratio(row.bambi_over / mine)}" if mine else ""]
    return ["–" + notes.mark([f"Bambi: {reason}"]) if reason else "", ""]


def details(rows: list[Row]) -> list[str]:
    """How finetti came to its numbers, and what compilation costs."""
    lines = [
        "| data | formula | nodes | own error bound | range (s) | first call, uncompiled (s) | peak memory (MB) |",
        "| --- | --- |" + " ---: |" * 5,
    ]
    for row in rows:
        a = row.answers.get("finetti")
        if a:
            runs = row.seconds["finetti"]
            cold = f"{row.cold:.1f}" if row.cold is not None else ""
            formula = row.case.formula.replace("|", "\\|")
            bound = f"{a['mean_error']:.3f}, {a['quantile_error']:.3f}"
            lines.append(
                f"| {row.case.name} | `{formula}` | {a['nodes']:,} | {bound} | "
                f"{seconds(min(runs))} to {seconds(max(runs))} | {cold} | {a['peak_mb']:,.0f} |"
            )
    sampled = [row for row in rows if row.bambi]
    if sampled:
        lines += ["", "Bambi, every run (R-hat and effective draws of the worst hyperparameter):", "",
                  "| data | parameterisation | 4 chains of | build + compile (s) | sampling (s) | effective draws | "
                  "R-hat | divergences | to the same error (s) | with compilation, over finetti | difference |",
                  "| --- | --- |" + " ---: |" * 9]  # fmt: skip
    for row in sampled:
        mine = statistics.median(row.seconds["finetti"])
        truth = row.error.get("truth", {})
        for run in row.bambi:
            gaps = [abs(run["estimates"][k] - truth[k][0]) / run["mcse"][k] for k in run["estimates"] if k in truth]
            same = "another model" if "independent slopes" in run["notes"] else f"{max(gaps):.1f}" if gaps else ""
            compiling = run["build"] + run["compile"]
            lines.append(
                f"| {row.case.name} | {'non-centred' if run['noncentered'] else 'centred'} | "
                f"{run['tune']} + {run['draws']} | {compiling:.1f} | {run['sampling']:.2f} | {run['ess']:,.0f} | "
                f"{run['rhat']:.3f} | {run['divergences']} | {seconds(run['same_error'])} | "
                f"{ratio((run['same_error'] + compiling) / mine)} | {same} |"
            )
    return lines


def machine() -> str:
    """Where this ran, without the machine's name."""
    model = ""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        model = platform.processor()
    day = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    return f"{day}, {os.cpu_count()} cores ({model or platform.machine()}), {platform.system()}"


def versions(rows: list[Row]) -> list[str]:
    """Every program that ran, once; R with its BLAS."""
    found: dict[str, None] = {}
    for row in rows:
        for answer in [*row.answers.values(), *row.bambi]:
            text = answer["version"] + (f", BLAS {Path(answer['blas']).resolve()}" if answer.get("blas") else "")
            found.setdefault(text)
    return list(found)


def write(rows: list[Row], target: Path | None, command: str) -> str:
    """Return the page, and write it with its JSON where a target is given."""
    notes = Footnotes()
    main = table(rows, notes)
    lines = [HEAD, *main, ""]
    lines += [f"[{i}] {text}  " for i, text in enumerate(notes.texts, 1)]
    lines += [
        "",
        f"Made by `{command}` on {machine()}. Each program in its own process with its data in memory, one fit before "
        "the clock starts, then one fit of each in turn; formula parsing included, compilation not (it is below). "
        "Threads as each program has them by default.",
        "",
        "- **θ**: hyperparameters. **error**: largest difference from a long reference run (many more nodes, another "
        "seed) over all hyperparameters, in posterior sds: of means and sds, and of the 5, 50 and 95 % quantiles. The "
        "own error bound below is what the fit itself claims: the upper 90 % bound of the Monte Carlo error of the "
        "unconstrained hyperparameters, whose targets are 0.02 and 0.05.",
        "- **lme4** is timed as it comes, and without its check of derivatives after the fit "
        "(`lmerControl(calc.derivs = FALSE)`). Estimates of the others were held against lme4's, and differ by less "
        "than 1 % where no note says otherwise; gpboost's are of maximum likelihood.",
        "- **Bambi**: finetti's priors, sampled by nutpie in 4 chains, centred and non-centred, the better one in the "
        "table. To the same error: its adaptation once, and its draws scaled to 4,389 effective ones in the worst "
        "hyperparameter, where the upper 90 % bound of the mean's error is 0.02 sd. Compilation is not in the table. "
        "**difference**: largest gap of its means from finetti's reference, in its own Monte Carlo standard errors.",
        "",
        *details(rows),
        "",
        "Versions: " + "; ".join(versions(rows)) + ".",
        "",
    ]
    text = "\n".join(lines)
    if target is not None:
        target.write_text(text + kept_sections(target))
        facts = [
            {"data": r.case.name, "seconds": r.seconds, "first": r.first, "left_out": r.left_out, "answers": r.answers,
             "notes": r.notes, "error": r.error, "cold": r.cold, "bambi": r.bambi}
            for r in rows
        ]  # fmt: skip
        keep_facts(target, {"machine": machine(), "rows": facts})
    return text


# ---- sections that other programs write into the same page -----------------------------------------------------------


def kept_sections(target: Path) -> str:
    """What stands between the marks `<!-- name -->` and `<!-- end of name -->` of an earlier page."""
    old = target.read_text() if target.exists() else ""
    return "".join(f"\n{part[0]}\n" for part in re.finditer(r"<!-- (\w+) -->.*?<!-- end of \1 -->", old, re.DOTALL))


def replace_section(target: Path, name: str, text: str, facts: dict[str, Any]) -> None:
    """Write one section of a page and of its JSON, and leave the rest as it is."""
    old = target.read_text() if target.exists() else HEAD
    block = f"<!-- {name} -->\n\n{text}\n<!-- end of {name} -->"
    new, found = re.subn(f"<!-- {name} -->.*?<!-- end of {name} -->", lambda _: block, old, flags=re.DOTALL)
    target.write_text(new if found else f"{old.rstrip()}\n\n{block}\n")
    keep_facts(target, {name: facts})


def keep_facts(target: Path, facts: dict[str, Any]) -> None:
    """Put facts into the page's JSON beside what other programs put there."""
    file = target.with_suffix(".json")
    old = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**old, **facts}, indent=1) + "\n")
