"""Small couplings one after another, computed as one.

Where nets are small, what costs is not arithmetic but the number of operations, and of nodes in the graph that autograd
keeps. A stack of affine couplings is one node: forward keeps what its gradient, written out, needs.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from diffeo.errors import ShapeError
from diffeo.kernels import slopes_again
from diffeo.kernels import stack as kernel
from diffeo.nets import FURTHEST, MLP, NEAR, ScaleAndShift, soft_clip
from diffeo.tracing import is_watched
from diffeo.transforms.base import Chain, Inverse, Transform
from diffeo.transforms.coupling import Coupling, lie

__all__ = ["Stacked", "chained"]

LEAK = 0.01  # of the leaky ReLU of a ScaleAndShift
LARGEST = {dtype: math.sqrt(torch.finfo(dtype).max) for dtype in (torch.float32, torch.float64)}
aten = torch.ops.aten
_Way = Callable[[Chain, Tensor], tuple[Tensor, Tensor]]


class Stacked(Chain):
    """A `Chain` of affine couplings (arXiv 1605.08803) of halves that take turns, or of their inverses, by small nets.

    The nets are `MLP`s with ReLU, or `ScaleAndShift`s, without context and dropout. Values and gradients are those of
    the chain, and so are the parameters and their names. On a processor either direction is one operation with its
    gradient written out; hooks of the layers within are then not called. Elsewhere, and for higher derivatives, it is
    computed as by a chain.

    Raises ShapeError where the transforms are not of this kind; `chained` makes an ordinary chain of those.

    >>> from functools import partial
    >>> from diffeo import nets, scalars
    >>> from diffeo.transforms import Partition
    >>> half, net = Partition.halves(2), partial(nets.MLP, hidden=(8, 8), activation="relu")
    >>> stack = Stacked(Coupling(half, scalars.affine(), net), Coupling(half.flip(), scalars.affine(), net))
    >>> z, log_det = stack(torch.ones(4, 2))
    >>> z.shape, log_det.shape
    (torch.Size([4, 2]), torch.Size([4]))
    """

    def __init__(self, *transforms: Transform) -> None:
        super().__init__(*transforms)
        steps = _steps_of(transforms)
        if steps is None:
            kind = "affine couplings, two or more, of halves that take turns, by MLPs with ReLU or by ScaleAndShifts"
            raise ShapeError(f"transforms: expected {kind}, without context and dropout; chained takes any")
        self._steps, self._count = steps, len(steps[0].weights())
        self._back = [step._replace(inverted=not step.inverted) for step in reversed(steps)]
        self._layouts = _layout_of(self._steps), _layout_of(self._back)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._at_once(x, self._steps, self._layouts[0]) or super().forward(x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._at_once(z, self._back, self._layouts[1]) or super().inverse(z, context)

    def _at_once(self, x: Tensor, steps: "list[_Step]", layout: kernel.Layout | None) -> tuple[Tensor, Tensor] | None:
        """The outcome as one node of the graph; None where it has to be found step by step."""
        if not _plain(x):
            return None
        weights = [w for step in steps for w in step.weights()]
        found, keep = layout and kernel.addresses(layout, weights, x.dtype), torch.is_grad_enabled()
        passed = None
        if layout and found:
            z, log_det = kernel.passed(layout, found, x.detach())
        else:
            own = [step.weights() for step in steps]
            if [*map(len, own)] != [self._count] * len(own):  # a layer was exchanged for another kind
                return None
            if any(type(w) is not nn.Parameter or w.dtype != x.dtype for w in weights):
                return None
            with torch.no_grad():
                z, log_det, passed = _pass(x, steps, own)
        if not keep:
            return z, log_det
        way = Chain.forward if steps is self._steps else Chain.inverse
        run = _Run(steps, layout, passed, lambda x, *own: self._plainly(way, weights, x, own))
        return _Stack.apply(x, (z, log_det), run, *weights)

    def _plainly(self, way: _Way, weights: list[Tensor], x: Tensor, own: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The outcome step by step, with others in place of all weights."""
        names = {id(w): name for name, w in self.named_parameters()}
        state = {f"chain.{names[id(w)]}": other for w, other in zip(weights, own, strict=True)}
        return functional_call(_Plain(self, way), state, x)


