"""Plants faults one at a time in a copy of the tree and asks the contract tests to catch each: `make test-faults`.

Exit 1 if one survives, if the text that a fault replaces is no longer there exactly once, or if the tests fail
without a fault. `faults.py NAME ...` plants only those whose names contain one of the words.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import click

ROOT = Path(__file__).parents[1]
AT_A_TIME = 2
LONGEST = 900  # seconds, of one run
TESTS = [
    "tests/test_formulas.py", "tests/test_nets.py", "tests/test_quantized.py", "tests/test_masses.py",
    "tests/test_bases.py", "tests/test_mixtures.py", "tests/test_flow.py", "tests/test_units.py", "tests/scalars",
    "tests/transforms", "tests/test_statistics.py", "tests/test_mixed.py",
]  # fmt: skip


class Fault(NamedTuple):
    """In ``file``, ``old`` becomes ``new``; ``first``: the tests to begin with, for they are likely to see it."""

    name: str
    file: str
    old: str
    new: str
    first: str


SCALARS, TRANSFORMS = "tests/scalars/test_contract.py", "tests/transforms/test_contract.py"
ORDER = "tests/transforms/test_order.py"
RESIDUAL, CONTINUOUS = "tests/transforms/test_residual.py", "tests/transforms/test_continuous.py"
FAULTS = [
    Fault("affine: sign of the log-slope", "scalars.py",
          "return y.to(x.dtype), log_scale.expand_as(y)", "return y.to(x.dtype), (-log_scale).expand_as(y)", SCALARS),
    Fault("spline: a factor of 2 missing in the slope", "scalars.py",
          "ratio * ratio * (d1 * tt + 2 * s * tu + d0 * uu)", "ratio * ratio * (d1 * tt + s * tu + d0 * uu)", SCALARS),
    Fault("spline: bins off by one", "scalars.py",
          "index = (at >= table[by, 1:-1].detach()).sum(0, keepdim=True)",
          "index = (at >= table[by, 1:-1].detach()).sum(0, keepdim=True).sub(1).clamp(min=0)", SCALARS),
    Fault("spline: root clamped short of the bin's end", "scalars.py",
          "step.clamp(0, 1) - step", "step.clamp(0, 0.99) - step", SCALARS),
    Fault("spline: slope 1 at one end only", "scalars.py",
          "F.pad(slopes, (0, 0) * at.ndim + (1, 1))", "F.pad(slopes, (0, 0) * at.ndim + (1, 1), value=0.1)", SCALARS),
    Fault("circular spline: rotation not undone", "scalars.py",
          "_unspline(_wrap(wide - rotation(raw))", "_unspline(_wrap(wide + rotation(raw))", SCALARS),
    Fault("LU: sign of the log-diagonal in the inverse", "transforms/linear.py",
          "return x.to(z.dtype), -log_det", "return x.to(z.dtype), log_det", TRANSFORMS),
    Fault("LU: matrix not transposed", "transforms/linear.py",
          "(lower @ upper)[self.order].T", "(lower @ upper)[self.order]", TRANSFORMS),
    Fault("ActNorm: sign of the log-scale", "transforms/linear.py",
          "(-log_scale).exp()).to(x.dtype), -total", "(-log_scale).exp()).to(x.dtype), total", TRANSFORMS),
    Fault("ActNorm: initialised along the wrong axis", "transforms/linear.py",
          "batch.double().transpose(0, 1).flatten(1)", "batch.double().flatten(1)[: self.shift.shape[0]]",
          "tests/test_formulas.py"),
    Fault("coupling: swapped mask", "transforms/coupling.py",
          "kept.T, context)", "moving.T[:, : kept.shape[0]], context)", ORDER),
    Fault("coupling: log_det of every other coordinate lost", "transforms/coupling.py",
          "log_slope.sum(0)", "log_slope[::2].sum(0)", TRANSFORMS),
    Fault("coupling: order not restored", "transforms/coupling.py",
          "torch.tensor(joined).argsort()", "torch.tensor(joined)", TRANSFORMS),
    Fault("autoregressive: inverse in the wrong order", "transforms/autoregressive.py",
          "key=self.order.__getitem__)", "key=self.order.__getitem__, reverse=True)", TRANSFORMS),
    Fault("MADE: a coordinate sees itself", "nets.py",
          "(after[:, None] >= degrees[-1])", "(after[:, None] + 1 >= degrees[-1])", TRANSFORMS),
    Fault("lipschitz: the bound a root too small", "transforms/lipschitz.py",
          "square.diagonal().sum().log() / root).exp()", "square.diagonal().sum().log() / (2 * root)).exp()", RESIDUAL),
    Fault("lipschitz: last layer not bounded", "transforms/lipschitz.py",
          "weight = weight * (share / spectral_bound(weight).clamp(min=share))",
          "weight = weight if self.sharpness is None else weight * (share / spectral_bound(weight).clamp(min=share))",
          RESIDUAL),
    Fault("lipschitz: slope of the wave not the wave's", "transforms/lipschitz.py",
          "/ sharpness, torch.cos(sharpness * a)", "/ sharpness, torch.cos(a)", RESIDUAL),
    Fault("lipschitz: slope of the clipped inputs missing", "transforms/lipschitz.py",
          "1 - torch.tanh(x - x.clamp(-5, 5)).square()", "torch.ones_like(x)", RESIDUAL),
    Fault("lipschitz: inverse without its last steps", "transforms/lipschitz.py",
          "for _ in range(2):\n        x = x -", "for _ in range(1):\n        x = x -",
          "tests/transforms/test_programs.py"),
    Fault("lipschitz: Newton's step whether it is ahead or not", "transforms/lipschitz.py",
          "torch.where(ahead[:, None], newton, x - miss)", "newton", RESIDUAL),
    Fault("residual: sign of the inverse's log_det", "transforms/residual.py",
          "-self._log_det(x, shift(x)[1])", "self._log_det(x, shift(x)[1])", TRANSFORMS),
    Fault("volume: terms of one sign", "transforms/volume.py",
          "total - (-1) ** k * weight", "total + weight", RESIDUAL),
    Fault("volume: roulette not weighed", "transforms/volume.py",
          "weight = coefficient ** -max(0, k - sure) / k", "weight = 1 / k", RESIDUAL),
    Fault("volume: sum over probes for their mean", "transforms/volume.py",
          "return (push(probes) * probes).sum(2).mean(1)", "return (push(probes) * probes).sum(2).sum(1)", CONTINUOUS),
    Fault("continuous: a stage looked at in the wrong place", "transforms/fields.py",
          "k3, push3 = at(t + h / 2, x + h / 2 * k2)", "k3, push3 = at(t + h / 2, x + h / 2 * k1)", TRANSFORMS),
    Fault("continuous: a stage at the wrong time", "transforms/fields.py",
          "k4, push4 = at(t + h, x + h * k3)", "k4, push4 = at(t + h / 2, x + h * k3)", CONTINUOUS),
    Fault("continuous: fewer steps than the field needs", "transforms/fields.py",
          "while _stretch(lipschitz / steps) > MOST_STRETCH:", "while _stretch(lipschitz / steps) > 3:", CONTINUOUS),
    Fault("continuous: data and noise exchanged", "transforms/continuous.py",
          "between = (1 - t[:, None]) * noise + t[:, None] * data",
          "between = t[:, None] * noise + (1 - t[:, None]) * data", CONTINUOUS),
    Fault("continuous: solved from the wrong end", "transforms/continuous.py",
          "self._solve(at, flat, probes, (1.0, 0.0))", "self._solve(at, flat, probes, (0.0, 1.0))", CONTINUOUS),
    Fault("continuous: error norm over all rows", "transforms/continuous.py",
          "error.square().mean(1).sqrt().max()", "error.square().mean().sqrt()", CONTINUOUS),
    Fault("permutation: inverse not inverted", "transforms/fixed.py",
          "return self._move(z, self.back)", "return self._move(z, self.order)", TRANSFORMS),
    Fault("log: no Jacobian", "transforms/fixed.py",
          "torch.where(inside, -z, -math.inf)", "torch.where(inside, 0.0 * z, -math.inf)", TRANSFORMS),
    Fault("logit: width of the bounds missing", "transforms/fixed.py",
          "(self.high - self.low).log() - below - above", "-below - above", TRANSFORMS),
    Fault("standardize: spread missing from the log_det", "transforms/fixed.py",
          "self.scale.abs().log().expand(x.shape[1:]).sum()", "self.scale.abs().log().sum()", TRANSFORMS),
    Fault("chain: only the last log_det", "transforms/base.py",
          "x, log_det = transform(x, context)\n            total = total + log_det",
          "x, log_det = transform(x, context)\n            total = log_det", TRANSFORMS),
    Fault("chain: inverse in the order of forward", "transforms/base.py",
          "in reversed(self.transforms):\n            z, log_det", "in self.transforms:\n            z, log_det",
          TRANSFORMS),
    Fault("mixture: weights not normalised", "bases.py",
          "return torch.log_softmax(logits, 0)", "return logits", "tests/test_bases.py"),
    Fault("Student-t: a term missing", "bases.py",
          "- 0.5 * (df * math.pi).log()", "", "tests/test_bases.py"),
    Fault("uniform: volume of one coordinate only", "bases.py",
          "-z.shape[1] * math.log(self.high - self.low)", "-math.log(self.high - self.low)", "tests/test_bases.py"),
    Fault("flow: log_det subtracted", "flow.py",
          "log_prob = self.base.log_prob(z, context) + log_det", "log_prob = self.base.log_prob(z, context) - log_det",
          "tests/test_flow.py"),
    Fault("flow: the batch's mean mixed in", "flow.py",
          "z, log_det = self.transform(torch.where(_along(finite, x), x, 0.0), context)",
          "z, log_det = self.transform(torch.where(_along(finite, x), x, 0.0), context)\n"
          "        log_det = log_det + 1e-4 * (log_det.mean() - log_det).detach()", "tests/test_flow.py"),
    Fault("refined mixture: log-weights not normalised", "mixtures.py",
          " - torch.logsumexp(log_weights, 0)", "", "tests/test_mixtures.py"),
    Fault("masses: codes shifted by one", "masses.py",
          "gather(0, codes.clamp(0, size - 1)[None])", "gather(0, (codes + 1).clamp(0, size - 1)[None])",
          "tests/test_masses.py"),
    Fault("masses: logits not normalised", "masses.py",
          "torch.log_softmax(logits, 0).gather", "logits.gather", "tests/test_masses.py"),
    Fault("quantized: mean of logs for log of mean", "quantized.py",
          "(values - safe).exp().mean(0).log()", "(values - safe).mean(0)", "tests/test_quantized.py"),
    Fault("mixed: cost of the atoms' free places dropped", "mixed.py",
          "torch.where(rows.atom, cost, volume)", "torch.where(rows.atom, 0.0, volume)", "tests/test_mixed.py"),
    Fault("mixed: width of the rounding cells missing", "mixed.py",
          "return z, log_det + volume.sum(1)", "return z, log_det", "tests/test_mixed.py"),
    Fault("rows: cells half as wide as they are", "rows.py",
          "width[:, j] = high - low[:, j]", "width[:, j] = 0.5 * (high - low[:, j])", "tests/test_mixed.py"),
    Fault("nets: context not looked at", "nets.py",
          "soft_clip(context.to(dtype))", "0 * soft_clip(context.to(dtype))", TRANSFORMS),
]  # fmt: skip


def copy(tree: Path, folder: Path) -> None:
    """What the tests need of a tree."""
    for part in ("src", "tests"):
        shutil.copytree(tree / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(tree / "pyproject.toml", folder)


def plant(fault: Fault | None, folder: Path) -> None:
    """The fault, in a copy of the tree."""
    if fault is not None:
        file = folder / "src" / "diffeo" / fault.file
        file.write_text(file.read_text().replace(fault.old, fault.new))


def run(fault: Fault | None, tree: Path) -> tuple[str, str, float]:
    """(caught, passed or broken; by which test, or what was said; seconds)."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy(tree, folder)
        plant(fault, folder)
        outcome, said = attempt(folder, [fault.first]) if fault else ("passed", "")
        if outcome == "passed":
            outcome, said = attempt(folder, TESTS)
    return outcome, said, time.monotonic() - start


