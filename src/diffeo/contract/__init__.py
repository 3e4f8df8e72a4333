"""What must hold of every transform and every density, checked against something independent.

``check_transform`` and ``check_density`` try an object of the user's or of ours and give a Report: a line a property,
with the largest error seen and the tolerance it is held to. Nothing here raises because a property fails.

The properties, and what holds each ([t] a line of ``check_transform``, [d] one of ``check_density``; else the test):

=== ==================================================================== ==============================================
P1  shapes and dtypes follow the input; log_det is [n]                   [t] shapes, dtypes
P2  x -> z -> x, forward or backward error, 64 eps a layer               [t] round trip x
P3  z -> x -> z to 8 standard deviations                                 [t] round trip z
P4  the two log_dets sum to zero                                         [t] log_dets sum to zero
P5  log_det is that of autograd's Jacobian, 1e-8 in float64              [t] log_det is autograd's; scalars, formulas
P6  float32 log-densities are float64's, 1e-5 (1 + lp)                   [t] float32 log-density
P7  elementwise maps keep the order, strictly in float64                 scalars/test_contract, transforms/test_order
P8  outside its bound a spline is the identity, bit for bit              scalars/test_contract
P9  what may not be looked at has a Jacobian of exactly 0                transforms/test_order; [t] context
P10 a row does not depend on its batch: bit for bit for one size, 1e-5   [t] batch mates, batch sizes
P11 a NaN or an outlier changes no other row's values or gradients       [t] a NaN row, an outlier; test_flow
P12 same input, same output; no random number is drawn                   [t] same input, random state; test_flow
P13 inputs, weights and globals are left alone                           [t] inputs and weights, globals; elsewhere
P14 first and second derivatives are right, finite at every finite x     [t] finite; transforms/test_programs, scalars
P15 vmap, compile (fullgraph) and export equal the plain call            transforms/test_programs
P16 saved and loaded in another process it is the same; so is a copy     [t] deepcopy, load(save); transforms/elsewhere
P17 transposed, strided, expanded, read-only, inference inputs: equal    [t] strides, read-only, inference
P18 float64 stays float64; half precision gives float32 log-densities    [t] dtypes, bfloat16; test_flow, scalars
P19 the density integrates to 1                                          [d] integral (d <= 2), importance (d <= 8)
P20 draws are the density's; none repeats, none lies on a clamp          [d] sampler, repeat, clamp; test_statistics
P21 zero rows                                                            [t] 0 rows; [d] zero rows
P22 every wrong input is refused in one line                             test_flow, test_bad_input
P23 one generator, one draw, whatever the pieces                         test_flow (pieces of another size: to rounding)
P24 a step on a bad batch leaves finite weights                          test_flow
P25 threads share it                                                     transforms/test_programs, test_flow
=== ==================================================================== ==============================================
"""

from diffeo.contract.density import check_density
from diffeo.contract.report import Report, Row
from diffeo.contract.transform import check_transform

__all__ = ["Report", "Row", "check_density", "check_transform"]
