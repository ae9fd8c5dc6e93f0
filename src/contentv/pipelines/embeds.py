"""A file of prompts with their embeddings, so that videos can be made without text encoders.

Each text stands in it at every length at which T5 may read it, as `sequence_I_LENGTH` [n d] and
`pooled_I` [p].
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from contentv.base.config import Config, describe_validation_error
from contentv.base.errors import UserError
from contentv.base.files import os_errors
from contentv.pipelines.config import PromptConfig
from contentv.pipelines.folder import TEXT_PARTS, fingerprint
from contentv.pipelines.jobs import Job

if TYPE_CHECKING:
    from torch import Tensor

METADATA = "contentv"


class EmbedsHeader(Config):
    """What the file says of itself.

    `texts` are the prompts, the negative prompts and the empty text, with T5's lengths of each;
    `lengths` are those the model chooses from, `towers` is the hash of the text encoders.
    """

    towers: str
    lengths: tuple[int, ...]
    prompts: tuple[PromptConfig, ...]
    texts: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class EmbeddedPrompts:
    """Embeddings in a file; its tensors are read when they are asked for."""

    path: Path
    sha256: str
    header: EmbedsHeader

    @property
    def prompts(self) -> tuple[PromptConfig, ...]:
        """The prompts that were encoded, with their own settings."""
        return self.header.prompts

    def check(self, folder: Path, jobs: Iterable[Job]) -> None:
        """UserError when other text encoders made them, or a job needs what is not there."""
        towers = towers_hash(folder)
        if towers != self.header.towers:
            raise UserError(
                f"{self.path}: made by text encoders {self.header.towers[:16]}, {folder.name} has "
                f"{towers[:16]}; encode the prompts with this model"
            )
        for job in jobs:
            self._length((job,))

    def arguments(self, jobs: tuple[Job, ...]) -> dict[str, "Tensor"]:
        """The pipeline's arguments, by name, for jobs sampled together; tensors on the CPU."""
        length = self._length(jobs)
        found = {
            "prompt_embeds": self._read([job.prompt for job in jobs], "sequence", length),
            "pooled_prompt_embeds": self._read([job.prompt for job in jobs], "pooled"),
        }
        if _is_guided(jobs):
            negative = [job.negative_prompt or "" for job in jobs]
            found["negative_prompt_embeds"] = self._read(negative, "sequence", length)
            found["negative_pooled_prompt_embeds"] = self._read(negative, "pooled")
        return found

    def _length(self, jobs: tuple[Job, ...]) -> int:
        """As the pipeline: the length asked for, else the shortest at which all texts fit."""
        texts = [job.prompt for job in jobs]
        if _is_guided(jobs):
            texts += [job.negative_prompt or "" for job in jobs]
        for text in texts:
            if text not in self.header.texts:
                way = "give it to `contentv encode --prompts`, or leave out --prompt-embeds"
                raise UserError(f"{text[:60]!r}: is not in {self.path}; {way}")
        common = set.intersection(*(set(self.header.texts[text]) for text in texts))
        wanted = jobs[0].max_sequence_length
        if wanted is None:
            return min(common & set(self.header.lengths))
        if wanted not in common:
            rule = f"{self.path} has {sorted(common)}"
            raise UserError(f"max_sequence_length={wanted}: {rule}; use one of them")
        return wanted

    def _read(self, texts: list[str], name: str, length: int | None = None) -> "Tensor":
        import torch
        from safetensors import safe_open

        suffix = "" if length is None else f"_{length}"
        order = {text: place for place, text in enumerate(self.header.texts)}
        with os_errors(self.path, "read"), safe_open(self.path, "pt") as file:
            return torch.stack([file.get_tensor(f"{name}_{order[t]}{suffix}") for t in texts])


def read_embeds(path: Path) -> EmbeddedPrompts:
    """Open a file of embeddings; UserError when it is something else or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with os_errors(path, "read"):
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        with safe_open(path, "np") as file:
            content = (file.metadata() or {})[METADATA]
        return EmbeddedPrompts(path, sha256, EmbedsHeader.model_validate(json.loads(content)))
    except ValidationError as error:
        reason = describe_validation_error(error)
    except (SafetensorError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
    way = "make it with `contentv encode --prompts FILE --out embeds.safetensors`"
    raise UserError(f"{path}: holds no embeddings of prompts ({reason}); {way}")


def towers_hash(folder: Path) -> str:
    """Identity of the text encoders and tokenizers in a model folder."""
    return fingerprint(folder, TEXT_PARTS)["sha256"]


def _is_guided(jobs: tuple[Job, ...]) -> bool:
    return jobs[0].guidance_scale > 1
