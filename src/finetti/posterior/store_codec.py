"""Frozen dataclasses as named variables and JSON, and back: arrays become variables, all else becomes text.

    {"class": "HyperPosterior", "fields": {"theta": {"array": "hyper/theta"}, "pareto_k": 0.21, ...}}

Only dataclasses of the modules below, and priors, are ever made from a file, by name; nothing in it is executed.
Numbers that JSON does not know (nan, inf), tuples and mappings are tagged, so that what comes back is equal
to what went in, bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from math import isfinite
from types import ModuleType
from typing import Any

import numpy as np

from finetti.errors import FinettiError
from finetti.inference import (
    convergence,
    coordinates,
    empirical,
    hyper,
    hyperparameters,
    infer,
    modes,
    proposal,
    sampled,
    surrogate,
    warp,
)
from finetti.model.model import Frozen
from finetti.model.priors import Prior

__all__ = ["decode", "encode", "write_array"]

_MODULES: tuple[ModuleType, ...] = (
    convergence, coordinates, empirical, hyper, hyperparameters, infer, modes, proposal, sampled, surrogate, warp,
)  # fmt: skip
_PRIORS = "finetti.model."

# Dimensions by the name of the field, for readers of the file; `decode` does not need them.
_DIMENSIONS = {
    "theta": ("node", "hyperparameter"),
    "log_weights": ("node",),
    "replicate": ("node",),
    "residual": ("node",),
    "dense": ("dense_node",),
    "payload": ("node", "coefficient"),
    "mean": ("hyperparameter",),
    "sd": ("hyperparameter",),
    "mean_mcse": ("hyperparameter",),
    "sd_mcse": ("hyperparameter",),
    "quantile_mcse": ("probability", "hyperparameter"),
    "height": ("mode",),
    "covariance": ("mode", "hyperparameter", "hyperparameter_"),
    "means": ("component", "hyperparameter"),
    "scales": ("component", "hyperparameter", "hyperparameter_"),
    "weights": ("component",),
    "coefficient_tails": ("coefficient",),
    "centre": ("hyperparameter",),
    "scale": ("hyperparameter",),
    "left": ("hyperparameter",),
    "right": ("hyperparameter",),
}
_DENSE = ("dense_node", "hyperparameter")  # theta of a surrogate

# below this many bytes a compressed chunk costs more than it saves
_WORTH_COMPRESSING = 1024


def classes() -> dict[str, type]:
    """Dataclasses that may be stored, by name: those of the modules above, and finetti's own priors."""
    found = {
        name: value
        for module in _MODULES
        for name, value in vars(module).items()
        if isinstance(value, type) and is_dataclass(value) and value.__module__ == module.__name__
    }
    kinds: list[type] = [Prior]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if is_dataclass(kind) and kind.__module__.startswith(_PRIORS):
            found[kind.__name__] = kind
    return found


def write_array(group: Any, name: str, values: np.ndarray, dims: tuple[str, ...]) -> Any:
    """Write one variable, its dimensions made where they are new; a dimension of another size gets another name."""
    data = np.ascontiguousarray(values)
    if data.dtype == np.bool_:
        data = data.view(np.int8)  # NetCDF has no booleans
    elif data.dtype.kind == "f" and data.dtype.itemsize not in (4, 8):
        data = data.astype(np.float32 if data.dtype.itemsize == 2 else np.float64)
    elif data.dtype.kind not in "fiuS":
        raise FinettiError(f"an array of type {values.dtype} cannot be stored (variable {name!r})")
    used: list[str] = []
    for dim, size in zip(dims, values.shape, strict=True):
        while dim in used or (dim in group.dimensions and group.dimensions[dim].size != size):
            dim += "_"
        if dim not in group.dimensions:
            group.dimensions[dim] = size
        used.append(dim)
    options = {"compression": "gzip", "compression_opts": 3, "shuffle": True, "fletcher32": True}
    small = data.nbytes < _WORTH_COMPRESSING
    return group.create_variable(name, tuple(used), data=data, **({} if small else options))


