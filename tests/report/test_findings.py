"""Findings: the right counts, no rows, and the way to JSON and back."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from diffeo.data.column import Column
from diffeo.data.schema import Schema
from diffeo.errors import ModelError
from diffeo.report.findings import Bars, Findings, Histogram, baseline_of, compare, score_of, summarise
from diffeo.report.summaries import bin_edges, strongest_pairs

from .cases import findings, table


def test_json_and_back() -> None:
    found = findings(table())
    assert Findings.from_json(found.to_json()) == found
    assert Findings.from_json(found.to_json().encode()).to_json() == found.to_json()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema_version": 1}', "[" * 100_000, b"\xff\xfe"])
def test_damaged_findings_are_refused(text: str | bytes) -> None:
    with pytest.raises(ModelError, match="damaged"):
        Findings.from_json(text)


def test_newer_findings_are_refused_as_such() -> None:
    with pytest.raises(ModelError, match="version 2, newer"):
        Findings.from_json('{"schema_version": 2, "wonders": []}')


def test_every_row_is_counted_once() -> None:
    data = table(500)
    schema = Schema.infer(data)
    x = schema.encode(data)
    marginals, pairs = summarise(x, schema)
    assert [m.name for m in marginals] == list(schema.names)
    for m in marginals:
        total = sum(m.counts) + (m.under + m.over if isinstance(m, Histogram) else m.other)
        assert total == 500, m.name
        if isinstance(m, Histogram):
            assert len(m.counts) <= 60
            assert (np.diff(m.edges) > 0).all()
    for p in pairs:
        assert len(p.counts) == len(p.x_edges) - 1 <= 40
        assert {len(line) for line in p.counts} == {len(p.y_edges) - 1}
        assert 480 <= sum(map(sum, p.counts)) <= 500
    assert (pairs[0].x, pairs[0].y) == ("a", "b")
    assert len(pairs) <= 15


def test_samples_that_are_the_data_are_counted_as_the_data() -> None:
    data = table()
    schema = Schema.infer(data, given=["yes"])
    x = schema.encode(data)
    marginals, pairs = summarise(x, schema)
    found = findings(data, samples=False, marginals=marginals, pairs=pairs, given=["yes"])
    narrow = x[:, [column.role == "row" for column in schema.columns]]
    for samples in (x, narrow):
        both = compare(found, samples, schema)
        assert both.rows_sampled == len(x)
        assert "yes" not in [m.name for m in both.marginals]
        assert all(m.sample_counts == m.counts for m in both.marginals)
        assert all(p.sample_counts == p.counts for p in both.pairs)
        assert all(p.sample_rank_correlation == p.rank_correlation for p in both.pairs)


def test_samples_far_off_and_not_finite_are_counted_beyond() -> None:
    data = table().select(["a", "b"])
    schema = Schema.infer(data)
    found = compare(findings(data), np.array([[1e300, np.inf], [-1e300, -np.inf], [np.nan, 9.0]]), schema)
    a, b = found.marginals
    assert isinstance(a, Histogram)
    assert isinstance(b, Histogram)
    assert (a.sample_under, a.sample_over, sum(a.sample_counts or ())) == (1, 1, 0)
    assert (b.sample_under, b.sample_over, sum(b.sample_counts or ())) == (1, 1, 1)
    assert Findings.from_json(found.to_json()) == found


def test_no_row_of_numbers_is_kept() -> None:
    rng = np.random.default_rng(7)
    values = {name: rng.normal(0, 30, 250) for name in "abc"} | {"d": np.exp(rng.normal(0, 4, 250))}
    found = findings(pa.table(values), fingerprint="")
    shown = {float(f"{v:.12g}") for v in np.concatenate(list(values.values()))}
    kept: set[float] = set()

    def walk(part: object) -> None:
        if isinstance(part, dict | list):
            for inner in part.values() if isinstance(part, dict) else part:
                walk(inner)
        elif isinstance(part, float):
            kept.add(float(f"{part:.12g}"))

    walk(json.loads(found.to_json()))
    assert len(kept) > 100
    assert not shown & kept


def test_rare_levels_are_not_named() -> None:
    words = [f"common{k}" for k in range(31)] * 10 + ["canary-7f3a"]
    found = findings(pa.table({"word": words, "n": np.random.default_rng(0).normal(size=len(words))}), samples=False)
    (bars, _) = found.marginals
    assert isinstance(bars, Bars)
    assert len(bars.levels) == 30
    assert bars.other_levels == 2
    assert sum(bars.counts) + bars.other == found.rows_train
    assert "canary" not in json.dumps([m.model_dump() for m in found.marginals])


def test_the_data_is_named_without_its_place() -> None:
    for name in ("/secret/place/t.csv", r"C:\secret\t.csv", "secret/t.csv", "/secret/t.csv/"):
        assert findings(table(), samples=False, data=name).data == "t.csv"
    assert findings(table(), samples=False, data="t\udcff.csv").data == "t?.csv"
    assert str(Path.cwd()) not in findings(table(), samples=False, data=str(Path.cwd() / "t.csv")).to_json()


def test_rounded_columns_are_the_bounds() -> None:
    found = findings(table(), samples=False)
    assert found.bounds == ("rounded", "day")
    assert {c.name: c.counts_as for c in found.columns}["a"] == "density"
    assert {c.name: c.counts_as for c in found.columns}["word"] == "mass"


def test_scores_and_paired_differences() -> None:
    rng = np.random.default_rng(3)
    common, gain = rng.normal(0, 5, 1000), rng.normal(0.5, 0.1, 1000)
    both = baseline_of("b", common + gain, common)
    assert both.ahead.mean == pytest.approx(gain.mean())
    assert both.ahead.standard_error == pytest.approx(gain.std(ddof=1) / 1000**0.5)
    model, plain = np.array([0.0, -np.inf, 1.0, 2.0, np.nan]), np.array([0.0, 0.0, -np.inf, -np.inf, 1.0])
    odd = baseline_of("b", model, plain)
    assert (odd.ahead.n, odd.ahead.mean, odd.ahead.minus_infinite, odd.ahead.others) == (4, 0.0, 1, 2)
    assert (odd.score.n, odd.score.minus_infinite) == (5, 2)
    for few in (np.zeros(0), np.full(3, -np.inf), np.full(2, np.nan), np.ones(1)):
        assert score_of(few).standard_error is None


@pytest.mark.parametrize("most", [7, 40, 60])
def test_bins_are_rising_and_few_for_any_values(most: int) -> None:
    rng = np.random.default_rng(0)
    shapes = [
        rng.standard_cauchy(3000),
        np.r_[rng.normal(size=200), 1e20],
        np.full(5, 3.25),
        np.zeros(4),
        np.zeros(0),
        1.6e9 + rng.random(50),
        1e300 * rng.normal(size=99),
        1e-300 * rng.normal(size=99),
        np.array([-1.7e308, 1.7e308]),
        np.array([1.0, np.nextafter(1.0, 2)]),
    ]
    for kind in ("continuous", "positive"):
        for v in shapes:
            edges = bin_edges(Column(name="v", kind=kind, type="double"), v, most)  # type: ignore[arg-type]
            assert 2 <= len(edges) <= most + 1
            assert np.isfinite(edges).all()
            assert (np.diff(edges) > 0).all()


def test_one_far_value_does_not_stretch_the_bins() -> None:
    column = Column(name="v", kind="continuous", type="double")
    v = np.r_[np.random.default_rng(0).normal(size=200), 1e20]
    assert bin_edges(column, v, 60)[-1] < 10


def test_dependence_is_seen_where_correlation_is_none_and_only_there() -> None:
    rng = np.random.default_rng(5)
    u = rng.normal(size=(2000, 70))
    u[:, 3] = np.sin(3 * u[:, 1]) + 0.1 * rng.normal(size=2000)
    u[:, 9] = u[:, 3] + u[:, 8]
    pairs = strongest_pairs(u[:, :12], 3)
    assert {(i, j) for i, j, _, _ in pairs} == {(1, 3), (3, 9), (8, 9)}
    assert max(p[3] for p in strongest_pairs(u[:, 20:30], 1)) < 0.05
    assert len(strongest_pairs(u, 15)) == 15
    assert strongest_pairs(u[:, :1], 15) == strongest_pairs(u[:1], 15) == strongest_pairs(u[:0], 15) == []
    assert len(strongest_pairs(np.zeros((20, 3)), 15)) == 3