def chained(*transforms: Transform) -> Chain:
    """The chain of these transforms: a `Stacked`, where they can be computed as one.

    >>> type(chained()).__name__
    'Chain'
    """
    return Chain(*transforms) if _steps_of(transforms) is None else Stacked(*transforms)


class _Plain(nn.Module):
    """A chain one way, step by step, whose weights may be exchanged."""

    def __init__(self, chain: Chain, way: _Way) -> None:
        super().__init__()
        self.chain, self.way = chain, way

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.way(self.chain, x)


class _Step(NamedTuple):
    """One coupling, or its inverse."""

    coupling: Coupling
    sizes: tuple[int, int]  # of the first half and the second
    moves: int  # which of them moves
    inverted: bool
    limit: float  # of log-scales
    bent: bool  # towards the limit by tanh from the start, or else only beyond it
    pair: bool  # whether two nets, of all coordinates to all, tell log-scales and shifts

    def weights(self) -> list[Tensor]:
        """Weight and bias of all layers of the one net or the two, and first, of two, the factor of log-scales."""
        net = self.coupling.net._modules  # looked up anew: parameters may be exchanged
        parts = [net["s_func"], net["t_func"]] if self.pair else [net["hidden"]]
        layers = [layer for part in parts for layer in part._modules.values()]  # type: ignore[union-attr]
        layers = [self.coupling.net, *layers] if self.pair else [*layers, net["last"]]
        return [w for layer in layers for w in layer._parameters.values()]  # type: ignore[union-attr, misc]


def _step_of(transform: object) -> _Step | None:
    """A coupling as a step; None where it is of another kind."""
    inverted = isinstance(transform, Inverse)
    coupling = transform.transform if isinstance(transform, Inverse) else transform
    if not isinstance(coupling, Coupling) or not coupling.partition.stay:
        return None
    net, bent = coupling.net, {"affine": True, "affine_exp": False}.get(coupling.scalar.name)
    small = isinstance(net, MLP) and net.activation == "relu" and not (net.dropout or net.context_features)
    lies, first = lie(coupling.partition)
    if bent is None or lies != "halves" or not (small or isinstance(net, ScaleAndShift)):
        return None
    far = torch.tensor([[1e30], [0.0]], dtype=torch.float64)
    most = float(coupling.scalar.forward(far[1], far)[1])  # a limit is told by the map itself, one more for soft_clip
    stay, move = (len(part) for part in coupling.partition)
    sizes = (move, stay) if first else (stay, move)
    return _Step(coupling, sizes, 0 if first else 1, inverted, most if bent else most - 1, bent, not small)


def _steps_of(transforms: Sequence[object]) -> list[_Step] | None:
    """All of them as steps that can be stacked: alike, and no half is moved twice running, no weight used twice."""
    steps = [step for transform in transforms if (step := _step_of(transform)) is not None]
    weights = [step.weights() for step in steps]
    kinds = {(step.sizes, step.pair, step.bent, len(own)) for step, own in zip(steps, weights, strict=True)}
    if len(steps) < max(2, len(transforms)) or len(kinds) > 1:
        return None
    once = len({id(w) for own in weights for w in own}) == sum(len(own) for own in weights)
    return steps if once and all(a.moves != b.moves for a, b in pairwise(steps)) else None


def _layout_of(steps: list[_Step]) -> kernel.Layout | None:
    """What the kernel has to be told; None where it has no room for them."""
    shapes = [[w.shape for w in step.weights()] for step in steps]
    moves, inverted, limits = zip(*((step.moves, step.inverted, step.limit) for step in steps), strict=True)
    return kernel.Layout.of(shapes, steps[0].sizes, steps[0].pair, steps[0].bent, moves, inverted, limits)


def _plain(x: Tensor) -> bool:
    """Whether numbers can be looked at, and nobody looks at the single steps."""
    return not is_watched(x) and x.ndim == 2 and x.dtype in LARGEST and x.device.type == "cpu"


