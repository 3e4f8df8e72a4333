"""The one list of every transform: a name, a builder, and what that transform cannot have, each with its reason.

``CASES`` are objects as they are; ``FAMILIES`` are built for any number of coordinates and any context, and tried by
hypothesis with any weights and the oddest numbers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffeo import attention, nets, scalars
from diffeo import transforms as T
from diffeo.convnets import ConvNet
from diffeo.picturenets import BottleneckResNet, GatedResNet
from diffeo.transforms import Partition
from diffeo.transforms.tokens import Split


@dataclass(frozen=True)
class Case:
    name: str
    build: Callable[[], T.Transform]
    event: tuple[int, ...]
    context: int = 0
    inputs: Callable[[Tensor], Tensor] | None = None  # from standard normal rows to rows within the support
    skip: Mapping[str, str] = field(default_factory=dict)  # property -> why this transform cannot have it
    scale: float = 0.3  # how far the parameters are moved from the identity

    def transform(self) -> T.Transform:
        """The transform with all its parameters moved away from the identity."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            transform = self.build()
            with torch.no_grad():
                for parameter in transform.parameters():
                    parameter.add_(self.scale * torch.randn(parameter.shape))
        return transform

    def rows(self, n: int = 16) -> Tensor:
        x = torch.randn(n, *self.event, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        return x if self.inputs is None else self.inputs(x)

    def contexts(self, n: int = 16) -> Tensor | None:
        generator = torch.Generator().manual_seed(2)
        return torch.randn(n, self.context, generator=generator, dtype=torch.float64) if self.context else None


@dataclass(frozen=True)
class Family:
    """A transform of d coordinates given c numbers of context: ``build(d, c)``."""

    build: Callable[[int, int], T.Transform]
    inputs: Callable[[Tensor], Tensor] | None = None
    skip: Mapping[str, str] = field(default_factory=dict)
    conditional: bool = False  # whether a context can be given

    def transform(self, d: int, context: int, scale: float, seed: int) -> T.Transform:
        """With all parameters moved away from the identity, and then multiplied by ``scale``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            transform = self.build(d, context)
            with torch.no_grad():
                for parameter in transform.parameters():
                    parameter.add_(0.3 * torch.randn(parameter.shape)).mul_(scale)
        return transform


def coupling(partition: Partition, scalar: scalars.Scalar, context: int = 0, net: type = nets.MLP) -> T.Coupling:
    kind = {"width": 16} if net is nets.ResMLP else {"hidden": (16, 16)}
    return T.Coupling(partition, scalar, lambda i, o: net(i, o, context=context, **kind))


def autoregressive(order: list[int], scalar: scalars.Scalar, context: int = 0) -> T.Autoregressive:
    return T.Autoregressive(order, scalar, lambda o, w: nets.MaskedMLP(o, w, hidden=(16, 16), context=context))


def elementwise(event: int | tuple[int, ...], scalar: scalars.Scalar, context: int = 0) -> T.Elementwise:
    net = (lambda i, o: nets.MLP(i, o, hidden=(16, 16), context=context)) if context else None
    return T.Elementwise(event, scalar, net)


def placed(d: int) -> T.Elementwise:
    """A mixture for each coordinate, its components at the quantiles of two humps."""
    layer = T.Elementwise(d, scalars.mixture_cdf(6))
    x = torch.randn(200, d)
    layer.initialize(0.5 * x + 1.5 * x.sign().roll(1, 0))
    return layer


def actnorm(event: int | tuple[int, ...]) -> T.ActNorm:
    norm = T.ActNorm(event)
    shape = (50, event) if isinstance(event, int) else (50, *event)
    norm.initialize(3 * torch.randn(shape) + 1)
    return norm


def settled(transform: T.Transform) -> T.Transform:
    if isinstance(transform, T.Conv1x1):
        transform.settle(3 * torch.randn(50, len(transform.norm.shift), 2, 2) + 1)
    return transform


def coupled(
    split: T.pictures.Split, event: tuple[int, int, int], flip: bool = False, context: int = 0, width: int = 16
) -> T.PictureCoupling:
    net = partial(ConvNet, width=width, context=context)
    return T.PictureCoupling(split, scalars.affine(), net, event, flip)


def pictures(split: T.pictures.Split, flip: bool) -> T.PictureCoupling:
    return coupled(split, (2, 4, 2), flip)


def residual(net: type[BottleneckResNet] | type[GatedResNet], context: int, **choices: Any) -> T.PictureCoupling:
    made = partial(net, width=8, blocks=1, context=context, **choices)
    return T.PictureCoupling("checkerboard", scalars.affine(), made, (2, 4, 2))


def glow(event: tuple[int, int, int]) -> T.Multiscale:
    """Two levels of two steps, with a prior for what leaves."""

    def level(shape: tuple[int, int, int], last: bool) -> T.Chain:
        steps = [part for _ in range(2) for part in (T.Conv1x1(shape), coupled("channels", shape))]
        return T.Chain(T.Squeeze(), *steps, *([] if last else [coupled("channels", shape, width=0)]))

    c, height, width = event
    shapes = [(4 * c, height // 2, width // 2), (8 * c, height // 4, width // 4)]
    return T.Multiscale(*(level(shape, i == 1) for i, shape in enumerate(shapes)), event=event)


def deep(d: int) -> T.Chain:
    layers = [
        layer
        for i in range(3)
        for layer in (
            T.LU(d, start="orthogonal"),
            coupling(Partition.halves(d) if i % 2 else Partition.halves(d).flip(), scalars.spline()),
        )
    ]
    return T.Chain(T.Standardize(torch.full((d,), 2.0), torch.full((d,), 3.0)), *layers)


def short(d: int, context: int) -> list[T.Transform]:
    return [
        coupling(Partition.halves(d), scalars.affine(), context),
        T.LU(d, start="orthogonal"),
        coupling(Partition.halves(d).flip(), scalars.affine(), context),
    ]


def turn(x: Tensor) -> Tensor:
    """Angles, away from the seam, where a round trip may come back on the other side."""
    return 3 * torch.tanh(x)


def perceptrons(d: int) -> list[T.Transform]:
    """Affine couplings of halves that take turns."""
    net = partial(nets.MLP, hidden=(16, 16), activation="relu")
    halves = [Partition.halves(d) if i % 2 else Partition.halves(d).flip() for i in range(3)]
    return [T.Coupling(half, scalars.affine(), net) for half in halves]


def pairs(d: int) -> list[T.Transform]:
    """Exponential couplings by two nets each, from noise to data."""
    halves = [Partition.halves(d) if i % 2 else Partition.halves(d).flip() for i in range(3)]
    exponential = scalars.affine(scale="exp")
    return [T.Inverse(T.Coupling(half, exponential, nets.ScaleAndShift(*half, (16, 16)))) for half in halves]


def causal(tokens: int, features: int, last_first: bool = False, context: int = 0) -> T.TokenAutoregressive:
    net = partial(attention.CausalTransformer, width=8, depth=2, heads=2, context=context)
    return T.TokenAutoregressive(tokens, features, scalars.affine(), net, last_first)


def among_tokens(grid: tuple[int, int], features: int, split: Split, context: int = 0) -> T.TokenCoupling:
    net = partial(attention.Transformer, width=8, depth=2, heads=2, context=context)
    return T.TokenCoupling(grid, features, split, scalars.affine(), net)


TURNS = "z beyond half a turn is the same angle as one within"
ROUND = {"round trip z -> x -> z": TURNS}
BELOW = "z below zero is not within the support of the logarithm"
HUGE = "exp(1e6) is no number of any dtype"
TENFOLD = {"log_det of float16 is float32": "float16 ends at 65504, which residual nets of tenfold weights pass"}
EXPONENTIAL = {
    "round trip z -> x -> z": BELOW,
    "log_dets sum to zero z -> x -> z": BELOW,
    "finite values far outside the data": HUGE,
    "finite gradients far outside the data": HUGE,
}

CASES = [
    Case("standardize", lambda: T.Standardize(torch.tensor([1.0, -2e3, 5.0]), torch.tensor([2.0, 1e3, 0.1])), (3,)),
    Case("standardize d=1", lambda: T.Standardize(torch.tensor([3.0]), torch.tensor([0.5])), (1,)),
    Case("standardize picture", lambda: T.Standardize(torch.tensor(0.5), torch.tensor(0.25)), (1, 2, 3)),
    Case("log", T.Log, (3,), inputs=torch.exp),
    Case("log columns", lambda: T.Log([2, 0]), (3,), inputs=lambda x: x.abs() + 0.1),
    Case("logit", T.Logit, (2,), inputs=torch.sigmoid),
    Case("logit bounds", lambda: T.Logit([1], -3.0, 7.0), (3,), inputs=lambda x: torch.tanh(x)),
    Case("logit columns", lambda: T.Logit([0, 1], [0.0, -1.0], [1.0, 4.0]), (2,), inputs=torch.sigmoid),
    Case("asinh", T.Asinh, (3,)),
    Case("asinh columns", lambda: T.Asinh([1]), (2,), inputs=lambda x: 1e4 * x),
    Case("permute", lambda: T.Permute([2, 0, 1]), (3,)),
    Case("permute random", lambda: T.Permute.random(5, torch.Generator().manual_seed(3)), (2, 5)),
    Case("flip", lambda: T.Flip(3), (3,)),
    Case("lu", lambda: T.LU(3), (3,)),
    Case("lu d=1", lambda: T.LU(1), (1,)),
    Case("lu orthogonal", lambda: T.LU(5, start="orthogonal"), (5,)),
    Case("lu of rows of a picture", lambda: T.LU(3), (2, 3)),
    Case("actnorm", lambda: actnorm(3), (3,)),
    Case("actnorm untouched", lambda: T.ActNorm(2), (2,)),
    Case("actnorm picture", lambda: actnorm((2, 3, 3)), (2, 3, 3)),
    Case("linear", lambda: T.Linear(3), (3,)),
    Case("linear d=1", lambda: T.Linear(1), (1,)),
    Case("linear orthogonal", lambda: T.Linear(4, start="orthogonal"), (2, 4)),
    Case("orthogonal", lambda: T.Orthogonal(4), (4,)),
    Case("orthogonal of one reflection", lambda: T.Orthogonal(3, reflections=1), (3,)),
    Case("orthogonal exponential", lambda: T.Orthogonal(3, "exponential"), (2, 3)),
    Case("1x1 convolution", lambda: T.OverChannels(T.LU(3)), (3, 2, 2)),
    Case("1x1 convolution of a full matrix", lambda: T.OverChannels(T.Linear(2)), (2, 3)),
    *(
        Case(f"squeeze {order}", partial(T.Squeeze, order), (2, 4, 2))
        for order in ("channel", "spatial", "checkerboard")
    ),
    Case("1x1 convolution and ActNorm", lambda: settled(T.Conv1x1((3, 2, 2))), (3, 2, 2)),
    *(
        Case(f"pictures by {split}{', flipped' * flip}", partial(pictures, split, flip), (2, 4, 2))
        for split in ("channels", "alternate", "checkerboard", "masked")
        for flip in (False, True)
    ),
    Case("pictures of odd sizes", lambda: coupled("masked", (1, 3, 3)), (1, 3, 3)),
    Case("pictures of three channels, context", lambda: coupled("channels", (3, 2, 2), context=2), (3, 2, 2), 2),
    Case(
        "pictures, one convolution, context", lambda: coupled("alternate", (3, 2, 2), context=2, width=0), (3, 2, 2), 2
    ),
    Case("pictures by a net of bottlenecks", lambda: residual(BottleneckResNet, 0, bottleneck=4), (2, 4, 2)),
    Case(
        "pictures by a net of bottlenecks, rescaled, context",
        lambda: residual(BottleneckResNet, 2, bottleneck=4, zero_last=False, rescale=True),
        (2, 4, 2),
        2,
    ),
    Case("pictures by a gated net, context", lambda: residual(GatedResNet, 2, border=True), (2, 4, 2), 2),
    Case("levels of a picture", lambda: glow((1, 4, 4)), (1, 4, 4)),
    Case("over channels context", lambda: T.OverChannels(T.Planar(2, context=2)), (2, 2, 2), 2),
    Case("planar", lambda: T.Planar(3), (3,), scale=1.0),
    Case("planar d=1", lambda: T.Planar(1), (1,)),
    Case("planar leaky ReLU", lambda: T.Planar(2, "leaky_relu"), (2,), scale=1.0),
    Case("planar ELU", lambda: T.Planar(3, "elu"), (3,), scale=1.0),
    Case("planar context", lambda: T.Planar(4, context=2), (4,), 2),
    Case("radial", lambda: T.Radial(3), (3,), scale=1.0),
    Case("radial d=1", lambda: T.Radial(1), (1,)),
    Case("radial context", lambda: T.Radial(2, context=3), (2,), 3),
    Case("sylvester", lambda: T.Sylvester(3), (3,)),
    Case("sylvester d=1", lambda: T.Sylvester(1), (1,)),
    Case("sylvester rank 2 ELU", lambda: T.Sylvester(5, 2, "elu"), (5,)),
    Case("sylvester leaky ReLU context", lambda: T.Sylvester(3, 2, "leaky_relu", context=2), (3,), 2),
    Case("additive coupling", lambda: coupling(Partition.halves(3), scalars.additive()), (3,)),
    Case("affine coupling", lambda: coupling(Partition.alternating(4), scalars.affine()), (4,)),
    Case("affine coupling d=1", lambda: coupling(Partition.halves(1), scalars.affine()), (1,)),
    Case("affine coupling context", lambda: coupling(Partition.halves(5), scalars.affine(), 2), (5,), 2),
    Case("affine coupling picture", lambda: coupling(Partition.checkerboard((1, 3, 4)), scalars.affine()), (1, 3, 4)),
    Case("affine coupling channels", lambda: coupling(Partition.channels((3, 2, 2)), scalars.affine()), (3, 2, 2)),
    Case("spline coupling", lambda: coupling(Partition.halves(3), scalars.spline()), (3,)),
    Case("spline coupling d=1", lambda: coupling(Partition.halves(1).flip(), scalars.spline(3)), (1,)),
    Case("spline coupling d=1 context", lambda: coupling(Partition.halves(1), scalars.spline(), 1), (1,), 1),
    Case(
        "spline coupling residual net",
        lambda: coupling(Partition.alternating(5).flip(), scalars.spline(), 3, nets.ResMLP),
        (5,),
        3,
    ),
    Case(
        "circular coupling",
        lambda: coupling(Partition.halves(3), scalars.spline(6, tails="circular")),
        (3,),
        inputs=turn,
        skip=ROUND,
    ),
    Case("one of three", lambda: coupling(Partition.one(1, 3), scalars.spline(3)), (3,)),
    Case("exponential coupling", lambda: coupling(Partition.halves(3), scalars.affine(scale="exp")), (3,)),
    Case("sigmoid coupling", lambda: coupling(Partition.halves(3), scalars.affine(scale="sigmoid")), (3,)),
    Case("linear spline coupling", lambda: coupling(Partition.halves(3), scalars.linear_spline()), (3,)),
    Case("quadratic spline coupling", lambda: coupling(Partition.halves(3), scalars.quadratic_spline()), (3,)),
    Case("free spline coupling", lambda: coupling(Partition.halves(3), scalars.spline(learned_bound=True)), (3,)),
    Case("bernstein coupling", lambda: coupling(Partition.halves(3), scalars.bernstein()), (3,)),
    Case("gaussian cdf coupling", lambda: coupling(Partition.halves(3), scalars.mixture_cdf(4)), (3,)),
    Case(
        "logistic cdf coupling", lambda: coupling(Partition.halves(3), scalars.mixture_cdf(4, "logistic"), 2), (3,), 2
    ),
    Case("sigmoidal coupling", lambda: coupling(Partition.halves(2), scalars.sigmoidal(4)), (2,)),
    Case("affine elementwise", lambda: elementwise(3, scalars.affine()), (3,)),
    Case("spline elementwise picture", lambda: elementwise((1, 2, 2), scalars.spline(4)), (1, 2, 2)),
    Case("gaussian cdf elementwise", lambda: placed(3), (3,)),
    Case("gaussian cdf elementwise context", lambda: elementwise(2, scalars.mixture_cdf(), 2), (2,), 2),
    Case("affine autoregressive", lambda: autoregressive([0, 1, 2], scalars.affine()), (3,)),
    Case("affine autoregressive d=1", lambda: autoregressive([0], scalars.affine()), (1,)),
    Case("affine autoregressive context", lambda: autoregressive([1, 2, 0], scalars.affine(), 2), (3,), 2),
    Case("spline autoregressive", lambda: autoregressive([2, 0, 1], scalars.spline()), (3,)),
    Case("spline autoregressive d=1 context", lambda: autoregressive([0], scalars.spline(), 2), (1,), 2),
    Case("spline autoregressive picture", lambda: autoregressive([0, 3, 1, 2], scalars.spline(4)), (1, 2, 2)),
    Case("sigmoidal autoregressive", lambda: autoregressive([1, 0, 2], scalars.sigmoidal(4)), (3,)),
    Case("autoregressive of many steps", lambda: autoregressive(order(20), scalars.affine()), (20,)),
    Case("bernstein autoregressive", lambda: autoregressive([1, 0], scalars.bernstein(6)), (2,)),
    Case("patches", lambda: T.Patches(2, (2, 4, 2)), (2, 4, 2)),
    Case("causal tokens", lambda: causal(3, 2), (3, 2)),
    Case("causal tokens context", lambda: causal(2, 2, True, 2), (2, 2), 2),
    Case("causal token", lambda: causal(1, 3), (1, 3)),
    Case("token coupling", lambda: among_tokens((2, 2), 3, "channels"), (4, 3)),
    Case("token coupling of one feature", lambda: among_tokens((1, 2), 1, "channels", 1), (2, 1), 1),
    Case("token coupling of an odd checkerboard", lambda: among_tokens((3, 1), 2, "checkerboard"), (3, 2)),
    Case("token coupling of rows context", lambda: among_tokens((2, 2), 1, "rows-flipped", 2), (4, 1), 2),
    Case("residual", lambda: T.Residual(3, (16, 16)), (3,)),
    Case("residual d=1 context", lambda: T.Residual(1, (16,), 2, 0.9), (1,), 2),
    Case("residual picture", lambda: T.Residual(4, (8, 8)), (1, 2, 2)),
    Case("residual estimate", lambda: T.Residual(3, (16, 16), 0, 0.8, "estimate"), (3,)),
    Case("continuous", lambda: T.Continuous(T.Field(3, (16, 16), lipschitz=2.0)), (3,)),
    Case("continuous d=1 context", lambda: T.Continuous(T.Field(1, (16,), 2, 3.0)), (1,), 2),
    Case("continuous picture", lambda: T.Continuous(T.Field(4, (8, 8), lipschitz=1.0), 3), (1, 2, 2)),
    Case("stacked", lambda: T.Stacked(*perceptrons(2)), (2,)),
    Case("stacked of five", lambda: T.Stacked(*perceptrons(5)), (5,)),
    Case("stacked pairs", lambda: T.Stacked(*pairs(2)), (2,), scale=0.1),
    Case("inverse", lambda: T.Inverse(coupling(Partition.halves(3), scalars.spline())), (3,)),
    Case("inverse autoregressive", lambda: T.Inverse(autoregressive([2, 0, 1], scalars.affine(), 1)), (3,), 1),
    Case("inverse log", lambda: T.Inverse(T.Log()), (2,), skip=EXPONENTIAL),
    Case("empty chain", T.Chain, (2,)),
    Case("chain", lambda: deep(5), (5,), scale=0.1),  # errors multiply from layer to layer by the slopes
    Case("chain of checkpoints", lambda: T.Chain(*short(3, 2), memory="checkpoint"), (3,), 2),
]


def spread(d: int, low: float, high: float) -> Tensor:
    return torch.linspace(low, high, d, dtype=torch.float64)


def normed(d: int) -> T.ActNorm:
    norm = T.ActNorm(d)
    norm.initialize(torch.randn(50, d) * torch.linspace(0.1, 10, d) + 3)
    return norm


def order(d: int) -> list[int]:
    return [(3 * i + 1) % d for i in range(d)] if d % 3 else list(reversed(range(d)))


def within(x: Tensor) -> Tensor:
    """Numbers well within (0, 1): nearer to 1 float32 itself ends."""
    return torch.sigmoid(x.clamp(-8, 8))


def positive(x: Tensor) -> Tensor:
    return x.abs().clamp(min=1e-30)


FAMILIES = {
    "standardize": Family(lambda d, c: T.Standardize(spread(d, -1e3, 5), spread(d, 0.1, 1e3))),
    "log": Family(lambda d, c: T.Log(), positive),
    "logit": Family(lambda d, c: T.Logit(None, spread(d, -1, 0), spread(d, 1, 3)), within),
    "asinh": Family(lambda d, c: T.Asinh()),
    "permute": Family(lambda d, c: T.Permute.random(d)),
    "flip": Family(lambda d, c: T.Flip(d)),
    "lu": Family(lambda d, c: T.LU(d)),
    "lu orthogonal": Family(lambda d, c: T.LU(d, "orthogonal")),
    "actnorm": Family(lambda d, c: normed(d)),
    "linear": Family(lambda d, c: T.Linear(d, "orthogonal")),
    "orthogonal": Family(lambda d, c: T.Orthogonal(d)),
    "orthogonal exponential": Family(lambda d, c: T.Orthogonal(d, "exponential")),
    "planar": Family(lambda d, c: T.Planar(d, context=c), conditional=True),
    "planar leaky ReLU": Family(lambda d, c: T.Planar(d, "leaky_relu", c), conditional=True),
    "planar ELU": Family(lambda d, c: T.Planar(d, "elu", c), conditional=True),
    "radial": Family(lambda d, c: T.Radial(d, c), conditional=True),
    "sylvester": Family(lambda d, c: T.Sylvester(d, context=c), conditional=True),
    "sylvester ELU": Family(lambda d, c: T.Sylvester(d, (d + 1) // 2, "elu", c), conditional=True),
    "additive coupling": Family(
        lambda d, c: coupling(Partition.halves(d).flip(), scalars.additive(), c), conditional=True
    ),
    "affine coupling": Family(lambda d, c: coupling(Partition.alternating(d), scalars.affine(), c), conditional=True),
    "spline coupling": Family(lambda d, c: coupling(Partition.halves(d), scalars.spline(), c), conditional=True),
    "spline coupling residual net": Family(
        lambda d, c: coupling(Partition.halves(d), scalars.spline(3, 5.0), c, nets.ResMLP), conditional=True
    ),
    "circular coupling": Family(
        lambda d, c: coupling(Partition.halves(d), scalars.spline(5, tails="circular"), c),
        turn,
        ROUND,
        conditional=True,
    ),
    "affine autoregressive": Family(lambda d, c: autoregressive(order(d), scalars.affine(), c), conditional=True),
    "spline autoregressive": Family(lambda d, c: autoregressive(order(d), scalars.spline(), c), conditional=True),
    "exponential coupling": Family(
        lambda d, c: coupling(Partition.halves(d), scalars.affine(scale="exp"), c), conditional=True
    ),
    "sigmoid coupling": Family(
        lambda d, c: coupling(Partition.halves(d), scalars.affine(scale="sigmoid"), c), conditional=True
    ),
    "linear spline coupling": Family(
        lambda d, c: coupling(Partition.halves(d), scalars.linear_spline(), c), conditional=True
    ),
    "quadratic spline coupling": Family(
        lambda d, c: coupling(Partition.halves(d), scalars.quadratic_spline(), c), conditional=True
    ),
    "free spline coupling": Family(
        lambda d, c: coupling(Partition.halves(d), scalars.spline(learned_bound=True), c), conditional=True
    ),
    "bernstein coupling": Family(lambda d, c: coupling(Partition.halves(d), scalars.bernstein(), c), conditional=True),
    "gaussian cdf elementwise": Family(lambda d, c: elementwise(d, scalars.mixture_cdf(4), c), conditional=True),
    "logistic cdf elementwise": Family(
        lambda d, c: elementwise(d, scalars.mixture_cdf(kind="logistic"), c), conditional=True
    ),
    "sigmoidal elementwise": Family(lambda d, c: elementwise(d, scalars.sigmoidal(3), c), conditional=True),
    "residual": Family(lambda d, c: T.Residual(d, (16, 16), c), conditional=True),
    "continuous": Family(lambda d, c: T.Continuous(T.Field(d, (16, 16), c, 3.0)), conditional=True),
    "stacked": Family(lambda d, c: T.chained(*perceptrons(d))),
    "inverse": Family(lambda d, c: T.Inverse(coupling(Partition.halves(d), scalars.spline(), c)), conditional=True),
}
