"""The model in mathematical form, as lines of MathML: likelihood, parents, priors, in the notation of a paper.

    y_i ~ Normal(μ_i, σ²),  μ_i = β_0 + β_x x_i + u^g_j[i]      u^g_j ~ Normal(0, τ_g²)

It says what `finetti.model.display` writes as plain text. The sd of a parent is τ, labelled `sd_g[...]` in the
tables; each prior carries the label of its parameter. Normal, t and half-t take a location and a squared scale, so
that the same name means the same thing in every line (Gelman et al., Bayesian Data Analysis, 3rd ed., appendix A).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from finetti.model.priors import Fixed
from finetti.model.sketch import cut
from finetti.show import mathml as m

__all__ = ["Block", "Line", "equations"]

MOST, SHOWN = 8, 6  # beyond so many terms or priors the first ones are shown, and how many others there are
_LETTERS = "jklghm"
_DUMMY = re.compile(r"(?P<column>.+)\[T\.(?P<level>.+)\]\Z")
_CALL = re.compile(r"(?P<name>\w+)\((?P<inside>.*)\)\Z")
_NAMES = {
    "normal": "Normal", "student_t": "t", "half_normal": "half-Normal", "half_cauchy": "half-Cauchy",
    "half_t": "half-t", "exponential": "Exponential", "gamma": "Gamma", "inverse_gamma": "inverse-Gamma",
    "uniform": "Uniform", "lkj": "LKJ", "beta": "Beta", "flat": "flat",
}  # fmt: skip
_I, _J0 = m.name("i"), m.number("0")
_NORMAL = m.words("Normal")


@dataclass(frozen=True)
class Line:
    """One statement: pieces of MathML between which a line may break, and words beside them.

    Attributes
    ----------
    pieces : tuple of str
        Each a `math` element.
    note : str
        Plain text, such as "j = 1, …, 85 levels of county".
    label : str
        The parameter's label in the tables, where the statement is a prior.
    """

    pieces: tuple[str, ...]
    note: str = ""
    label: str = ""


@dataclass(frozen=True)
class Block:
    """Lines under a heading."""

    title: str
    lines: tuple[Line, ...]


def equations(model: Any) -> tuple[Block, ...]:
    """Return the bound model as blocks of equations.

    Parameters
    ----------
    model : Bound
        With its design, priors and kinds of pooling.

    Returns
    -------
    tuple of Block
        Likelihood, parent distributions, priors, hyperpriors; without those that the model has not.

    Examples
    --------
    >>> from finetti.data.bound import bind
    >>> from finetti.model.model import Model
    >>> bound = bind(Model("y ~ 1 + (1 | g)"), {"y": [1.0, 2.0, 6.0], "g": ["a", "a", "b"]})
    >>> [block.title for block in equations(bound)]
    ['Likelihood', 'Parent distributions', 'Priors of the population coefficients', 'Hyperpriors']
    """
    formula, design = model.model.formula, model.design
    factors, columns = tuple(design.factors), tuple(design.columns)
    kinds = {f.name: model.pooling.get(f.name, "partial") for f in factors}
    letters = {f.name: _LETTERS[k] if k < len(_LETTERS) else f"j{k}" for k, f in enumerate(factors)}
    kept = [f for f in factors if kinds[f.name] != "complete"]
    first = [_likelihood(formula, len(design.y))]
    known = getattr(model, "error_covariance", None)
    if known:
        first.append(_covariance(known))
    blocks = [Block("Likelihood", (*first, _predictor(formula, columns, kept, letters)))]
    if factors:
        lines = [line for f in factors for line in _parent(f, kinds[f.name], letters[f.name])]
        blocks.append(Block("Parent distributions", tuple(lines)))
    return (*blocks, *_prior_blocks(model, kinds, columns, factors))


# --- symbols ------------------------------------------------------------------------------------------


def at_row(expression: str) -> str:
    """Return a column, or an expression of columns, at row i.

    >>> at_row("Days")
    '<msub><mi>Days</mi><mi>i</mi></msub>'
    """
    parts = cut(expression, ":")
    if len(parts) > 1:
        return m.row(m.sign("·").join(at_row(part) for _, part in parts))
    dummy = _DUMMY.match(expression)
    if dummy:  # 1 where the row is of that category
        inside = m.row(m.sub(m.name(dummy["column"]), _I), m.sign("="), m.words(dummy["level"]))
        return m.row(m.number("1"), m.bracket(inside, ends="{}"))
    call = _CALL.match(expression)
    if call and re.fullmatch(r"\w+", call["inside"]) and call["name"] != "I":
        return m.row(m.name(call["name"]), m.bracket(m.sub(m.name(call["inside"]), _I)))
    if re.fullmatch(r"[\w.]+", expression):
        return m.sub(m.name(expression), _I)
    inside_call = expression[1:] if call and call["name"] == "I" else f"({expression})"
    return m.sub(m.row(m.words(inside_call)), _I)


def _coefficient(column: str) -> str:
    return _J0 if column == "Intercept" else m.words(column)


def beta(column: str) -> str:
    """Return the symbol of a population coefficient."""
    return m.sub(m.name("β"), _coefficient(column))


def tau(group: str, coefficient: str | None = None) -> str:
    """Return the symbol of a parent's standard deviation; without the coefficient, where there is one only."""
    indices = [m.words(group)] + ([] if coefficient is None else [_coefficient(coefficient)])
    return m.sub(m.name("τ"), *indices)


