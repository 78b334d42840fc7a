"""A small builder of MathML, the mathematics that browsers draw without a library.

Every function takes and returns markup; text enters through `name`, `number`, `sign` and `words`, which escape it.
MathML does not break lines, so an equation is written as several short `math` elements (`chunk`), between which
a line may break on a phone and on paper. Source: W3C, MathML Core, 2023.
"""

from __future__ import annotations

from html import escape

__all__ = ["bracket", "chunk", "name", "number", "row", "sign", "square", "sub", "subsup", "words"]


def name(text: str) -> str:
    """Return an identifier: one letter is set in italics, longer names upright, as `log` is.

    >>> name("x"), name("a<b")
    ('<mi>x</mi>', '<mi>a&lt;b</mi>')
    """
    return f"<mi>{escape(text)}</mi>"


def number(text: str) -> str:
    """Return a number, with a true minus sign.

    >>> number("-2.5")
    '<mrow><mo form="prefix">−</mo><mn>2.5</mn></mrow>'
    """
    if text.startswith("-"):
        return row(f'<mo form="prefix">−</mo>{number(text[1:])}')
    return f"<mn>{escape(text)}</mn>" if text[:1].isdigit() else name(text)


def sign(text: str, *, tight: bool = False) -> str:
    """Return a sign between two things, such as ~ or +, also at the end of a piece; `tight` leaves no space around it.

    >>> sign("~")
    '<mo form="infix">~</mo>'
    """
    space = ' lspace="0" rspace="0"' if tight else ""
    return f'<mo form="infix"{space}>{escape(text)}</mo>'


def words(text: str) -> str:
    """Return plain words within mathematics.

    >>> words("half-t")
    '<mtext>half-t</mtext>'
    """
    return f"<mtext>{escape(text)}</mtext>"


def row(*parts: str) -> str:
    """Return the parts as one, as a subscript wants it.

    >>> row(name("a"), name("b"))
    '<mrow><mi>a</mi><mi>b</mi></mrow>'
    """
    return f"<mrow>{''.join(parts)}</mrow>"


def _listed(parts: tuple[str, ...]) -> str:
    return parts[0] if len(parts) == 1 else row('<mo separator="true" rspace="0.1em">,</mo>'.join(parts))


def sub(base: str, *indices: str) -> str:
    """Return the base with indices, comma between them.

    >>> sub(name("x"), name("i"))
    '<msub><mi>x</mi><mi>i</mi></msub>'
    """
    return f"<msub>{base}{_listed(indices)}</msub>"


def subsup(base: str, indices: tuple[str, ...], above: str) -> str:
    """Return the base with indices below and something above.

    >>> subsup(name("u"), (name("j"),), words("school"))
    '<msubsup><mi>u</mi><mi>j</mi><mtext>school</mtext></msubsup>'
    """
    return f"<msubsup>{base}{_listed(indices)}{above}</msubsup>"


def square(what: str) -> str:
    """Return the square; an index stays below the exponent.

    >>> square(name("σ")), square(sub(name("τ"), name("g")))
    ('<msup><mi>σ</mi><mn>2</mn></msup>', '<msubsup><mi>τ</mi><mi>g</mi><mn>2</mn></msubsup>')
    """
    if what.startswith("<msub>"):
        return f"<msubsup>{what.removeprefix('<msub>').removesuffix('</msub>')}<mn>2</mn></msubsup>"
    return f"<msup>{what}<mn>2</mn></msup>"


def bracket(*parts: str, ends: str = "()", joint: str = ",") -> str:
    """Return the parts in brackets, with a sign between them.

    >>> bracket(number("1"), number("2"), ends="[]")
    '<mrow><mo stretchy="false">[</mo><mn>1</mn><mo separator="true">,</mo><mn>2</mn><mo stretchy="false">]</mo></mrow>'
    """
    between = f'<mo separator="true">{joint}</mo>' if joint == "," else sign(joint)
    left, right = (f'<mo stretchy="false">{end}</mo>' for end in ends)
    return row(left, between.join(parts), right)


def chunk(*parts: str) -> str:
    """Return one `math` element, which is never broken within.

    >>> chunk(name("y"))
    '<math><mi>y</mi></math>'
    """
    return f"<math>{''.join(parts)}</math>"