def attempt(folder: Path, tests: list[str]) -> tuple[str, str]:
    """(caught, passed or broken; by which test, or what was said) of some tests of the copy in the folder."""
    env = os.environ | {"PYTHONPATH": f"{folder / 'src'}", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    options = ["-x", "-q", "--color=no", "-p", "no:cacheprovider", "--tb=line"]
    code = "import diffeo, pytest, sys; assert diffeo.__file__.startswith(sys.argv.pop(1)); sys.exit(pytest.main())"
    command = [sys.executable, "-c", code, str(folder), *options, *tests]
    try:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return "broken", f"no end within {LONGEST} s"
    failed = re.search(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    if done.returncode == 1 and failed:
        return "caught", failed[1]
    return ("passed", "") if done.returncode == 0 else ("broken", (done.stdout + done.stderr)[-600:])


def rotten(fault: Fault) -> bool:
    return (ROOT / "src" / "diffeo" / fault.file).read_text().count(fault.old) != 1


def main(words: list[str]) -> int:
    faults = [fault for fault in FAULTS if not words or any(word in fault.name for word in words)]
    gone = [fault for fault in faults if rotten(fault)]
    for fault in gone:
        click.echo(f"GONE      {fault.name}: {fault.old!r} is not once in {fault.file}; plant it elsewhere", err=True)
    if gone or not faults:
        return 1
    start, good, runs = time.monotonic(), 0, [*faults, None]
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(AT_A_TIME) as pool:
        copy(ROOT, Path(name))  # as it is now, whatever is edited meanwhile
        found = pool.map(lambda fault: run(fault, Path(name)), runs)
        for fault, (outcome, by, seconds) in zip(runs, found, strict=True):
            fine = outcome == ("passed" if fault is None else "caught")
            good += fine
            word = "SURVIVED" if fault is not None and outcome == "passed" else outcome
            click.echo(f"{word:<9} {seconds:5.0f} s  {fault.name if fault else 'no fault':<52} {by}")
    click.echo(f"{good} of {len(runs)} runs as they should be, {time.monotonic() - start:.0f} s")
    return 0 if good == len(runs) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
