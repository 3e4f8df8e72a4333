"""What the tests of the data layer share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of shared data sets; tests that need it are skipped where it is absent."""
    folder = os.environ.get("DIFFEO_DATA", "")
    if not folder or not Path(folder, "tables").is_dir():
        pytest.skip("set DIFFEO_DATA to the folder of shared data (with tables/) to run this test")
    return Path(folder)
