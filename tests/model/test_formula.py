"""The formula: what each piece becomes, what is refused and why, and that the text round-trips."""

import dataclasses

import formulaic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetti.errors import FormulaError
from finetti.model.formula import Formula, GroupTerm, Response, parse
from finetti.model.whitelist import check_expression, quote_name

# ---- the parts -------------------------------------------------------------------------------------------------------


def test_the_parts_of_a_formula():
    formula = parse("log(y) | weights(w) ~ x * z + offset(e) + (1 + x | school/room) + (0 + z || `my site`)")
    assert formula == Formula(
        Response("log(y)", weights="w"),
        "1 + x * z",
        ("e",),
        (
            GroupTerm(("school",), "1 + x", True),
            GroupTerm(("school", "room"), "1 + x", True),
            GroupTerm(("my site",), "0 + z", False),
        ),
    )
    assert [term.name for term in formula.groups] == ["school", "school:room", "my site"]
    assert formula.columns == {"y", "w", "x", "z", "e", "school", "room", "my site"}
    groups = "(1 + x | school) + (1 + x | school:room) + (0 + z || `my site`)"
    assert str(formula) == formula.text == f"log(y) | weights(w) ~ 1 + x * z + offset(e) + {groups}"


@pytest.mark.parametrize("frozen", [parse("y ~ x + (1 | g)"), Response("y"), GroupTerm(("g",), "1")])
def test_the_parts_are_frozen(frozen):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(frozen, dataclasses.fields(frozen)[0].name, "other")


RIGHT = {
    "1": "1",
    "0": "0",
    "-1": "0",
    "x": "1 + x",
    "+ x": "1 + x",
    "1+x": "1 + x",
    "x + 1": "1 + x",
    "0 + x": "0 + x",
    "-1 + x": "0 + x",
    "x - 1": "0 + x",
    "x + 0": "0 + x",
    "x  +\n z": "1 + x + z",
    "z + x": "1 + z + x",
    "a*b - a:b": "1 + a * b - a:b",
    "a/b": "1 + a / b",
    "a : b : c": "1 + a:b:c",
    "(a+b)^2": "1 + (a + b) ** 2",
    "(a+b + c)**2 - a": "1 + (a + b + c) ** 2 - a",
    "a:(b + c)*d": "1 + a:(b + c) * d",
    "(a - b)*c": "1 + (a - b) * c",
    "((x))": "1 + ((x))",
    "log( x )+np.exp(z)": "1 + log(x) + np.exp(z)",
    'C(g,contr.treatment("a")) : x': "1 + C(g, contr.treatment('a')):x",
    "`x` + `a b`:class": "1 + x + `a b`:`class`",
    "I(x**2+ 1)": "1 + I(x ** 2 + 1)",
    "offset + log": "1 + offset + log",
    "poly(x, 2) * z": "1 + poly(x, 2) * z",
}


@pytest.mark.parametrize("text", RIGHT)
def test_the_population_side_is_written_anew(text):
    formula = parse(f"y ~ {text}")
    assert formula.population == RIGHT[text]
    assert formula.groups == () and formula.offsets == ()


@pytest.mark.parametrize("text", RIGHT)
def test_writing_it_anew_keeps_its_meaning_for_formulaic(text):
    ours, users = formulaic.Formula(parse(f"y ~ {text}").population), formulaic.Formula(text)
    assert [sorted(map(str, term.factors)) for term in ours] == [sorted(map(str, term.factors)) for term in users]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(1 | g)", [("g", "1", True)]),
        ("(1 || g)", [("g", "1", False)]),
        ("(x | g)", [("g", "1 + x", True)]),
        ("(x - 1 | g)", [("g", "0 + x", True)]),
        ("(-1 + x | g)", [("g", "0 + x", True)]),
        ("(0+x|g)", [("g", "0 + x", True)]),
        ("(1+x||g)", [("g", "1 + x", False)]),
        ("(x * log(z) | g)", [("g", "1 + x * log(z)", True)]),
        ("(C(x) || g)", [("g", "1 + C(x)", False)]),
        ("(1 | a:b)", [("a:b", "1", True)]),
        ("(1 | a/b)", [("a", "1", True), ("a:b", "1", True)]),
        ("(1 | a/b/c)", [("a", "1", True), ("a:b", "1", True), ("a:b:c", "1", True)]),
        ("(1 | a/b:c)", [("a", "1", True), ("a:b:c", "1", True)]),
        ("(1 | a) + (1 | b)", [("a", "1", True), ("b", "1", True)]),
        ("(1 | g) + (0 + x | g)", [("g", "1", True), ("g", "0 + x", True)]),
        ("(1 | class)", [("class", "1", True)]),
        ("(1 | `a b`)", [("a b", "1", True)]),
    ],
)
def test_group_terms(text, expected):
    formula = parse(f"y ~ {text}")
    assert [(term.name, term.effects, term.correlated) for term in formula.groups] == expected
    assert formula.population == "1"


