"""Tables and findings to report on, and the names that try to break a page."""

from typing import Any

import numpy as np
import pyarrow as pa

from diffeo.baselines import Gaussian, Marginals
from diffeo.data.schema import Schema
from diffeo.report.findings import Findings, Step, baseline_of, compare, score_of, summarise

HOSTILE = (
    "</script><script>alert(1)</script>",
    "--><img src=x onerror=alert(1)>",
    '"><img onerror=alert(1) src=x>',
    "' onmouseover='alert(1)",
    '" style="background:url(https://example.com)" x="',
    "javascript:alert(1)",
    "<svg onload=alert(1)>",
    "</title></style></bdi><iframe src=//example.com>",
    "<style>*{display:none}</style>",
    "{{ 7*7 }}{% raw %}",
    "&lt;b&gt;&#60;b&#62;&amp;",
    "]]><!--<b>",
    "a\u2028b\u2029c\u202ed\u2066e\u200f",
)
AWKWARD = (
    "price_$_and_cost_$^",
    r"\frac{",
    r"$\undefined{x}$",
    "$$",
    "bell\x07\x00\x1b[31m tab\tline\nend\r",
    "\U0001f600\U0001f468\u200d\U0001f469 emoji",
    "日本語の列",
    "עברית العربية",
    "x" * 100_000,
    " ",
    "%s %d {0}",
)


def table(n: int = 300, seed: int = 0) -> pa.Table:
    """A column of every common kind."""
    rng = np.random.default_rng(seed)
    a = rng.normal(3, 0.01, n)
    start = np.datetime64("2020-01-01")
    return pa.table(
        {
            "a": a,
            "b": a**2 + rng.normal(0, 0.01, n),
            "skewed": np.exp(rng.normal(0, 2.5, n)),
            "rounded": np.round(rng.normal(50, 9, n), 1),
            "angle": rng.uniform(0, 360, n) % 360,
            "day": start + rng.integers(0, 500, n).astype("timedelta64[D]"),
            "word": rng.choice(["x", "y", "z"], n),
            "yes": rng.random(n) < 0.3,
            "count": rng.poisson(2, n),
        }
    )


def findings(data: pa.Table, /, samples: bool = True, ahead: float = 1.0, **more: Any) -> Findings:
    """Findings as a fit would make them, of a pretended model `ahead` nats above the marginals."""
    infer = {key: more.pop(key) for key in ("kinds", "given", "drop") if key in more}
    schema = Schema.infer(data, **infer)
    x = schema.encode(data)
    whole = ~np.isnan(x).any(1)
    train, valid = x[whole][::2], x[whole][1::2]
    marginals, pairs = summarise(train, schema)
    plain = Marginals.fit(train, schema).log_prob(valid)
    model = plain + ahead + np.random.default_rng(0).normal(0, 0.1, len(plain))
    fields: dict[str, Any] = {
        "data": "table.csv",
        "recipe": "auto",
        "fingerprint": "0123abc",
        "rows_train": len(train),
        "rows_valid": len(valid),
        "rows_with_holes": int((~whole).sum()),
        "model": score_of(model),
        "baselines": (
            baseline_of("Gaussian", model, Gaussian.fit(train, schema).log_prob(valid)),
            baseline_of("product of marginals", model, plain),
        ),
        "history": tuple(Step(epoch=k, step=10 * k, train=-1 / k, valid=-1.1 / k, seconds=k) for k in range(1, 9)),
        "marginals": marginals,
        "pairs": pairs,
        "parameters": 1234,
        "seed": 0,
    }
    found = Findings.of(schema, **(fields | more))
    return compare(found, train[::-1][: len(train) // 2], schema) if samples else found
