"""Planar, radial and Sylvester layers beyond the contract: invertible whatever is learned, each row by itself."""

import math

import mpmath as mp
import pytest
import torch
from torch import Tensor

from diffeo import transforms as T
from diffeo.errors import ShapeError
from diffeo.transforms.planar import BENDS, _shrink, gain, unbend

ACTIVATIONS = pytest.mark.parametrize("activation", BENDS)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def planar(w: Tensor, v: Tensor, b: float, activation: str = "tanh") -> T.Planar:
    layer = T.Planar(len(w), activation).double()
    with torch.no_grad():
        layer.constants.start.copy_(torch.cat([w, v, torch.tensor([b]).to(w)]))
    return layer


@ACTIVATIONS
@pytest.mark.parametrize("size", [0.01, 1.0, 10.0, 1000.0])
def test_planar_increases_along_w(activation: str, size: float) -> None:
    """Whatever w and u are learned, also where w.u is far below -1 and |w| is far from 1; the inverse finds x."""
    for seed in range(20):
        w, v = size * randn(3, seed=seed), 3 * randn(3, seed=seed + 100)
        v = v if seed % 2 else v - 2 * w / w.square().sum()  # half of them: without a constraint it folds
        layer = planar(w, v, 0.3, activation)
        along = torch.linspace(-6, 6, 2001, dtype=torch.float64) / w.norm()
        x = along[:, None] * w / w.norm()
        z, log_det = layer(x)
        heights = z @ (w / w.norm())
        assert (heights.diff() > 0).all()
        assert (log_det > -3.001).all()
        assert (log_det < 3.001).all()
        torch.testing.assert_close(layer.inverse(z)[0], x, rtol=1e-9, atol=1e-9)


def test_planar_is_the_papers() -> None:
    """f(x) = x + u h(w.x + b) with the u of appendix A.1, |w| not 1, in 30 digits; log_det of the whole Jacobian."""
    w, v, b = randn(3, seed=1) * 4, randn(3, seed=2), 0.375
    layer, x = planar(w, v, b), randn(5, 3, seed=3)
    with mp.workdps(30):
        wm, vm = mp.matrix(w.tolist()), mp.matrix(v.tolist())
        along = (wm.T * vm)[0]
        u = vm + (mp.exp(3 * mp.tanh(along / 3)) - 1 - along) / (wm.T * wm)[0] * wm
        for row, z, log_det in zip(x.tolist(), layer(x)[0].tolist(), layer(x)[1].tolist(), strict=True):
            s = (wm.T * mp.matrix(row))[0] + mp.mpf(b)
            expected = mp.matrix(row) + u * mp.tanh(s)
            volume = mp.log(mp.det(mp.eye(3) + mp.sech(s) ** 2 * u * wm.T))
            assert max(abs(a - c) for a, c in zip(expected, z, strict=True)) < 1e-13
            assert abs(volume - log_det) < 1e-13


def test_u_along_w_is_what_the_constraint_says() -> None:
    """Also where both are huge, in float32: rounding does not fold space."""
    for size in (1e-20, 1e-3, 1.0, 1e3, 1e6):
        w, v = (size * randn(2, seed=1)).float(), (-1e3 * randn(2, seed=1)).float()
        layer = planar(w.double(), v.double(), 0.0).float()
        *_, u, _, c = (part.detach() for part in layer._parts(torch.zeros(1, 2), None))
        assert float(c) == pytest.approx(float(gain((w * v).sum())))
        assert float((w * u[:, 0]).sum()) == pytest.approx(float(c), rel=1e-4, abs=1e-6)


@ACTIVATIONS
def test_roots_are_found(activation: str) -> None:
    """To rounding, for slopes over the whole range, near zero and far out; the first two derivatives by differences."""
    bend = BENDS[activation]
    c = gain(torch.linspace(-30, 30, 41, dtype=torch.float64))[:, None]
    size = torch.logspace(-12, 9, 106, dtype=torch.float64)
    r = torch.cat([-size.flip(0), torch.zeros(1, dtype=torch.float64), size]).expand(41, -1)
    s = unbend(r, c, bend)
    assert ((s + c * bend.value(s) - r).abs() <= 1e-14 * (1 + c.abs()) * r.abs()).all()
    assert (s.diff() > 0).all()
    r, c = (v.requires_grad_() for v in (3 * randn(20, seed=5), gain(3 * randn(20, seed=6))))
    assert torch.autograd.gradcheck(lambda r, c: unbend(r, c, bend), (r, c))
    assert torch.autograd.gradgradcheck(lambda r, c: unbend(r, c, bend), (r, c))


def test_leaky_relu_is_inverted_in_closed_form() -> None:
    r, c = torch.tensor([-3.0, -1e-3, 0.0, 2.0]), torch.tensor([-0.9, 5.0, 5.0, -0.9])
    slopes = 1 + c * torch.tensor([0.01, 0.01, 1.0, 1.0])
    torch.testing.assert_close(unbend(r, c, BENDS["leaky_relu"]), r / slopes)


