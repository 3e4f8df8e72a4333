"""The evidence: no alarm for a density that is right, and an alarm for each of the faults that it is there to find."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch

from diffeo import calibration
from diffeo.calibration import affordable, allowance, evidence, planned_seconds, ranks, samples_for, thinned, uniformity
from diffeo.data.column import Column
from diffeo.mixed import Mixed
from diffeo.report.evidence import Evidence
from diffeo.report.findings import Findings, baseline_of, score_of
from diffeo.report.verdict import verdict
from tests.tables import (
    BOOLEAN,
    CATEGORY,
    CIRCULAR,
    CONTINUOUS,
    COUNTS,
    INTEGER,
    POSITIVE,
    RAIN,
    ROUNDED,
    SPIKED,
    density,
    log_probs,
)

A = CONTINUOUS.model_copy(update={"name": "a"})
B = CONTINUOUS.model_copy(update={"name": "b"})
COARSE = ROUNDED.model_copy(update={"grid": ROUNDED.grid.model_copy(update={"step": 4.0})})  # type: ignore[union-attr]
KINDS = (CATEGORY, INTEGER, A, RAIN, COARSE, CIRCULAR)


def drawn(built: Mixed, n: int, seed: int = 1) -> np.ndarray:
    """n encoded rows [n, D] of a density, as they come back from a file."""
    x = np.zeros((n, len(built.layout.schema.columns)))
    return samples_for(built, x, torch.Generator().manual_seed(seed))


def judged(built: Mixed, x: np.ndarray, seed: int = 0, budget: float | None = None) -> tuple[Evidence, str]:
    """The evidence of rows, and the verdict on it beside one baseline that is far behind."""
    log_prob = log_probs(built, x)
    found = evidence(built, x, log_prob, seed=seed, budget=budget)
    assert found is not None
    findings = Findings.of(
        built.layout.schema,
        data="x.csv",
        recipe="auto",
        rows_train=1000,
        rows_valid=len(x),
        model=score_of(log_prob),
        baselines=(baseline_of("Gaussian", log_prob, log_prob - 3 - 0.1 * np.sin(np.arange(len(x)))),),
        evidence=found,
    )
    return found, verdict(findings).trust


def given(column: Column) -> Column:
    return column.model_copy(update={"role": "given"})


# A density that is right ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [(A, B), KINDS, (CATEGORY, BOOLEAN, INTEGER), (SPIKED, COUNTS), (POSITIVE,)])
@pytest.mark.parametrize("recipe", ["auto", "maf"])
def test_a_right_density_gets_no_alarm(columns: tuple[Column, ...], recipe: str) -> None:
    """About 25 p-values above 1e-4 for each density, and the verdict: all together, false alarm 2 %."""
    built, _ = density(columns, recipe)
    found, trust = judged(built, drawn(built, 1200))
    every = (*found.latents, *found.ranks, found.length, found.levels)
    assert min(one.p_value for one in every if one is not None) > 1e-4
    assert all(abs(one.found - one.nominal) < 4 * one.standard_error for one in found.regions)
    assert found.two_sample is not None
    assert abs(found.two_sample.accuracy - 0.5) < 5 * found.two_sample.standard_error
    assert trust == "yes"
    assert len(found.ranks) == len(found.latents) == len(columns)


def test_a_right_conditional_density_gets_no_alarm() -> None:
    """As above; the rank of a row among its own 49 draws is exactly uniform."""
    built, x = density([given(CATEGORY), A, given(B), ROUNDED], size=0.5, n=1000)
    x = samples_for(built, x, torch.Generator().manual_seed(5))
    found, trust = judged(built, x)
    assert min(one.p_value for one in (*found.latents, *found.ranks, found.levels) if one is not None) > 1e-4
    assert trust == "yes"
    assert [one.name for one in found.ranks] == ["a", "rounded"]


def test_the_false_alarm_rate_is_as_stated() -> None:
    """The density is right 30 times with 300 rows: 'no' never comes, 'with care' seldom. At a rate of 5 %, 6 or more
    of 30 come with a chance of 0.3 %."""
    built, _ = density([A, CATEGORY], size=0.3)
    x = drawn(built, 30 * 300)
    trusts = [judged(built, part, seed, budget=12.0)[1] for seed, part in enumerate(np.split(x, 30))]
    assert "no" not in trusts
    assert trusts.count("with care") < 6


# Faults ---------------------------------------------------------------------------------------------------------------


def narrower(x: np.ndarray) -> np.ndarray:
    """The data is wider than the density says by a quarter, so its spread is a fifth too small."""
    return x + 0.25 * (x - np.median(x, 0)) * [1, 0, 0]


def moved(x: np.ndarray) -> np.ndarray:
    """By 0.3 of the column's spread."""
    spread = 1.4826 * np.median(np.abs(x[:, 0] - np.median(x[:, 0])))
    return x + np.array([0.3 * spread, 0, 0])