def _tau_of(factor: Any, k: int) -> str:
    alone = tuple(factor.coefficients) == ("Intercept",)
    return tau(factor.name, None if alone else factor.coefficients[k])


def _u(factor: Any, index: str, coefficient: str) -> str:
    alone = tuple(factor.coefficients) == ("Intercept",)
    indices = (index,) if alone else (index, _coefficient(coefficient))
    return m.subsup(m.name("u"), indices, m.words(factor.name))


def _times(symbol: str, column: str) -> str:
    return symbol if column == "Intercept" else m.row(symbol, m.sign("⁢", tight=True), at_row(column))


def _normal(mean: str, variance: str, size: int = 1) -> str:
    normal = _NORMAL if size == 1 else m.sub(_NORMAL, m.number(str(size)))
    return m.row(normal, m.bracket(mean, variance))


# --- statements ---------------------------------------------------------------------------------------


def _likelihood(formula: Any, n: int) -> Line:
    response = formula.response
    variance = m.square(m.name("σ"))
    if response.se is not None:
        known = m.square(at_row(response.se))
        variance = m.row(known, m.sign("+"), variance) if response.se_sigma else known
    elif response.weights is not None:
        variance = m.row(variance, m.sign("/", tight=True), at_row(response.weights))
    left = m.chunk(at_row(response.expression), m.sign("~"))
    right = m.chunk(_normal(m.sub(m.name("μ"), _I), variance))
    what = " (se: known standard error)" if response.se == "se" else ""
    return Line((left, right), f"i = 1, …, {n:,}{what}")


def _covariance(blocks: Sequence[Any]) -> Line:
    """The errors of some rows have a known covariance V, whose diagonal is that of the line above."""
    rows = sum(len(rows) for rows, _ in blocks)
    left = m.chunk(m.row(m.words("Cov"), m.bracket(m.name("y"), m.row(m.name("μ")), joint="|")), m.sign("="))
    return Line((left, m.chunk(m.name("V"))), f"known, for {rows:,} rows in {len(blocks):,} blocks; else independent")


def _some(items: Sequence[str], what: str) -> list[str]:
    if len(items) <= MOST:
        return list(items)
    return [*items[:SHOWN], m.words(f"… ({len(items) - SHOWN} more {what})")]


