"""Classic grouped data that ship with finetti: facts from published papers, each source cited.

The files are plain CSV beside this module; ``README.md`` there describes every column.

Examples
--------
>>> from finetti import datasets
>>> datasets.names()
('bcg', 'dyestuff', 'dyestuff2', 'eight_schools', 'eight_schools_unrounded', 'leukaemia', 'pastes', 'penicillin',
     'radon', 'sleepstudy')
>>> datasets.load("sleepstudy").head(2)
   Reaction  Days Subject
0  249.5600     0     308
1  258.7047     1     308
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from finetti.datasets.catalogue import CATALOGUE, Dataset
from finetti.errors import DataError, available

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["describe", "load", "names"]


def names() -> tuple[str, ...]:
    """Return the names that `load` accepts, in alphabetical order.

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> "radon" in names()
    True
    """
    return tuple(sorted(CATALOGUE))


def load(name: str) -> pd.DataFrame:
    """Return a fresh copy of one data set.

    Parameters
    ----------
    name : str
        One of `names`.

    Returns
    -------
    pandas.DataFrame
        Measurements as numbers, in the units that `describe` states; ids (a subject, a batch, a
        county) as categories of text, sorted, so that subject 308 is never taken for a quantity.

    Raises
    ------
    DataError
        If there is no such data set.

    Examples
    --------
    >>> load("eight_schools").head(2)
      school  effect  se
    0      A      28  15
    1      B       8  10
    """
    import pandas as pd

    dataset = _find(name)
    with files("finetti.datasets").joinpath(f"{name}.csv").open("r", encoding="utf-8") as file:
        # The ids are read as text: no cell is missing, and a county called "NA" would be a county.
        frame = pd.read_csv(file, dtype=dict.fromkeys(dataset.ids, str), keep_default_na=False)
    for column in dataset.ids:
        frame[column] = pd.Categorical(frame[column], categories=sorted(frame[column].unique()))
    return frame


def describe(name: str) -> str:
    """Return what a data set is: one line of title, its columns with units, a model to try, the source.

    Parameters
    ----------
    name : str
        One of `names`.

    Returns
    -------
    str

    Raises
    ------
    DataError
        If there is no such data set.

    Examples
    --------
    >>> print(describe("dyestuff"))
    dyestuff: Yield of dyestuff from six batches of an intermediate product (30 rows)
      Yield    yield, grams of standard colour
      Batch    batch of the intermediate product (6)
    Try: Yield ~ 1 + (1 | Batch)
    Source: Davies, O. L. & Goldsmith, P. L. (eds.) (1972). Statistical Methods in Research and
            Production, 4th ed. Oliver and Boyd, Edinburgh, section 6.4.
    """
    return str(_find(name))


def _find(name: str) -> Dataset:
    if not isinstance(name, str) or name not in CATALOGUE:
        raise DataError(f"there is no data set named {name!r}: {available(str(name), names())}")
    return CATALOGUE[name]
