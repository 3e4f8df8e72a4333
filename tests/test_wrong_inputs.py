"""The one table of wrong inputs to the core: each a builder, the exception, and a regular expression that names the
argument, what was expected and what came. Files, frames, options and commands have theirs in `test_bad_input.py`."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffeo import bases, nets, scalars
from diffeo import transforms as T
from diffeo.errors import DataError, DiffeoError, ShapeError
from diffeo.flow import Flow, Mixture
from diffeo.mixtures import AutoregressiveMixture
from diffeo.transforms import Partition

X, C = torch.zeros(4, 2), torch.zeros(4, 3)
HALVES = Partition.halves(2)
EYE = torch.eye(2)[None]
NORMAL = bases.StandardNormal(2)
ONE = torch.ones(1)


def flow(context: int = 0) -> Flow:
    return Flow(T.Coupling(HALVES, scalars.spline(), lambda i, o: nets.MLP(i, o, (8,), context)), NORMAL)


def gated(context: int) -> bases.GaussianMixture:
    return bases.GaussianMixture(1, 2, gate=nets.MLP(context, 2))


def moments(weights: torch.Tensor = ONE, means: torch.Tensor = X[:1], covariances: torch.Tensor = EYE) -> Any:
    return bases.GaussianMixture.from_moments(weights, means, covariances)


P, G = flow(), flow(3)
MIXED = Mixture([NORMAL, bases.Uniform(-1, 1, 2)])
Wrong = tuple[Callable[[], object], type[DiffeoError], str]

ROWS: dict[str, Wrong] = {
    "x too wide": (lambda: P(torch.zeros(4, 3)), ShapeError, r"x: expected shape \[n, 2\], got \[4, 3\]"),
    "x one row": (lambda: P(X[0]), ShapeError, r"x: expected shape \[n, 2\], got one row \[2\]; pass x\[None\]"),
    "x of 3 dimensions": (lambda: P(X[..., None]), ShapeError, r"x: expected shape \[n, 2\], got \[4, 2, 1\]"),
    "x a number": (lambda: P(torch.tensor(1.0)), ShapeError, r"x: expected shape \[n, 2\], got \[\]"),
    "x an array": (lambda: P(X.numpy()), DataError, r"x: expected a torch.Tensor, got ndarray; pass torch.as_tensor"),
    "x a list": (lambda: P([[1.0, 2.0]]), DataError, "x: expected a torch.Tensor, got list"),
    "x None": (lambda: P(None), DataError, "x: expected a torch.Tensor, got NoneType"),
    "x integers": (
        lambda: P(X.long()),
        DataError,
        r"x: expected floating-point numbers, got torch.int64; pass x.float",
    ),
    "x complex": (lambda: P(X + 0j), DataError, "x: expected floating-point numbers, got torch.complex64"),
    "x truths": (lambda: P(X > 0), DataError, "x: expected floating-point numbers, got torch.bool"),
    "x NaN": (lambda: P(torch.tensor([[0, 0], [math.nan, 1]])), DataError, "x: expected numbers, got NaN in row 1"),
    "to_latent NaN": (lambda: P.to_latent(X / 0), DataError, "x: expected numbers, got NaN in row 0"),
    "to_latent inf": (lambda: P.to_latent(X + math.inf), DataError, "x: expected finite numbers, got inf in row 0"),
    "to_latent width": (lambda: P.to_latent(C), ShapeError, r"x: expected shape \[n, 2\], got \[4, 3\]"),
    "from_latent NaN": (lambda: P.from_latent(X / 0), DataError, "z: expected numbers, got NaN in row 0"),
    "from_latent inf": (lambda: P.from_latent(X - math.inf), DataError, "z: expected finite numbers, got inf in row 0"),
    "from_latent width": (lambda: P.from_latent(C), ShapeError, r"z: expected shape \[n, 2\], got \[4, 3\]"),
    "trace inf": (lambda: P.trace(X + math.inf), DataError, "z: expected finite numbers, got inf in row 0"),
    "trace no context": (lambda: G.trace(X), ShapeError, "context: this flow takes 3 context features, got none"),
    "no context": (lambda: G(X), ShapeError, "context: this flow takes 3 context features, got none; pass context="),
    "a context": (lambda: P(X, C), ShapeError, "context: this flow takes no context, got one; leave context= out"),
    "context width": (lambda: G(X, X), ShapeError, r"context: expected shape \[4, 3\], got \[4, 2\]"),
    "context one row": (lambda: G(X, C[0]), ShapeError, r"context: expected shape \[4, 3\], got \[3\]"),
    "context rows": (lambda: G(X, C[:3]), ShapeError, "context: expected one row per row of data, 4, got 3; repeat it"),
    "context NaN": (lambda: G(X, C / 0), DataError, "context: expected numbers, got NaN in row 0"),
    "context inf": (lambda: G(X, C + math.inf), DataError, "context: expected finite numbers, got inf in row 0"),
    "context list": (lambda: G(X, [1.0]), DataError, "context: expected a torch.Tensor, got list"),
    "context integers": (lambda: G(X, C.int()), DataError, "context: expected floating-point numbers, got torch.int32"),
    "draws -1": (lambda: P.sample(-1), ShapeError, "n: expected a number of draws, 0 or more, got -1"),
    "draws True": (lambda: P.sample(True), ShapeError, "n: expected a number of draws, 0 or more, got True"),
    "draws 2.5": (lambda: P.sample(2.5), ShapeError, r"n: expected a number of draws, 0 or more, got 2\.5"),
    "draws None": (lambda: P.sample(None), ShapeError, "n: expected a number of draws, 0 or more, got None"),
    "draws and scores -1": (lambda: P.sample_and_log_prob(-1), ShapeError, "n: expected a number .* got -1"),
    "draws, no context": (lambda: G.sample(3), ShapeError, "context: this flow takes 3 context features, got none"),
    "draws, a context": (lambda: P.sample(3, C), ShapeError, "context: this flow takes no context, got one"),
    "draws, context one row": (lambda: G.sample(3, C[0]), ShapeError, r"context: expected shape \[m, 3\], got \[3\]"),
    "draws, context NaN": (lambda: G.sample(3, C / 0), DataError, "context: expected numbers, got NaN in row 0"),
    "draws, a seed": (lambda: P.sample(3, generator=7), DataError, r"generator: expected a torch\.Generator, got 7"),
    "value width": (
        lambda: P.distribution().log_prob(C),
        ShapeError,
        r"value: expected shape \[..., 2\], got \[4, 3\]",
    ),
    "value rows": (
        lambda: G.distribution(C).log_prob(X[:3]),
        ShapeError,
        r"value: expected shape \[..., 4, 2\], got \[3, 2\]",
    ),
    "distribution, no context": (lambda: G.distribution(), ShapeError, "context: this flow takes 3 .* got none"),
    "distribution, a context": (lambda: P.distribution(C), ShapeError, "context: this flow takes no context, got one"),
    "mixture width": (lambda: MIXED(C), ShapeError, r"x: expected shape \[n, 2\], got \[4, 3\]; this mixture has"),
    "mixture NaN": (lambda: MIXED(X / 0), DataError, "x: expected numbers, got NaN in row 0"),
    "mixture draws -1": (lambda: MIXED.sample(-1), ShapeError, "n: expected a number of draws, 0 or more, got -1"),
    "mixture, a context": (lambda: MIXED(X, C), ShapeError, "context: this mixture takes no context, got one"),
}

PARTS: dict[str, Wrong] = {
    "flow of no transform": (
        lambda: Flow(nets.MLP(2, 2), NORMAL),
        ShapeError,
        "transform: expected a Transform, got MLP",
    ),
    "flow of no base": (lambda: Flow(T.LU(2), nets.MLP(2, 2)), ShapeError, "base: expected a Density, got MLP"),
    "flow of 3 over 2": (lambda: Flow(T.LU(3), NORMAL), ShapeError, r"LU moves events of 3 columns, got .* \[2\]"),
    "flow of 4 over 2": (
        lambda: Flow(T.Chain(T.Coupling(Partition.halves(4), scalars.affine(), nets.MLP)), NORMAL),
        ShapeError,
        r"Coupling moves events of 4 numbers, got events of shape \[2\]",
    ),
    "flow of columns": (lambda: Flow(T.Log([5]), NORMAL), ShapeError, r"Log moves events of 6 columns or more, got"),
    "flow of units": (
        lambda: Flow(T.Standardize(torch.zeros(3), torch.ones(3)), NORMAL),
        ShapeError,
        r"Standardize moves events of shape \[3\], got events of shape \[2\]",
    ),
    "flow of an inverse": (
        lambda: Flow(T.Inverse(T.Autoregressive([0, 1, 2], scalars.affine(), nets.MaskedMLP)), NORMAL),
        ShapeError,
        "Autoregressive moves events of 3 numbers",
    ),
    "flow of channels": (lambda: Flow(T.ActNorm(3), NORMAL), ShapeError, "ActNorm moves events of 3 channels of 1"),
    "flow of an event": (
        lambda: Flow(T.Chain(), NORMAL, event_shape=(3,)),
        ShapeError,
        r"event_shape: expected as many .* \[2\], got \[3\]",
    ),
    "flow, on_nan": (
        lambda: Flow(T.Chain(), NORMAL, on_nan="skip"),
        ShapeError,
        "on_nan: expected raise or nan, got 'skip'",
    ),
    "two contexts": (
        lambda: Flow(T.Chain(G.transform, flow(1).transform), NORMAL),
        ShapeError,
        r"context_features: parts of one flow must take the same context, got \[1, 3\]",
    ),
    "chain of a net": (lambda: T.Chain(nets.MLP(2, 2)), ShapeError, "transform: expected a Transform, got MLP"),
    "chain of a list": (lambda: T.Chain([T.LU(2)]), ShapeError, r"transform: expected a Transform, got \[LU\(\)\]"),
    "inverse of 3": (lambda: T.Inverse(3), ShapeError, "transform: expected a Transform, got 3"),
    "mixture of nothing": (lambda: Mixture([]), ShapeError, r"densities: expected one Density or more, got \[\]"),
    "mixture of shapes": (
        lambda: Mixture([bases.StandardNormal(1), NORMAL]),
        ShapeError,
        r"densities: expected one event shape, got \[\(1,\), \(2,\)\]",
    ),
    "mixture, logits": (
        lambda: Mixture([NORMAL], torch.zeros(2)),
        ShapeError,
        "logits: expected 1 finite numbers, got",
    ),
    "mixture, NaN": (lambda: Mixture([NORMAL], ONE / 0), ShapeError, r"logits: expected 1 finite numbers, got \[inf\]"),
    "partition": (
        lambda: T.Coupling(Partition((0,), (2,)), scalars.affine(), nets.MLP),
        ShapeError,
        r"partition: expected 0\.\.1 once each and something to move, got",
    ),
    "partition twice": (
        lambda: T.Coupling(Partition((0, 1), (1,)), scalars.affine(), nets.MLP),
        ShapeError,
        r"partition: expected 0\.\.2 once",
    ),
    "partition of nothing": (lambda: Partition.halves(0), ShapeError, "d: expected a whole number, 1 or more, got 0"),
    "checkerboard": (lambda: Partition.checkerboard((3,)), ShapeError, r"shape: expected that of a picture.* \(3,\)"),
    "coupling, outputs": (
        lambda: T.Coupling(Partition.halves(4), scalars.affine(), nets.MLP(2, 5)),
        ShapeError,
        "net: expected out_features=4, got 5; build it with out_features=4",
    ),
    "coupling, inputs": (
        lambda: T.Coupling(Partition.halves(4), scalars.affine(), nets.MLP(3, 4)),
        ShapeError,
        "net: expected in_features=2, got 3",
    ),
    "coupling, no net": (
        lambda: T.Coupling(HALVES, scalars.affine(), None),
        ShapeError,
        "net: expected a module, .* None",
    ),
    "coupling, no scalar": (
        lambda: T.Coupling(HALVES, None, nets.MLP),
        ShapeError,
        "scalar: expected a Scalar .* None",
    ),
    "order with a gap": (
        lambda: T.Autoregressive([0, 2], scalars.affine(), nets.MLP(2, 4)),
        ShapeError,
        r"order: expected a permutation of 0\.\.1, got \[0, 2\]",
    ),
    "order of nothing": (
        lambda: T.Autoregressive([], scalars.affine(), nets.MaskedMLP),
        ShapeError,
        r"order: expected a permutation .* \[\]",
    ),
    "order of the net": (
        lambda: T.Autoregressive([1, 0], scalars.affine(), nets.MaskedMLP([0, 1], 2)),
        ShapeError,
        r"net: expected order=\(1, 0\), got \(0, 1\); build both with one order",
    ),
    "net that sees all": (
        lambda: T.Autoregressive([0, 1], scalars.affine(), nets.MLP(2, 4)),
        ShapeError,
        r"net: expected order=\(0, 1\), got None",
    ),
    "bins 0": (lambda: scalars.spline(bins=0), ShapeError, "bins: expected a whole number, 1 or more, got 0"),
    "bins 1.5": (lambda: scalars.spline(bins=1.5), ShapeError, r"bins: expected a whole number, 1 or more, got 1\.5"),
    "bins 1000": (lambda: scalars.spline(bins=1000), ShapeError, "bins: expected at most 500, got 1000"),
    "bound 0": (lambda: scalars.spline(bound=0.0), ShapeError, r"bound: expected a finite number above 0, got 0\.0"),
    "bound NaN": (
        lambda: scalars.spline(bound=math.nan),
        ShapeError,
        "bound: expected a finite number above 0, got nan",
    ),
    "bound inf": (
        lambda: scalars.spline(bound=math.inf),
        ShapeError,
        "bound: expected a finite number above 0, got inf",
    ),
    "tails": (lambda: scalars.spline(tails="flat"), ShapeError, "tails: expected linear or circular, got 'flat'"),
    "limit 0": (lambda: scalars.affine(0.0), ShapeError, r"limit: expected a number above 0 .* got 0\.0"),
    "limit NaN": (lambda: scalars.affine(math.nan), ShapeError, "limit: expected a number above 0 .* got nan"),
    "permute a gap": (lambda: T.Permute([0, 2]), ShapeError, r"order: expected a permutation of 0\.\.1, got \[0, 2\]"),
    "permute twice": (lambda: T.Permute([0, 0]), ShapeError, r"order: expected a permutation of 0\.\.1, got \[0, 0\]"),
    "permute nothing": (lambda: T.Permute([]), ShapeError, r"order: expected a permutation .* got \[\]"),
    "permute 3 by 2": (lambda: T.Permute([1, 0])(C), ShapeError, r"Permute moves events of 2 columns, got .* \[3\]"),
    "flip nothing": (lambda: T.Flip(0), ShapeError, "d: expected a whole number, 1 or more, got 0"),
    "scale 0": (lambda: T.Standardize(X[0], X[0]), ShapeError, r"scale: expected finite numbers above 0, got 0\.0"),
    "scale below 0": (
        lambda: T.Standardize(ONE, -ONE),
        ShapeError,
        r"scale: expected finite numbers above 0, got -1\.0",
    ),
    "scale NaN": (lambda: T.Standardize(ONE, ONE * math.nan), ShapeError, "scale: expected finite .* got nan"),
    "loc inf": (lambda: T.Standardize(ONE / 0, ONE), ShapeError, "loc: expected finite numbers, got inf"),
    "scale of 3": (
        lambda: T.Standardize(X[0], torch.ones(3)),
        ShapeError,
        r"scale: expected a shape like .* \[2\], got \[3\]",
    ),
    "units of NaN": (lambda: T.Standardize.fit(X / 0), DataError, "x: expected finite numbers, got nan in row 0"),
    "units of inf": (
        lambda: T.Standardize.fit(X + math.inf),
        DataError,
        "x: expected finite numbers, got inf in row 0",
    ),
    "log of nothing": (lambda: T.Log([]), ShapeError, r"columns: expected one column or more, each once, got \[\]"),
    "log twice": (lambda: T.Log([0, 0]), ShapeError, r"columns: expected one column or more, each once, got \[0, 0\]"),
    "log of column -1": (lambda: T.Log([-1]), ShapeError, "columns: expected a whole number, 0 or more, got -1"),
    "asinh of nothing": (lambda: T.Asinh([]), ShapeError, r"columns: expected one column or more, each once, got \[\]"),
    "logit turned round": (
        lambda: T.Logit(low=1.0, high=0.0),
        ShapeError,
        "low: expected below high, got low=1.0, high=0.0",
    ),
    "logit NaN": (lambda: T.Logit(low=math.nan), ShapeError, "low: expected below high, got low=nan, high=1.0"),
    "logit inf": (lambda: T.Logit(low=-math.inf), ShapeError, "low, high: expected finite numbers, got low=-inf"),
    "logit of 3 for 2": (
        lambda: T.Logit([0, 1], [0.0] * 3, [1.0] * 3),
        ShapeError,
        "low, high: expected numbers, or one for each column",
    ),
    "LU of 0": (lambda: T.LU(0), ShapeError, "d: expected a whole number, 1 or more, got 0"),
    "LU of -1": (lambda: T.LU(-1), ShapeError, "d: expected a whole number, 1 or more, got -1"),
    "LU start": (lambda: T.LU(2, start="noise"), ShapeError, "start: expected identity or orthogonal, got 'noise'"),
    "ActNorm of 0": (lambda: T.ActNorm(0), ShapeError, "event_shape: expected a whole number, 1 or more, got 0"),
    "ActNorm of ()": (lambda: T.ActNorm(()), ShapeError, "event_shape: expected a whole number, 1 or more, got 0"),
    "ActNorm of wide rows": (lambda: T.ActNorm(2).initialize(C), ShapeError, "ActNorm moves events of 2 channels of 1"),
    "ActNorm of one row": (
        lambda: T.ActNorm(2).initialize(X[0]),
        ShapeError,
        r"ActNorm moves .* got events of shape \[\]",
    ),
    "ActNorm of no rows": (
        lambda: T.ActNorm(2).initialize(X[:0]),
        DataError,
        "batch: expected one row or more, got none",
    ),
    "ActNorm of NaN": (
        lambda: T.ActNorm(2).initialize(X / 0),
        DataError,
        "batch: expected finite numbers, got NaN or inf",
    ),
    "normal of 0": (
        lambda: bases.StandardNormal(0),
        ShapeError,
        "event_shape: expected a whole number, 1 or more, got 0",
    ),
    "normal of 1.5": (lambda: bases.StandardNormal(1.5), ShapeError, r"event_shape: expected .* got 1\.5"),
    "mixture of 0": (lambda: bases.GaussianMixture(0, 2), ShapeError, "features: expected a whole number, .* got 0"),
    "no components": (lambda: bases.GaussianMixture(2, 0), ShapeError, "components: expected a whole number, .* got 0"),
    "spread NaN": (
        lambda: bases.GaussianMixture(2, 2, spread=math.nan),
        ShapeError,
        "spread: expected a finite number",
    ),
    "gate": (
        lambda: bases.GaussianMixture(2, 2, gate=nets.MLP(3, 3)),
        ShapeError,
        "gate: expected out_features=2, got 3",
    ),
    "weights of 2": (
        lambda: moments(torch.ones(2), X[:2], EYE.repeat(2, 1, 1)),
        ShapeError,
        r"weights: expected shares that add up to 1, got \[1\.0, 1\.0\]",
    ),
    "weights below 0": (
        lambda: moments(torch.tensor([1.5, -0.5]), X[:2], EYE.repeat(2, 1, 1)),
        ShapeError,
        "weights: expected shares .* -0.5",
    ),
    "weights NaN": (lambda: moments(ONE * math.nan), ShapeError, "weights: expected finite numbers, got nan"),
    "weights for others": (lambda: moments(torch.ones(2) / 2), ShapeError, r"weights: expected shape \[1\], got \[2\]"),
    "means NaN": (lambda: moments(means=X[:1] / 0), ShapeError, "means: expected finite numbers, got nan"),
    "means flat": (lambda: moments(means=X[0]), ShapeError, r"means: expected shape \[k, d\], got \[2\]"),
    "covariances below 0": (
        lambda: moments(covariances=-EYE),
        ShapeError,
        "covariances: expected positive definite matrices; add a small",
    ),
    "covariances NaN": (lambda: moments(covariances=EYE * math.nan), ShapeError, "covariances: expected finite .* nan"),
    "covariances lopsided": (
        lambda: moments(covariances=torch.tensor([[[1.0, 0.9], [0.0, 1.0]]])),
        ShapeError,
        "covariances: expected symmetric",
    ),
    "covariances of 3": (
        lambda: moments(covariances=torch.eye(3)[None]),
        ShapeError,
        r"covariances: expected shape \[1, 2, 2\], got \[1, 3, 3\]",
    ),
    "Student of 0": (lambda: bases.StudentT(0), ShapeError, "features: expected a whole number, 1 or more, got 0"),
    "uniform turned round": (lambda: bases.Uniform(1, 0), ShapeError, r"low, high: expected finite .* got 1, 0"),
    "uniform NaN": (lambda: bases.Uniform(math.nan, 0), ShapeError, "low, high: expected finite .* got nan"),
    "uniform inf": (lambda: bases.Uniform(-math.inf, math.inf), ShapeError, "low, high: expected finite .* got -inf"),
    "uniform of 0": (lambda: bases.Uniform(features=0), ShapeError, "features: expected a whole number, .* got 0"),
    "product of nothing": (
        lambda: bases.Product(),
        ShapeError,
        "parts: expected bases of vectors, one or more, got none",
    ),
    "product of pictures": (
        lambda: bases.Product(bases.StandardNormal((3, 4, 4))),
        ShapeError,
        "parts: expected bases of vectors, .* Standard",
    ),
    "product of contexts": (
        lambda: bases.Product(gated(2), gated(3)),
        ShapeError,
        r"context_features: .* the same context, got \[2, 3\]",
    ),
    "hidden 0": (lambda: nets.MLP(2, 3, (0,)), ShapeError, "hidden: expected a whole number, 1 or more, got 0"),
    "hidden 64": (lambda: nets.MLP(2, 3, 64), ShapeError, r"hidden: expected a sequence of widths .* got 64"),
    "activation": (
        lambda: nets.MLP(2, 3, activation="swish"),
        ShapeError,
        "activation: expected one of relu, .* 'swish'",
    ),
    "dropout 1": (lambda: nets.MLP(2, 3, dropout=1.0), ShapeError, r"dropout: expected a share .* got 1\.0"),
    "inputs -1": (lambda: nets.MLP(-1, 3), ShapeError, "in_features: expected a whole number, 0 or more, got -1"),
    "outputs 0": (lambda: nets.MLP(2, 0), ShapeError, "out_features: expected a whole number, 1 or more, got 0"),
    "context -1": (
        lambda: nets.MLP(2, 3, context=-1),
        ShapeError,
        "context: expected a whole number, 0 or more, got -1",
    ),
    "net, no context": (lambda: nets.MLP(2, 3, context=1)(X), ShapeError, "context: this net takes 1 .* got none"),
    "residual width 0": (lambda: nets.ResMLP(2, 3, width=0), ShapeError, "width: expected a whole number, .* got 0"),
    "residual blocks -1": (
        lambda: nets.ResMLP(2, 3, blocks=-1),
        ShapeError,
        "blocks: expected a whole number, .* got -1",
    ),
    "masked order": (
        lambda: nets.MaskedMLP([0, 0], 2),
        ShapeError,
        r"order: expected a permutation of 0\.\.1, got \[0, 0\]",
    ),
    "masked width 0": (lambda: nets.MaskedMLP([0, 1], 0), ShapeError, "multiplier: expected a whole number, .* got 0"),
    "masked hidden 0": (
        lambda: nets.MaskedMLP([0, 1], 2, (0,)),
        ShapeError,
        "hidden: expected a whole number, .* got 0",
    ),
    "refined by a free net": (
        lambda: AutoregressiveMixture(bases.GaussianMixture(2, 2), nets.MLP(2, 12)),
        ShapeError,
        r"net: expected the order 0\.\.1 and 12 outputs, got \[\] and 12",
    ),
}

TABLE = {**ROWS, **PARTS}


@pytest.mark.parametrize("name", TABLE)
def test_wrong_inputs_are_named(name: str) -> None:
    act, kind, said = TABLE[name]
    with pytest.raises(DiffeoError) as caught:
        act()
    assert type(caught.value) is kind
    text = str(caught.value)
    assert re.search(said, text), text
    assert "\n" not in text
    assert 10 < len(text) < 300
    assert caught.value.exit_code == 2


def test_the_table_is_long_and_says_each_thing_once() -> None:
    said = {(kind, pattern) for _, kind, pattern in TABLE.values()}
    assert len(TABLE) == len(ROWS) + len(PARTS) >= 60
    assert len({name.lower() for name in TABLE}) == len(TABLE)
    assert len(said) >= 60
