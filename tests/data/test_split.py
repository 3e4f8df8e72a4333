"""Splits: a row's fate depends on nothing but its number, its word or its time."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from diffeo.data.split import held_out, split_by_column, split_by_time
from diffeo.errors import DataError


def test_fraction_and_independence() -> None:
    n = 200_000
    mask = held_out(n, 0.1, seed=3)
    # binomial: five standard errors, false alarm below 1e-6
    assert abs(mask.mean() - 0.1) < 5 * np.sqrt(0.09 / n)
    both = (mask & held_out(n, 0.1, seed=4)).mean()
    assert abs(both - 0.01) < 5 * np.sqrt(0.0099 / n)
    assert abs((mask[1:] & mask[:-1]).mean() - 0.01) < 6 * np.sqrt(0.0099 / n)
    parts = [held_out(k, 0.1, seed=3, first_row=first) for first, k in ((0, 70_000), (70_000, 130_000))]
    assert np.array_equal(np.concatenate(parts), mask)
    assert np.array_equal(held_out(10, 0.1, 3), mask[:10])
    assert not held_out(100, 0.0).any()
    assert held_out(0).shape == (0,)
    assert held_out(5, seed=-1).shape == (5,)
    with pytest.raises(DataError, match="at least 0 and below 1"):
        held_out(3, 1.0)


def test_by_column() -> None:
    assert split_by_column(pa.array([True, False])).tolist() == [True, False]
    assert split_by_column(pa.array([0, 1])).tolist() == [False, True]
    assert split_by_column(["Train", "test", "valid"]).tolist() == [False, True, True]
    with pytest.raises(DataError, match="column 'fold', row 2: 'maybe' does not say"):
        split_by_column(["train", "maybe"], "fold")
    with pytest.raises(DataError, match="row 1: None"):
        split_by_column([None, "train"])
    with pytest.raises(DataError, match="no row is held out"):
        split_by_column(["train", "train"])


def test_by_time() -> None:
    day = dt.date(2020, 1, 1)
    days = pa.array([day + dt.timedelta(days=k) for k in (5, 1, 9, 3)])
    assert split_by_time(days, 0.25).tolist() == [False, False, True, False]
    text = pa.array(["2020-01-05", "2020-01-01", "2020-01-09", "2020-01-03"])
    assert split_by_time(text, 0.5).tolist() == [True, False, True, False]
    assert split_by_time(np.array([1, 1, 1, 2]), 0.9).tolist() == [False, False, False, True]
    with pytest.raises(DataError, match="all rows are of one moment"):
        split_by_time(np.ones(4))
    with pytest.raises(DataError, match="row 2 has no time"):
        split_by_time(pa.array([1.0, None]))
