"""From the plan of a step to its batches: which latents, noise, sigma and captions.

All that is random is keyed by (seed, stage, step, slot), so that a step's batches depend neither on
the steps before it nor on how many groups share it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple, Protocol

import torch
from pydantic import Field
from torch import Tensor

from contentv.base.config import Config
from contentv.base.rng import torch_generator
from contentv.data.batch import FeatureBatch
from contentv.data.buckets import Bucket, Buckets, Fit
from contentv.data.manifest import Clip
from contentv.data.plan import Draw, MicroBatch, Plan, draw
from contentv.data.source import StepFeatures
from contentv.data.standins import Record, StandIn, UnreadableClipError
from contentv.flow.timesteps import SigmaDensity, sample_sigmas


class SamplingConfig(Config):
    """What is drawn for a sample.

    A clip longer than its bucket is seen in `windows` parts, spread evenly over it. `long_captions`
    is the share of long captions where a clip has both, `caption_drop` how often each text encoder
    reads nothing instead, which teaches the unconditional half of guidance.
    """

    windows: int = Field(1, ge=1, le=1000)
    long_captions: float = Field(0.5, ge=0, le=1)
    caption_drop: float = Field(0.1, ge=0, le=1)
    density: SigmaDensity = SigmaDensity()


class ClipLatents(Protocol):
    """Encodes clips, or remembers them."""

    def __call__(self, clip: Clip, fit: Fit, start: float, generator: torch.Generator) -> Tensor:
        """Normalised latents [c t h w] on the CPU; `start` in 0..1 chooses the first frame.

        `generator` draws from the posterior. UnreadableClipError when the file is damaged.
        """
        ...


class CaptionEmbeds(Protocol):
    """Embeds captions, or looks them up."""

    def __call__(
        self, captions: Sequence[str], captions_2: Sequence[str], captions_3: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Embeddings [b n d] and [b p]; each text encoder reads captions of its own.

        A dropped caption is the empty string. A sample's embeddings depend on the other samples of
        the call by their length n at most.
        """
        ...


@dataclass(frozen=True)
class PlannedBatches:
    """The source that encodes: batches of a step for one data-parallel group of `groups`.

    `clips` are those whose rows the plan names. The loss weighs each sample the same, so the plan
    must be weighted by samples. A clip that cannot be read is tried once a process.
    """

    plan: Plan
    clips: Sequence[Clip]
    buckets: Buckets
    latents: ClipLatents
    embed: CaptionEmbeds
    sampling: SamplingConfig
    record: Record
    group: int = 0
    groups: int = 1
    _unreadable: dict[int, str] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        assert self.plan.weighting == "sample"

    def __call__(self, step: int) -> StepFeatures:
        """Draw what this group computes in a step, in the order of computing.

        UserError when no clip of a bucket can be read.
        """
        planned = self.plan(step)
        hand = planned.deal(self.group, self.groups)
        return StepFeatures(tuple(self.batch(step, micro) for micro in hand), planned.num_samples)

    def batch(self, step: int, micro: MicroBatch) -> FeatureBatch:
        """Draw one of the micro-batches that the plan has for a step."""
        places = zip(micro.rows, micro.slots, strict=True)
        samples = [self._sample(step, micro.bucket, row, slot) for row, slot in places]
        sequence, pooled = self.embed(*zip(*(s.captions for s in samples), strict=True))
        return FeatureBatch(
            latents=torch.stack([s.latents for s in samples]),
            noise=torch.stack([s.noise for s in samples]),
            sigma=torch.stack([s.sigma for s in samples]),
            sequence=sequence,
            pooled=pooled,
            keys=tuple(s.key for s in samples),
        )

    def _sample(self, step: int, bucket: Bucket, row: int, slot: int) -> "_Sample":
        seed, stage = self.plan.seed, self.plan.stage
        chosen = draw(seed, stage, step, slot)
        windows = self.sampling.windows
        start = (int(chosen.start * windows) + 0.5) / windows
        posterior, noise, sigma = (
            torch_generator(seed, stage, step, slot, name)
            for name in ("posterior", "noise", "sigma")
        )
        clip, latents = self._readable(bucket, row, start, posterior)
        return _Sample(
            latents=latents,
            noise=torch.randn(latents.shape, generator=noise),
            sigma=sample_sigmas(self.sampling.density, 1, sigma)[0],
            captions=self._captions(clip, chosen),
            key=clip.id,
        )

    def _readable(
        self, bucket: Bucket, row: int, start: float, posterior: torch.Generator
    ) -> tuple[Clip, Tensor]:
        """The clip of a row and its latents, or of the first stand-in that can be read."""
        now = row
        for attempt in count(1):
            clip = self.clips[now]
            fit = self.buckets.fit(clip.size)
            assert isinstance(fit, Fit)
            if now not in self._unreadable:
                try:
                    return clip, self.latents(clip, fit, start, posterior)
                except UnreadableClipError as error:
                    self._unreadable[now] = str(error)
            reason = self._unreadable[now]
            now = self.plan.replacement(bucket, row, attempt)
            self.record(StandIn(clip.id, reason, self.clips[now].id))
        raise AssertionError("the plan ends the search")

    def _captions(self, clip: Clip, chosen: Draw) -> tuple[str, str, str]:
        wants_long = chosen.caption < self.sampling.long_captions
        first, second = (clip.long, clip.short) if wants_long else (clip.short, clip.long)
        text = first or second
        one, two, three = (
            "" if chance < self.sampling.caption_drop else text for chance in chosen.dropped
        )
        return one, two, three


class _Sample(NamedTuple):
    latents: Tensor
    noise: Tensor
    sigma: Tensor
    captions: tuple[str, str, str]
    key: str
