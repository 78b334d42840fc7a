"""What a screen is given, as arrays: an effect, a standard error, degrees of freedom and a label for every test."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.data.columns import numbers
from finetti.data.frames import Table, read
from finetti.errors import DataError
from finetti.inference.spike_slab import Observed
from finetti.inference.spike_slab_lookup import MOST_TABLES, TESTS
from finetti.studies.moderate import Moderated

__all__ = ["FEW", "Screened", "few_degrees", "read_moderated", "read_screen"]

Floats = npt.NDArray[np.float64]

# relative step of degrees of freedom
DF_STEP = 0.02
# tests below which the answer rests on the priors
FEW = 20
# effects and standard errors whose squares are numbers, and z whose squares still leave digits to a log-likelihood
LARGEST, SMALLEST, FARTHEST = 1e100, 1e-100, 1e7


@dataclass(frozen=True, eq=False, repr=False)
class Screened:
    """The tests as given.

    effect, se, df : (n,), df infinite where the errors are normal
    labels : index of the tables, named after its column
    effect_name : what the user calls the effect
    z_values : whether no standard errors were given, so that effects are z-values
    """

    effect: Floats
    se: Floats
    df: Floats
    labels: pd.Index
    effect_name: str
    z_values: bool

    @property
    def n(self) -> int:
        return int(self.effect.size)

    def __repr__(self) -> str:
        return f"<Screened: {self.n:,} {'z-values' if self.z_values else f'tests of {self.effect_name}'}>"


def read_screen(effect: Any, se: Any = None, data: Any = None, *, df: Any = None, labels: Any = None) -> Screened:
    """Collect and check the input of `screen`; see there for the parameters.

    Raises
    ------
    DataError

    Examples
    --------
    >>> found = read_screen("z", data={"z": [0.1, 2.5], "gene": ["A", "B"]}, labels="gene")
    >>> found.labels.tolist(), found.z_values
    (['A', 'B'], True)
    """
    table = None if data is None else read(data)
    x = _numbers(effect, table, "effect", "effect")
    n = x.size
    if n == 0:
        raise DataError("There are no tests: effect is empty.")
    names = _labels(labels, table, n)
    _finite(x, "effect", names)
    if float(np.max(np.abs(x))) > LARGEST:
        raise DataError(
            f"effect has values of size {np.max(np.abs(x)):.3g}; change its unit, so that it can be squared."
        )
    spread = np.ones(n) if se is None else _per_test(se, table, "se", n, table)
    _finite(spread, "se", names)
    bad = np.flatnonzero(spread <= 0.0)
    if bad.size:
        raise DataError(
            f"A standard error must be above zero, but it is {spread[bad[0]]:g} {_where(bad, names)}. "
            "Leave out tests without variation, or correct their standard errors."
        )
    if float(np.min(spread)) < SMALLEST or float(np.max(spread)) > LARGEST:
        raise DataError(
            f"se has values between {np.min(spread):.3g} and {np.max(spread):.3g}; change its unit and that of the "
            "effect, so that they can be squared."
        )
    bad = np.flatnonzero(np.abs(x) > FARTHEST * spread)
    if bad.size:
        raise DataError(
            f"effect is {x[bad[0]] / spread[bad[0]]:.3g} standard errors from zero {_where(bad, names)}, "
            f"too many to compute with ({FARTHEST:g} at most). Leave out tests without "
            "variation, or correct their standard errors."
        )
    # an infinite df is a normal error, and allowed
    degrees = np.full(n, np.inf) if df is None else _per_test(df, table, "df", n, table)
    _finite(np.where(np.isposinf(degrees), 1.0, degrees), "df", names)
    bad = np.flatnonzero(degrees <= 0.0)
    if bad.size:
        raise DataError(
            f"Degrees of freedom must be above zero, but df is {degrees[bad[0]]:g} {_where(bad, names)}. "
            "Leave out those tests; of an infinite df the errors are normal."
        )
    if not np.any(x):
        raise DataError(
            "All effects are exactly zero, which no experiment yields; check that this is the right column "
            f"({effect!r})."
            if isinstance(effect, str)
            else "All effects are exactly zero; check the input."
        )
    name = effect if isinstance(effect, str) else "effect"
    return Screened(x, spread, degrees, names, name, se is None)


def few_degrees(df: Floats) -> Floats:
    """Degrees of freedom in steps of 2 %, where those of many tests are all different.

    The closest t of every gene has its own df, 117.9 or 118.2; tests that share one share a table of densities.

    Examples
    --------
    >>> np.unique(few_degrees(np.linspace(117.0, 119.0, 5000))).round(1).tolist()
    [116.7, 119.1]
    """
    if df.size < TESTS or np.unique(df).size <= MOST_TABLES:
        return df
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(df), df, np.exp(np.round(np.log(df) / DF_STEP) * DF_STEP))


def read_moderated(
    found: Moderated, contrast: str | None = None, **given: Any
) -> tuple[Screened, Observed, Floats | None]:
    """Take one contrast of a `Moderated` as tests, with the sets of standard errors that its nodes imply, and weights.

    Raises
    ------
    DataError
        If anything in `given` is given, too.
    """
    extra = [name for name, value in given.items() if value is not None]
    if extra:
        raise DataError(
            f"{', '.join(extra)} and the result of fi.moderate were both given, but effects, standard errors, df and "
            "labels come from the latter. Leave out the former."
        )
    at = found.few_nodes(contrast)
    if at.weights.size == 1:
        se, df, sets, weights = at.se[0], at.df[0], None, None
    else:
        table = found.table(contrast)
        se, df = table["se"].to_numpy(), table["df"].to_numpy()
        sets, weights = (np.ascontiguousarray(at.se), np.ascontiguousarray(at.df)), at.weights
    se, df = np.ascontiguousarray(se), np.ascontiguousarray(df)
    bad = np.flatnonzero(~(se > 0.0))
    if bad.size:
        raise DataError(
            f"The moderated variance of gene {at.genes[bad[0]]!r} is zero, as is that of {bad.size} genes in all; give "
            "fi.moderate(..., zero_variance='drop')."
        )
    names = found.contrasts
    name = contrast if contrast is not None else names[0]
    screened = Screened(at.effect, se, df, pd.Index(at.genes, name="gene"), name, False)
    every = Observed.of(screened.effect, se, df)
    return screened, replace(every, sets=sets), weights


def _numbers(value: Any, table: Table | None, role: str, what: str) -> Floats:
    """A numeric column by name, or values."""
    if isinstance(value, str):
        if table is None:
            raise DataError(
                f"{role}={value!r} names a column, but no table was given; add data= (a table, or the path of a file), "
                f"or give the values of {role} themselves."
            )
        return np.ascontiguousarray(numbers(table.column(value), value, what), dtype=np.float64)
    array = value if isinstance(value, (pd.Series, np.ndarray)) else np.asarray(value)
    if np.ndim(array) != 1:
        shape = "a single value" if np.ndim(array) == 0 else f"of shape {np.shape(array)}"
        raise DataError(f"{role} must be a column name or one value per test, but it is {shape}.")
    column = array.reset_index(drop=True) if isinstance(array, pd.Series) else pd.Series(np.asarray(array))
    return np.ascontiguousarray(numbers(column, role, what), dtype=np.float64)


def _per_test(value: Any, data: Table | None, role: str, n: int, table: Table | None) -> Floats:
    """One number per test, from a column, values, or one number for all."""
    if not isinstance(value, str) and np.ndim(value) == 0:
        if isinstance(value, (bool, np.bool_)):
            raise DataError(f"{role}={value!r} must be a column name, a number, or one value per test.")
        try:
            one = float(value)
        except (TypeError, ValueError):
            raise DataError(f"{role}={value!r} must be a column name, a number, or one value per test.") from None
        if not one > 0.0 or (role == "se" and one == np.inf):
            raise DataError(f"{role} is {one:g}, but must be above zero{' and finite' if role == 'se' else ''}.")
        return np.full(n, one)
    out = _numbers(value, table, role, {"se": "standard error", "df": "degrees of freedom"}[role])
    if out.size != n:
        raise DataError(f"One {role} per test is expected, but there are {n} effects and {out.size} values of {role}.")
    return out


def _finite(values: Floats, role: str, names: pd.Index) -> None:
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise DataError(
            f"{role} is {values[bad[0]]:g} {_where(bad, names)}; every test needs a finite value. Leave out such "
            "tests, for example with data.dropna()."
        )


def _where(bad: npt.NDArray[np.intp], names: pd.Index) -> str:
    """Where the first of the bad tests is, by number and by name if it has one, and how many there are."""
    name = "" if isinstance(names, pd.RangeIndex) else f", {names[bad[0]]!r}"
    return f"in row {bad[0]} (counting from 0{name}; {bad.size} such rows in all)"


def _labels(labels: Any, table: Table | None, n: int) -> pd.Index:
    if labels is None:
        return pd.RangeIndex(n, name="test")
    if isinstance(labels, str):
        if table is None:
            raise DataError(f"labels={labels!r} names a column, but no table was given; add data=, or give the labels.")
        return pd.Index(np.asarray(table.column(labels)), name=labels)
    if isinstance(labels, np.ndarray) and labels.ndim != 1:
        raise DataError(f"labels must be a column name or one value per test, but it is of shape {labels.shape}.")
    # a tuple is one label, not a level for each of its parts
    try:
        given = labels if isinstance(labels, (pd.Series, pd.Index)) else list(labels)
    except TypeError:
        raise DataError(f"labels={labels!r} must be a column name or one value per test.") from None
    index = pd.Index(given, tupleize_cols=False)
    if len(index) != n:
        raise DataError(f"One label per test is expected, but there are {n} effects and {len(index)} labels.")
    return index.rename(index.name or "test")