class _Kept(NamedTuple):
    """What is kept of a step, all [n, ...]: the half that moved, before and after; the tanh that bent its log-scale;
    its scale; what each net's layers read, and the log-scale before its factor. Slopes are those of what bends or cuts
    off numbers far out: the half that stayed, the half that moved, the log-scale; None where nothing was far."""

    before: Tensor
    after: Tensor
    bent: Tensor
    scale: Tensor
    read: list[list[Tensor]]
    unscaled: Tensor
    slopes: tuple[Tensor | None, Tensor | None, Tensor | None]


class _Run(NamedTuple):
    """Steps, what is kept of them (None: the kernel finds it again), and the same computed step by step."""

    steps: list[_Step]
    layout: kernel.Layout | None
    passed: list[_Kept] | None
    plainly: Callable[..., tuple[Tensor, Tensor]]  # of x and all weights


def _pass(x: Tensor, steps: list[_Step], weights: list[list[Tensor]]) -> tuple[Tensor, Tensor, list[_Kept]]:
    """Rows x [n, d] through all steps: z [n, d], log_det [n], and what is kept."""
    halves = list(x.split(steps[0].sizes, 1))
    log_scales, passed = [], []
    near = _all_within(halves[steps[0].moves], FURTHEST)
    for step, own in zip(steps, weights, strict=True):
        before, by_before = (halves[step.moves], None) if near else _cut(halves[step.moves], LARGEST[x.dtype])
        seen = halves[1 - step.moves]
        near = _all_within(seen, FURTHEST if step.pair else NEAR)  # what stays is what moves next
        seen, by_seen = (seen, None) if near else _cut(seen, FURTHEST) if step.pair else _bend(seen, NEAR)
        log_scale, shift, read, unscaled = _told(step, own, seen)
        bent, by_scale = log_scale, None
        if step.bent:
            bent = torch.tanh(log_scale / step.limit)
            log_scale = bent * step.limit
        elif not _all_within(log_scale, step.limit):
            log_scale, by_scale = _bend(log_scale, step.limit)
        log_scale = -log_scale if step.inverted else log_scale
        scale = log_scale.exp()
        after = (before - shift) * scale if step.inverted else before * scale + shift
        halves[step.moves] = after
        log_scales.append(log_scale)
        passed.append(_Kept(before, after, bent, scale, read, unscaled, (by_seen, by_before, by_scale)))
    return torch.cat(halves, 1), torch.cat(log_scales, 1).sum(1), passed


def _told(step: _Step, own: list[Tensor], seen: Tensor) -> tuple[Tensor, Tensor, list[list[Tensor]], Tensor]:
    """Raw log-scales and shifts [n, moving]; what each net's layers read; raw log-scales before their factor."""
    if not step.pair:
        told, read = _net(own, seen, 0.0)
        log_scale, shift = told.tensor_split(2, 1)
        return log_scale, shift, [read], log_scale
    seen, half = _placed(step, seen, 1 - step.moves), len(own) // 2
    told, of_s = _net(own[1 : half + 1], seen, LEAK)
    shifts, of_t = _net(own[half + 1 :], seen, LEAK)
    unscaled, shift = (v.split(step.sizes, 1)[step.moves] for v in (told, shifts))
    return unscaled * own[0].split(step.sizes)[step.moves], shift, [of_s, of_t], unscaled


def _net(own: list[Tensor], h: Tensor, leak: float) -> tuple[Tensor, list[Tensor]]:
    """A perceptron of h [n, in]: its outcome, and what its layers read."""
    read = [h]
    for i in range(0, len(own) - 2, 2):
        h = F.linear(h, own[i], own[i + 1])
        h = F.leaky_relu_(h, leak) if leak else h.relu_()
        read.append(h)
    return F.linear(h, own[-2], own[-1]), read


def _placed(step: _Step, half: Tensor, which: int) -> Tensor:
    """One half [n, ...] in a row [n, d], beside zeros."""
    zeros = half.new_zeros(half.shape[0], step.sizes[1 - which])
    return torch.cat([half, zeros] if which == 0 else [zeros, half], 1)


def _all_within(values: Tensor, bound: float) -> bool:
    if not values.numel():
        return True
    low, high = values.aminmax()
    return -bound <= float(low) and float(high) <= bound