def dependent(x: np.ndarray) -> np.ndarray:
    """The second column follows the order of the first; each alone is as it was."""
    y = x.copy()
    order = np.argsort(np.argsort(x[:, 0] + 2 * (x[:, 0].std()) * np.random.default_rng(0).normal(size=len(x))))
    y[:, 1] = np.sort(x[:, 1])[order]
    return y


def rarer(x: np.ndarray) -> np.ndarray:
    """A third of the rows of the first category belong to the second."""
    y = x.copy()
    y[(x[:, 2] == 0) & (np.arange(len(x)) % 3 == 0), 2] = 1
    return y


@pytest.mark.parametrize("fault", [narrower, moved, dependent, rarer], ids=lambda fault: fault.__name__)
def test_faults_are_found(fault: Callable[[np.ndarray], np.ndarray]) -> None:
    """Each with 2,000 rows, and none without the fault."""
    built, _ = density([A, B, CATEGORY], "auto", size=0.0)
    x = drawn(built, 2000)
    assert judged(built, x)[1] == "yes"
    found, trust = judged(built, fault(x))
    assert trust != "yes"
    latents = {one.name: one for one in found.latents}
    if fault is narrower:
        assert 1.15 < latents["a"].deviation < 1.5
        assert latents["b"].deviation == pytest.approx(1, abs=0.07)
    if fault is moved:
        assert latents["a"].mean > 0.2
    if fault is rarer:
        assert next(one for one in found.ranks if one.name == "category").p_value < 1e-4
        assert latents["a"].p_value > 1e-4
    if fault is dependent:
        assert found.two_sample is not None
        assert min(one.p_value for one in found.ranks) > 1e-4  # alone, every column is right


def test_a_sampler_that_does_not_match_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are the density's; samples come too near one another. Latents see nothing of it, ranks and regions do."""
    built, _ = density([A, B, CATEGORY], size=0.0)
    x = drawn(built, 2000)
    right = built.sample_given

    def wrong(rows, generator=None):  # type: ignore[no-untyped-def]
        found = right(rows, generator)
        return found - 0.35 * (found - np.median(found, 0)) * [1, 1, 0]

    monkeypatch.setattr(built, "sample_given", wrong)
    found, trust = judged(built, x)
    assert trust == "no"
    assert min(one.p_value for one in found.latents) > 1e-4
    assert min(one.p_value for one in found.ranks) < 1e-9
    assert found.regions[1].found < 0.85


def test_a_wrong_conditional_density_is_found() -> None:
    built, x = density([given(CATEGORY), A, B], size=0.0, n=2000)
    x = samples_for(built, x, torch.Generator().manual_seed(5))
    x[x[:, 0] == 0, 1] += x[:, 1].std()
    assert judged(built, x)[1] != "yes"


# What gives samples away must not be how they are written -------------------------------------------------------------


