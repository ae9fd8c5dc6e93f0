"""The clips of a data set by bucket, and the endless row of micro-batches made of them."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from contentv.base.rng import key
from contentv.data.batching import Cost
from contentv.data.buckets import Bucket, Buckets, Fit
from contentv.data.manifest import Clip
from contentv.data.permutation import Permutation


@dataclass(frozen=True, eq=False)
class Shelf:
    """The clips of one bucket: their rows in the manifest, computed `batch` at a time.

    `cost` is that of one clip; micro-batches that are dealt together have similar costs.
    """

    bucket: Bucket
    rows: NDArray[np.int64]
    batch: int
    cost: float = 1.0

    def __post_init__(self) -> None:
        assert self.batch > 0
        assert len(self.rows) > 0

    @property
    def num_batches(self) -> int:
        """Micro-batches of an epoch; the last may be smaller, so that no clip is left out."""
        return -(-len(self.rows) // self.batch)


@dataclass(frozen=True)
class Pool:
    """Shelves whose micro-batches are shuffled together, anew for each pass over them."""

    shelves: tuple[Shelf, ...]
    seed: int
    _ends: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ends = tuple(accumulate(shelf.num_batches for shelf in self.shelves))
        object.__setattr__(self, "_ends", ends)

    @property
    def num_batches(self) -> int:
        """Micro-batches of an epoch."""
        return self._ends[-1] if self._ends else 0

    @property
    def num_samples(self) -> int:
        """Clips of an epoch."""
        return sum(len(shelf.rows) for shelf in self.shelves)

    def batch(self, number: int) -> tuple[Shelf, tuple[int, ...]]:
        """Shelf and rows of micro-batch `number`, 0 and up, of an endless row of epochs."""
        epoch, place = divmod(number, self.num_batches)
        unit = Permutation(self.num_batches, key(self.seed, epoch, "batches"))(place)
        which = bisect_right(self._ends, unit)
        shelf = self.shelves[which]
        first = (unit - (self._ends[which] - shelf.num_batches)) * shelf.batch
        order = Permutation(len(shelf.rows), key(self.seed, epoch, "clips", which))
        last = min(first + shelf.batch, len(shelf.rows))
        return shelf, tuple(int(shelf.rows[order(i)]) for i in range(first, last))


def shelve(
    clips: Sequence[Clip], buckets: Buckets, sizes: Mapping[Bucket, int], cost: Cost
) -> tuple[Shelf, ...]:
    """Put every usable clip on the shelf of its bucket; rows are places in `clips`.

    Which clips those are and why not the others, `data.check.judge` tells.
    """
    rows: dict[Bucket, list[int]] = {}
    for row, clip in enumerate(clips):
        fit = None if clip.obstacle else buckets.fit(clip.size)
        if isinstance(fit, Fit):
            rows.setdefault(fit.bucket, []).append(row)
    return tuple(
        Shelf(shape, np.array(rows[shape], np.int64), sizes[shape], cost(shape))
        for shape in buckets.shapes
        if shape in rows
    )
