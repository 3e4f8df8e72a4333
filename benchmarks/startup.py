"""How soon it begins: imports, `diffeo --version`, and the first step of training on a table of 50,000 rows.

    python benchmarks/startup.py [--rounds 9]

Every figure is of fresh processes, one after the other in turn: medians and quartiles of their CPU seconds, and the
median of wall time. "The imports alone" are those of torch and of all that `diffeo fit` imports before it reads.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

ROWS, COLUMNS = 50_000, 7
FIRST_STEP = """
import os
from diffeo.cli import main
resolve = type(main).resolve_command
def resolved(self, ctx, args):
    found = resolve(self, ctx, args)
    from diffeo import training
    step = training._Run.step
    def first(self, progress):
        step(self, progress)
        os._exit(0)
    training._Run.step = first
    return found
type(main).resolve_command = resolved
main()
"""
Command = list[str]


def table(path: Path) -> None:
    """Numbers that depend on one another, as text or as parquet."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, COLUMNS)) @ rng.normal(size=(COLUMNS, COLUMNS))
    x[:, 0] += np.square(x[:, 1])
    made = pa.table({f"x{j}": x[:, j] for j in range(COLUMNS)})
    (pyarrow.csv.write_csv if path.suffix == ".csv" else pyarrow.parquet.write_table)(made, path)


def commands(folder: Path) -> dict[str, Command]:
    """Name -> what is run."""
    found = {
        "import torch": ["-c", "import torch"],
        "import diffeo": ["-c", "import diffeo"],
        "import torch; import diffeo": ["-c", "import torch, diffeo"],
        "from diffeo.flow import Flow": ["-c", "from diffeo.flow import Flow"],
        "from diffeo import Model, fit": ["-c", "from diffeo import Model, fit"],
        "diffeo --version": ["-m", "diffeo", "--version"],
        "the imports alone": ["-c", "from diffeo.cli import load; load('fit'); import diffeo.model"],
    }
    for suffix in ("csv", "parquet"):
        table(folder / f"table.{suffix}")
        for recipe in ("spline-coupling", "auto"):
            words = ["fit", str(folder / f"table.{suffix}"), "--recipe", recipe, "-o", str(folder / "model"), "-q"]
            found[f"to the first step, {recipe}, {suffix}"] = ["-c", FIRST_STEP, *words, "--overwrite"]
    return found


def taken(command: Command) -> tuple[float, float]:
    """CPU and wall seconds of a process."""
    before, began = os.times(), time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return cpu, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        every = commands(Path(folder))
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in every}
        for number in range(options.rounds + 1):
            for name, command in every.items():
                seconds = taken(command)
                if number:  # the first fills the caches of files
                    found[name].append(seconds)
    torch, imports = (
        statistics.median(cpu for cpu, _ in found[name]) for name in ("import torch", "the imports alone")
    )
    print("| what | CPU s | quartiles | wall s | to import torch | to the imports alone |")
    print("|" + "---|" * 6)
    for name, rows in found.items():
        cpu, wall = [one for one, _ in rows], statistics.median(other for _, other in rows)
        middle = statistics.median(cpu)
        low, _, high = statistics.quantiles(cpu, n=4)
        ratios = f"{middle / torch:.2f} | {middle / imports:.2f}"
        print(f"| {name} | {middle:.2f} | {low:.2f} to {high:.2f} | {wall:.2f} | {ratios} |")


if __name__ == "__main__":
    main()
