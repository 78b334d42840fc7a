"""The model as a statistician would write it on a board, in plain text.

One function serves both a `Model`, where the terms are read off the formula and defaults are symbols, and a
`Bound`, where columns, levels and priors are known. Likelihood and parents are written Normal(mean, variance), as
in a paper; priors are written as the user types them, and the heading says that normal(mean, sd) has an sd.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Protocol

from finetti.model.formula import Formula
from finetti.model.priors import Fixed, Prior
from finetti.model.sketch import cut, sketch

__all__ = ["FactorLike", "board"]

WIDTH = 100
# Beyond this many columns a board is a wall; the first ones and the number of the others are shown.
MOST = 8
SHOWN = 6

_LETTERS = "jklmgh"
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_DUMMY = re.compile(r"(?P<column>.+)\[T\.(?P<level>.+)\]\Z")


class FactorLike(Protocol):
    """What is read of a grouping factor: `data.design.Factor` and `sketch.SketchFactor` both have it."""

    @property
    def name(self) -> str: ...
    @property
    def coefficients(self) -> tuple[str, ...]: ...
    @property
    def blocks(self) -> tuple[tuple[int, ...], ...]: ...
    @property
    def levels(self) -> Sequence[str] | None: ...


def board(
    formula: Formula,
    *,
    columns: Sequence[str] | None = None,
    factors: Sequence[FactorLike] | None = None,
    priors: Mapping[str, Prior | str] | None = None,
    sources: Mapping[str, str] | None = None,
    pooling: str | Mapping[str, str] = "partial",
    n: int | None = None,
    blocks: Sequence[int] = (),
) -> str:
    """Write the model in mathematical form.

    Parameters
    ----------
    formula : Formula
        The model's formula.
    columns : sequence of str, optional
        Population columns once data are bound; without them the formula's terms are shown.
    factors : sequence of FactorLike, optional
        Grouping factors once data are bound.
    priors : mapping of str to Prior or str, optional
        By label, in the order to be shown; a text (a symbolic default) is shown as it is.
    sources : mapping of str to str, optional
        By label: "default" or the user's key.
    pooling : str or mapping of str to str
        One kind for all grouping factors, or one for each by name ("partial" where absent).
    n : int, optional
        Number of rows.
    blocks : sequence of int
        Numbers of rows whose errors have a known covariance V, one for each block of V.

    Returns
    -------
    str
        Several lines, without a newline at the end.

    Examples
    --------
    >>> from finetti.model.formula import parse
    >>> print(board(parse("effect | se(sigma) ~ 1 + (1 | school)"), n=8))
    effect | se(sigma) ~ 1 + (1 | school)
    <BLANKLINE>
    Likelihood
      effect[i] ~ Normal(μ[i], sigma[i]²)   i = 1, …, 8
      μ[i] = β[Intercept] + u_school[j[i], Intercept]
    <BLANKLINE>
    Parent distributions
      u_school[j, Intercept] ~ Normal(0, sd_school[Intercept]²)   j over the levels of school, j[i] that of row i
    """
    guessed_columns, guessed_factors = sketch(formula)
    columns = guessed_columns if columns is None else columns
    factors = guessed_factors if factors is None else factors
    kinds = {f.name: pooling if isinstance(pooling, str) else pooling.get(f.name, "partial") for f in factors}
    letters = dict(zip(kinds, _indices(), strict=False))

    lines = [str(formula), "", "Likelihood", *_likelihood(formula, n), *_covariance(blocks)]
    lines += _predictor(formula, columns, [f for f in factors if kinds[f.name] != "complete"], letters)
    if factors:
        lines += ["", "Parent distributions"]
        for factor in factors:
            lines += _parent(factor, kinds[factor.name], letters[factor.name])
    if priors:
        lines += _priors(priors, sources or {}, kinds, columns)
    return "\n".join(lines)


def _indices() -> Iterator[str]:
    yield from _LETTERS
    number = 1
    while True:
        yield f"j{number}"
        number += 1


def at_row(expression: str) -> str:
    """Write a column or an expression of columns at row i.

    >>> at_row("Days"), at_row("period[T.2]"), at_row("x:z"), at_row("log(n)"), at_row("I(a + b)")
    ('Days[i]', '1{period[i] = 2}', 'x[i]·z[i]', 'log(n)[i]', '(a + b)[i]')
    """
    parts = cut(expression, ":")
    if len(parts) > 1:
        return "·".join(at_row(part) for _, part in parts)
    dummy = _DUMMY.match(expression)
    if dummy:
        return f"1{{{dummy['column']}[i] = {dummy['level']}}}"
    if expression.startswith("I(") and len(cut(expression, "+-*/ ")) == 1:
        return f"{expression[1:]}[i]"
    compound = len(cut(expression, "+-*/ ")) > 1
    return f"({expression})[i]" if compound and "`" not in expression else f"{expression}[i]"


def _times(coefficient: str, column: str) -> str:
    return coefficient if column == "Intercept" else f"{coefficient}·{at_row(column)}"


def _likelihood(formula: Formula, n: int | None) -> list[str]:
    response = formula.response
    if response.se is not None:
        variance = at_row(response.se) + "²" + (" + σ²" if response.se_sigma else "")
    elif response.weights is not None:
        variance = f"σ²/{at_row(response.weights)}"
    else:
        variance = "σ²"
    rows = "i over the rows" if n is None else f"i = 1, …, {n:,}"
    return [f"  {at_row(response.expression)} ~ Normal(μ[i], {variance})   {rows}"]


def _covariance(blocks: Sequence[int]) -> list[str]:
    if not blocks:
        return []
    small, large = min(blocks), max(blocks)
    rows = f"{small}" if small == large else f"{small} to {large}"
    count = "one block" if len(blocks) == 1 else f"{len(blocks):,} blocks"
    return [f"    errors correlated: known covariance V with these variances on its diagonal, {count} of {rows} rows"]


def _few(items: Sequence[str], what: str) -> list[str]:
    """All items if there are few, else the first ones and how many more there are."""
    if len(items) <= MOST:
        return list(items)
    return [*items[:SHOWN], f"… ({len(items) - SHOWN} more {what})"]


def _predictor(
    formula: Formula, columns: Sequence[str], factors: Sequence[FactorLike], letters: Mapping[str, str]
) -> list[str]:
    parts = [at_row(offset) for offset in formula.offsets]
    parts += _few([_times(f"β[{column}]", column) for column in columns], "columns")
    for factor in factors:
        index = f"{letters[factor.name]}[i]"
        effects = [_times(f"u_{factor.name}[{index}, {c}]", c) for c in factor.coefficients]
        parts += _few(effects, f"coefficients of {factor.name}")
    return _wrap("  μ[i] = ", parts or ["0"], " + ")


def _wrap(head: str, parts: Sequence[str], joint: str) -> list[str]:
    """Join the parts into lines of at most WIDTH characters, aligned below the end of the head."""
    lines, line = [], head + parts[0]
    for part in parts[1:]:
        if len(line) + len(joint) + len(part) > WIDTH:
            lines.append(line)
            line = " " * (len(head) - 2) + joint.lstrip() + part
        else:
            line += joint + part
    return [*lines, line]


def _parent(factor: FactorLike, kind: str, j: str) -> list[str]:
    name, coefficients = factor.name, factor.coefficients
    of_levels = f"levels of {name}" + (" that occur" if ":" in name else "")
    count = None if factor.levels is None else len(factor.levels)
    over = f"{j} over the {of_levels}" if count is None else f"{j} = 1, …, {count:,} {of_levels}"
    over += f", {j}[i] that of row i"
    if kind == "complete":
        return [f"  u_{name} = 0   complete pooling: the {of_levels} share the population's coefficients"]
    if kind == "none":
        return [f"  u_{name}[{j}, ·] free   no pooling (sd_{name} = ∞): each level on its own, {over}"]
    lines = []
    joint = [block for block in factor.blocks if len(block) > 1]
    for block in joint:
        which = "" if len(joint) == 1 else f"({joint.index(block) + 1})"
        sigma, q = f"Σ_{name}{which}", len(block)
        covers_all = q == len(coefficients)
        inner = "·" if covers_all else "(" + ", ".join(_few([coefficients[k] for k in block], "coefficients")) + ")"
        size = "" if count is None else str(q).translate(_SUBSCRIPTS)
        lines.append(f"  u_{name}[{j}, {inner}] ~ Normal{size}(0, {sigma})   {over}")
        # Spelt out while it fits on the line; sd_g alone names the whole vector.
        sds = ", ".join(f"sd_{name}[{coefficients[k]}]" for k in block) if q <= 3 else f"sd_{name}"
        lines.append(f"    {sigma} = D·C·D,  D = diag({sds}),  C = cor_{name}{which} (correlations)")
    single = [coefficients[block[0]] for block in factor.blocks if len(block) == 1]
    written = _few([f"u_{name}[{j}, {c}] ~ Normal(0, sd_{name}[{c}]²)" for c in single], "alike")
    for k, line in enumerate(written):
        lines.append(f"  {line}" + (f"   {over}" if k == 0 and not joint else ""))
    if len(factor.blocks) > 1:
        lines[-1] += "   independent of " + ("the others" if joint else "each other")
    return lines


def _priors(
    priors: Mapping[str, Prior | str], sources: Mapping[str, str], kinds: Mapping[str, str], columns: Sequence[str]
) -> list[str]:
    """Two sections, coefficients and hyperparameters, with a column that says where each prior came from."""
    population = [p for p in priors if p == "Intercept" or p.startswith("beta[")]
    hyper = [p for p in priors if p not in population]
    lines: list[str] = []
    if population:
        rows = [_statement(p, priors[p], sources.get(p), columns) for p in population]
        any_normal = any(right.startswith("~ normal(") for _, right, _ in rows)
        note = "   (normal(mean, sd), unlike Normal(mean, variance) above)" if any_normal else ""
        lines += ["", f"Priors on the population coefficients{note}", *_aligned(rows)]
    gone = tuple(name for name, kind in kinds.items() if kind in ("complete", "none"))
    by_data = tuple(name for name, kind in kinds.items() if kind == "empirical")
    # Empirical Bayes fixes every hyperparameter at once, so sigma follows unless a partially pooled term stays.
    sigma_too = bool(by_data) and "partial" not in kinds.values()
    kept = [p for p in hyper if not _belongs(p, (*gone, *by_data)) and not (p == "sigma" and sigma_too)]
    if kept or by_data:
        lines += ["", "Hyperpriors   (on standard deviations; a ² marks a variance)"]
        lines += _aligned([_statement(p, priors[p], sources.get(p), columns) for p in kept])
    if by_data:
        held = [variable + g for g in by_data for variable in ("sd_", "cor_") if _any_of(variable + g, hyper)]
        held += ["σ"] if sigma_too and "sigma" in priors else []
        lines.append(f"  {', '.join(held)}: no prior; held where the marginal likelihood is largest (empirical Bayes)")
    return lines


def _any_of(variable: str, labels: Sequence[str]) -> bool:
    return any(label == variable or label.startswith(f"{variable}[") for label in labels)


def _belongs(label: str, names: Sequence[str]) -> bool:
    return any(_any_of(variable + g, [label]) for g in names for variable in ("sd_", "cor_"))


def _statement(label: str, prior: Prior | str, source: str | None, columns: Sequence[str]) -> tuple[str, str, str]:
    left = {"sigma": "σ"}.get(label, label.replace("beta[", "β[", 1) if label.startswith("beta[") else label)
    if label == "Intercept":
        others = [c for c in columns if c != "Intercept"]
        means = [f" + β[{c}]·mean({c})" for c in others]
        left = "β[Intercept]" + ("".join(means) if len(means) <= 2 else " + Σ β[x]·mean(x)")
    if isinstance(prior, Prior) and prior.on_variance:
        left += "²"
    if isinstance(prior, Fixed):
        right = f"= {prior.value:.4g} (fixed)"
    else:
        right = f"~ {prior}" + ("" if isinstance(prior, str) or prior.proper else " (improper)")
    origin = "" if source is None else "default" if source == "default" else f"given as {source!r}"
    return left, right, origin


def _aligned(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """Rows in columns; of many entries of one variable only the first are shown, and how many more there are."""
    runs = [list(run) for _, run in groupby(rows, key=lambda row: row[0].split("[")[0])]
    short = [run if len(run) <= MOST else run[:SHOWN] for run in runs]
    left = max((len(row[0]) for run in short for row in run), default=0)
    right = max((len(row[1]) for run in short for row in run), default=0)
    lines: list[str] = []
    for run, shown in zip(runs, short, strict=True):
        lines += [f"  {a:<{left}} {b:<{right}}  {c}".rstrip() for a, b, c in shown]
        lines += [f"  … ({len(run) - len(shown)} more, all in .priors)"] if len(shown) < len(run) else []
    return lines
