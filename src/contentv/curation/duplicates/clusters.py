"""Clusters of clips that look alike, and how dense each is. The seam of faiss."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from contentv.base.errors import UserError
from contentv.curation.settings import DedupSettings

Half: TypeAlias = NDArray[np.float16]
Places: TypeAlias = NDArray[np.intp]

MOST = 65_536
_TRAINED_ON = 256  # points a cluster: more move the centres no further
_BLOCK = 8192


@dataclass(frozen=True)
class Clusters:
    """Clusters of n vectors.

    `near` is ``[n nearest]``: the clusters nearest to each, its own first. `sizes` and `closeness`
    are ``[k]``: how many vectors are in each, and the mean cosine of two of them (0 where there are
    no two).
    """

    near: Places
    sizes: NDArray[np.int64]
    closeness: NDArray[np.float64]


def cluster(vectors: Half, config: DedupSettings) -> Clusters:
    """Put unit vectors ``[n d]`` into about sqrt(n / 2) clusters by spherical k-means.

    The same vectors in the same order give the same clusters. UserError where faiss is missing.
    """
    centres = _centres(vectors, config)
    count = len(centres)
    near = np.empty((len(vectors), min(config.nearest, count)), np.intp)
    sums = np.zeros(centres.shape)
    for start, block in _blocks(vectors):
        near[start : start + len(block)] = _nearest(block @ centres.T, near.shape[1])
        _add(sums, block, near[start : start + len(block), 0])
    sizes = np.bincount(near[:, 0], minlength=count)
    return Clusters(near, sizes, _closeness(sums, sizes))


def thresholds(clusters: Clusters, config: DedupSettings) -> NDArray[np.float64]:
    """Give each cluster's similarity from which clips count as duplicates: ``[k]``.

    tau_hi - (tau_hi - tau_lo) r, where r (0..1) is the rank of the cluster by closeness, counted in
    log n: the denser a cluster, the less similar its duplicates need to be. Paper, section 3.1.
    """
    weights = np.log(np.maximum(clusters.sizes, 1))
    order = np.argsort(clusters.closeness, kind="stable")
    below = np.cumsum(weights[order]) - weights[order] / 2
    rank = np.empty(len(order))
    rank[order] = below / (weights.sum() or 1.0)
    return config.tau_hi - (config.tau_hi - config.tau_lo) * rank


def _centres(vectors: Half, config: DedupSettings) -> NDArray[np.float32]:
    try:
        import faiss
    except ImportError as error:
        raise UserError("faiss: needs pip install 'contentv[curate]'") from error
    count = min(max(round(math.sqrt(len(vectors) / 2)), 1), MOST)
    means = faiss.Kmeans(
        vectors.shape[1],
        count,
        niter=config.iterations,
        seed=config.seed,
        spherical=True,
        min_points_per_centroid=1,  # what faiss holds for too few, it prints
        max_points_per_centroid=_TRAINED_ON,
    )
    means.train(_sample(vectors, _TRAINED_ON * count, config.seed))
    assert means.centroids is not None
    return means.centroids


def _sample(vectors: Half, count: int, seed: int) -> NDArray[np.float32]:
    if len(vectors) <= count:
        return vectors.astype(np.float32)
    chosen = np.random.default_rng(seed).choice(len(vectors), count, replace=False)
    return vectors[np.sort(chosen)].astype(np.float32)


def _blocks(vectors: Half) -> Iterator[tuple[int, NDArray[np.float32]]]:
    for start in range(0, len(vectors), _BLOCK):
        yield start, vectors[start : start + _BLOCK].astype(np.float32)


def _nearest(similarity: NDArray[np.float32], count: int) -> Places:
    some = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(similarity, some, 1), axis=1, kind="stable")
    return np.take_along_axis(some, order, 1)


def _add(sums: NDArray[np.float64], block: NDArray[np.float32], home: Places) -> None:
    order = np.argsort(home, kind="stable")
    present, starts = np.unique(home[order], return_index=True)
    sums[present] += np.add.reduceat(block[order].astype(np.float64), starts, axis=0)


def _closeness(sums: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean cosine of two members, from the length R of the mean: (n R² - 1) / (n - 1)."""
    squares = (sums**2).sum(1)
    counts = np.maximum(sizes, 2)
    return np.where(sizes > 1, (squares / counts - 1) / (counts - 1), 0.0)
