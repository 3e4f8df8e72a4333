"""Tables as they come, at their hardest: each is fitted in a moment to a finite density, or refused by name."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from diffeo.baselines import Marginals
from diffeo.config import FitConfig
from diffeo.data.frames import to_table
from diffeo.model import Model

RNG = np.random.default_rng(0)
N = 240


def pair(n: int = N) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    a = rng.normal(size=n)
    return {"a": a, "b": a + 0.5 * rng.normal(size=n)}


def with_a(change: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    columns = pair()
    return {**columns, "a": change(columns["a"])}


def outlier(size: float) -> dict[str, Any]:
    return with_a(lambda a: np.where(np.arange(len(a)) == 5, size, a))


TABLES: dict[str, dict[str, Any]] = {
    "plain": pair(),
    "times 1e6": with_a(lambda a: a * 1e6),
    "times 1e-6": with_a(lambda a: a * 1e-6),
    "times 1e150": with_a(lambda a: a * 1e150),
    "times 1e-150": with_a(lambda a: a * 1e-150),
    "unix time": {**pair(), "t": 1.6e9 + np.cumsum(np.random.default_rng(2).exponential(100, N))},
    "far from zero": with_a(lambda a: a + 1e9),
    "Cauchy": {"a": np.random.default_rng(3).standard_cauchy(N), "b": pair()["b"]},
    "outlier 1e20": outlier(1e20),
    "outlier 1e300": outlier(1e300),
    "a column twice": {**pair(), "again": pair()["a"]},
    "eight rows": pair(8),
    "three rows": pair(3),
    "integers only": {name: np.round(3 * cells).astype(int) for name, cells in pair().items()},
    "large integers": {name: np.round(1e6 * cells).astype(int) for name, cells in pair().items()},
    "near-singular": with_a(lambda a: pair()["b"] + 1e-6 * a),
    "nearly constant": with_a(lambda a: 1 + 1e-9 * a),
    "40 columns of 100 rows": {
        f"c{i}": cells for i, cells in enumerate(np.random.default_rng(4).normal(size=(40, 100)))
    },
    "categories only": {
        "kind": np.random.default_rng(5).choice(list("abc"), N),
        "flag": np.random.default_rng(6).random(N) < 0.2,
    },
    "half on an atom": with_a(lambda a: np.where(a > 0, a, 0.0)),
    "nearly all on an atom": with_a(lambda a: np.where(a > 2, a, 0.0)),
    "two far clusters": with_a(lambda a: a + 1e5 * (np.arange(len(a)) % 2)),
    "one column": {"a": pair()["a"]},
    "one column of two values": {"a": np.arange(N) % 2},
    "one category": {"kind": np.random.default_rng(5).choice(list("abc"), N)},
    "half missing": with_a(lambda a: np.where(np.arange(len(a)) % 2 == 0, np.nan, a)),
    "an angle on a cut": {"angle": np.random.default_rng(7).normal(0, 20, N) % 360, "b": pair()["b"]},
    "dates": {"day": np.datetime64("2020-01-01") + np.arange(N).astype("timedelta64[D]"), "b": pair()["b"]},
}
KINDS = {"an angle on a cut": {"angle": "circular:360"}}


@pytest.mark.parametrize("name", TABLES)
def test_hard_tables(name: str) -> None:
    """Finite on rows held out, at least as good there as its start, and as the product of the marginals."""
    columns = TABLES[name]
    data = {column: list(cells) if cells.dtype.kind == "U" else cells for column, cells in columns.items()}
    config = FitConfig(epochs=2, hidden=8, components=2, kinds=KINDS.get(name, {}))
    model = Model.fit(data, config=config)
    card = model.card
    assert card.valid_log_prob is not None
    assert np.isfinite(card.valid_log_prob)
    assert max(step.valid or -np.inf for step in model.findings.history) >= card.start_log_prob - 1e-9
    scores = model.log_prob(data)
    x = model.schema.encode(to_table(data)[0])
    whole = ~np.isnan(x).any(1) & (np.abs(x) < 1e250).all(1)  # an outlier of 1e300 is beyond the support
    assert (np.isnan(scores) == np.isnan(x).any(1)).all()
    assert np.isfinite(scores[whole]).all()
    ahead = scores[whole] - Marginals.fit(x[whole], model.schema).log_prob(x[whole])
    error = ahead.std() / np.sqrt(len(ahead))
    assert ahead.mean() > -0.1 * len(model.schema.row_columns) - 3 * error
    drawn = model.sample(200, seed=0)
    assert to_table(drawn)[0].num_rows == 200
    assert np.isfinite(model.log_prob(drawn)).mean() > 0.95
