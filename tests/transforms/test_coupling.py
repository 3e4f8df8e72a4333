"""Couplings of every partition against the masked formula, coordinate by coordinate."""

import pytest
import torch

from diffeo import nets, scalars
from diffeo.transforms import Coupling, Partition

PARTITIONS = {
    "halves": Partition.halves(6),
    "flipped halves": Partition.halves(5).flip(),
    "odd halves": Partition.halves(5),
    "in turn": Partition.alternating(6),
    "flipped, in turn": Partition.alternating(6).flip(),
    "an odd number in turn": Partition.alternating(5),
    "an odd number in turn, flipped": Partition.alternating(5).flip(),
    "two": Partition.alternating(2),
    "one of four": Partition.one(2, 4),
    "the first of four": Partition.one(0, 4),
    "the last of four": Partition.one(3, 4),
    "out of order": Partition((3, 0), (2, 4, 1)),
    "halves out of order": Partition((1, 0), (2, 3)),
    "checkerboard": Partition.checkerboard((2, 3)),
    "alone": Partition((), (0,)),
    "none stay": Partition((), (0, 1, 2)),
    "none stay, out of order": Partition((), (2, 0, 1)),
}


@pytest.mark.parametrize("partition", PARTITIONS.values(), ids=PARTITIONS)
def test_each_goes_back_to_its_place(partition: Partition) -> None:
    """z_i = x_i exp(s_i) + t_i where i moves, else x_i; with gradients as autograd has them of that."""
    generator = torch.Generator().manual_seed(3)
    moving = len(partition.move)
    net = nets.MLP(len(partition.stay), 2 * moving, (8,))
    layer = Coupling(partition, scalars.affine(scale="exp"), net).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    d = len(partition.stay) + moving
    x = torch.randn(7, d, generator=generator, dtype=torch.float64).requires_grad_()
    z, log_det = layer(x)
    raw = net(x[:, list(partition.stay)])
    expected, total = [x[:, i] for i in range(d)], torch.zeros(7, dtype=torch.float64)
    for k, i in enumerate(partition.move):
        expected[i] = x[:, i] * raw[k].exp() + raw[moving + k]
        total = total + raw[k]
    wanted = torch.stack(expected, 1)
    torch.testing.assert_close((z, log_det), (wanted, total))
    weights = torch.randn(7, d, generator=generator, dtype=torch.float64)
    slopes = [torch.autograd.grad((v * weights).sum() + t.sum(), x)[0] for v, t in ((z, log_det), (wanted, total))]
    torch.testing.assert_close(*slopes)
    torch.testing.assert_close(layer.inverse(z)[0], x)
