"""Embeddings of captions by frozen text towers, each caption once."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from contentv.base.errors import UserError
from contentv.models.text import PromptEmbeds, TextTowers, embed, fitting_length, tokenize


class TowerEmbeds(NamedTuple):
    """What each tower makes of one caption, on the CPU, in the arithmetic of the towers.

    Sequences [n w] of the two CLIP towers and [m d] of T5; pooled vectors [p] of the former.
    """

    clip: Tensor
    clip_pooled: Tensor
    clip_2: Tensor
    clip_2_pooled: Tensor
    t5: Tensor


class CaptionEncoder:
    """Remembers the last `most` captions' embeddings in main memory (2.7 MB each for the 8B model).

    A caption is embedded alone, so its embedding does not depend on its neighbours; only T5's
    length, the shortest of `text_lengths` that fits a batch, does.
    """

    def __init__(
        self, towers: TextTowers, *, text_lengths: Sequence[int], most: int = 1024
    ) -> None:
        self._device = require_clip(towers)
        self._towers, self._lengths, self._most = towers, tuple(text_lengths), most
        self._known: OrderedDict[tuple[str, int], TowerEmbeds] = OrderedDict()

    def __call__(
        self, captions: Sequence[str], captions_2: Sequence[str], captions_3: Sequence[str]
    ) -> PromptEmbeds:
        """Embeddings [b n d] and [b p], on the towers' device; each tower reads its own captions.

        A tower that reads the empty caption gives its embedding of that.
        """
        length = fitting_length(self._towers, captions_3, self._lengths)
        rows = []
        for texts in zip(captions, captions_2, captions_3, strict=True):
            first, second, third = (self._embed(text, length) for text in texts)
            rows.append(join_towers(TowerEmbeds(*first[:2], *second[2:4], third.t5)))
        return stack_rows(rows, self._device)

    def _embed(self, caption: str, length: int) -> TowerEmbeds:
        key = caption, length
        if key not in self._known:
            self._known[key] = embed_caption(self._towers, caption, length)
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]


def require_clip(towers: TextTowers) -> torch.device:
    """Give the towers' device; UserError when there are no CLIP towers."""
    if towers.tokenizer is None or towers.text_encoder is None or towers.text_encoder_2 is None:
        raise UserError("the model has no CLIP text encoder; take one that reads prompts")
    device: torch.device = towers.text_encoder.device
    return device


@torch.no_grad()
def embed_caption(towers: TextTowers, caption: str, length: int) -> TowerEmbeds:
    """Embed one caption, of which T5 reads `length` tokens."""
    device = require_clip(towers)
    tokens = tokenize(towers, [caption], max_length_3=length)
    with torch.autocast(device.type, enabled=False):
        found = embed(towers, tokens.to(device))
    sequence, pooled = found.sequence[0].cpu(), found.pooled[0].cpu()
    assert towers.text_encoder is not None
    assert towers.text_encoder_2 is not None
    first, second = towers.text_encoder.config, towers.text_encoder_2.config
    rows, width = len(sequence) - length, first.hidden_size
    return TowerEmbeds(
        sequence[:rows, :width],
        pooled[: first.projection_dim],
        sequence[:rows, width : width + second.hidden_size],
        pooled[first.projection_dim :],
        sequence[rows:],
    )


def fitting_lengths(towers: TextTowers, caption: str, lengths: Sequence[int]) -> tuple[int, ...]:
    """Those of T5's lengths at which a caption can stand in a batch, shortest first."""
    shortest = fitting_length(towers, [caption], lengths)
    return tuple(length for length in sorted(lengths) if length >= shortest)


def join_towers(parts: TowerEmbeds) -> PromptEmbeds:
    """Embeddings [n d] and [p] as `embed` gives them; the parts may be of different captions."""
    rows, width = parts.clip.shape
    clip = parts.t5.new_zeros(rows, parts.t5.shape[1])
    clip[:, :width] = parts.clip
    clip[:, width : width + parts.clip_2.shape[1]] = parts.clip_2
    pooled = torch.cat([parts.clip_pooled, parts.clip_2_pooled])
    return PromptEmbeds(torch.cat([clip, parts.t5]), pooled)


def stack_rows(rows: Sequence[PromptEmbeds], device: torch.device) -> PromptEmbeds:
    """Embeddings [b n d] and [b p] of a batch, on `device`."""
    return PromptEmbeds(*(torch.stack(part).to(device) for part in zip(*rows, strict=True)))