def test_radial_rows_do_not_see_one_another() -> None:
    """The distance is each row's own: a row alone, and among rows far away."""
    torch.manual_seed(0)
    layer = T.Radial(3).double()
    with torch.no_grad():
        layer.constants.start.add_(randn(5, seed=1))
    x = randn(6, 3, seed=2)
    together = layer(torch.cat([x, 100 * x]))
    for i in range(6):
        alone = layer(x[i : i + 1])
        torch.testing.assert_close(alone[0][0], together[0][i], rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(alone[1][0], together[1][i], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("slope", [-30.0, -1.0, 0.0, 1.0, 30.0])
def test_radial_at_its_centre(slope: float) -> None:
    """The centre stays; there space is stretched by 1 + beta / alpha alike in every direction, gradients finite."""
    layer = T.Radial(4).double()
    with torch.no_grad():
        layer.constants.start[-1] = slope
    centre = layer.constants.start[:4].detach().clone()[None].requires_grad_()
    z, log_det = layer(centre)
    assert torch.equal(z, centre)
    assert log_det.item() == pytest.approx(4 * 3 * math.tanh(slope / 3))
    for outcome in (z.sum() + log_det.sum(), sum(part.sum() for part in layer.inverse(centre))):
        found = torch.autograd.grad(outcome, [centre, *layer.parameters()])
        assert all(g.isfinite().all() for g in found)
    x = centre.detach() + torch.logspace(-12, 12, 25, dtype=torch.float64)[:, None] * randn(25, 4, seed=3)
    torch.testing.assert_close(layer.inverse(layer(x)[0])[0], x, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("slope", [-3.0, -0.1, 0.1, 3.0])
def test_radii_keep_their_digits(slope: float) -> None:
    """The closed form of the inverse near the centre and far from it: r + beta r / (alpha + r) is the radius again."""
    alpha = torch.tensor([0.05, 1.0, 20.0], dtype=torch.float64)[:, None]
    beta, far = alpha * math.expm1(slope), torch.logspace(-30, 30, 61, dtype=torch.float64)
    r = _shrink(far, alpha, beta)
    torch.testing.assert_close(r + beta * r / (alpha + r), far.expand(3, -1), rtol=1e-13, atol=0)


@ACTIVATIONS
@pytest.mark.parametrize(("d", "rank"), [(1, 1), (4, 2), (4, 4)])
def test_sylvester_with_tenfold_weights(activation: str, d: int, rank: int) -> None:
    """The full Jacobian's log-volume; a positive determinant; what is orthogonal to Q stays."""
    for seed in range(10):
        torch.manual_seed(seed)
        layer = T.Sylvester(d, rank, activation).double()
        with torch.no_grad():
            layer.constants.start.add_(10 * randn(len(layer.constants.start), seed=seed))
        x = randn(3, d, seed=seed + 50)
        z, log_det = layer(x)
        for i in range(3):
            jacobian = torch.autograd.functional.jacobian(lambda row, t=layer: t(row[None])[0][0], x[i])
            sign, expected = torch.linalg.slogdet(jacobian)
            assert sign == 1
            assert abs(expected - log_det[i]) < 1e-10 * torch.linalg.cond(jacobian)
        mirrors = layer._parts(x, None)[1]
        eye = torch.eye(d, dtype=torch.float64)
        frame = T.orthogonal.reflect(mirrors, eye, back=True)
        torch.testing.assert_close(frame @ frame.T, eye)
        torch.testing.assert_close(((z - x) @ frame)[:, rank:], torch.zeros(3, d - rank).double(), rtol=0, atol=1e-10)


def test_sylvester_of_rank_one_is_planar() -> None:
    """Along one direction both are x + q r h(s q.x + b)."""
    torch.manual_seed(0)
    layer = T.Sylvester(3, 1).double()
    with torch.no_grad():
        layer.constants.start[3:].copy_(torch.tensor([-1.5, 0.7, 0.2]))
    s = math.exp(3 * math.tanh(0.7 / 3))
    q = T.orthogonal.reflect(layer._parts(torch.zeros(1, 3).double(), None)[1], torch.eye(3).double(), back=True)[:, 0]
    twin = planar(s * q.detach(), -1.5 / s * q.detach(), 0.2)
    x = randn(7, 3, seed=4)
    for got, expected in zip(layer(x), twin(x), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: T.Planar(2, "relu"), "activation: expected one of tanh, leaky_relu, elu, got 'relu'"),
        (lambda: T.Planar(0), "d: expected a whole number, 1 or more, got 0"),
        (lambda: T.Radial(2, context=-1), "context: expected a whole number, 0 or more, got -1"),
        (lambda: T.Sylvester(2, 3), "rank: expected at most d=2, got 3"),
        (lambda: T.Planar(2, context=3)(torch.zeros(1, 2)), "context: these constants take 3 context features, got"),
        (lambda: T.Sylvester(2).check_event((3,)), "Sylvester moves events of 2 columns, got events of shape"),
    ],
)
def test_what_is_refused(build, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        build()
