"""Prompts to embeddings inside the pipeline: each prompt once, for as long as the encoders stay."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from diffusers.utils import USE_PEFT_BACKEND, scale_lora_layers, unscale_lora_layers
from torch import Tensor, nn

from contentv.base.errors import UserError
from contentv.base.log import get_logger
from contentv.models.text import PromptEmbeds, TextTowers, embed, fitting_length, tokenize
from contentv.pipelines.checks import Prompt, check_prompt, check_sequence_length

logger = get_logger(__name__)

_CACHED_PROMPTS = 64


class Texts(NamedTuple):
    """One prompt as the three towers read it."""

    clip: str
    clip_2: str
    t5: str


class _Key(NamedTuple):
    texts: Texts
    length: int
    clip_skip: int | None
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class PromptRequest:
    """The text side of a call, under the names of the pipeline's arguments."""

    prompt: Prompt | None
    prompt_2: Prompt | None
    prompt_3: Prompt | None
    negative_prompt: Prompt | None
    negative_prompt_2: Prompt | None
    negative_prompt_3: Prompt | None
    prompt_embeds: Tensor | None
    negative_prompt_embeds: Tensor | None
    pooled_prompt_embeds: Tensor | None
    negative_pooled_prompt_embeds: Tensor | None
    guided: bool
    clip_skip: int | None
    max_sequence_length: int | None
    lora_scale: float | None

    def check(self) -> None:
        """UserError on texts that cannot be read."""
        check_prompt("prompt", self.prompt, may_be_empty=False)
        for name in ("prompt_2", "prompt_3"):
            check_prompt(name, getattr(self, name), may_be_empty=True)
        for name in ("negative_prompt", "negative_prompt_2", "negative_prompt_3"):
            check_prompt(name, getattr(self, name), may_be_empty=True)
        check_sequence_length(self.max_sequence_length)

    def given(self) -> tuple[PromptEmbeds | None, PromptEmbeds | None]:
        """Embeddings passed in place of prompts and of negative prompts.

        Raises:
            UserError: text and embeddings, or neither for the prompt; shapes that differ.
        """
        embeds = _pair(self.prompt_embeds, self.pooled_prompt_embeds, "prompt_embeds")
        if (embeds is None) == (self.prompt is None):
            raise UserError("give either prompt, or prompt_embeds and pooled_prompt_embeds")
        negative = _pair(
            self.negative_prompt_embeds,
            self.negative_pooled_prompt_embeds,
            "negative_prompt_embeds",
        )
        if negative is not None and self.negative_prompt is not None:
            raise UserError("negative_prompt and negative_prompt_embeds: give only one of the two")
        if embeds and negative and embeds.sequence.shape != negative.sequence.shape:
            raise UserError(
                f"negative_prompt_embeds {tuple(negative.sequence.shape)}: must have the shape of "
                f"prompt_embeds {tuple(embeds.sequence.shape)}"
            )
        return embeds, negative

    def texts(self) -> list[Texts]:
        """The prompts; a tower without text of its own reads the first."""
        if self.prompt is None:
            return []
        first = _as_list(self.prompt)
        return _zip_texts(first, self.prompt_2 or first, self.prompt_3 or first)

    def negative_texts(self, batch_size: int) -> list[Texts]:
        """As many negative prompts; one text stands for all, none is the empty text."""
        first = self.negative_prompt or ""
        columns = (first, self.negative_prompt_2 or first, self.negative_prompt_3 or first)
        texts = _zip_texts(*([c] * batch_size if isinstance(c, str) else c for c in columns))
        if len(texts) != batch_size:
            raise UserError(
                f"{len(texts)} negative prompts for {batch_size} prompts: give one, or one for each"
            )
        return texts


