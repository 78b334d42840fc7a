"""The whitelist: what it lets through works in formulaic, what it refuses is refused before anything is evaluated."""

import sys
import time

import formulaic
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetti.errors import FormulaError
from finetti.model import whitelist
from finetti.model.formula import parse
from finetti.model.whitelist import check_expression, quote_name, tokenize

# ---- has anything been evaluated? ------------------------------------------------------------------------------------

_seen: list[str] = []
_watching = False


def _hook(event: str, args: tuple[object, ...]) -> None:
    if _watching and event in ("exec", "import", "open", "os.system", "subprocess.Popen"):
        _seen.append(event)


sys.addaudithook(_hook)  # cannot be taken out again, so a flag turns it on


class watch:
    """Records what the interpreter runs, imports and opens: `eval` of anything at all is an event."""

    def __enter__(self) -> list[str]:
        global _watching
        _seen.clear()
        _watching = True
        return _seen

    def __exit__(self, *_: object) -> None:
        global _watching
        _watching = False


def test_the_watch_sees_an_evaluation():
    with watch() as seen:
        eval("1 + 1")  # noqa: S307 - to be seen
    assert seen == ["exec"]


# ---- what is let through ---------------------------------------------------------------------------------------------

ACCEPTED = {
    "x": {"x"},
    "größe": {"größe"},
    "`my col`": {"my col"},
    "`Sepal.Length`": {"Sepal.Length"},
    "`2019`": {"2019"},
    "`class`": {"class"},
    "class": {"class"},
    "log(x)": {"x"},
    "log2(x)": {"x"},
    "log10(x)": {"x"},
    "log1p(x)": {"x"},
    "exp(x)": {"x"},
    "sqrt(x)": {"x"},
    "abs(x)": {"x"},
    "np.log(x)": {"x"},
    "np.log2(x)": {"x"},
    "np.log10(x)": {"x"},
    "np.log1p(x)": {"x"},
    "np.exp(x)": {"x"},
    "np.sqrt(x)": {"x"},
    "np.abs(-x)": {"x"},
    "log(`my col` + `2019`)": {"my col", "2019"},
    "I(x ** 2 - 3 * z / 2 + x // 2 + z % 2)": {"x", "z"},
    "I(x ** -1)": {"x"},
    "I(x ** 0.5)": {"x"},
    "I((x ** 2) ** 5)": {"x"},
    "I(+x / 1e-3)": {"x"},
    "I(x * log(2))": {"x"},
    "center(x)": {"x"},
    "scale(log(x))": {"x"},
    "scale(x, False, 2.5)": {"x"},
    "scale(x, center=1, scale=False, ddof=0)": {"x"},
    "poly(x, 3)": {"x"},
    "poly(x, degree=2, raw=True)": {"x"},
    "bs(x, df=5)": {"x"},
    "bs(x, knots=[2, 3.5], degree=2, include_intercept=True)": {"x"},
    "bs(x, df=4, lower_bound=-1, upper_bound=99, extrapolation='clip')": {"x"},
    "cr(x, df=4)": {"x"},
    "cr(x, df=4, constraints='center')": {"x"},
    "cr(x, knots=(2, 3), lower_bound=0, upper_bound=99)": {"x"},
    "C(g)": {"g"},
    "C(g, levels=['c', 'a', 'b'])": {"g"},
    "C(g, contr.treatment)": {"g"},
    "C(g, contr.treatment('b'))": {"g"},
    'C(g, contrasts=contr.treatment(base="b"))': {"g"},
    "C(x, contr.treatment(2))": {"x"},
    "C(g, contr.SAS)": {"g"},
    "C(g, contr.SAS(base='a'))": {"g"},
    "C(g, contr.sum)": {"g"},
    "C(g, contr.helmert(reverse=False, scale=True))": {"g"},
    "C(g, contr.diff(backward=False))": {"g"},
    "C(g, contr.poly(scores=[1, 2, 4]))": {"g"},
}


@pytest.mark.parametrize("text", ACCEPTED)
def test_accepted(text):
    assert check_expression(text, where="a test") == ACCEPTED[text]


@pytest.fixture
def frame():
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    names = ["z", "my col", "Sepal.Length", "2019", "class", "größe"]
    return pd.DataFrame({"x": x, "g": list("abcabc")} | {name: x**2 + i for i, name in enumerate(names)})


