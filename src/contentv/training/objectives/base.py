"""What a trainer asks of an objective."""

from typing import Protocol, TypeVar

from torch import Tensor, nn

BatchT_contra = TypeVar("BatchT_contra", contravariant=True)


class Objective(Protocol[BatchT_contra]):
    """Networks in training and the loss of a batch."""

    @property
    def networks(self) -> nn.Module:
        """Everything trained, under names that do not change between versions of a run."""
        ...

    def losses(self, batch: BatchT_contra) -> dict[str, Tensor]:
        """Per-sample values, each [b]. "loss" is minimised; the others are logged."""
        ...
