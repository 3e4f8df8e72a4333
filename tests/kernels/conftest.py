"""What the tests of all kernels share."""

import pytest

from diffeo.kernels import library
from tests.kernels.inputs import TARGETS


@pytest.fixture(params=TARGETS, ids=lambda target: library.TARGETS[target])
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Every set of instructions that this processor has."""
    assert library.LIBRARY is not None
    monkeypatch.setattr(library, "LIBRARY", library.LIBRARY._replace(target=request.param))
    return request.param
