"""Counts taken for numbers: a density grows without bound on values that repeat, and noise within a step mends it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffeo.bases import StandardNormal
from diffeo.flow import Flow
from diffeo.model import fit
from diffeo.nets import MaskedMLP
from diffeo.scalars import spline
from diffeo.studies import figures, truth
from diffeo.studies.course import Course
from diffeo.studies.learning import Learned, Loop, seeded, taught
from diffeo.studies.outcome import Options, Outcome, Picture, Section, Table
from diffeo.transforms import Autoregressive, Chain, Standardize

__all__ = ["atoms"]

ROWS, SEED, TOP, SHARE = 1000, 0, 7, 0.4
EPOCHS, COPIES, DRAWS = 800, 8, 512
RAW, BLURRED = "counts as they are", "with noise within each step"


class Run(NamedTuple):
    """A flow, and what it learned."""

    flow: Flow
    learned: Learned


def probabilities() -> np.ndarray:
    """Those of the counts 0 .. 7: binomial."""
    return np.array([math.comb(TOP, k) * SHARE**k * (1 - SHARE) ** (TOP - k) for k in range(TOP + 1)])


def atoms(options: Options, course: Course) -> Outcome:
    """One flow fitted to counts, the same flow to counts with uniform noise added, and exact masses beside."""
    seed = options.seed_or(SEED)
    generator = torch.Generator().manual_seed(seed)
    p = probabilities()
    entropy = float(-(p * np.log(p)).sum())
    counts = torch.multinomial(torch.as_tensor(p), ROWS, replacement=True, generator=generator).float()[:, None]
    noisy = counts.repeat(COPIES, 1) + torch.rand(COPIES * ROWS, 1, generator=generator)
    course.plan({RAW: 1.0, BLURRED: 3.0, "masses": 1.0})
    runs = {}
    for name, x in ((RAW, counts), (BLURRED, noisy)):
        with seeded(seed):
            flow = _flow(x)
        learned = taught(flow, x, None, Loop(options.epochs(EPOCHS), None, 3e-3), course.begin(name), seed)
        runs[name] = Run(flow, learned)
        course.say(f"{name}: {-learned.train[-1]:.2f} nats a row")
    model = fit({"count": counts[:, 0].int().numpy()}, epochs=options.epochs(100), seed=seed)
    masses = np.exp(model.log_prob({"count": np.arange(TOP + 1, dtype=np.int32)}))
    return _outcome(p, entropy, counts[:, 0].numpy(), runs, _cells(runs[BLURRED].flow), masses, seed)


def _flow(x: Tensor) -> Flow:
    """Two splines of one number, in the units of the data."""
    scalar = spline(bins=32, bound=4.0)
    steps = [Autoregressive([0], scalar, lambda order, width: MaskedMLP(order, width, ())) for _ in range(2)]
    return Flow(Chain(Standardize.fit(x), *steps), StandardNormal(1))


def _cells(flow: Flow) -> np.ndarray:
    """The probability of every count: the mean density over its step."""
    inside = (torch.arange(DRAWS) + 0.5) / DRAWS
    points = (torch.arange(TOP + 1)[:, None] + inside).reshape(-1, 1)
    return truth.scores(truth.of_density(flow), points).exp().reshape(TOP + 1, DRAWS).mean(1).numpy()


def _divergence(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * (np.log(p) - np.log(q))).sum())


def _outcome(
    p: np.ndarray,
    entropy: float,
    counts: np.ndarray,
    runs: dict[str, Run],
    cells: np.ndarray,
    masses: np.ndarray,
    seed: int,
) -> Outcome:
    highest = truth.scores(truth.of_density(runs[RAW].flow), torch.arange(TOP + 1.0)[:, None]).max().item()
    results: dict[str, Any] = {
        "entropy": entropy,
        "losses": {name: run.learned.train for name, run in runs.items()},
        "highest_log_density": highest,
        "kl_dequantised": _divergence(p, cells),
        "kl_masses": _divergence(p, masses),
        "probabilities": p.tolist(),
        "dequantised": cells.tolist(),
        "masses": masses.tolist(),
    }
    lead = (
        f"{ROWS:,} counts from 0 to {TOP}. A density is a probability a unit of length; a value that comes again and "
        "again has probability on no length at all. So nothing stops a flow from putting needles on the eight values: "
        "each narrower and higher than before, and the likelihood grows for ever while nothing is learned."
    )
    answer = (
        f"As they are, the counts drove the mean log-density to {-runs[RAW].learned.train[-1]:.2f} nats a row, though "
        f"the counts hold only {entropy:.2f} nats of surprise each. With noise spread evenly over each step from k to "
        f"k + 1 the flow stops near −{entropy:.2f}, and the mass it puts on each step is a probability: "
        f"{results['kl_dequantised']:.4f} nats from the truth. diffeo sees by itself that a column holds counts, and "
        f"gives it exact probabilities: {results['kl_masses']:.4f} nats."
    )
    sections = (
        Section("Likelihood without learning", _needles(counts, entropy, runs)),
        Section("Probabilities again", (_table(p, cells, masses),)),
    )
    return Outcome("Why counts break a density", lead, sections, results, seed, answer)


def _needles(counts: np.ndarray, entropy: float, runs: dict[str, Run]) -> tuple[Any, ...]:
    lines = {name: (range(1, len(r.learned.train) + 1), r.learned.train) for name, r in runs.items()}
    x = np.linspace(-1, TOP + 2, 3601)
    at = torch.as_tensor(x)[:, None]
    shapes = {name: truth.scores(truth.of_density(run.flow), at).exp().numpy() for name, run in runs.items()}
    return (
        Picture(
            "losses",
            "The loss of the same flow on both",
            "Dotted: the entropy of the counts. By Jensen's inequality the loss on noisy counts cannot fall below it "
            "on fresh data; on bare counts nothing holds it, but the steepest slope that the spline may have.",
            figures.curves(lines, "epoch", "nats a row", {"entropy of the counts": entropy}),
        ),
        Picture(
            "densities",
            "What the two flows believe",
            "On a logarithmic scale: needles on the counts, against a staircase whose steps have the counts' areas.",
            figures.profiles(x, shapes, log=True),
        ),
        "What mends it must say what lies between the values. Uniform noise is the simplest answer, and its mean "
        "log-density is a lower bound on the log-probability of the counts; a logit after it keeps the noise inside "
        "its bounds for pixels. Where there are few values, masses are exact and need no noise.",
    )


def _table(p: np.ndarray, cells: np.ndarray, masses: np.ndarray) -> Table:
    rows = [(str(k), *(f"{value:.4f}" for value in line)) for k, line in enumerate(zip(p, cells, masses, strict=True))]
    heading = ("count", "true probability", "mass of the step in the flow", "diffeo's masses")
    return Table(heading, tuple(rows), f"Both were fitted to the same {ROWS:,} counts.")
