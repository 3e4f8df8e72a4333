"""Doors for people who come from elsewhere: names, directions and masks as they know them, the mathematics ours.

Three conventions meet here. Ours, and that of `NormalizingFlowModel`, `RealNVP` and `PermutationFlow`: forward goes
from data x to noise z. That of `CouplingLayer` and `CouplingFlow`: a layer's forward goes from noise to data, and the
density is found by the inverses. A mask's 1 means "stays, and tells the others" in `CouplingLayer`, and "is moved" in
the masks of `make_masks`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from diffeo.bases import StandardNormal
from diffeo.data.toys import sample_2d_datasets
from diffeo.errors import ShapeError, shown, whole
from diffeo.flow import Flow
from diffeo.nets import MLP, ScaleAndShift
from diffeo.scalars import Scalar, affine
from diffeo.transforms import LU, ActNorm, Chain, Coupling, Inverse, Linear, Partition, Permute, Transform, chained

__all__ = [
    "CouplingFlow",
    "CouplingLayer",
    "NormalizingFlowModel",
    "PermutationFlow",
    "RealNVP",
    "ToyDataset",
    "make_masks",
    "sample_2d_datasets",
]


def twice_tanh() -> Scalar:
    """y = x exp(2 tanh s) + t: our affine map, with half of its raw log-scale."""
    ours = affine(2.0)

    def told(raw: Tensor) -> Tensor:
        return torch.stack([2 * raw[0], raw[1].expand_as(raw[0])])

    return Scalar("twice_tanh", 2, lambda x, raw: ours.forward(x, told(raw)), lambda y, raw: ours.inverse(y, told(raw)))


class CouplingLayer(nn.Module):
    """y = x m + (1 - m)(x exp(s) + t), from noise x to data y; a coordinate with mask m = 1 stays.

    s, times a learned factor that is 0 at first, and t are told by two nets d-32-32-d with leaky ReLU, from x m.

    >>> layer, x = CouplingLayer(torch.tensor([1, 0])), torch.randn(5, 2)
    >>> y, log_det_jac = layer(x)
    >>> y.shape, log_det_jac.tolist(), sum(p.numel() for p in layer.parameters())
    (torch.Size([5, 2]), [0.0, 0.0, 0.0, 0.0, 0.0], 2438)
    """

    mask: Tensor

    def __init__(self, mask: Tensor | Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("mask", torch.as_tensor(mask).detach().clone().float())
        if self.mask.ndim != 1 or not bool(((self.mask == 0) | (self.mask == 1)).all()):
            raise ShapeError(f"mask: expected a row of zeros and ones, got {shown(self.mask.tolist())}")
        places = list(enumerate(self.mask.tolist()))
        partition = Partition(tuple(i for i, m in places if m == 1), tuple(i for i, m in places if m == 0))
        self.coupling = Coupling(partition, affine(scale="exp"), ScaleAndShift(partition.stay, partition.move))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Noise x [n, d] -> (y [n, d], log|det dy/dx| [n])."""
        return self.coupling(x)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Data y [n, d] -> (x [n, d], log|det dx/dy| [n])."""
        return self.coupling.inverse(y)


class CouplingFlow(nn.Module):
    """``num_layers`` coupling layers of two coordinates that take turns, the first of them nearest to the noise.

    ``flow`` is the same as one of our flows. The log-density is finite at any finite point.

    >>> model = CouplingFlow(num_layers=4)
    >>> x, log_prob = model.sample_x(3)
    >>> bool(torch.allclose(log_prob, model.log_probability(x))), sum(p.numel() for p in model.parameters())
    (True, 9752)
    """

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        masks = [(1, 0) if i % 2 == 0 else (0, 1) for i in range(whole("num_layers", num_layers))]
        self.layers = nn.ModuleList(map(CouplingLayer, masks))
        self.prior = StandardNormal(2)

    @property
    def flow(self) -> Flow:
        return Flow(chained(*(Inverse(layer.coupling) for layer in reversed(self.layers))), self.prior)  # type: ignore[arg-type]

    def log_probability(self, x: Tensor) -> Tensor:
        """Log-density in nats of data x [n, 2]: [n]."""
        return self.flow.log_prob(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.log_probability(x)

    def sample_x(self, num_samples: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draws [num_samples, 2] and their log-densities [num_samples]."""
        return self.flow.sample_and_log_prob(num_samples, generator=generator)

    def sample_x_each_step(self, num_samples: int, generator: torch.Generator | None = None) -> list[Tensor]:
        """The noise and what each layer makes of it: num_layers + 1 of [num_samples, 2], the last of them draws."""
        return self.flow.trace(self.prior.sample(num_samples, generator=generator))

    sample_x_each_layer = sample_x_each_step


