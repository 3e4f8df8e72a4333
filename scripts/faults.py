"""Plants faults one at a time in a copy of the tree and asks the contract tests to catch each: `make test-faults`.

Exit 1 if one survives, if the text that a fault replaces is no longer there exactly once, or if the tests fail
without a fault. `faults.py NAME ...` plants only those whose names contain one of the words.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import click

ROOT = Path(__file__).parents[1]
AT_A_TIME = 2
LONGEST = 900  # seconds, of one run
TESTS = [
    "tests/test_formulas.py", "tests/test_nets.py", "tests/test_quantized.py", "tests/test_masses.py",
    "tests/test_bases.py", "tests/test_mixtures.py", "tests/test_flow.py", "tests/test_units.py", "tests/scalars",
    "tests/transforms", "tests/test_statistics.py", "tests/test_mixed.py", "tests/test_adapters.py",
    "tests/data/test_toys.py", "tests/test_estimators.py", "tests/test_parsimonious.py",
    "tests/test_quantized_pictures.py", "tests/test_descent.py", "tests/pictures", "tests/test_picturenets.py",
    "tests/test_attention.py", "tests/test_dequantization.py",
]  # fmt: skip


class Fault(NamedTuple):
    """In ``file``, ``old`` becomes ``new``; ``first``: the tests to begin with, for they are likely to see it."""

    name: str
    file: str
    old: str
    new: str
    first: str


SCALARS, TRANSFORMS = "tests/scalars/test_contract.py", "tests/transforms/test_contract.py"
KERNELS = "tests/kernels/test_spline.py"
ORDER, CURVES = "tests/transforms/test_order.py", "tests/scalars/test_curves.py"
TOYS, ESTIMATORS = "tests/data/test_toys.py", "tests/test_estimators.py"
GREY, LEVELS = "tests/test_quantized_pictures.py", "tests/transforms/test_levels.py"
RESIDUAL, CONTINUOUS = "tests/transforms/test_residual.py", "tests/transforms/test_continuous.py"
FAULTS = [
    Fault("affine: sign of the log-slope", "scalars/affines.py",
          "return y.to(x.dtype), log_scale.expand_as(y)", "return y.to(x.dtype), (-log_scale).expand_as(y)", SCALARS),
    Fault("spline: a factor of 2 missing in the slope", "scalars/rational.py",
          "ratio * ratio * (d1 * tt + 2 * s * tu + d0 * uu)", "ratio * ratio * (d1 * tt + s * tu + d0 * uu)", SCALARS),
    Fault("spline: bins off by one", "scalars/rational.py",
          "index = (at >= table[by, 1:-1].detach()).sum(0, keepdim=True)",
          "index = (at >= table[by, 1:-1].detach()).sum(0, keepdim=True).sub(1).clamp(min=0)", SCALARS),
    Fault("spline: root clamped short of the bin's end", "scalars/rational.py",
          "step.clamp(0, 1) - step", "step.clamp(0, 0.99) - step", SCALARS),
    Fault("spline: slope 1 at one end only", "scalars/rational.py",
          "F.pad(slopes, (0, 0) * at.ndim + (1, 1))", "F.pad(slopes, (0, 0) * at.ndim + (1, 1), value=0.1)", SCALARS),
    Fault("circular spline: rotation not undone", "scalars/rational.py",
          "_move(_wrap(wide - rotation(raw))", "_move(_wrap(wide + rotation(raw))", SCALARS),
    Fault("spline kernel: a term of the denominator doubled", "kernels/spline.c",
          "(c->s * (tt + uu) + (c->d0 + c->d1) * tu)", "(c->s * (tt + uu) + (REAL)2 * (c->d0 + c->d1) * tu)", KERNELS),
    Fault("spline kernel: slope of the wrong end", "kernels/spline.c",
          "c->climb = c->d1 * tt + (REAL)2 * c->s * tu + c->d0 * uu",
          "c->climb = c->d0 * tt + (REAL)2 * c->s * tu + c->d1 * uu", KERNELS),
    Fault("spline kernel: gradient of the bin before left out", "kernels/spline.c",
          "pick((U)(place > at), before,", "pick((U)(place > at), mean,", KERNELS),
    Fault("spline kernel: gradient not masked outside", "kernels/spline.c",
          "gm = pick(inside, gm, zero), gl = pick(inside, gl, zero);", "", KERNELS),
    Fault("spline kernel: closed form of the inverse off", "kernels/spline.c",
          "(REAL)4 * a * c", "(REAL)3 * a * c", KERNELS),
    Fault("spline kernel: forward outside not the identity", "kernels/spline.c",
          "store(moved, pick(inside, y, given));", "store(moved, y);", KERNELS),
    Fault("affine kernel: shift left out", "kernels/affine.c",
          "wide * scale + t)", "wide * scale)", "tests/kernels/test_affine.py"),
    Fault("affine kernel: gradient of the log-slope left out", "kernels/affine.c",
          ": gs + g * wide * scale;", ": g * wide * scale;", "tests/kernels/test_affine.py"),
    Fault("stack kernel: gradient of biases off", "kernels/stack.c",
          "y->g_bias[i] += found[", "y->g_bias[i] += 1.001 * found[", "tests/kernels/test_stack.py"),
    Fault("stack kernel: factor of log-scales gets no gradient", "kernels/stack.c",
          "by_factor += g * load(t->unscaled + at);", "", "tests/kernels/test_stack.py"),
    Fault("perceptron: gradient passes ReLU unhindered", "kernels/dense.py",
          "g = torch.ops.aten.threshold_backward(g, read[i], 0) if i else g", "pass", "tests/kernels/test_dense.py"),
    Fault("chain rebuilt: another input goes unnoticed", "transforms/rebuilding.py",
          "return None if _differs(self.marks[i], _mark(x.detach())) else x, outcomes", "return x, outcomes",
          "tests/transforms/test_memory.py"),
    Fault("optimiser: a step that failed is made", "descent.py",
          "found_inf=failed,", "found_inf=0 * failed,", "tests/test_descent.py"),
    Fault("affine exp: bounded by tanh", "scalars/affines.py",
          '"exp": soft_clip', '"exp": _by_tanh', CURVES),
    Fault("affine sigmoid: not normalised", "scalars/affines.py",
          " - F.logsigmoid(raw.new_tensor(2.0))", "", SCALARS),
    Fault("learned bound: the outcome not scaled back", "scalars/rational.py",
          "torch.where(inside, c * y, wide)", "torch.where(inside, y, wide)", SCALARS),
    Fault("linear spline: slope without the number of bins", "scalars/piecewise.py",
          "(place - index[0].to(x.dtype)), (bins * share).log()", "(place - index[0].to(x.dtype)), share.log()",
          SCALARS),
    Fault("quadratic spline: half of the bend missing", "scalars/piecewise.py",
          "t * (d0 + (d1 - d0) * t / 2)", "t * (d0 + (d1 - d0) * t / 4)", SCALARS),
    Fault("quadratic spline: interval not mapped onto itself", "scalars/piecewise.py",
          "inner * (rise / (inner * reach).sum(0).clamp(min=1e-30))", "inner", SCALARS),
    Fault("Bernstein: binomials of the wrong row", "scalars/polynomial.py",
          "BINOMIALS[m][i]", "BINOMIALS[m + 1][i]", SCALARS),
    Fault("Bernstein: shift missing", "scalars/polynomial.py",
          "rising[-1:] / 2 + raw[-1:]", "rising[-1:] / 2", CURVES),
    Fault("tangent: slope 1 instead of the curve's", "scalars/roots.py",
          "y + log_slope.exp() * (x - inside)", "y + (x - inside)", SCALARS),
    Fault("root: one differentiable step only", "scalars/roots.py",
          "for _ in range(2):", "for _ in range(1):", SCALARS),
    Fault("root: bracket not kept", "scalars/roots.py",
          "newton = (x + step > low) & (x + step < high) & (step.abs() <= PATIENCE * last)",
          "newton = step == step", CURVES),
    Fault("mixture: weights not normalised", "scalars/mixture.py",
          "torch.log_softmax(logits, 0), means", "logits, means", CURVES),
    Fault("mixture: slope without the scales", "scalars/mixture.py",
          "torch.log_softmax(heights, 0) + log_slopes + log_ratio", "torch.log_softmax(heights, 0) + log_ratio",
          SCALARS),
    Fault("mixture: upper tail counted from below", "scalars/mixture.py",
          "(log_weights.exp() * kind.cdf(u)).sum(0) > 0.5", "(log_weights.exp() * kind.cdf(u)).sum(0) > 2", SCALARS),
    Fault("mixture: variance of the offsets not taken off", "scalars/mixture.py",
          "-0.5 * torch.log1p(-offsets.square())", "-0.0 * torch.log1p(-offsets.square())", CURVES),
    Fault("elementwise: own parameters forgotten where there is a net", "transforms/elementwise.py",
          "raw = raw + self.net(", "raw = 0 * raw + self.net(", "tests/transforms/test_elementwise.py"),
    Fault("LU: sign of the log-diagonal in the inverse", "transforms/linear.py",
          "return x.to(z.dtype), -self._spread(log_det, z)", "return x.to(z.dtype), self._spread(log_det, z)",
          TRANSFORMS),
    Fault("LU: matrix not transposed", "transforms/linear.py",
          "(lower @ upper)[self.order].T", "(lower @ upper)[self.order]", TRANSFORMS),
    Fault("Linear: singular values not inverted", "transforms/linear.py",
          "(right * (-log_scale).exp() @ left.mT)", "(right * log_scale.exp() @ left.mT)", TRANSFORMS),
    Fault("orthogonal: half a reflection", "transforms/orthogonal.py",
          "torch.where(square > 0, 2 / torch", "torch.where(square > 0, 1 / torch", TRANSFORMS),
    Fault("orthogonal: reflections undone in the order they were done", "transforms/orthogonal.py",
          "in reversed(steps) if back else steps", "in steps", TRANSFORMS),
    Fault("orthogonal: exponential not polished", "transforms/orthogonal.py",
          "(1.5 * turn - 0.5 * turn @ turn.mT @ turn)", "turn", "tests/transforms/test_linear.py"),
    Fault("over channels: log_det of one place", "transforms/channels.py",
          "sum_event(log_det.reshape(x.shape[0], places))", "log_det.reshape(x.shape[0], places)[:, 0]", TRANSFORMS),
    Fault("planar: norm not squared", "transforms/planar.py",
          "w / torch.where(square > 0, square, 1.0)", "w / torch.where(square > 0, square, 1.0).sqrt()",
          "tests/transforms/test_planar.py"),
    Fault("planar: no constraint", "transforms/planar.py",
          "return torch.expm1(LOG_STEEPEST * torch.tanh(raw / LOG_STEEPEST))", "return raw",
          "tests/transforms/test_planar.py"),
    Fault("planar: something added inside the logarithm", "transforms/planar.py",
          "return z.T.to(x.dtype), torch.log1p(c * self.bend.slope(s))",
          "return z.T.to(x.dtype), torch.log1p(c * self.bend.slope(s) + 1e-4)", TRANSFORMS),
    Fault("planar: slope of the leak", "transforms/planar.py",
          "torch.full_like(s, LEAK)", "torch.full_like(s, -LEAK)", TRANSFORMS),
    Fault("planar: root by too few steps", "transforms/planar.py",
          "for _ in range(bend.steps):", "for _ in range(min(bend.steps, 2)):", "tests/transforms/test_planar.py"),
    Fault("planar: root without its second derivative", "transforms/planar.py",
          "    for _ in range(2):\n        found = _newton", "    for _ in range(1):\n        found = _newton",
          "tests/transforms/test_planar.py"),
    Fault("radial: one distance for the whole batch", "transforms/planar.py",
          ".square().sum(0)\n    apart", ".square().sum().expand(away.shape[1])\n    apart", TRANSFORMS),
    Fault("radial: a term missing", "transforms/planar.py",
          "torch.log1p(alpha * h * (beta * h))", "torch.log1p(beta * h)", TRANSFORMS),
    Fault("radial: a root that cancels", "transforms/planar.py",
          "adds = q > 0", "adds = q < -1e300", "tests/transforms/test_planar.py"),
    Fault("sylvester: rotated back the wrong way", "transforms/sylvester.py",
          "return reflect(mirrors, torch.cat([inner, rest]), back=True)",
          "return reflect(mirrors, torch.cat([inner, rest]))", TRANSFORMS),
    Fault("sylvester: diagonal not constrained", "transforms/sylvester.py",
          "c = gain(_diagonal(right))", "c = _diagonal(right)", "tests/transforms/test_planar.py"),
    Fault("sylvester: terms right of the diagonal forgotten on the way back", "transforms/sylvester.py",
          "other + left[i, j] * y", "other", TRANSFORMS),
    Fault("ActNorm: sign of the log-scale", "transforms/linear.py",
          "(-log_scale).exp()).to(x.dtype), -total", "(-log_scale).exp()).to(x.dtype), total", TRANSFORMS),
    Fault("ActNorm: initialised along the wrong axis", "transforms/linear.py",
          "batch.double().transpose(0, 1).flatten(1)", "batch.double().flatten(1)[: self.shift.shape[0]]",
          "tests/test_formulas.py"),
    Fault("coupling: swapped mask", "transforms/coupling.py",
          "kept.T, context)", "moving.T[:, : kept.shape[0]], context)", ORDER),
    Fault("coupling: log_det of every other coordinate lost", "transforms/coupling.py",
          "log_slope.sum(0)", "log_slope[::2].sum(0)", TRANSFORMS),
    Fault("coupling: order not restored", "transforms/coupling.py",
          "torch.tensor(joined).argsort()", "torch.tensor(joined)", TRANSFORMS),
    Fault("autoregressive: inverse in the wrong order", "transforms/autoregressive.py",
          "key=self.order.__getitem__)", "key=self.order.__getitem__, reverse=True)", TRANSFORMS),
    Fault("MADE: a coordinate sees itself", "nets.py",
          "(after[:, None] >= degrees[-1])", "(after[:, None] + 1 >= degrees[-1])", TRANSFORMS),
    Fault("lipschitz: the bound a root too small", "transforms/lipschitz.py",
          "square.diagonal().sum().log() / root).exp()", "square.diagonal().sum().log() / (2 * root)).exp()", RESIDUAL),
    Fault("lipschitz: last layer not bounded", "transforms/lipschitz.py",
          "weight = weight * (share / spectral_bound(weight).clamp(min=share))",
          "weight = weight if self.sharpness is None else weight * (share / spectral_bound(weight).clamp(min=share))",
          RESIDUAL),
    Fault("lipschitz: slope of the wave not the wave's", "transforms/lipschitz.py",
          "/ sharpness, torch.cos(sharpness * a)", "/ sharpness, torch.cos(a)", RESIDUAL),
    Fault("lipschitz: slope of the clipped inputs missing", "transforms/lipschitz.py",
          "1 - torch.tanh(x - x.clamp(-5, 5)).square()", "torch.ones_like(x)", RESIDUAL),
    Fault("lipschitz: inverse without its last steps", "transforms/lipschitz.py",
          "for _ in range(2):\n        x = x -", "for _ in range(1):\n        x = x -",
          "tests/transforms/test_programs.py"),
    Fault("lipschitz: Newton's step whether it is ahead or not", "transforms/lipschitz.py",
          "torch.where(ahead[:, None], newton, x - miss)", "newton", RESIDUAL),
    Fault("residual: sign of the inverse's log_det", "transforms/residual.py",
          "-self._log_det(x, shift(x)[1])", "self._log_det(x, shift(x)[1])", TRANSFORMS),
    Fault("volume: terms of one sign", "transforms/volume.py",
          "total - (-1) ** k * weight", "total + weight", RESIDUAL),
    Fault("volume: roulette not weighed", "transforms/volume.py",
          "weight = coefficient ** -max(0, k - sure) / k", "weight = 1 / k", RESIDUAL),
    Fault("volume: sum over probes for their mean", "transforms/volume.py",
          "return (push(probes) * probes).sum(2).mean(1)", "return (push(probes) * probes).sum(2).sum(1)", CONTINUOUS),
    Fault("continuous: a stage looked at in the wrong place", "transforms/fields.py",
          "k3, push3 = at(t + h / 2, x + h / 2 * k2)", "k3, push3 = at(t + h / 2, x + h / 2 * k1)", TRANSFORMS),
    Fault("continuous: a stage at the wrong time", "transforms/fields.py",
          "k4, push4 = at(t + h, x + h * k3)", "k4, push4 = at(t + h / 2, x + h * k3)", CONTINUOUS),
    Fault("continuous: fewer steps than the field needs", "transforms/fields.py",
          "while _stretch(lipschitz / steps) > MOST_STRETCH:", "while _stretch(lipschitz / steps) > 3:", CONTINUOUS),
    Fault("continuous: data and noise exchanged", "transforms/continuous.py",
          "between = (1 - t[:, None]) * noise + t[:, None] * data",
          "between = t[:, None] * noise + (1 - t[:, None]) * data", CONTINUOUS),
    Fault("continuous: solved from the wrong end", "transforms/continuous.py",
          "self._solve(at, flat, probes, (1.0, 0.0))", "self._solve(at, flat, probes, (0.0, 1.0))", CONTINUOUS),
    Fault("continuous: error norm over all rows", "transforms/continuous.py",
          "error.square().mean(1).sqrt().max()", "error.square().mean().sqrt()", CONTINUOUS),
    Fault("permutation: inverse not inverted", "transforms/fixed.py",
          "return self._move(z, self.back)", "return self._move(z, self.order)", TRANSFORMS),
    Fault("log: no Jacobian", "transforms/fixed.py",
          "torch.where(inside, -z, -math.inf)", "torch.where(inside, 0.0 * z, -math.inf)", TRANSFORMS),
    Fault("logit: width of the bounds missing", "transforms/fixed.py",
          "(self.high - self.low).log() - below - above", "-below - above", TRANSFORMS),
    Fault("standardize: spread missing from the log_det", "transforms/fixed.py",
          "self.scale.abs().log().expand(x.shape[1:]).sum()", "self.scale.abs().log().sum()", TRANSFORMS),
    Fault("chain: only the last log_det", "transforms/memory.py",
          "x, log_det = act(i, x)\n            total = total + log_det",
          "x, log_det = act(i, x)\n            total = log_det", TRANSFORMS),
    Fault("chain: inverse in the order of forward", "transforms/base.py",
          "Road(list(self.transforms)[::-1], True)", "Road(list(self.transforms), True)", TRANSFORMS),
    Fault("mixture: weights not normalised", "bases/mixture.py",
          "return torch.log_softmax(logits, 0)", "return logits", "tests/test_bases.py"),
    Fault("Student-t: a term missing", "bases/student.py",
          "- 0.5 * (df * math.pi).log()", "", "tests/test_bases.py"),
    Fault("uniform: volume of one coordinate only", "bases/bounded.py",
          "-z.shape[1] * math.log(self.high - self.low)", "-math.log(self.high - self.low)", "tests/test_bases.py"),
    Fault("diagonal normal: scale missing from the height", "bases/normal.py",
          ".sum(1) - log_scale.sum() - 0.5", ".sum(1) - 0.5", "tests/test_bases.py"),
    Fault("full normal: factor not transposed", "bases/normal.py",
          "@ self.factor(dtype).T", "@ self.factor(dtype)", "tests/test_bases.py"),
    Fault("von Mises: height of another concentration", "bases/bounded.py",
          "(2 * math.pi * torch.special.i0e(kappa)).log()", "(2 * math.pi * torch.special.i0e(0.9 * kappa)).log()",
          "tests/test_bases.py"),
    Fault("von Mises: draws kept too often", "bases/bounded.py",
          "(c.log() - u[1].log() + 1 - c) >= 0", "(c.log() - u[1].log() + 2 - c) >= 0", "tests/test_bases.py"),
    Fault("flow: log_det subtracted", "flow.py",
          "log_prob = self.base.log_prob(z, context) + log_det", "log_prob = self.base.log_prob(z, context) - log_det",
          "tests/test_flow.py"),
    Fault("flow: the batch's mean mixed in", "flow.py",
          "z, log_det = self.transform(x, context)",
          "z, log_det = self.transform(x, context)\n"
          "        log_det = log_det + 1e-4 * (log_det.mean() - log_det).detach()", "tests/test_flow.py"),
    Fault("refined mixture: log-weights not normalised", "mixtures.py",
          " - torch.logsumexp(log_weights, 0)", "", "tests/test_mixtures.py"),
    Fault("masses: codes shifted by one", "masses.py",
          "gather(0, codes.clamp(0, size - 1)[None])", "gather(0, (codes + 1).clamp(0, size - 1)[None])",
          "tests/test_masses.py"),
    Fault("masses: logits not normalised", "masses.py",
          "torch.log_softmax(logits, 0).gather", "logits.gather", "tests/test_masses.py"),
    Fault("quantized: mean of logs for log of mean", "quantized.py",
          "return log_sum_exp(values) - math.log(len(values))", "return values.mean(0)", "tests/test_quantized.py"),
    Fault("ensemble: weights not looked at", "mixtures.py",
          "log_sum_exp(each + self.log_weights.to(each.dtype)[:, None])", "log_sum_exp(each) - math.log(len(each))",
          "tests/test_mixtures.py"),
    Fault("ensemble: weights not looked at by the map to normals", "mixtures.py",
          "[w + own + each.cumsum(0) - each for w", "[0 * w + own + each.cumsum(0) - each for w",
          "tests/test_mixtures.py"),
    Fault("simple mixtures: variances of one component for all", "parsimonious.py",
          "scatter.sum(0, keepdims=True) / n", "scatter[:1] / n", "tests/test_parsimonious.py"),
    Fault("simple mixtures: weights not counted", "parsimonious.py",
          "k * d + shape + (0 if self.equal else k - 1)", "k * d + shape", "tests/test_parsimonious.py"),
    Fault("mixed: cost of the atoms' free places dropped", "mixed.py",
          "torch.where(atom, cost, volume)", "torch.where(atom, 0.0, volume)", "tests/test_mixed.py"),
    Fault("mixed: width of the rounding cells missing", "mixed.py",
          "return z, log_det + volume.sum(1)", "return z, log_det", "tests/test_mixed.py"),
    Fault("rows: cells half as wide as they are", "rows.py",
          "width[:, j] = high - low[:, j]", "width[:, j] = 0.5 * (high - low[:, j])", "tests/test_mixed.py"),
    Fault("scale and shift: factor not learned", "nets.py",
          "self.s_func(seen) * self.scale_factor", "self.s_func(seen)", "tests/test_adapters.py"),
    Fault("scale and shift: kept coordinates in the wrong place", "nets.py",
          ".index_select(1, self.restore)", "", "tests/test_adapters.py"),
    Fault("adapters: a mask's meaning turned round", "adapters.py",
          "for i, m in places if m == 1), tuple(i for i, m in places if m == 0)",
          "for i, m in places if m == 0), tuple(i for i, m in places if m == 1)", "tests/test_adapters.py"),
    Fault("adapters: layers from the wrong end", "adapters.py",
          "for layer in reversed(self.layers)", "for layer in self.layers", "tests/test_adapters.py"),
    Fault("adapters: half the log-scale", "adapters.py",
          "torch.stack([2 * raw[0],", "torch.stack([raw[0],", "tests/test_adapters.py"),
    Fault("nets: context not looked at", "nets.py",
          "return torch.cat([h, soft_clip(context.T.to(dtype))])",
          "return torch.cat([h, 0 * soft_clip(context.T.to(dtype))])", TRANSFORMS),
    Fault("constants: context not looked at", "nets.py",
          "soft_clip(context.to(dtype)).T)", "0 * soft_clip(context.to(dtype)).T)", TRANSFORMS),
    Fault("moons: lower arc half a unit off", "data/toys/arcs.py",
          "np.array([1.0, 0.5]), 1.0, np.pi", "np.array([1.0, -0.5]), 1.0, np.pi", TOYS),
    Fault("arc: the far side of the circle counted", "data/toys/arcs.py",
          "last = first + (stop - start)", "last = first + 2 * np.pi", TOYS),
    Fault("arc: angle of the arc missing", "data/toys/arcs.py",
          "- np.log(stop - start)", "- np.log(2 * np.pi)", TOYS),
    Fault("ring: scaled Bessel function not unscaled", "data/toys/arcs.py",
          "-0.5 * ((distance - radius) / noise) ** 2 + np.log(bessel)",
          "-0.5 * (distance**2 + radius**2) / noise**2 + np.log(bessel)", TOYS),
    Fault("spiral: negative radii forgotten", "data/toys/spirals.py",
          "np.concatenate([ahead, behind], 1)", "ahead", TOYS),
    Fault("spiral: Jacobian of the plane missing", "data/toys/spirals.py",
          "np.log(2 * np.pi * turns * distance)", "np.log(2 * np.pi * turns)", TOYS),
    Fault("two spirals: points even in the angle", "data/toys/spirals.py",
          "np.log(weight * 2 * t / end**2)", "np.log(weight / end)", TOYS),
    Fault("pinwheel: doubling missing", "data/toys/shapes.py",
          "straight(bend(x / 2, -1.0)) - np.log(4)", "straight(bend(x / 2, -1.0))", TOYS),
    Fault("checkerboard: the other colour", "data/toys/shapes.py",
          ".sum(1) % 2 == 0)", ".sum(1) % 2 == 1)", TOYS),
    Fault("kernels: determinant missing", "baselines/kernel_density.py",
          "height = -log_det - ", "height = -", ESTIMATORS),
    Fault("kernels: bandwidth transposed", "baselines/kernel_density.py",
          "torch.linalg.solve(bandwidth, x.T)", "torch.linalg.solve(bandwidth.T, x.T)", ESTIMATORS),
    Fault("kernels: draws by the transposed bandwidth", "baselines/kernel_density.py",
          "noise @ self.bandwidth.T", "noise @ self.bandwidth", ESTIMATORS),
    Fault("kernels: a row in its own sum", "baselines/kernel_density.py",
          "centres, own=True)", "centres)", ESTIMATORS),
    Fault("bandwidths: a row chooses by itself", "baselines/bandwidths.py",
          "factors, own=True)", "factors)", ESTIMATORS),
    Fault("bandwidths: volume of one coordinate only", "baselines/bandwidths.py",
          "len(distances) * d * ", "len(distances) * ", ESTIMATORS),
    Fault("exact error: a row against itself", "baselines/bandwidths.py",
          "(1 - 1 / n) * overlap", "overlap", ESTIMATORS),
    Fault("normal mixture: units of the columns lost", "baselines/normal.py",
          "scale[:, None] * _full(best) * scale", "_full(best)", ESTIMATORS),
    Fault("grey levels: noise over half a cell", "quantized.py",
          "self.flow.log_prob((x + u) / self.levels, given)",
          "self.flow.log_prob((x + u / 2) / self.levels, given)", GREY),
    Fault("grey levels: learned noise not divided out", "quantized.py",
          "return log_prob if cost is None else log_prob - cost", "return log_prob", GREY),
    Fault("grey levels: nearest in place of below", "quantized.py",
          "(v * self.levels).floor().clamp(", "(v * self.levels).round().clamp(", GREY),
    Fault("grey levels: what is beyond wraps", "quantized.py",
          "(v * self.levels).floor().clamp(0, self.levels - 1)", "(v * self.levels).floor()", GREY),
    Fault("grey levels: the mean of logarithms", "quantized.py",
          "log_mean_exp(torch.stack(each)) if points > 1", "torch.stack(each).mean(0) if points > 1", GREY),
    Fault("grey levels: every draw the same", "quantized.py",
          "(draw + 1) * flat.shape[1]", "flat.shape[1]", GREY),
    Fault("squeeze: checkerboard by rows", "transforms/squeeze.py",
          '"checkerboard": (0, 3, 1, 2)', '"checkerboard": (0, 1, 2, 3)', LEVELS),
    Fault("levels: the same half leaves and goes on", "transforms/multiscale.py",
          "left.append(as_pictures(planes[half:]))", "left.append(as_pictures(planes[:half]))", LEVELS),
    Fault("1x1 convolution: ActNorm's share of one place alone", "transforms/conv.py",
          "log_det * places - total", "log_det * places - total / places", LEVELS),
    Fault("Adamax: moments not corrected", "descent.py",
          "share = counts * rate / (1 - BETA ** self.step.clamp(min=1))", "share = counts * rate",
          "tests/test_descent.py"),
]  # fmt: skip


def copy(tree: Path, folder: Path) -> None:
    """What the tests need of a tree."""
    for part in ("src", "tests", "benchmarks"):
        shutil.copytree(tree / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "scores"))
    for name in ("pyproject.toml", "hatch_build.py"):
        shutil.copy(tree / name, folder)


def plant(fault: Fault | None, folder: Path) -> None:
    """The fault, in a copy of the tree."""
    if fault is not None:
        file = folder / "src" / "diffeo" / fault.file
        file.write_text(file.read_text().replace(fault.old, fault.new))
        if file.suffix == ".c":
            subprocess.run([sys.executable, "hatch_build.py"], cwd=folder, check=True)


def run(fault: Fault | None, tree: Path) -> tuple[str, str, float]:
    """(caught, passed or broken; by which test, or what was said; seconds)."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy(tree, folder)
        plant(fault, folder)
        formulas = fault is None or not fault.file.endswith(".c")  # a kernel would stand in for what is planted
        outcome, said = attempt(folder, [fault.first], formulas) if fault else ("passed", "")
        if outcome == "passed":
            outcome, said = attempt(folder, TESTS, formulas)
    return outcome, said, time.monotonic() - start


