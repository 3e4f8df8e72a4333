"""The search for a grid: are these values multiples of one step, exactly, up to the noise of arithmetic?"""

import numpy as np

from diffeo.data.grid import WARPS, Grid, Warp, warped

_CLEAR = 32.0  # a step must be so many times the resolution of the floats
_NOISE = 1e-3  # what arithmetic may have added, in steps
_MOST_DIGITS = 12


def _spacing(u: np.ndarray, single: bool) -> np.ndarray:
    """The resolution of the floats at u, in the units of u."""
    exponent = np.maximum(np.frexp(u)[1], -125 if single else -1021)
    return np.ldexp(1.0, np.where(u == 0, -125 if single else -1021, exponent) - (24 if single else 53))


def _is_single(u: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.array_equal(u.astype(np.float32).astype(float), u)) and not np.array_equal(np.rint(u * 8), u * 8)


def _printed_single(u: np.ndarray) -> bool:
    """Whether values have no more digits than float32 prints."""
    few = slice(None, None, max(1, len(u) // 64))
    with np.errstate(over="ignore"):
        stored = u.astype(np.float32)
    return all(np.array_equal(stored[part].astype(str).astype(float), u[part]) for part in (few, slice(None)))


def _decimal(g: np.ndarray, fuzz: np.ndarray) -> tuple[np.ndarray, int] | None:
    """The values as whole numbers of 10^-digits, for the fewest digits that do; `fuzz` is the resolution of g."""
    few = slice(None, None, max(1, len(g) // 64))
    top = float(fuzz.max())
    for digits in range(_MOST_DIGITS + 1):
        scale = 10.0**digits
        if top * scale * _CLEAR > 1.0 or np.abs(g[[0, -1]]).max() * scale >= 2.0**53:
            return None
        for part in (few, slice(None)):
            scaled = g[part] * scale
            if np.any(np.abs(scaled - np.rint(scaled)) > _NOISE + 0.75 * fuzz[part] * scale):
                break
        else:
            return np.rint(g * scale), digits
    return None


def _common_step(whole: np.ndarray, through_zero: bool) -> tuple[int, int]:
    """(step, offset) of sorted whole numbers: their greatest common divisor, of the differences or of themselves."""
    k = whole.astype(np.int64)
    step = int(np.gcd.reduce(k if through_zero else np.diff(k))) or 1
    return step, 0 if through_zero else int(k[0]) % step


def _real_step(u: np.ndarray, fuzz: float) -> tuple[float, float] | None:
    """(step, offset) of sorted values that are multiples of any real step: Euclid's algorithm on their gaps."""
    gaps = np.diff(u)
    step = float(gaps.min())
    for _ in range(64):
        if step < _CLEAR * fuzz:
            return None
        k = np.rint(gaps / step)
        rest = np.abs(gaps - k * step)
        bad = rest > np.maximum(4 * fuzz * (1 + k), 1e-9 * gaps)
        if not bad.any():
            break
        step = float(rest[bad].min())
    k = np.cumsum(np.concatenate(([0.0], np.rint(gaps / step))))
    step = float(k @ (u - u[0]) / (k @ k))
    start = np.rint(u[0] / step)
    through = float((k + start) @ u / ((k + start) @ (k + start)))
    for offset, size, index in ((0.0, through, k + start), (float(u[0]), step, k)):
        if np.all(np.abs(offset + size * index - u) <= 16 * fuzz):
            return size, offset
    return None


def _noise_of(grid: Grid, u: np.ndarray) -> Grid | None:
    """The grid with its slack measured on the values; None where they stray by more than a quarter of a cell."""
    stray = np.abs(grid.snap(u) - u)
    low, high = grid.cell(u)
    if np.any(stray > 0.25 * (high - low)):
        return None
    worst = float(stray.max())
    return grid.model_copy(update={"slack": worst * (1 + 1e-9)}) if worst else grid


def _exacter(grids: list[Grid], u: np.ndarray) -> Grid | None:
    """Of several ways to write the same grid, the one that gives most values back exactly."""
    known = [grid for grid in (_noise_of(grid, u) for grid in grids) if grid is not None]
    return min(known, key=lambda grid: np.count_nonzero(grid.snap(u) != u), default=None)


def _on_warp(u: np.ndarray, warp: Warp, single: bool, stored_single: bool) -> Grid | None:
    """The decimal grid of the values under one warp, if they have one."""
    g = warped(u, warp)
    if not np.all(np.isfinite(g)) or (warp != "identity" and g.min() <= 0):
        return None
    if warp == "identity":
        fuzz = _spacing(u, single)
    else:
        h = np.maximum(np.abs(u) * 1e-6, 1e-9)
        slope = np.abs(warped(u + h, warp) - warped(u - h, warp)) / (2 * h)
        fuzz = slope * _spacing(u, single) + np.spacing(g)
    order = np.argsort(g)
    found = _decimal(g[order], fuzz[order])
    if found is None:
        return None
    whole, digits = found
    if warp != "identity" and whole[0] < 1:
        return None
    step, offset = _common_step(whole, through_zero=warp != "identity")
    scale = 10.0**digits
    plain = Grid(step=step / scale, offset=offset / scale, warp=warp, single=stored_single)
    ways = [plain.model_copy(update={"digits": digits}), plain] if warp == "identity" else [plain]
    return _exacter(ways, u)


def find_grid(u: np.ndarray, *, stored_single: bool = False, warps: bool = False) -> Grid | None:
    """The grid of sorted, distinct, finite values u [m], or None; `warps` also looks under logarithm and reciprocal.

    Every value must lie on it, and its step must be far above the resolution of the floats, so that data that
    are continuous have none (whether a grid so fine matters is for the caller to say, from the ties).

    >>> find_grid(np.array([0.5, 0.75, 1.5]))
    Grid(step=0.25, offset=0.0, warp='identity', digits=2, slack=0.0, single=False)
    >>> find_grid(np.sort(np.random.default_rng(0).normal(size=9))) is None
    True
    """
    if len(u) < 2:
        return None
    single = stored_single or _is_single(u)
    found = _search(u, single, stored_single, warps)
    if single or found is None or found.step > _CLEAR * _spacing(u[[0, -1]], True).max() or not _printed_single(u):
        return found
    # so fine a step may be only the last digit of a printed float32, which hides the true grid
    return _search(u, True, stored_single, warps) or found


def _search(u: np.ndarray, single: bool, stored_single: bool, warps: bool) -> Grid | None:
    """The first grid that fits: decimal, of any real step, decimal under a warp."""
    for warp in WARPS if warps else WARPS[:1]:
        grid = _on_warp(u, warp, single, stored_single)
        if grid is not None:
            return grid
        if warp == "identity" and warps:
            real = _real_step(u, float(_spacing(u[[0, -1]], single).max()))
            if real is not None:
                return _noise_of(Grid(step=real[0], offset=real[1] % real[0], single=stored_single), u)
    return None
