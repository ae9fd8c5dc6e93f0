"""Embeddings of captions by frozen text towers, each caption once."""

from collections import OrderedDict
from collections.abc import Sequence

import torch

from contentv.encoding.encoder import FeatureEncoder, TowerEmbeds
from contentv.models.text import PromptEmbeds, fitting_length


class CaptionEncoder:
    """Remembers the last `most` captions' embeddings in main memory (2.7 MB each for the 8B model).

    A caption is embedded alone, so its embedding does not depend on its neighbours; only T5's
    length, the shortest of `text_lengths` that fits a batch, does.
    """

    def __init__(
        self, encoder: FeatureEncoder, *, text_lengths: Sequence[int], most: int = 1024
    ) -> None:
        self._device = encoder.text_device
        self._encoder, self._lengths, self._most = encoder, tuple(text_lengths), most
        self._known: OrderedDict[tuple[str, int], TowerEmbeds] = OrderedDict()

    def __call__(
        self, captions: Sequence[str], captions_2: Sequence[str], captions_3: Sequence[str]
    ) -> PromptEmbeds:
        """Embeddings [b n d] and [b p], on the towers' device; each tower reads its own captions.

        A tower that reads the empty caption gives its embedding of that.
        """
        length = fitting_length(self._encoder.text_towers, captions_3, self._lengths)
        rows = []
        for texts in zip(captions, captions_2, captions_3, strict=True):
            first, second, third = (self._embed(text, length) for text in texts)
            rows.append(join_towers(TowerEmbeds(*first[:2], *second[2:4], third.t5)))
        return stack_rows(rows, self._device)

    def _embed(self, caption: str, length: int) -> TowerEmbeds:
        key = caption, length
        if key not in self._known:
            self._known[key] = self._encoder.caption(caption, length)
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]


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
