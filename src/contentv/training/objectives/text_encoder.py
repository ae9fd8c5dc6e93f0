"""Read captions: what a text encoder gives must tell the facts that its caption states."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contentv.data.toycaptions import CaptionBatch
from contentv.models.text import TextTowers, embed, fitting_length, tokenize


class TextEncoderObjective:
    """Cross-entropy of the facts, read from T5's tokens and from CLIP's two pooled vectors.

    The readers are small and thrown away afterwards: one question a fact that attends to T5's
    tokens, one matrix for the pooled vectors. `num_values` holds for each fact how many values it
    has; one more stands for "not said". CLIP sees the beginning of a long caption only, so it is
    asked about short ones alone.
    """

    def __init__(
        self, towers: TextTowers, *, num_values: Sequence[int], text_lengths: tuple[int, ...]
    ) -> None:
        self.towers, self.text_lengths = towers, text_lengths
        self._sizes = [number + 1 for number in num_values]
        clip, clip_2, t5 = (encoder.config for encoder in towers.encoders.values())
        pooled = clip.projection_dim + clip_2.projection_dim
        self.readers = nn.ModuleDict(
            {
                "tokens": _TokenReader(t5.d_model, self._sizes),
                "pooled": nn.Linear(pooled, sum(self._sizes)),
            }
        )
        self.networks = nn.ModuleDict({**towers.encoders, "readers": self.readers})

    def losses(self, batch: CaptionBatch) -> dict[str, Tensor]:
        """Per caption [b]: the loss, and the share of facts that are read right."""
        length = fitting_length(self.towers, batch.captions, self.text_lengths)
        tokens = tokenize(self.towers, batch.captions, max_length_3=length)
        text = embed(self.towers, tokens.to(batch.facts.device))
        tokens_of_t5 = text.sequence[:, -length:]
        read = self.readers["tokens"](tokens_of_t5).float().split(self._sizes, dim=1)
        loss = self._misread(read, batch.facts)
        if length == min(self.text_lengths):
            pooled = self.readers["pooled"](text.pooled).float().split(self._sizes, dim=1)
            loss = loss + self._misread(pooled, batch.facts)
        guesses = torch.stack([logits.argmax(1) for logits in read], dim=1)
        return {"loss": loss, "right": (guesses == batch.facts).float().mean(1)}

    def _misread(self, read: Sequence[Tensor], facts: Tensor) -> Tensor:
        rows = [
            F.cross_entropy(logits, facts[:, place], reduction="none")
            for place, logits in enumerate(read)
        ]
        return torch.stack(rows).mean(0)


class _TokenReader(nn.Module):
    """One question a fact attends to tokens [b n d]; gives logits of all facts in a row [b v]."""

    def __init__(self, width: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.questions = nn.Parameter(torch.randn(len(sizes), width))
        self.attention = nn.MultiheadAttention(width, num_heads=4, batch_first=True)
        self.answers = nn.ModuleList(nn.Linear(width, size) for size in sizes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [b v]."""
        questions = self.questions.expand(len(tokens), -1, -1)
        found = self.attention(questions, tokens, tokens, need_weights=False)[0]
        return torch.cat([answer(found[:, k]) for k, answer in enumerate(self.answers)], dim=1)
