"""The runs of the homework: points, a small coupling flow, and what became of it.

Every run has the settings and seeds that were set, and ends in three models: with the last weights, which is what was
asked for; with those that were best on held-out points; and diffeo's default on the same points.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffeo.adapters import CouplingFlow
from diffeo.data.toys import Toy, sample_2d_datasets, toy
from diffeo.flow import Flow
from diffeo.model import Model
from diffeo.studies import truth
from diffeo.studies.course import Course
from diffeo.studies.default import classical, default, log_prob_of
from diffeo.studies.learning import Learned, Loop, seeded, taught, with_weights
from diffeo.studies.outcome import Options
from diffeo.studies.truth import FRESH, Gap

__all__ = ["RUNS", "SEED", "Result", "Run", "known", "numbers", "points", "result_of"]

SEED, DATA_SEED = 8, 0
DRAWS, FAR = 5000, truth.Window(-50, 50, -50, 50)


class Run(NamedTuple):
    """One flow of the homework."""

    task: int
    dist: str
    epochs: int
    rows: int = 1500
    layers: int = 4
    gaussians: int = 5

    @property
    def set(self) -> str:
        """The name of its points."""
        return f"{self.dist} {self.gaussians}" if self.dist == "GaussiansRot" else self.dist

    @property
    def default(self) -> str:
        """The name of the default on its points."""
        return f"diffeo, {self.set}, N={self.rows}"

    @property
    def name(self) -> str:
        """
        >>> Run(10, "GaussiansRot", 250, layers=2).name
        'task 10: GaussiansRot 5, N=1500, K=2, 250 epochs'
        """
        return f"task {self.task}: {self.set}, N={self.rows}, K={self.layers}, {self.epochs} epochs"


RUNS = (
    Run(9, "Moons", 1000),
    Run(9, "Circles", 500),
    Run(9, "GaussiansGrid", 500),
    Run(9, "GaussiansRot", 500),
    Run(10, "GaussiansRot", 250, layers=2),
    Run(10, "GaussiansRot", 250),
    Run(11, "GaussiansRot", 400),
    Run(11, "GaussiansRot", 400, rows=3000),
    Run(12, "GaussiansRot", 250, gaussians=3),
    Run(12, "GaussiansRot", 250, gaussians=7),
)


class Result(NamedTuple):
    """What became of a run: the flow as it was left and with its best weights, and diffeo's default."""

    final: Flow
    best: Flow
    default: Model
    learned: Learned
    kl: dict[str, Gap]  # final, best, default; in task 9 kernels and mixture: KL(p || q)
    reverse: Gap  # KL(q || p) of the final weights
    finite: dict[str, float]  # share of the log-densities that are finite far and wide
    entropy: float


def known(run: Run) -> Toy:
    """The exact density of a run's points."""
    if run.dist == "GaussiansRot":
        return toy("rotated", gaussians=run.gaussians)
    return toy({"Moons": "moons", "Circles": "circles", "GaussiansGrid": "grid"}[run.dist])


def points(run: Run) -> Tensor:
    """What a run learns from, float32 [n, 2]."""
    return torch.as_tensor(sample_2d_datasets(run.dist, run.rows, DATA_SEED, run.gaussians), dtype=torch.float32)


def result_of(run: Run, options: Options, course: Course, seed: int, defaults: dict[tuple[str, int], Model]) -> Result:
    """Train a run, and fit the default to its points unless it is among the `defaults` already."""
    x, exact = points(run), known(run)
    with seeded(seed):  # weights first, then the split: the order in which the homework draws
        flow = CouplingFlow(run.layers).flow
        order = torch.randperm(run.rows)
    cut = int(0.9 * run.rows)
    train, valid = x[order[:cut]], x[order[cut:]]
    loop = Loop(options.epochs(run.epochs), 64, 1e-3, shuffle=False)
    learned = taught(flow, train, valid, loop, course.begin(run.name), seed)
    best = with_weights(flow, learned.best)
    if (run.set, run.rows) not in defaults:
        report = course.begin(run.default)
        defaults[run.set, run.rows] = default(x, options, seed, report)
    model = defaults[run.set, run.rows]
    kinds = {"final": truth.of_density(flow), "best": truth.of_density(best), "default": log_prob_of(model)}
    fresh = truth.tensor(exact.sample(options.points(20_000), seed=FRESH), torch.float64)
    beside = classical(x, fresh, options, seed) if run.task == 9 else {}
    drawn = flow.sample(options.points(DRAWS), generator=torch.Generator().manual_seed(seed)).double()
    return Result(
        flow,
        best,
        model,
        learned,
        {name: truth.gap(exact.log_prob, log_prob, fresh) for name, log_prob in (kinds | beside).items()},
        truth.gap(truth.of_density(flow), exact.log_prob, drawn),
        {name: _finite(log_prob) for name, log_prob in kinds.items()},
        exact.entropy,
    )


def _finite(log_prob: truth.LogProb) -> float:
    return truth.scores(log_prob, FAR.grid(101)).isfinite().double().mean().item()


def numbers(run: Run, result: Result) -> Mapping[str, Any]:
    """What `findings.json` holds of a run."""
    learned = result.learned
    return {
        "task": run.task,
        "points": run.set,
        "rows": run.rows,
        "layers": run.layers,
        "epochs": len(learned.train),
        "parameters": sum(p.numel() for p in result.final.parameters()),
        "entropy": result.entropy,
        "train_loss": learned.train[-1],
        "valid_loss": learned.valid[-1],
        "best_valid_loss": min(learned.valid),
        "best_epoch": learned.best_epoch,
        **{f"kl_{name}": gap.plain() for name, gap in result.kl.items()},
        "reverse_kl_final": result.reverse.plain(),
        "finite_share": result.finite,
        "seconds": round(learned.seconds, 3),
    }
