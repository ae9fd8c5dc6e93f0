"""Embeddings of captions by frozen text towers, each caption once."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from contentv.base.errors import UserError
from contentv.models.text import PromptEmbeds, TextTowers, embed, fitting_length, tokenize


class CaptionEncoder:
    """Remembers the last `most` captions' embeddings in main memory (2.7 MB each for the 8B model).

    A caption is embedded alone, so its embedding does not depend on its neighbours; only T5's
    length, the shortest of `text_lengths` that fits a batch, does.
    """

    def __init__(
        self, towers: TextTowers, *, text_lengths: Sequence[int], most: int = 1024
    ) -> None:
        if towers.tokenizer is None or towers.text_encoder is None:
            raise UserError("the model has no CLIP text encoder; fine-tune one that reads prompts")
        self._towers, self._lengths, self._most = towers, tuple(text_lengths), most
        self._device = towers.text_encoder.device
        self._known: OrderedDict[tuple[str, int], PromptEmbeds] = OrderedDict()
        # Where the towers' parts lie in what `embed` joins.
        self._tokens: int = towers.tokenizer.model_max_length
        self._width: int = towers.text_encoder.config.hidden_size
        self._pooled: int = towers.text_encoder.config.projection_dim

    @torch.no_grad()
    def __call__(
        self, captions: Sequence[str], captions_2: Sequence[str], captions_3: Sequence[str]
    ) -> PromptEmbeds:
        """Embeddings [b n d] and [b p], on the towers' device; each tower reads its own captions.

        A tower that reads the empty caption gives its embedding of that.
        """
        length = fitting_length(self._towers, captions_3, self._lengths)
        rows = [
            self._join(*(self._embed(text, length) for text in texts))
            for texts in zip(captions, captions_2, captions_3, strict=True)
        ]
        sequence, pooled = (torch.stack(part).to(self._device) for part in zip(*rows, strict=True))
        return PromptEmbeds(sequence, pooled)

    def _embed(self, caption: str, length: int) -> PromptEmbeds:
        """Embeddings [n d] and [p] on the CPU, in the arithmetic of the towers."""
        key = caption, length
        if key not in self._known:
            tokens = tokenize(self._towers, [caption], max_length_3=length)
            with torch.autocast(self._device.type, enabled=False):
                found = embed(self._towers, tokens.to(self._device))
            self._known[key] = PromptEmbeds(found.sequence[0].cpu(), found.pooled[0].cpu())
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def _join(
        self, first: PromptEmbeds, second: PromptEmbeds, third: PromptEmbeds
    ) -> tuple[Tensor, Tensor]:
        """The first tower's part of `first`, the second's of `second`, T5's of `third`."""
        sequence = third.sequence.clone()
        sequence[: self._tokens] = second.sequence[: self._tokens]
        sequence[: self._tokens, : self._width] = first.sequence[: self._tokens, : self._width]
        return sequence, torch.cat([first.pooled[: self._pooled], second.pooled[self._pooled :]])
