"""Every way to invert an autoregressive layer finds what a pass of the net for each coordinate finds."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from diffeo import nets, scalars
from diffeo.errors import ShapeError
from diffeo.transforms import Autoregressive, incremental
from diffeo.transforms.incremental import plan_of

PATHS = ("incremental", "fixed-point", "auto")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layer(
    d: int,
    scalar: scalars.Scalar | None = None,
    hidden: tuple[int, ...] = (24, 24),
    context: int = 0,
    activation: str = "relu",
    scale: float = 0.3,
    dropout: float = 0.0,
) -> Autoregressive:
    """A layer of a random order whose weights are awake; hidden widths need not divide by d."""
    order = torch.randperm(d, generator=generator(d)).tolist()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = Autoregressive(
            order,
            scalar or scalars.affine(),
            lambda o, w: nets.MaskedMLP(o, w, hidden, context, activation, dropout),
        )
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(scale * torch.randn(parameter.shape) / math.sqrt(parameter.shape[-1]))
    return made.double()


def found(made: Autoregressive, path: str, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
    made.inverse_by = path
    with torch.no_grad():
        return made.inverse(z, context)


LAYERS = {
    "one coordinate": (1, {}),
    "affine": (7, {}),
    "no hidden layer": (5, {"hidden": ()}),
    "one narrow layer": (40, {"hidden": (9,)}),
    "three layers of odd widths": (13, {"hidden": (17, 5, 30), "activation": "silu"}),
    "blocks": (150, {"hidden": (160, 151), "scale": 0.5}),
    "context": (20, {"context": 3, "activation": "tanh"}),
    "context of one coordinate": (1, {"context": 2}),
    "spline": (17, {"scalar": scalars.spline(), "scale": 1.0}),
    "circular": (9, {"scalar": scalars.spline(4, tails="circular"), "scale": 1.0}),
    "sigmoidal": (6, {"scalar": scalars.sigmoidal(3)}),
    "additive": (30, {"scalar": scalars.additive()}),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("d", "options"), LAYERS.values(), ids=LAYERS)
def test_every_path_finds_the_sequential_inverse(d: int, options: dict, path: str) -> None:
    """To 1e-10 in float64, to 1e-5 in float32; log_dets too."""
    made = layer(d, **options)
    z = 2 * torch.randn(33, d, dtype=torch.float64, generator=generator())
    context = (
        torch.randn(33, options["context"], dtype=z.dtype, generator=generator(1)) if "context" in options else None
    )
    expected = found(made, "sequential", z, context)
    assert (expected[0] - z).abs().max() > 0.01
    torch.testing.assert_close(found(made, path, z, context), expected, rtol=1e-10, atol=1e-10)
    single, z, context = made.float(), z.float(), None if context is None else context.float()
    expected = found(single, "sequential", z, context)
    torch.testing.assert_close(found(single, path, z, context), expected, rtol=1e-5, atol=1e-5)


def passed_on(d: int) -> tuple[Autoregressive, Tensor]:
    """z_i = x_i + 0.95 x_(i-1), and 20 rows of which the first half takes d sweeps to settle and the others, 0, one."""
    made = layer(d, scalars.additive(), hidden=())
    with torch.no_grad():
        made.net.last.weight.zero_()
        made.net.last.bias.zero_()
        by_place = made._plan.sequence
        made.net.last.weight[by_place[1:], by_place[:-1]] = 0.95
    z = torch.randn(20, d, dtype=torch.float64, generator=generator())
    z[10:] = 0
    return made, z


@pytest.mark.parametrize("path", ["fixed-point", "auto"])
def test_rows_that_do_not_settle_are_stepped(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, z = passed_on(150)
    stepped = []
    plain = incremental._Block.stepped
    monkeypatch.setattr(incremental._Block, "stepped", lambda block: (stepped.append(block.first), plain(block))[1])
    got = found(made, path, z)
    assert stepped == list(range(0, 144, 24))
    torch.testing.assert_close(got, found(made, "sequential", z), rtol=1e-10, atol=1e-10)
    stepped.clear()
    assert torch.equal(found(made, path, z[10:])[0], z[10:])
    assert not stepped


def test_after_k_sweeps_k_steps_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that with as many sweeps as steps all of them are, however little they settle before."""
    made, z = passed_on(24)
    expected = found(made, "sequential", z)
    monkeypatch.setattr(incremental._Block, "stepped", None)
    monkeypatch.setattr(incremental, "SWEEPS", 23)
    with pytest.raises(TypeError):
        found(made, "fixed-point", z)
    monkeypatch.setattr(incremental, "SWEEPS", 24)
    torch.testing.assert_close(found(made, "fixed-point", z), expected, rtol=1e-12, atol=1e-12)


def test_a_row_does_not_depend_on_its_mates() -> None:
    """Bit for bit in a batch of one size: not on how soon they settle, nor on whether they are numbers."""
    made = layer(70, hidden=(80, 80), scale=1.5, activation="silu").float()
    z = torch.randn(12, 70, generator=generator())
    expected = found(made, "fixed-point", z)
    for other in (100.0, 0.0, 1e30, math.nan, math.inf):
        spoiled = z.clone()
        spoiled[3:8] *= other
        got = found(made, "fixed-point", spoiled)
        for rows in (slice(0, 3), slice(8, None)):
            assert torch.equal(got[0][rows], expected[0][rows])
            assert torch.equal(got[1][rows], expected[1][rows])


