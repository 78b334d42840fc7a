"""The code that makes a fit again, as text that runs: data where they are few, call, seed, versions."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from finetti.show.arguments import as_python
from finetti.show.reading import is_meta

__all__ = ["call", "folded", "preamble", "version", "versions"]

PACKAGES = ("finetti", "numpy", "scipy", "numba", "pandas", "formulaic")
MOST_NUMBERS = 400  # of the data: more are no longer read, and belong into a file
_PLAIN = re.compile(r"[^\W\d]\w*\Z")
_WIDTH = 96


def call(fit: Any, data: str = "data") -> str:
    """Return the call of `finetti.fit` that makes this fit from `data`.

    Only what differs from the defaults is written, and the seed always: it is what makes the numbers come again.
    """
    bound = fit.model
    model = getattr(bound, "model", None)
    given: dict[str, Any] = {}
    priors = getattr(model, "priors", None)
    if isinstance(priors, Mapping) and priors:
        given["priors"] = dict(priors)
    pooling = getattr(model, "pooling", "partial")
    if pooling != "partial" and pooling:
        given["pooling"] = dict(pooling) if isinstance(pooling, Mapping) else pooling
    if fit.diagnostics.method == "nuts":
        given["method"] = "nuts"
    if getattr(bound.design, "n_dropped", 0):
        given["missing"] = "drop"
    n_draws = getattr(fit, "n_draws", 4000)
    if n_draws != 4000:
        given["draws"] = n_draws
    given["seed"] = fit.seed
    if is_meta(fit):
        return folded("fit = fi.meta(", ["'effect'", "'se'", data, *_meta_arguments(fit), *_written(given)])
    return folded("fit = fi.fit(", [repr(str(fit.formula)), data, *_written(given)])


def _written(given: Mapping[str, Any]) -> list[str]:
    return [f"{name}={as_python(value)}" for name, value in given.items()]


def _meta_arguments(fit: Any) -> list[str]:
    """What `finetti.meta` is told beside effects and their errors, with the names of the table in `preamble`."""
    population = str(fit.model.model.formula.population)
    given = ["labels='study'"]
    given += ["cluster='cluster'"] if "cluster" in fit.group_names else []
    given += [f"moderators={population!r}"] if population != "1" else []
    return given + (["V=V"] if getattr(fit.model, "error_covariance", None) else [])


def _covariance(fit: Any) -> list[str]:
    """The lines that make V: spelt out where it is small, else read from a file."""
    blocks = getattr(fit.model, "error_covariance", None)
    if not blocks:
        return []
    n = fit.n_rows
    if n * n > MOST_NUMBERS:
        return ['V = pd.read_csv("V.csv", header=None).to_numpy()  # the known covariance of the errors, row by row']
    V = np.diag(np.square(fit.model.design.se))
    for rows, block in blocks:
        V[np.ix_(rows, rows)] = block
    return ["V = [", *(f"    {[_short(v) for v in row]!r}," for row in V), "]"]


def folded(head: str, arguments: Sequence[str]) -> str:
    """A call on one line if it fits, else an argument to a line."""
    line = f"{head}{', '.join(arguments)})"
    if len(line) <= _WIDTH:
        return line
    return "\n".join([head, *(f"    {argument}," for argument in arguments), ")"])


def preamble(fit: Any) -> list[str]:
    """Return the lines before the call: the data, spelt out where they are few and plain.

    Otherwise a line that reads them from a file, and says which columns it must have.
    """
    columns, covariance = _data(fit), _covariance(fit)
    if columns is not None:
        rows = [f"    {name!r}: {values!r}," for name, values in columns.items()]
        return ["data = pd.DataFrame({", *rows, "})", *covariance]
    names = sorted(getattr(fit.model.model.formula, "columns", ()))
    wanted = f"; needs the columns {', '.join(names)}" if names else ""
    n = fit.n_rows + getattr(fit.model.design, "n_dropped", 0)
    return [f'data = "data.csv"  # your table, {n:,} rows{wanted}', *covariance]


def _data(fit: Any) -> dict[str, list[Any]] | None:
    """The columns of the data, read back from the design; None where they are many or were transformed."""
    formula, design = fit.model.model.formula, fit.model.design
    response = formula.response
    found: dict[str, list[Any]] = {}
    plain: list[tuple[str | None, Any]] = [(response.expression, design.y), (response.se, getattr(design, "se", None))]
    plain += [(response.weights, getattr(design, "weights", None))]
    plain += [(c, design.X[:, k]) for k, c in enumerate(design.columns) if c != "Intercept"]
    for name, values in plain:
        if name is not None:
            found[str(name)] = [_short(v) for v in np.asarray(values, float)]
    for factor in design.factors:
        levels = _as_read(factor.levels)
        found[str(factor.name)] = [levels[j] for j in factor.index]
    known: frozenset[str] = getattr(formula, "columns", frozenset())
    if getattr(design, "n_dropped", 0) or set(found) != set(known) or not all(map(_PLAIN.match, found)):
        return None
    return found if len(found) * fit.n_rows <= MOST_NUMBERS else None


def _as_read(levels: Sequence[str]) -> list[Any]:
    """Levels as the table had them: numbers where they stand in the order of numbers, else text."""
    if not all(re.fullmatch(r"0|-?[1-9]\d{0,14}", level) for level in levels):
        return list(levels)
    numbers = [int(level) for level in levels]
    return numbers if numbers == sorted(numbers) else list(levels)


def _short(value: float) -> float | int:
    return int(value) if value == int(value) and abs(value) < 1e15 else float(value)


def version(package: str) -> str:
    """Return the installed version of a package, or "" where there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        if package == "finetti":  # run from a source tree
            from finetti import __version__

            return __version__
        return ""


def versions(method: str = "") -> str:
    """Return the versions that the numbers come from, the sampler's too where one was used."""
    packages = [*PACKAGES, *(["nutpie"] if method == "nuts" else [])]
    named = ", ".join(f"{name} {version(name)}" for name in packages if version(name))
    return f"{named}; Python {platform.python_version()} on {platform.platform(terse=True)}"
