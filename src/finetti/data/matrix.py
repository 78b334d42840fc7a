"""An expression matrix: genes in rows, samples in columns, numbers in its cells and names on both sides.

Any matrix of many rows measured on the same samples is meant: transcripts, proteins, metabolites, methylation sites.
Tables carry names of rows in their index or in leading columns; arrays have none, and rows are then "1", "2", ...
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from finetti.data.checks import check_magnitude
from finetti.data.columns import kind_of, numbers
from finetti.data.frames import Table, read
from finetti.errors import DataError, available

__all__ = ["ExpressionMatrix", "column_names", "open_matrix", "read_matrix"]

# a leading column of this name holds labels, even where they are numbers
_LABELS = {
    "", "cpg", "ensembl", "ensembl_id", "ensgene", "entrez", "entrez_id", "feature", "feature_id", "gene", "gene_id",
    "gene_index", "gene_name", "gene_symbol", "geneid", "genes", "id", "index", "metabolite", "name", "peptide",
    "probe", "probe_id", "probeset", "protein", "protein_id", "row", "symbol", "transcript", "transcript_id",
    "unnamed: 0",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class ExpressionMatrix:
    """Values (G, n), NaN where missing, with the names of rows and columns.

    Attributes
    ----------
    values : (G, n) float64, C-contiguous
    genes : (G,) text, not necessarily different
    samples : n different names, or None where the matrix has none
    left_out : columns that hold neither labels nor samples
    """

    values: np.ndarray
    genes: np.ndarray
    samples: tuple[str, ...] | None
    left_out: tuple[str, ...] = ()

    def take_samples(self, order: Sequence[int]) -> ExpressionMatrix:
        """Return the matrix with these columns, in this order."""
        samples = None if self.samples is None else tuple(self.samples[i] for i in order)
        return ExpressionMatrix(np.ascontiguousarray(self.values[:, list(order)]), self.genes, samples, self.left_out)


def open_matrix(matrix: Any) -> Any:
    """Return the matrix as something whose names can be asked for: an array, a pandas frame or a `Table`."""
    if _is_array(matrix) or isinstance(matrix, (pd.DataFrame, Table, ExpressionMatrix)):
        return matrix
    if hasattr(matrix, "obs_names"):
        raise DataError(
            "An AnnData object has samples in rows; give a frame with genes in rows, matrix.to_df().T, and its table "
            "of samples .obs as data=."
        )
    if hasattr(matrix, "tocsr"):
        raise DataError("A sparse matrix cannot be read; give matrix.toarray(), genes in rows.")
    return read(matrix)


def column_names(opened: Any) -> tuple[str, ...] | None:
    """Names of all columns of what `open_matrix` returned, those of labels too; None where it has no names."""
    if isinstance(opened, ExpressionMatrix):
        return opened.samples
    if isinstance(opened, Table):
        return opened.names
    if isinstance(opened, pd.DataFrame) and not isinstance(opened.columns, pd.RangeIndex):
        return tuple(map(str, opened.columns))
    return None


def read_matrix(
    matrix: Any, labels: str | Sequence[Any] | None = None, wanted: Sequence[str] | None = None
) -> ExpressionMatrix:
    """Return an expression matrix with its names.

    Parameters
    ----------
    matrix : (G, n) array, or pandas, polars or pyarrow table, or path of a CSV, TSV or Parquet file
        Genes in rows, samples in columns.
    labels : str or sequence of G values, optional
        The column that names the rows, or the names. By default the index of a pandas frame, unless it only counts;
        else the leading columns of text, or those called "gene", "id", "probe" and the like, of which the first of
        text is taken; else "1", "2", ...
    wanted : sequence of str, optional
        The samples that the design names. If all of them are columns, the other columns are left out.

    Returns
    -------
    ExpressionMatrix

    Raises
    ------
    DataError
        For cells that are no numbers, infinite values, samples without any value, repeated names of samples.

    Examples
    --------
    >>> found = read_matrix({"gene": ["tp53", "myc"], "s1": [1.0, 2.0], "s2": [1.5, 2.5]})
    >>> found.genes.tolist(), found.samples, found.values.tolist()
    (['tp53', 'myc'], ('s1', 's2'), [[1.0, 1.5], [2.0, 2.5]])
    """
    if isinstance(matrix, ExpressionMatrix):
        return matrix
    left_out: tuple[str, ...] = ()
    genes: np.ndarray | None = None
    samples: tuple[str, ...] | None = None
    matrix = open_matrix(matrix)
    if _is_array(matrix):
        values = _from_array(matrix)
        if isinstance(labels, str):
            raise DataError(f"labels={labels!r} names a column, but an array has none; give the {len(values)} labels.")
    else:
        table, index, named = _table(matrix)
        found, sample_columns = _roles(table, labels, index, wanted)
        kept = {*sample_columns, *([found] if found is not None else [])}
        left_out = tuple(name for name in table.names if name not in kept)
        genes = index if found is None else _text(table.column(found))
        values = _numeric(table, sample_columns)
        samples = tuple(sample_columns) if named else None
    if labels is not None and not isinstance(labels, str):
        genes = _given_labels(labels, len(values))
    if genes is None:
        genes = np.arange(1, len(values) + 1).astype(str).astype(object)
    _check(values, samples, genes)
    return ExpressionMatrix(values, genes, samples, left_out)


def _is_array(matrix: Any) -> bool:
    return isinstance(matrix, (list, tuple)) or (isinstance(matrix, np.ndarray) and matrix.dtype.names is None)


def _from_array(matrix: Any) -> np.ndarray:
    try:
        values = np.asarray(matrix)
    except ValueError:
        raise DataError("The rows of the matrix differ in length; every gene needs a cell for every sample.") from None
    if values.ndim != 2 or 0 in values.shape:
        raise DataError(
            f"The matrix has shape {values.shape}; two dimensions are expected, genes in rows and samples in columns."
        )
    if values.dtype.kind not in "iuf" and not _all_numbers(values):
        raise DataError(
            f"The matrix holds values of type {values.dtype}, not numbers; convert it, for example "
            "matrix.astype(float), or give a table with names on its columns."
        )
    return np.ascontiguousarray(values, dtype=np.float64)


def _all_numbers(values: np.ndarray) -> bool:
    if values.dtype.kind != "O":
        return False
    return pd.api.types.infer_dtype(values.ravel(), skipna=True) in ("integer", "floating", "mixed-integer-float")


def _table(matrix: pd.DataFrame | Table) -> tuple[Table, np.ndarray | None, bool]:
    """The table, the labels in its index if it has such, and whether its columns have names of their own."""
    if isinstance(matrix, Table):
        return matrix, None, True
    for axis, what in ((matrix.index, "rows"), (matrix.columns, "columns")):
        if isinstance(axis, pd.MultiIndex):
            raise DataError(f"The {what} of the matrix have names of {axis.nlevels} levels; join them into one text.")
    named = not isinstance(matrix.columns, pd.RangeIndex)
    if not all(isinstance(name, str) for name in matrix.columns):
        matrix = matrix.set_axis([str(name) for name in matrix.columns], axis=1)
    twice = [name for name, count in Counter(matrix.columns).items() if count > 1]
    if twice:
        raise DataError(
            f"Names of samples must differ, but {twice[0]!r} stands over {Counter(matrix.columns)[twice[0]]} columns"
            f"{f' ({len(twice) - 1} other names repeat, too)' if len(twice) > 1 else ''}; rename the duplicates, or "
            "average technical replicates first."
        )
    counts = isinstance(matrix.index, pd.RangeIndex)
    return read(matrix), None if counts else _text(matrix.index.to_series()), named


def _text(series: pd.Series) -> np.ndarray:
    if series.isna().any():
        series = series.astype(object).where(series.notna(), "?")
    out = np.empty(len(series), dtype=object)
    out[:] = [str(int(v)) if isinstance(v, float) and v.is_integer() else str(v) for v in series.tolist()]
    return out


def _given_labels(labels: Sequence[Any], G: int) -> np.ndarray:
    given = _text(pd.Series(list(labels), dtype=object))
    if len(given) != G:
        raise DataError(f"labels has {len(given)} values, but the matrix has {G} rows; one label per row is expected.")
    return given


def _roles(
    table: Table, labels: Any, index: np.ndarray | None, wanted: Sequence[str] | None
) -> tuple[str | None, list[str]]:
    """The column of labels, if one, and the columns that are samples."""
    names = list(table.names)
    leading: list[str] = []
    if isinstance(labels, str) and labels not in names:
        raise DataError(f"labels={labels!r} is not a column of the matrix; {available(labels, names)}.")
    if index is None:
        for name in names:
            if not (name.strip().lower() in _LABELS or _holds_text(table, name)) or (wanted and name in wanted):
                break
            leading.append(name)
    if isinstance(labels, str):
        found: str | None = labels
    elif labels is not None or not leading:
        found = None
    else:
        found = next((name for name in leading if _holds_text(table, name)), leading[0])
    samples = [name for name in names if name not in leading and name != found]
    if wanted and set(wanted) <= set(samples):
        samples = [name for name in samples if name in set(wanted)]
    if not samples:
        raise DataError(f"There is no column of samples in {table.source}; all {len(names)} columns hold labels.")
    return found, samples


def _holds_text(table: Table, name: str) -> bool:
    """Whether a column holds text throughout: a column of numbers with a stray word does not."""
    column = table.column(name)
    if kind_of(column) not in ("text", "category"):
        return False
    some = column.dropna().astype(str)
    return not pd.to_numeric(some, errors="coerce").notna().any()


def _numeric(table: Table, names: Sequence[str]) -> np.ndarray:
    values = np.empty((table.n, len(names)))
    for j, name in enumerate(names):
        column = table.column(name)
        if kind_of(column) == "empty":
            values[:, j] = np.nan
            continue
        if kind_of(column) not in ("number", "integer", "decimal"):
            raise DataError(_not_numbers(table, column, name))
        values[:, j] = numbers(column, name, "sample")
    return values


def _not_numbers(table: Table, column: pd.Series, name: str) -> str:
    kind = kind_of(column)
    if kind not in ("text", "category", "other"):
        return f"The sample {name!r} holds {kind} values, not numbers; leave the column out, or name it as labels=."
    cells = column.astype(object)
    bad = pd.to_numeric(cells, errors="coerce").isna() & cells.notna()
    row = int(np.flatnonzero(bad.to_numpy())[0]) if bad.any() else 0
    held = f"{cells.iloc[row]!r} in row {row} (counting from 0)"
    if int(bad.sum()) < int(cells.notna().sum()):
        return (
            f"The sample {name!r} holds {held}, which is not a number ({int(bad.sum())} such cells in that column); "
            "correct it, or make it a missing value."
        )
    return (
        f"The column {name!r} holds text ({held}), and every column after the labels is taken for a sample; leave it "
        f"out, or if it names the rows, give labels={name!r}."
    )


def _check(values: np.ndarray, samples: tuple[str, ...] | None, genes: np.ndarray) -> None:
    def name(j: int) -> str:
        return f"sample {samples[j]!r}" if samples is not None else f"column {j} (counting from 0)"

    infinite = np.isinf(values)
    if infinite.any():
        i, j = np.argwhere(infinite)[0]
        raise DataError(
            f"The matrix is {values[i, j]:g} for gene {genes[i]!r}, {name(int(j))} ({int(infinite.sum())} infinite "
            "values in all); the logarithm of a count of 0 is often the cause: add an offset before taking it."
        )
    seen = ~np.isnan(values)
    empty = np.flatnonzero(~seen.any(axis=0))
    if len(empty):
        raise DataError(
            f"The {name(int(empty[0]))} has no value at all ({len(empty)} such columns); leave it out of the matrix "
            "and of the design."
        )
    check_magnitude(np.where(seen, values, 0.0), "The matrix")
