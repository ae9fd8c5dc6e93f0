"""Where the trainer's batches come from: one protocol, whatever encodes and wherever."""

from typing import NamedTuple, Protocol

from contentv.data.batch import FeatureBatch


class StepFeatures(NamedTuple):
    """The micro-batches of one data group in a step, in the order of computing.

    `num_samples` is of all groups together.
    """

    batches: tuple[FeatureBatch, ...]
    num_samples: int


class FeatureSource(Protocol):
    """Gives one data group what it trains on: encoded here, read from files or sent by a server.

    All sources of a plan give the same bits.
    """

    def __call__(self, step: int) -> StepFeatures:
        """Give this group's part of a step, whatever was asked for before."""
        ...
