"""How far from the truth: KL(truth || model) on toys whose density is known, in nats, for 1,500 rows.

    python benchmarks/toys.py run [SET ...] [--method METHOD ...] [--seeds 0 1 2 3 4] [--seconds 60] [--keep]
    python benchmarks/toys.py run GaussiansGrid "GaussiansRot 5" Spiral --method diffeo --seeds 0 --rows 300000
    python benchmarks/toys.py table [SET ...] [--against METHOD] [--rows 300000]

`run` fits every method to every set and seed and scores 20,000 fresh points, the same for all; it leaves the
log-densities in benchmarks/scores/ and a line of figures in benchmarks/scores/toys.jsonl. `table` prints what the docs
show, from those scores alone: means over seeds with standard errors, and paired differences on the same points.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402 (after the threads are bounded)
import torch  # noqa: E402

from diffeo.baselines import KernelDensity, NormalMixture, cross_validated, validated  # noqa: E402
from diffeo.data.toys import Toy, toy  # noqa: E402

SCORES = Path(__file__).parent / "scores"
ROWS, FRESH, FRESH_SEED = 1_500, 20_000, 2_000_000_000
SEEDS = (0, 1, 2, 3, 4)
SETS: dict[str, Callable[[], Toy]] = {
    "Moons": lambda: toy("moons"),
    "Circles": lambda: toy("circles"),
    "GaussiansGrid": lambda: toy("grid"),
    "GaussiansRot 5": lambda: toy("rotated"),
    "Spiral": lambda: toy("spiral"),
}
USUAL = ("Moons", "Circles", "GaussiansGrid", "GaussiansRot 5")
OURS = "diffeo"
Found = tuple[np.ndarray, str]  # log-densities of the test rows, and a word on the fit


# Methods: rows [n, d], test rows [m, d], a seed, seconds -> log-densities [m] and a note ------------------------------


def best_kernels(rows: np.ndarray, test: np.ndarray, seed: int, seconds: float) -> Found:
    """No estimator, for it looks at the test rows: what kernels could reach at best."""
    return _kernels(rows, test, validated(rows, test, factors=np.geomspace(0.1, 1.2, 16).tolist()))


def kernels(rows: np.ndarray, test: np.ndarray, seed: int, seconds: float) -> Found:
    return _kernels(rows, test, cross_validated(rows))


def _kernels(rows: np.ndarray, test: np.ndarray, bandwidth: torch.Tensor) -> Found:
    return KernelDensity(rows, bandwidth).log_prob(torch.as_tensor(test)).numpy(), f"h {float(bandwidth[0, 0]):.3f}"


def mixture(rows: np.ndarray, test: np.ndarray, seed: int, seconds: float) -> Found:
    return _mixture(NormalMixture.fit(rows, seed=seed), test)


def validated_mixture(rows: np.ndarray, test: np.ndarray, seed: int, seconds: float) -> Found:
    """A tenth of the rows, drawn at random, chooses; EM sees the others."""
    order = np.random.default_rng(seed).permutation(len(rows))
    valid, train = np.split(rows[order], [len(rows) // 10])
    return _mixture(NormalMixture.fit(train, valid, seed=seed), test)


def _mixture(fit: NormalMixture, test: np.ndarray) -> Found:
    return fit.log_prob(torch.as_tensor(test)).numpy(), f"{fit.components} {fit.shape}"


def diffeo_default(rows: np.ndarray, test: np.ndarray, seed: int, seconds: float) -> Found:
    """No option but the budget, of CPU seconds, whatever else the machine does."""
    import diffeo

    clock, time.monotonic = time.monotonic, time.process_time
    try:
        model = diffeo.fit(rows, budget=seconds, seed=seed, threads=1)
    finally:
        time.monotonic = clock
    return np.asarray(model.log_prob(test)), f"start {model.card.start}; {model.card.epochs:.3g} epochs"


METHODS: dict[str, Callable[[np.ndarray, np.ndarray, int, float], Found]] = {
    "best kernels": best_kernels,
    "kernels": kernels,
    "mixture, BIC": mixture,
    "mixture, validated": validated_mixture,
    OURS: diffeo_default,
}
CLASSICS = ("kernels", "mixture, BIC", "mixture, validated")


# Running --------------------------------------------------------------------------------------------------------------


def path_of(set_name: str, method: str, seed: int, rows: int) -> Path:
    many = "" if rows == ROWS else f"-{rows}"
    return SCORES / f"toy-{set_name}-{method}-{seed}{many}.npz".replace(" ", "_").replace(",", "")


def one(set_name: str, method: str, seed: int, seconds: float, rows: int) -> None:
    """Fit, score, and leave the scores."""
    made = SETS[set_name]()
    test = made.sample(FRESH, FRESH_SEED)
    began = time.process_time()
    found, note = METHODS[method](made.sample(rows, seed), test, seed, seconds)
    taken = time.process_time() - began
    SCORES.mkdir(exist_ok=True)
    np.savez(path_of(set_name, method, seed, rows), log_prob=found, note=note, cpu_s=taken)
    apart = made.log_prob(test) - found
    kl, error = float(apart.mean()), standard_error(apart)
    line = {"set": set_name, "method": method, "seed": seed, "rows": rows, "kl": kl, "error": error, "cpu_s": taken}
    with (SCORES / "toys.jsonl").open("a") as file:
        file.write(json.dumps(line | {"note": note}) + "\n")
    print(f"{set_name}, seed {seed}: {method} {kl:.4f} +- {error:.4f} ({taken:.1f} CPU s; {note})", flush=True)


def run(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    for set_name in options.names or USUAL:
        for method in options.method or METHODS:
            for seed in options.seeds:
                if not (options.keep and path_of(set_name, method, seed, options.rows).exists()):
                    one(set_name, method, seed, options.seconds, options.rows)


# The tables -----------------------------------------------------------------------------------------------------------


def standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def scores(set_name: str, methods: Sequence[str], rows: int) -> dict[str, dict[int, np.ndarray]]:
    """Of each method that has some, by seed: log p - log q of the fresh points."""
    made = SETS[set_name]()
    truth = made.log_prob(made.sample(FRESH, FRESH_SEED))
    paths = {method: {seed: path_of(set_name, method, seed, rows) for seed in range(1000)} for method in methods}
    found = {
        method: {seed: truth - np.load(path)["log_prob"] for seed, path in each.items() if path.exists()}
        for method, each in paths.items()
    }
    return {method: each for method, each in found.items() if each}


def over_seeds(each: dict[int, np.ndarray]) -> tuple[float, float, float]:
    """The mean, and its standard errors over seeds and over the fresh points."""
    values = np.stack(list(each.values()))
    return float(values.mean()), standard_error(values.mean(1)), standard_error(values.mean(0))


def paired(a: dict[int, np.ndarray], b: dict[int, np.ndarray]) -> tuple[float, float, float]:
    """a - b over the seeds that both have, as `over_seeds`."""
    return over_seeds({seed: a[seed] - b[seed] for seed in a.keys() & b.keys()})


def table(options: argparse.Namespace) -> None:
    found = {name: scores(name, list(METHODS), options.rows) for name in options.names or USUAL}
    methods = [method for method in METHODS if any(method in each for each in found.values())]
    print(f"KL to the truth, nats; mean +- standard error over seeds (and over the {FRESH:,} points)\n")
    print(f"| set | seeds | {' | '.join(methods)} |\n|" + "---|" * (len(methods) + 2))
    for name, each in found.items():
        counts = sorted({len(by_seed) for by_seed in each.values()}) or [0]
        seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        cells = [shown(over_seeds(each[method])) if method in each else "" for method in methods]
        print(f"| {name} | {seeds} | {' | '.join(cells)} |")
    against = best_classics(found) if options.against is None else dict.fromkeys(found, options.against)
    print("\nPaired differences on the same points, method minus the classic named; below zero is nearer the truth\n")
    print(f"| set | classic | {' | '.join(methods)} |\n|" + "---|" * (len(methods) + 2))
    for name, each in found.items():
        other = each.get(against.get(name, ""), {})
        both = {m: each[m].keys() & other.keys() for m in methods if m in each and each[m] is not other}
        cells = [shown(paired(each[m], other)) if both.get(m) else "" for m in methods]
        print(f"| {name} | {against.get(name, '')} | {' | '.join(cells)} |")


def best_classics(found: dict[str, dict[str, dict[int, np.ndarray]]]) -> dict[str, str]:
    """The estimator of each set, among those that see no test row, of the least KL."""
    means = {name: {m: over_seeds(each[m])[0] for m in CLASSICS if m in each} for name, each in found.items()}
    return {name: min(each, key=each.__getitem__) for name, each in means.items() if each}


def shown(figures: tuple[float, float, float]) -> str:
    mean, seeds, points = figures
    return f"{mean:.4f} ({points:.4f})" if np.isnan(seeds) else f"{mean:.4f} +- {seeds:.4f} ({points:.4f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SETS)}")
    parser.add_argument("--method", action="append", choices=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rows", type=int, default=ROWS, help="of each set")
    parser.add_argument("--keep", action="store_true", help="do not repeat what has scores")
    parser.add_argument("--against", choices=list(METHODS))
    options: Any = parser.parse_args()
    unknown = [name for name in options.names if name not in SETS]
    if unknown:
        sys.exit(f"{unknown[0]}: there is no such set; there are: {', '.join(SETS)}")
    {"run": run, "table": table}[options.what](options)


if __name__ == "__main__":
    main()