def test_group_terms_and_offsets_may_stand_anywhere_among_the_terms():
    formula = parse("y ~ (1 | g) + offset(e) - 1 + x + offset(log(n)) + (0 + x | h) + z")
    assert formula.population == "0 + x + z"
    assert formula.offsets == ("e", "log(n)")
    assert [term.name for term in formula.groups] == ["g", "h"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("y", Response("y")),
        ("log(y)", Response("log(y)")),
        ("I(y / 2)", Response("I(y / 2)")),
        ("`my y`", Response("`my y`")),
        ("y|se(s)", Response("y", se="s")),
        ("y | se(sqrt(v))", Response("y", se="sqrt(v)")),
        ("y | se(v / 2)", Response("y", se="I(v / 2)")),
        ("y | se(s, sigma=True)", Response("y", se="s", se_sigma=True)),
        ("y | se(s, sigma = False)", Response("y", se="s", se_sigma=False)),
        ("y | weights(1 / v)", Response("y", weights="I(1 / v)")),
        ("y | trials(n)", Response("y", trials="n")),
        ("y | cens(c)", Response("y", cens="c")),
        ("y | trials(n) + weights(w)", Response("y", weights="w", trials="n")),
    ],
)
def test_the_left_side(text, expected):
    formula = parse(f"{text} ~ 1")
    assert formula.response == expected
    assert parse(str(formula)) == formula


def test_arithmetic_in_an_offset_becomes_one_factor():
    assert parse("y ~ offset(log(n) + 1)").offsets == ("I(log(n) + 1)",)


def test_columns_of_a_formula_that_was_put_together_by_hand():
    assert Formula(Response("y", se="s"), "1 + x", ("e",), (GroupTerm(("g", "h"), "1 + z"),)).columns == set("ysxeghz")


def test_a_column_may_have_the_name_of_a_function_that_is_not_called():
    assert parse("log ~ I + scale:exp(x)").columns == {"log", "I", "scale", "x"}


# ---- what is refused -------------------------------------------------------------------------------------------------