def _predictor(formula: Any, columns: Sequence[str], factors: Sequence[Any], letters: Mapping[str, str]) -> Line:
    terms = [at_row(offset) for offset in formula.offsets]
    terms += _some([_times(beta(c), c) for c in columns], "columns")
    for factor in factors:
        index = m.row(m.name(letters[factor.name]), m.bracket(_I, ends="[]"))
        own = [_times(_u(factor, index, c), c) for c in factor.coefficients]
        terms += _some(own, f"coefficients of {factor.name}")
    pieces = [m.chunk(m.sub(m.name("μ"), _I), m.sign("="))]
    for k, term in enumerate(terms or [m.number("0")]):
        pieces.append(m.chunk(m.sign("+") if k else "", term))
    return Line(tuple(pieces))


def _parent(factor: Any, kind: str, letter: str) -> list[Line]:
    group, coefficients, j = factor.name, tuple(factor.coefficients), m.name(letter)
    of_levels = f"levels of {group}" + (" that occur" if ":" in group else "")
    over = f"{letter} = 1, …, {len(factor.levels):,} {of_levels}"
    alone = coefficients == ("Intercept",)
    whole = m.subsup(m.name("u"), (j,) if alone else (j, m.sign("·")), m.words(group))
    if kind == "complete":
        return [Line((m.chunk(whole, m.sign("="), m.number("0")),), f"complete pooling: one value for all {of_levels}")]
    if kind == "none":
        return [Line((m.chunk(whole, m.sign("∈"), m.name("ℝ")),), f"no pooling: each level on its own; {over}")]
    lines = []
    for block in factor.blocks:
        if len(block) == 1:
            k = block[0]
            left = m.chunk(_u(factor, j, coefficients[k]), m.sign("~"))
            lines.append(Line((left, m.chunk(_normal(m.number("0"), m.square(_tau_of(factor, k))))), over))
            continue
        which = "" if sum(len(b) > 1 for b in factor.blocks) == 1 else f" {factor.blocks.index(block) + 1}"
        cov, cor = (m.sub(m.name(letter_), m.words(group + which)) for letter_ in "ΣR")
        vector = m.bracket(*_some([_u(factor, j, coefficients[k]) for k in block], "coefficients"))
        lines.append(Line((m.chunk(vector, m.sign("~")), m.chunk(_normal(m.number("0"), cov, len(block)))), over))
        sds = m.row(m.words("diag"), m.bracket(*_some([_tau_of(factor, k) for k in block], "sds")))
        D, gap = m.name("D"), m.name(" ")
        product = m.chunk(D, gap, cor, gap, D, m.sign(","))
        spelt = (m.chunk(cov, m.sign("=")), product, m.chunk(D, m.sign("="), sds))
        lines.append(Line(spelt, "R: the correlations"))
    if len(lines) > MOST:
        lines = [*lines[:SHOWN], Line((), f"… ({len(lines) - SHOWN} more alike)")]
    return lines


# --- priors -------------------------------------------------------------------------------------------


def distribution(prior: Any) -> str:
    """Return a prior as a distribution; Normal, t and their halves with squared scales.

    >>> from finetti.model.priors import half_t
    >>> distribution(half_t(3, 2.5)).count("<msup>")
    1
    """
    call = _CALL.match(str(prior))
    if not call:
        return m.words(str(prior))
    kind = call["name"]
    given = [part.split("=")[-1].strip() for part in call["inside"].split(",") if part.strip()]
    shown = [m.number("∞" if g == "inf" else g) for g in given]
    named = m.words(_NAMES.get(kind, kind.replace("_", "-")))
    if kind == "uniform" and not getattr(prior, "proper", True) and len(given) < 2:
        shown = [*(shown or [m.number("0")]), m.number("∞")]
    if kind == "normal":
        shown[1] = m.square(shown[1])
    elif kind == "half_normal":
        shown = [m.number("0"), m.square(shown[0])]
    elif kind == "half_cauchy":
        shown = [m.number("0"), shown[0]]
    elif kind in ("student_t", "half_t"):
        named = m.sub(named, shown[0])
        shown = [*(shown[1:-1] or [m.number("0")]), m.square(shown[-1])]
    return m.row(named, m.bracket(*shown)) if shown else named


