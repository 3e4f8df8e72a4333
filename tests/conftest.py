"""What every test begins with."""

import pytest
import torch


@pytest.fixture(autouse=True)
def distributions_check_their_arguments() -> None:
    """Torch's compiler turns these checks off for the whole process when it is first used."""
    torch.distributions.Distribution.set_default_validate_args(True)
