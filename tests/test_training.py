"""The loop: best weights, repetition bit for bit, steps that fail, interruption and going on, schedules, weights."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffeo import training
from diffeo.errors import TrainingError
from diffeo.training import LOWEST, Interrupted, Problem, Settings, State, train

SHORT = Settings(batch_size=16, epochs=12, warmup=5, averaging=0.9, learning_rate=0.05, weight_decay=1e-3)


class Bell(nn.Module):
    """A normal whose mean is a parameter, seen through dropout."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.mean, self.dropout = nn.Parameter(torch.zeros(1, 2)), dropout
        self.log_scale = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        mean = F.dropout(self.mean.expand(len(x), 2), self.dropout, self.training)
        return (-0.5 * ((x - mean) * self.log_scale.exp()).square() + self.log_scale).sum(1)


def problem(
    n: int = 100, dropout: float = 0.0, weights: Tensor | None = None, spoil: Callable[[int], bool] | None = None
) -> tuple[Problem, nn.ModuleList]:
    """Two bells on two clouds; `spoil(step)` says where the log-probabilities are not numbers."""
    generator = torch.Generator().manual_seed(1)
    clouds = [torch.randn(n + 50, 2, generator=generator) + shift for shift in (1.0, -2.0)]
    bells = nn.ModuleList([Bell(dropout), Bell(dropout)])
    calls = iter(range(10**9))

    def log_probs(rows: Tensor) -> Tensor:
        found = torch.stack([bell(cloud[rows]) for bell, cloud in zip(bells, clouds, strict=True)], 1)
        return found * float("nan") if spoil is not None and spoil(next(calls)) else found

    def validate() -> Tensor:
        with torch.no_grad():
            return torch.stack([bell(cloud[n:]).mean() for bell, cloud in zip(bells, clouds, strict=True)])

    parts: list[tuple[str, nn.Module, float]] = [("near", bells[0], 1.0), ("far", bells[1], 0.5)]
    weights = torch.ones(n) if weights is None else weights
    return Problem(parts, log_probs, validate, weights, lambda rows: f"rows {rows.tolist()}, column x"), bells


def tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def run(settings: Settings = SHORT, **options: Any) -> tuple[dict[str, Tensor], State]:
    """The weights at the end of a run, and its state."""
    state, (task, bells) = State(), problem(**options)
    list(train(task, settings, state))
    return tensors(bells), state


def through_json(state: State) -> State:
    """A state as it comes back from a file."""
    return State(**json.loads(json.dumps(state.numbers(), allow_nan=False)), tensors=state.tensors)


def test_records_have_what_is_promised() -> None:
    task, _ = problem()
    records = list(train(task, SHORT, State()))
    promised = {"epoch", "step", "train", "valid", "rows_per_second", "progress", "seconds", "seconds_left", "stage"}
    assert all(promised <= record.keys() for record in records)
    assert (records[0]["step"], records[0]["train"], records[0]["progress"]) == (0, None, 0.0)
    assert records[-1]["epoch"] == 12.0
    assert records[-1]["progress"] == 1.0
    assert records[-1]["seconds_left"] == 0.0
    near, far = records[-1]["parts"].values()
    assert records[-1]["valid"] == pytest.approx(near + 0.5 * far)
    assert all(record["train"] is not None for record in records[1:])


def test_every_part_ends_at_its_own_best() -> None:
    """A rate so large that validation goes up and down."""
    state, (task, bells) = State(), problem()
    records = list(train(task, SHORT.model_copy(update={"learning_rate": 1.0, "averaging": 0.0}), state))
    best = {name: max(record["parts"][name] for record in records) for name in ("near", "far")}
    found = dict(zip(("near", "far"), task.validate().tolist(), strict=True))
    assert found == best
    assert state.best == list(best.values())
    assert min(record["parts"]["near"] for record in records[1:]) < best["near"]
    assert all(not module.training for module in bells)


def test_what_only_gets_worse_ends_where_it_began() -> None:
    task, bells = problem()
    before = tensors(bells)
    upside_down = replace(task, log_probs=lambda rows: -task.log_probs(rows))
    records = list(train(upside_down, SHORT.model_copy(update={"patience": 2}), State()))
    assert same(tensors(bells), before)
    assert len(records) == 3  # the start and two rounds without a gain
    assert records[-1]["valid"] < records[0]["valid"]
    assert records[-1]["best"] == records[0]["valid"]


