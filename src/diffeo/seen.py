"""What a report says of the data whatever is learned: summaries, and what simpler densities make of the same rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from diffeo.baselines import Gaussian, Marginals
from diffeo.card import Card
from diffeo.data.schema import Schema
from diffeo.prepare import Prepared
from diffeo.report.findings import Findings, Marginal, Pair, Step, baseline_of, score_of, summarise

__all__ = ["Seen", "of_other_rows"]

BASELINES: tuple[tuple[str, Any], ...] = (("Gaussian", Gaussian), ("product of marginals", Marginals))


@dataclass(frozen=True)
class Seen:
    """Marginals, pairs, and the log-densities of held-out rows under the baselines; made before training, so that the
    budget knows of it."""

    schema: Schema
    marginals: tuple[Marginal, ...]
    pairs: tuple[Pair, ...]
    baselines: tuple[tuple[str, np.ndarray], ...]

    @staticmethod
    def of(data: Prepared) -> "Seen":
        weights = data.weights.double().numpy()
        marginals, pairs = summarise(data.x_train, data.schema)
        baselines = tuple(
            (name, kind.fit(data.x_train, data.schema, weights).log_prob(data.x_valid)) for name, kind in BASELINES
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


def of_other_rows(findings: Findings, schema: Schema, x: np.ndarray, log_prob: np.ndarray, name: str) -> Findings:
    """The findings with scores and summaries of other encoded rows x [n, D], of which `log_prob` [n] is known."""
    marginals, pairs = summarise(x, schema)
    baselines = (baseline_of(label, log_prob, kind.fit(x, schema).log_prob(x)) for label, kind in BASELINES)
    return findings.model_copy(
        update={
            "data": name,
            "held_out": False,
            "rows_valid": len(x),
            "model": score_of(log_prob),
            "baselines": tuple(baselines),
            "marginals": marginals,
            "pairs": pairs,
            "notes": (*findings.notes, "The scores, marginals and pairs are of the data named for this report."),
        }
    )
