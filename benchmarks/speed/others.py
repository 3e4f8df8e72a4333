"""The same flows by other libraries on torch: zuko, nflows, normflows. Nets are ReLU perceptrons of the same sizes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from benchmarks.speed.subjects import Subject, of_torch, perceptron, started
from benchmarks.speed.workloads import Work
from torch import Tensor, nn

__all__ = ["nflows", "normflows", "zuko"]

BOUND = 5.0  # of splines
Build = Callable[[Work], nn.Module]


def zuko(work: Work, device: str) -> list[Subject]:
    from zuko.flows import CNF, MAF, NSF

    if work.moves == "coupling":
        flow = _zuko_coupling(work)
    elif work.moves == "autoregressive":
        sizes = {"transforms": work.layers, "hidden_features": work.hidden}
        flow = NSF(work.d, bins=work.bins, **sizes) if work.scalar == "spline" else MAF(work.d, **sizes)
    elif work.moves == "continuous":
        flow = CNF(work.d, hidden_features=work.hidden)
    else:
        return []
    started(flow).to(device)

    def log_prob(x: Tensor) -> Tensor:
        flow.training = torch.is_grad_enabled()  # what decides whether the adjoint is prepared
        flow.transform.training = flow.training
        return flow().log_prob(x)

    def sample(n: int) -> Tensor:
        flow.transform.training = False
        return flow().sample((n,))

    subject = of_torch("zuko", flow, log_prob, sample, work, device)
    if work.moves != "continuous":
        return [subject]
    return [subject._replace(evaluations={task: _looks(flow, run) for task, run in subject.tasks.items()})]


def _zuko_coupling(work: Work) -> Any:
    from zuko.distributions import DiagNormal
    from zuko.flows import Flow, GeneralCouplingTransform, UnconditionalDistribution
    from zuko.transforms import MonotonicAffineTransform, MonotonicRQSTransform

    kind: dict[str, Any] = {"univariate": MonotonicAffineTransform, "shapes": [(), ()]}
    if work.scalar == "spline":
        kind = {"univariate": partial(MonotonicRQSTransform, bound=BOUND), "shapes": [(work.bins,)] * 2}
        kind["shapes"].append((work.bins - 1,))
    layers = [
        GeneralCouplingTransform(work.d, mask=~_moving(work, i), hidden_features=work.hidden, **kind)
        for i in range(work.layers)
    ]
    base = UnconditionalDistribution(DiagNormal, torch.zeros(work.d), torch.ones(work.d), buffer=True)
    return Flow(layers, base)


def _looks(flow: Any, run: Callable[[], object]) -> int:
    """How often a task looks at the field."""
    calls: list[int] = []
    handle = flow.transform.ode.register_forward_hook(lambda *_: calls.append(1))
    run()
    handle.remove()
    return len(calls)


def nflows(work: Work, device: str) -> list[Subject]:
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import CompositeTransform, ReversePermutation

    if work.moves == "coupling":
        layers = [_nflows_coupling(work, i) for i in range(work.layers)]
    elif work.moves == "autoregressive":
        layers = [_nflows_autoregressive(work)]
        for _ in range(1, work.layers):
            layers += [ReversePermutation(work.d), _nflows_autoregressive(work)]
    else:
        return []
    flow = Flow(CompositeTransform(layers), StandardNormal([work.d]))
    started(flow).to(device)
    return [of_torch("nflows", flow, flow.log_prob, flow.sample, work, device)]


def _nflows_coupling(work: Work, i: int) -> Any:
    from nflows.transforms import AffineCouplingTransform, PiecewiseRationalQuadraticCouplingTransform

    mask, net = _moving(work, i).long(), partial(_Net, work)
    if work.scalar == "affine":
        return AffineCouplingTransform(mask, net)
    return PiecewiseRationalQuadraticCouplingTransform(mask, net, num_bins=work.bins, tails="linear", tail_bound=BOUND)


def _nflows_autoregressive(work: Work) -> Any:
    from nflows.transforms import (
        MaskedAffineAutoregressiveTransform,
        MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
    )

    sizes = {"features": work.d, "hidden_features": work.hidden[0], "num_blocks": work.depth - 1}
    sizes["use_residual_blocks"] = False
    if work.scalar == "affine":
        return MaskedAffineAutoregressiveTransform(**sizes)
    return MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
        num_bins=work.bins, tails="linear", tail_bound=BOUND, **sizes
    )


def normflows(work: Work, device: str) -> list[Subject]:
    import normflows as library

    build = {"coupling": _normflows_coupling, "autoregressive": _normflows_autoregressive, "picture": _normflows_glow}
    if work.moves not in build:
        return []
    layers = build[work.moves](work)
    base = library.distributions.DiagGaussian(work.shape if work.event else work.d, trainable=False)
    flow = library.NormalizingFlow(base, layers[::-1])  # listed from noise to data
    started(flow).to(device)
    return [of_torch("normflows", flow, flow.log_prob, lambda n: flow.sample(n)[0], work, device)]


def _normflows_coupling(work: Work) -> list[Any]:
    import normflows as library
    from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling

    layers: list[Any] = []
    for i in range(work.layers):
        if work.scalar == "affine":
            half = work.d // 2
            net = perceptron((half, *work.hidden, 2 * (work.d - half)))
            layers += [library.flows.AffineCouplingBlock(net), library.flows.Permute(work.d, mode="swap")]
        else:
            mask, net = _moving(work, i).long(), partial(_Net, work)
            spline = PiecewiseRationalQuadraticCoupling(mask, net, num_bins=work.bins, tails="linear", tail_bound=BOUND)
            layers.append(_turned(spline))
    return layers


def _normflows_autoregressive(work: Work) -> list[Any]:
    import normflows as library
    from normflows.flows.neural_spline.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressive

    sizes = {"features": work.d, "hidden_features": work.hidden[0], "num_blocks": work.depth - 1}
    sizes["use_residual_blocks"] = False
    layers: list[Any] = []
    for i in range(work.layers):
        layers += [library.flows.Permute(work.d, mode="swap")] if i else []
        if work.scalar == "affine":
            layers.append(_turned(library.flows.MaskedAffineAutoregressive(**sizes)))
        else:
            options = {"num_bins": work.bins, "tails": "linear", "tail_bound": BOUND, "init_identity": False}
            layers.append(_turned(MaskedPiecewiseRationalQuadraticAutoregressive(**sizes, **options)))
    return layers


def _normflows_glow(work: Work) -> list[Any]:
    import normflows as library

    return [library.flows.GlowBlock(work.event[0], work.hidden[0]) for _ in range(work.layers)]


def _turned(flow: Any) -> Any:
    """A normflows layer whose fast direction is to be that of the density."""
    import normflows as library

    class Turned(library.flows.Flow):
        def __init__(self) -> None:
            super().__init__()
            self.inner = flow

        def forward(self, z: Tensor) -> Any:
            return self.inner.inverse(z)

        def inverse(self, z: Tensor) -> Any:
            return self.inner(z)

    return Turned()


class _Net(nn.Module):
    """A ReLU perceptron with the context that nflows and its descendants hand to a net."""

    def __init__(self, work: Work, in_features: int, out_features: int) -> None:
        super().__init__()
        self.net = perceptron((in_features, *work.hidden, out_features))

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        return self.net(h)


def _moving(work: Work, i: int) -> Tensor:
    """Which numbers move in layer i: the second half, then the first, in turn."""
    second = torch.arange(work.d) >= work.d // 2
    return second if i % 2 == 0 else ~second
