"""Masked nets solved for their inputs, each hidden unit computed once: the inverse of an autoregressive layer.

Units of a masked net (MADE, arXiv 1502.03509) fall into steps: a unit is ready once the coordinates that it looks at
are known, and the coordinates between two such moments are read off at once. Steps go in blocks. What is known before
a block reaches all its units by one product of matrices a layer; then the block is solved in one of two ways.

*Stepped*: every new piece is handed on at once to the units of the block that still wait. Made of plain operations, it
can be differentiated, mapped and traced, and always ends.

*Swept*: all coordinates of the block are guessed, their units and raw parameters computed, and the guess replaced by
what these give (Jacobi's iteration). After k sweeps the first k steps are what stepping finds, and mostly all others
are too. A row stops once a sweep moves none of its coordinates by more than ``NEAR`` units in the last place (of 1, for
smaller ones). What it has then is what stepping finds where every coordinate that is read is off by at most that: so
the error is that of a few roundings, times whatever this layer makes of roundings when it is stepped. No bound without
that factor is true: the miss of the layer at what was found, over the smallest slope, is none, as every coordinate can
pass its error on enlarged. Rows that have not stopped after ``SWEEPS`` are stepped, whatever the others do.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffeo.nets import ACTIVATIONS, MaskedNet, soft_clip

__all__ = ["Answer", "Plan", "plan_of", "solved"]

STEPPED, SWEPT = 16, 24  # steps of a block
SWEEPS = 16  # at most: as dear as stepping the block, or a little dearer
NEAR = 4.0

Answer = Callable[[slice, Tensor], tuple[Tensor, Tensor]]  # places, raw [width, places, n] -> two of [places, n]


class Plan(NamedTuple):
    """When what is known of a masked net: ``ends[level][t]`` numbers of a level are ready before step t, and so on to
    the end. Level 0 are the coordinates by place, then come the hidden layers, and last the outputs place by place,
    ``width`` of each. ``sequence`` are the coordinates by place.
    """

    ends: tuple[tuple[int, ...], ...]
    sequence: tuple[int, ...]
    width: int

    @property
    def steps(self) -> int:
        return len(self.ends[0]) - 1

    @property
    def numbers(self) -> int:
        """That one row is made of, all levels together."""
        return sum(level[-1] for level in self.ends)

    def span(self, level: int, first: int, last: int) -> slice:
        """What becomes ready in steps first, ..., last - 1."""
        return slice(self.ends[level][first], self.ends[level][last])


def plan_of(net: nn.Module | None, order: Sequence[int]) -> Plan | None:
    """The plan of a masked net over coordinates of this order; None of a module that is built another way.

    >>> from diffeo.nets import MaskedMLP
    >>> plan_of(MaskedMLP([1, 0, 2], 2, hidden=(4,)), [1, 0, 2])
    Plan(ends=((0, 1, 2, 3), (0, 0, 2, 4), (0, 2, 4, 6)), sequence=(1, 0, 2), width=2)
    """
    if not isinstance(net, MaskedNet) or type(net).forward is not MaskedNet.forward or net.mask.is_meta:
        return None
    d = len(order)
    stages = torch.cat([torch.tensor(order) + 1, torch.zeros(net.context_features, dtype=torch.long)])
    ready = []
    for layer in net.hidden:
        seen = (layer.mask.cpu() > 0) * stages  # type: ignore[operator]
        stages = seen.amax(1) if seen.shape[1] else seen.new_zeros(len(seen))
        ready.append(stages)
    if any(bool((stages.diff() < 0).any()) for stages in ready):
        return None
    needed = {int(s) for stages in ready for s in stages.unique() if s < d} if ready else range(d)
    starts = sorted({0, *needed})
    units = [(0, *(int((stages <= s).sum()) for s in starts)) for stages in ready]
    width = net.out_features // d
    ends = ((*starts, d), *units, tuple(width * place for place in (*starts, d)))
    return Plan(ends, tuple(sorted(range(d), key=list(order).__getitem__)), width)


def solved(
    net: MaskedNet, plan: Plan, context: Tensor | None, n: int, answer: Answer, sweep: bool = False
) -> tuple[Tensor, Tensor]:
    """Coordinates by place [d, n], each what ``answer`` makes of the net's outputs for those before it, and the second
    of what it gives. Blocks are stepped, or swept: then ``answer`` is asked again and again, of whole blocks."""
    layers = _folded(net, plan, context)
    known: list[list[Tensor]] = [[] for _ in layers.weights]
    found = []
    size = SWEPT if sweep else STEPPED
    for first in range(0, plan.steps, size):
        last = min(first + size, plan.steps)
        waiting = []
        for level, (weight, added) in enumerate(zip(layers.weights, layers.added, strict=True)):
            rows = plan.span(level + 1, first, last)
            waiting.append(_begun(weight[rows], added[rows], known[level], n))
        block = _Block(layers, plan, first, last, waiting, answer)
        x, second, pieces = block.swept() if sweep else block.stepped()
        found.append((x, second))
        if last < plan.steps:
            for before, own in zip(known, pieces or block.units(x), strict=True):
                before.append(own)
    return tuple(map(torch.cat, zip(*found, strict=True)))  # type: ignore[return-value]


class _Folded(NamedTuple):
    """A masked net as it acts: of each layer its weights [out, in], inputs and outputs by place, and what is added to
    them [out, 1 or n]; and what acts between layers."""

    weights: list[Tensor]
    added: list[Tensor]
    act: Callable[[Tensor], Tensor]


def _folded(net: MaskedNet, plan: Plan, context: Tensor | None) -> _Folded:
    d, last = len(plan.sequence), net.last
    by_place = torch.tensor(plan.sequence, device=last.weight.device)
    rows = (by_place[:, None] + d * torch.arange(plan.width, device=by_place.device)).flatten()
    layers: list[nn.Module] = list(net.hidden)
    weights: list[Tensor] = [layer.weight * layer.mask for layer in layers]  # type: ignore[operator]
    added: list[Tensor] = [layer.bias[:, None] for layer in layers]  # type: ignore[index]
    weights.append((last.weight * net.mask).index_select(0, rows))
    added.append(last.bias.index_select(0, rows)[:, None])
    if context is not None:
        side = soft_clip(context.to(last.weight.dtype)).T
        added[0] = torch.addmm(added[0], weights[0][:, d:], side)
    weights[0] = weights[0].index_select(1, by_place)
    act = ACTIVATIONS[net.activation]  # units that wait must stay as they are
    return _Folded(weights, added, lambda h: net._drop(act(h)))


def _begun(weight: Tensor, added: Tensor, before: list[Tensor], n: int) -> Tensor:
    """What units have heard by the beginning of their block, from the pieces known before."""
    if not before:
        return added.expand(-1, n)
    before[:] = [torch.cat(before)] if len(before) > 1 else before
    return torch.addmm(added, weight[:, : len(before[0])], before[0])


class _Block:
    """Steps first, ..., last - 1, and what their units have heard from before: ``heard``, [units, n] a level."""

    def __init__(self, net: _Folded, plan: Plan, first: int, last: int, heard: list[Tensor], answer: Answer) -> None:
        self.act, self.plan, self.first, self.last, self.heard, self.answer = net.act, plan, first, last, heard, answer
        spans = [plan.span(level, first, last) for level in range(len(heard) + 1)]
        self.places = spans[0]
        self.weights = [w[rows, columns] for w, columns, rows in zip(net.weights, spans, spans[1:], strict=False)]

    def units(self, x: Tensor) -> list[Tensor]:
        """The inputs of each layer [units, n] that belong to this block, for its coordinates x [places, n]."""
        pieces = [soft_clip(x.to(self.heard[0].dtype))]
        for weight, heard in zip(self.weights[:-1], self.heard, strict=False):
            pieces.append(self.act(torch.addmm(heard, weight, pieces[-1])))
        return pieces

    def stepped(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Coordinates, the second of what the answers give, and the inputs of each layer."""
        plan, waiting, top = self.plan, list(self.heard), len(self.heard)
        steps = range(self.first, self.last)
        sizes = [[ends[t + 1] - ends[t] for t in steps] for ends in plan.ends]
        columns = [weight.split(size, 1) for weight, size in zip(self.weights, sizes, strict=False)]
        found, pieces = [], [[heard[:0]] for heard in self.heard]

        def tell(level: int, i: int, piece: Tensor) -> None:
            """Hand on what has become ready to those of the next level that wait."""
            pieces[level].append(piece)
            weight = columns[level][i]
            waiting[level] = torch.addmm(waiting[level], weight[len(weight) - len(waiting[level]) :], piece)

        for i, t in enumerate(steps):
            for level in range(1, top):
                if size := sizes[level][i]:
                    ready, waiting[level - 1] = waiting[level - 1][:size], waiting[level - 1][size:]
                    tell(level, i, self.act(ready))
            ready, waiting[-1] = waiting[-1][: sizes[top][i]], waiting[-1][sizes[top][i] :]
            raw = ready.view(len(ready) // plan.width, plan.width, ready.shape[1]).transpose(0, 1)
            found.append(self.answer(plan.span(0, t, t + 1), raw))
            tell(0, i, soft_clip(found[-1][0].to(ready.dtype)))
        x, second = zip(*found, strict=True)
        return torch.cat(x), torch.cat(second), [torch.cat(own) for own in pieces]

    def swept(self) -> tuple[Tensor, Tensor, None]:
        """The same but for the last."""
        x, second, stopped = self._sweeps()
        if not _all(stopped):
            slow = self.stepped()
            x, second = torch.where(stopped, x, slow[0]), torch.where(stopped, second, slow[1])
        return x, second, None

    def _sweeps(self) -> tuple[Tensor, Tensor, Tensor]:
        """Coordinates, the second of what the answers give, and which rows [n] have stopped."""
        width, steps, n = self.plan.width, self.last - self.first, self.heard[0].shape[1]
        weight, heard = (  # raw [width, places, n] in one run of memory
            part.view(len(part) // width, width, part.shape[1]).transpose(0, 1).reshape(part.shape)
            for part in (self.weights[-1], self.heard[-1])
        )
        x = heard.new_zeros(self.places.stop - self.places.start, n)
        second, stopped = x, heard.new_zeros(n, dtype=torch.bool)
        for sweep in range(min(SWEEPS, steps)):
            raw = torch.addmm(heard, weight, self.units(x)[-1]).view(width, len(x), n)
            new, new_second = self.answer(self.places, raw)
            near = (new - x).abs() <= NEAR * torch.finfo(new.dtype).eps * new.abs().clamp(min=1)
            if sweep and bool(stopped.any()):
                new, new_second = torch.where(stopped, x, new), torch.where(stopped, second, new_second)
            x, second = new, new_second
            stopped = stopped | near.all(0) | (sweep + 1 == steps)
            if _all(stopped):
                break
        return x, second, stopped


def _all(stopped: Tensor) -> bool:
    return bool(stopped.all())