def _bend(values: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """`soft_clip` and its slope."""
    return soft_clip(values, bound), 1 - torch.tanh(F.softshrink(values, bound)).square()


def _cut(values: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Clamped to +-bound, and the slope of that."""
    return values.clamp(-bound, bound), (values.abs() <= bound).to(values.dtype)


class _Stack(torch.autograd.Function):
    """What `_pass` found, with its gradient written out; higher derivatives are autograd's of the single steps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, outcome: tuple[Tensor, Tensor], run: _Run, *flat: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, *flat)
        ctx.run = run
        return outcome

    @staticmethod
    def backward(ctx: Any, gz: Tensor, gl: Tensor) -> tuple[Tensor | None, ...]:
        x, *flat = ctx.saved_tensors
        if not torch.is_grad_enabled():
            run = ctx.run
            by_kernel = run.passed is None
            gx, found = kernel.pulled_back(run.layout, flat, x, gz, gl) if by_kernel else _pull_back(run, flat, gz, gl)
            return gx, None, None, *found
        by_x, *rest = slopes_again(ctx.run.plainly, (x, *flat), (gz, gl))
        return by_x, None, None, *rest


def _pull_back(run: _Run, flat: list[Tensor], gz: Tensor, gl: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Gradients of x and of all weights, from those of z [n, d] and log_det [n]."""
    slopes, found, count = list(gz.split(run.steps[0].sizes, 1)), list[list[Tensor]](), len(flat) // len(run.steps)
    gl, passed = gl.unsqueeze(1), cast(list[_Kept], run.passed)
    for i in range(len(run.steps) - 1, -1, -1):
        step, kept, own = run.steps[i], passed[i], flat[i * count : (i + 1) * count]
        by_seen, by_before, by_scale = kept.slopes
        out = slopes[step.moves]
        inner = out * kept.scale  # of what moved
        if step.inverted:
            gshift, gscale = -inner, -torch.addcmul(gl, out, kept.after)
        else:
            gshift, gscale = out, torch.addcmul(gl, inner, kept.before)
        gscale = aten.tanh_backward(gscale, kept.bent) if step.bent else gscale
        gscale = gscale if by_scale is None else gscale * by_scale
        gown, gseen = _untold(step, kept, own, gscale, gshift)
        found.append(gown)
        slopes[step.moves] = inner if by_before is None else inner * by_before
        slopes[1 - step.moves] = slopes[1 - step.moves] + (gseen if by_seen is None else gseen * by_seen)
    return torch.cat(slopes, 1), [g for gown in reversed(found) for g in gown]


def _untold(step: _Step, kept: _Kept, own: list[Tensor], gscale: Tensor, gshift: Tensor) -> tuple[list[Tensor], Tensor]:
    """Gradients of a step's weights and of what its nets saw, from those of raw log-scales and shifts."""
    if not step.pair:
        return _unnet(own, kept.read[0], torch.cat([gscale, gshift], 1), 0.0)
    half, factor = len(own) // 2, own[0].split(step.sizes)[step.moves]
    gfactor = _placed(step, (gscale * kept.unscaled).sum(0, keepdim=True), step.moves)[0]
    by_s, gseen = _unnet(own[1 : half + 1], kept.read[0], _placed(step, gscale * factor, step.moves), LEAK)
    by_t, also = _unnet(own[half + 1 :], kept.read[1], _placed(step, gshift, step.moves), LEAK)
    return [gfactor, *by_s, *by_t], (gseen + also).split(step.sizes, 1)[1 - step.moves]


def _unnet(own: list[Tensor], read: list[Tensor], g: Tensor, leak: float) -> tuple[list[Tensor], Tensor]:
    """Gradients of a perceptron's weights and of its inputs, from that of its outcome."""
    found: list[Tensor] = [g] * len(own)
    for i in range(len(read) - 1, -1, -1):
        found[2 * i], found[2 * i + 1] = g.T.mm(read[i]), g.sum(0)
        g = g.mm(own[2 * i])
        if i:
            g = aten.leaky_relu_backward(g, read[i], leak, True) if leak else aten.threshold_backward(g, read[i], 0)
    return found, g
