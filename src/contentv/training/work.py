"""What a step consumes: one batch, or several that share one update."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import torch


class Batch(Protocol):
    """A batch knows the names of its samples, to tell them in an error, and can be moved."""

    @property
    def keys(self) -> tuple[str, ...]:
        """One name per sample."""
        ...

    def to(self, device: torch.device) -> Self:
        """The same batch on `device`."""
        ...


BatchT = TypeVar("BatchT", bound=Batch)


@dataclass(frozen=True)
class Work(Generic[BatchT]):
    """The micro-batches of one process in one step, and how many samples the step has in all.

    `count` is over all processes. The loss of a step is the sum over its samples divided by
    `count`, so batches of unequal size weigh each sample the same.
    """

    batches: tuple[BatchT, ...]
    count: int

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of this process's samples."""
        return tuple(key for batch in self.batches for key in batch.keys)


def work_of(
    batches: Callable[[int], BatchT | Work[BatchT]],
) -> Callable[[int], Work[BatchT]]:
    """Work of a step from batches or work by step; a lone batch is all there is of its step."""

    def draw(step: int) -> Work[BatchT]:
        drawn = batches(step)
        return drawn if isinstance(drawn, Work) else Work((drawn,), len(drawn.keys))

    return draw


def accumulate(
    batches: Callable[[int], BatchT], micro_batches: int
) -> Callable[[int], Work[BatchT]]:
    """Work of `micro_batches` batches a step: step s takes batches s·n to s·n + n - 1."""

    def draw(step: int) -> Work[BatchT]:
        first = step * micro_batches
        drawn = tuple(batches(number) for number in range(first, first + micro_batches))
        return Work(drawn, sum(len(batch.keys) for batch in drawn))

    return draw
