"""Ways to be fast, side by side, a layer's products and the spline: `python benchmarks/kernels.py [--rounds 15]`.

The formulas in eager torch, the C kernel, numba (where it is installed: pip install numba), the formulas under
torch.compile, and a layer's net beside them. One thread, CPU milliseconds of the process, cases taken in turn, medians
and quartiles; the seconds until the first result (compilation), and the error against float64. docs/kernels.md is made
of this.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from diffeo.kernels import in_use
from diffeo.kernels import products as multiplied
from diffeo.kernels import spline as kernel
from diffeo.scalars import rational

try:
    import numba
except ImportError:
    numba = None

BINS, BOUND = 8, 5.0
SIZES = ((3, 512), (32, 512))
TASKS = ("forward", "backward", "inverse")
REPEATS = 5
LEAST, FREE, LOG = 2 * BOUND * 1e-3, 2 * BOUND * (1 - BINS * 1e-3), math.log(1e3)

Step = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def eager(task: str) -> Step:
    def step(x: Tensor, raw: Tensor, gy: Tensor, gl: Tensor) -> tuple[Tensor, Tensor]:
        if task != "backward":
            with torch.no_grad():
                return rational._reference(x, raw, BINS, BOUND, task == "inverse")
        y, log_slope = rational._reference(x.requires_grad_(), raw.requires_grad_(), BINS, BOUND, False)
        return torch.autograd.grad((y, log_slope), (x, raw), (gy, gl))

    return step


def compiled(task: str) -> Step:
    function = torch.compile(lambda x, raw: rational._reference(x, raw, BINS, BOUND, task == "inverse"), dynamic=False)

    def step(x: Tensor, raw: Tensor, gy: Tensor, gl: Tensor) -> tuple[Tensor, Tensor]:
        if task != "backward":
            with torch.no_grad():
                return function(x, raw)
        return torch.autograd.grad(function(x.requires_grad_(), raw.requires_grad_()), (x, raw), (gy, gl))

    return step


def by_c(task: str) -> Step:
    def step(x: Tensor, raw: Tensor, gy: Tensor, gl: Tensor) -> tuple[Tensor, Tensor]:
        if task != "backward":
            return kernel.moved(x, raw, BINS, BOUND, task == "inverse")
        kernel.moved(x, raw, BINS, BOUND, False)
        return kernel.gradient(x, raw, gy, gl, BINS, BOUND, False)

    return step


def by_numba(task: str) -> Step:
    """A prototype: number by number, the bin found on the way; exp is the C library's."""
    jit = numba.njit(error_model="numpy")

    @jit
    def bend(r, one):  # the slope at a knot, and its derivative's factor
        t = math.tanh(r / (one * LOG))
        return math.exp(one * LOG * t), one - t * t

    @jit
    def locate(raw, i, at, by, e, one):
        sums, most = [one * 0, one * 0], [raw[0, i], raw[BINS, i]]
        for k in range(2 * BINS):
            most[k // BINS] = max(most[k // BINS], raw[k, i])
        for k in range(2 * BINS):
            e[k] = math.exp(raw[k, i] - most[k // BINS])
            sums[k // BINS] += e[k]
        x, y, place = -one * BOUND, -one * BOUND, 0
        for k in range(BINS):
            high_x = x + one * LEAST + one * FREE * e[k] / sums[0] if k < BINS - 1 else one * BOUND
            high_y = y + one * LEAST + one * FREE * e[BINS + k] / sums[1] if k < BINS - 1 else one * BOUND
            if k == BINS - 1 or at < (high_y if by else high_x):
                place = k
                break
            x, y = high_x, high_y
        r0 = raw[2 * BINS + place - 1, i] if place > 0 else one * 0
        r1 = raw[2 * BINS + place, i] if place < BINS - 1 else one * 0
        return place, x, y, high_x - x, high_y - y, r0, r1, sums[0], sums[1]

    @jit
    def moved(x, raw, y, slope):
        one, e = x[0] * 0 + 1, np.empty(2 * BINS, x.dtype)
        for i in range(x.size):
            at = min(max(x[i], -one * BOUND), one * BOUND)
            _, x0, y0, w, h, r0, r1, _, _ = locate(raw, i, at, False, e, one)
            d0, d1, t = bend(r0, one)[0], bend(r1, one)[0], (at - x0) / w
            u, s = (x0 + w - at) / w, h / w
            over = one / (s * (t * t + u * u) + (d0 + d1) * t * u)
            inside = abs(x[i]) <= BOUND
            y[i] = y0 + h * (s * t * t + d0 * t * u) * over if inside else x[i]
            steep = (s * over) ** 2 * (d1 * t * t + 2 * s * t * u + d0 * u * u)
            slope[i] = math.log(steep) if inside else one * 0

    @jit
    def pulled(x, raw, gy, gl, gx, graw):
        one, e = x[0] * 0 + 1, np.empty(2 * BINS, x.dtype)
        for i in range(x.size):
            at = min(max(x[i], -one * BOUND), one * BOUND)
            place, x0, y0, w, h, r0, r1, sum_x, sum_y = locate(raw, i, at, False, e, one)
            (d0, b0), (d1, b1), t = bend(r0, one), bend(r1, one), (at - x0) / w
            u, s = (x0 + w - at) / w, h / w
            a, b = (gy[i], gl[i]) if abs(x[i]) <= BOUND else (one * 0, one * 0)
            tu, tt, uu = t * u, t * t, u * u
            over, climb = one / (s * (tt + uu) + (d0 + d1) * tu), d1 * tt + 2 * s * tu + d0 * uu
            share, up, gq, gd = (s * tt + d0 * tu) * over, a * h * over, b / climb, 2 * b * over
            gt = up * s * climb * over + 2 * gq * (d1 * t + s * (u - t) - d0 * u) - gd * (u - t) * (d0 + d1 - 2 * s)
            gs = up * (tt - share * (tt + uu)) + 2 * (gq * tu + b / s) - gd * (tt + uu)
            common = tu * (up * share + gd)
            gx[i] = gt / w if abs(x[i]) <= BOUND else gy[i]
            size_x, size_y = -(gs * s + gt * t) / w, a * share + gs / w
            mean_x = size_x * (w - LEAST) - gt / w * (x0 + BOUND - LEAST * place)
            mean_y = size_y * (h - LEAST) + a * (y0 + BOUND - LEAST * place)
            for k in range(BINS):
                before, own = k < place, k == place
                graw[k, i] = e[k] / sum_x * (FREE * (size_x if own else -gt / w if before else one * 0) - mean_x)
                graw[BINS + k, i] = (
                    e[BINS + k] / sum_y * (FREE * (size_y if own else a if before else one * 0) - mean_y)
                )
            for k in range(2 * BINS, 3 * BINS - 1):
                graw[k, i] = 0
            if place > 0:
                graw[2 * BINS + place - 1, i] = (up * tu + gq * uu - common) * d0 * b0
            if place < BINS - 1:
                graw[2 * BINS + place, i] = (gq * tt - common) * d1 * b1

    @jit
    def undone(y, raw, x, slope):
        one, e = np.float64(1), np.empty(2 * BINS, np.float64)
        for i in range(y.size):
            at = min(max(np.float64(y[i]), -BOUND), BOUND)
            _, x0, y0, w, h, r0, r1, _, _ = locate(raw, i, at, True, e, one)
            d0, d1, s, share = bend(r0, one)[0], bend(r1, one)[0], h / w, (at - y0) / h
            more = share * (d0 + d1 - 2 * s)
            a, b, c = s - d0 + more, d0 - more, s * share
            root = math.sqrt(max(b * b + 4 * a * c, 0.0))
            t = 2 * c / (b + root) if b >= 0 else (root - b) / (2 * a)
            for _ in range(2):
                u = 1 - t
                below, climb = s * (t * t + u * u) + (d0 + d1) * t * u, d1 * t * t + 2 * s * t * u + d0 * u * u
                t = min(max(t - (s * t * t + d0 * t * u - share * below) * below / (s * climb), 0.0), 1.0)
            u = 1 - t
            below, climb = s * (t * t + u * u) + (d0 + d1) * t * u, d1 * t * t + 2 * s * t * u + d0 * u * u
            inside = abs(y[i]) <= BOUND
            x[i] = x0 + w * t if inside else y[i]
            slope[i] = -math.log(s * s * climb / (below * below)) if inside else 0.0

    def step(x: Tensor, raw: Tensor, gy: Tensor, gl: Tensor) -> tuple[Tensor, Tensor]:
        a, b, graw = torch.empty_like(x), torch.empty_like(x), torch.empty_like(raw) if task == "backward" else None
        flat = [v.detach().view(-1).numpy() for v in (x, gy, gl, a, b)]
        raws = [v.detach().view(v.shape[0], -1).numpy() for v in (raw, graw) if v is not None]
        (undone if task == "inverse" else moved)(flat[0], raws[0], flat[3], flat[4])
        if graw is None:
            return a, b
        pulled(flat[0], raws[0], flat[1], flat[2], flat[3], raws[1])
        return a, graw

    return step


def net(d: int) -> Callable[[str], Step]:
    """What stands beside it in a layer of d + d coordinates: two hidden layers of 128."""
    sizes = (d, 128, 128, (3 * BINS - 1) * d)
    module = torch.nn.Sequential(*(torch.nn.Linear(a, b) for a, b in pairwise(sizes)))
    module.insert(1, torch.nn.ReLU()), module.insert(3, torch.nn.ReLU())

    def way(task: str) -> Step:
        def step(x: Tensor, raw: Tensor, gy: Tensor, gl: Tensor) -> tuple[Tensor, Tensor]:
            with torch.set_grad_enabled(task == "backward"):
                found = module(x.detach().T)
                if task == "backward":
                    found.backward(raw.detach().view(-1, x.shape[1]).T)
            return x, x

        return step

    return way


def drawn(d: int, n: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, gy, gl = (torch.randn(d, n, generator=generator) for _ in range(3))
    return [2 * x, 1.5 * torch.randn(3 * BINS - 1, d, n, generator=generator), gy, gl]


def measure(d: int, n: int, rounds: int) -> None:
    ways = {"formulas": eager, "C": by_c, "numba": by_numba, "compile": compiled, "net": net(d)}
    if numba is None:
        ways.pop("numba")
    given, cases, first, spent = drawn(d, n), {}, {}, {}
    exact = {task: eager(task)(*(v.double() for v in given)) for task in TASKS}
    for name, way in ways.items():
        for task in TASKS:
            start = time.monotonic()
            cases[name, task] = way(task)
            found = cases[name, task](*given)
            first[name, task], spent[name, task] = time.monotonic() - start, []
            pairs = zip(found, exact[task], strict=True)
            errors = [float((a.detach().double() - b.detach()).abs().max()) for a, b in pairs]
            if name != "net":
                print(f"  error of {name}, {task}: {errors[0]:.1e} and {errors[1]:.1e} at most")
    for _ in range(rounds):
        for key, step in cases.items():
            start = time.process_time()
            for _ in range(REPEATS):
                step(*given)
            spent[key].append((time.process_time() - start) / REPEATS * 1e3)
    print(f"\n| [{d}, {n}], CPU ms (quartiles) | forward | forward + backward | inverse | first calls, s |")
    print("|---|---|---|---|---|")
    for name in ways:
        rows = [statistics.quantiles(spent[name, task]) for task in TASKS]
        cells = [f"{median:.3f} ({low:.3f}-{high:.3f})" for low, median, high in rows]
        print(f"| {name} | {' | '.join(cells)} | {sum(first[name, task] for task in TASKS):.1f} |")


PRODUCTS = ((128, 3, 512), (69, 128, 64), (128, 128, 512), (736, 128, 512), (512, 512, 512), (128, 31, 4096))


def products(rounds: int) -> None:
    """torch.mm and oneDNN at a layer's three products: W H, G H^T and W^T G, for W [m, k], H [k, n] and G [m, n]."""
    pairs = {"W H": lambda w, h, g: (w, h), "G H^T": lambda w, h, g: (g, h.T), "W^T G": lambda w, h, g: (w.T, g)}
    cells = [f"{name}: {way}" for name in pairs for way in ("torch.mm", "oneDNN")]
    print(f"\nlarger products go to: {multiplied.in_use()}")
    print(f"\n| m, k, n; CPU ms (quartiles) | {' | '.join(cells)} |\n|{'---|' * (1 + len(cells))}")
    for m, k, n in PRODUCTS:
        given = torch.randn(m, k), torch.randn(k, n), torch.randn(m, n)
        cases = [(way, *pair(*given)) for pair in pairs.values() for way in (torch.mm, multiplied._product)]
        spent = [list[float]() for _ in cases]
        for turn in range(rounds + 1):
            for (way, a, b), times in zip(cases, spent, strict=True):
                start = time.process_time()
                for _ in range(20):
                    way(a, b)
                if turn:
                    times.append((time.process_time() - start) / 20 * 1e3)
        rows = [statistics.quantiles(times) for times in spent]
        print(f"| {m}, {k}, {n} | {' | '.join(f'{row[1]:.3f} ({row[0]:.3f}-{row[2]:.3f})' for row in rows)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, numba {numba.__version__ if numba else '(missing)'}, kernels: {in_use()}")
    with torch.no_grad():
        products(rounds)
    for d, n in SIZES:
        measure(d, n, rounds)


if __name__ == "__main__":
    main()
