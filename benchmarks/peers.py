"""What people use: a Gaussian, a Gaussian mixture, a kernel density, and zuko's neural spline flow and masked
autoregressive flow (`pip install 'diffeo[bench]'`). Each takes train, valid and test rows [n, d] in unit spread, has so
many CPU seconds of one thread, and gives the log-densities of the test rows [n] and a word on what was chosen.
"""

import copy
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp

Method = Callable[[np.ndarray, np.ndarray, np.ndarray, float, int], tuple[np.ndarray, str]]
SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
BANDWIDTHS = tuple(np.geomspace(0.02, 0.6, 12))
BATCH, RATE, DECAY = 512, 2e-3, 1e-4


def gaussian(
    train: np.ndarray, valid: np.ndarray, test: np.ndarray, seconds: float, seed: int
) -> tuple[np.ndarray, str]:
    """The maximum-likelihood normal."""
    from scipy.stats import multivariate_normal

    return multivariate_normal(train.mean(0), np.cov(train.T)).logpdf(test), "full covariance"


def mixture(
    train: np.ndarray, valid: np.ndarray, test: np.ndarray, seconds: float, seed: int
) -> tuple[np.ndarray, str]:
    """EM with full covariances on all rows; size and ridge by the validation rows. It takes the time it takes."""
    from sklearn.mixture import GaussianMixture

    best: tuple[float, Any] = (-np.inf, None)
    for ridge in (1e-6, 1e-3, 1e-1) if len(train) < 20_000 else (1e-6,):
        for size in SIZES:
            fitted = GaussianMixture(size, reg_covar=ridge, random_state=seed).fit(train)
            best = max(best, (fitted.score(valid), fitted), key=lambda pair: pair[0])
    return best[1].score_samples(test), f"{best[1].n_components} components, ridge {best[1].reg_covar:g}"


def kernel(train: np.ndarray, valid: np.ndarray, test: np.ndarray, seconds: float, seed: int) -> tuple[np.ndarray, str]:
    """A normal kernel on every training row; one bandwidth, by 2,000 of the validation rows."""
    some = valid[np.random.default_rng(seed).permutation(len(valid))[:2000]]
    scores = [(float(_kernel(train, some, width).mean()), width) for width in BANDWIDTHS]
    width = max(scores)[1]
    return _kernel(train, test, width), f"bandwidth {width:.3g}"


def _kernel(train: np.ndarray, rows: np.ndarray, width: float) -> np.ndarray:
    constant = -0.5 * train.shape[1] * math.log(2 * math.pi) - train.shape[1] * math.log(width) - math.log(len(train))
    squares, found = (train**2).sum(1), []
    for part in np.array_split(rows, max(1, len(rows) * len(train) // 20_000_000)):
        distance = squares + (part**2).sum(1)[:, None] - 2 * part @ train.T
        found.append(logsumexp(-0.5 * distance.clip(0) / width**2, axis=1))
    return np.concatenate(found) + constant


def zuko_flow(name: str) -> Method:
    """zuko.flows.NSF (arXiv 1906.04032) or MAF (arXiv 1705.07057), five transforms, two hidden layers of 128."""

    def fit(
        train: np.ndarray, valid: np.ndarray, test: np.ndarray, seconds: float, seed: int
    ) -> tuple[np.ndarray, str]:
        import zuko

        torch.manual_seed(seed)
        flow = getattr(zuko.flows, name)(train.shape[1], transforms=5, hidden_features=(128, 128))
        return _trained(flow, train, valid, test, seconds)

    return fit


def _trained(
    flow: torch.nn.Module, train: np.ndarray, valid: np.ndarray, test: np.ndarray, seconds: float
) -> tuple[np.ndarray, str]:
    """AdamW, the rate falling by a cosine over the seconds; the weights that were best on the validation rows."""
    began, rows, checks = time.process_time(), torch.from_numpy(train).float(), torch.from_numpy(valid).float()
    optimizer = torch.optim.AdamW(flow.parameters(), lr=RATE, weight_decay=DECAY)
    best, kept, step, per_check = -math.inf, copy.deepcopy(flow.state_dict()), 0, min(200, max(20, len(train) // BATCH))
    while (progress := (time.process_time() - began) / (seconds - 3)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * progress)) * min(1.0, (step + 1) / 100)
        loss = -flow().log_prob(rows[torch.randint(len(rows), (BATCH,))]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
        optimizer.step()
        step += 1
        if step % per_check == 0 and (found := float(_scores(flow, checks).mean())) > best:
            best, kept = found, copy.deepcopy(flow.state_dict())
    flow.load_state_dict(kept)
    return _scores(flow, torch.from_numpy(test).float()).numpy(), f"{step * BATCH / len(train):.0f} epochs"


@torch.no_grad()
def _scores(flow: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
    return torch.cat([flow().log_prob(part) for part in rows.split(4096)]).double()


PEERS: dict[str, Method] = {
    "Gaussian": gaussian,
    "mixture": mixture,
    "kernel density": kernel,
    "zuko NSF": zuko_flow("NSF"),
    "zuko MAF": zuko_flow("MAF"),
}
