"""Whether a fitted density is to be believed: held-out rows against what it says and against its own samples.

Everything is compared on equal terms: samples go through the same decode and encode as rows of a file, so that
rounding and types give none of them away. How many rows are looked at follows from numbers alone and not from a clock,
so that a run can be repeated bit for bit.
"""

import sys

import numpy as np
import torch
from scipy import special

from diffeo.data.schema import Schema
from diffeo.mixed import CANDIDATES, Mixed
from diffeo.quantized import POINTS
from diffeo.report.evidence import Coverage, Evidence, TwoSample, Uniformity

__all__ = ["affordable", "evidence", "planned_seconds", "samples_for", "thinned"]

MOST = 5_000  # rows and samples looked at
LEAST = 100
BINS = 20
NOMINAL = (0.5, 0.9, 0.99)
DRAWS = 49  # for each row, where columns are given; the rank among them is uniform on fiftieths
GIVEN_ROWS = 500
CLASSIFIED = 50  # rows, below which a classifier has nothing to learn from
FOLDS = 5
SHARED = 10  # of so many rows one gets draws of its own
_SECONDS, _BUDGET, _POWER, _LONGEST, _SHARE = 1.5, 12.0, 0.6, 10.0, 1 / 8
_CLASSIFIER = 0.3  # seconds, however few the rows
_IMPORTS = 1.5  # seconds, once


# How many rows -------------------------------------------------------------------------------------------------------


def allowance(budget: float | None) -> float:
    """Seconds that the evidence may take of a budget.

    >>> [round(allowance(budget), 1) for budget in (2.0, 12.0, 120.0, None)]
    [0.2, 1.5, 6.0, 10.0]
    """
    return _LONGEST if budget is None else min(_LONGEST, _SECONDS * (budget / _BUDGET) ** _POWER, _SHARE * budget)


def _seconds_each(density: Mixed) -> tuple[float, float]:
    """A rough model of what one row and one sample cost, by how often the density is evaluated; measured on eight
    tables of 2 to 24 columns; right within a factor of three, and rather too dear."""
    layout = density.layout
    columns = len(layout.schema.row_columns)
    once = 4e-6 + 7e-11 * sum(p.numel() for p in density.parameters())
    score, place = (POINTS, CANDIDATES) if layout.free else (1, 0)
    draws = 1 + DRAWS / SHARED if layout.schema.given_columns else 1.0
    return once * (place + 4) + 3e-5 * columns, once * (columns + score) * draws + 3e-5 * columns


def affordable(density: Mixed, budget: float | None) -> int:
    """How many rows, and as many samples, can be looked at within a budget in seconds."""
    seconds = allowance(budget) - _CLASSIFIER
    return int(min(MOST, max(LEAST, seconds / sum(_seconds_each(density)))))


def _sampled(rows: int, most: int) -> int:
    """How many samples so many rows are compared with: more where rows are few, which then alone limit what is seen."""
    return min(most, max(2 * rows, 1000))


def planned_seconds(density: Mixed, rows: int, budget: float | None) -> float:
    """What the evidence on so many held-out rows is expected to take."""
    most, (row, sample) = affordable(density, budget), _seconds_each(density)
    imports = 0.0 if "sklearn.ensemble" in sys.modules else _IMPORTS
    return imports + _CLASSIFIER + row * min(rows, most) + sample * _sampled(rows, most)


# Rows and samples ----------------------------------------------------------------------------------------------------


def thinned(weights: np.ndarray, seed: int) -> np.ndarray:
    """Places of rows kept with a chance in proportion to their weights [n], each once: independent draws from what the
    weighted rows are drawn from; all of them, where weights are alike."""
    if not len(weights) or np.ptp(weights) <= 1e-9 * weights.max():
        return np.arange(len(weights))
    return np.flatnonzero(np.random.default_rng(seed).random(len(weights)) < weights / weights.max())


