"""How soon: diffeo with no option but a budget, at budgets from 5 to 150 CPU seconds, against what zuko's neural spline
flow (peers.py) reaches in 150.

    python benchmarks/time_to_quality.py run [NAME ...]     fits on fixed splits, each in a process of its own
    python benchmarks/time_to_quality.py show [NAME ...]    the table and the picture of docs/quality.md

Every point is a run of its own, since the learning rate falls to the end of each budget: it is what a person who asks
for so many seconds gets. What is there already is not run again, but with `--again`. Needs the folder that
DIFFEO_DATA names.
"""

import argparse
import json
import subprocess
import sys
import time
from typing import Any

from quality import DATA, HERE, OURS, SCORES, fit_split  # bounds the threads

PEER, BUDGETS = "zuko NSF", (5.0, 10.0, 20.0, 30.0, 60.0, 150.0)
ROWS = HERE / "time_to_quality.jsonl"
PICTURE = HERE.parent / "docs" / "pictures" / "time-to-quality.png"
Row = dict[str, Any]


def one(method: str, name: str, seconds: float, seed: int) -> None:
    """Fit, score, and add a line to the rows."""
    import torch

    torch.set_num_threads(1)
    time.monotonic = time.process_time  # what diffeo counts a budget by: CPU seconds, whatever else the machine does
    began = time.process_time()
    found = fit_split(method, name, seconds, seed)
    row: Row = {"split": name, "method": method, "budget": seconds, "seed": seed}
    row |= {"test": round(float(found["log_prob"].mean()), 4), "cpu_s": round(time.process_time() - began, 2)}
    with ROWS.open("a") as file:
        file.write(json.dumps(row | {"note": found["note"]}) + "\n")
    print(json.dumps(row | {"note": found["note"]}), flush=True)


def known() -> list[Row]:
    """All rows so far; of runs that were repeated, the last."""
    import numpy as np

    lines = ROWS.read_text().splitlines() if ROWS.exists() else []
    rows = [json.loads(line) for line in lines]
    for path in sorted(SCORES.glob(f"*-{PEER.replace(' ', '_')}-*.npz")):  # those of quality.py have 150 seconds
        name, _, seed = path.stem.rsplit("-", 2)
        found = np.load(path)
        row = {"split": name, "method": PEER, "budget": BUDGETS[-1], "seed": int(seed), "cpu_s": float(found["cpu_s"])}
        rows.insert(0, row | {"test": float(found["log_prob"].mean())})
    return list({(row["split"], row["method"], row["budget"], row["seed"]): row for row in rows}.values())


def run(names: list[str], options: argparse.Namespace) -> None:
    there = {(row["split"], row["method"], row["budget"], row["seed"]) for row in known()}
    for budget in options.budgets:
        for name in names:
            if (name, options.method, budget, options.seed) in there and not options.again:
                continue
            arguments = ["one", name, "--method", options.method, "--budgets", str(budget), "--seed", str(options.seed)]
            subprocess.run([sys.executable, __file__, *arguments], check=True)


def reached(curve: list[Row], aim: float) -> float | None:
    """The CPU seconds of the first run that is as good as the aim."""
    return next((row["cpu_s"] for row in curve if row["test"] >= aim), None)


def show(names: list[str], options: argparse.Namespace) -> None:
    """The table, on stdout, and the picture."""
    from matplotlib.figure import Figure

    rows = [row for row in known() if row["seed"] == options.seed]
    budgets = sorted({row["budget"] for row in rows if row["method"] == OURS})
    print(f"| split | {PEER}, 150 s | {' | '.join(f'{budget:g} s' for budget in budgets)} | reached after |")
    print("|" + "---|" * (len(budgets) + 3))
    figure = Figure(figsize=(10, 5.5), layout="constrained")
    axes = figure.subplots(2, -(-len(names) // 2))
    for name, axis in zip(names, axes.flat, strict=False):
        curves = {
            method: sorted(
                (row for row in rows if row["split"] == name and row["method"] == method), key=lambda row: row["budget"]
            )
            for method in (OURS, PEER)
        }
        aim = next(row["test"] for row in curves[PEER] if row["budget"] == 150)
        test = {row["budget"]: row["test"] for row in curves[OURS]}
        when = reached(curves[OURS], aim)
        cells = " | ".join(f"{test[budget]:.3f}" if budget in test else "" for budget in budgets)
        print(f"| {name} | {aim:.3f} | {cells} | {'never' if when is None else f'{when:.0f} CPU s'} |")
        for (method, curve), colour in zip(curves.items(), ("tab:blue", "tab:orange"), strict=True):
            places = [row["cpu_s"] for row in curve], [row["test"] for row in curve]
            axis.plot(*places, ".-", color=colour, label=method)
        axis.axhline(aim, color="tab:orange", linestyle="--", linewidth=0.8, label=f"{PEER}, 150 s")
        axis.set(title=name, xscale="log", xlabel="CPU seconds", ylabel="nats a test row")
        low = min([aim, *list(test.values())[1:]])
        high = max([aim, *test.values()])
        axis.set_ylim(low - 0.25 * (high - low + 0.02), high + 0.1 * (high - low + 0.02))
    axes.flat[0].legend(fontsize=8)
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "show", "one"))
    parser.add_argument("names", nargs="*")
    parser.add_argument("--method", default=OURS, choices=(OURS, PEER))
    parser.add_argument("--budgets", type=float, nargs="+", default=BUDGETS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    if not DATA.is_dir():
        sys.exit("set DIFFEO_DATA to the folder that holds the splits")
    if options.what == "one":
        return one(options.method, options.names[0], options.budgets[0], options.seed)
    names = options.names or sorted(path.stem for path in (DATA / "splits").glob("*.npz"))
    {"run": run, "show": show}[options.what](names, options)


if __name__ == "__main__":
    main()
