"""The command: families one after another, each in a process of its own, then the page."""

import os

THREADS = "1"
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = THREADS

import argparse  # noqa: E402 (after the threads are bounded)
import json  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import NamedTuple  # noqa: E402

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "src"))  # this tree's diffeo, in every environment

from benchmarks.speed.held import MEMORY  # noqa: E402
from benchmarks.speed.workloads import AXES, FAMILIES  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results.jsonl"
WITH_JAX = ROOT / ".venv-jax" / "bin" / "python"
PEERS = ("zuko", "nflows", "normflows")
GROWTH_PEERS = ("zuko", "nflows")
REFERENCE = "diffeo, PyTorch"  # without compiled kernels
JAXED, SPLINED = ("W1", "W2", "W3"), ("W1", "W3")
GROWTH = "growth"
ONE_THREAD = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}  # of JAX
HEAP = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**32)}  # glibc keeps what is freed
LONGEST = 400  # seconds of one process
QUICK = 0.5


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Run(NamedTuple):
    """A process to start: its Python, its family, the libraries, and what diffeo's rows are then called."""

    python: str
    family: str
    libraries: Sequence[str]
    environment: dict[str, str] = {}  # noqa: RUF012
    called: str = "diffeo"


def one(options: argparse.Namespace) -> None:
    """One family in this process: its rows to stdout."""
    import torch
    from benchmarks.speed.family import measure
    from benchmarks.speed.held import measure_memory
    from benchmarks.speed.machine import there

    warnings.simplefilter("ignore")  # other libraries' own
    torch.set_num_threads(int(THREADS))
    missing = [name for name in options.libraries if not there(name)]
    if missing:
        say(f"{options.one}: not installed, left out: {', '.join(missing)}")
    libraries = [name for name in options.libraries if name not in missing]
    if "flowjax" in libraries and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # JAX starts a thread for every core that it may use
    if options.one == MEMORY:
        for row in measure_memory():
            print(json.dumps(row), flush=True)
        return
    axis = AXES.get(options.one)
    works = ((None, FAMILIES[options.one]),) if axis is None else axis.works
    for at, work in works:
        torch.manual_seed(0)
        more = {} if axis is None else {"axis": axis.name, "at": at}
        for row in measure(work, libraries, options.seconds / len(works), options.device, **more):
            row["workload"] = row["workload"] if axis is None else GROWTH
            row["heap"] = "kept" if HEAP.items() <= os.environ.items() else "default"
            print(json.dumps(row), flush=True)


def several(options: argparse.Namespace) -> None:
    """Every family asked for in a process of its own; what was measured before of other families stays."""
    names = chosen(options.only)
    runs = planned(names, options)
    kept = [row for row in read(options.out) if family_of(row) not in names]
    found, began = [], time.monotonic()
    for run in runs:
        found += spawned(run, options)
        write(options.out, kept + found)
    say(f"{len(found)} rows in {options.out} after {time.monotonic() - began:.0f} s")


def chosen(only: Sequence[str]) -> list[str]:
    """What the words name (W1, W1-63, growth, bins, memory); everything, if there are none."""
    groups = {name: {name, name.split("-")[0]} for name in FAMILIES} | {name: {name, GROWTH} for name in AXES}
    groups[MEMORY] = {MEMORY}
    for word in only:
        if not any(word in group for group in groups.values()):
            sys.exit(f"--only: expected a workload such as W1, {GROWTH}, or one of {', '.join(groups)}; got {word}")
    return [name for name, group in groups.items() if not only or group & set(only)]


def family_of(row: dict) -> str:
    return row["workload"] if row["workload"] == MEMORY else row.get("axis") or f"{row['workload']}-{row['d']}"


def planned(names: Sequence[str], options: argparse.Namespace) -> list[Run]:
    """The processes: a family with all libraries on torch; with flowjax; with diffeo's kernels off."""
    runs, wanted = [], options.libraries or ["diffeo", *PEERS, "flowjax", REFERENCE]
    for name in names:
        if name == MEMORY:
            runs += [Run(sys.executable, name, ["diffeo"])] if options.device == "cpu" else []
            continue
        torches = ["diffeo", *(GROWTH_PEERS if name in AXES else PEERS)]
        runs.append(Run(sys.executable, name, [library for library in torches if library in wanted]))
        workload, compared = name.split("-")[0], name in FAMILIES and options.device == "cpu"
        if compared and workload in JAXED and "flowjax" in wanted and WITH_JAX.exists():
            runs.append(Run(str(WITH_JAX), name, ["flowjax"], ONE_THREAD))
        if compared and workload in SPLINED and REFERENCE in wanted:
            runs.append(Run(sys.executable, name, ["diffeo"], {"DIFFEO_KERNELS": "off"}, REFERENCE))
    return runs


def spawned(run: Run, options: argparse.Namespace) -> list[dict]:
    say(f"{run.family}: {', '.join(run.libraries)}{' without kernels' if run.called == REFERENCE else ''}")
    arguments = ["--one", run.family, "--seconds", str(options.seconds), "--device", options.device]
    command = [run.python, "-m", "benchmarks.speed", *arguments, "--libraries", *run.libraries]
    environment = os.environ | run.environment | (HEAP if options.heap == "kept" else {})
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=LONGEST, env=environment)
    except subprocess.TimeoutExpired:
        say(f"{run.family}: given up after {LONGEST} s")
        return []
    if done.returncode:
        say(f"{run.family}: failed, as said above")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    for row in rows:
        if row["library"] == "diffeo" and run.called != "diffeo":
            row["library"] = run.called
            row.pop("aim", None)
        say(f"  {told(row)}")
    return rows


def told(row: dict) -> str:
    """A row in a line."""
    milliseconds = f"{1e3 * row['cpu_s']:9.2f} ms"
    if row["workload"] == MEMORY:
        return f"{row['library']:<20}K={row['layers']:<3}{row['mib']:8.2f} MiB {milliseconds}"
    (low, high), at = row["spread"], f"at {row['at']:<5}" if "at" in row else ""
    return f"{row['task']:<9}{row['library']:<20}{at}{row['ratio_to_floor']:8.2f} ({low:.2f}-{high:.2f}) {milliseconds}"


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write(path: Path, rows: Sequence[dict]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="workloads (W1), families (W1-63), growth"
    )
    parser.add_argument("--libraries", nargs="+", metavar="NAME", help="these alone: diffeo, zuko, ...")
    parser.add_argument("--seconds", type=float, default=20.0, help="for the rounds of a family")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--heap", choices=("kept", "default"), default="kept", help="whether freed memory is kept")
    parser.add_argument("--out", type=Path, help="rows, one JSON object a line (benchmarks/results.jsonl)")
    parser.add_argument("--table", action="store_true", help="write the page from the rows that are there")
    parser.add_argument("--quick", action="store_true", help="W4, diffeo and the floor, a moment each; no page")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return one(options)
    options.out = options.out or (RESULTS if options.device == "cpu" else RESULTS.with_stem("results-cuda"))
    if options.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            sys.exit("--device cuda: there is none here, nothing was measured")
    if options.quick:
        options.only, options.libraries, options.seconds = ["W4"], ["diffeo"], QUICK
    if not options.table:
        several(options)
    if not options.quick and options.device == "cpu":
        from benchmarks.speed.page import write_page

        write_page(read(options.out))


if __name__ == "__main__":
    main()