class NormalizingFlowModel(nn.Module):
    """Our transforms of vectors of ``dim`` numbers, the first nearest to the data, over standard normal noise.

    >>> from diffeo.transforms import Planar
    >>> z, prior_logprob, log_det = NormalizingFlowModel(2, [Planar(2), Planar(2)])(torch.zeros(3, 2))
    >>> z.shape, prior_logprob.shape, log_det.shape
    (torch.Size([3, 2]), torch.Size([3]), torch.Size([3]))
    """

    def __init__(self, dim: int, flows: Sequence[Transform]) -> None:
        super().__init__()
        self.flow = Flow(Chain(*flows), StandardNormal(dim))
        if self.flow.context_features:
            raise ShapeError(f"flows: expected transforms without context, got {self.flow.context_features} features")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Data x [n, dim] -> (noise z [n, dim], its log-density [n], log|det dz/dx| [n]); the last two add up."""
        z, log_det = self.flow.transform(self._rows("x", x))
        return z, self.flow.base.log_prob(z), log_det

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Noise z [n, dim] -> (data x [n, dim], log|det dx/dz| [n])."""
        return self.flow.transform.inverse(self._rows("z", z))

    def sample(self, n_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws [n_samples, dim]."""
        return self.flow.sample(n_samples, generator=generator)

    def _rows(self, name: str, x: Tensor) -> Tensor:
        if x.ndim != 2 or tuple(x.shape[1:]) != self.flow.event_shape:
            raise ShapeError(f"{name}: expected shape [n, {self.flow.event_shape[0]}], got {list(x.shape)}")
        return x


def make_masks(num_features: int, alternating: bool = True) -> list[int]:
    """A 1 for each coordinate that is moved: every other one, beginning with the second, or else with the first.

    >>> make_masks(5), make_masks(5, alternating=False)
    ([0, 1, 0, 1, 0], [1, 0, 1, 0, 1])
    """
    return [(i + (not alternating)) % 2 for i in range(whole("num_features", num_features))]


def RealNVP(num_features: int, n_couplings: int = 6, hidden_dims: int = 128) -> Flow:  # noqa: N802
    """ActNorm, then affine couplings with log-scales 2 tanh(s) and zero at first, each followed by a linear map.

    Linear maps start as random rotations and are in turn by LU factors and full. One net gives scale and shift. The
    first transform wants a first batch before training: ``flow.transform[0].initialize(batch)``.

    >>> RealNVP(2).log_prob(torch.zeros(1, 2)).detach()
    tensor([-1.8379])
    """
    return _couplings(
        num_features, n_couplings, hidden_dims, lambda i: (Linear if i % 2 else LU)(num_features, "orthogonal")
    )


def PermutationFlow(num_features: int, n_couplings: int = 6, hidden_dims: int = 128) -> Flow:  # noqa: N802
    """`RealNVP` with a fixed random permutation in place of each linear map.

    >>> PermutationFlow(2).sample(3).shape
    torch.Size([3, 2])
    """
    return _couplings(num_features, n_couplings, hidden_dims, lambda i: Permute.random(num_features))


def _couplings(d: int, count: int, hidden: int, between: Callable[[int], Transform]) -> Flow:
    layers: list[Transform] = [ActNorm(d)]
    for i in range(whole("n_couplings", count)):
        mask = make_masks(d, alternating=i % 2 == 0)
        partition = Partition(*(tuple(j for j, m in enumerate(mask) if m == kind) for kind in (0, 1)))
        partition = partition if partition.move else partition.flip()  # one coordinate has to move alone
        net = MLP(len(partition.stay), 2 * len(partition.move), (hidden, hidden), activation="relu")
        layers += [Coupling(partition, twice_tanh(), net), between(i)]
    return Flow(Chain(*layers), StandardNormal(d))


class ToyDataset(Dataset[Tensor]):
    """Points of `sample_2d_datasets`, each a float32 tensor [2].

    >>> points = ToyDataset("Moons", num_samples=10)
    >>> len(points), points[0].shape, points[0].dtype
    (10, torch.Size([2]), torch.float32)
    """

    def __init__(self, dist_type: str, num_samples: int = 1000, seed: int = 0, num_gaussians: int = 5) -> None:
        points = sample_2d_datasets(dist_type, num_samples, seed, num_gaussians)
        self.points = torch.from_numpy(points).float()

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, i: int) -> Tensor:
        return self.points[i]