@pytest.mark.parametrize("text", ACCEPTED)
def test_formulaic_evaluates_what_is_accepted(text, frame):
    # The tables of functions and arguments are claims about formulaic: one misspelt argument fails here.
    written = parse(f"x ~ 0 + {text}").population
    functions = {name: getattr(np, name) for name in ("log1p", "sqrt", "abs")}
    matrix = formulaic.model_matrix(written, frame, context=functions)
    assert len(matrix) == len(frame) and np.isfinite(np.asarray(matrix, dtype=float)).all()


def test_contrasts_and_functions_are_those_of_formulaic():
    from formulaic.transforms import TRANSFORMS
    from formulaic.transforms.contrasts import ContrastsRegistry

    assert all(hasattr(ContrastsRegistry, name) for name in whitelist._CONTRASTS)
    assert set(whitelist._ARGUMENTS) - set(TRANSFORMS) == {"log1p", "sqrt", "abs"}  # data/ must provide these
    assert all(hasattr(np, name) for name in whitelist._MATH)


def test_nothing_is_evaluated_in_what_is_accepted():
    for text in ACCEPTED:
        with watch() as seen:
            check_expression(text, where="a test")
        assert seen == [], text


# ---- what is refused -------------------------------------------------------------------------------------------------

ATTACKS = [
    # attribute access and dunder names, in disguise too
    ("x.__class__", "reserved"),
    ("x.__class__.__mro__[1].__subclasses__()", "reserved"),
    ("__import__('os').system('true')", "reserved"),
    ("__builtins__", "reserved"),
    ("__FORMULAIC_CONTEXT__", "reserved"),
    ("`__builtins__`", "reserved"),
    ("\uff3f\uff3fimport\uff3f\uff3f('os')", "FULLWIDTH LOW LINE"),
    ("_\uff3fclass_\uff3f", "reserved"),
    ("_formulaic_x", "reserved"),
    ("C(g, contr.treatment('_formulaic_my_col'))", "a string"),
    ("x.real", "not allowed: a dot"),
    ("I(x.values)", "not allowed: a dot"),
    ("np.pi", "not allowed: a dot"),
    ("I(x * np.pi)", "not allowed: a dot"),
    ("contr.sum", "not allowed: a dot"),
    ("log(x).base", "not allowed: a dot"),
    ("x.to_pickle('f')", "not a function that a formula can call"),
    ("C.func_globals", "not allowed: a dot"),
    # calls
    ("open('f')", "not a function that a formula can call"),
    ("eval('1')", "not a function that a formula can call"),
    ("exec(x)", "not a function that a formula can call"),
    ("print(x)", "not a function that a formula can call"),
    ("getattr(x, 'real')", "not a function that a formula can call"),
    ("breakpoint()", "not a function that a formula can call"),
    ("np.load('f')", "Available: 'np.log'"),
    ("np.fromfile(x)", "Available: 'np.log'"),
    ("np.power(x, 2)", "Available: 'np.log'"),
    ("np.linalg.inv(x)", "not a function that a formula can call"),
    ("np.log.reduce(x)", "not a function that a formula can call"),
    ("numpy.log(x)", "not a function that a formula can call"),
    ("log(x)(z)", "not a function that a formula can call"),
    ("C(x)(z)", "not a function that a formula can call"),
    ("x(z)", "not a function that a formula can call"),
    ("`log`(x)", "not a function that a formula can call"),
    ("`print`(x)", "not a function that a formula can call"),
    ("Q('x')", "`backticks`"),
    ("lag(x)", "not a function that a formula can call"),
    ("lag(x, 1)", "not a function that a formula can call"),
    ("hashed(g, 5)", "not a function that a formula can call"),
    ("cc(x, df=3)", "not a function that a formula can call"),
    ("encode_contrasts(g)", "not a function that a formula can call"),
    ("Treatment('a')", "contr.treatment"),
    ("exp2(x)", "did you mean 'exp'"),
    ("contr.sum()", "go inside C()"),
    # arguments
    ("log()", "needs a column"),
    ("log(x, z)", "too many arguments"),
    ("log(x=x)", "needs a column"),
    ("log(*x)", "a star before an argument"),
    ("log(**x)", "needs a column"),
    ("log(x, **z)", "no argument '\\*\\*'"),
    ("log(x, out=z)", "no argument 'out'"),
    ("log(x, where=open('f'))", "no argument 'where'"),
    ("scale(x, _state=z)", "no argument '_state'"),
    ("scale(x, _context=z)", "no argument '_context'"),
    ("scale(x, center=z)", "only a constant"),
    ("scale(x, True, center=True)", "given twice"),
    ("scale(x, center=open('f'))", "only a constant"),
    ("scale(x, center='a')", "must be True, False or a number"),
    ("poly(x, 11)", "degree of poly"),
    ("poly(x, 10 ** 9)", "only a constant"),
    ("poly(x, True)", "degree of poly"),
    ("bs(x, df=100000)", "df of bs"),
    ("bs(x, knots=[" + "1, " * 101 + "])", "this expression is too long"),
    ("bs(x, knots=[[1]])", "knots of bs"),
    ("bs(x, knots=z)", "only a constant"),
    ("bs(x, knots=[i for i in z])", "only a constant"),
    ("bs(x, df=3, extrapolation='evil')", "extrapolation of bs"),
    ("cr(x, df=3, cyclic=True)", "no argument 'cyclic'"),
    ("C(g, {'a': [1]})", "Python blocks"),
    ("C(g, [[1, 2]])", "not a contrast"),
    ("C(g, contr.custom([1]))", "not a contrast"),
    ("C(g, contr.treatment(g))", "only a constant"),
    ("C(g, contr.treatment.mro())", "not a contrast"),
    ("C(g, contr.__dict__)", "reserved"),
    ("C(g, open('f'))", "not a contrast"),
    ("C(g, contr.sum, ['a'])", "too many arguments"),
    ("C(g, levels=g)", "only a constant"),
    ("I(x, z)", "too many arguments"),
    # strings that would end somewhere else for formulaic, or in the code that it builds
    ("""C(g, contr.treatment("a)"))""", "a string cannot hold"),
    ("""C(g, contr.treatment("a'"))""", "a string cannot hold"),
    ("""bs(x, df=3, extrapolation="'+open('f')+'")""", "a string cannot hold"),
    ("C(g, contr.treatment('\\x28'))", "a string cannot hold"),
    ("C(g, contr.treatment('`x`'))", "a string cannot hold"),
    ("C(g, contr.treatment('{x}'))", "a string cannot hold"),
    ("C(g, contr.treatment('a\n'))", "a string cannot hold"),
    ("C(g, contr.treatment('" + "a" * 300 + "'))", "a string has at most"),
    ("C(g, contr.treatment(f'x'))", "prefix"),
    ("C(g, contr.treatment(b'x'))", "prefix"),
    ("f'{open}'", "a string cannot hold"),
    ("'x'", None),
    # Python that is not arithmetic
    ("x[0]", "square brackets"),
    ("log(x)[0]", "square brackets"),
    ("I(x[::-1])", "square brackets"),
    ("[x for x in z]", None),
    ("I([x for x in z])", "a comprehension"),
    ("I(i for i in x)", "a comprehension"),
    ("I({i for i in x})", "Python blocks"),
    ("{open('f')}", "Python blocks"),
    ("{x}", "Python blocks"),
    ("lambda: x", None),
    ("I(lambda: x)", "a lambda"),
    ("I((lambda: x)())", "not a function that a formula can call"),
    ("I(x := 2)", "an assignment"),
    ("I((x := 2))", "an assignment"),
    ("I(x > 2)", "a comparison"),
    ("I(x == 2)", "a comparison"),
    ("I(x in z)", "a comparison"),
    ("I(x and z)", "and/or"),
    ("I(not x)", "not allowed"),
    ("I(~x)", None),
    ("I(x if x else z)", "not allowed"),
    ("I(x & z)", "not allowed"),
    ("I(x | z)", None),
    ("I(x @ z)", "not allowed"),
    ("I(x << 2)", None),
    ("I(x ^ 2)", "Write \\*\\*"),
    ("I(await x)", "not allowed"),
    ("I(yield x)", None),
    ("I(x, *z)", "too many arguments"),
    ("I((x, z))", "a list of values"),
    ("I(True)", "not allowed"),
    ("I(None)", "not allowed"),
    ("I('a')", "not allowed"),
    ("I(...)", None),
    ("True", "not allowed"),
    ("x; open('f')", "stray character ';'"),
    ("x # comment", "stray character '#'"),
    ("x \\ z", "stray character"),
    ("x\x00", "stray character"),
    ("x\x1f", "stray character"),
    ("$x", "stray character"),
    ("x\u00a0", "NO-BREAK SPACE"),
    ("x\u200b", "ZERO WIDTH SPACE"),
    ("\ud800", "stray character"),
    ("import os", None),
    ("lambda", "stands alone, in `backticks`"),
    ("log(class)", "stands alone, in `backticks`"),
    ("del x", None),
    # numbers
    ("9 ** 9 ** 9", None),
    ("I(9 ** 9 ** 9)", "only a constant can stand here"),
    ("I(x * 9 ** 9)", "power of a constant"),
    ("I((9 ** 9) ** 9)", None),
    ("I(x ** 11)", "exponent is too large"),
    ("I(x ** -11)", "exponent is too large"),
    ("I(x ** 1e9)", "exponent is too large"),
    ("I(((x ** 9) ** 9) ** 9)", "exponent is too large"),
    ("I(exp(x ** 4) ** 3)", "exponent is too large"),
    ("I(2 ** x)", "only a constant"),
    ("I(x ** True)", "exponent must be a number"),
    ("I(x ** 'a')", "exponent must be a number"),
    ("I(x * 1" + "0" * 400 + ")", "too large"),
    ("I(x * " + "9" * 5000 + ")", None),
    ("I(x * 1e999)", "too large"),
    ("I(x * (99999999 * 99999999))", "too large"),
    ("I(x / 0)", "divides by zero"),
    ("I(x % (1 - 1))", "divides by zero"),
    ("I(x * 0x1F)", "not a number"),
    ("I(x * 1_000)", "not a number"),
    ("I(x * 1j)", "not a number"),
    ("I(x * 1.2.3)", "not a number"),
    ("I(x * 007)", None),
    ("2019", None),
    ("I(2)", "no column"),
    ("log(2)", "no column"),
    # names
    ("`", "never closed"),
    ("`x", "never closed"),
    ("``", "empty"),
    ("` x`", "spaces at its ends"),
    ("`x\\`y`", None),
    ("`x\ny`", "cannot be or hold"),
    ("`{x}`", "cannot be or hold"),
    ("`.`", "cannot be or hold"),
    ("`~`", "cannot be or hold"),
    ("`1`", "cannot be or hold"),
    ("`" + "x" * 201 + "`", "too long"),
    ("x" * 201, "too long"),
    ("\ufb01", "Python would read this name as 'fi'"),
    ("\uff4c\uff4f\uff47(x)", "Python would read this name as 'log'"),
    ("m\u00b2", "Python would read this name as 'm2'"),
    ("log(`\ufb01`)", "cannot be used inside a call"),
    ("log(`m\u00b2`)", "cannot be used inside a call"),
    ("log(`None`)", "cannot be used inside a call"),
    ("log(`it's`)", "cannot be used inside a call"),
    ("log(`--builtins--`)", "cannot be used inside a call"),
    ("I(`a b` + `a b c`)", "too much alike"),
    ("I(`a b` + `a-b`)", "too much alike"),
    # brackets, depth, length
    ("log(x", "never closed"),
    ("log(x))", "closes nothing"),
    ("log(x]", "closes nothing"),
    ("I(" * 21 + "x" + ")" * 21, "nested too deeply"),
    ("(" * 5000, "nested too deeply"),
    ("I(" + "-" * 150 + "x)", "nested too deeply"),
    ("I(" + "-" * 9000 + "x)", "too long"),
    ("I(" + "x ** " * 2000 + "2)", None),
    ("I(" + "not " * 2000 + "x)", "too long"),
    ("I(" + "lambda: " * 1000 + "x)", None),
    ("I(" + " + ".join(["x"] * 80) + ")", "nested too deeply"),
    ("x" + " " * 10_001, "too many"),
    # several columns where arithmetic needs one
    ("log(poly(x, 2))", "several columns"),
    ("I(C(g))", "several columns"),
    ("scale(bs(x, df=3))", "several columns"),
    ("I(poly(x, 2) + 1)", "several columns"),
    # closing what was opened around it
    ("x) + open('f') + (x", None),
    ("x | g) + open('f') + (1", None),
    ("x) ~ open('f') + (x", None),
    ("`x` + `y`(z)", None),
]


