"""A row of many kinds: exact masses of the discrete columns, times densities of the angles and the numbers given them.

    log p(row | given) = log P(codes | given) + sum_a log p(angle_a | codes, angles before, given)
                       + log p(numbers | codes, angles, given)

by the chain rule, each factor a density of its own whose context holds what stands before it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffeo.bases import LOG_2PI, Density
from diffeo.errors import ShapeError, whole
from diffeo.flow import Flow
from diffeo.masses import Masses, OneHot
from diffeo.mixtures import Ensemble
from diffeo.quantized import POINTS, lattice, log_mean_exp
from diffeo.rows import Layout, Rows
from diffeo.transforms import Chain

__all__ = ["Mixed"]

CHUNK = 1024  # rows (times points) scored at a time: what a processor's cache holds
CANDIDATES = 32  # places in a cell of which one is drawn
OUTERMOST = 1e-300  # probabilities are kept above this, so that their normals are finite


class Mixed(Density):
    """The density of encoded rows x [n, D], float64, in nats: per unit of the file for numbers, log-probabilities for
    discrete columns and rounding cells.

    `masses` of the codes, one flow for each angle, `units` and the flow `rest` of the numbers; each may be absent
    where there are no such columns. An atom of a number is a code; its free place is filled with a standard normal
    in unit spread, whose density is divided out again.
    """

    slopes: Tensor

    def __init__(
        self,
        layout: Layout,
        masses: Masses | None,
        angles: list[Flow],
        units: Chain | None,
        rest: Flow | None,
        given_units: Chain | None,
    ) -> None:
        super().__init__()
        self.layout = layout
        self.event_shape = (len(layout.schema.columns),)
        self.masses, self.angles, self.units, self.rest = masses, nn.ModuleList(angles), units, rest
        self.one_hot = OneHot(layout.sizes, layout.ordinal)
        self.given_one_hot = OneHot(layout.given_sizes, layout.given_ordinal)
        self.given_units = given_units
        self.register_buffer("slopes", torch.zeros(len(layout.smooth), dtype=torch.float64))
        self.set_slopes()

    @staticmethod
    def context_widths(layout: Layout) -> tuple[int, list[int], int]:
        """Features that the masses, each angle and the rest see."""
        given = sum(layout.given_sizes) + sum(layout.given_ordinal)
        given += sum(1 + (c.kind == "circular") for _, c in layout.given_numeric)
        codes = given + sum(layout.sizes) + sum(layout.ordinal)
        return given, [codes + 2 * a for a in range(len(layout.angular))], codes + 2 * len(layout.angular)

    @property
    def parts(self) -> list[tuple[str, nn.Module]]:
        """The factors that are learned, with their names; in the order of `part_log_probs`."""
        named: list[tuple[str, nn.Module]] = [("masses", self.masses)] if self.masses is not None else []
        named += [(c.name, flow) for (_, c), flow in zip(self.layout.angular, self.angles, strict=True)]
        return named + ([("numbers", self.rest)] if self.rest is not None else [])

    @property
    def learners(self) -> list[tuple[str, nn.Module, float]]:
        """What is trained by itself: the factors, but each member of an ensemble in place of the whole; with its name
        and its share of the log-density that is shown while training (the mean over members)."""
        apart = [self.members[j] for j in self.learning]
        named = self.parts[:-1] if apart else self.parts
        return [(name, module, 1.0) for name, module in named] + [
            (f"numbers {j}", member, 1.0 / len(apart)) for j, member in enumerate(apart, 1)
        ]

    @property
    def learning(self) -> list[int]:
        """Which of the members are learned; the others are what was fitted before."""
        return [j for j, member in enumerate(self.members) if getattr(member, "net", None) is not None]

    @property
    def members(self) -> list[nn.Module]:
        """Of the density of the numbers, where that is an ensemble of more than one and nothing is done before it."""
        if self.rest is None or not isinstance(self.rest.base, Ensemble) or len(self.rest.base.members) < 2:
            return []
        chain = self.rest.transform
        return [] if not isinstance(chain, Chain) or chain.transforms else list(self.rest.base.members)

    def _of_numbers(self) -> list[nn.Module]:
        """The densities of the numbers: each member's, or the one."""
        return self.members or ([] if self.rest is None else [self.rest])

    def _average(self, each: Tensor) -> Tensor:
        """The log-density [n] of the numbers that those of `_of_numbers`, [m, n], make."""
        if not self.members or self.rest is None:
            return each[0]
        return self.rest.base.average(each)  # type: ignore[operator]

    def set_slopes(self) -> None:
        """Keep the log-slope of the units at the place that fills an atom's cell; to be called when units change."""
        if self.units is None or not self.layout.spiked:
            return
        middle = self.middle()
        with torch.enable_grad():
            x = middle[None].requires_grad_()
            z = self.units(x)[0].double().sum()
            self.slopes.copy_(torch.autograd.grad(z, x)[0][0].abs().log())

    def middle(self) -> Tensor:
        """The numbers [d] at the middle of the units: z = 0."""
        assert self.units is not None
        with torch.no_grad():
            return self.units.inverse(torch.zeros(1, len(self.layout.smooth), dtype=torch.float64))[0][0]

    def features(self, rows: Rows) -> Tensor:
        """All that is given, then codes, then angles, float32 [n, c]."""
        parts = [self.given_one_hot(rows.given_codes)] if self.layout.given_discrete else []
        if self.given_units is not None:
            parts.append(self.given_units(rows.given_numbers)[0])
        parts += [self.one_hot(rows.codes)] if self.layout.sizes else []
        if self.layout.angular:
            parts.append(torch.stack([rows.angles.sin(), rows.angles.cos()], 2).flatten(1).float())
        return torch.cat(parts, 1) if parts else torch.zeros(rows.n, 0, device=rows.low.device)

    def part_log_probs(self, rows: Rows, noise: Tensor) -> Tensor:
        """What training raises for each row, [n, learners], each learner's log-probability (but of flow matching, minus
        its loss); noise [n, d] in [0, 1] fills the free places."""
        numbers = None if self.rest is None else self.numbers(rows, noise)
        return self.learned_log_probs(rows.codes, rows.angles, self.features(rows), numbers)

    def learned_log_probs(
        self, codes: Tensor, angles: Tensor, features: Tensor, numbers: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """The same of what does not change in training: codes and angles, `features`, and the outcome of `numbers`."""
        values = self._exact(codes, angles, features)
        if numbers is not None:
            learning = [self.members[j] for j in self.learning] if self.members else []
            apart: list[Any] = learning or [self.rest]
            (z, log_det), context = numbers, features if features.shape[1] else None
            values += [density.objective(z, context) + log_det for density in apart]
        return torch.stack([value.double() for value in values], 1)

    def _exact(self, codes: Tensor, angles: Tensor, features: Tensor) -> list[Tensor]:
        """Log-probabilities [n] of the codes and of each angle, which have no free places."""
        first, angular, _ = self.context_widths(self.layout)
        values = [] if self.masses is None else [self.masses(codes, features[:, :first] if first else None)]
        for a, (flow, width) in enumerate(zip(self.angles, angular, strict=True)):
            turn = math.log(2 * math.pi / self.layout.angular[a][1].turn[1])
            context = features[:, :width] if width else None
            values.append(flow(angles[:, a : a + 1].to(features.dtype), context) + turn)
        return values

    def numbers(self, rows: Rows, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers in unit spread z [n, d], free places filled, and the log of what that costs in volume [n]."""
        return self.placed(rows.low, rows.width, rows.atom, noise)

    def placed(self, low: Tensor, width: Tensor, atom: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The same of the parts of rows that hold numbers."""
        assert self.units is not None
        x = low + width * noise
        volume = torch.where(width > 0, width, 1.0).log()
        if not self.layout.spiked:
            z, log_det = self.units(x)
            return z, log_det + volume.sum(1)
        z, log_det = self.units(torch.where(atom, self.middle(), x))
        normal = torch.special.ndtri(noise.clamp(1e-9, 1 - 1e-9)).to(z.dtype)
        cost = 0.5 * normal.double().square() + 0.5 * LOG_2PI - self.slopes
        return torch.where(atom, normal, z), log_det + torch.where(atom, cost, volume).sum(1)

    def _numbers(self, rows: Rows, noise: Tensor, features: Tensor, each: Sequence[Callable]) -> list[Tensor]:
        """Log-densities [n] of the numbers, given all that stands before them, as each of some functions says."""
        z, log_det = self.numbers(rows, noise)
        context = features if features.shape[1] else None
        return [say(z, context) + log_det for say in each]

    def score(self, rows: Rows, points: int = POINTS) -> Tensor:
        """Each factor's log-probability of each row, [n, parts], float64: repeatable, at `points` fixed points of the
        free places; -inf where a row is impossible. The points are shared out among the members of an ensemble, which
        leaves a bound on average, and costs no more than one member at all of them."""
        count = len(self.members)
        if not count:
            return self.score_members(rows, points)
        each = self._scores(rows, count * -(-points // count), self._of_numbers(), apart=True)
        exact = len(self.parts) - 1
        return torch.cat([each[:, :exact], self._average(each[:, exact:].T)[:, None]], 1)

    def score_members(self, rows: Rows, points: int = POINTS, which: Sequence[int] | None = None) -> Tensor:
        """The same, but in place of the numbers' average each member, or `which` of them, at all of the points."""
        every = self._of_numbers()
        return self._scores(rows, points, every if which is None else [every[j] for j in which], apart=False)

    @torch.no_grad()
    def _scores(self, rows: Rows, points: int, each: Sequence[nn.Module], apart: bool) -> Tensor:
        free = self.layout.free
        spread = torch.full((points if free else 1, len(self.layout.smooth)), 0.5, dtype=torch.float64)
        spread[:, free] = lattice(len(spread), len(free))
        spread = spread.to(rows.low.device)
        size = max(1, CHUNK // len(spread))
        found = [self._score(rows[i : i + size], spread, each, apart and bool(free)) for i in range(0, rows.n, size)]
        count = len(self.parts) - (self.rest is not None) + len(each)
        return torch.cat(found) if found else torch.zeros(0, count, dtype=torch.float64)

    def _score(self, rows: Rows, spread: Tensor, each: Sequence[nn.Module], apart: bool) -> Tensor:
        features = self.features(rows)
        values = [value.double() for value in self._exact(rows.codes, rows.angles, features)]
        if each:
            values += self._masses_of_cells(rows, features, spread, each, apart)
        found = torch.stack(values, 1) if values else torch.zeros(rows.n, 0, dtype=torch.float64)
        return torch.where(rows.possible[:, None], found, -math.inf)

    def _masses_of_cells(
        self, rows: Rows, features: Tensor, spread: Tensor, densities: Sequence[nn.Module], apart: bool
    ) -> list[Tensor]:
        """Log-masses [n] of the numbers under each of some densities, by points [m, d] of their cells; `apart`: by its
        part of them."""
        n, m = rows.n, len(spread)
        many = Rows(*(part.repeat_interleave(m, 0) for part in rows.parts()))
        z, log_det = self.numbers(many, spread.repeat(n, 1))
        z, log_det = z.view(n, m, z.shape[1]), log_det.view(n, m)
        each = m // len(densities) if apart else m
        context = features.repeat_interleave(each, 0) if features.shape[1] else None
        found = []
        for j, density in enumerate(densities):
            own = slice(j * each, (j + 1) * each) if apart else slice(None)
            heights = density(z[:, own].reshape(n * each, -1), context).view(n, each) + log_det[:, own]
            found.append(log_mean_exp(heights.double().T))
        return found

    @torch.no_grad()
    def to_normal(self, rows: Rows, generator: torch.Generator | None = None) -> Tensor:
        """The randomised Rosenblatt map: independent standard normals [n, D_row], float64, if the rows are drawn from
        this density (Rosenblatt 1952); in the order of the schema's row columns.

        What stands for a column is the transform of its value given what comes before it in the chain rule: codes, then
        angles, then numbers. A code becomes a uniform draw from its step of the distribution function (Brockwell 2007).
        An atom has its code's alone, below those of the free values of its column. A rounded number stands for a place
        in its cell, drawn from this density among CANDIDATES and not evenly: an even place in a coarse cell is not
        distributed as the density says, and a right one would look wrong.

        Of numbers that pass through layers which mix them, the normals are independent but belong to no column alone:
        `latent_names` says which. Rows that are impossible have no place in it and come back NaN.
        """
        size = max(1, CHUNK // (CANDIDATES if self.layout.free else 1))
        found = [self._to_normal(rows[i : i + size], generator) for i in range(0, rows.n, size)]
        return torch.cat(found) if found else torch.zeros(0, len(self.layout.schema.row_columns), dtype=torch.float64)

    def _to_normal(self, rows: Rows, generator: torch.Generator | None) -> Tensor:
        layout, features = self.layout, self.features(rows)
        first, angular, _ = self.context_widths(layout)
        z = torch.zeros(rows.n, len(layout.schema.columns), dtype=torch.float64)
        codes = z[:, :0]
        if self.masses is not None:
            below, own = self.masses.steps(rows.codes, features[:, :first] if first else None)
            codes = below + own * torch.rand(below.shape, generator=generator, dtype=torch.float64)
            for k, (i, _) in enumerate(layout.discrete):
                z[:, i] = _normal(codes[:, k])
        for a, ((i, _), flow, width) in enumerate(zip(layout.angular, self.angles, angular, strict=True)):
            angle = rows.angles[:, a : a + 1].to(features.dtype)
            z[:, i : i + 1] = _latent(flow, angle, features[:, :width] if width else None)
        if self.rest is not None:
            numbers = self._numbers_to_normal(rows, features, generator)
            for k, (j, _) in enumerate(layout.spiked, len(layout.discrete)):
                free = -_normal((below + own)[:, k] * torch.special.ndtr(-numbers[:, j]))
                numbers[:, j] = torch.where(rows.atom[:, j], -_normal(codes[:, k]), free)
            z[:, [i for i, _ in layout.smooth]] = numbers
        z = z[:, [i for i, c in enumerate(layout.schema.columns) if c.role == "row"]]
        return torch.where(rows.possible[:, None], z, math.nan)

    def _numbers_to_normal(self, rows: Rows, features: Tensor, generator: torch.Generator | None) -> Tensor:
        """[n, d]; places in cells by sampling-importance-resampling (Rubin 1988) of a shifted lattice."""
        assert self.rest is not None
        place, free = torch.full(rows.low.shape, 0.5, dtype=torch.float64), self.layout.free
        if free:
            shift = torch.rand(rows.n, 1, len(free), generator=generator, dtype=torch.float64)
            tried = place[:, None].repeat(1, CANDIDATES, 1)
            tried[:, :, free] = (lattice(CANDIDATES, len(free)) + shift) % 1.0
            many = Rows(*(part.repeat_interleave(CANDIDATES, 0) for part in rows.parts()))
            repeated = features.repeat_interleave(CANDIDATES, 0)
            each = self._numbers(many, tried.flatten(0, 1), repeated, self._of_numbers())
            heights = self._average(torch.stack(each)).double().view(rows.n, CANDIDATES).nan_to_num(-math.inf)
            steps = (heights - heights.amax(1, keepdim=True)).nan_to_num(0.0).exp().cumsum(1)
            level = torch.rand(rows.n, 1, generator=generator, dtype=torch.float64) * steps[:, -1:]
            place = tried[torch.arange(rows.n), (level >= steps[:, :-1]).sum(1)]
        z = self.numbers(rows, place)[0]
        return _latent(self.rest, z, features if features.shape[1] else None)

    @property
    def latent_names(self) -> tuple[str, ...]:
        """The names of what `to_normal` gives: each column's own, but where layers mix the numbers."""
        smooth = [i for i, _ in self.layout.smooth]
        own = self.rest is None or _in_order(self.rest)
        return tuple(
            c.name if own or i not in smooth else f"numbers, latent {smooth.index(i) + 1}"
            for i, c in enumerate(self.layout.schema.columns)
            if c.role == "row"
        )

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-probability in nats of encoded rows x [n, D] (given columns included): [n], float64."""
        if not isinstance(x, Tensor):
            raise ShapeError(f"x: expected a torch.Tensor of encoded rows, got {type(x).__name__}")
        if x.ndim != 2 or tuple(x.shape[1:]) != self.event_shape:
            raise ShapeError(f"x: expected encoded rows of shape [n, {self.event_shape[0]}], got {list(x.shape)}")
        return self.score(self.layout.rows(x.detach().double().cpu().numpy())).sum(1)

    def sample(self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """n encoded rows [n, D_row], float64; of a density given columns use `sample_given`."""
        whole("n", n, 0)
        if self.layout.given_discrete or self.layout.given_numeric:
            raise ShapeError("this density is conditional; give the columns that it is conditioned on")
        return torch.from_numpy(
            self.sample_given(self.layout.rows(np.zeros((n, len(self.layout.schema.columns)))), generator)
        )

    @torch.no_grad()
    def sample_given(self, rows: Rows, generator: torch.Generator | None = None) -> np.ndarray:
        """One encoded row [n, D_row] for each of n rows, of which only the given columns are read."""
        n, (first, angular, last) = rows.n, self.context_widths(self.layout)
        if self.masses is not None:
            context = self.features(rows)[:, :first] if first else None
            rows = replace(rows, codes=_one_each(self.masses, n, context, generator).long())
        angles = torch.zeros(n, len(self.angles), dtype=torch.float64)
        for a, (flow, width) in enumerate(zip(self.angles, angular, strict=True)):
            context = self.features(replace(rows, angles=angles))[:, :width] if width else None
            angles[:, a : a + 1] = _one_each(flow, n, context, generator).double()
        rows = replace(rows, angles=angles)
        numbers = torch.zeros(n, 0, dtype=torch.float64)
        if self.rest is not None and self.units is not None:
            context = self.features(rows)[:, :last] if last else None
            numbers = self.units.inverse(_one_each(self.rest, n, context, generator))[0]
        return self.layout.encoded(rows.codes.numpy(), angles.numpy(), numbers.double().numpy())


def _one_each(density: nn.Module, n: int, context: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """One draw for each of n rows: [n, *event]."""
    draws = density.sample(n if context is None else 1, context, generator)  # type: ignore[operator]
    return draws if context is None else draws[0]


def _normal(level: Tensor) -> Tensor:
    """The standard normals, finite, at levels of [0, 1]."""
    return torch.special.ndtri(level.clamp(OUTERMOST, 1 - 1e-16))


def _latent(flow: nn.Module, x: Tensor, context: Tensor | None) -> Tensor:
    """Independent standard normals, float64 and finite, of a flow's rows x [n, d]."""
    z = flow.base.to_normal(flow.transform(x, context)[0], context)  # type: ignore[operator, union-attr]
    return z.double().clamp(-37.0, 37.0)


def _in_order(flow: Flow) -> bool:
    """Whether no coordinate of the noise looks at a later one of the data, judged by the slopes at one point."""
    d = flow.event_shape[0]
    context = torch.zeros(1, flow.context_features) if flow.context_features else None
    with torch.enable_grad():
        slopes = torch.autograd.functional.jacobian(
            lambda z: flow.transform(z[None], context)[0][0], torch.linspace(-0.5, 0.4, d)
        )
    return bool(slopes.triu(1).abs().max() <= 1e-6 * slopes.abs().max())
