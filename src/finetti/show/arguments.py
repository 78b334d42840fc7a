"""What is typed after an option, read safely: priors, pooling, quantiles.

A prior such as ``half_cauchy(5)`` looks like Python and is parsed by Python's parser, but it is never evaluated:
only the names of finetti's own constructors and plain numbers are accepted.
"""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from finetti.errors import FinettiError, ModelError, PriorError, available

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from finetti.model.priors import Prior

__all__ = ["as_python", "parse_pooling", "parse_prior", "parse_priors", "parse_probs", "read_square"]

CONSTRUCTORS = (
    "normal", "student_t", "half_normal", "half_cauchy", "half_t", "exponential", "gamma", "inverse_gamma", "uniform",
    "lkj", "beta", "fixed", "flat", "jeffreys", "dumouchel", "uniform_shrinkage",
)  # fmt: skip
POOLING = ("partial", "empirical", "complete", "none")
_LONGEST = 200  # characters; a prior is a name and three numbers


def _split(text: str, option: str, example: str) -> tuple[str, str]:
    """Split KEY=VALUE at the first '=' outside brackets: keys may hold some, as in beta[C(x, levels=[1, 2])]."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "=" and depth == 0:
            key, value = text[:i].strip(), text[i + 1 :].strip()
            if key and value:
                return key, value
            break
    raise FinettiError(f"{option} got {text!r}, expected KEY=VALUE, for instance {option} {example!r}.")


def parse_prior(text: str) -> Prior:
    """Read one prior as it is written, without evaluating it.

    Examples
    --------
    >>> str(parse_prior("half_t(3, 2.5)"))
    'half_t(3, 2.5)'
    >>> parse_prior("__import__('os').system('ls')")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    finetti.errors.PriorError: Prior "__import__('os').system('ls')" is not of the form name(numbers), ...
    """
    from finetti.model import priors

    form = f"is not of the form name(numbers), for instance half_cauchy(5). Names: {', '.join(CONSTRUCTORS)}."
    shown = text if len(text) <= 60 else text[:57] + "..."
    if len(text) > _LONGEST:
        raise PriorError(f"Prior {shown!r} is {len(text)} characters long and {form}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise PriorError(f"Prior {shown!r} {form}") from None
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
        raise PriorError(f"Prior {shown!r} {form}")
    name = tree.func.id
    if name not in CONSTRUCTORS:
        raise PriorError(f"There is no prior called {name!r} (in {shown!r}): {available(name, CONSTRUCTORS, most=20)}.")
    constructor: Callable[..., Prior] = getattr(priors, name)
    values = [_literal(node, shown) for node in tree.args]
    named: dict[str, float] = {}
    for word in tree.keywords:
        if word.arg is None:
            raise PriorError(f"Prior {shown!r} {form}")
        named[word.arg] = _literal(word.value, shown)
    signature = inspect.signature(constructor)
    try:
        signature.bind(*values, **named)
    except TypeError as error:
        wanted = ", ".join(signature.parameters)
        raise PriorError(f"Prior {shown!r}: {error}; it is written {name}({wanted}).") from None
    return constructor(*values, **named)


def _literal(node: ast.expr, shown: str) -> float:
    """A number, with a sign, or inf; nothing that would have to be computed."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd | ast.USub):
        inner = _literal(node.operand, shown)
        return -inner if isinstance(node.op, ast.USub) else inner
    if isinstance(node, ast.Name) and node.id == "inf":
        return math.inf
    # A bool is an int for isinstance, and no number for a reader.
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        try:
            float(node.value)
        except OverflowError:
            raise PriorError(f"Prior {shown!r} holds a number too large to be one.") from None
        return node.value
    got = ast.unparse(node)
    raise PriorError(f"Prior {shown!r}: only numbers (and inf) may stand in the parentheses, got {got!r}.")


