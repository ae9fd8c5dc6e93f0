"""Which clips a training step sees: a pure function of (seed, stage, step), for any group count.

A *pool* is the pictures or the videos of a data set. Once per epoch each of its clips is put into
one *micro-batch* of its bucket, and the micro-batches are shuffled. A step takes the next
`batches_per_step` of them, and only then are they dealt to the data-parallel groups. Every place is
found by itself: no step needs the steps before it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import accumulate
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from contentv.base.config import Config
from contentv.base.errors import UserError
from contentv.base.rng import key, numpy_generator
from contentv.data.batching import tokens
from contentv.data.buckets import Bucket, bucket_name
from contentv.data.permutation import Permutation
from contentv.data.shelves import Pool, Shelf

_VERSION = 1  # of the order below: a change of it makes other batches of the same numbers

Weighting = Literal["sample", "token"]


class MixPhase(Config):
    """Part of a stage: `steps` steps that see pictures and videos in these proportions.

    Proportions are of clips, not of micro-batches, and exact over whole epochs; 0 pictures is video
    only.
    """

    steps: int = Field(gt=0)
    pictures: int = Field(0, ge=0, le=1_000_000)
    videos: int = Field(1, ge=0, le=1_000_000)

    @model_validator(mode="after")
    def _something(self) -> "MixPhase":
        if not self.pictures + self.videos:
            raise ValueError("pictures=0: and videos=0 leave nothing to train on; raise one")
        return self


@dataclass(frozen=True)
class MicroBatch:
    """Clips of one bucket that are computed together.

    `rows` are theirs in the manifest, `slots` their places in the step's list, by which everything
    random is keyed (see `draw`). A sample's mean loss times `weight`, summed over all micro-batches
    of all groups, is the step's loss.
    """

    bucket: Bucket
    rows: tuple[int, ...]
    slots: tuple[int, ...]
    weight: float
    cost: float


@dataclass(frozen=True)
class StepPlan:
    """All micro-batches of one step, before they are dealt."""

    step: int
    batches: tuple[MicroBatch, ...]

    @property
    def num_samples(self) -> int:
        """Clips of the step in all groups together, known to each without asking the others."""
        return sum(len(batch.rows) for batch in self.batches)

    def deal(self, group: int, groups: int) -> tuple[MicroBatch, ...]:
        """Give the micro-batches of one of `groups` groups, in the order they are computed.

        All groups get equally many, and what they compute at the same time costs alike.
        """
        if groups < 1 or len(self.batches) % groups:
            fitting = [n for n in range(1, len(self.batches) + 1) if len(self.batches) % n == 0]
            raise UserError(
                f"groups={groups}: must divide the {len(self.batches)} micro-batches of a step; "
                f"use {', '.join(map(str, fitting))}"
            )
        ordered = sorted(self.batches, key=lambda batch: (-batch.cost, batch.slots))
        hands = [ordered[i : i + groups] for i in range(0, len(ordered), groups)]
        # Back and forth, so that no group has the dearest of every round.
        return tuple(
            hand[group if number % 2 == 0 else groups - 1 - group]
            for number, hand in enumerate(hands)
        )


@dataclass(frozen=True)
class Draw:
    """What is chosen at random for one sample: numbers in 0..1.

    `start`, `down`, `right` go to `Fit.times` and `Fit.corner`; `caption` < share of long captions
    picks the long one; `dropped` are one each for up to three text encoders.
    """

    start: float
    down: float
    right: float
    caption: float
    dropped: tuple[float, float, float]


def draw(seed: int, stage: str, step: int, slot: int) -> Draw:
    """Draw a sample's choices; noise and sigma have generators of the same key and their name."""
    start, down, right, caption, *dropped = numpy_generator(seed, stage, step, slot, "view").random(
        7
    )
    return Draw(start, down, right, caption, (dropped[0], dropped[1], dropped[2]))


