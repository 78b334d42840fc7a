"""What a formula may say: characters, names and expressions, all checked before anything is evaluated.

formulaic evaluates the text of a factor as Python, with every builtin in reach. The text is therefore cut into tokens
by hand, each factor is parsed by `ast` and held against the lists below, and what goes on is not the user's text but a
fresh writing of the checked tree. Limits on length, depth and size keep all parsers away from limits of their own.
"""

from __future__ import annotations

import ast
import keyword
import operator
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from finetti.errors import FormulaError, available

__all__ = ["Expression", "Token", "check_expression", "quote_name", "read_expression", "refuse", "source", "tokenize"]

MAX_CHARACTERS = 10_000
MAX_BRACKETS = 20  # nested brackets
MAX_TOKENS = 200  # in one expression
MAX_DEPTH = 50  # of its syntax tree: `ast.unparse` recurses about six frames a level
MAX_EXPONENT = 10
MAX_CONSTANT = 1e15  # integers up to here are exact in float64 and fit int64
MAX_COUNT = 100  # spline degrees of freedom, polynomial degrees, items in a list
MAX_NAME = 200  # characters of a name or a string

_NUMBER = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SIGN = re.compile(r"\*\*|//|\|\||==|!=|<=|>=|:=|[-+*/^:()\[\],=|~.<>!&%@]")
# formulaic's tokenizer does not see quotes inside a call and pastes strings into code of its own, so a string
# holds nothing that could end one: no quotes, brackets, braces, backslashes, backticks or per cent signs.
_UNSAFE_IN_STRING = frozenset("'\"\\`()[]{}%")


class Token(NamedTuple):
    """A piece of a formula; `depth` is the number of brackets around it (a bracket counts as outside itself)."""

    kind: str  # "name", "quoted" (backticks), "number", "string" or "op"
    text: str
    start: int
    depth: int


def refuse(problem: str, piece: str = "", at: int | None = None, advice: str = "", where: str = "") -> FormulaError:
    """Return the error: where it is, the offending piece, what is wrong and what to do, on one line."""
    shown = piece if len(piece) <= 40 else piece[:37] + "..."
    place = "formula" + (f", {where}" if where else "") + (f", character {at + 1}" if at is not None else "")
    return FormulaError(f"{place}{f', {shown!r}' if piece else ''}: {problem}{f'. {advice}' if advice else ''}")


def source(tokens: Sequence[Token]) -> str:
    """Return the tokens as the user wrote them, runs of space as one."""
    ends = [0, *(token.start + len(token.text) for token in tokens)]
    return "".join(" " * (t.start > end) + t.text for end, t in zip(ends, tokens, strict=False)).lstrip()


# ---- tokens ----------------------------------------------------------------------------------------------------------


def tokenize(text: str) -> list[Token]:
    """Cut a formula or an expression into tokens, with names checked and brackets matched.

    >>> [token.text for token in tokenize("log(`my y`) ~ 1")]
    ['log', '(', '`my y`', ')', '~', '1']
    """
    if not isinstance(text, str):
        raise refuse(f"expected a text such as 'y ~ x + (1 | g)', got {type(text).__name__}")
    if len(text) > MAX_CHARACTERS:
        raise refuse(f"{len(text)} characters are too many", advice=f"The limit is {MAX_CHARACTERS}")
    tokens: list[Token] = []
    opened: list[Token] = []
    at = 0
    while at < len(text):
        if text[at] in " \t\r\n":
            at += 1
            continue
        kind, piece = _next(text, at)
        depth = len(opened)
        if kind == "op" and piece in ")]":
            if not opened or (opened[-1].text, piece) not in (("(", ")"), ("[", "]")):
                raise refuse(f"{piece!r} closes nothing", text[: at + 1][-20:], at, "Balance the brackets")
            depth = opened.pop().depth
        tokens.append(Token(kind, piece, at, depth))
        if kind == "op" and piece in "([":
            opened.append(tokens[-1])
            if len(opened) > MAX_BRACKETS:
                raise refuse("brackets are nested too deeply", piece, at, f"The limit is {MAX_BRACKETS} levels")
        at += len(piece)
    if opened:
        start = opened[-1].start
        raise refuse(f"{opened[-1].text!r} is never closed", text[start : start + 20], start, "Balance the brackets")
    return tokens


