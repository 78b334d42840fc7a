"""A fit in one file: `save` writes NetCDF 4 through h5netcdf, `load` gives back a fit that says the same.

    /             what it is: format, versions, formula; the model and the fit's settings as JSON
    /data         the columns that the formula uses, one variable each over `row`
    /inference    what was computed: nodes of the hyperparameters, weights, moments, as named variables

The file holds what was observed and what was computed, not what follows from the two: on loading, the formula goes
through the same parser and checks as any other, the model is bound to the stored columns again, and the conditional
distributions given the hyperparameters are built from them. Nothing in a file is ever executed.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetti.data.bound import Bound, bind
from finetti.errors import FinettiError
from finetti.inference.infer import Inference
from finetti.inference.restore import conditional_again
from finetti.model.model import Model
from finetti.posterior.store_codec import decode, encode, write_array
from finetti.posterior.store_columns import POSITION, read_columns, write_columns, write_text
from finetti.posterior.views import restore

if TYPE_CHECKING:
    from finetti.posterior.fit import Fit

__all__ = ["FORMAT", "load", "save"]

# raised whenever a file written now could not be read by the finetti of before
FORMAT = 1
STUDIES = ("meta",)


def save(fit: Fit, path: str | os.PathLike[str]) -> Path:
    """Write a fit to one NetCDF file; see `finetti.posterior.fit.Fit.save`."""
    target = _path(path)
    if os.path.isdir(target):
        raise FinettiError(f"{str(target)!r} is a directory; give the name of a file in it, such as 'fit.nc'")
    with _replacing(target) as temporary:
        import h5netcdf

        with h5netcdf.File(temporary, "w") as file:
            _write(file, fit)
    return target


def load(path: str | os.PathLike[str]) -> Fit:
    """Read back a fit that `Fit.save` wrote.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    Fit
        With the same tables, draws and predictions as the fit that was saved. A `Meta` comes back as a `Meta`.

    Raises
    ------
    FinettiError
        If there is no such file, if it is not one of ours, is damaged, or was written by a newer finetti.

    Notes
    -----
    A file from someone else can be loaded without fear: it is data, its formula is checked as `finetti.fit` checks
    every formula, and nothing in it is executed.

    Examples
    --------
    >>> import os, tempfile
    >>> import finetti as fi
    >>> fit = fi.fit(
    ...     "y ~ 1 + (1 | batch)", fi.datasets.load("dyestuff").rename(columns={"Yield": "y", "Batch": "batch"})
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = fi.load(fit.save(os.path.join(folder, "fit.nc")))
    >>> bool(again.summary().equals(fit.summary()))
    True
    """
    import h5py  # h5netcdf, when it fails half-way on a damaged file, complains again as it is collected

    source = _path(path)
    if not os.path.exists(source):
        raise FinettiError(f"there is no file {str(source)!r} (looked for {str(source.absolute())!r})")
    if os.path.isdir(source):
        raise FinettiError(f"{str(source)!r} is a directory; give the file that fit.save(...) wrote")
    with _reading(source), h5py.File(source, "r") as file:
        if "finetti_format" not in file.attrs:
            raise FinettiError(
                f"{str(source)!r} is a NetCDF file, but not one that finetti wrote; open it with xarray, or give the "
                "file that fit.save(...) wrote"
            )
        written = int(np.asarray(file.attrs["finetti_format"]).item())
        if written > FORMAT:
            raise FinettiError(
                f"{str(source)!r} was written by finetti {file.attrs['finetti_version']} in format {written}, newer "
                f"than format {FORMAT} that this one reads; upgrade finetti (pip install -U finetti)"
            )
        return _read(file)


# --- content -------------------------------------------------------------------------------------


def _write(file: Any, fit: Fit) -> None:
    from finetti import __version__

    bound, inference = fit.model, fit.inference
    model, design = bound.model, bound.design
    if not design.used:
        raise FinettiError("the fit does not remember its data, so it cannot be saved; fit again from a table")
    file.attrs["title"] = f"finetti fit of {model.formula}"
    file.attrs["finetti_format"] = FORMAT
    file.attrs["finetti_version"] = __version__
    file.attrs["formula"] = str(model.formula)
    data, computed = file.create_group("data"), file.create_group("inference")
    coded = {f.name: (f.index, f.levels) for f in design.factors}
    write_columns(data, design.used, coded)
    if not np.array_equal(design.rows, np.arange(design.y.size)):
        position = write_array(data, POSITION, design.rows, ("row",))
        position.attrs["long_name"] = "position in the original table, counting from 0"
    about = {
        "family": model.family,
        "priors": encode(model.priors, file),
        "pooling": encode(model.pooling, file),
        "resolved_priors": encode(dict(bound.priors), file),
        "sources": encode(dict(bound.sources), file),
        "n_dropped": design.n_dropped,
        "n_draws": fit.n_draws,
        "seed": fit.seed,
    }
    covariance = getattr(bound, "error_covariance", None)
    if covariance is not None:
        about["error_covariance"] = encode(tuple(covariance), data, path="error_covariance")
    study = type(fit).__module__.rpartition(".")[2]
    if study in STUDIES:
        about["study"], about["extra"] = study, encode(fit.extra(), file)  # type: ignore[attr-defined]
    file.attrs["fit"] = _json(about)
    stored = {
        f.name: encode(getattr(inference, f.name), computed, path=f.name)
        for f in fields(Inference)
        if f.name not in ("bound", "conditional")
    }
    computed.attrs["content"] = _json(stored)
    _name_axes(computed, inference)


def _name_axes(computed: Any, inference: Inference) -> None:
    """Say which hyperparameter and which coefficient stand along the axes, for other readers of the file."""
    if "hyper" in computed.groups:
        group = computed["hyper"]
        for dim, names in (
            ("hyperparameter", inference.hyper.names),
            ("coefficient", inference.bound.design.columns),
        ):
            if dim in group.dimensions and group.dimensions[dim].size == len(names) and names:
                write_text(group, dim, names, dim)


def _read(file: Any) -> Fit:
    from finetti.posterior.fit import Fit

    about = json.loads(file.attrs["fit"])
    model = Model(
        str(file.attrs["formula"]),
        family=about["family"],
        priors=decode(about["priors"], file),
        pooling=decode(about["pooling"], file),
    )
    data = file["data"]
    covariance = {}
    if "error_covariance" in about:
        covariance["error_covariance"] = decode(about["error_covariance"], data)
    bound = bind(model, read_columns(data), **covariance)
    rows = bound.design.rows
    if POSITION in data:
        rows = np.array(data[POSITION][...], dtype=np.int64)
    design = replace(bound.design, n_dropped=int(about["n_dropped"]), rows=rows, table=None)
    priors, sources = decode(about["resolved_priors"], file), decode(about["sources"], file)
    if list(priors) != list(bound.priors):
        raise ValueError("priors of other parameters than the model's")
    bound = replace(bound, design=design, priors=priors, sources=sources)
    fit = Fit(_inference(file["inference"], bound), int(about["n_draws"]), int(about["seed"]))
    if "study" in about:
        if about["study"] not in STUDIES:
            raise ValueError(f"unknown study {about['study']!r}")
        return restore(about["study"], fit, decode(about["extra"], file))
    return fit


def _inference(group: Any, bound: Bound) -> Inference:
    parts = {name: decode(stored, group) for name, stored in json.loads(group.attrs["content"]).items()}
    conditional = conditional_again(bound, parts["coordinates"], parts["hyper"], parts.get("sampled"))
    return Inference(bound=bound, conditional=conditional, **parts)


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))


# --- files ---------------------------------------------------------------------------------------


def _path(path: Any) -> Path:
    if not isinstance(path, str | os.PathLike) or not str(path).strip() or "\0" in str(path):
        raise FinettiError(f"path={path!r} is not the name of a file; give such as 'fit.nc'")
    return Path(path)


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Yield the name of a temporary file beside the target, which takes its place once it is complete."""
    place = Path(os.path.realpath(target))  # a link stays a link
    temporary = place.with_name(f".{place.name[:200]}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb"):
            pass  # fails here, in plain words, rather than inside HDF5
        yield temporary
        os.replace(temporary, place)
    except OSError as error:
        raise FinettiError(
            f"{str(target)!r} cannot be written: {_reason(error)}; give a path in a directory that exists and that you "
            "may write to"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _reading(source: Path) -> Iterator[None]:
    """Turn whatever a damaged or foreign file provokes into one sentence."""
    try:
        yield
    except FinettiError as error:
        if str(source) in str(error):
            raise
        raise FinettiError(f"{str(source)!r} cannot be read as a fit: {error}") from error
    except Exception as error:
        raise FinettiError(
            f"{str(source)!r} cannot be read as a fit: it is not a NetCDF 4 file that finetti wrote, or it is damaged "
            f"or incomplete ({_reason(error)}); save the fit again with fit.save(...)"
        ) from error


def _reason(error: Exception) -> str:
    told = getattr(error, "strerror", None) or " ".join(str(error).split())
    return f"{told[:120]}" if told else type(error).__name__
