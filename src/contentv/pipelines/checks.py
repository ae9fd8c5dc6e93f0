"""Refuses a call that cannot give a video, in one line: the value, the rule, the way out."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from contentv.base.errors import NumericsError, UserError

Prompt: TypeAlias = str | Sequence[str]

# T5 reads at most 512 tokens; a longer text than this is a file given by mistake.
LONGEST_PROMPT = 4000
LONGEST_SEQUENCE = 512
OUTPUT_TYPES = ("np", "pil", "pt", "latent")
_BLACK = 0.5 / 255


def check_prompt(name: str, prompt: Prompt | None, *, may_be_empty: bool) -> None:
    """UserError unless `prompt` is None, a text, or a non-empty list of texts."""
    if prompt is None:
        return
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{name}={prompt!r:.60}: must be a string or a list of strings")
    if not texts:
        raise UserError(f"{name}=[]: no prompt in the list; give at least one")
    for text in texts:
        if not may_be_empty and not text.strip():
            raise UserError(f"{name}={text!r}: is empty; say what the video shows")
        if len(text) > LONGEST_PROMPT:
            raise UserError(
                f"{name} has {len(text)} characters: at most {LONGEST_PROMPT}; shorten it"
            )


def check_size(height: int, width: int, *, multiple: int) -> None:
    """UserError unless both sides are positive multiples of `multiple` pixels."""
    for name, side in (("height", height), ("width", width)):
        if side < multiple or side % multiple:
            lower = side // multiple * multiple
            ways = f"{lower} or {lower + multiple}" if lower > 0 else f"{multiple}"
            raise UserError(f"{name}={side}: must be a positive multiple of {multiple}; use {ways}")


def check_count(name: str, count: object) -> None:
    """UserError unless `count` is a whole number of 1 or more."""
    if not isinstance(count, int) or count < 1:
        raise UserError(f"{name}={count}: must be a whole number of 1 or more")


def check_number(name: str, number: float, *, above: float = -math.inf) -> None:
    """UserError unless `number` is finite and greater than `above`."""
    if not math.isfinite(number) or number <= above:
        limit = "" if above == -math.inf else f" above {above:g}"
        raise UserError(f"{name}={number}: must be a finite number{limit}")


def check_sequence_length(length: int | None) -> None:
    """UserError unless `length` is None or a number of tokens that T5 can read."""
    if length is not None and not 1 <= length <= LONGEST_SEQUENCE:
        raise UserError(f"max_sequence_length={length}: must be 1 to {LONGEST_SEQUENCE}")


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """UserError unless `value` is one of `choices`."""
    if value not in choices:
        raise UserError(f"{name}={value!r}: must be one of {', '.join(choices)}")


def check_generators(generator: Any, batch_size: int) -> None:  # noqa: ANN401 - one or a list
    """UserError when a list of generators has not one for each video."""
    if isinstance(generator, list) and len(generator) != batch_size:
        raise UserError(
            f"{len(generator)} generators for {batch_size} videos: give one, or one for each video"
        )


def check_finite(tensor: Tensor, place: str) -> None:
    """NumericsError naming `place` when there is a NaN or an infinity in `tensor`."""
    if not torch.isfinite(tensor).all():
        raise NumericsError(
            f"NaN or infinite values {place} ({tensor.dtype}); try dtype float32 or bfloat16, "
            "a lower guidance_scale, or check the model's files"
        )


def check_not_black(brightest: float) -> None:
    """NumericsError when the brightest value of a decoded video, 0..1, shows nothing."""
    if brightest < _BLACK:
        raise NumericsError(
            "the decoded video is black in every pixel; check the autoencoder's files and dtype "
            "(float32 is safe), or try another seed"
        )