def _next(text: str, at: int) -> tuple[str, str]:
    """Return kind and text of the token that starts at `at`."""
    char = text[at]
    if char in "`'\"":
        end = text.find(char, at + 1)
        if end < 0:
            raise refuse(f"this {char} is never closed", text[at : at + 20], at, "Write `my column` or 'my level'")
        if char == "`":
            _check_name(text[at + 1 : end], at, quoted=True)
        else:
            _check_string(text[at + 1 : end], at)
            if at and _is_word(text[at - 1]):
                raise refuse("a prefix before a string is not allowed", text[at - 1 : end + 1], at - 1)
        return "quoted" if char == "`" else "string", text[at : end + 1]
    if char == "_" or char.isidentifier():
        end = at + 1
        while end < len(text) and _is_word(text[end]):
            end += 1
        _check_name(text[at:end], at, quoted=False)
        return "name", text[at:end]
    number = _NUMBER.match(text, at)
    if number:
        end = number.end()
        if end < len(text) and (_is_word(text[end]) or text[end] == "."):
            raise refuse("this is not a number", text[at : end + 1], at, "Such a column name needs `backticks`")
        return "number", number.group()
    sign = _SIGN.match(text, at)
    if sign:
        return "op", sign.group()
    if char in "{}":
        raise refuse("Python blocks {...} are not allowed", text[at : at + 20], at, "Make a column first")
    problem = f"stray character {char!r} ({unicodedata.name(char, f'U+{ord(char):04X}')})"
    raise refuse(problem, text[at : at + 20], at, "A column with an odd name goes in `backticks`")


def _is_word(char: str) -> bool:
    return char == "_" or char.isalnum() or ("a" + char).isidentifier()


def _check_name(name: str, at: int, *, quoted: bool) -> None:
    """Refuse a name that means something else to Python or to formulaic than the column it spells."""
    normal = unicodedata.normalize("NFKC", name)
    if len(name) > MAX_NAME:
        raise refuse(f"a name of {len(name)} characters is too long", name, at, f"The limit is {MAX_NAME}")
    if normal.startswith("__") or "_formulaic" in normal.lower():
        raise refuse("names that start with '__' or hold '_formulaic' are reserved", name, at, "Rename the column")
    if not quoted:
        if normal != name or not name.isidentifier():
            problem = f"Python would read this name as {normal!r}" if normal != name else "this is not a name"
            raise refuse(problem, name, at, "Rename the column, or put it in `backticks`")
        return
    if not name or name != name.strip():
        raise refuse("a name in backticks is empty or has spaces at its ends", f"`{name}`", at, "Rename the column")
    # To formulaic the name 1 is the intercept, and . and ~ are operators, backticks or not.
    bad = name if name in ("1", ".", "~") else next((c for c in name if not c.isprintable() or c in "\\{}"), None)
    if bad is not None:
        raise refuse(f"a name in backticks cannot be or hold {bad!r}", f"`{name}`", at, "Rename the column")


def _check_string(value: str, at: int) -> None:
    bad = next((c for c in value if c in _UNSAFE_IN_STRING or not c.isprintable()), None)
    if bad is not None or len(value) > MAX_NAME or "_formulaic" in value:
        problem = f"a string cannot hold {bad!r}" if bad else f"a string has at most {MAX_NAME} characters"
        raise refuse(problem, value, at, "Rename the level")


def quote_name(name: str) -> str:
    """Write a column name as a formula needs it.

    >>> quote_name("Days"), quote_name("my col")
    ('Days', '`my col`')
    """
    plain = name.isidentifier() and not keyword.iskeyword(name) and unicodedata.normalize("NFKC", name) == name
    return name if plain else f"`{name}`"


# ---- what may be called ----------------------------------------------------------------------------------------------

_MATH = ("log", "log2", "log10", "log1p", "exp", "sqrt", "abs")  # numpy has every one of them


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _all(item: Callable[[Any], bool], value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) <= MAX_COUNT and all(map(item, value))


_EXTRAPOLATIONS = ("raise", "clip", "na", "zero", "extend")
# What an argument may be: a test on the constant, and its description.
_KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "flag": (lambda v: isinstance(v, bool), "True or False"),
    "number": (lambda v: v is None or _is_number(v), "a number"),
    "setting": (lambda v: isinstance(v, bool) or _is_number(v), "True, False or a number"),
    "degree": (lambda v: _is_count(v, 1, MAX_EXPONENT), f"a whole number from 1 to {MAX_EXPONENT}"),
    "df": (lambda v: v is None or _is_count(v, 1, MAX_COUNT), f"a whole number up to {MAX_COUNT}"),
    "numbers": (lambda v: v is None or _all(_is_number, v), f"a list of up to {MAX_COUNT} numbers"),
    "level": (lambda v: isinstance(v, (str, int, float)), "a level: a string or a number"),
    "levels": (lambda v: _all(lambda x: isinstance(x, (str, int, float)), v), f"a list of up to {MAX_COUNT} levels"),
    "extrapolation": (lambda v: v in _EXTRAPOLATIONS, "one of " + ", ".join(map(repr, _EXTRAPOLATIONS))),
    "constraints": (lambda v: v is None or v == "center", "'center'"),
}