def test_a_validation_that_is_no_number_is_never_the_best() -> None:
    task, bells = problem()
    before = tensors(bells)
    answers = iter([task.validate(), *[torch.tensor([float("nan"), float("inf")])] * 100])
    state = State()
    records = list(train(replace(task, validate=lambda: next(answers)), SHORT, state))
    assert same(tensors(bells), before)
    assert records[1]["parts"] == {"near": LOWEST, "far": LOWEST}
    through_json(state)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_same_seed_same_weights(dropout: float) -> None:
    torch.manual_seed(1)
    first, _ = run(dropout=dropout)
    torch.manual_seed(2)
    assert same(first, run(dropout=dropout)[0])
    assert not same(first, run(SHORT.model_copy(update={"seed": 1}), dropout=dropout)[0])
    assert dropout == 0 or not same(first, run()[0])


def test_randomness_outside_is_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    run(dropout=0.5)
    assert torch.equal(torch.get_rng_state(), before)


def test_validation_sees_no_dropout() -> None:
    seen = []
    task, bells = problem(dropout=0.5)
    watched = replace(task, validate=lambda: (seen.append(bells[0].training), task.validate())[1])
    list(train(watched, SHORT, State()))
    assert seen
    assert not any(seen)


# Steps that fail ----------------------------------------------------------------------------------------------------


def test_single_steps_that_fail_are_skipped_and_counted() -> None:
    weights, state = run(spoil=lambda call: call in (3, 4, 30))
    assert (state.skipped, state.returns) == (3, 0)
    assert all(value.isfinite().all() for value in weights.values())


def test_three_in_a_row_go_back_at_half_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the third the weights, averages and moments are those of the round's start."""
    seen = []
    back = training._Run.back

    def watched(self: Any, good: dict[str, Tensor]) -> None:
        back(self, good)
        now = self.snapshot()
        seen.append(same(now, good))

    monkeypatch.setattr(training._Run, "back", watched)
    rates = []
    step = training._Run.step

    def rated(self: Any, progress: float) -> None:
        rates.append(self.rate(progress))
        step(self, progress)

    monkeypatch.setattr(training._Run, "step", rated)
    weights, state = run(spoil=lambda call: call in (25, 26, 27))
    assert (seen, state.returns, state.skipped) == ([True], 1, 3)
    spoilt = list(rates)
    rates.clear()
    run()
    assert spoilt[:28] == rates[:28]
    assert spoilt[28:] == [rate / 2 for rate in rates[28:]]
    assert all(value.isfinite().all() for value in weights.values())


def test_looks_are_rare_where_they_would_make_an_accelerator_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every twentieth step: what failed changes nothing meanwhile, is counted, and the round goes back at its look."""
    begin, back = training._Run.begin, training._Run.back
    returned: list[int] = []

    def rarely(self: Any) -> None:
        begin(self)
        self.per_look = 20

    def noted(self: Any, good: dict[str, Tensor]) -> None:
        returned.append(self.state.step)
        back(self, good)

    often, _ = run(spoil=lambda call: call in (3, 4, 30))
    monkeypatch.setattr(training._Run, "begin", rarely)
    monkeypatch.setattr(training._Run, "back", noted)
    weights, state = run(spoil=lambda call: call in (3, 4, 30))
    assert same(weights, often)
    assert (state.skipped, returned) == (3, [])
    _, state = run(spoil=lambda call: call in (25, 26, 27, 31))
    assert (state.skipped, state.returns, returned) == (4, 1, [40])


def test_gradients_that_are_not_finite_count_as_failures() -> None:
    task, bells = problem()
    bells[0].mean.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingError, match=r"rows \[\d+, .*column x") as caught:
        list(train(task, SHORT, State()))
    assert caught.value.exit_code == 1


def test_after_three_returns_the_rows_are_named() -> None:
    task, bells = problem()
    bad = 17

    def log_probs(rows: Tensor) -> Tensor:
        found = task.log_probs(rows)
        return torch.where((rows == bad)[:, None], float("nan"), found)

    state = State()
    with pytest.raises(TrainingError, match=r"going back 3 times did not help; rows \[17\], column x; look at"):
        list(train(replace(task, log_probs=log_probs), SHORT.model_copy(update={"batch_size": 100}), state))
    assert (state.skipped, state.returns) == (12, 4)
    assert all(value.isfinite().all() for value in tensors(bells).values())


# Interruption -------------------------------------------------------------------------------------------------------


def interrupted(at: list[int], settings: Settings = SHORT, **options: Any) -> tuple[dict[str, Tensor], State]:
    """A run stopped when it asks for the k-th time, for every k in turn, and taken up in a fresh process each time."""
    state = State()
    for count in (*at, 10**9):
        task, bells = problem(**options)
        asked = iter(range(10**9))
        try:
            list(train(task, settings, state, stop=lambda asked=asked, count=count: next(asked) >= count))
        except Interrupted:
            state = through_json(state)
            continue
        return tensors(bells), state
    raise AssertionError("stopped for ever")


@pytest.mark.parametrize("at", [[0], [1], [7], [19], [20], [21], [40], [55], [83], [33, 0, 5, 25]], ids=str)
def test_going_on_ends_bit_for_bit_where_it_would_have_ended(at: list[int]) -> None:
    """84 steps in rounds of 20: stopped at the first, within rounds, between them, at the last, and several times."""
    whole, state = run(dropout=0.3)
    assert state.step == 84
    weights, other = interrupted(at, dropout=0.3)
    assert same(weights, whole)
    for name in ("step", "best", "best_steps", "schedule", "skipped", "stale"):
        assert getattr(other, name) == getattr(state, name), name
    unclocked = [
        [{key: value for key, value in record.items() if "second" not in key} for record in each.history]
        for each in (state, other)
    ]
    assert unclocked[0] == unclocked[1]


def test_going_on_after_failures() -> None:
    """Steps that fail as a matter of the weights and the step, around an interruption."""

    def bad(state: State) -> Callable[[int], bool]:
        return lambda call: state.step in (26, 27, 28, 47)

    def once(at: list[int]) -> tuple[dict[str, Tensor], State]:
        state = State()
        for count in (*at, 10**9):
            task, bells = problem(spoil=lambda call, state=state: bad(state)(call))
            asked = iter(range(10**9))
            try:
                list(train(task, SHORT, state, stop=lambda asked=asked, count=count: next(asked) >= count))
            except Interrupted:
                state = through_json(state)
                continue
            return tensors(bells), state
        raise AssertionError

    whole, state = once([])
    assert (state.returns, state.skipped) == (1, 4)
    for at in ([27], [29], [31], [46], [48]):
        weights, other = once(at)
        assert same(weights, whole), at
        assert (other.returns, other.skipped) == (1, 4)


def test_an_interruption_says_where() -> None:
    task, _ = problem()
    asked = iter(range(100))
    with pytest.raises(Interrupted, match=r"^interrupted after epoch 2\.857$") as end:
        list(train(task, SHORT, State(), stop=lambda: next(asked) >= 30))
    assert end.value.exit_code == 130


# Schedules ----------------------------------------------------------------------------------------------------------


class FakeClock:
    """Every look takes a while, a different one each time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.07 + 0.05 * (int(self.now * 100) % 3)
        return self.now


