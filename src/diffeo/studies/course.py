"""How far a study is: stages of known weight, told in the records that a progress bar shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Course", "Report"]

Report = Callable[[dict[str, Any]], None]


class Course:
    """The stages of a study with their weights, roughly their seconds; a stage begins where `begin` names it.

    >>> records = []
    >>> course = Course(records.append)
    >>> course.plan({"draw": 1.0, "learn": 3.0})
    >>> course.begin("draw")({"progress": 0.5})
    >>> course.begin("learn")({"progress": 0.5, "train": -1.0})
    >>> [record["progress"] for record in records]
    [0.125, 0.625]
    """

    def __init__(self, report: Report | None = None) -> None:
        self._report = report or (lambda record: None)
        self._weights: dict[str, float] = {"": 1.0}
        self._passed: list[str] = []
        self._began = time.monotonic()

    def plan(self, weights: Mapping[str, float]) -> None:
        """Say what is to come."""
        self._weights = dict(weights)

    def begin(self, stage: str) -> Report:
        """Begin a stage; what is returned takes its records, whose `progress` is the share of the stage."""
        if stage not in self._passed:
            self._passed.append(stage)
        return lambda record: self._take(stage, record)

    def say(self, text: str) -> None:
        """A line of words."""
        self._report({"message": text})

    def _take(self, stage: str, record: dict[str, Any]) -> None:
        if "message" in record:
            return
        before = sum(self._weights.get(name, 0.0) for name in self._passed if name != stage)
        own = self._weights.get(stage, 0.0) * min(1.0, record.get("progress") or 0.0)
        share = min(1.0, (before + own) / (sum(self._weights.values()) or 1.0))
        left = (time.monotonic() - self._began) * (1 - share) / share if share > 0 else None
        self._report({**record, "stage": stage, "progress": share, "seconds_left": left})