def test_there_are_enough_attacks():
    assert len({text for text, _ in ATTACKS}) == len(ATTACKS) > 150


@pytest.mark.parametrize(("text", "message"), [(t, m) for t, m in ATTACKS if m], ids=lambda v: str(v)[:30])
def test_an_attack_is_refused_with_a_reason(text, message):
    with watch() as seen, pytest.raises(FormulaError, match=message) as error:
        check_expression(text, where="a test")
    assert seen == []
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


POSITIONS = {
    "term": "y ~ {}",
    "interaction": "y ~ x * {}",
    "call": "y ~ log({})",
    "response": "{} ~ x",
    "modifier": "y | se({}) ~ x",
    "offset": "y ~ offset({})",
    "effect": "y ~ (1 + {} | g)",
    "group": "y ~ (1 | {})",
}


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("text", [t for t, _ in ATTACKS], ids=lambda v: str(v)[:30])
def test_an_attack_is_refused_in_every_position(text, position):
    whole = POSITIONS[position].replace("{}", text)
    with watch() as seen, pytest.raises(FormulaError):
        parse(whole)
    assert seen == []


def test_a_column_may_be_called_np_but_not_beside_np_log():
    assert check_expression("np", where="a test") == {"np"}
    with pytest.raises(FormulaError, match="both as a column and as a function"):
        parse("y ~ np + np.log(x)")