def encode(value: Any, group: Any, known: Mapping[str, Any] | None = None, path: str = "") -> Any:
    """Write the arrays of `value` into a NetCDF group and return the rest as what JSON takes.

    Parameters
    ----------
    value : dataclass, mapping, sequence, array, number, text or None
    group : h5netcdf.Group
    known : mapping of name to object, optional
        Objects that the reader will have: stored by name.
    path : str
        Where in the group the value stands, such as "hyper/theta".

    Raises
    ------
    FinettiError
        For a value of any other type.
    """
    for name, one in (known or {}).items():
        if value is one and one is not None:
            return {"known": name}
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if isfinite(value) else {"float": str(float(value))}
    if isinstance(value, np.ndarray):
        return _encode_array(value, group, path)
    if isinstance(value, list | tuple):
        items = [encode(v, group, known, f"{path}_{i}") for i, v in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        pairs = [
            [encode(k, group, known), encode(v, group, known, f"{path}_{i}")] for i, (k, v) in enumerate(value.items())
        ]
        return {"frozen" if isinstance(value, Frozen) else "mapping": pairs}
    if not is_dataclass(value) or classes().get(type(value).__name__) is not type(value):
        raise FinettiError(
            f"a {type(value).__module__}.{type(value).__name__} cannot be stored: fits of finetti's own priors and "
            "methods can be saved, those with parts of your own cannot"
        )
    stored = {
        f.name: encode(getattr(value, f.name), group, known, f"{path}/{f.name}" if path else f.name)
        for f in fields(value)
        if f.init and not f.name.startswith("_")  # caches
    }
    return {"class": type(value).__name__, "fields": stored}


def _encode_array(values: np.ndarray, group: Any, path: str) -> Any:
    folder, _, name = path.rpartition("/")
    target = group
    for part in folder.split("/") if folder else ():
        target = target[part] if part in target.groups else target.create_group(part)
    field = name.split("_")[0] if name not in _DIMENSIONS else name
    dims = _DIMENSIONS.get(field if field in _DIMENSIONS else name, ())
    if name == "theta" and folder.endswith("surrogate"):
        dims = _DENSE
    if len(dims) != values.ndim:
        dims = tuple(f"{name}_{axis}" for axis in range(values.ndim))
    write_array(target, name, values, dims)
    return {"array": path, "dtype": "bool"} if values.dtype == np.bool_ else {"array": path}


def decode(stored: Any, group: Any, known: Mapping[str, Any] | None = None) -> Any:
    """Inverse of `encode`; raises KeyError, TypeError or ValueError where the file makes no sense."""
    if isinstance(stored, list):
        return [decode(v, group, known) for v in stored]
    if not isinstance(stored, dict):
        return stored
    if "class" in stored:
        cls = classes()[stored["class"]]
        given = {name: decode(v, group, known) for name, v in stored["fields"].items()}
        return cls(**given)
    (kind, content), *_ = stored.items()
    if kind == "known":
        return (known or {})[content]
    if kind == "float":
        return {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}[content]
    if kind == "tuple":
        return tuple(decode(v, group, known) for v in content)
    if kind in ("mapping", "frozen"):
        pairs = dict(_pairs(content, group, known))
        return Frozen(pairs) if kind == "frozen" else pairs
    if kind != "array":
        raise ValueError(f"unknown kind of entry {kind!r}")
    values = np.array(group[content][...], order="C")  # fresh, aligned and of the machine's own byte order
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return values.view(np.bool_) if stored.get("dtype") == "bool" else values


def _pairs(content: Any, group: Any, known: Mapping[str, Any] | None) -> Iterator[tuple[Any, Any]]:
    for key, value in content:
        yield decode(key, group, known), decode(value, group, known)