def _arguments(text: str) -> dict[str, str]:
    return dict(item.split("=") for item in text.split())


# Every argument after the data, in formulaic's order: its name and its kind. The kind `contrast` is checked apart.
_ARGUMENTS: Mapping[str, Mapping[str, str]] = {
    **{name: {} for name in (*_MATH, "I", "center")},
    "scale": _arguments("center=setting scale=setting ddof=number"),
    "C": _arguments("contrasts=contrast levels=levels"),
    "poly": _arguments("degree=degree raw=flag"),
    "bs": _arguments(
        "df=df knots=numbers degree=degree include_intercept=flag lower_bound=number upper_bound=number "
        "extrapolation=extrapolation"
    ),
    "cr": _arguments("df=df knots=numbers lower_bound=number upper_bound=number constraints=constraints"),
}
_CONTRASTS: Mapping[str, Mapping[str, str]] = {
    "treatment": _arguments("base=level"),
    "SAS": _arguments("base=level"),
    "sum": {},
    "helmert": _arguments("reverse=flag scale=flag"),
    "diff": _arguments("backward=flag"),
    "poly": _arguments("scores=numbers"),
}
_SEVERAL = ("C", "poly", "bs", "cr")  # these make several columns, so nothing can be computed from them
# Words of Python that are likely column names; alone in a term they mean nothing else to formulaic.
_HARMLESS_KEYWORDS = ("class", "from", "global", "pass", "return")
_HINTS = {
    "Q": "Write the column's name in `backticks`",
    "Treatment": "Write C(x, contr.treatment('level'))",
    "factor": "Write C(x)",
    "ln": "Write log(x)",
}
ALLOWED = (
    "Allowed are column names, I(...) with + - * / // % and ** (a constant exponent up to 10), and "
    + ", ".join(name for name in _ARGUMENTS if name != "I")
    + ", np.log and the like, and contr.treatment and the like inside C(). For anything else make a column first"
)
_FOLD: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_FORBIDDEN: Mapping[type[ast.AST], str] = {
    ast.Attribute: "a dot (a column whose name has one goes in `backticks`)",
    ast.Subscript: "square brackets after a name",
    ast.Lambda: "a lambda",
    ast.NamedExpr: "an assignment",
    **dict.fromkeys((ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp), "a comprehension"),
    ast.BoolOp: "and/or",
    ast.Compare: "a comparison",
    ast.Starred: "a star before an argument",
    **dict.fromkeys((ast.List, ast.Tuple), "a list of values here"),
}


# ---- expressions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expression:
    """A checked expression: its text written anew, and the names in it.

    `functions` holds the names that Python looks up to call (`np` for `np.log`). `aliases` maps a backticked
    name inside a call to the identifier that formulaic will put in its place.
    """

    text: str
    columns: frozenset[str]
    functions: frozenset[str]
    aliases: tuple[tuple[str, str], ...]


def check_expression(text: str, *, where: str) -> frozenset[str]:
    """Check an expression against the whitelist, without evaluating anything.

    Parameters
    ----------
    text : a column name, a call such as `log(x)` or `C(g, contr.sum)`, or arithmetic on columns
    where : what the expression is for, as the message should say it: "the offset"

    Returns
    -------
    frozenset of str
        The data columns that it uses. A FormulaError is raised when it says anything that is not on the list.

    Examples
    --------
    >>> sorted(check_expression("log(dose / weight)", where="the offset"))
    ['dose', 'weight']
    """
    return read_expression(tokenize(text), where=where).columns


def read_expression(tokens: Sequence[Token], *, where: str, single: bool = False) -> Expression:
    """Check the tokens of one expression and write it anew.

    With `single` the expression must make one column, and arithmetic outside a call is wrapped in `I(...)`, so
    that formulaic reads it as one factor too.
    """
    if not tokens:
        raise refuse("nothing is written here", where=where, advice="Write a column name or a call such as log(x)")
    return _Check(tokens, where).read(single)


