"""Tables and findings to report on, and the names that try to break a page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import kstest, norm

from diffeo.baselines import Gaussian, Marginals
from diffeo.data.schema import Schema
from diffeo.report.evidence import Coverage, Evidence, Extreme, TwoSample, Uniformity, Verdict
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


def uniformity(name: str, z: np.ndarray) -> Uniformity:
    """What is kept of numbers z [n] that are standard normal where the density is right."""
    u = norm.cdf(z)
    test = kstest(u, "uniform")
    return Uniformity(
        name=name,
        counts=np.histogram(u, 20, (0, 1))[0].tolist(),
        mean=z.mean(),
        deviation=z.std(),
        distance=test.statistic,
        p_value=test.pvalue,
    )


def evidence(
    names: Sequence[str],
    rows: int = 2000,
    off: Mapping[str, tuple[float, float]] | None = None,
    whole: tuple[float, float] = (0.0, 1.0),
    accuracy: float = 0.5,
    seed: int = 0,
) -> Evidence:
    """Evidence of a right model, but for the columns in `off` and the rows as a `whole`: normals of this mean and
    spread; and for a classifier that is right this often."""
    rng = np.random.default_rng(seed)

    def drawn(name: str, moved: tuple[float, float]) -> Uniformity:
        return uniformity(name, moved[0] + moved[1] * rng.normal(size=rows))

    off = off or {}
    levels = norm.cdf(whole[0] + whole[1] * rng.normal(size=rows))
    found = [(q, float((levels < q).mean())) for q in (0.5, 0.9, 0.99)]
    n = 2 * rows
    right = float(rng.binomial(n, accuracy) / n)
    return Evidence(
        rows=rows,
        latents=tuple(drawn(name, off.get(name, (0.0, 1.0))) for name in names),
        length=drawn("length", whole),
        ranks=tuple(drawn(name, off.get(name, (0.0, 1.0))) for name in names),
        levels=uniformity("levels", norm.ppf(np.clip(levels, 1e-9, 1 - 1e-9))),
        regions=tuple(
            Coverage(nominal=q, found=share, standard_error=(share * (1 - share) / rows) ** 0.5) for q, share in found
        ),
        two_sample=TwoSample(
            classifier="gradient-boosted trees", accuracy=right, standard_error=(right * (1 - right) / n) ** 0.5, n=n
        ),
    )


def extremes(lowest: float, names: Sequence[str] = (), count: int = 10) -> tuple[Extreme, ...]:
    """Rows of which the first is the least likely; with values where columns are named."""
    values = {name: f"{k + 1234.5:.6g}" for k, name in enumerate(names)} or None
    return tuple(Extreme(row=7 + 1313 * k, log_prob=lowest + 0.7 * k, values=values) for k in range(count))


VERDICTS = {
    "yes": Verdict(
        trust="yes",
        sentence="Held-out rows fall where the model says, and no simpler density comes near it.",
        reasons=("3.02 nats a row above the Gaussian.", "No column is off.", "A classifier cannot tell samples."),
    ),
    "with care": Verdict(
        trust="with care",
        sentence="The model beats every simpler density, but it is too narrow in two columns.",
        reasons=("Too narrow: b.", "Its 90% region holds 84% of held-out rows."),
    ),
    "no": Verdict(
        trust="no",
        sentence="Held-out rows do not fall where the model says.",
        reasons=("A Gaussian describes them better.",),
    ),
}
