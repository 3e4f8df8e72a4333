"""A row of many kinds: exact masses of the discrete columns, times densities of the angles and the numbers given them.

    log p(row | given) = log P(codes | given) + sum_a log p(angle_a | codes, angles before, given)
                       + log p(numbers | codes, angles, given)

by the chain rule, each factor a density of its own whose context holds what stands before it.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from diffeo.bases import LOG_2PI, Density
from diffeo.errors import ShapeError, whole
from diffeo.flow import Flow
from diffeo.masses import Masses, OneHot
from diffeo.quantized import POINTS, lattice, log_mean_exp
from diffeo.rows import Layout, Rows
from diffeo.transforms import Chain

__all__ = ["Mixed"]

CHUNK = 1024  # rows (times points) scored at a time: what a processor's cache holds


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
        """Each factor's log-probability of each row, [n, parts]; noise [n, d] in [0, 1] fills the free places."""
        features = self.features(rows)
        values = self._exact(rows, features)
        if self.rest is not None:
            values.append(self._numbers(rows, noise, features))
        return torch.stack([value.double() for value in values], 1)

    def _exact(self, rows: Rows, features: Tensor) -> list[Tensor]:
        """Log-probabilities [n] of the codes and of each angle, which have no free places."""
        first, angular, _ = self.context_widths(self.layout)
        values = [] if self.masses is None else [self.masses(rows.codes, features[:, :first] if first else None)]
        for a, (flow, width) in enumerate(zip(self.angles, angular, strict=True)):
            turn = math.log(2 * math.pi / self.layout.angular[a][1].turn[1])
            context = features[:, :width] if width else None
            values.append(flow(rows.angles[:, a : a + 1].to(features.dtype), context) + turn)
        return values

    def numbers(self, rows: Rows, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers in unit spread z [n, d], free places filled, and the log of what that costs in volume [n]."""
        assert self.units is not None
        x = rows.low + rows.width * noise
        volume = torch.where(rows.width > 0, rows.width, 1.0).log()
        if not self.layout.spiked:
            z, log_det = self.units(x)
            return z, log_det + volume.sum(1)
        z, log_det = self.units(torch.where(rows.atom, self.middle(), x))
        normal = torch.special.ndtri(noise.clamp(1e-9, 1 - 1e-9)).to(z.dtype)
        cost = 0.5 * normal.double().square() + 0.5 * LOG_2PI - self.slopes
        return torch.where(rows.atom, normal, z), log_det + torch.where(rows.atom, cost, volume).sum(1)

    def _numbers(self, rows: Rows, noise: Tensor, features: Tensor) -> Tensor:
        """Log-density [n] of the numbers, given all that stands before them."""
        assert self.rest is not None
        z, log_det = self.numbers(rows, noise)
        return self.rest(z, features if features.shape[1] else None) + log_det

    @torch.no_grad()
    def score(self, rows: Rows, points: int = POINTS) -> Tensor:
        """Each factor's log-probability of each row, [n, parts], float64: repeatable, at `points` fixed points of the
        free places; -inf where a row is impossible."""
        free = self.layout.free
        spread = torch.full((points if free else 1, len(self.layout.smooth)), 0.5, dtype=torch.float64)
        spread[:, free] = lattice(len(spread), len(free))
        spread = spread.to(rows.low.device)
        size = max(1, CHUNK // len(spread))
        found = [self._score(rows[i : i + size], spread) for i in range(0, rows.n, size)]
        return torch.cat(found) if found else torch.zeros(0, len(self.parts), dtype=torch.float64)

    def _score(self, rows: Rows, spread: Tensor) -> Tensor:
        features = self.features(rows)
        values = [value.double() for value in self._exact(rows, features)]
        if self.rest is not None:
            m = len(spread)
            many = Rows(*(part.repeat_interleave(m, 0) for part in rows.parts()))
            each = self._numbers(many, spread.repeat(rows.n, 1), features.repeat_interleave(m, 0))
            values.append(log_mean_exp(each.double().view(rows.n, m).T))
        return torch.where(rows.possible[:, None], torch.stack(values, 1), -math.inf)

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
