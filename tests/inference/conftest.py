"""Fixtures of the inner step's tests."""

from __future__ import annotations

import pytest

import finetti.linalg.system as system_module


@pytest.fixture(params=["in-kernel", "lapack"])
def root(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of factoring the root: small ones in the kernel, large ones by LAPACK."""
    if request.param == "lapack":
        monkeypatch.setattr(system_module, "SMALL_ROOT", 0)
    return request.param
