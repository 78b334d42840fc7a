"""`Model.bind`: the one place where the model looks upward to the data, by name and never by an import statement."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["bind"]


def bind(model: Any, data: Any, missing: str = "error") -> Any:
    """Return the `finetti.data.bound.Bound` of `model` and `data`; see `Model.bind`."""
    return import_module("finetti.data.bound").bind(model, data, missing=missing)
