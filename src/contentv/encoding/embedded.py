"""Toy clips' batches with their captions read by text towers that do not learn."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from contentv.data.batch import FeatureBatch, LatentBatch
from contentv.models.text import TextTowers, embed, fitting_length, tokenize


@dataclass(frozen=True)
class EmbeddedBatches:
    """Batch number `step`, embedded on the CPU in float32; `towers` must be there."""

    batches: Callable[[int], LatentBatch]
    towers: TextTowers
    text_lengths: tuple[int, ...]

    @torch.no_grad()
    def __call__(self, step: int) -> FeatureBatch:
        """Draw the batch of a step and embed its captions, all at once."""
        batch = self.batches(step)
        length = fitting_length(self.towers, batch.captions, self.text_lengths)
        text = embed(self.towers, tokenize(self.towers, batch.captions, max_length_3=length))
        return FeatureBatch(
            batch.latents, batch.noise, batch.sigma, text.sequence, text.pooled, batch.keys
        )
