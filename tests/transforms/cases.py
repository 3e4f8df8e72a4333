"""The one list of every transform: a name, a builder, and what that transform cannot have, with the reason."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffeo import nets, scalars
from diffeo import transforms as T
from diffeo.transforms import Partition


@dataclass(frozen=True)
class Case:
    name: str
    build: Callable[[], T.Transform]
    event: tuple[int, ...]
    context: int = 0
    inputs: Callable[[Tensor], Tensor] | None = None  # from standard normal rows to rows within the support
    skip: tuple[str, ...] = ()
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


def coupling(partition: Partition, scalar: scalars.Scalar, context: int = 0, net: type = nets.MLP) -> T.Coupling:
    kind = {"width": 16} if net is nets.ResMLP else {"hidden": (16, 16)}
    return T.Coupling(partition, scalar, lambda i, o: net(i, o, context=context, **kind))


def autoregressive(order: list[int], scalar: scalars.Scalar, context: int = 0) -> T.Autoregressive:
    return T.Autoregressive(order, scalar, lambda o, w: nets.MaskedMLP(o, w, hidden=(16, 16), context=context))


def actnorm(event: int | tuple[int, ...]) -> T.ActNorm:
    norm = T.ActNorm(event)
    shape = (50, event) if isinstance(event, int) else (50, *event)
    norm.initialize(3 * torch.randn(shape) + 1)
    return norm


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


def turn(x: Tensor) -> Tensor:
    """Angles, away from the seam, where a round trip may come back on the other side."""
    return 3 * torch.tanh(x)


NOT_ONTO = ("round trip z -> x -> z", "log_dets sum to zero z -> x -> z")

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
        skip=NOT_ONTO,  # z beyond half a turn is the same angle as one within
    ),
    Case("affine autoregressive", lambda: autoregressive([0, 1, 2], scalars.affine()), (3,)),
    Case("affine autoregressive d=1", lambda: autoregressive([0], scalars.affine()), (1,)),
    Case("affine autoregressive context", lambda: autoregressive([1, 2, 0], scalars.affine(), 2), (3,), 2),
    Case("spline autoregressive", lambda: autoregressive([2, 0, 1], scalars.spline()), (3,)),
    Case("spline autoregressive d=1 context", lambda: autoregressive([0], scalars.spline(), 2), (1,), 2),
    Case("spline autoregressive picture", lambda: autoregressive([0, 3, 1, 2], scalars.spline(4)), (1, 2, 2)),
    Case("inverse", lambda: T.Inverse(coupling(Partition.halves(3), scalars.spline())), (3,)),
    Case(
        "inverse log",
        lambda: T.Inverse(T.Log()),
        (2,),
        skip=(*NOT_ONTO, "finite values far outside the data", "finite gradients far outside the data"),  # exp(1e6)
    ),
    Case("empty chain", T.Chain, (2,)),
    Case("chain", lambda: deep(5), (5,), scale=0.1),  # errors multiply from layer to layer by the slopes
]