@pytest.mark.parametrize("path", PATHS)
def test_what_stands_before_a_missing_number_is_found(path: str) -> None:
    made = layer(20)
    z = torch.randn(4, 20, dtype=torch.float64, generator=generator())
    z[1, made.order.index(12)] = math.nan
    got, expected = found(made, path, z), found(made, "sequential", z)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10, equal_nan=True)
    assert got[0][1].isfinite().sum() == 12


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("path", PATHS)
def test_few_rows(path: str, n: int) -> None:
    made = layer(20)
    x, log_det = found(made, path, torch.zeros(n, 20, dtype=torch.float64))
    assert x.shape == (n, 20)
    assert log_det.shape == (n,)


def test_each_unit_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Activations act on as many numbers as one forward pass has hidden units."""
    made = layer(50, hidden=(70, 33))
    seen = []
    name = made.net.activation
    act = nets.ACTIVATIONS[name]
    monkeypatch.setitem(nets.ACTIVATIONS, name, lambda h: (seen.append(len(h)), act(h))[1])
    found(made, "incremental", torch.zeros(3, 50, dtype=torch.float64))
    assert sum(seen) == 70 + 33


@pytest.mark.parametrize("context", [0, 2])
def test_gradients_are_the_sequential_ones(context: int) -> None:
    """Of x and log_det by z, the context and every weight, whatever path is asked for."""
    made = layer(12, scalars.spline(4), context=context, activation="silu")
    z = torch.randn(9, 12, dtype=torch.float64, generator=generator(), requires_grad=True)
    c = torch.randn(9, context, dtype=torch.float64, generator=generator(1), requires_grad=True) if context else None
    by = [z, *([] if c is None else [c]), *made.parameters()]
    slopes = {}
    for path in ("sequential", *PATHS):
        made.inverse_by = path
        x, log_det = made.inverse(z, c)
        slopes[path] = torch.autograd.grad(x.sin().sum() + log_det.square().sum(), by, allow_unused=True)
    for path in PATHS:
        torch.testing.assert_close(slopes[path], slopes["sequential"], rtol=1e-8, atol=1e-10)


def test_sweeps_are_for_numbers_alone() -> None:
    """Where slopes are wanted, dropout is on, or the batch or layer is of the wrong size for it, layers are stepped."""
    made = layer(40, hidden=(48,), dropout=0.2).eval()
    z = torch.zeros(40, 5, dtype=torch.float64)
    with torch.no_grad():
        assert made._path(z, None) == "fixed-point"
        assert made._path(z.expand(40, 5).repeat(1, 10_000), None) == "incremental"
        assert layer(5).eval()._path(z[:5], None) == "incremental"
        assert made.train()._path(z, None) == "incremental"
        assert torch.func.vmap(lambda z: z + (made.eval()._path(z, None) == "incremental"))(z).all()
    assert made.eval()._path(z, None) == "incremental"
    assert made.requires_grad_(False)._path(z, None) == "fixed-point"


class Own(nn.Module):
    """Somebody's own net, built another way."""

    order = (1, 0)

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.stack([h[:, 1].sin(), 0 * h[:, 1], h[:, 1], 0 * h[:, 1] + 0.3])


class Doubled(nets.MaskedMLP):
    def forward(self, *given: Tensor) -> Tensor:
        return 2 * super().forward(*given)


def test_other_nets_take_the_sequential_path() -> None:
    """Those built another way, those whose forward is another, and those with hooks."""
    own = Autoregressive([1, 0], scalars.affine(), Own(), inverse_by="fixed-point")
    z = torch.randn(6, 2, generator=generator())
    with torch.no_grad():
        torch.testing.assert_close(own(own.inverse(z)[0])[0], z, rtol=1e-5, atol=1e-5)
    assert plan_of(Doubled([0, 1, 2], 2), [0, 1, 2]) is None
    hooked = layer(6)
    z = torch.randn(5, 6, dtype=torch.float64, generator=generator())
    before = found(hooked, "incremental", z)[0]
    hooked.net.hidden[0].register_forward_hook(lambda module, given, outcome: outcome + 0.5)
    x = found(hooked, "incremental", z)[0]
    with torch.no_grad():
        torch.testing.assert_close(hooked(x)[0], z)
    assert not torch.allclose(x, before)


def test_the_choice_is_no_part_of_what_is_saved() -> None:
    made = layer(3)
    names = set(made.state_dict())
    made.inverse_by = "sequential"
    assert set(made.state_dict()) == names
    assert copy.deepcopy(made).inverse_by == "sequential"
    with pytest.raises(
        ShapeError, match="inverse_by: expected one of auto, incremental, fixed-point, sequential, got 1"
    ):
        Autoregressive([0], scalars.affine(), nets.MaskedMLP, inverse_by=1)


def test_a_missing_context_is_named() -> None:
    with pytest.raises(ShapeError, match="takes 2 context features, got none"):
        layer(3, context=2).inverse(torch.zeros(1, 3, dtype=torch.float64))


def test_numbers_finer_than_the_weights_come_back_as_exactly_as_they_can() -> None:
    made = layer(6).float()
    x = torch.randn(50, 6, dtype=torch.float64, generator=generator())
    with torch.no_grad():
        z = made(x)[0]
        torch.testing.assert_close(made.inverse(z)[0], x, rtol=1e-11, atol=1e-11)
        assert torch.equal(made.inverse(z)[0], found(made, "sequential", z)[0])