@pytest.mark.parametrize(
    "text",
    [
        "y ~ " + "(" * 9_000,
        "y ~ " + "(" * 4_000 + "x" + ")" * 4_000,
        "y ~ " + "-" * 9_000 + "x",
        "y ~ " + "(" * 15 + "a + b" + ")^10" * 15,
        "y ~ " + "x:" * 4_900 + "x.",
        "y ~ I(" + "-" * 9_000 + "x)",
        "y ~ I(" + "not " * 2_000 + "x)",
        "y ~ log(" * 1_000 + "x" + ")" * 1_000,
        "y ~ " + "(1 | g) + " * 900 + "x",
        "y ~ (1 | " + "a/" * 4_000 + "a)",
        "y ~ '" + "x" * 9_000 + "'",
        "y ~ `" + "x" * 9_000 + "`",
        "y ~ " + "1" * 9_000,
    ],
    ids=lambda v: v[:20],
)
def test_a_huge_formula_is_refused_at_once(text):
    start = time.perf_counter()
    with pytest.raises(FormulaError):  # never a RecursionError or a MemoryError
        parse(text)
    assert time.perf_counter() - start < 5  # it takes milliseconds; a parser that backtracks takes for ever


# ---- tokens ----------------------------------------------------------------------------------------------------------


def test_tokens_know_place_and_depth():
    tokens = tokenize("y ~ log( `a b` )")
    assert [(t.kind, t.text, t.start, t.depth) for t in tokens] == [
        ("name", "y", 0, 0),
        ("op", "~", 2, 0),
        ("name", "log", 4, 0),
        ("op", "(", 7, 0),
        ("quoted", "`a b`", 9, 1),
        ("op", ")", 15, 0),
    ]