def test_rounding_and_types_do_not_give_samples_away() -> None:
    """Values with the noise of arithmetic, float32, angles at either end of the circle: 5 standard errors."""
    noisy = ROUNDED.model_copy(update={"name": "noisy", "grid": ROUNDED.grid.model_copy(update={"slack": 1e-9})})  # type: ignore[union-attr]
    single = A.model_copy(update={"type": "float"})
    built, _ = density([noisy, single, CIRCULAR])
    x = drawn(built, 1500)
    x[:, 0] += 1e-10
    x[:, 2] = np.where(np.arange(len(x)) % 2, x[:, 2], np.where(x[:, 2] < 0, x[:, 2] + 360, x[:, 2]))
    found, _ = judged(built, x)
    assert found.two_sample is not None
    assert abs(found.two_sample.accuracy - 0.5) < 5 * found.two_sample.standard_error
    assert min(one.p_value for one in found.ranks) > 1e-4


def test_given_values_tell_a_classifier_nothing() -> None:
    """A row and its sample share what is given; in different folds that would push the accuracy below one half."""
    built, x = density([given(A), given(B), BOOLEAN], n=2000)
    x = samples_for(built, x, torch.Generator().manual_seed(5))
    found, _ = judged(built, x)
    assert found.two_sample is not None
    assert abs(found.two_sample.accuracy - 0.5) < 4 * found.two_sample.standard_error


# The parts ------------------------------------------------------------------------------------------------------------


def test_evidence_is_repeatable_and_follows_its_seed() -> None:
    built, _ = density(KINDS)
    x = drawn(built, 300)
    first, again, other = (judged(built, x, seed)[0] for seed in (0, 0, 1))
    assert first == again != other


def test_few_rows_and_none() -> None:
    built, _ = density([A, CATEGORY])
    x = drawn(built, 49)
    assert judged(built, x)[0].two_sample is None
    assert judged(built, x[:1])[1] == "with care"
    assert evidence(built, x[:0], np.zeros(0)) is None


def test_impossible_rows_are_in_no_region_and_have_no_latent() -> None:
    built, _ = density([CATEGORY, A])
    x = drawn(built, 200)
    x[:50, 0] = 7
    found, trust = judged(built, x)
    assert trust == "no"
    assert sum(found.latents[0].counts) == 150
    assert max(one.found for one in found.regions) <= 0.8


def test_ranks_are_uniform_and_break_ties_at_random() -> None:
    rng = np.random.default_rng(0)
    v, among = rng.integers(0, 3, 4000).astype(float), rng.integers(0, 3, 4000).astype(float)
    found = uniformity("x", ranks(v, among, rng), 4000)
    assert found.p_value > 1e-3
    assert sum(found.counts) == 4000
    assert uniformity("x", ranks(v + 0.1, among, rng), 4000).p_value < 1e-9


def test_the_two_sample_p_value_is_scipys() -> None:
    rng = np.random.default_rng(0)
    v, among = rng.normal(size=300), rng.normal(0.1, 1, 500)
    found = uniformity("x", ranks(v, among, rng), 500)
    expected = scipy.stats.ks_2samp(v, among, method="asymp")
    assert found.distance == pytest.approx(expected.statistic, abs=0.004)
    assert found.p_value == pytest.approx(expected.pvalue, rel=0.15)


def test_thinning_gives_rows_of_equal_weight() -> None:
    """The mean of those kept is the weighted mean, to 5 standard errors; each row is kept once at most."""
    rng = np.random.default_rng(0)
    v, weights = rng.normal(size=20_000), rng.random(20_000)
    weights *= np.exp(-v)
    kept = thinned(weights, 0)
    assert len(np.unique(kept)) == len(kept) > 100
    assert abs(v[kept].mean() - np.average(v, weights=weights)) < 5 * v[kept].std() / math.sqrt(len(kept))
    assert thinned(np.full(5, 0.3), 0).tolist() == [0, 1, 2, 3, 4]


def test_how_many_rows_follows_from_numbers_alone() -> None:
    small, large = density([A])[0], density(KINDS)[0]
    for built in (small, large):
        counts = [affordable(built, budget) for budget in (1.0, 12.0, 120.0, None)]
        assert counts == sorted(counts)
        assert counts[0] >= calibration.LEAST
        assert counts[-1] <= calibration.MOST
        assert planned_seconds(built, 10**6, 120.0) <= 1.5 * allowance(120.0)
    assert affordable(large, 12.0) < affordable(small, 12.0)
