"""A transform saved here and loaded in another process is the same there, bit for bit; and nothing else changes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.transforms.cases import CASES

ROOT = Path(__file__).parents[2]
THERE = """
import sys, numpy, torch
before = torch.get_default_dtype(), torch.get_num_threads(), torch.random.get_rng_state(), numpy.geterr()
checks = torch.distributions.Distribution._validate_args
state = numpy.random.get_state()[1].copy()
import diffeo, diffeo.flow, diffeo.mixed, diffeo.recipes, diffeo.contract, diffeo.training, diffeo.report.page
assert before[:2] == (torch.get_default_dtype(), torch.get_num_threads()) and before[3] == numpy.geterr()
assert torch.equal(before[2], torch.random.get_rng_state()) and (state == numpy.random.get_state()[1]).all()
assert checks == torch.distributions.Distribution._validate_args
from safetensors.torch import load_file, save_file
from tests.transforms.cases import CASES
folder = sys.argv[1]
outcomes = {}
for i, case in enumerate(CASES):
    torch.manual_seed(100 + i)
    transform = case.build().double().eval()
    transform.load_state_dict(load_file(f"{folder}/{i}.safetensors"))
    rng = torch.random.get_rng_state()
    z, log_det = transform(case.rows(), case.contexts())
    x, log_back = transform.inverse(z, case.contexts())
    assert torch.equal(rng, torch.random.get_rng_state())
    outcomes |= {f"{i} {k}": v.detach().contiguous().clone() for k, v in enumerate((z, log_det, x, log_back))}
save_file(outcomes, f"{folder}/outcomes.safetensors")
"""


def test_saved_and_loaded_elsewhere(tmp_path: Path) -> None:
    """One process for all; it also asserts that importing diffeo changes no global and draws no random number."""
    expected = {}
    for i, case in enumerate(CASES):
        transform = case.transform().double().eval()
        rng = torch.random.get_rng_state()
        save_file({k: v.contiguous() for k, v in transform.state_dict().items()}, tmp_path / f"{i}.safetensors")
        assert torch.equal(rng, torch.random.get_rng_state())
        z, log_det = transform(case.rows(), case.contexts())
        x, log_back = transform.inverse(z, case.contexts())
        expected |= {f"{i} {k}": v.detach() for k, v in enumerate((z, log_det, x, log_back))}
    env = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path[1:], str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", THERE, str(tmp_path)], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "outcomes.safetensors")
    wrong = {CASES[int(name.split()[0])].name for name in expected if not torch.equal(found[name], expected[name])}
    assert wrong == set()


def test_the_test_would_notice(tmp_path: Path) -> None:
    """Without its weights an awake transform is not the same."""
    case = next(case for case in CASES if case.name == "chain")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        asleep = case.build().double()
    assert not torch.equal(asleep(case.rows())[0], case.transform().double()(case.rows())[0])
    with pytest.raises(RuntimeError, match="Missing key"):
        asleep.load_state_dict({})
