"""What one process saw of one step, as sums that add up over batches and processes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from contentv.training.watch import Watch
from contentv.training.work import BatchT, Work


@dataclass(frozen=True)
class StepNumbers:
    """Sums over the samples of one process.

    `shares` are its parts of the step's means, "loss" among them; `groups` are sums and counts of
    the loss by "way/group"; `samples` are those of all processes.
    """

    shares: dict[str, float]
    groups: dict[str, tuple[float, int]]
    samples: int
    flops: float

    @classmethod
    def of(
        cls, work: Work[BatchT], losses: list[dict[str, Tensor]], watch: Watch[BatchT]
    ) -> "StepNumbers":
        """Sum up per-sample values, one dictionary for each batch of the work."""
        shares: dict[str, float] = {}
        for found in losses:
            for key, values in found.items():
                shares[key] = shares.get(key, 0.0) + float(values.sum()) / work.count
        groups: dict[str, tuple[float, int]] = {}
        for key, loss in _grouped(work, losses, watch):
            total, count = groups.get(key, (0.0, 0))
            groups[key] = (total + loss, count + 1)
        flops = sum(watch.flops(batch) for batch in work.batches) if watch.flops else 0.0
        return cls(shares, groups, work.count, flops)


def _grouped(
    work: Work[Any], losses: list[dict[str, Tensor]], watch: Watch[Any]
) -> Iterator[tuple[str, float]]:
    for batch, found in zip(work.batches, losses, strict=True):
        for way, names in watch.groups(batch).items():
            for name, loss in zip(names, found["loss"].tolist(), strict=True):
                yield f"{way}/{name}", loss
