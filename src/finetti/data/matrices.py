"""The only door to formulaic: text of a checked formula in, named float64 columns out, and again on new rows.

formulaic evaluates Python, so it is given nothing but the columns and the functions of the grammar: never the
caller's variables, and a namespace `np` of a few functions instead of numpy. Its silent habits (unseen categories
become zero rows, rows with NaN vanish) are switched off or tested here.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from finetti.errors import DataError, FinettiError, FormulaError, ModelError
from finetti.model.whitelist import check_expression

__all__ = ["Expression", "RightSide", "Terms", "learn_expression", "learn_terms", "read_right_side"]

_FUNCTIONS = {name: getattr(np, name) for name in ("log", "log2", "log10", "log1p", "exp", "sqrt", "abs")}


@dataclass(frozen=True, eq=False)
class RightSide:
    """The parsed right side of a formula: its text, the data columns it uses, formulaic's syntax tree."""

    text: str
    variables: frozenset[str]
    parsed: Any


@dataclass(frozen=True, eq=False)
class Terms:
    """The right side of a formula with all it has learned: categories, means, knots, which dummies were dropped.

    Attributes
    ----------
    text : for example "1 + Days"
    columns : labels of the columns it makes, for example ("Intercept", "Days")
    variables : the data columns it uses
    spec : formulaic's model spec, or None where the text is a constant alone
    """

    text: str
    columns: tuple[str, ...]
    variables: frozenset[str]
    spec: Any

    def replay(self, frame: Mapping[str, pd.Series], n: int) -> np.ndarray:
        """Return the (n, q) columns for new rows, with everything learned in training held fixed."""
        if self.spec is None:
            return np.ones((n, len(self.columns)))
        return _materialise(self.spec, self.text, _only(frame, self.variables), n)[0]


@dataclass(frozen=True, eq=False)
class Expression:
    """One Python expression of columns (a response, an offset, a standard error) and what its functions learned."""

    text: str
    state: dict[str, Any] = field(default_factory=dict)

    def replay(self, frame: Mapping[str, pd.Series], n: int) -> Any:
        """Return its value on new rows."""
        return _evaluate(self.text, frame, copy.deepcopy(self.state))


def read_right_side(text: str) -> RightSide:
    """Parse the right side of a formula, without looking at data.

    >>> sorted(read_right_side("1 + np.log(x):C(g)").variables)
    ['g', 'x']
    """
    if text.strip() in ("0", "1"):  # no need to load formulaic, or to run it on a million ones
        return RightSide(text, frozenset(), None)
    from formulaic import Formula
    from formulaic.errors import FormulaicError

    try:
        parsed = Formula(text)
    except FormulaicError as error:
        raise FormulaError(f"{text!r} cannot be read: {_first_line(error)}.") from error
    names: set[str] = set()
    for factor in {factor for term in parsed for factor in term.factors}:
        if factor.eval_method.value == "lookup":
            names.add(factor.expr)
        elif factor.eval_method.value == "python":
            # formulaic's own list of variables leaves out those inside scale(), poly(), ... Reading them here checks
            # once more, at the last door, that nothing outside the grammar is evaluated.
            names |= check_expression(factor.expr, where="the right side")
    return RightSide(text, frozenset(names), parsed)


def learn_terms(side: RightSide, frame: Mapping[str, pd.Series], n: int) -> tuple[Terms, np.ndarray]:
    """Return the terms of a right side and their (n, q) float64 matrix.

    >>> terms, X = learn_terms(read_right_side("1 + log(x)"), {"x": pd.Series([1.0, 2.0])}, 2)
    >>> terms.columns, X[0].tolist()
    (('Intercept', 'log(x)'), [1.0, 0.0])
    """
    if side.parsed is None:
        columns: tuple[str, ...] = ("Intercept",) if side.text.strip() == "1" else ()
        return Terms(side.text, columns, side.variables, None), np.ones((n, len(columns)))
    if "Intercept" in side.variables:
        raise ModelError("A data column called 'Intercept' would be taken for the constant 1; rename the column.")
    from formulaic import ModelSpec

    spec = ModelSpec.from_spec(side.parsed, output="numpy", na_action="ignore", ensure_full_rank=True)
    matrix, learned = _materialise(spec, side.text, _only(frame, side.variables), n)
    columns = tuple(str(name) for name in learned.column_names)
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise ModelError(f"Two columns made by {side.text!r} are both called {twice[0]!r}; rename the data column.")
    return Terms(side.text, columns, side.variables, learned), matrix


def learn_expression(text: str, frame: Mapping[str, pd.Series]) -> tuple[Expression, Any]:
    """Return an expression and its value: a Series, possibly categorical where it is a column alone.

    >>> learn_expression("y / 2", {"y": pd.Series([2.0, 4.0])})[1].tolist()
    [1.0, 2.0]
    """
    state: dict[str, Any] = {}
    value = _evaluate(text, frame, state)
    return Expression(text, state), value