REFUSED = [
    # the whole
    ("", "it is empty"),
    ("   \n", "it is empty"),
    ("y", "there is no ~"),
    ("x + (1 | g)", "there is no ~"),
    ("~ x", "no response"),
    ("| se(s) ~ x", "no response"),
    ("y ~", "nothing stands right of ~"),
    ("y ~ x ~ z", "one ~ is expected"),
    ("y ~ (x ~ z)", "one ~ is expected"),
    ("(y ~ x)", "one ~ is expected"),
    ("y ~ [x ~ z]", "one ~ is expected"),
    ("y ~ " + "x" * 10_000, "characters are too many"),
    # the left side
    ("y + z ~ x", "I\\(y \\+ z\\)"),
    ("y / 2 ~ x", "I\\(y / 2\\)"),
    ("-y ~ x", "one column or one call"),
    ("y z ~ x", "not an expression"),
    ("1 ~ x", "no column"),
    ("'y' ~ x", "not allowed"),
    ("poly(y, 2) ~ x", "several columns"),
    ("C(y) ~ x", "several columns"),
    ("cbind(a, b) ~ x", "not a function"),
    ("y | ~ x", "not a modifier"),
    ("y | s ~ x", "Available: 'se', 'weights', 'trials', 'cens'"),
    ("y | weight(w) ~ x", "did you mean 'weights'"),
    ("y | se(s) | weights(w) ~ x", "Join modifiers by \\+"),
    ("y || se(s) ~ x", "Join modifiers by \\+"),
    ("y | se(s) - cens(c) ~ x", "not a modifier"),
    ("y | -se(s) ~ x", "not a modifier"),
    ("y | se(s) * cens(c) ~ x", "not a modifier"),
    ("y | se(s)(t) ~ x", "not a modifier"),
    ("y | se(s) + ~ x", "not a modifier"),
    ("y | se(s) + se(t) ~ x", "given twice"),
    ("y | se(s) + weights(w) ~ x", "both set the error variance"),
    ("y | se() ~ x", "nothing is written here"),
    ("y | se(2) ~ x", "no column"),
    ("y | se(s, t) ~ x", "sigma=True"),
    ("y | se(s, sigma=1) ~ x", "sigma=True"),
    ("y | se(s, sigma=open(f)) ~ x", "sigma=True"),
    ("y | se(s, sigma=True, sigma=True) ~ x", "sigma=True"),
    ("y | se(s,) ~ x", "sigma=True"),
    ("y | se(sigma=True) ~ x", "not an expression"),
    ("y | weights(w, sigma=True) ~ x", "weights\\(x\\)"),
    ("y | se(poly(s, 2)) ~ x", "several columns"),
    # terms
    ("y ~ .", "is not supported"),
    ("y ~ . - x", "is not supported"),
    ("y ~ x + ", "a term is missing"),
    ("y ~ a + + b", "a term is missing"),
    ("y ~ a - - b", "a term is missing"),
    ("y ~ --x", "a term is missing"),
    ("y ~ x:", "a term is missing"),
    ("y ~ x * ", "a term is missing"),
    ("y ~ :x", "':' cannot stand here"),
    ("y ~ ()", "cannot stand here"),
    ("y ~ (-x)", "'-' cannot stand here"),
    ("y ~ x z", "an operator is missing"),
    ("y ~ x (z)", "not a function"),
    ("y ~ (x z)", "an operator is missing"),
    ("y ~ x 'a'", "an operator is missing"),
    ("y ~ 'x'", "a string cannot stand here"),
    ("y ~ 2", "this number cannot stand here"),
    ("y ~ 2:x", "I\\(2 \\* x\\)"),
    ("y ~ x * 1", "this number cannot stand here"),
    ("y ~ (0 + x)", "outside brackets"),
    ("y ~ (1 + x):z", "outside brackets"),
    ("y ~ 01", "this number cannot stand here"),
    ("y ~ 1.0", "this number cannot stand here"),
    ("y ~ 1 + 0 + x", "both put in and taken out"),
    ("y ~ 1 + x - 1", "both put in and taken out"),
    ("y ~ x - 0", "- 0 has no meaning"),
    ("y ~ x^2", "I\\(x \\*\\* 2\\)"),
    ("y ~ log(x)**2", "I\\(log\\(x\\) \\*\\* 2\\)"),
    ("y ~ (a + b)**100000", "Write 1 to 10"),
    ("y ~ (a + b)^11", "Write 1 to 10"),
    ("y ~ (a + b)^0", "Write 1 to 10"),
    ("y ~ (a + b)^-1", "Write 1 to 10"),
    ("y ~ (a + b)^1.5", "Write 1 to 10"),
    ("y ~ (a + b)^x", "Write 1 to 10"),
    ("y ~ (a + b)^(2)", "Write 1 to 10"),
    ("y ~ (a + b)^", "Write 1 to 10"),
    ("y ~ (a + b)^2^2", "powers of powers"),
    ("y ~ ((((a + b)^10)^10)^10)^10", "more than 5000 terms"),
    ("y ~ (a+b+c+d+e+f+g+h+i+j)^10", "more than 5000 terms"),
    ("y ~ a*b*c*d*e*f*g*h*i*j*k*l*m", "more than 5000 terms"),
    ("y ~ " + ":".join(["(a+b+c+d)"] * 10), "more than 5000 terms"),
    ("y ~ " + " + ".join(["(a+b+c+d+e)^5"] * 2), "more than 5000 terms"),
    ("y ~ x %in% z", "'%' cannot stand here"),
    ("y ~ x = z", "'=' cannot stand here"),
    ("y ~ x, z", "',' cannot stand here"),
    ("y ~ x == z", "'==' cannot stand here"),
    ("y ~ x < z", "'<' cannot stand here"),
    ("y ~ x // z", "'//' cannot stand here"),
    ("y ~ !x", "'!' cannot stand here"),
    ("y ~ [x]", "cannot stand here"),
    ("y ~ x & z", "'&' cannot stand here"),
    ("y ~ {x}", "Python blocks"),
    ("y ~ x; z", "stray character ';'"),
    ("y ~ log + log(x)", "both as a column and as a function"),
    ("C ~ C(x)", "both as a column and as a function"),
    ("y ~ I(x) + (1 | I)", "both as a column and as a function"),
    ("y ~ log(x) + `log(x)`", "both a column and a call"),
    ("y ~ log(`a b`) + a_b", "too much alike"),
    ("y ~ log(`a b`) + log(`a-b`)", "too much alike"),
    # offsets
    ("y ~ -offset(x)", "offset\\(\\) cannot be part"),
    ("y ~ x - offset(z)", "offset\\(\\) cannot be part"),
    ("y ~ offset(x):z", "offset\\(\\) cannot be part"),
    ("y ~ z * offset(x)", "offset\\(\\) cannot be part"),
    ("y ~ (offset(x))", "offset\\(\\) cannot be part"),
    ("y ~ log(offset(x))", "offset\\(\\) cannot be part"),
    ("y ~ offset(offset(x))", "not a function"),
    ("y ~ offset(x)(z)", "offset\\(\\) cannot be part"),
    ("y ~ (1 + offset(x) | g)", "offset\\(\\) cannot be part"),
    ("y ~ offset()", "nothing is written here"),
    ("y ~ offset(2)", "no column"),
    ("y ~ offset(x, z)", "a list of values"),
    ("y ~ offset(C(x))", "several columns"),
    ("offset(y) ~ x", "not a function"),
    # group terms
    ("y ~ x | g", "in brackets: \\(1 \\+ x \\| g\\)"),
    ("y ~ x || g", "in brackets"),
    ("y ~ (1 | g) | h", "in brackets"),
    ("y ~ (1 | g):x", "a group term cannot be part"),
    ("y ~ x*(1 | g)", "a group term cannot be part"),
    ("y ~ x/(1 | g)", "a group term cannot be part"),
    ("y ~ (1 | g)^2", "a group term cannot be part"),
    ("y ~ -(1 | g)", "a group term cannot be part"),
    ("y ~ x - (1 | g)", "a group term cannot be part"),
    ("y ~ log(1 | g)", "a group term cannot be part"),
    ("y ~ (1 | g)(x)", "a group term cannot be part"),
    ("y ~ ((1 | g))", "one pair of brackets"),
    ("y ~ (x + (1 | g))", "one pair of brackets"),
    ("y ~ (1 | g | h)", "with one bar"),
    ("y ~ (1 | (1 | g))", "with one bar"),
    ("y ~ ((1 | g) | h)", "with one bar"),
    ("y ~ (| g)", "what varies is missing"),
    ("y ~ (1 |)", "the group is missing"),
    ("y ~ (|)", "what varies is missing"),
    ("y ~ (0 | g)", "nothing varies by group"),
    ("y ~ (-x - 1 | g)", "nothing varies by group"),
    ("y ~ (1 + 0 | g)", "both put in and taken out"),
    ("y ~ (. | g)", "is not supported"),
    ("y ~ (x^2 | g)", "I\\(x \\*\\* 2\\)"),
    ("y ~ (1 | a + b)", "\\(1 \\| a\\) \\+ \\(1 \\| b\\)"),
    ("y ~ (x | a * b)", "\\(1 \\+ x \\| a\\) \\+ \\(1 \\+ x \\| b\\) \\+ \\(1 \\+ x \\| a:b\\)"),
    ("y ~ (1 | f(x))", "make a column first"),
    ("y ~ (1 | C(g))", "make a column first"),
    ("y ~ (1 | (g))", "make a column first"),
    ("y ~ (1 | g.h)", "make a column first"),
    ("y ~ (1 | 2)", "make a column first"),
    ("y ~ (1 | 'g')", "make a column first"),
    ("y ~ (1 | a/)", "make a column first"),
    ("y ~ (1 | a//b)", "make a column first"),
    ("y ~ (1 | a - b)", "make a column first"),
    ("y ~ (1 | True)", "not allowed"),
    ("y ~ (1 | a:a)", "'a' is in this group twice"),
    ("y ~ (1 | a/a)", "'a' is in this group twice"),
    ("y ~ (1 | g) + (1 | g)", "'Intercept' varies by 'g' twice"),
    ("y ~ (1 | g) + (1 + x | g)", "\\(1 \\| g\\) \\+ \\(0 \\+ x \\| g\\)"),
    ("y ~ (0 + x | g) + (x || g)", "'x' varies by 'g' twice"),
    ("y ~ (1 | a) + (1 | a/b)", "'Intercept' varies by 'a' twice"),
    ("y ~ (1 | a:b) + (0 + x | b:a)", "written in two ways"),
    ("y ~ (1 | a:b) + (1 | `a:b`)", "written in two ways"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=lambda v: v[:40])
def test_refused_with_a_reason(text, message):
    with pytest.raises(FormulaError, match=message) as error:
        parse(text)
    assert str(error.value).startswith("formula") and "\n" not in str(error.value)


@pytest.mark.parametrize("given_", [None, 1, b"y ~ x", object()])
def test_not_a_text(given_):
    with pytest.raises(FormulaError, match="expected a text"):
        parse(given_)


def test_a_long_formula_is_fine():
    names = [f"x{i}" for i in range(1_000)]
    formula = parse("y ~ " + " + ".join(names))
    assert formula.columns == {"y", *names}


# ---- properties ------------------------------------------------------------------------------------------------------

NAMES = ["x", "z", "größe", "_u", "offset", "trials", "a b", "Sepal.Length", "class", "2019", "lambda", "p(1)", "q|r"]
GROUPS = ["g", "h", "school", "my site", "in", "3rd", "a:b"]
PLAIN = [name for name in NAMES if name not in ("class", "lambda")]  # words of Python cannot stand in a call


@st.composite
def factors(draw, single=False):
    """Return the text of a factor and its columns."""
    name = draw(st.sampled_from(NAMES))
    if draw(st.booleans()):
        return quote_name(name), {name}
    a, b = draw(st.sampled_from(PLAIN)), draw(st.sampled_from(PLAIN))
    one = ["log({a})", "np.sqrt({a}/{b})", "I({a}**2-3*{b})", "scale({a},center=False)", "I(-{a}//7 % {b})"]
    many = ["C({a},contr.treatment('lo w'))", "poly({a}, 2)", "bs({a}*{b},df=4)", 'C({a},levels=["p",2])']
    shape = draw(st.sampled_from(one if single else one + many))
    return shape.format(a=quote_name(a), b=quote_name(b)), {a, b} if "{b}" in shape else {a}


@st.composite
def sums(draw, least=0):
    """Return the text of a right side without group terms, and its columns."""
    pieces, columns = [], set()
    for _ in range(draw(st.integers(least, 3))):
        parts = draw(st.lists(factors(), min_size=1, max_size=3))
        columns |= set().union(*(names for _, names in parts))
        texts = [text for text, _ in parts]
        shape = draw(st.sampled_from(["*", ":", "/", "^", " : ", " * "]))
        pieces.append(f"({'+'.join(texts)})^2" if shape == "^" else shape.join(texts))
    intercept = draw(st.sampled_from(["", "0", "1", "-1"]))
    text = draw(st.sampled_from([" + ", "+", "\n +", " - "])).join(pieces)
    if not text:
        return intercept or "1", columns
    return {"": text, "-1": f"{text} - 1"}.get(intercept, f"{intercept} + {text}"), columns


@st.composite
def formulas(draw):
    """Return the text of a formula, its columns, the names of its grouping factors, and its number of offsets."""
    response, columns = draw(factors(single=True))
    known = draw(st.sampled_from([[], ["se"], ["weights"], ["trials", "weights"], ["cens", "se"]]))
    modifiers = []
    for name in known:
        text, names = draw(factors(single=True))
        modifiers.append(f"{name}({text}{draw(st.sampled_from(['', ',sigma = True'])) if name == 'se' else ''})")
        columns = columns | names
    right, names = draw(sums())
    columns |= names
    terms = [right]
    offsets = draw(st.lists(factors(single=True), max_size=2))
    for text, names in offsets:
        more = draw(st.sampled_from(["", " + x", "/x"])) if names.isdisjoint({"class", "lambda"}) else ""
        terms.append(f"offset({text}{more})")
        columns |= names | ({"x"} if more else set())
    groups = []
    remaining = draw(st.permutations(GROUPS))
    for size in draw(st.lists(st.integers(1, 3), max_size=2)):
        path, remaining = list(remaining[:size]), remaining[size:]
        nested = draw(st.booleans())
        effects, names = draw(sums(least=1))
        joined = ("/" if nested else ":").join(map(quote_name, path))
        terms.append(f"(1{draw(st.sampled_from('|')) * draw(st.integers(1, 2))}{joined})" if "-" in effects else "")
        terms[-1] = terms[-1] or f"({effects} {draw(st.sampled_from(['|', '||']))} {joined})"
        columns |= set(path) | (set() if terms[-1].startswith("(1|") else names)
        groups += [":".join(path[: i + 1]) for i in range(size)] if nested else [":".join(path)]
    left = response + (" | " + "+".join(modifiers) if modifiers else "")
    head, *tail = terms
    return f"{left} ~ {' + '.join([head, *draw(st.permutations(tail))])}", columns, sorted(groups), len(offsets)


@given(formulas())
def test_the_text_of_a_formula_round_trips(case):
    text, columns, groups, offsets = case
    formula = parse(text)
    again = parse(str(formula))
    assert again == formula and hash(again) == hash(formula) and str(again) == str(formula)
    assert formula.columns == again.columns == columns
    assert sorted(term.name for term in formula.groups) == groups
    assert len(formula.offsets) == offsets


@given(formulas(), st.sampled_from([" ", "  ", "\n", "\t "]))
def test_space_between_terms_means_nothing(case, space):
    assert parse(case[0].replace(" + ", f"{space}+{space}").replace(" ~ ", f"{space}~")) == parse(case[0])


@given(formulas())
def test_formulaic_sees_the_factors_that_were_checked(case):
    # Two tokenizers, ours and formulaic's, must cut the text alike: else something unchecked is evaluated.
    formula = parse(case[0])
    for text in [formula.population, *(term.effects for term in formula.groups)]:
        for term in formulaic.Formula(text):
            for factor in term.factors:
                if factor.eval_method.value == "lookup":
                    assert factor.expr in formula.columns
                elif factor.eval_method.value == "python":
                    assert check_expression(factor.expr, where="formulaic") <= formula.columns
                    assert factor.expr in text
                else:
                    assert factor.expr == "1"


PIECES = [
    "y",
    "~",
    "x",
    "g",
    "1",
    "0",
    "2",
    "+",
    "-",
    "*",
    "/",
    ":",
    "^",
    "**",
    "(",
    ")",
    "|",
    "||",
    "[",
    "]",
    ",",
    "=",
]
PIECES += [
    "(1 | g)",
    "(x | ",
    "log(",
    "offset(",
    "se(s)",
    "C(x)",
    ".",
    "`a b`",
    "'s'",
    "I(x ** 2)",
    "{",
    "%in%",
    "sigma",
]


@given(st.lists(st.sampled_from(PIECES), max_size=14), st.sampled_from(["", " "]))
def test_any_sequence_of_pieces_is_read_or_refused(pieces, space):
    try:
        formula = parse("y ~ " + space.join(pieces))
    except FormulaError:
        return
    assert parse(str(formula)) == formula
    formulaic.Formula(formula.population)  # what we pass, formulaic can read