@dataclass(frozen=True)
class Plan:
    """The steps of a stage.

    `content` identifies the manifest whose rows the shelves name. UserError when a phase wants
    pictures or videos and there are none.
    """

    seed: int
    stage: str
    shelves: Sequence[Shelf]
    phases: tuple[MixPhase, ...]
    batches_per_step: int
    content: str
    weighting: Weighting = "sample"

    def __post_init__(self) -> None:
        assert self.batches_per_step > 0
        for name, pool in (("pictures", self._pictures), ("videos", self._videos)):
            if not pool.shelves and any(getattr(phase, name) for phase in self.phases):
                raise UserError(
                    f"{self.stage}: asks for {name} and no usable clip is one; add some, or set "
                    f"{name} to 0 (`contentv data check` says what becomes of each clip)"
                )

    @property
    def steps(self) -> int:
        """Length of all phases together."""
        return sum(phase.steps for phase in self.phases)

    def __call__(self, step: int) -> StepPlan:
        """Give the global list of a step."""
        phase, first, before = self._find(step)
        share = self._share(phase)
        batches = []
        for place in range(first, first + self.batches_per_step):
            done = _count(place, share)
            is_picture = _count(place + 1, share) > done
            pool = self._pictures if is_picture else self._videos
            number = before[0] + done if is_picture else before[1] + place - done
            batches.append(pool.batch(number))
        return StepPlan(step, self._with_slots(batches))

    def replacement(self, bucket: Bucket, row: int, attempt: int) -> int:
        """Give the row that stands in for one that cannot be read; the same on every machine.

        `attempt` counts from 1, for stand-ins that cannot be read either. UserError when all clips
        of the bucket have been tried.
        """
        rows = next(shelf.rows for shelf in self.shelves if shelf.bucket == bucket)
        if attempt >= len(rows):
            raise UserError(
                f"{bucket_name(bucket)}: none of its {len(rows)} clips can be read; "
                "run `contentv data check` on the data"
            )
        order = Permutation(len(rows), key(self.seed, self.stage, "replacement", row))
        others = (int(rows[order(i)]) for i in range(len(rows)))
        wanted = (other for other in others if other != row)
        return [next(wanted) for _ in range(attempt)][-1]

    @cached_property
    def hash(self) -> str:
        """Identity of all steps: 16 hex digits that change when any batch could."""
        digest = hashlib.blake2b(digest_size=8)
        head = (_VERSION, self.seed, self.stage, self.batches_per_step, self.content)
        phases = [phase.model_dump() for phase in self.phases]
        digest.update(repr((*head, self.weighting, phases)).encode())
        for shelf in self.shelves:
            digest.update(repr((shelf.bucket, shelf.batch, shelf.cost, len(shelf.rows))).encode())
            digest.update(np.asarray(shelf.rows, "<i8").tobytes())
        return digest.hexdigest()

    @cached_property
    def _pictures(self) -> Pool:
        return self._pool("pictures", [s for s in self.shelves if s.bucket.frames == 1])

    @cached_property
    def _videos(self) -> Pool:
        return self._pool("videos", [s for s in self.shelves if s.bucket.frames > 1])

    def _pool(self, name: str, shelves: list[Shelf]) -> Pool:
        return Pool(tuple(shelves), key(self.seed, self.stage, name))

    def _share(self, phase: MixPhase) -> Fraction:
        """Share of micro-batches that hold pictures, so that clips are in proportion."""
        pictures, videos = (
            Fraction(part * pool.num_batches, pool.num_samples) if part else Fraction()
            for part, pool in ((phase.pictures, self._pictures), (phase.videos, self._videos))
        )
        return pictures / (pictures + videos)

    def _find(self, step: int) -> tuple[MixPhase, int, tuple[int, int]]:
        """Phase of a step, the first micro-batch's place in it, and what came before the phase."""
        pictures, videos, within = 0, 0, step
        for phase in self.phases:
            if 0 <= within < phase.steps:
                return phase, within * self.batches_per_step, (pictures, videos)
            within -= phase.steps
            length = phase.steps * self.batches_per_step
            done = _count(length, self._share(phase))
            pictures, videos = pictures + done, videos + length - done
        raise IndexError(f"{self.stage}: step {step} is not one of the {self.steps}")

    def _with_slots(self, batches: list[tuple[Shelf, tuple[int, ...]]]) -> tuple[MicroBatch, ...]:
        starts = accumulate((len(rows) for _, rows in batches), initial=0)
        units = [self._unit(shelf.bucket) for shelf, _ in batches]
        total = sum(unit * len(rows) for unit, (_, rows) in zip(units, batches, strict=True))
        return tuple(
            MicroBatch(
                shelf.bucket,
                rows,
                tuple(range(start, start + len(rows))),
                unit / total,
                shelf.cost * len(rows),
            )
            for (shelf, rows), unit, start in zip(batches, units, starts, strict=False)
        )

    def _unit(self, bucket: Bucket) -> int:
        return tokens(bucket) if self.weighting == "token" else 1


def _count(places: int, share: Fraction) -> int:
    """Picture batches among the first `places`: spread evenly, never off by one or more."""
    return places * share.numerator // share.denominator
