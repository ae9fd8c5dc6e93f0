"""Prompts to the two texts the transformer reads: a token sequence and one pooled vector.

SD3's recipe: CLIP-L and CLIP-G side by side, padded with zeros to T5's width, then T5's tokens.
T5 runs without a mask, padding included. Nothing here switches gradients off: training the text
towers and generating with them is the same code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    CLIPTextModelWithProjection,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5EncoderModel,
)

from contentv.base.errors import UserError


@dataclass(frozen=True)
class TextTowers:
    """The three tokenizers and encoders, under SD3's names.

    T5 and its tokenizer may be None: its tokens are then zeros of width `sequence_width`
    (the transformer's `joint_attention_dim`).
    """

    tokenizer: PreTrainedTokenizerBase | None
    tokenizer_2: PreTrainedTokenizerBase | None
    tokenizer_3: PreTrainedTokenizerBase | None
    text_encoder: CLIPTextModelWithProjection | None
    text_encoder_2: CLIPTextModelWithProjection | None
    text_encoder_3: T5EncoderModel | None
    sequence_width: int | None = None

    @property
    def encoders(self) -> dict[str, PreTrainedModel]:
        """The encoders that are there, by name."""
        names = ("text_encoder", "text_encoder_2", "text_encoder_3")
        found = {name: getattr(self, name) for name in names}
        return {name: encoder for name, encoder in found.items() if encoder is not None}


class TextTokens(NamedTuple):
    """Token ids per tower, each [b n], padded to the tower's length."""

    ids_1: Tensor
    ids_2: Tensor
    ids_3: Tensor

    def to(self, device: torch.device) -> "TextTokens":
        """The same ids on `device`."""
        return TextTokens(*(ids.to(device) for ids in self))


class PromptEmbeds(NamedTuple):
    """What the transformer reads: `sequence` [b n d] and `pooled` [b p]."""

    sequence: Tensor
    pooled: Tensor


def tokenize(
    towers: TextTowers,
    prompts: Sequence[str],
    prompts_2: Sequence[str] | None = None,
    prompts_3: Sequence[str] | None = None,
    *,
    max_length_3: int,
) -> TextTokens:
    """Ids of each tower; a tower without prompts of its own reads `prompts`.

    CLIP's length is its tokenizer's `model_max_length`, T5's is `max_length_3`; longer text is cut.
    """
    if towers.tokenizer is None or towers.tokenizer_2 is None:
        raise UserError(
            "prompts given, but the CLIP tokenizers are not loaded; load them or pass prompt_embeds"
        )
    length = towers.tokenizer.model_max_length
    if towers.tokenizer_3 is None:
        ids_3 = torch.zeros(len(prompts), max_length_3, dtype=torch.long)
    else:
        ids_3 = _ids(towers.tokenizer_3, prompts_3 or prompts, max_length_3)
    return TextTokens(
        _ids(towers.tokenizer, prompts, length),
        _ids(towers.tokenizer_2, prompts_2 or prompts, length),
        ids_3,
    )


def embed(towers: TextTowers, tokens: TextTokens, *, clip_skip: int | None = None) -> PromptEmbeds:
    """Sequence and pooled embeddings of tokens, on the device and in the dtype of the encoders.

    `clip_skip` counts CLIP layers left out beyond the last, which is never used.
    """
    if towers.text_encoder is None or towers.text_encoder_2 is None:
        raise UserError(
            "prompts given, but the text encoders are not loaded; load them or pass prompt_embeds"
        )
    layer = -2 - (clip_skip or 0)
    clip_1 = towers.text_encoder(tokens.ids_1, output_hidden_states=True)
    clip_2 = towers.text_encoder_2(tokens.ids_2, output_hidden_states=True)
    clip = torch.cat([clip_1.hidden_states[layer], clip_2.hidden_states[layer]], dim=-1)
    t5 = _t5_tokens(towers, tokens.ids_3, like=clip)
    if clip.shape[-1] > t5.shape[-1]:
        raise UserError(
            f"CLIP towers of {clip.shape[-1]} channels together: at most T5's {t5.shape[-1]} fit"
        )
    clip = F.pad(clip, (0, t5.shape[-1] - clip.shape[-1]))
    pooled = torch.cat([clip_1.text_embeds, clip_2.text_embeds], dim=-1)
    return PromptEmbeds(torch.cat([clip, t5], dim=1), pooled)


def fitting_length(towers: TextTowers, prompts: Sequence[str], lengths: Sequence[int]) -> int:
    """The smallest of `lengths` at which T5 reads every prompt uncut, else the largest."""
    if towers.tokenizer_3 is None:
        return min(lengths)
    longest = max(len(ids) for ids in towers.tokenizer_3(list(prompts), verbose=False).input_ids)
    return min((length for length in lengths if length >= longest), default=max(lengths))


def _t5_tokens(towers: TextTowers, ids: Tensor, *, like: Tensor) -> Tensor:
    if towers.text_encoder_3 is not None:
        hidden: Tensor = towers.text_encoder_3(ids)[0]
        return hidden
    if towers.sequence_width is None:
        raise UserError("no T5 encoder: sequence_width must say how wide its tokens would be")
    return like.new_zeros(*ids.shape, towers.sequence_width)


def _ids(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], length: int) -> Tensor:
    ids: Tensor = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return ids
