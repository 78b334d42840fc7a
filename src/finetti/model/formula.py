"""From the text of a formula to its frozen parts, every factor checked, nothing evaluated.

    y | se(s) ~ 1 + x * z + offset(e) + (1 + x | school) + (1 | school:room)
    response    population  offsets     group terms

The group terms, the offsets and the left side are taken out here. What remains of the right side keeps its
Wilkinson operators, for formulaic to expand, and is written anew from the checked parts: single spaces, the
intercept first and always spelt out, backticks only where a name needs them. The text of a `Formula` is
canonical: parsing it gives the same `Formula` again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from finetti.errors import FormulaError, available
from finetti.model.whitelist import Expression, Token, quote_name, read_expression, refuse, source, tokenize

__all__ = ["Formula", "GroupTerm", "Response", "parse"]

MODIFIERS = ("se", "weights", "trials", "cens")
MAX_POWER = 10  # of a bracket: (a + b) ^ 2
MAX_TERMS = 5_000  # that formulaic would have to form while it expands the right side
_ALONE = "It stands alone at the top level of the right side, joined to the other terms by +"


@dataclass(frozen=True)
class GroupTerm:
    """Coefficients that vary by group: `(1 + x | a:b)`.

    Parameters
    ----------
    group : the columns whose combinations are the groups: `("a", "b")` for `a:b`
    effects : what varies, intercept spelt out: "1 + x", "0 + x"
    correlated : False for `||`
    """

    group: tuple[str, ...]
    effects: str
    correlated: bool = True

    @property
    def name(self) -> str:
        """The name of the grouping factor, as labels have it: "a:b"."""
        return ":".join(self.group)

    def __str__(self) -> str:
        bar = "|" if self.correlated else "||"
        return f"({self.effects} {bar} {':'.join(map(quote_name, self.group))})"


@dataclass(frozen=True)
class Response:
    """The left side: an expression, and what is known about how it was measured (expressions too, or None)."""

    expression: str
    se: str | None = None
    se_sigma: bool = False
    weights: str | None = None
    trials: str | None = None
    cens: str | None = None

    def __str__(self) -> str:
        given = [(name, getattr(self, name)) for name in MODIFIERS]
        extra = {"se": ", sigma=True" if self.se_sigma else ""}
        parts = [f"{name}({text}{extra.get(name, '')})" for name, text in given if text is not None]
        return f"{self.expression} | {' + '.join(parts)}" if parts else self.expression


@dataclass(frozen=True)
class Formula:
    """A checked formula, in parts. Made by `parse`.

    Parameters
    ----------
    response : the left side
    population : the right side without group terms and offsets, intercept spelt out: "1 + Days", "0 + x", "1"
    offsets : expressions added to the predictor with coefficient 1
    groups : group terms, `a/b` written out as `a` and `a:b`
    """

    response: Response
    population: str
    offsets: tuple[str, ...] = ()
    groups: tuple[GroupTerm, ...] = ()

    @property
    def text(self) -> str:
        """The canonical text: `parse(formula.text) == formula`."""
        return str(self)

    @cached_property
    def columns(self) -> frozenset[str]:
        """The data columns that the formula uses anywhere."""
        return _read(str(self)).columns

    def __str__(self) -> str:
        right = [self.population, *(f"offset({text})" for text in self.offsets), *map(str, self.groups)]
        return f"{self.response} ~ {' + '.join(right)}"


def parse(text: str) -> Formula:
    """Read a formula; everything in it is checked against the whitelist, and nothing is evaluated.

    Parameters
    ----------
    text : Wilkinson notation with group terms, such as "y ~ 1 + x + (1 + x | g)"

    Returns
    -------
    Formula

    Raises
    ------
    FormulaError
        When the text cannot be read or asks for something outside the grammar; the message says where.

    Examples
    --------
    >>> formula = parse("log(y)|weights(w) ~ x-1 + (x||school/room)")
    >>> print(formula)
    log(y) | weights(w) ~ 0 + x + (1 + x || school) + (1 + x || school:room)
    >>> sorted(formula.columns)
    ['room', 'school', 'w', 'x', 'y']
    """
    return _read(text).formula()


def _read(text: str) -> _Reader:
    tokens = tokenize(text)
    if not tokens:
        raise refuse("it is empty", advice="Write 'y ~ x + (1 | g)'")
    tildes = [i for i, token in enumerate(tokens) if _is(token, "~")]
    if not tildes:
        raise refuse("there is no ~", text, advice="Write the response on its left: 'y ~ x + (1 | g)'")
    if len(tildes) > 1 or tokens[tildes[0]].depth:
        raise refuse("one ~ is expected, outside all brackets", "~", tokens[tildes[-1]].start)
    return _Reader(tokens[: tildes[0]], tokens[tildes[0] + 1 :])


# ---- helpers on tokens -----------------------------------------------------------------------------------------------


def _is(token: Token, *texts: str) -> bool:
    return token.kind == "op" and token.text in texts


def _closing(tokens: Sequence[Token], opening: int) -> int:
    """Return the index of the bracket that closes the one at `opening`."""
    depth = tokens[opening].depth
    return next(i for i in range(opening + 1, len(tokens)) if tokens[i].depth == depth)


def _split(tokens: Sequence[Token], *signs: str) -> list[tuple[Token | None, Sequence[Token]]]:
    """Cut at the signs outside brackets: (sign before the piece or None, piece); no piece is dropped."""
    pieces: list[tuple[Token | None, Sequence[Token]]] = []
    start, sign = 0, None
    outside = min((token.depth for token in tokens), default=0)
    for i, token in enumerate(tokens):
        if token.depth == outside and _is(token, *signs):
            pieces.append((sign, tokens[start:i]))
            start, sign = i + 1, token
    return [*pieces, (sign, tokens[start:])]


def _call_of(tokens: Sequence[Token], names: Sequence[str]) -> Sequence[Token] | None:
    """Return what is between the brackets when the tokens are one call of one of `names`, else None."""
    if len(tokens) < 3 or tokens[0].kind != "name" or tokens[0].text not in names or not _is(tokens[1], "("):
        return None
    return tokens[2:-1] if _closing(tokens, 1) == len(tokens) - 1 else None


# ---- the parts -------------------------------------------------------------------------------------------------------


@dataclass
class _Sum:
    """The terms of one right side, or of the effects of one group term."""

    intercept: bool = True
    said: Token | None = None  # the 0 or 1 that settled the intercept
    terms: list[tuple[str, str]] = field(default_factory=list)  # ("+" or "-", text)

    @property
    def text(self) -> str:
        return "".join(["1" if self.intercept else "0", *(f" {sign} {text}" for sign, text in self.terms)])

    @property
    def coefficients(self) -> set[str]:
        """The intercept and the plain terms, as far as they can be told without expanding operators."""
        return {text for sign, text in self.terms if sign == "+"} | ({"Intercept"} if self.intercept else set())


class _Reader:
    """Reads both sides and gathers every expression, to compare their names at the end."""

    def __init__(self, left: Sequence[Token], right: Sequence[Token]) -> None:
        self.expressions: list[Expression] = []
        self.offsets: list[str] = []
        self.groups: list[GroupTerm] = []
        self.varying: dict[frozenset[str], tuple[GroupTerm, set[str]]] = {}
        self.size = 0
        self.response = self.read_left(left)
        if not right:
            raise refuse("nothing stands right of ~", "~", advice="Write 'y ~ 1' for an intercept alone")
        self.population = self.read_sum(right, "").text
        names = [*(e.columns for e in self.expressions), *(g.group for g in self.groups)]
        self.columns = frozenset[str]().union(*names)
        self.check_names()

    def formula(self) -> Formula:
        return Formula(self.response, self.population, tuple(self.offsets), tuple(self.groups))

    def expression(self, tokens: Sequence[Token], where: str, *, single: bool = True) -> str:
        self.expressions.append(read_expression(tokens, where=where, single=single))
        return self.expressions[-1].text

    # left side

    def read_left(self, tokens: Sequence[Token]) -> Response:
        (_, expression), *rest = _split(tokens, "|", "||")
        if not expression:
            raise refuse("there is no response left of ~", advice="Write 'y ~ x + (1 | g)'")
        if len(rest) > 1 or any(_is(sign, "||") for sign, _ in rest if sign):
            at = rest[-1][0]
            advice = "Join modifiers by +: y | weights(w) + trials(n)"
            raise refuse("one | is expected on the left", "|", at and at.start, advice)
        if any(token.depth == 0 and token.kind == "op" and token.text not in "()[]." for token in expression):
            advice = f"For arithmetic write I({source(expression)})"
            raise refuse("the response must be one column or one call", source(expression), expression[0].start, advice)
        text = self.expression(expression, "the response")
        given: dict[str, str] = {}
        sigma = False
        for sign, item in _split(rest[0][1], "+", "-") if rest else []:
            inside = _call_of(item, MODIFIERS)
            if inside is None or (sign and sign.text == "-"):
                name = item[0].text if item else ""
                at_item = item[0].start if item else rest[0][0] and rest[0][0].start
                problem = "this is not a modifier of the response"
                raise refuse(problem, source(item), at_item, f"Write y | se(s). {available(name, MODIFIERS)}")
            name = item[0].text
            if name in given:
                raise refuse(f"{name}() is given twice", source(item), item[0].start, "Give it once")
            first, *others = [piece for _, piece in _split(inside, ",")]
            if others:
                sigma = self.read_sigma(name, others, item)
            given[name] = self.expression(first, f"{name}()")
        if "se" in given and "weights" in given:
            raise refuse("se() and weights() both set the error variance", advice="Keep the one that was measured")
        return Response(text, se_sigma=sigma, **given)

    def read_sigma(self, name: str, others: list[Sequence[Token]], item: Sequence[Token]) -> bool:
        words = [token.text for token in others[0]]
        if name == "se" and len(others) == 1 and words in (["sigma", "=", "True"], ["sigma", "=", "False"]):
            return words[-1] == "True"
        expected = "se(s), or se(s, sigma=True) for a residual on top" if name == "se" else f"one argument: {name}(x)"
        raise refuse("these arguments cannot be read", source(item), item[0].start, f"Expected {expected}")

    # right side

    def read_sum(self, tokens: Sequence[Token], where: str) -> _Sum:
        """Read terms joined by + and -; `where` is empty at the top level, where group terms and offsets may stand."""
        result = _Sum()
        pieces = _split(tokens, "+", "-")
        if not pieces[0][1]:  # a sign before the first term
            pieces = pieces[1:]
        for sign_token, item in pieces:
            sign = sign_token.text if sign_token else "+"
            if not item:
                at = sign_token.start if sign_token else None
                raise refuse("a term is missing here", sign if sign_token else "", at, "Write a term", where)
            if len(item) == 1 and item[0].kind == "number" and item[0].text in ("0", "1"):
                self.read_intercept(result, sign, item[0], where)
            elif not self.read_special(sign, item, where):
                text, size = _Wilkinson(self, item, where).term()
                self.size += size
                if self.size > MAX_TERMS:
                    raise _too_many(item, where)
                result.terms.append((sign, text))
        return result

    def read_intercept(self, result: _Sum, sign: str, token: Token, where: str) -> None:
        if sign + token.text == "-0":
            raise refuse("- 0 has no meaning here", "- 0", token.start, "Write 1 for an intercept, 0 for none", where)
        wanted = sign + token.text == "+1"
        if result.said and result.intercept != wanted:
            advice = "Keep one: 1 for an intercept, 0 for none"
            raise refuse("the intercept is both put in and taken out", token.text, token.start, advice, where)
        result.intercept, result.said = wanted, token

    def read_special(self, sign: str, item: Sequence[Token], where: str) -> bool:
        """Take the item out when it is an offset or a group term; refuse one that is in the wrong place."""
        shown, at = source(item), item[0].start
        for i, token in enumerate(item[:-1]):
            if token.kind == "name" and token.text == "offset" and _is(item[i + 1], "("):
                inside = _call_of(item, ("offset",))
                if inside is None or where or sign == "-" or i:
                    raise refuse("offset() cannot be part of another term", shown, at, _ALONE, where)
                self.offsets.append(self.expression(inside, "offset()"))
                return True
        bars = [token for token in item if _is(token, "|", "||")]
        if not bars:
            return False
        if where or any(bar.depth == item[0].depth for bar in bars):
            advice = "A group term is written in brackets: (1 + x | g)"
            raise refuse(f"{bars[0].text} is misplaced", shown, bars[0].start, advice, where)
        if sign == "-" or not _is(item[0], "(") or _closing(item, 0) != len(item) - 1:
            raise refuse("a group term cannot be part of another term", shown, at, _ALONE)
        if len(bars) > 1 or bars[0].depth != item[0].depth + 1:
            advice = "Write (1 + x | g), in one pair of brackets and with one bar"
            raise refuse("this group term cannot be read", shown, at, advice)
        self.read_group(item, item.index(bars[0]))
        return True

    def read_group(self, item: Sequence[Token], bar: int) -> None:
        effects, groups = item[1:bar], item[bar + 1 : -1]
        shown, at = source(item), item[0].start
        if not effects or not groups:
            missing = "what varies" if not effects else "the group"
            raise refuse(f"{missing} is missing", shown, at, "Write (1 | g) or (1 + x | g)")
        total = self.read_sum(effects, "a group term")
        if not total.coefficients:
            raise refuse("nothing varies by group here", shown, at, "Write (1 | g), (0 + x | g) or (1 + x | g)")
        path: list[str] = []
        nested = _split(groups, "/")
        for _, segment in nested:
            for _, name in _split(segment, ":"):
                path.append(self.read_group_name(name, shown, at, total.text))
            if len(set(path)) < len(path):
                raise refuse(f"{path[-1]!r} is in this group twice", shown, at, "Name each column once")
            self.add_group(GroupTerm(tuple(path), total.text, _is(item[bar], "|")), total.coefficients, shown, at)

    def read_group_name(self, tokens: Sequence[Token], shown: str, at: int, effects: str) -> str:
        if len(tokens) == 1 and tokens[0].kind in ("name", "quoted"):
            return next(iter(read_expression(tokens, where="a group term").columns))
        advice = "Groups are columns: g, a/b (b within a), or a:b. For anything else make a column first"
        for sign in "+*":
            names = [source(piece) for _, piece in _split(tokens, sign)]
            if len(names) > 1:
                names = [*names, ":".join(names)] if sign == "*" else names
                advice = "Write one term for each: " + " + ".join(f"({effects} | {name})" for name in names)
        raise refuse(f"{source(tokens)!r} is not the name of a group", shown, at, advice)

    def add_group(self, term: GroupTerm, coefficients: set[str], shown: str, at: int) -> None:
        """Keep a term, unless some coefficient would vary twice over the same groups."""
        first, known = self.varying.setdefault(frozenset(term.group), (term, set()))
        if first.group != term.group or any(g.name == term.name and g.group != term.group for g in self.groups):
            raise refuse(f"group {term.name!r} is written in two ways", shown, at, "Use one name for one grouping")
        twice = sorted(known & coefficients)
        if twice:
            rest = " + ".join(sorted(coefficients - known)) or "x"
            advice = f"Give it once, as in (1 | {term.name}) + (0 + {rest} | {term.name})"
            raise refuse(f"{twice[0]!r} varies by {term.name!r} twice", shown, at, advice)
        known |= coefficients
        self.groups.append(term)

    # both

    def check_names(self) -> None:
        """Refuse names that formulaic would mix up although each is sound by itself."""
        rename = "Rename the column"
        functions = frozenset[str]().union(*(e.functions for e in self.expressions))
        for name in sorted(self.columns & functions):
            raise refuse(f"{name!r} is used both as a column and as a function", advice=rename)
        taken = {**{name: name for name in self.columns}, **{name: name for name in functions}}
        for expression in self.expressions:
            if expression.functions and expression.text in self.columns:
                raise refuse(f"{expression.text!r} is both a column and a call", advice=rename)
            for name, alias in expression.aliases:
                if taken.setdefault(alias, name) != name:
                    raise refuse(f"{name!r} and {taken[alias]!r} are too much alike inside a call", advice=rename)


def _too_many(tokens: Sequence[Token], where: str) -> FormulaError:
    problem = f"this would expand to more than {MAX_TERMS} terms"
    return refuse(problem, source(tokens), tokens[0].start, "Write fewer or smaller interactions", where)


class _Wilkinson:
    """Reads one term by recursive descent: its text, and a bound on the terms formed when it is expanded."""

    def __init__(self, reader: _Reader, tokens: Sequence[Token], where: str) -> None:
        self.reader, self.tokens, self.where = reader, tokens, where
        self.i = 0

    def error(self, problem: str, advice: str) -> FormulaError:
        token = self.tokens[min(self.i, len(self.tokens) - 1)]
        return refuse(problem, source(self.tokens[max(self.i - 1, 0) : self.i + 2]), token.start, advice, self.where)

    def take(self, *texts: str) -> str | None:
        """Step over the next token when it is one of these operators, and return it."""
        if self.i < len(self.tokens) and _is(self.tokens[self.i], *texts):
            self.i += 1
            return self.tokens[self.i - 1].text
        return None

    def term(self) -> tuple[str, int]:
        result = self.product()
        if self.i < len(self.tokens):
            token = self.tokens[self.i]
            if token.kind == "op":
                raise self.error(f"{token.text!r} cannot stand here", "Operators are + - * / : ^ and brackets")
            raise self.error("an operator is missing here", "Join terms by + - * / or :")
        return result

    def sum(self) -> tuple[str, int]:
        text, size = self.product()
        while sign := self.take("+", "-"):
            other, more = self.product()
            text, size = f"{text} {sign} {other}", size + more
        return text, size

    def product(self) -> tuple[str, int]:
        text, size = self.interaction()
        while sign := self.take("*", "/"):
            other, more = self.interaction()
            text, size = f"{text} {sign} {other}", self.bound(size + more + (size * more if sign == "*" else 0))
        return text, size

    def interaction(self) -> tuple[str, int]:
        text, size = self.power()
        while self.take(":"):
            other, more = self.power()
            text, size = f"{text}:{other}", self.bound(size * more)
        return text, size

    def power(self) -> tuple[str, int]:
        bracket = _is(self.tokens[self.i], "(") if self.i < len(self.tokens) else False
        text, size = self.atom()
        if not self.take("^", "**"):
            return text, size
        if not bracket:
            raise self.error("a power of one term is that term itself", f"Write I({text} ** 2) for the square")
        number = self.tokens[self.i].text if self.i < len(self.tokens) else ""
        if number not in map(str, range(1, MAX_POWER + 1)):
            raise self.error("the power of a bracket is too large or not a constant", f"Write 1 to {MAX_POWER}")
        self.i += 1
        if self.take("^", "**"):
            raise self.error("powers of powers cannot be read", "Write one power")
        return f"{text} ** {number}", self.bound(size ** int(number))

    def atom(self) -> tuple[str, int]:
        if self.i >= len(self.tokens):
            raise self.error("a term is missing here", "Write a term after the operator")
        token = self.tokens[self.i]
        if self.take("("):
            text, size = self.sum()
            if not self.take(")"):
                raise self.error("an operator is missing here", "Join terms by + - * / or :")
            return f"({text})", size
        if token.kind in ("name", "quoted"):
            start = self.i
            self.step_over_factor()
            return self.reader.expression(self.tokens[start : self.i], self.where, single=False), 1
        if _is(token, "."):
            raise self.error("'.' for all other columns is not supported", "Name the columns")
        if token.kind == "number":
            advice = "0 and 1 stand for the intercept, outside brackets. For arithmetic write I(2 * x)"
            raise self.error("this number cannot stand here", advice)
        if token.kind == "string":
            raise self.error("a string cannot stand here", "A column name needs no quotes, or `backticks`")
        raise self.error(f"{token.text!r} cannot stand here", "A term is a column or a call such as log(x)")

    def step_over_factor(self) -> None:
        """Move behind a name and all that hangs on it, however odd: the whitelist judges the whole."""
        self.i += 1
        while self.i < len(self.tokens):
            if _is(self.tokens[self.i], "(", "["):
                self.i = _closing(self.tokens, self.i) + 1
            elif _is(self.tokens[self.i], ".") and self.i + 1 < len(self.tokens):
                self.i += 2
            else:
                return

    def bound(self, size: int) -> int:
        if size > MAX_TERMS:
            raise _too_many(self.tokens, self.where)
        return size
