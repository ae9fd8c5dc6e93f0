"""Batches of precomputed latents: which clips, noise and captions, as a function of the step."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from contentv.base.config import Config
from contentv.base.rng import numpy_generator, torch_generator
from contentv.data.batch import LatentBatch
from contentv.data.features import Features
from contentv.flow.timesteps import SigmaDensity, sample_sigmas


class LatentPhase(Config):
    """Part of a stage: `steps` batches of `clips` clips of `frames` latent frames.

    Every `long_every`-th batch reads long captions, of `long_clips` clips; 0 = never.
    """

    steps: int = Field(gt=0)
    clips: int = Field(gt=0)
    frames: int = Field(gt=0)
    density: SigmaDensity = SigmaDensity()
    long_every: int = Field(0, ge=0)
    long_clips: int = Field(1, gt=0)

    def is_long(self, step: int) -> bool:
        """Whether batch `step` of the phase reads long captions."""
        return self.long_every > 0 and step % self.long_every == self.long_every - 1

    def samples(self, steps: int) -> int:
        """Number of clips in the first `steps` batches together."""
        num_long = steps // self.long_every if self.long_every else 0
        return (steps - num_long) * self.clips + num_long * self.long_clips


@dataclass(frozen=True)
class LatentBatches:
    """Batch number `step` of a stage; each pass over the clips has its own order.

    `mean`, `std` [c] normalise raw latents; `caption_drop` is the share of empty captions, which
    teach the unconditional half of classifier-free guidance.
    """

    features: Features
    mean: Tensor
    std: Tensor
    seed: int
    stage: str
    phases: tuple[LatentPhase, ...]
    caption_drop: float = 0.1

    def __call__(self, step: int) -> LatentBatch:
        """Draw the batch of a step; all that is random is keyed by step and place in the batch."""
        phase, within, first = self._find(step)
        long = phase.is_long(within)
        picked = self._clips(first, phase.long_clips if long else phase.clips)
        draws = [self._draw(step, slot, phase) for slot in range(len(picked))]
        posterior, noise, sigma, chance = (torch.stack(row) for row in zip(*draws, strict=True))
        raw = self.features.sample(picked, posterior)
        latents = (raw - self.mean.view(1, -1, 1, 1, 1)) / self.std.view(1, -1, 1, 1, 1)
        texts = self.features.long if long else self.features.short
        captions = tuple(
            "" if drop else texts[index]
            for index, drop in zip(picked, chance < self.caption_drop, strict=True)
        )
        return LatentBatch(latents, noise, sigma, captions, tuple(str(i) for i in picked))

    def _find(self, step: int) -> tuple[LatentPhase, int, int]:
        """Phase of a step, the step's number in it, and how many clips came before."""
        before, within = 0, step
        for phase in self.phases:
            if within < phase.steps:
                return phase, within, before + phase.samples(within)
            within -= phase.steps
            before += phase.samples(phase.steps)
        raise IndexError(f"{self.stage}: step {step} is past the last phase")

    def _clips(self, first: int, count: int) -> list[int]:
        """Clips at `count` places from `first` on in the endless row of shuffled passes."""
        size = len(self.features)
        places = (divmod(place, size) for place in range(first, first + count))
        return [int(_order(self.seed, self.stage, epoch, size)[i]) for epoch, i in places]

    def _draw(self, step: int, slot: int, phase: LatentPhase) -> tuple[Tensor, ...]:
        """Posterior noise and path noise [c t h w], sigma and the caption's chance to stay []."""
        rng = torch_generator(self.seed, self.stage, step, slot)
        _, channels, _, *size = self.features.mean.shape
        shape = (channels, phase.frames, *size)
        posterior, noise = torch.randn(shape, generator=rng), torch.randn(shape, generator=rng)
        sigma = sample_sigmas(phase.density, 1, rng)[0]
        return posterior, noise, sigma, torch.rand((), generator=rng)


@lru_cache(maxsize=4)
def _order(seed: int, stage: str, epoch: int, size: int) -> NDArray[np.int64]:
    return numpy_generator(seed, stage, epoch, "order").permutation(size)
