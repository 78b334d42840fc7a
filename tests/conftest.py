"""What every test may count on: a plotting backend without a screen, repeatable hypothesis, the shared data."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")  # before anything imports matplotlib

# Seeded, so that a failure is one for everybody; no deadline, since a first example may compile a kernel.
settings.register_profile("finetti", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("finetti")

SHARED_DATA = "FINETTI_SHARED_DATA"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of test data that is too large or too encumbered to ship.

    It lies beside the checkout; ``FINETTI_SHARED_DATA`` names another place.
    """
    given = os.environ.get(SHARED_DATA)
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if folder.is_dir():
        return folder
    if given:
        pytest.fail(f"{SHARED_DATA}={given!r} is not a folder: unset it, or name the folder of shared data")
    pytest.skip(f"shared test data are absent: no folder {folder}; {SHARED_DATA} may name another")
