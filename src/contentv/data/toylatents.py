"""Batches of toy clips' latents: which clips, captions and noise, as a function of the step."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

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
from contentv.toyworld.captions import caption
from contentv.toyworld.dataset import scene_at

Captions: TypeAlias = Callable[[int, bool, np.random.Generator], str]
"""A caption of clip number int, long or short, in words that the generator chooses."""


class LatentPhase(Config):
    """Part of a stage: `steps` batches of `clips` clips of `frames` latent frames.

    Every `long_every`-th batch reads long captions, of `long_clips` clips; every
    `pictures_every`-th other one is of first frames, `pictures` of them; 0 = never.
    """

    steps: int = Field(gt=0)
    clips: int = Field(gt=0)
    frames: int = Field(gt=0)
    density: SigmaDensity = SigmaDensity()
    long_every: int = Field(0, ge=0)
    long_clips: int = Field(1, gt=0)
    pictures_every: int = Field(0, ge=0)
    pictures: int = Field(1, gt=0)

    def is_long(self, step: int) -> bool:
        """Whether batch `step` of the phase reads long captions."""
        return _is_turn(step, self.long_every)

    def is_picture(self, step: int) -> bool:
        """Whether batch `step` of the phase is of single frames."""
        return not self.is_long(step) and _is_turn(step, self.pictures_every)

    def size(self, step: int) -> int:
        """Samples in batch `step` of the phase."""
        if self.is_long(step):
            return self.long_clips
        return self.pictures if self.is_picture(step) else self.clips

    def samples(self, steps: int) -> int:
        """Samples in the first `steps` batches together."""
        return sum(map(self.size, range(steps)))


@dataclass(frozen=True)
class ToyCaptions:
    """Captions of the training scenes of row `seed`, worded anew each time."""

    seed: int

    def __call__(self, index: int, long: bool, rng: np.random.Generator) -> str:
        """Describe scene `index`."""
        return caption(scene_at(self.seed, index).facts, rng, long=long).text


@dataclass(frozen=True)
class LatentBatches:
    """Batch number `step` of a stage; each pass over the clips has its own order.

    `mean`, `std` [c] normalise raw latents; `caption_drop` is the share of empty captions, which
    teach the unconditional half of classifier-free guidance.
    """

    features: Features
    captions: Captions
    mean: Tensor
    std: Tensor
    seed: int
    stage: str
    phases: tuple[LatentPhase, ...]
    caption_drop: float = 0.1

    def __call__(self, step: int) -> LatentBatch:
        """Draw the batch of a step; all that is random is keyed by step and place in the batch."""
        phase, within, first = self._find(step)
        picked = self._clips(first, phase.size(within))
        frames = 1 if phase.is_picture(within) else phase.frames
        draws = [self._draw(step, slot, frames, phase.density) for slot in range(len(picked))]
        posterior, noise, sigma, chance = (torch.stack(row) for row in zip(*draws, strict=True))
        raw = self.features.sample(picked, posterior)
        latents = (raw - self.mean.view(1, -1, 1, 1, 1)) / self.std.view(1, -1, 1, 1, 1)
        texts = (
            self.captions(index, phase.is_long(within), self._words(step, slot))
            for slot, index in enumerate(picked)
        )
        captions = tuple(
            "" if drop else text
            for text, drop in zip(texts, chance < self.caption_drop, strict=True)
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

    def _draw(self, step: int, slot: int, frames: int, density: SigmaDensity) -> tuple[Tensor, ...]:
        """Posterior noise and path noise [c t h w], sigma and the caption's chance to stay []."""
        rng = torch_generator(self.seed, self.stage, step, slot)
        _, channels, _, *size = self.features.mean.shape
        shape = (channels, frames, *size)
        posterior, noise = torch.randn(shape, generator=rng), torch.randn(shape, generator=rng)
        sigma = sample_sigmas(density, 1, rng)[0]
        return posterior, noise, sigma, torch.rand((), generator=rng)

    def _words(self, step: int, slot: int) -> np.random.Generator:
        return numpy_generator(self.seed, self.stage, step, slot, "words")


def _is_turn(step: int, every: int) -> bool:
    return every > 0 and step % every == every - 1


@lru_cache(maxsize=4)
def _order(seed: int, stage: str, epoch: int, size: int) -> NDArray[np.int64]:
    return numpy_generator(seed, stage, epoch, "order").permutation(size)
