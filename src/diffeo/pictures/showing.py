"""What is shown of a density of pictures: samples, temperatures, nearest pictures, ways between pictures, levels."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from diffeo.data.pictures import grid, png_bytes
from diffeo.pictures.findings import Sheet
from diffeo.pictures.latents import joined, level_name, parts_of
from diffeo.quantized import Quantized

__all__ = ["TEMPERATURES", "back", "extremes", "great_circle", "rebuilt", "sheet", "temperatures", "varied", "ways"]

TEMPERATURES = (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
ACROSS = 8
TOGETHER = 64
_WIDEST = 576  # pixels of a page


def sheet(
    name: str,
    title: str,
    said: str,
    pixels: np.ndarray,
    grays: int,
    columns: int = ACROSS,
    *,
    beside: Sequence[str] = (),
    above: Sequence[str] = (),
) -> Sheet:
    """Pictures uint8 [n, C, H, W] as one PNG for a page."""
    picture = grid(pixels, columns, gap=2, grays=grays)
    height, width = picture.shape[:2]
    return Sheet(
        name=name,
        title=title,
        said=said,
        png=base64.b64encode(png_bytes(picture)).decode("ascii"),
        width=width,
        height=height,
        scale=max(1, min(6, _WIDEST // width)),
        rows=tuple(beside),
        columns=tuple(above),
    )


@torch.no_grad()
def back(density: Quantized, z: Tensor, context: Tensor | None = None) -> np.ndarray:
    """Noise [n, *latent] -> pictures uint8 [n, C, H, W]."""
    pieces = [
        density.from_latent(z[start : start + TOGETHER], None if context is None else context[start : start + TOGETHER])
        for start in range(0, len(z), TOGETHER)
    ]
    return torch.cat(pieces).cpu().numpy()


def temperatures(density: Quantized, z: Tensor, context: Tensor | None) -> Sheet:
    """The same noise [rows, *latent], every row of the sheet from one, multiplied by one temperature a column."""
    rows = len(z)
    scaled = torch.stack([z * temperature for temperature in TEMPERATURES], 1).flatten(0, 1)
    given = None if context is None else context.repeat_interleave(len(TEMPERATURES), 0)
    return sheet(
        "temperatures",
        "Cooler noise",
        f"{rows} draws, each with its noise multiplied by the temperature above. At 0 all are the picture in the "
        "middle of the noise; lower ones are calmer, and no longer draws of this density.",
        back(density, scaled, given),
        density.levels,
        len(TEMPERATURES),
        above=[f"{temperature:g}" for temperature in TEMPERATURES],
    )


def extremes(pixels: np.ndarray, bits: np.ndarray, grays: int) -> Sheet:
    """The most and the least probable of pictures [n, C, H, W] by their bits [n]."""
    few = min(2 * ACROSS, len(bits))
    order = np.argsort(bits, kind="stable")
    rows = -(-few // ACROSS)
    blank = np.full((rows * ACROSS - few, *pixels.shape[1:]), grays - 1, np.uint8)
    shown = np.concatenate([pixels[order[:few]], blank, pixels[order[::-1][:few]], blank])
    return sheet(
        "extremes",
        "The most and the least probable pictures",
        f"Of those scored: above the most probable ({bits[order[0]]:.2f} bits per dimension and more), below the least "
        f"({bits[order[-1]]:.2f} and less).",
        shown,
        grays,
        beside=[*["most"] * rows, *["least"] * rows],
    )


def great_circle(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Points [steps, *latent] between noise a and b [*latent], along the great circle, as noise lies near a sphere;
    direction and length each at an even pace by share [steps]."""
    one, other = a.flatten(), b.flatten()
    lengths = one.norm(), other.norm()
    one, other = (v / length.clamp(min=1e-12) for v, length in zip((one, other), lengths, strict=True))
    angle = (one @ other).clamp(-1, 1).arccos()
    if float(angle.sin()) < 1e-4:
        road = torch.lerp(a.flatten()[None], b.flatten()[None], share[:, None])
    else:
        road = (torch.sin((1 - share) * angle)[:, None] * one + torch.sin(share * angle)[:, None] * other) / angle.sin()
        road = road * torch.lerp(lengths[0], lengths[1], share)[:, None]
    return road.reshape(len(share), *a.shape)


@torch.no_grad()
def ways(density: Quantized, x: Tensor, context: Tensor | None) -> Sheet:
    """Ways between pictures x [2 rows, C, H, W], the first half to the second."""
    z = density.to_latent(x, context)
    half = len(z) // 2
    share = torch.linspace(0, 1, ACROSS).to(z)
    road = torch.cat([great_circle(z[row], z[half + row], share) for row in range(half)])
    given = None
    if context is not None:
        ends = zip(context[:half], context[half:], strict=True)
        given = torch.cat([torch.lerp(a.expand(ACROSS, -1), b.expand(ACROSS, -1), share[:, None]) for a, b in ends])
    return sheet(
        "ways",
        "From one picture to another",
        "Through the noise of all levels, along a great circle. The first and the last of each row are pictures.",
        back(density, road, given),
        density.levels,
    )


@torch.no_grad()
def varied(density: Quantized, x: Tensor, context: Tensor | None, generator: torch.Generator) -> Sheet | None:
    """One picture x [1, C, H, W] with one level's noise drawn anew, a row for each level; None without levels."""
    z = density.to_latent(x, context)
    parts = parts_of(density, z)
    if len(parts) == 1:
        return None
    rows = []
    for place, part in enumerate(parts):
        new = [piece.expand(ACROSS, *piece.shape[1:]).clone() for piece in parts]
        fresh = torch.randn(ACROSS - 1, *part.shape[1:], generator=generator).to(part)
        new[place][1:] = fresh
        rows.append(joined(density, new))
    given = None if context is None else context.expand(ACROSS * len(parts), -1)
    return sheet(
        "varied",
        "What each level decides",
        "The first of each row is a picture; in the others the noise of that level alone is drawn anew.",
        back(density, torch.cat(rows), given),
        density.levels,
        beside=[level_name(place, len(parts)) for place in range(len(parts))],
    )


@torch.no_grad()
def rebuilt(density: Quantized, x: Tensor, context: Tensor | None) -> Sheet:
    """Pictures x [n, C, H, W], what comes back from their noise, and what does without the finest levels of it."""
    z = density.to_latent(x, context)
    parts = parts_of(density, z)
    rows, beside = [z], ["picture", "there and back"]
    for kept in range(1, len(parts)):
        rows.append(joined(density, [torch.zeros_like(p) if i < kept else p for i, p in enumerate(parts)]))
        beside.append("level 1 left out" if kept == 1 else f"levels 1 to {kept} left out")
    given = None if context is None else context.repeat(len(rows), 1)
    pixels = np.concatenate([x.cpu().numpy().astype(np.uint8), back(density, torch.cat(rows), given)])
    without = " Below, the noise of the finest levels is set to 0, the middle of it." if len(parts) > 1 else ""
    return sheet(
        "rebuilt",
        "Pictures from their noise",
        f"Some of the scored pictures, and what their noise gives.{without}",
        pixels,
        density.levels,
        len(x),
        beside=beside,
    )
