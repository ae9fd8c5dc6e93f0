"""Toy clips' batches with their captions read by text towers that do not learn."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from contentv.data.batch import FeatureBatch, LatentBatch
from contentv.models.text import TextTowers, embed, fitting_length, tokenize


@dataclass(frozen=True)
class EmbeddedBatches:
    """Batch number `step`, embedded in float32 on the device of `towers`, which are all there."""

    batches: Callable[[int], LatentBatch]
    towers: TextTowers
    text_lengths: tuple[int, ...]

    @torch.no_grad()
    def __call__(self, step: int) -> FeatureBatch:
        """Draw the batch of a step and embed its captions, all at once."""
        batch = self.batches(step)
        length = fitting_length(self.towers, batch.captions, self.text_lengths)
        assert self.towers.text_encoder is not None
        tokens = tokenize(self.towers, batch.captions, max_length_3=length)
        text = embed(self.towers, tokens.to(self.towers.text_encoder.device))
        return FeatureBatch(
            batch.latents, batch.noise, batch.sigma, text.sequence, text.pooled, batch.keys
        )