def attempt(folder: Path, tests: list[str], formulas: bool) -> tuple[str, str]:
    """(caught, passed or broken; by which test, or what was said) of some tests of the copy in the folder; by the
    formulas alone, or by the kernels too."""
    env = os.environ | {"PYTHONPATH": f"{folder / 'src'}", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    env |= {"DIFFEO_KERNELS": "off" if formulas else ""}
    options = ["-x", "-q", "--color=no", "-p", "no:cacheprovider", "--tb=line"]
    code = "import diffeo, pytest, sys; assert diffeo.__file__.startswith(sys.argv.pop(1)); sys.exit(pytest.main())"
    command = [sys.executable, "-c", code, str(folder), *options, *tests]
    try:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return "broken", f"no end within {LONGEST} s"
    failed = re.search(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    if done.returncode == 1 and failed:
        return "caught", failed[1]
    return ("passed", "") if done.returncode == 0 else ("broken", (done.stdout + done.stderr)[-600:])


def rotten(fault: Fault) -> bool:
    return (ROOT / "src" / "diffeo" / fault.file).read_text().count(fault.old) != 1


def main(words: list[str]) -> int:
    faults = [fault for fault in FAULTS if not words or any(word in fault.name for word in words)]
    gone = [fault for fault in faults if rotten(fault)]
    for fault in gone:
        click.echo(f"GONE      {fault.name}: {fault.old!r} is not once in {fault.file}; plant it elsewhere", err=True)
    if gone or not faults:
        return 1
    start, good, runs = time.monotonic(), 0, [*faults, None]
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(AT_A_TIME) as pool:
        copy(ROOT, Path(name))  # as it is now, whatever is edited meanwhile
        found = pool.map(lambda fault: run(fault, Path(name)), runs)
        for fault, (outcome, by, seconds) in zip(runs, found, strict=True):
            fine = outcome == ("passed" if fault is None else "caught")
            good += fine
            word = "SURVIVED" if fault is not None and outcome == "passed" else outcome
            click.echo(f"{word:<9} {seconds:5.0f} s  {fault.name if fault else 'no fault':<52} {by}")
    click.echo(f"{good} of {len(runs)} runs as they should be, {time.monotonic() - start:.0f} s")
    return 0 if good == len(runs) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