class PromptCache:
    """Embeddings of the prompts used last. They go when an encoder is changed or replaced."""

    def __init__(self) -> None:
        self._embeds: OrderedDict[_Key, PromptEmbeds] = OrderedDict()
        self._encoders: object = None

    def clear(self) -> None:
        """Forgets all prompts."""
        self._embeds.clear()

    @torch.no_grad()
    def embed(
        self,
        towers: TextTowers,
        prompts: Sequence[Texts],
        *,
        length: int,
        clip_skip: int | None,
        device: torch.device,
    ) -> PromptEmbeds:
        """Embeddings [b n d], [b p] of prompts, on `device`.

        Each prompt is encoded by itself, so that its embeddings, and with them the video, do not
        depend on its neighbours in a batch.
        """
        self._forget_if_changed(towers)
        rows = []
        for texts in prompts:
            key = _Key(texts, length, clip_skip, device)
            if key not in self._embeds:
                tokens = tokenize(
                    towers, [texts.clip], [texts.clip_2], [texts.t5], max_length_3=length
                )
                embeds = embed(towers, tokens.to(device), clip_skip=clip_skip)
                self._embeds[key] = PromptEmbeds(*(tensor.to(device) for tensor in embeds))
            self._embeds.move_to_end(key)
            rows.append(self._embeds[key])
        while len(self._embeds) > _CACHED_PROMPTS:
            self._embeds.popitem(last=False)
        return PromptEmbeds(*(torch.cat(tensors) for tensors in zip(*rows, strict=True)))

    def _forget_if_changed(self, towers: TextTowers) -> None:
        encoders = [m for m in _encoders(towers) if m is not None]
        # An adapter's strength can change without a trace in the weights.
        adapted = any(hasattr(encoder, "peft_config") for encoder in encoders)
        now = [_fingerprint(encoder) for encoder in encoders]
        if adapted or (encoders and now != self._encoders):
            self.clear()
            self._encoders = now


def encode(
    request: PromptRequest,
    towers: TextTowers,
    cache: PromptCache,
    *,
    text_lengths: Sequence[int],
    device: torch.device,
) -> tuple[PromptEmbeds, PromptEmbeds | None]:
    """Embeddings of prompts and of negative prompts, the latter None without guidance.

    T5 reads the smallest of `text_lengths` tokens that fits, unless the request says how many.
    """
    request.check()
    given, negative = request.given()
    texts = request.texts()
    negative_texts = []
    if request.guided and negative is None:
        negative_texts = request.negative_texts(len(texts) if given is None else len(given.pooled))
    length = choose_length(
        towers, texts + negative_texts, request.max_sequence_length, text_lengths
    )
    with lora_strength(towers, request.lora_scale):
        embeds = given or cache.embed(
            towers, texts, length=length, clip_skip=request.clip_skip, device=device
        )
        if negative_texts:
            negative = cache.embed(
                towers, negative_texts, length=length, clip_skip=None, device=device
            )
    return embeds, negative


def choose_length(
    towers: TextTowers, prompts: Sequence[Texts], given: int | None, lengths: Sequence[int]
) -> int:
    """T5's length: `given`, else the smallest of `lengths` that fits; says so when text is cut."""
    texts = [texts.t5 for texts in prompts]
    if not texts:
        return min(lengths)
    length = given if given is not None else fitting_length(towers, texts, lengths)
    if towers.tokenizer_3 is not None:
        longest = max(len(ids) for ids in towers.tokenizer_3(texts).input_ids)
        if longest > length:
            logger.warning(
                "the longest prompt has %d tokens and T5 reads %d: the rest is cut; shorten it or "
                "raise max_sequence_length",
                longest,
                length,
            )
    return length


@contextmanager
def lora_strength(towers: TextTowers, scale: float | None) -> Iterator[None]:
    """Sets the strength of LoRAs in the CLIP towers for the length of the block."""
    encoders = [towers.text_encoder, towers.text_encoder_2]
    clips = [encoder for encoder in encoders if encoder is not None]
    if scale is None or not USE_PEFT_BACKEND:
        clips = []
    for encoder in clips:
        scale_lora_layers(encoder, scale)
    try:
        yield
    finally:
        for encoder in clips:
            unscale_lora_layers(encoder, scale)


def _pair(sequence: Tensor | None, pooled: Tensor | None, name: str) -> PromptEmbeds | None:
    if (sequence is None) != (pooled is None):
        raise UserError(f"{name}: pass it together with its pooled embeddings, or neither")
    return None if sequence is None or pooled is None else PromptEmbeds(sequence, pooled)


def _zip_texts(*columns: Prompt) -> list[Texts]:
    lists = [_as_list(column) for column in columns]
    if len({len(texts) for texts in lists}) > 1:
        raise UserError(
            f"{[len(texts) for texts in lists]} prompts for the three text encoders: give as many"
        )
    return [Texts(*texts) for texts in zip(*lists, strict=True)]


def _as_list(prompt: Prompt) -> list[str]:
    return [prompt] if isinstance(prompt, str) else list(prompt)


def _encoders(towers: TextTowers) -> tuple[nn.Module | None, ...]:
    return towers.text_encoder, towers.text_encoder_2, towers.text_encoder_3


def _fingerprint(encoder: nn.Module) -> tuple[int, torch.dtype, int]:
    """Differs once weights were written to, cast or exchanged; costs no look at their values."""
    parameters = list(encoder.parameters())
    writes = sum(0 if p.is_inference() else p._version for p in parameters)  # noqa: SLF001
    return id(encoder), parameters[0].dtype, writes
