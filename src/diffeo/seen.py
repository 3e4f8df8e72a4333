"""What a report says of the data whatever is learned: summaries, and what simpler densities make of the same rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffeo.baselines import Gaussian, Kernels, Marginals, Mixture, PerCategory
from diffeo.card import Card
from diffeo.data.schema import Schema
from diffeo.prepare import Prepared
from diffeo.report.findings import Findings, Marginal, Pair, Step, baseline_of, score_of, summarise

__all__ = ["Seen", "of_other_rows"]

SIMPLE = (Gaussian, Marginals)
FLEXIBLE = (Mixture, PerCategory, Kernels)
SECONDS, SHARE = 5.0, 1 / 12  # that the flexible ones take together at most, and of the budget
SCORED = 4_000  # rows scored by them for each of these seconds


@dataclass(frozen=True)
class Seen:
    """Marginals, pairs, and the log-densities of held-out rows under the baselines; made before training, so that the
    budget knows of it."""

    schema: Schema
    marginals: tuple[Marginal, ...]
    pairs: tuple[Pair, ...]
    baselines: tuple[tuple[str, np.ndarray], ...]

    @staticmethod
    def of(data: Prepared, budget: float | None = None) -> "Seen":
        weights = data.weights.double().numpy()
        marginals, pairs = summarise(data.x_train, data.schema)
        baselines = tuple(
            (fitted.name, scored)
            for fitted, scored in _baselines(data.x_train, data.x_valid, data.schema, weights, budget)
        )
        return Seen(data.schema, marginals, pairs, baselines)

    def findings(self, card: Card, valid: np.ndarray, weights: np.ndarray, history: list[dict[str, Any]]) -> Findings:
        """With the log-densities [n] of held-out rows and the learning curve."""
        return Findings.of(
            self.schema,
            data=card.source,
            recipe=card.recipe,
            fingerprint=card.fingerprint,
            rows_train=card.rows_train,
            rows_valid=card.rows_valid,
            rows_with_holes=card.rows_with_holes,
            model=score_of(valid, weights),
            baselines=tuple(baseline_of(name, valid, other, weights) for name, other in self.baselines),
            history=tuple({key: record.get(key) for key in Step.model_fields} for record in history),
            marginals=self.marginals,
            pairs=self.pairs,
            parameters=card.parameters,
            epochs=card.epochs,
            seconds=card.seconds,
            seed=card.config.seed,
            versions={"diffeo": card.version, "torch": card.torch},
        )


def _baselines(
    x: np.ndarray, others: np.ndarray, schema: Schema, weights: np.ndarray | None, budget: float | None
) -> Iterator[tuple[Any, np.ndarray]]:
    """Every baseline that is defined, fitted to x [n, D], and its log-densities [m] of other rows; of those that take
    time, of some rows at random, NaN for the rest. Numbers alone decide how many, so that a run can be repeated."""
    for kind in SIMPLE:
        fitted: Any = kind.fit(x, schema, weights)
        yield fitted, fitted.log_prob(others)
    seconds = SECONDS if budget is None else min(SECONDS, SHARE * budget)
    some = np.random.default_rng(0).permutation(len(others))[: max(1000, int(SCORED * seconds))]
    for slow in FLEXIBLE:
        fitted = slow.fit(x, schema, weights, seconds / len(FLEXIBLE))
        if fitted is not None:
            found = np.full(len(others), np.nan)
            found[some] = fitted.log_prob(others[some])
            yield fitted, found


def of_other_rows(findings: Findings, schema: Schema, x: np.ndarray, log_prob: np.ndarray, name: str) -> Findings:
    """The findings with scores and summaries of other encoded rows x [n, D], of which `log_prob` [n] is known.

    Baselines are fitted to one half of them and score the other, by turns: a row that one knows would flatter it.
    """
    marginals, pairs = summarise(x, schema)
    return findings.model_copy(
        update={
            "data": name,
            "held_out": False,
            "rows_valid": len(x),
            "model": score_of(log_prob),
            "baselines": tuple(baseline_of(label, log_prob, other) for label, other in _by_turns(x, schema)),
            "marginals": marginals,
            "pairs": pairs,
            "notes": (
                *findings.notes,
                "The scores, marginals and pairs are of the data named for this report; simpler densities were fitted "
                "to one half of it and scored on the other, by turns.",
            ),
        }
    )


def _by_turns(x: np.ndarray, schema: Schema) -> Iterator[tuple[str, np.ndarray]]:
    """The name of each baseline that is defined on both halves, and its log-densities [n]."""
    half = np.random.default_rng(0).permutation(len(x)) % 2 == 0
    first, second = ({type(b): (b, v) for b, v in _baselines(x[h], x[~h], schema, None, None)} for h in (half, ~half))
    for kind in first:
        if kind in second:
            found = np.empty(len(x))
            found[~half], found[half] = first[kind][1], second[kind][1]
            names = dict.fromkeys(made.name for made in (first[kind][0], second[kind][0]))
            yield " and ".join(names), found
