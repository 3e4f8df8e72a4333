"""How good: diffeo with no option against what people use, nats a row on rows that no method saw.

    python benchmarks/quality.py splits [NAME ...]    fixed splits, against the peers of peers.py
    python benchmarks/quality.py tables [NAME ...]    raw tables, against products of marginals and mixtures

Every fit runs in a process of its own with one thread and a budget of --seconds (150) from reading to saving. It leaves
the log-densities of the test rows in benchmarks/scores/; `--keep` takes what is there instead of fitting again, and
`--only METHOD` fits that one again and takes the others. Needs the folder that DIFFEO_DATA names.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402 (after the threads are bounded)

HERE = Path(__file__).parent
DATA = Path(os.environ.get("DIFFEO_DATA", "../shared/data"))
SCORES = HERE / "scores"
OURS, TABLE = "diffeo", "diffeo on the raw table"
# The best mean test log-densities found elsewhere with 150 CPU seconds for each flow; to be beaten too.
FOUND = {
    "hipparcos_hr3": -3.017,
    "galaxy7": 1.422,
    "kershaw6": -3.479,
    "diamonds7": 4.475,
    "nyc_weather4": -3.597,
    "sp500_3": -3.449,
}


# One fit, in its own process ----------------------------------------------------------------------------------------


def one(method: str, name: str, seconds: float, seed: int) -> None:
    """Fit, score, and leave the scores."""
    import torch

    torch.set_num_threads(1)
    time.monotonic = time.process_time  # what diffeo counts a budget by: CPU seconds, whatever else the machine does
    began = time.perf_counter(), time.process_time()
    found = (fit_table if method == TABLE else fit_split)(method, name, seconds, seed)
    taken = {"wall_s": time.perf_counter() - began[0], "cpu_s": time.process_time() - began[1]}
    SCORES.mkdir(exist_ok=True)
    np.savez(path_of(method, name, seed), **found, **taken)


def path_of(method: str, name: str, seed: int) -> Path:
    return SCORES / f"{name}-{method.replace(' ', '_')}-{seed}.npz"


def fit_split(method: str, name: str, seconds: float, seed: int) -> dict[str, Any]:
    """Log-densities of the test rows [n], and a word on the fit."""
    arrays = np.load(DATA / "splits" / f"{name}.npz")
    train, valid, test = (arrays[key].astype(float) for key in ("train", "valid", "test"))
    if method != OURS:
        from peers import PEERS

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found, note = PEERS[method](train, valid, test, seconds, seed)
        return {"log_prob": found, "note": note}
    import diffeo

    with tempfile.TemporaryDirectory() as folder:
        options = {"kinds": {"*": "continuous"}, "budget": seconds, "seed": seed, "out": Path(folder) / "model"}
        model = diffeo.fit(train, valid=valid, **options)
    card = model.card
    note = f"start {card.start}; {card.epochs:.3g} epochs, validation {card.valid_log_prob:.4f}"
    return {"log_prob": model.log_prob(test), "note": note}


def fit_table(method: str, name: str, seconds: float, seed: int) -> dict[str, Any]:
    """A raw table, no option: a tenth of the rows is kept from the fit, and scored by the model and by what is simpler.
    Rows with a level that only the kept ones have are refused, as they should be, and left out."""
    import pyarrow.parquet as pq

    import diffeo
    from diffeo.baselines import Marginals, Mixture, PerCategory
    from diffeo.data.split import held_out

    whole = pq.read_table(DATA / "tables" / f"{name}.parquet")
    kept = held_out(whole.num_rows, 0.1, seed=12345)
    model = diffeo.fit(whole.filter(~kept), budget=seconds, seed=seed)
    test, schema = whole.filter(kept), model.schema
    for column in schema.columns:
        if column.coded and column.type == "string":
            test = test.filter(np.isin(np.array(test[column.name].to_pylist(), object), [*column.levels, None]))
    x_train, x_test = schema.encode(whole.filter(~kept)), schema.encode(test)
    found: dict[str, Any] = {"log_prob": model.log_prob(test), "rows": whole.num_rows}
    for kind in (Marginals, Mixture, PerCategory):
        simple = kind.fit(x_train, schema) if kind is Marginals else kind.fit(x_train, schema, seconds=1e4)
        if simple is not None:
            found |= {kind.__name__: simple.log_prob(x_test), f"{kind.__name__} name": getattr(simple, "name", "")}
    return found | {"note": f"start {model.card.start}; {model.card.epochs:.3g} epochs"}


# The comparison -----------------------------------------------------------------------------------------------------


def fitted(method: str, name: str, options: argparse.Namespace) -> None:
    """Fit in a process of its own, unless what is there is to be kept."""
    again = not options.keep if options.only is None else method == options.only
    if again or not path_of(method, name, options.seed).exists():
        arguments = ["one", method, name, "--seconds", str(options.seconds), "--seed", str(options.seed)]
        subprocess.run([sys.executable, __file__, *arguments], check=True)
    print(_line(method, name, options.seed), file=sys.stderr, flush=True)


def splits(names: list[str], options: argparse.Namespace) -> None:
    from peers import PEERS

    rows = []
    for name in names:
        for method in [*PEERS, OURS]:
            fitted(method, name, options)
        rows.append(compared(name, list(PEERS), options.seed))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    _print_splits(rows)


def tables(names: list[str], options: argparse.Namespace) -> None:
    print("| table | rows | diffeo | marginals | ahead | mixture | ahead | mixture per category | ahead | CPU s |")
    print("|" + "---|" * 10)
    for name in names:
        fitted(TABLE, name, options)
        found = np.load(path_of(TABLE, name, options.seed))
        line = f"| {name} | {int(found['rows']):,} | {found['log_prob'][np.isfinite(found['log_prob'])].mean():.2f} "
        for kind in ("Marginals", "Mixture", "PerCategory"):
            if kind not in found:
                line += "| not defined | "
                continue
            both = np.isfinite(found["log_prob"]) & np.isfinite(found[kind])
            ahead = paired(found["log_prob"][both], found[kind][both])
            line += f"| {found[kind][both].mean():.2f} | {ahead['mean']:.2f} +- {ahead['error']:.2f} "
        impossible = int(np.isneginf(found["log_prob"]).sum())
        print(
            f"{line}| {float(found['cpu_s']):.0f} |" + (f" ({impossible} impossible)" if impossible else ""), flush=True
        )


def _line(method: str, name: str, seed: int) -> str:
    found = np.load(path_of(method, name, seed))
    mean, cpu = found["log_prob"].mean(), float(found["cpu_s"])
    return f"{name}: {method} {mean:.4f} ({cpu:.0f} CPU s; {found['note']})"


def compared(name: str, peers: list[str], seed: int) -> dict[str, Any]:
    """Means of every method, and the paired differences from each peer."""
    scores = {method: np.load(path_of(method, name, seed))["log_prob"] for method in [*peers, OURS]}
    means = {method: float(score.mean()) for method, score in scores.items()}
    best = max(peers, key=lambda method: means[method])
    row: dict[str, Any] = {"split": name, "seed": seed, "means": means, "best": best, "found": FOUND.get(name)}
    row["ahead"] = {method: paired(scores[OURS], scores[method]) for method in peers}
    to_beat = max(means[best], FOUND.get(name, -np.inf))
    return row | {"to_beat": to_beat, "above": means[OURS] - to_beat, "error": row["ahead"][best]["error"]}


def paired(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """The difference a - b row by row: mean, its standard error, median."""
    difference = a - b
    error = float(difference.std(ddof=1) / np.sqrt(len(difference)))
    return {"mean": float(difference.mean()), "error": error, "median": float(np.median(difference))}


def _print_splits(rows: list[dict[str, Any]]) -> None:
    methods = list(rows[0]["means"])
    print(f"\n| split | {' | '.join(methods)} | best of the others | ahead of it | median | above all known |")
    print("|" + "---|" * (len(methods) + 5))
    for row in rows:
        ahead = row["ahead"][row["best"]]
        means = " | ".join(f"{row['means'][method]:.3f}" for method in methods)
        print(
            f"| {row['split']} | {means} | {row['best']} | {ahead['mean']:.3f} +- {ahead['error']:.3f} "
            f"| {ahead['median']:.3f} | {row['above']:.3f} |"
        )
    above = sum(row["above"] > row["error"] for row in rows)
    below = sum(row["above"] < -row["error"] for row in rows)
    print(f"\nabove the best by more than a standard error: {above} of {len(rows)}; below: {below}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("splits", "tables", "one"))
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--only")
    options = parser.parse_args()
    if not DATA.is_dir():
        sys.exit("set DIFFEO_DATA to the folder that holds the splits and tables")
    if options.what == "one":
        return one(*options.names, options.seconds, options.seed)
    suffix = {"splits": "npz", "tables": "parquet"}[options.what]
    names = options.names or sorted(path.stem for path in (DATA / options.what).glob(f"*.{suffix}"))
    {"splits": splits, "tables": tables}[options.what](names, options)


if __name__ == "__main__":
    main()
