"""Batches of precomputed latents: which clips, which noise, which captions, as a function of the step."""

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
        """Draw the batch of a step."""
        phase, within = self._phase(step)
        long = phase.long_every > 0 and within % phase.long_every == phase.long_every - 1
        picked = self._picked(step, phase.long_clips if long else phase.clips)
        rng = torch_generator(self.seed, self.stage, step, "noise")
        shape = (len(picked), self.features.mean.shape[1], phase.frames, *self.features.mean.shape[3:])
        raw = self.features.sample(picked, torch.randn(shape, generator=rng))
        latents = (raw - self.mean.view(1, -1, 1, 1, 1)) / self.std.view(1, -1, 1, 1, 1)
        noise = torch.randn(shape, generator=rng)
        sigma = sample_sigmas(phase.density, len(picked), rng)
        dropped = torch.rand(len(picked), generator=rng) < self.caption_drop
        texts = self.features.long if long else self.features.short
        captions = tuple("" if drop else texts[i] for i, drop in zip(picked, dropped, strict=True))
        return LatentBatch(latents, noise, sigma, captions, tuple(str(i) for i in picked))

    def _phase(self, step: int) -> tuple[LatentPhase, int]:
        for phase in self.phases:
            if step < phase.steps:
                return phase, step
            step -= phase.steps
        raise IndexError(f"{self.stage}: step is {step} past the last phase")

    def _picked(self, step: int, count: int) -> list[int]:
        """Clips of a step: a window into the endless row of shuffled passes."""
        size = len(self.features)
        widest = max(max(phase.clips, phase.long_clips) for phase in self.phases)
        places = range(step * widest, step * widest + count)
        return [int(_order(self.seed, self.stage, place // size, size)[place % size]) for place in places]


@lru_cache(maxsize=4)
def _order(seed: int, stage: str, epoch: int, size: int) -> NDArray[np.int64]:
    return numpy_generator(seed, stage, epoch, "order").permutation(size)
