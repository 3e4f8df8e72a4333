"""How good: diffeo with no option against a Gaussian mixture refitted in the same run, and against the product of
marginals on raw tables; nats a row on rows that neither saw.

    python benchmarks/quality.py splits [NAME ...] [--budget 2m]
    python benchmarks/quality.py tables [NAME ...] [--budget 2m]

Needs the folder that the environment variable DIFFEO_DATA names. Writes one line a measurement to stdout and to
benchmarks/quality.jsonl.
"""

import argparse
import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from sklearn.mixture import GaussianMixture

import diffeo
from diffeo.baselines import Marginals
from diffeo.data.split import held_out
from diffeo.processors import threads

SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48)
DATA = Path(os.environ.get("DIFFEO_DATA", "../shared/data"))


def mixture(train: np.ndarray, valid: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, str]:
    """Log-densities of test under the full-covariance mixture (all rows, 1 to 48 components, two ridges) that is best
    on valid."""
    best: tuple[float, Any] = (-np.inf, None)
    for ridge in (1e-6, 1e-3):
        for size in SIZES:
            fitted = GaussianMixture(size, reg_covar=ridge, random_state=0).fit(train)
            best = max(best, (fitted.score(valid), fitted), key=lambda pair: pair[0])
    return best[1].score_samples(test), f"{best[1].n_components} components, ridge {best[1].reg_covar:g}"


def ahead(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """The paired difference a - b: mean, standard error and median."""
    difference = a - b
    error = float(difference.std(ddof=1) / np.sqrt(len(difference)))
    return {"ahead": float(difference.mean()), "standard_error": error, "ahead_median": float(np.median(difference))}


def split(name: str, budget: str, seed: int) -> dict[str, Any]:
    arrays = np.load(DATA / "splits" / f"{name}.npz")
    train, valid, test = (arrays[key].astype(float) for key in ("train", "valid", "test"))
    began = time.perf_counter(), time.process_time()
    model = diffeo.fit(train, valid=valid, kinds={"*": "continuous"}, budget=budget, seed=seed)
    wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    found = model.log_prob(test)
    with warnings.catch_warnings(), threads(1):
        warnings.simplefilter("ignore")
        other, chosen = mixture(train, valid, test)
    row = {"split": name, "rows": len(train), "columns": train.shape[1], "diffeo": float(found.mean())}
    row |= {"mixture": float(other.mean()), "chosen": chosen, **ahead(found, other), "wall_s": wall, "cpu_s": cpu}
    return row | {"start": model.card.start, "epochs": model.card.epochs, "valid": model.card.valid_log_prob}


def table(name: str, budget: str, seed: int) -> dict[str, Any]:
    """A raw table, no option: a tenth of the rows is kept from the fit, and scored."""
    whole = pq.read_table(DATA / "tables" / f"{name}.parquet")
    kept = held_out(whole.num_rows, 0.1, seed=12345)
    began = time.perf_counter(), time.process_time()
    model = diffeo.fit(whole.filter(~kept), budget=budget, seed=seed)
    wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    test, schema = whole.filter(kept), model.schema
    for column in schema.columns:  # a level that only the kept rows have is refused, as it should be
        if column.coded and column.type == "string":
            test = test.filter(np.isin(np.array(test[column.name].to_pylist(), object), [*column.levels, None]))
    found = model.log_prob(test)
    x_train = schema.encode(whole.filter(~kept))
    other = Marginals.fit(x_train, schema).log_prob(schema.encode(test))
    scored = np.isfinite(found) & np.isfinite(other)
    row = {"table": name, "rows": whole.num_rows, "scored": int(scored.sum()), "kept": int(kept.sum())}
    row |= {"impossible": int(np.isneginf(found).sum()), "diffeo": float(found[scored].mean())}
    row |= {"marginals": float(other[scored].mean()), **ahead(found[scored], other[scored])}
    return row | {"wall_s": wall, "cpu_s": cpu, "epochs": model.card.epochs, "valid": model.card.valid_log_prob}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("splits", "tables"))
    parser.add_argument("names", nargs="*")
    parser.add_argument("--budget", default="2m")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not DATA.is_dir():
        sys.exit("set DIFFEO_DATA to the folder that holds the splits and tables")
    suffix = {"splits": "npz", "tables": "parquet"}[options.what]
    names = options.names or sorted(path.stem for path in (DATA / options.what).glob(f"*.{suffix}"))
    measure = {"splits": split, "tables": table}[options.what]
    with Path(__file__).with_name("quality.jsonl").open("a") as log:
        for name in names:
            row = measure(name, options.budget, options.seed) | {"budget": options.budget, "seed": options.seed}
            log.write(json.dumps(row) + "\n")
            log.flush()
            words = (
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
            )
            print(", ".join(words), flush=True)


if __name__ == "__main__":
    main()
