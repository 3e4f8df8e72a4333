"""What the scores of a stream of rows come to: counts, their mean and its standard error, in constant memory."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from diffeo.data.arrow import numbers


class Tally:
    """Counts of rows scored, of rows of density zero, and of rows not scored by reason; the mean of the finite scores.

    >>> tally = Tally()
    >>> tally.add(pa.table({"log_prob": [1.0, 3.0, -math.inf, None], "reason": [None, None, None, "x is missing"]}))
    >>> tally.summary()  # doctest: +NORMALIZE_WHITESPACE
    {'rows': 4, 'scored': 3, 'mean_log_prob': 2.0, 'standard_error': 1.0, 'minus_infinite': 1,
     'unscored': {'x is missing': 1}}
    """

    def __init__(self) -> None:
        self.rows = self.scored = self.minus_infinite = 0
        self.unscored: Counter[str] = Counter()
        self._mean = self._squares = 0.0  # of the finite scores; the sum of squares is about the mean

    def add(self, scores: pa.Table) -> None:
        """Take in a table with the columns log_prob (null where not scored) and reason."""
        log_prob = numbers(scores["log_prob"].drop_null())
        finite = log_prob[np.isfinite(log_prob)]
        before = self.scored - self.minus_infinite
        self.rows += scores.num_rows
        self.scored += len(log_prob)
        self.minus_infinite += len(log_prob) - len(finite)
        self.unscored.update(scores["reason"].drop_null().to_pylist())
        if not len(finite):
            return
        mean, total = float(finite.mean()), before + len(finite)
        step = mean - self._mean
        self._squares += float(((finite - mean) ** 2).sum()) + step**2 * before * len(finite) / total
        self._mean += step * len(finite) / total

    def summary(self) -> dict[str, Any]:
        """The counts and figures, every number finite; None where too few rows have a finite score."""
        n = self.scored - self.minus_infinite
        return {
            "rows": self.rows,
            "scored": self.scored,
            "mean_log_prob": self._mean if n else None,
            "standard_error": math.sqrt(self._squares / (n - 1) / n) if n > 1 else None,
            "minus_infinite": self.minus_infinite,
            "unscored": dict(self.unscored.most_common()),
        }
