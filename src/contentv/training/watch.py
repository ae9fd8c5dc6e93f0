"""What a recipe hands to the trainer so that a run can be judged while it goes on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from contentv.training.groups import Groups
from contentv.training.state import TrainState

BatchT_contra = TypeVar("BatchT_contra", contravariant=True)


def _undivided(batch: object) -> Groups:  # noqa: ARG001 - whatever the batch, no groups
    return {}


def _unvalidated(state: TrainState) -> Mapping[str, float]:  # noqa: ARG001 - nothing to measure
    return {}


@dataclass(frozen=True)
class Watch(Generic[BatchT_contra]):
    """Nothing here changes what a run learns.

    `groups` gives for each way to divide samples one group's name per sample; `validate` measures
    every `validate_every` steps and must leave the networks as they were (`state.averaged()` lends
    their averages). `flops` are those of a batch forward and backward that fall on one process,
    `peak_flops` what its device can do in a second: with both, the log has the MFU.
    """

    groups: Callable[[BatchT_contra], Groups] = _undivided
    validate: Callable[[TrainState], Mapping[str, float]] = _unvalidated
    flops: Callable[[BatchT_contra], float] | None = None
    peak_flops: float | None = None
