"""Linear maps beyond the contract: where they start, what stays orthogonal, and channels at every place."""

import pytest
import torch
from torch import Tensor

from diffeo import scalars
from diffeo import transforms as T
from diffeo.errors import ShapeError
from diffeo.transforms.orthogonal import reflect, rotation
from tests.transforms.cases import autoregressive


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def matrix(layer: T.Transform, d: int) -> tuple[Tensor, Tensor]:
    """W [d, d] and log|det W| of z = W x + b."""
    z, log_det = layer(torch.cat([torch.zeros(1, d), torch.eye(d)]).double())
    return (z[1:] - z[0]).T.detach(), log_det[0].detach()


def awake(layer: T.Transform, size: float) -> T.Transform:
    layer.double()
    with torch.no_grad():
        for i, parameter in enumerate(layer.parameters()):
            parameter.add_(size * randn(*parameter.shape, seed=i))
    return layer


@pytest.mark.parametrize("kind", [T.LU, T.Linear])
@pytest.mark.parametrize("d", [1, 2, 3, 7, 32, 64])
def test_an_orthogonal_start_is_orthogonal(kind: type, d: int) -> None:
    """Whatever the seed, with the signs of the diagonal; the volume is kept."""
    for seed in range(20):
        weight, log_det = matrix(kind(d, "orthogonal", torch.Generator().manual_seed(seed)).double(), d)
        assert abs(log_det) < 1e-5
        torch.testing.assert_close(weight @ weight.T, torch.eye(d).double(), rtol=0, atol=2e-6)
        assert d == 1 or not torch.equal(weight.abs(), torch.eye(d).double())


@pytest.mark.parametrize("kind", [T.LU, T.Linear])
def test_an_identity_start_is_the_identity(kind: type) -> None:
    x = randn(5, 4)
    z, log_det = kind(4).double()(x)
    assert torch.equal(z, x)
    assert not log_det.any()


@pytest.mark.parametrize("kind", [T.LU, T.Linear])
@pytest.mark.parametrize("start", ["identity", "orthogonal"])
def test_gradients_reach_every_factor(kind: type, start: str) -> None:
    layer = awake(kind(3, start), 0.3)
    z, log_det = layer(randn(7, 3))
    slopes = torch.autograd.grad(z.square().sum() + log_det.sum(), list(layer.parameters()))
    assert all(slope.isfinite().all() and slope.any() for slope in slopes)


@pytest.mark.parametrize("size", [0.3, 3.0, 30.0])
@pytest.mark.parametrize("d", [1, 2, 5])
def test_a_full_matrix_is_invertible_whatever_is_learned(d: int, size: float) -> None:
    """Singular values within exp(-3) .. exp(3); the log-volume is the matrix's own."""
    weight, log_det = matrix(awake(T.Linear(d, "orthogonal"), size), d)
    values = torch.linalg.svdvals(weight).log()
    assert values.abs().max() < 3.0001
    assert abs(torch.linalg.slogdet(weight)[1] - log_det) < 1e-10
    assert abs(values.sum() - log_det) < 1e-10


def test_a_full_matrix_can_be_any() -> None:
    """Fitted to a given matrix it becomes that: no order among the coordinates, unlike one triangle."""
    torch.manual_seed(0)
    wanted, layer = torch.tensor([[0.1, 2.0], [-1.5, 0.3]]).double(), T.Linear(2).double()
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")
    x = randn(20, 2)

    def loss() -> Tensor:
        optimizer.zero_grad()
        gap = (layer(x)[0] - x @ wanted.T).square().mean()
        gap.backward()
        return gap

    optimizer.step(loss)
    torch.testing.assert_close(matrix(layer, 2)[0], wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [1e-3, 0.1, 1.0, 30.0])
@pytest.mark.parametrize("how", ["householder", "exponential"])
@pytest.mark.parametrize("d", [1, 2, 8, 40])
def test_orthogonal_stays_orthogonal(d: int, how: str, size: float) -> None:
    layer = T.Orthogonal(d, how, generator=torch.Generator().manual_seed(0))
    weight, log_det = matrix(awake(layer, size), d)
    torch.testing.assert_close(weight @ weight.T, torch.eye(d).double(), rtol=0, atol=1e-13)
    assert log_det == 0


def test_reflections_and_rotations_by_hand() -> None:
    """At the plane across (1, 1): (x, y) -> (-y, -x). exp of the generator of a turn by t: cosine and sine."""
    mirrored = reflect(torch.tensor([[[1.0], [1.0]]]), torch.tensor([[3.0], [5.0]]))
    assert mirrored.tolist() == [[-5.0], [-3.0]]
    assert torch.equal(reflect(torch.zeros(1, 2, 1), torch.ones(2, 1)), torch.ones(2, 1))
    t = torch.tensor(0.7, dtype=torch.float64)
    expected = torch.stack([torch.stack([t.cos(), -t.sin()]), torch.stack([t.sin(), t.cos()])])
    torch.testing.assert_close(rotation(t * torch.eye(2).double().flip(0)), expected, rtol=0, atol=1e-15)


def test_over_channels_is_a_1x1_convolution() -> None:
    """torch's own convolution with the same matrix; log_det H W times that of one place."""
    layer = awake(T.LU(3, "orthogonal"), 0.3)
    weight, log_det = matrix(layer, 3)
    x = randn(2, 3, 4, 5)
    z, total = T.OverChannels(layer)(x)
    torch.testing.assert_close(z, torch.nn.functional.conv2d(x, weight[..., None, None], layer.bias))
    torch.testing.assert_close(total, 20 * log_det.expand(2))


def test_over_channels_gives_each_place_its_rows_context() -> None:
    layer = awake(T.Planar(2, context=3), 0.5)
    x, context = randn(4, 2, 3), randn(4, 3, seed=1)
    z, log_det = T.OverChannels(layer)(x, context)
    places = [layer(x[:, :, i], context) for i in range(3)]
    torch.testing.assert_close(z, torch.stack([place for place, _ in places], -1))
    torch.testing.assert_close(log_det, torch.stack([volume for _, volume in places]).sum(0))


def test_the_other_fast_direction_of_autoregressive_layers() -> None:
    """Forward asks the net once and back d times; the inverse layer the other way round."""
    layer = autoregressive([1, 2, 0], scalars.affine()).double()
    asked = []
    layer.net.register_forward_hook(lambda *_: asked.append(1))
    for transform, counts in ((layer, (1, 3)), (T.Inverse(layer), (3, 1))):
        for step, count in zip((transform.forward, transform.inverse), counts, strict=True):
            asked.clear()
            step(randn(5, 3))
            assert len(asked) == count


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: T.Linear(2, "zero"), "start: expected identity or orthogonal, got 'zero'"),
        (lambda: T.Orthogonal(2, "cayley"), "how: expected householder or exponential, got 'cayley'"),
        (lambda: T.Orthogonal(2, "exponential", 3), "reflections: an exponential has none, got 3; leave it out"),
        (lambda: T.Orthogonal(2, reflections=0), "reflections: expected a whole number, 1 or more, got 0"),
        (lambda: T.OverChannels(torch.nn.Linear(2, 2)), "transform: expected a Transform, got Linear"),
        (lambda: T.OverChannels(T.LU(3)).check_event((2, 4, 4)), "LU moves events of 3 columns, got events of shape"),
    ],
)
def test_what_is_refused(build, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        build()
