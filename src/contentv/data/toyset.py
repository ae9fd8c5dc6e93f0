"""Batches of freshly rendered toy clips: an endless data set that needs no disk."""

from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field

from contentv.base.config import Config
from contentv.base.rng import numpy_generator, torch_generator
from contentv.data.batch import VideoBatch, video_tensor
from contentv.toyworld.render import render_at
from contentv.toyworld.scene import sample_scene
from contentv.video.shapes import ScaleFactors, VideoShape

CLIP_FRAMES = 17


class ClipPhase(Config):
    """Part of a stage: for `steps` steps, batches cycle through `shapes` of (frames, clips).

    Every `held_out_every`-th clip has a pair of colour and shape that no caption of training names
    (0: none). A decoder should draw every clip of the world; what held-out pairs measure is whether
    transformer and text compose them.
    """

    steps: int = Field(gt=0)
    shapes: tuple[tuple[int, int], ...]
    held_out_every: int = Field(0, ge=0)


@dataclass(frozen=True)
class ToyVideoBatches:
    """Batch number `step` of a stage, rendered on demand; the same for equal keys."""

    seed: int
    stage: str
    phases: tuple[ClipPhase, ...]
    latent_channels: int = 16
    size: int = 64

    @property
    def steps(self) -> int:
        """Length of all phases together."""
        return sum(phase.steps for phase in self.phases)

    def __call__(self, step: int) -> VideoBatch:
        """Render the batch of a step: frames in a row from random points of random clips."""
        phase, (frames, count) = self._find(step)
        clips = [self._clip(step, slot, frames, phase.held_out_every) for slot in range(count)]
        latent = ScaleFactors().latent(VideoShape(frames, self.size, self.size))
        noise = torch.randn(
            (count, self.latent_channels, latent.frames, latent.height, latent.width),
            generator=torch_generator(self.seed, self.stage, step, "posterior"),
        )
        keys = tuple(f"{self.stage}/{step}/{slot}" for slot in range(count))
        return VideoBatch(video_tensor(np.stack(clips)), noise, keys)

    def _find(self, step: int) -> tuple[ClipPhase, tuple[int, int]]:
        for phase in self.phases:
            if step < phase.steps:
                return phase, phase.shapes[step % len(phase.shapes)]
            step -= phase.steps
        raise IndexError(f"{self.stage}: step is {step} past the last phase")

    def _clip(self, step: int, slot: int, frames: int, held_out_every: int) -> np.ndarray:
        rng = numpy_generator(self.seed, self.stage, step, slot)
        held_out = held_out_every > 0 and (step + slot) % held_out_every == 0
        scene = sample_scene(rng, split="held_out" if held_out else "train")
        first = rng.integers(CLIP_FRAMES - frames + 1)
        times = np.linspace(0, 1, CLIP_FRAMES, dtype=np.float32)[first : first + frames]
        return render_at(scene, times, size=self.size)
