"""Distance of two sets of features as normal distributions (arXiv 1706.08500, section 3)."""

import torch
from torch import Tensor


def frechet_distance(ours: Tensor, theirs: Tensor) -> float:
    """Squared Fréchet distance of features [n d] and [m d]; 0 for equal mean and covariance.

    ValueError when a set has fewer than two rows: it has no covariance.
    """
    if min(len(ours), len(theirs)) < 2:
        raise ValueError(f"features: {len(ours)} and {len(theirs)} rows, need at least 2 each")
    ours, theirs = ours.double(), theirs.double()
    shift = (ours.mean(0) - theirs.mean(0)).square().sum()
    one, other = torch.cov(ours.T), torch.cov(theirs.T)
    # trace((one other)^½) by eigenvalues of a symmetric matrix that is similar to the product.
    root = _root(one)
    shared = torch.linalg.eigvalsh(root @ other @ root).clamp_min(0).sqrt().sum()
    return float(shift + one.trace() + other.trace() - 2 * shared)


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T
