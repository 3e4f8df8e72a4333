"""The verdict: each limit on either side, small samples and large, and sentences that read."""

from typing import Any

import numpy as np
import pytest

from diffeo.data.column import Column
from diffeo.data.schema import Schema
from diffeo.report.evidence import Coverage, Evidence, TwoSample, Uniformity
from diffeo.report.findings import Findings, Score, baseline_of
from diffeo.report.verdict import FEW, LIMITS, verdict

SCHEMA = Schema(columns=(Column(name="a", kind="continuous", type="double"),))


def uniform(name: str = "a", n: int = 2000, **fields: Any) -> Uniformity:
    known = {"counts": (n // 20,) * 20, "mean": 0.0, "deviation": 1.0, "distance": 0.01, "p_value": 0.5}
    return Uniformity(name=name, **(known | fields))


def found(n: int = 2000, ahead: float = 2.0, error: float = 0.05, impossible: int = 0, **fields: Any) -> Findings:
    """Findings without a defect, but for the fields."""
    evidence: dict[str, Any] = {
        "rows": n,
        "latents": (uniform(),),
        "ranks": (uniform(),),
        "length": uniform("squared length"),
        "levels": uniform("smallest region"),
        "regions": tuple(
            Coverage(nominal=p, found=p, standard_error=(p * (1 - p) / n) ** 0.5) for p in (0.5, 0.9, 0.99)
        ),
        "two_sample": TwoSample(classifier="trees", accuracy=0.52, standard_error=0.01, n=2 * n),
    }
    whole = {name: fields.pop(name) for name in list(fields) if name in Findings.model_fields}
    spread = error * np.sqrt(n) * np.where(np.arange(n) % 2, 1.0, -1.0)
    known = {
        "data": "x.csv",
        "recipe": "auto",
        "rows_train": 9 * n,
        "rows_valid": n,
        "model": Score(n=n, mean=1.0, standard_error=0.1, median=1.0, minus_infinite=impossible),
        "baselines": (baseline_of("Gaussian mixture of 8 (BIC)", np.full(n, ahead) + spread, np.zeros(n)),),
        "evidence": Evidence(**(evidence | fields)),
    }
    return Findings.of(SCHEMA, **(known | whole))


def region(share: float, error: float = 0.004) -> dict[str, Any]:
    return {"regions": (Coverage(nominal=0.9, found=share, standard_error=error),)}


def apart(accuracy: float, error: float = 0.01) -> dict[str, Any]:
    return {"two_sample": TwoSample(classifier="trees", accuracy=accuracy, standard_error=error, n=4000)}


@pytest.mark.parametrize(
    ("fields", "trust"),
    [
        ({}, "yes"),
        ({"ahead": -0.2, "error": 0.05}, "no"),
        ({"ahead": -0.2, "error": 0.09}, "with care"),
        ({"ahead": -0.2, "error": 0.5}, "yes"),
        ({"ahead": -0.04, "error": 0.005}, "with care"),
        ({"impossible": 1}, "with care"),
        ({"impossible": 30}, "no"),
        (region(0.84), "no"),
        (region(0.96), "no"),
        (region(0.84, 0.03), "yes"),
        (region(0.87), "with care"),
        (region(0.885), "yes"),
        (apart(0.8), "no"),
        (apart(0.8, 0.2), "yes"),
        (apart(0.65), "with care"),
        (apart(0.58), "yes"),
        ({"ranks": (uniform(distance=0.07, p_value=1e-9),)}, "with care"),
        ({"ranks": (uniform(distance=0.02, p_value=1e-9),)}, "yes"),
        ({"ranks": (uniform(distance=0.3, p_value=0.02),)}, "yes"),
        ({"ranks": (uniform(distance=0.3, p_value=1e-9),)}, "no"),
        ({"latents": (uniform(deviation=1.25),)}, "with care"),
        ({"latents": (uniform(deviation=1.25, n=60),)}, "yes"),
        ({"length": uniform(distance=0.1, p_value=1e-9)}, "with care"),
        ({"length": uniform(distance=0.3, p_value=1e-9)}, "no"),
        ({"rows_with_holes": 10_000}, "with care"),
        ({"rows_with_holes": 100}, "yes"),
        ({"n": FEW - 1}, "with care"),
        ({"evidence": None}, "with care"),
    ],
)
def test_limits(fields: dict[str, Any], trust: str) -> None:
    said = verdict(found(**fields))
    assert said.trust == trust, said
    start = {"yes": "Trust it: ", "with care": "Trust it with care: ", "no": "Do not trust it: "}[trust]
    assert said.sentence.startswith(start)
    assert said.sentence.endswith(".")
    assert said.reasons


def test_the_sentence_reads() -> None:
    assert verdict(found(ahead=17.2, error=0.3)).sentence == (
        "Trust it: on 2,000 rows held out of training, it is 17.2 nats a row above the best simpler density (Gaussian "
        "mixture of 8 (BIC)), its regions hold what they should (90.0% in the 90% region), a classifier tells its "
        "samples from data in 52% of cases, and every column is as in the data."
    )
    named = verdict(found().model_copy(update={"held_out": False})).sentence
    assert named.startswith("Trust it: on 2,000 rows of x.csv, it is")


def test_the_worst_is_said_first_and_everything_is_listed() -> None:
    said = verdict(found(ahead=-0.5, impossible=100, **region(0.5)))
    assert said.sentence == (
        "Do not trust it: 100 rows of 2,000 (5.0%) cannot happen under it, it is 0.50 nats a row below a simpler "
        "density (Gaussian mixture of 8 (BIC)), and its 90% region holds 50.0% of the rows."
    )
    assert len(said.reasons) == 5


def test_long_names_are_cut_and_many_columns_counted() -> None:
    ranks = tuple(uniform("x" * 500 + str(i), distance=0.1, p_value=1e-12) for i in range(9))
    said = verdict(found(ranks=ranks)).sentence
    assert "9 columns are not as in the data" in said
    assert "and 6 more" in said
    assert len(said) < 400


def test_every_limit_says_why() -> None:
    assert all(limit.why and limit.care <= limit.no for limit in LIMITS.values())