class _Check:
    """One pass over the syntax tree of one expression."""

    def __init__(self, tokens: Sequence[Token], where: str) -> None:
        self.where = where
        self.at = tokens[0].start
        self.seen = 0  # columns met so far, repeats counted
        self.columns: set[str] = set()
        self.functions: set[str] = set()
        if len(tokens) > MAX_TOKENS:
            raise self.error("this expression is too long", tokens[0].text, f"The limit is {MAX_TOKENS} tokens")
        # A backticked name becomes a name that no user can write (`__` is refused), then a Name with backticks.
        self.quoted = {f"__q{i}": token.text for i, token in enumerate(tokens) if token.kind == "quoted"}
        if len(tokens) == 1 and tokens[0].text in _HARMLESS_KEYWORDS:
            self.quoted["__q0"] = f"`{tokens[0].text}`"
        words = [f"__q{i}" if f"__q{i}" in self.quoted else token.text for i, token in enumerate(tokens)]
        try:
            # Spaces between tokens keep Python's tokenizer from joining what ours has told apart.
            self.tree = ast.parse(" ".join(words), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            word = any(token.kind == "name" and keyword.iskeyword(token.text) for token in tokens)
            advice = "A word of Python as a column stands alone, in `backticks`" if word else ALLOWED
            raise self.error("this is not an expression", source(tokens), advice) from None
        level: list[ast.AST] = [self.tree]
        for _ in range(MAX_DEPTH):
            level = [child for node in level for child in ast.iter_child_nodes(node)]
        if level:
            raise self.error("this expression is nested too deeply", source(tokens), f"The limit is {MAX_DEPTH} levels")
        self.names = [node for node in ast.walk(self.tree) if isinstance(node, ast.Name)]
        for node in self.names:
            node.id = self.quoted.get(node.id, node.id)

    def error(self, problem: str, piece: str | ast.AST, advice: str = "") -> FormulaError:
        text = piece if isinstance(piece, str) else ast.unparse(piece)
        return refuse(problem, text, self.at, advice, self.where)

    def read(self, single: bool) -> Expression:
        self.data(self.tree, 1.0, several=not single)
        if not self.columns:
            raise self.error("no column of the data is used here", self.tree, "Name a column")
        aliases = self.find_aliases() if not isinstance(self.tree, ast.Name) else ()
        for node in self.names:
            node.id = quote_name(node.id.strip("`"))
        text = ast.unparse(self.tree)
        if single and not isinstance(self.tree, (ast.Name, ast.Call)):
            text = f"I({text})"
            self.functions.add("I")
        return Expression(text, frozenset(self.columns), frozenset(self.functions), aliases)

    def find_aliases(self) -> tuple[tuple[str, str], ...]:
        """Refuse the backticked names that formulaic cannot carry through a call unharmed."""
        found: dict[str, str] = {}
        for quoted in sorted(set(self.quoted.values())):
            name = quoted.strip("`")
            alias = name if name.isidentifier() else re.sub(r"\W", "_", name)
            alias = "_" + alias if alias[0].isdigit() else alias
            same = unicodedata.normalize("NFKC", alias) == alias and alias.isidentifier()
            if keyword.iskeyword(name) or set(name) & set("'\"") or not same or alias.startswith("__"):
                raise self.error("this name cannot be used inside a call", quoted, "Rename the column")
            if not name.isidentifier():
                found[name] = alias
        for name, alias in found.items():  # formulaic puts the names back by plain text replacement
            if any(other != name and found[other].startswith(alias) for other in found):
                raise self.error("two names in this call are too much alike", f"`{name}`", "Rename one of the columns")
        return tuple(found.items())

    def data(self, node: ast.expr, power: float, *, several: bool = False) -> float | None:
        """Check arithmetic on columns; return the value of a constant, None for anything else.

        `power` is the product of the exponents above, so that powers of powers stay within bounds too. Only the
        outermost call may make several columns, and only where `several` are welcome.
        """
        match node:
            case ast.Name(id=name):
                self.seen += 1
                self.columns.add(name.strip("`"))
                return None
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return self.number(value, node)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
                inner = self.data(operand, power)
                return inner if inner is None or isinstance(sign, ast.UAdd) else -inner
            case ast.BinOp(left=base, op=ast.Pow(), right=exponent):
                self.exponent(base, exponent, power)
                return None
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _FOLD:
                a, b = self.data(left, power), self.data(right, power)
                if b == 0.0 and isinstance(op, (ast.Div, ast.FloorDiv, ast.Mod)):
                    raise self.error("this divides by zero", node)
                return None if a is None or b is None else self.number(_FOLD[type(op)](a, b), node)
            case ast.BinOp(op=ast.BitXor()):
                raise self.error("^ is not a power inside a call", node, "Write **, as in I(x ** 2)")
            case ast.Call():
                name = self.function(node)
                if name in _SEVERAL and not several:
                    raise self.error(f"{name}() makes several columns", node, "One column is needed here")
                if not node.args:
                    raise self.error(f"{name}() needs a column", node, f"Write {name}(x)")
                self.data(node.args[0], power)
                self.arguments(name, node, node.args[1:], _ARGUMENTS[name])
                return None
        raise self.error(f"not allowed: {_FORBIDDEN.get(type(node), 'this piece')}", node, ALLOWED)

    def number(self, value: float, node: ast.expr) -> float:
        if not abs(value) <= MAX_CONSTANT:  # NaN is refused too
            raise self.error("this number is too large", node, f"The limit is {MAX_CONSTANT:g}")
        return value

    def exponent(self, base: ast.expr, exponent: ast.expr, power: float) -> None:
        value = self.constant(exponent, f"a number up to {MAX_EXPONENT} as the exponent")
        if not _is_number(value):
            raise self.error("an exponent must be a number", exponent, f"Write one up to {MAX_EXPONENT}")
        power *= max(abs(value), 1)
        if power > MAX_EXPONENT:
            raise self.error("this exponent is too large", exponent, f"Exponents multiply up to {MAX_EXPONENT} at most")
        before = self.seen
        self.data(base, power)
        if self.seen == before:
            raise self.error("this is a power of a constant", base, "Write the number itself")

    def function(self, node: ast.Call) -> str:
        """Return the name of the whitelisted function that is called."""
        match node.func:
            case ast.Name(id=name) if name in _ARGUMENTS:
                self.functions.add(name)
                return name
            case ast.Attribute(value=ast.Name(id="np"), attr=name) if name in _MATH:
                self.functions.add("np")
                return name
            case ast.Attribute(value=ast.Name(id="np"), attr=name):
                advice = available(f"np.{name}", [f"np.{n}" for n in _MATH])
            case ast.Name(id=name):
                advice = _HINTS.get(name) or available(name, _ARGUMENTS, most=len(_ARGUMENTS))
            case ast.Attribute(value=ast.Name(id="contr")):
                advice = "Contrasts go inside C(), as in C(x, contr.sum)"
            case _:
                advice = ALLOWED
        raise self.error(f"{ast.unparse(node.func)}(...) is not a function that a formula can call", node, advice)

    def arguments(self, name: str, node: ast.Call, given: list[ast.expr], kinds: Mapping[str, str]) -> None:
        """Check the arguments after the data: known, given once, and constants of the right kind."""
        by_position = [key for key in kinds if key != "levels"]  # formulaic takes that by name only
        if len(given) > len(by_position):
            raise self.error(f"{name}() has too many arguments", node, available("", kinds) if kinds else "")
        named = dict(zip(by_position, given, strict=False))
        for item in node.keywords:
            key = item.arg or "**"
            if key not in kinds:
                advice = available(key, kinds) if kinds else "It has none by name"
                raise self.error(f"{name}() has no argument {key!r}", node, advice)
            if key in named:
                raise self.error(f"{key!r} is given twice", node, "Give it once")
            named[key] = item.value
        for key, value in named.items():
            if kinds[key] == "contrast":
                self.contrast(value)
                continue
            valid, expected = _KINDS[kinds[key]]
            if not valid(self.constant(value, expected)):
                raise self.error(f"{key} of {name}() must be {expected}", value)

    def contrast(self, node: ast.expr) -> None:
        match node.func if isinstance(node, ast.Call) else node:
            case ast.Attribute(value=ast.Name(id="contr"), attr=name) if name in _CONTRASTS:
                self.functions.add("contr")
                if isinstance(node, ast.Call):
                    self.arguments(f"contr.{name}", node, node.args, _CONTRASTS[name])
            case other:
                known = [f"contr.{name}" for name in _CONTRASTS]
                raise self.error("this is not a contrast", node, available(ast.unparse(other), known))

    def constant(self, node: ast.expr, expected: str) -> Any:
        """Return the Python value of a constant or a list of constants, read from the tree, never evaluated."""
        match node:
            case ast.Constant(value=str() | int() | float() | None as value):
                if isinstance(value, str):
                    _check_string(value, self.at)  # again: Python joins neighbours and knows escapes
                elif value is not None:
                    self.number(value, node)
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=inner)) if _is_number(inner):
                return -self.constant(node.operand, expected)
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [self.constant(item, expected) for item in items]
        raise self.error("only a constant can stand here", node, f"Expected {expected}")