def _prior_blocks(model: Any, kinds: Mapping[str, str], columns: Sequence[str], factors: Sequence[Any]) -> list[Block]:
    priors = {str(label): prior for label, prior in model.priors.items()}
    population = [p for p in priors if p == "Intercept" or p.startswith("beta[")]
    hyper = _symbols(factors)
    gone = {f.name for f in factors if kinds[f.name] in ("complete", "none")}
    by_data = {f.name for f in factors if kinds[f.name] == "empirical"}
    sigma_held = bool(by_data) and "partial" not in kinds.values()
    blocks = []
    if population:
        blocks.append(Block("Priors of the population coefficients",
                            _few([_statement(p, _population(p, columns), priors[p]) for p in population])))  # fmt: skip
    kept = [p for p in priors if p not in population and hyper.get(p, ("", "σ"))[0] not in gone | by_data]
    lines = _few([_statement(p, hyper[p][1] if p in hyper else m.name("σ"), priors[p]) for p in kept
                  if not (p == "sigma" and sigma_held)])  # fmt: skip
    if by_data:
        held = [symbol for label, (group, symbol) in hyper.items() if group in by_data and label in priors]
        held += [m.name("σ")] if sigma_held and "sigma" in priors else []
        lines += (Line(tuple(m.chunk(s) for s in _some(held, "alike")),
                       "no prior: held where the marginal likelihood is largest (empirical Bayes)"),)  # fmt: skip
    return [*blocks, Block("Hyperpriors", lines)] if lines else blocks


def _symbols(factors: Sequence[Any]) -> dict[str, tuple[str, str]]:
    """Label -> (group, symbol) of every sd and correlation, looked up and never parsed."""
    found = {}
    for factor in factors:
        for k, coefficient in enumerate(factor.coefficients):
            found[f"sd_{factor.name}[{coefficient}]"] = (factor.name, _tau_of(factor, k))
        found[f"cor_{factor.name}"] = (factor.name, m.sub(m.name("R"), m.words(factor.name)))
    return found


def _population(label: str, columns: Sequence[str]) -> str:
    if label != "Intercept":
        return beta(label.removeprefix("beta[").removesuffix("]"))
    others = [c for c in columns if c != "Intercept"]
    if not others:
        return beta("Intercept")
    if len(others) > 2:
        rest = [m.row(m.sub(m.sign("∑"), m.name("x")), m.sub(m.name("β"), m.name("x")), _mean("x"))]
    else:
        rest = [m.row(beta(c), m.sign("⁢", tight=True), _mean(c)) for c in others]
    return m.row(m.sign("+").join([beta("Intercept"), *rest]))


def _mean(column: str) -> str:
    return m.row(m.name("mean"), m.bracket(m.words(column)))


def _statement(label: str, symbol: str, prior: Any) -> Line:
    if isinstance(prior, Fixed):
        return Line((m.chunk(symbol, m.sign("="), m.number(f"{prior.value:.4g}")),), "held fixed", label)
    if str(prior) == "flat()":
        return Line((m.chunk(m.row(m.name("p"), m.bracket(symbol)), m.sign("∝"), m.number("1")),), "improper", label)
    if getattr(prior, "on_variance", False):
        symbol = m.square(symbol)
    note = "" if getattr(prior, "proper", True) else "improper"
    return Line((m.chunk(symbol, m.sign("~")), m.chunk(distribution(prior))), note, label)


def _few(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Of many priors of one variable only the first are shown, and how many more there are."""
    shown: list[Line] = []
    for _, run in groupby(lines, key=lambda line: line.label.split("[")[0]):
        alike = list(run)
        short = alike if len(alike) <= MOST else alike[:SHOWN]
        shown += short
        if len(short) < len(alike):
            shown.append(Line((), f"… {len(alike) - len(short)} more, all in the table of priors"))
    return tuple(shown)