def parse_priors(texts: Sequence[str]) -> dict[str, Prior] | None:
    """Read every ``--prior KEY=PRIOR``; None where there is none.

    Examples
    --------
    >>> {key: str(prior) for key, prior in parse_priors(["sd=half_cauchy(5)", "beta=normal(0, 2)"]).items()}
    {'sd': 'half_cauchy(5)', 'beta': 'normal(0, 2)'}
    """
    priors: dict[str, Prior] = {}
    for text in texts:
        key, value = _split(text, "--prior", "sd=half_cauchy(5)")
        if key in priors:
            raise PriorError(f"--prior is given twice for {key!r}: keep one of them.")
        priors[key] = parse_prior(value)
    return priors or None


def parse_pooling(texts: Sequence[str]) -> str | dict[str, str]:
    """Read ``--pooling KIND`` for all terms, or ``--pooling TERM=KIND`` for some of them.

    Examples
    --------
    >>> parse_pooling(["none"]), parse_pooling(["Subject=none", "Item=empirical"])
    ('none', {'Subject': 'none', 'Item': 'empirical'})
    """
    if not texts:
        return "partial"
    if len(texts) == 1 and "=" not in texts[0]:
        return _kind(texts[0].strip())
    if any("=" not in text for text in texts):
        raise ModelError(
            f"--pooling got {', '.join(map(repr, texts))}: give one kind for all terms, or TERM=KIND for each of some."
        )
    pooling: dict[str, str] = {}
    for text in texts:
        term, kind = _split(text, "--pooling", "Subject=none")
        if term in pooling:
            raise ModelError(f"--pooling is given twice for {term!r}: keep one of them.")
        pooling[term] = _kind(kind)
    return pooling


def _kind(text: str) -> str:
    if text not in POOLING:
        raise ModelError(f"There is no pooling {text!r}: {available(text, POOLING)}.")
    return text


def parse_probs(text: str) -> tuple[float, ...]:
    """Read ``--probs 0.05,0.5,0.95``.

    Examples
    --------
    >>> parse_probs("0.025, 0.5, 0.975")
    (0.025, 0.5, 0.975)
    """
    try:
        probs = tuple(float(part) for part in text.split(","))
    except ValueError:
        probs = ()
    if not probs or not all(0 < p < 1 for p in probs):
        raise FinettiError(f"--probs got {text!r}, expected probabilities between 0 and 1, for instance 0.05,0.5,0.95.")
    if len(set(probs)) < len(probs):
        raise FinettiError(f"--probs got {text!r}, which names a probability twice.")
    return probs


def read_square(path: Path) -> np.ndarray:
    """Read the square matrix in a CSV file, with or without a line of names above it and a column of names beside it.

    Raises
    ------
    FinettiError
        If something else than numbers stands in the matrix, or it is not square.
    """
    import csv

    import numpy as np

    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise FinettiError(f"The file {str(path)!r} cannot be read as CSV: {error}.") from None
    named = bool(rows) and not all(_is_number(cell) for cell in rows[0])
    rows = rows[1:] if named else rows
    # names beside the matrix may be numbers, but then there are some above it, too
    if all(len(row) == len(rows) + 1 for row in rows) and (named or not all(_is_number(row[0]) for row in rows)):
        rows = [row[1:] for row in rows]
    shape = f"{len(rows)} lines of {len(rows[0]) if rows else 0} values"
    if not rows or any(len(row) != len(rows) for row in rows):
        raise FinettiError(f"--vcov {str(path)!r} must hold a square matrix, one row per effect; it holds {shape}.")
    for i, row in enumerate(rows, 1):
        for cell in row:
            if not _is_number(cell):
                raise FinettiError(f"--vcov {str(path)!r} must hold numbers only, but row {i} of it has {cell!r}.")
    return np.array(rows, dtype=np.float64)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def as_python(value: Any) -> str:
    """Write an argument as the user would in Python: priors as calls of `fi.`, text in quotes.

    Examples
    --------
    >>> as_python({"sd": parse_prior("half_cauchy(5)")})
    "{'sd': fi.half_cauchy(5)}"
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {as_python(v)}" for k, v in value.items()) + "}"
    return f"fi.{value!r}" if hasattr(value, "support") else repr(value)