def test_a_run_by_the_clock_is_repeated_from_its_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.time, "monotonic", FakeClock())
    long = SHORT.model_copy(update={"epochs": 1000})
    state, (task, bells) = State(), problem(dropout=0.3)
    list(train(task, long, state, budget=3.0))
    assert 5 < len(state.schedule) < 60
    assert state.schedule[-1] >= 1
    assert state.schedule == sorted(state.schedule)
    again, other = run(long.model_copy(update={"schedule": tuple(state.schedule)}), dropout=0.3)
    assert same(again, tensors(bells))
    assert other.schedule == state.schedule
    assert (other.step, other.best_steps) == (state.step, state.best_steps)


def test_no_round_is_begun_that_would_go_far_past_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    monkeypatch.setattr(training.time, "monotonic", lambda: clock.now)
    task, _ = problem()

    def slow(rows: Tensor) -> Tensor:
        clock.now += 0.1  # 2 seconds a round
        return task.log_probs(rows)

    state = State()
    list(train(replace(task, log_probs=slow), SHORT, state, budget=5.0))
    assert clock.now == pytest.approx(4.0)
    assert state.schedule == [0.0, 0.4, 1.0]


# Weights ------------------------------------------------------------------------------------------------------------


def one_step(rows: Tensor, weights: Tensor) -> Tensor:
    """The gradient of a batch of all rows with weights, seen in the first moments of the optimiser."""
    bell = Bell()
    task = Problem([("bell", bell, 1.0)], lambda i: bell(rows[i])[:, None], lambda: torch.zeros(1), weights, str)
    made = training._Run(task, Settings(batch_size=len(rows), clip=1e9), State())
    made.step(0.0)
    assert made.look()
    return torch.cat([one.exp_avg for one in made.parts[0].vectors])


def test_a_row_of_weight_two_counts_twice_and_one_of_weight_zero_not_at_all() -> None:
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    w = torch.tensor([2.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    twice = one_step(x[[0, 0, 1, 3, 4, 5]], torch.ones(6))
    assert torch.allclose(one_step(x, w / w.mean()), twice, atol=1e-6)
    assert not torch.allclose(one_step(x, torch.ones(6)), twice, atol=1e-3)


def test_weights_are_not_evened_out_within_batches() -> None:
    """The gradients of batches add up to that of all rows, also where one batch holds all the weight."""
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    w = torch.tensor([4.0, 0.0, 0.0, 0.0])
    halves = [one_step(x[part], w[part]) for part in (slice(0, 2), slice(2, 4))]
    assert torch.allclose((halves[0] + halves[1]) / 2, one_step(x, w), atol=1e-6)
