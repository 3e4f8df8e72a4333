"""One Gaussian, and Gaussian mixtures by EM, of plain arrays."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffeo.baselines.common import RIDGE
from diffeo.baselines.points import PointDensity, exactly, points
from diffeo.bases import GaussianMixture
from diffeo.errors import ShapeError, shown

__all__ = ["NormalDistribution", "NormalMixture"]

SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32)
SHAPES = ("full", "tied", "diag", "spherical")  # of the covariances, in scikit-learn's words
PATIENT = 3  # sizes in a row that may do worse than the best of their shape
ITERATIONS = 500
RESTARTS = 3


class _Exact(GaussianMixture):
    """In float64 from the start, so that no digit is lost on the way in."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.double()


class _Normals(PointDensity):
    """A fixed Gaussian mixture."""

    def __init__(self, weights: Any, means: Any, covariances: Any) -> None:
        super().__init__()
        moments = exactly(weights), exactly(means), exactly(covariances)
        self.mixture = _Exact.from_moments(*moments).requires_grad_(False)
        self.event_shape = self.mixture.event_shape

    def _log_density(self, x: Tensor) -> Tensor:
        return self.mixture(x)

    def _draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        return self.mixture.sample(n, generator=generator)


class NormalDistribution(_Normals):
    """N(mean, covariance), mean [d] and covariance [d, d]; float64.

    >>> normal = NormalDistribution.fit([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
    >>> normal.log_prob(torch.ones(1, 2))
    tensor([-1.8379], dtype=torch.float64)
    """

    def __init__(self, mean: Any, covariance: Any) -> None:
        super().__init__([1.0], exactly(mean)[None], exactly(covariance)[None])

    @classmethod
    def fit(cls, rows: Any) -> "NormalDistribution":
        """The likeliest of rows [n, d]. Raises ShapeError where their covariance cannot be inverted."""
        x = points("rows", rows, 2).double()
        return cls(x.mean(0), torch.atleast_2d(torch.cov(x.T, correction=0)))


class NormalMixture(_Normals):
    """sum_k w_k N(mu_k, S_k) of weights [k], means [k, d], covariances [k, d, d]; float64. ``shape`` is that of the
    covariances, where a fit has chosen it.

    >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)) + torch.tensor([[9.0, 0.0]])
    >>> fit = NormalMixture.fit(torch.cat([x, -x]), sizes=(1, 2, 3))
    >>> fit.components, fit.log_prob(x).shape
    (2, torch.Size([200]))
    """

    def __init__(self, weights: Any, means: Any, covariances: Any, shape: str = "full") -> None:
        super().__init__(weights, means, covariances)
        self.components, self.shape = self.mixture.components, shape

    @classmethod
    def fit(
        cls,
        rows: Any,
        valid: Any = None,
        sizes: Sequence[int] = SIZES,
        shapes: Sequence[str] = SHAPES,
        seed: int = 0,
    ) -> "NormalMixture":
        """The best by the Bayesian information criterion (Schwarz 1978), or under which the rows ``valid`` [m, d] are
        likeliest where there are some; by scikit-learn's EM on rows [n, d], each column in its own standard deviation.

        Sizes grow until three in a row were worse than the best of their shape. Raises ShapeError and DataError.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture as Estimator

        x = points("rows", rows, 2).double().numpy()
        other = None if valid is None else points("valid", valid).double().numpy()
        if other is not None and other.shape[1] != x.shape[1]:
            raise ShapeError(f"valid: expected shape [m, {x.shape[1]}], got {list(other.shape)}")
        if not sizes or not shapes or not set(shapes) <= set(SHAPES):
            raise ShapeError(f"sizes, shapes: expected some, of {', '.join(SHAPES)}, got {shown((sizes, shapes))}")
        mean, scale = x.mean(0), np.maximum(x.std(0), 1e-300)
        z, judges = (x - mean) / scale, None if other is None else (other - mean) / scale
        best, highest = None, -np.inf
        for shape in shapes:
            worse, top = 0, -np.inf
            for size in (size for size in sizes if size <= len(z)):
                estimator = Estimator(
                    size,
                    covariance_type=shape,
                    reg_covar=RIDGE,
                    max_iter=ITERATIONS,
                    n_init=RESTARTS,
                    random_state=seed,
                )
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    score = -estimator.fit(z).bic(z) if judges is None else estimator.fit(z).score(judges)
                worse, top = (0, score) if score > top else (worse + 1, top)
                if score > highest:
                    best, highest = estimator, score
                if worse >= PATIENT:
                    break
        if best is None:
            raise ShapeError(f"sizes: expected one of at most the {len(z)} rows, got {shown(sizes)}")
        covariances = scale[:, None] * _full(best) * scale
        return cls(best.weights_ / best.weights_.sum(), mean + scale * best.means_, covariances, best.covariance_type)


def _full(estimator: Any) -> np.ndarray:
    """Covariances [k, d, d] of whatever shape."""
    k, d = estimator.means_.shape
    covariances, eye = estimator.covariances_, np.eye(d)
    return {
        "full": lambda: covariances,
        "tied": lambda: np.broadcast_to(covariances, (k, d, d)),
        "diag": lambda: covariances[:, :, None] * eye,
        "spherical": lambda: covariances[:, None, None] * eye,
    }[estimator.covariance_type]()
