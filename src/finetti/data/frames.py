"""Read a table of any make: pandas, polars, pyarrow, a dict of arrays, a CSV or Parquet file.

A CSV cell has no type, so a rule is needed, and it is applied to whole columns and only to those that a model
uses: a column is numeric if every cell is a number, logical if every cell is true or false, otherwise text.
Cells that pandas reads as missing ("", NA, NaN, null, ...) are missing. A column in which a number starts with a
superfluous zero ("007") is a column of codes and stays text; so does one of integers too long for 64 bits.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from finetti.errors import DataError, available

__all__ = ["Table", "read"]

_SUFFIXES = ".csv, .csv.gz, .tsv, .tsv.gz, .parquet"
_MISSING_CELLS = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
]  # fmt: skip
_CODE = r"^[+-]?0[0-9xX]"  # "007" or "0x1F": an identifier, not a quantity
_INTEGER = r"^[+-]?[0-9]+$"


@dataclass(frozen=True, eq=False)
class Table:
    """A table whose columns are converted one by one, when asked for.

    Attributes
    ----------
    n : number of rows
    names : column names, all different
    source : what the table is, for messages
    """

    n: int
    names: tuple[str, ...]
    source: str
    frame: nw.DataFrame[Any]
    untyped: bool = False

    def column(self, name: str) -> pd.Series:
        """Return one column as a pandas Series with a fresh row index, its values unchanged.

        >>> read({"x": [1, 2]}).column("x").tolist()
        [1, 2]
        """
        if name not in self.names:
            hint = available(name, self.names)
            if len(self.names) == 1 and any(mark in self.names[0] for mark in ";\t|"):
                hint += " (the file seems to be separated by something else than commas)"
            raise DataError(f"There is no column {name!r} in {self.source}; {hint}.")
        native = self.frame.get_column(name)
        if self.frame.implementation.is_pandas():
            series: pd.Series = native.to_native()
            if not isinstance(series.dtype, pd.ArrowDtype):
                return series.reset_index(drop=True)
            return _from_arrow(pa.chunked_array(pa.array(series.array)))
        if self.frame.implementation.is_polars() and native.dtype == nw.Categorical:
            native = native.cast(nw.String)  # the order of a polars Categorical is an accident of the session
        arrow = native.to_arrow()
        chunked = arrow if isinstance(arrow, pa.ChunkedArray) else pa.chunked_array([arrow])
        return _from_arrow(_typed(chunked) if self.untyped else chunked)


def read(data: Any) -> Table:
    """Return the table behind `data`.

    Parameters
    ----------
    data : pandas, polars or pyarrow table (any eager frame that narwhals reads), a dict of equally long columns,
        a numpy structured array, or the path of a CSV, TSV (also gzipped) or Parquet file

    Raises
    ------
    DataError
        For anything else, an empty table, or column names that are duplicated or not text.

    Examples
    --------
    >>> read({"y": [1.0, 2.0], "g": ["a", "b"]}).names
    ('y', 'g')
    """
    if isinstance(data, (str, Path)):
        return _read_file(Path(data))
    source = "the data"
    if isinstance(data, Mapping):
        lengths = {str(name): np.shape(value)[:1] for name, value in data.items()}
        if len(set(lengths.values())) > 1 or () in lengths.values():
            shown = ", ".join(f"{k!r} {v[0] if v else 'a single value'}" for k, v in list(lengths.items())[:8])
            raise DataError(f"The columns of a dict must be equally long, but their lengths are {shown}.")
        data = pd.DataFrame(dict(data))
    elif isinstance(data, np.ndarray) and data.dtype.names and data.ndim == 1:
        data = pd.DataFrame({name: data[name] for name in data.dtype.names})
    names = _native_names(data)
    if names is not None:
        _check_names(names, source)
    try:
        frame = nw.from_native(data)
    except TypeError:
        raise DataError(
            f"Data of type {type(data).__name__} cannot be read; give a pandas, polars or pyarrow table, a dict of "
            f"columns, or the path of a file ({_SUFFIXES})."
        ) from None
    if isinstance(frame, nw.LazyFrame):
        raise DataError("The data are a lazy frame, whose rows do not exist yet; call .collect() on it first.")
    return _table(frame, source)


def _native_names(data: Any) -> list[Any] | None:
    """Names before narwhals sees them: it reports a pandas frame with duplicate names in its own words."""
    if isinstance(data, pd.DataFrame):
        return list(data.columns)
    return list(data.column_names) if isinstance(data, pa.Table) else None


def _table(frame: nw.DataFrame[Any], source: str, untyped: bool = False) -> Table:
    names = list(frame.columns)
    _check_names(names, source)
    if not names or len(frame) == 0:
        raise DataError(f"There are no {'rows' if names else 'columns'} in {source}; a model needs observations.")
    return Table(len(frame), tuple(names), source, frame, untyped)


def _check_names(names: list[Any], source: str) -> None:
    odd = [name for name in names if not isinstance(name, str)]
    if odd:
        raise DataError(
            f"Column names must be text, but {source} has {odd[0]!r} ({type(odd[0]).__name__}); rename the columns, "
            "for example data.columns = [str(c) for c in data.columns]."
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            f"Column names must differ, but {source} has more than one {', '.join(map(repr, twice[:5]))}; "
            "rename or drop the duplicates."
        )


def _read_file(path: Path) -> Table:
    source = f"the file {str(path)!r}"
    if not path.exists():
        raise DataError(f"There is no file {str(path)!r} (looked for {str(path.absolute())!r}).")
    if path.is_dir():
        raise DataError(f"{str(path)!r} is a directory; give the path of one file ({_SUFFIXES}).")
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if kind not in ("csv", "tsv", "parquet", "pq"):
        raise DataError(f"The kind of {source} is unknown by its name; expected one of {_SUFFIXES}.")
    if path.stat().st_size == 0:
        raise DataError(f"{source[0].upper()}{source[1:]} is empty.")
    try:
        if kind in ("parquet", "pq"):
            import pyarrow.parquet as pq

            return _table(nw.from_native(pq.read_table(path), eager_only=True), source)
        return _table(
            nw.from_native(_read_text(path, source, "\t" if kind == "tsv" else ","), eager_only=True), source, True
        )
    except (pa.ArrowInvalid, OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        told = str(error).splitlines()[0]
        advice = " Save it as UTF-8." if "utf" in told.lower() else ""
        raise DataError(f"{source[0].upper()}{source[1:]} cannot be read: {told}.{advice}") from error


def _read_text(path: Path, source: str, separator: str) -> pa.Table:
    """Every cell as text: types are decided per column, later."""
    import pyarrow.csv as pacsv

    packed = path.name.lower().endswith(".gz")
    content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    content = content.removeprefix(b"\xef\xbb\xbf")
    line = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline="")
    header = next(csv.reader(line, delimiter=separator), [])
    named = [name for name in header if name.strip()]  # spreadsheets leave empty names behind; nobody can ask for them
    if not named:
        raise DataError(f"The first line of {source} must hold the column names, but it is empty.")
    _check_names(named, source)
    return pacsv.read_csv(
        pa.BufferReader(content),
        parse_options=pacsv.ParseOptions(delimiter=separator, newlines_in_values=True),
        convert_options=pacsv.ConvertOptions(
            column_types={name: pa.string() for name in header},
            include_columns=named,
            null_values=_MISSING_CELLS,
            strings_can_be_null=True,
        ),
    )


def _typed(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of text as integers, floats or booleans, where every cell allows it."""
    cells = pc.utf8_trim_whitespace(text.drop_null())
    if len(cells) == 0 or pc.any(pc.match_substring_regex(cells, _CODE)).as_py():
        return text
    whole = pc.utf8_trim_whitespace(text)
    if pc.all(pc.match_substring_regex(cells, _INTEGER)).as_py():
        try:
            return pc.replace_substring_regex(whole, r"^\+", "").cast(pa.int64())
        except pa.ArrowInvalid:
            return text
    if pc.all(pc.is_in(pc.utf8_lower(cells), value_set=pa.array(["true", "false"]))).as_py():
        return pc.equal(pc.utf8_lower(whole), "true")
    try:
        return pc.replace_substring_regex(whole, r"^\+", "").cast(pa.float64())
    except pa.ArrowInvalid:
        return text


def _from_arrow(column: pa.ChunkedArray) -> pd.Series:
    """Arrow to pandas without loss: integers beside nulls stay integers."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.unify_dictionaries()
    elif column.null_count and (pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        nullable = {
            pa.bool_(): pd.BooleanDtype(), pa.int8(): pd.Int8Dtype(), pa.int16(): pd.Int16Dtype(),
            pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype(), pa.uint8(): pd.UInt8Dtype(),
            pa.uint16(): pd.UInt16Dtype(), pa.uint32(): pd.UInt32Dtype(), pa.uint64(): pd.UInt64Dtype(),
        }  # fmt: skip
        return column.to_pandas(types_mapper=nullable.get)
    elif pa.types.is_string_view(kind):
        column = column.cast(pa.large_string())
    return column.to_pandas()
