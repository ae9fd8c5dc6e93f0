"""`contentv encode --prompts`: writes the file that `contentv generate --prompt-embeds` reads."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from contentv.base.device import default_dtype, pick_device
from contentv.base.files import atomic_path
from contentv.base.progress import progress
from contentv.models.text import TextTowers
from contentv.pipelines.config import GenerateConfig, PromptConfig
from contentv.pipelines.embeds import METADATA, EmbedsHeader, towers_hash
from contentv.pipelines.folder import read_defaults
from contentv.pipelines.jobs import read_prompts
from contentv.pipelines.parts import load_towers
from contentv.pipelines.prompts import PromptCache, Texts, choose_length


@dataclass(frozen=True)
class EmbedResult:
    """The file, and how many prompts and texts are in it."""

    path: Path
    prompts: int
    texts: int

    def __str__(self) -> str:
        return f"{self.path}: {self.prompts} prompts, {self.texts} texts"


def embed_prompts(model: Path, file: Path, out: Path, device_name: str | None) -> EmbedResult:
    """Embed the prompts of a file, their negative prompts and the empty text, as the pipeline does.

    UserError when a prompt cannot be read, ModelFilesError when the model is damaged.
    """
    prompts = read_prompts(GenerateConfig(prompts_file=file))
    device = pick_device(device_name)
    towers = load_towers(model, default_dtype(device), device)
    lengths = read_defaults(model).text_lengths
    wanted = {
        text: _lengths(towers, text, lengths, own) for text, own in _own_lengths(prompts).items()
    }
    header = EmbedsHeader(
        towers=towers_hash(model), lengths=lengths, prompts=tuple(prompts), texts=wanted
    )
    tensors: dict[str, Tensor] = {}
    for place, (text, at) in enumerate(progress(list(wanted.items()), "encoding prompts")):
        tensors |= _embed(towers, text, at, place, device)
    with atomic_path(out) as part:
        save_file(tensors, part, {METADATA: json.dumps(header.model_dump(mode="json"))})
    return EmbedResult(out, len(prompts), len(wanted))


def _own_lengths(prompts: Iterable[PromptConfig]) -> dict[str, set[int]]:
    """Every text once, with the lengths that its prompts ask for by themselves."""
    own: dict[str, set[int]] = {}
    for prompt in prompts:
        asked = {prompt.max_sequence_length} if prompt.max_sequence_length else set()
        for text in (prompt.prompt, prompt.negative_prompt or "", ""):
            own.setdefault(text, set()).update(asked)
    return own


def _lengths(
    towers: TextTowers, text: str, lengths: tuple[int, ...], own: set[int]
) -> tuple[int, ...]:
    """Every length at which T5 may read a text, shortest first."""
    shortest = choose_length(towers, [Texts(text, text, text)], None, lengths)
    return tuple(sorted({length for length in lengths if length >= shortest} | own))


def _embed(
    towers: TextTowers, text: str, lengths: tuple[int, ...], place: int, device: torch.device
) -> dict[str, Tensor]:
    cache, texts = PromptCache(), [Texts(text, text, text)]
    tensors = {}
    for length in lengths:
        found = cache.embed(towers, texts, length=length, clip_skip=None, device=device)
        tensors[f"sequence_{place}_{length}"] = found.sequence[0].cpu().contiguous()
        tensors[f"pooled_{place}"] = found.pooled[0].cpu().contiguous()
    return tensors
