"""The rational-quadratic spline as one Triton kernel each for forward, gradient and inverse, for numbers on a GPU.

Imported only where tensors lie there, as Triton comes with torch's builds for it. A program takes BLOCK numbers and
walks the bins in registers: for the normaliser of the softmax, for the knots, and for the gradient of each.
"""

# mypy: disable-error-code="no-untyped-def"
# (what Triton compiles has types of its own)
import math
from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["gradient", "moved"]

BLOCK = 128
SMALLEST_BIN, LOG_STEEPEST = 1e-3, math.log(1e3)  # as in the formulas that this stands in for
NEWTON = 5  # safeguarded steps after the closed form of the inverse
TYPES = {torch.float32: tl.float32, torch.float64: tl.float64}


def _run(kernel: Any, bins: int, bound: float, dtype: torch.dtype, raw: Tensor, *tensors: Tensor, **more: Any) -> None:
    m = tensors[0].numel()
    if not m:
        return
    least, scale = 2 * bound * SMALLEST_BIN, 2 * bound * (1 - bins * SMALLEST_BIN)
    with torch.cuda.device(raw.device) if raw.is_cuda else nullcontext():
        kernel[(triton.cdiv(m, BLOCK),)](
            tensors[0], raw, *tensors[1:], m, BOUND=bound, LEAST=least, SCALE=scale, STEEPEST=LOG_STEEPEST,
            dtype=TYPES[dtype], K=bins, ROUND=raw.shape[0] == 3 * bins, B=BLOCK, **more,
        )  # fmt: skip


def moved(x: Tensor, raw: Tensor, bins: int, bound: float, inverse: bool) -> tuple[Tensor, Tensor]:
    """x [*s], raw [3 bins - 1 or 3 bins, *s], contiguous and of one dtype -> (y, log dy/dx) [*s]; the inverse computes
    in float64, since a slope of 1e-3 leaves a thousandth of y's precision to x."""
    y, log_slope = torch.empty_like(x), torch.empty_like(x)
    if inverse:
        _run(_inverse, bins, bound, torch.float64, raw, x, y, log_slope, STEPS=NEWTON)
    else:
        _run(_forward, bins, bound, x.dtype, raw, x, y, log_slope)
    return y, log_slope