def test_an_error_names_place_and_piece():
    with pytest.raises(FormulaError, match=r"formula, the offset, character 3, 'open\(x\)': .* Available: 'log'"):
        check_expression("  open(x)", where="the offset")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("y ~ x + $z", "character 9, '$z'"),
        ("y ~ x + (1 | f(g))", "character 9, '(1 | f(g))'"),
        ("y ~ x + z * x.real", "character 13, 'x.real'"),
        ("y ~ x)", "character 6, 'y ~ x)'"),
        ("y | foo(s)  ~ x", "character 5, 'foo(s)'"),
    ],
)
def test_an_error_says_where(text, place):
    with pytest.raises(FormulaError) as error:
        parse(text)
    assert str(error.value).startswith(f"formula, {place}: ")


def test_names_are_quoted_when_they_must_be():
    names = ["x", "größe", "class", "a b", "2019", "\ufb01"]
    assert [quote_name(name) for name in names] == ["x", "größe", "`class`", "`a b`", "`2019`", "`\ufb01`"]


@given(st.text(alphabet="xg01(),.[]`'\"{}_ +-*/:^%~|=<>\\\n\u00b2\uff3flogIC@;#", max_size=40))
def test_any_text_is_read_or_refused(text):
    with watch() as seen:
        try:
            names = check_expression(text, where="a test")
        except FormulaError:
            names = None
    assert seen == []
    assert names is None or (names and all(name in text for name in names))
