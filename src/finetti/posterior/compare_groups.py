"""Stub while it is being written."""

from typing import Any


class GroupComparison:
    """To come."""


def compare_groups(*args: Any) -> GroupComparison:
    """To come."""
    raise NotImplementedError
