"""Stub while it is being written."""

from typing import Any


def save(fit: Any, path: Any) -> Any:
    """To come."""
    raise NotImplementedError


def load(path: Any) -> Any:
    """To come."""
    raise NotImplementedError