def restored(x: np.ndarray, schema: Schema) -> np.ndarray:
    """Encoded samples x [n, D] as they come back from a file."""
    return schema.encode(schema.decode(x))


def samples_for(density: Mixed, x: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """One encoded sample [n, D] for each row x [n, D], beside its given values, as it comes back from a file."""
    drawn, row = x.copy(), [i for i, column in enumerate(density.layout.schema.columns) if column.role == "row"]
    drawn[:, row] = density.sample_given(density.layout.rows(x), generator)
    return restored(drawn, density.layout.schema)


def evidence(
    density: Mixed,
    x: np.ndarray,
    log_prob: np.ndarray,
    *,
    samples: np.ndarray | None = None,
    budget: float | None = None,
    seed: int = 0,
) -> Evidence | None:
    """What held-out rows say of a density: x [n, D], encoded, without holes and of equal weight, and their
    log-densities [n].

    `samples` [m, D]: rows to compare with, as they come back from a file; by default drawn from the density, and
    where columns are given always. None without rows. The draws follow from `seed`.
    """
    if not len(x):
        return None
    schema, most = density.layout.schema, affordable(density, budget)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    some = rng.permutation(len(x))[:most]
    x, log_prob = x[some], log_prob[some]
    given = bool(schema.given_columns)
    if given or samples is None:
        wanted = x if given else np.zeros((_sampled(len(x), most), x.shape[1]))
        samples = samples_for(density, wanted, generator)
    samples = samples[: _sampled(len(x), most)]
    z = density.to_normal(density.layout.rows(x), generator).numpy()
    z = z[~np.isnan(z).any(1)]
    if given:
        level, others = _given_levels(density, x, log_prob, most, rng, generator), None
    else:
        level, others = 1.0 - ranks(log_prob, _score(density, samples), rng), len(samples)
    return Evidence(
        rows=len(x),
        latents=tuple(uniformity(name, special.ndtr(v)) for name, v in zip(density.latent_names, z.T, strict=True)),
        length=uniformity("squared length", special.chdtr(z.shape[1], (z**2).sum(1))),
        ranks=_column_ranks(schema, x, samples, rng),
        levels=uniformity("smallest region", level, others),
        regions=tuple(_coverage(level, nominal, others) for nominal in NOMINAL),
        two_sample=_two_sample(schema, x, samples, given, seed),
    )


# Uniformity ----------------------------------------------------------------------------------------------------------


def uniformity(name: str, u: np.ndarray, others: int | None = None) -> Uniformity:
    """Numbers u [n] of [0, 1] against the uniform; where they are ranks among `others` samples, with the p-value of
    the two-sample Kolmogorov-Smirnov test (by Stephens 1970)."""
    u = np.clip(u, 0.0, 1.0)
    normal = special.ndtri(np.clip(u, 1e-12, 1 - 1e-12))
    if not len(u):
        return Uniformity(name=name, counts=(0,) * BINS, mean=0.0, deviation=1.0, distance=0.0, p_value=1.0)
    from scipy.stats import kstest  # slow to import

    distance, p_value = kstest(u, "uniform")
    if others is not None:
        root = np.sqrt(len(u) * others / (len(u) + others))
        p_value = special.kolmogorov((root + 0.12 + 0.11 / root) * distance)
    return Uniformity(
        name=name,
        counts=tuple(np.histogram(u, BINS, (0.0, 1.0))[0].tolist()),
        mean=float(normal.mean()),
        deviation=float(normal.std(ddof=1)) if len(u) > 1 else 1.0,
        distance=float(np.clip(distance, 0, 1)),
        p_value=float(np.clip(p_value, 0, 1)),
    )


def ranks(v: np.ndarray, among: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The place in [0, 1] of each v [n] among other values [m]: uniform where both are drawn from one distribution;
    ties are broken at random."""
    among = np.sort(among)
    below, upto = (np.searchsorted(among, v, side) for side in ("left", "right"))
    return np.asarray((below + rng.random(len(v)) * (upto - below + 1)) / (len(among) + 1))


def _column_ranks(
    schema: Schema, x: np.ndarray, samples: np.ndarray, rng: np.random.Generator
) -> tuple[Uniformity, ...]:
    pairs = ((i, column) for i, column in enumerate(schema.columns) if column.role == "row")
    values = _comparable(schema, x), _comparable(schema, samples)
    return tuple(
        uniformity(column.name, ranks(values[0][:, i], values[1][:, i], rng), len(samples)) for i, column in pairs
    )


# Regions -------------------------------------------------------------------------------------------------------------


def _score(density: Mixed, x: np.ndarray) -> np.ndarray:
    return density.log_prob(torch.from_numpy(x)).numpy()


def _given_levels(
    density: Mixed,
    x: np.ndarray,
    log_prob: np.ndarray,
    most: int,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> np.ndarray:
    """For some rows, the share of draws that are more likely, among draws that have the row's own given values:
    densities of different ones are not comparable."""
    n = min(len(x), GIVEN_ROWS, max(LEAST // SHARED, most // SHARED))
    some = rng.permutation(len(x))[:n]
    own = samples_for(density, np.repeat(x[some], DRAWS, 0), generator)
    scores = _score(density, own).reshape(n, DRAWS)
    return np.concatenate(
        [1.0 - ranks(one[None], among, rng) for one, among in zip(log_prob[some], scores, strict=True)]
    )


def _coverage(level: np.ndarray, nominal: float, others: int | None) -> Coverage:
    """The share of rows in the region; its standard error if the density is right, samples' part included."""
    variance = nominal * (1 - nominal) * (1 / len(level) + (1 / others if others else 0.0))
    found = float((level <= nominal).mean())
    return Coverage(nominal=nominal, found=found, standard_error=float(np.sqrt(variance)))


# Two samples ---------------------------------------------------------------------------------------------------------


def _comparable(schema: Schema, x: np.ndarray) -> np.ndarray:
    """Encoded rows [n, D] with what a file adds to a value taken away: the noise of arithmetic on a grid, and which end
    of its period an angle is written at."""
    x = x.copy()
    for i, column in enumerate(schema.columns):
        if column.grid is not None:
            x[:, i] = column.grid.snap(x[:, i])
        if column.kind == "circular":
            start, length = column.turn
            x[:, i] = np.mod((x[:, i] - start) / length, 1.0)
    return x


def _two_sample(schema: Schema, x: np.ndarray, samples: np.ndarray, given: bool, seed: int) -> TwoSample | None:
    """A classifier two-sample test (Lopez-Paz and Oquab 2017, arXiv 1610.06545): boosted trees, cross-validated. A row
    and the sample that has its given values are in one fold: the shared values tell a trained tree the opposite."""
    n = min(len(x), len(samples))
    if n < CLASSIFIED:
        return None
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(seed)
    features = np.concatenate([_comparable(schema, x[:n]), _comparable(schema, samples[:n])])
    truth = np.repeat([0, 1], n)
    fold = rng.permutation(n) % FOLDS
    fold = np.concatenate([fold, fold if given else rng.permutation(n) % FOLDS])
    right = np.zeros(2 * n)
    with threadpool_limits(1):
        for one in range(FOLDS):
            trees = HistGradientBoostingClassifier(
                max_iter=60, max_leaf_nodes=15, early_stopping=False, random_state=0
            ).fit(features[fold != one], truth[fold != one])
            right[fold == one] = trees.predict(features[fold == one]) == truth[fold == one]
    accuracy = float(right.mean())
    error = float(np.sqrt(max(accuracy * (1 - accuracy), 0.25 / n) / (2 * n)))
    return TwoSample(classifier="gradient-boosted trees", accuracy=accuracy, standard_error=error, n=2 * n)
