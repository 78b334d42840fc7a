"""What can be said about a formula's columns before there are data: its terms, read off the text.

A category or a spline becomes several columns only when data are bound, so these are terms and not yet columns;
`data.design` is the authority. Here they serve to write an unbound model on the board.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from finetti.model.formula import Formula

__all__ = ["SketchFactor", "cut", "sketch", "terms"]

_CLOSES = {"(": ")", "[": "]", "{": "}"}

Term = tuple[str, ...]  # the factors of an interaction, in the order in which they are written


@dataclass(frozen=True)
class SketchFactor:
    """A grouping factor as the formula names it; its levels are unknown until data are bound."""

    name: str
    coefficients: tuple[str, ...]
    blocks: tuple[tuple[int, ...], ...]
    levels: None = None


def cut(text: str, signs: str) -> list[tuple[str, str]]:
    """Cut at one-character signs outside brackets, quotes and backticks: (sign before, piece); `**` is no sign.

    >>> cut("1 + log(x + 1) - `a+b`", "+-")
    [('', '1'), ('+', 'log(x + 1)'), ('-', '`a+b`')]
    """
    pieces: list[tuple[str, str]] = []
    start, sign, closing = 0, "", ""
    for i, char in enumerate(text):
        if closing and char == closing[-1]:
            closing = closing[:-1]
        elif closing and closing[-1] in "`'\"":
            continue
        elif char in _CLOSES:
            closing += _CLOSES[char]
        elif char in "`'\"":
            closing += char
        elif char in signs and not closing and "**" not in (text[i : i + 2], text[max(i - 1, 0) : i + 1]):
            pieces.append((sign, text[start:i].strip()))
            start, sign = i + 1, char
    return [*pieces, (sign, text[start:].strip())]


def terms(text: str) -> tuple[str, ...]:
    """Terms of a canonical right side, operators expanded, in order of degree; the intercept is "Intercept".

    >>> terms("1 + x * z - z"), terms("0 + a / b"), terms("1 + (a + b) ** 2")
    (('Intercept', 'x', 'x:z'), ('a', 'a:b'), ('Intercept', 'a', 'b', 'a:b'))
    """
    found = {name: len(term) for term in _sum(text) for name in [":".join(term) or "Intercept"]}
    return tuple(sorted(found, key=lambda name: found[name]))


def _sum(text: str) -> list[Term]:
    found: list[Term] = []
    for sign, piece in cut(text, "+-"):
        for term in _product(piece):
            same = [have for have in found if set(have) == set(term)]
            if sign == "-":
                found = [have for have in found if have not in same]
            elif not same:
                found.append(term)
    return found


def _product(text: str) -> list[Term]:
    (_, first), *rest = cut(text, "*/")
    left = _interaction(first)
    for sign, piece in rest:
        right = _interaction(piece)
        # a / b is b within a: a, and b in interaction with all of a.
        inner = left if sign == "*" else [tuple(dict.fromkeys(factor for term in left for factor in term))]
        left = [*left, *(right if sign == "*" else []), *(_join(a, b) for a in inner for b in right)]
    return left


def _interaction(text: str) -> list[Term]:
    factors = [_power(piece) for _, piece in cut(text, ":")]
    return reduce(lambda left, right: [_join(a, b) for a in left for b in right], factors)


def _power(text: str) -> list[Term]:
    if text in ("0", "1"):
        return [()] if text == "1" else []
    if not text.startswith("("):
        return [(text.strip("`") if text.count("`") == 2 and text[0] == text[-1] == "`" else text,)]
    inside, _, exponent = text.rpartition(" ** ") if not text.endswith(")") else (text, "", "1")
    base = _sum(inside[1:-1])
    return reduce(lambda have, _: [*have, *(_join(a, b) for a in have for b in base)], range(int(exponent) - 1), base)


def _join(a: Term, b: Term) -> Term:
    return tuple(dict.fromkeys((*a, *b)))


def sketch(formula: Formula) -> tuple[tuple[str, ...], tuple[SketchFactor, ...]]:
    """Return the population terms and the grouping factors; all group terms of one factor are merged."""
    coefficients: dict[str, list[str]] = {}
    blocks: dict[str, list[tuple[int, ...]]] = {}
    for term in formula.groups:
        have = coefficients.setdefault(term.name, [])
        new = terms(term.effects)
        indices = tuple(range(len(have), len(have) + len(new)))
        have.extend(new)
        blocks.setdefault(term.name, []).extend([indices] if term.correlated else [(k,) for k in indices])
    return terms(formula.population), tuple(
        SketchFactor(g, tuple(c), tuple(blocks[g])) for g, c in coefficients.items()
    )
