"""How wide kernels should be: rules, cross-validation, and the exact error where the truth is known."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from diffeo.baselines.kernel_density import bandwidth_matrix, same, squares, whitened
from diffeo.baselines.points import points
from diffeo.bases import LOG_2PI, GaussianMixture
from diffeo.errors import DataError, ShapeError, shown, whole

__all__ = ["cross_validated", "mean_integrated_squared_error", "scott", "silverman", "validated"]

FACTORS = torch.logspace(math.log10(0.05), math.log10(2.5), 48, dtype=torch.float64).tolist()  # of Scott's
PAIRS = 2_000_000  # at a time
Shape = Literal["isotropic", "covariance"]


def scott(rows: Any) -> Tensor:
    """Scott's rule (1992): H H^T = n^(-2/(d+4)) times the covariance of the rows [n, d]; H [d, d], lower triangular.

    Raises DataError where the covariance cannot be inverted, as the others do.
    """
    x = points("rows", rows, 2).double()
    return _scott_factor(x) * _unit(x, "covariance")


def silverman(rows: Any) -> Tensor:
    """Silverman's rule (1986): H H^T = (n (d+2)/4)^(-2/(d+4)) times the covariance of the rows [n, d]; H [d, d].

    >>> silverman([[0.0], [1.0], [2.0]])
    tensor([[0.8503]], dtype=torch.float64)
    """
    x = points("rows", rows, 2).double()
    n, d = x.shape
    return (n * (d + 2) / 4) ** (-1 / (d + 4)) * _unit(x, "covariance")


def cross_validated(
    rows: Any,
    shape: Shape = "isotropic",
    folds: int | None = None,
    factors: Sequence[float] = FACTORS,
    seed: int = 0,
) -> Tensor:
    """H [d, d] under which left-out rows are most likely: each row given all others, or each of ``folds`` parts of the
    rows, dealt at random, given the other parts.

    H is a multiple of the identity (``isotropic``) or of the root of the covariance (``covariance``): Scott's rule, of
    the whole spread or the covariance, times one of ``factors``. Where rows repeat, the likelihood of leaving one out
    grows without bound as H shrinks, and the smallest factor wins.

    >>> x = torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
    >>> bool(0.1 < cross_validated(x) < 0.8)
    True
    """
    x = points("rows", rows, 2).double()
    unit = _scott_factor(x) * _unit(x, shape)
    u = whitened(x - x.mean(0), unit)
    if folds is None:
        return _best(unit, factors, _likelihoods(u, u, factors, own=True))
    if whole("folds", folds, 2) > len(x):
        raise ShapeError(f"folds: expected as many as the {len(x)} rows at most, got {folds}")
    part = torch.arange(len(u))[torch.randperm(len(u), generator=torch.Generator().manual_seed(seed))] % folds
    totals = [_likelihoods(u[part == k], u[part != k], factors) for k in range(folds)]
    return _best(unit, factors, torch.stack(totals).sum(0))


def validated(rows: Any, valid: Any, shape: Shape = "isotropic", factors: Sequence[float] = FACTORS) -> Tensor:
    """H [d, d] under which other rows, ``valid`` [m, d], are most likely given these [n, d]; as `cross_validated`."""
    x, other = points("rows", rows, 2).double(), points("valid", valid).double()
    if other.shape[1] != x.shape[1]:
        raise ShapeError(f"valid: expected shape [m, {x.shape[1]}], got {list(other.shape)}")
    unit = _scott_factor(x) * _unit(x, shape)
    u, v = (whitened(part - x.mean(0), unit) for part in (x, other))
    return _best(unit, factors, _likelihoods(v, u, factors))


def _scott_factor(x: Tensor) -> float:
    n, d = x.shape
    return float(n ** (-1 / (d + 4)))


def _unit(x: Tensor, shape: Shape) -> Tensor:
    """A root of the covariance of rows x [n, d], or the identity times the spread of a coordinate on average."""
    covariance = torch.atleast_2d(torch.cov(x.T))
    if shape == "isotropic":
        root, failed = torch.eye(x.shape[1]).double() * covariance.diagonal().mean().sqrt(), covariance.trace() <= 0
    elif shape == "covariance":
        root, failed = torch.linalg.cholesky_ex(covariance)
    else:
        raise DataError(f"shape: expected isotropic or covariance, got {shown(shape)}")
    if bool(failed) or not bool(root.isfinite().all()):
        raise DataError("rows: expected a covariance that can be inverted; drop columns that follow from others")
    return root


def _likelihoods(at: Tensor, centres: Tensor, factors: Sequence[float], own: bool = False) -> Tensor:
    """The sum of the log-densities of the places [n, d], but for a constant, for each factor of a unit bandwidth; a
    place that is a centre is left out of its own sum."""
    d, totals = at.shape[1], torch.zeros(len(factors), dtype=torch.float64)
    some = max(1, PAIRS // len(centres))
    for i in range(0, len(at), some):
        distances = squares(at[i : i + some], centres)
        if own:
            distances = distances.masked_fill(same(i, len(distances), 0, len(centres)), torch.inf)
        each = [(-0.5 / factor**2 * distances).logsumexp(1).sum() for factor in factors]
        totals += torch.stack(each) - len(distances) * d * torch.tensor(factors).double().log()
    return totals


def _best(unit: Tensor, factors: Sequence[float], scores: Tensor) -> Tensor:
    return factors[int(scores.argmax())] * unit


def mean_integrated_squared_error(bandwidth: Any, n: int, truth: GaussianMixture) -> float:
    """E integral (f - p)^2 of a kernel density f of n rows from a Gaussian mixture p, exactly (Marron and Wand 1992).

    With G(A) = sum_ij w_i w_j N(mu_i - mu_j; 0, S_i + S_j + A) and the bells' covariance B = H H^T, it is
    N(0; 0, 2 B)/n + (1 - 1/n) G(2 B) - 2 G(B) + G(0).

    >>> normal = GaussianMixture.from_moments(torch.ones(1), torch.zeros(1, 1), torch.ones(1, 1, 1))
    >>> round(mean_integrated_squared_error(0.4, 100, normal), 6)
    0.005555
    """
    n, d = whole("n", n), truth.event_shape[0]
    root = bandwidth_matrix(bandwidth, d)
    bell = root @ root.T
    with torch.no_grad():
        weights = torch.softmax(truth.logits.double(), 0)
        means = truth.means.detach().double()
        spread = torch.linalg.inv(truth.factors().double())
    covariances = spread @ spread.mT

    def overlap(extra: Tensor) -> Tensor:
        total = covariances[:, None] + covariances[None] + extra
        heights = _normal(means[:, None] - means[None], total)
        return weights @ heights @ weights

    first = _normal(torch.zeros(d).double(), 2 * bell) / n
    return float(first + (1 - 1 / n) * overlap(2 * bell) - 2 * overlap(bell) + overlap(torch.zeros_like(bell)))


def _normal(x: Tensor, covariance: Tensor) -> Tensor:
    """N(x; 0, covariance), of x [..., d] and [..., d, d]."""
    square = (x * torch.linalg.solve(covariance, x[..., None])[..., 0]).sum(-1)
    return (-0.5 * (square + torch.linalg.slogdet(covariance)[1] + x.shape[-1] * LOG_2PI)).exp()