def _evaluate(text: str, frame: Mapping[str, pd.Series], state: dict[str, Any]) -> Any:
    name = text.strip("`")
    if name in frame:
        return frame[name]
    from formulaic.transforms import TRANSFORMS
    from formulaic.utils.layered_mapping import LayeredMapping
    from formulaic.utils.stateful_transforms import stateful_eval

    try:
        with np.errstate(all="ignore"):
            value = stateful_eval(text, LayeredMapping(dict(frame), _context(), TRANSFORMS), {}, state, None)
    except FinettiError:
        raise
    except Exception as error:
        raise _refused(text, frame, error) from error
    return value


def _materialise(spec: Any, text: str, frame: Mapping[str, pd.Series], n: int) -> tuple[np.ndarray, Any]:
    from formulaic.materializers import PandasMaterializer

    table = pd.DataFrame(dict(frame), index=pd.RangeIndex(n), copy=False)
    try:
        with np.errstate(all="ignore"):
            made = PandasMaterializer(table, context=_context()).get_model_matrix(spec)
    except FinettiError:
        raise
    except Exception as error:
        raise _refused(text, frame, error) from error
    # A copy that we own: a read-only or strided view would make numba compile its kernels again.
    matrix = np.array(made, dtype=np.float64, order="C", copy=True)
    learned = made.model_spec
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=0))
    if len(bad):
        column = int(bad[0])
        row = int(np.flatnonzero(~np.isfinite(matrix[:, column]))[0])
        used = {name: frame[name].iloc[row] for name in sorted(frame) if name in learned.column_names[column]}
        shown = f", where {', '.join(f'{k} = {_short(v)}' for k, v in used.items())}" if used else ""
        raise DataError(
            f"{learned.column_names[column]!r} is {matrix[row, column]:g} in row {row} (counting the rows used from 0)"
            f"{shown}; every transformed value must be finite, so change the transformation or leave out such rows."
        )
    return matrix, learned


def _only(frame: Mapping[str, pd.Series], names: frozenset[str]) -> dict[str, pd.Series]:
    """The columns of one right side: a column used elsewhere may have the name of a function, such as "scale"."""
    return {name: frame[name] for name in sorted(names)}


def _short(value: Any) -> str:
    value = value.item() if isinstance(value, np.generic) else value
    return f"{value:g}" if isinstance(value, float) else repr(value)


def _refused(text: str, frame: Mapping[str, pd.Series], error: Exception) -> FinettiError:
    """A failed evaluation in our words."""
    told = _first_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
    texts = [name for name in sorted(frame) if isinstance(frame[name].dtype, pd.CategoricalDtype)]
    if "Field values extend beyond" in told or "field values extend beyond" in told:
        return DataError(
            f"{text!r} cannot be computed: values lie outside the range that a spline was made for; "
            "leave out those rows, or fit on data that cover the range."
        )
    if "not callable" in told:
        return ModelError(
            f"{text!r} cannot be computed, because a data column has the name of a function that it calls; "
            "rename the column."
        )
    hint = f" (columns that hold categories, not numbers: {', '.join(map(repr, texts))})" if texts else ""
    return DataError(f"{text!r} cannot be computed from these data: {told}{hint}.")


def _first_line(error: Exception) -> str:
    """formulaic colours its messages for a terminal; a message of ours is plain and one line long."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _context() -> dict[str, Any]:
    return {**_FUNCTIONS, "np": SimpleNamespace(**_FUNCTIONS), "C": _category}


def _category(data: Any, contrasts: Any = None, *, levels: Iterable[Any] | None = None) -> Any:
    """`C()` of formulaic, with whole numbers labelled "2" rather than "2.0", and unseen or single levels refused."""
    from formulaic.transforms import C

    values = pd.Series(data)
    if pd.api.types.is_float_dtype(values.dtype) and bool(((values % 1 == 0) & (values.abs() < 2**53)).all()):
        values = values.astype(np.int64)
    given = None if levels is None else list(levels)
    marked = C(values, contrasts, levels=given)
    encode = marked.__formulaic_metadata__.encoder

    def encoder(values: Any, reduced_rank: bool, drop_rows: Any, encoder_state: dict[str, Any], model_spec: Any) -> Any:
        known = given if given is not None else encoder_state.get("categories")
        name = getattr(values, "name", None) or "an expression"
        if known is not None:
            unseen = [v for v in pd.unique(pd.Series(values)) if v not in known]
            if unseen:
                raise DataError(
                    f"C() of {name!r} meets the category {_short(unseen[0])}, which is not among the known ones: "
                    f"{', '.join(map(str, known))}."
                )
        encoded = encode(values, reduced_rank, drop_rows, encoder_state, model_spec)
        if len(encoder_state["categories"]) < 2:
            raise ModelError(_one_category(f"C() of {name!r}", encoder_state["categories"]))
        return encoded

    marked.__formulaic_metadata__.encoder = encoder
    return marked


def _one_category(what: str, categories: Iterable[Any]) -> str:
    only = next(iter(categories), None)
    return (
        f"{what} has a single category ({only!r}) in the rows used, so its effect cannot be told from the intercept; "
        "drop it from the formula."
    )