def gradient(
    x: Tensor, raw: Tensor, gy: Tensor, gl: Tensor, bins: int, bound: float, inverse: bool
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to x and raw where those of the two that `moved` gives are gy and gl.

    With y = f(x, r) and l = log f': the inverse's are found at its outcome u, where du = (dx - f_r dr) / f' and its
    log-slope is -l(u, r); so dx gets h = (gy - gl l_u) / f', and r what f and l give it for -h and -gl.
    """
    gx, graw = torch.empty_like(x), torch.empty_like(raw)
    if not inverse:
        _run(_backward, bins, bound, x.dtype, raw, x, gy, gl, gx, graw)
        return gx, graw
    u, log_slope = torch.empty_like(x, dtype=torch.float64), torch.empty_like(x, dtype=torch.float64)
    _run(_inverse, bins, bound, torch.float64, raw, x, u, log_slope, STEPS=NEWTON)
    bend = torch.empty_like(u)
    _run(_backward, bins, bound, torch.float64, raw, u, torch.zeros_like(gy), gl, bend, graw)
    h = (gy - bend) * log_slope.exp()
    _run(_backward, bins, bound, torch.float64, raw, u, -h, -gl, bend, graw)
    return h.to(x.dtype), graw


@triton.jit
def _tops(raw, offs, live, m, dtype: tl.constexpr, K: tl.constexpr):
    """The largest logit of widths and heights, and the sums of what is left of them after exp."""
    top_w = tl.full(offs.shape, float("-inf"), dtype)
    top_h = tl.full(offs.shape, float("-inf"), dtype)
    for k in tl.static_range(K):
        top_w = tl.maximum(top_w, tl.load(raw + k * m + offs, mask=live, other=0.0).to(dtype))
        top_h = tl.maximum(top_h, tl.load(raw + (K + k) * m + offs, mask=live, other=0.0).to(dtype))
    sum_w = tl.zeros(offs.shape, dtype)
    sum_h = tl.zeros(offs.shape, dtype)
    for k in tl.static_range(K):
        sum_w += tl.exp(tl.load(raw + k * m + offs, mask=live, other=0.0).to(dtype) - top_w)
        sum_h += tl.exp(tl.load(raw + (K + k) * m + offs, mask=live, other=0.0).to(dtype) - top_h)
    return top_w, top_h, sum_w, sum_h


@triton.jit
def _bin(
    at, tops, raw, offs, live, m,
    BOUND: tl.constexpr, LEAST: tl.constexpr, SCALE: tl.constexpr, dtype: tl.constexpr, K: tl.constexpr,
    BY: tl.constexpr,
):  # fmt: skip
    """The bin that holds `at` among the x knots (BY=0) or y knots (BY=1): its number and corners."""
    top_w, top_h, sum_w, sum_h = tops
    lo_x = tl.zeros(offs.shape, dtype) - BOUND
    lo_y = lo_x
    place = tl.zeros(offs.shape, tl.int32)
    x0, x1, y0, y1 = lo_x, lo_x, lo_y, lo_y
    for k in tl.static_range(K):
        w = tl.exp(tl.load(raw + k * m + offs, mask=live, other=0.0).to(dtype) - top_w) / sum_w
        h = tl.exp(tl.load(raw + (K + k) * m + offs, mask=live, other=0.0).to(dtype) - top_h) / sum_h
        hi_x = lo_x + (LEAST + SCALE * w)
        hi_y = lo_y + (LEAST + SCALE * h)
        if k == K - 1:
            hi_x = tl.zeros(offs.shape, dtype) + BOUND
            hi_y = hi_x
        if k == 0:
            here = tl.full(offs.shape, True, tl.int1)
        elif BY == 0:
            here = at >= lo_x
        else:
            here = at >= lo_y
        place = tl.where(here, k, place)
        x0, x1 = tl.where(here, lo_x, x0), tl.where(here, hi_x, x1)
        y0, y1 = tl.where(here, lo_y, y0), tl.where(here, hi_y, y1)
        lo_x, lo_y = hi_x, hi_y
    return place, x0, x1, y0, y1


@triton.jit
def _ends(place, raw, offs, live, m, dtype: tl.constexpr, K: tl.constexpr, ROUND: tl.constexpr):
    """Raw slopes at both ends of the bin: 0 at the ends of the interval, shared by them on a circle (ROUND)."""
    if ROUND:
        after = tl.where(place == K - 1, 0, place + 1)
        r0 = tl.load(raw + (2 * K + place) * m + offs, mask=live, other=0.0)
        r1 = tl.load(raw + (2 * K + after) * m + offs, mask=live, other=0.0)
    else:
        r0 = tl.load(raw + (2 * K + place - 1) * m + offs, mask=live & (place > 0), other=0.0)
        r1 = tl.load(raw + (2 * K + place) * m + offs, mask=live & (place < K - 1), other=0.0)
    return r0.to(dtype), r1.to(dtype)


@triton.jit
def _bent(r, STEEPEST: tl.constexpr):
    """tanh(r / STEEPEST), by exp of what is not positive."""
    a = tl.exp(-2 * tl.abs(r) / STEEPEST)
    t = (1 - a) / (1 + a)
    return tl.where(r < 0, -t, t)


@triton.jit
def _curve(t, u, s, d0, d1):
    """The share of the bin's height reached at t = 1 - u, and the slope."""
    below = s * (t * t + u * u) + (d0 + d1) * t * u
    ratio = s / below
    return (s * t * t + d0 * t * u) / below, ratio * ratio * (d1 * t * t + 2 * s * t * u + d0 * u * u)


@triton.jit
def _forward(
    xs, raw, ys, logs, m,
    BOUND: tl.constexpr, LEAST: tl.constexpr, SCALE: tl.constexpr, STEEPEST: tl.constexpr,
    dtype: tl.constexpr, K: tl.constexpr, ROUND: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    offs = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = offs < m
    at = tl.load(xs + offs, mask=live, other=0.0).to(dtype)
    inside = (at >= -BOUND) & (at <= BOUND)
    x = tl.where(at > BOUND, BOUND, tl.where(at < -BOUND, -BOUND, at))
    tops = _tops(raw, offs, live, m, dtype, K)
    place, x0, x1, y0, y1 = _bin(x, tops, raw, offs, live, m, BOUND, LEAST, SCALE, dtype, K, 0)
    r0, r1 = _ends(place, raw, offs, live, m, dtype, K, ROUND)
    d0, d1 = tl.exp(STEEPEST * _bent(r0, STEEPEST)), tl.exp(STEEPEST * _bent(r1, STEEPEST))
    width, height = x1 - x0, y1 - y0
    share, slope = _curve((x - x0) / width, (x1 - x) / width, height / width, d0, d1)
    tl.store(ys + offs, tl.where(inside, y0 + height * share, at), mask=live)
    tl.store(logs + offs, tl.where(inside, tl.log(slope), 0.0), mask=live)


@triton.jit
def _inverse(
    ys, raw, xs, logs, m,
    BOUND: tl.constexpr, LEAST: tl.constexpr, SCALE: tl.constexpr, STEEPEST: tl.constexpr,
    dtype: tl.constexpr, K: tl.constexpr, ROUND: tl.constexpr, STEPS: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    offs = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = offs < m
    at = tl.load(ys + offs, mask=live, other=0.0).to(dtype)
    inside = (at >= -BOUND) & (at <= BOUND)
    y = tl.where(at > BOUND, BOUND, tl.where(at < -BOUND, -BOUND, at))
    tops = _tops(raw, offs, live, m, dtype, K)
    place, x0, x1, y0, y1 = _bin(y, tops, raw, offs, live, m, BOUND, LEAST, SCALE, dtype, K, 1)
    r0, r1 = _ends(place, raw, offs, live, m, dtype, K, ROUND)
    d0, d1 = tl.exp(STEEPEST * _bent(r0, STEEPEST)), tl.exp(STEEPEST * _bent(r1, STEEPEST))
    width, height = x1 - x0, y1 - y0
    s, share = height / width, (y - y0) / height
    bend = share * (d0 + d1 - 2 * s)
    a, b, c = s - d0 + bend, d0 - bend, s * share
    root = b * b + 4 * a * c
    root = tl.sqrt(tl.where(root > 0, root, 0.0))
    t = tl.where(b >= 0, 2 * c / tl.where(b >= 0, b + root, 1.0), (root - b) / tl.where(b >= 0, 1.0, 2 * a))
    t = tl.where(t > 1, 1.0, tl.where(t < 0, 0.0, t))
    low, high = tl.zeros(offs.shape, dtype), tl.zeros(offs.shape, dtype) + 1
    for _ in tl.static_range(STEPS):
        reached, slope = _curve(t, 1 - t, s, d0, d1)
        low, high = tl.where(reached <= share, t, low), tl.where(reached >= share, t, high)
        step = t - (reached - share) * s / slope
        t = tl.where((step >= low) & (step <= high), step, (low + high) / 2)
    _, slope = _curve(t, 1 - t, s, d0, d1)
    tl.store(xs + offs, tl.where(inside, x0 + width * t, at), mask=live)
    tl.store(logs + offs, tl.where(inside, -tl.log(slope), 0.0), mask=live)


@triton.jit
def _backward(
    xs, raw, gys, gls, gxs, graw, m,
    BOUND: tl.constexpr, LEAST: tl.constexpr, SCALE: tl.constexpr, STEEPEST: tl.constexpr,
    dtype: tl.constexpr, K: tl.constexpr, ROUND: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    offs = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = offs < m
    at = tl.load(xs + offs, mask=live, other=0.0).to(dtype)
    gy = tl.load(gys + offs, mask=live, other=0.0).to(dtype)
    gl = tl.load(gls + offs, mask=live, other=0.0).to(dtype)
    inside = (at >= -BOUND) & (at <= BOUND)
    x = tl.where(at > BOUND, BOUND, tl.where(at < -BOUND, -BOUND, at))
    tops = _tops(raw, offs, live, m, dtype, K)
    top_w, top_h, sum_w, sum_h = tops
    place, x0, x1, y0, y1 = _bin(x, tops, raw, offs, live, m, BOUND, LEAST, SCALE, dtype, K, 0)
    r0, r1 = _ends(place, raw, offs, live, m, dtype, K, ROUND)
    b0, b1 = _bent(r0, STEEPEST), _bent(r1, STEEPEST)
    d0, d1 = tl.exp(STEEPEST * b0), tl.exp(STEEPEST * b1)
    width, height = x1 - x0, y1 - y0
    t, u, s = (x - x0) / width, (x1 - x) / width, height / width
    tu, tt, uu, both = t * u, t * t, u * u, d0 + d1
    ends = tt + uu
    below, climb = 1 / (s * ends + both * tu), d1 * tt + 2 * s * tu + d0 * uu
    share = (s * tt + d0 * tu) * below
    up, gq, gd = gy * height * below, gl / climb, 2 * gl * below
    gt = up * s * climb * below + 2 * gq * (d1 * t + s * (u - t) - d0 * u) - gd * (u - t) * (both - 2 * s)
    gs = up * (tt - share * ends) + 2 * (gq * tu + gl / s) - gd * ends
    common = tu * (up * share + gd)
    g0 = tl.where(inside, (up * tu + gq * uu - common) * d0 * (1 - b0 * b0), 0.0)
    g1 = tl.where(inside, (gq * tt - common) * d1 * (1 - b1 * b1), 0.0)
    gx = gt / width
    tl.store(gxs + offs, tl.where(inside, gx, gy), mask=live)
    corner_x, corner_y = tl.where(inside, -gx, 0.0), tl.where(inside, gy, 0.0)
    size_x = tl.where(inside, -(gs * s + gt * t) / width, 0.0)
    size_y = tl.where(inside, gy * share + gs / width, 0.0)
    before = place.to(dtype)
    mean_x = corner_x * (x0 + BOUND - LEAST * before) + size_x * (width - LEAST)
    mean_y = corner_y * (y0 + BOUND - LEAST * before) + size_y * (height - LEAST)
    for k in tl.static_range(K):
        w = tl.exp(tl.load(raw + k * m + offs, mask=live, other=0.0).to(dtype) - top_w) / sum_w
        h = tl.exp(tl.load(raw + (K + k) * m + offs, mask=live, other=0.0).to(dtype) - top_h) / sum_h
        gw = tl.where(place > k, corner_x, tl.where(place == k, size_x, 0.0)) * SCALE - mean_x
        gh = tl.where(place > k, corner_y, tl.where(place == k, size_y, 0.0)) * SCALE - mean_y
        tl.store(graw + k * m + offs, w * gw, mask=live)
        tl.store(graw + (K + k) * m + offs, h * gh, mask=live)
    if ROUND:
        after = tl.where(place == K - 1, 0, place + 1)
        for k in tl.static_range(K):
            tl.store(
                graw + (2 * K + k) * m + offs, tl.where(place == k, g0, 0.0) + tl.where(after == k, g1, 0.0), mask=live
            )
    else:
        for k in tl.static_range(K - 1):
            tl.store(
                graw + (2 * K + k) * m + offs,
                tl.where(place == k + 1, g0, 0.0) + tl.where(place == k, g1, 0.0),
                mask=live,
            )
