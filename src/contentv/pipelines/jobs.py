"""From a configuration to the list of videos to make: settings filled in, seeds and names given."""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contentv.base.config import Config, describe_validation_error
from contentv.base.errors import UserError
from contentv.base.files import os_errors
from contentv.pipelines.config import GenerateConfig, PromptConfig, SamplingConfig, Speed

_LONGEST_SLUG = 60
_LONGEST_SLUG_BYTES = 150  # of the 255 that file systems allow


class Job(Config):
    """One video: all that decides its pixels besides the model. None: the model's own choice."""

    prompt: str
    negative_prompt: str | None
    seed: int
    num_frames: int
    height: int
    width: int
    fps: int
    num_inference_steps: int
    guidance_scale: float
    flow_shift: float | None
    max_sequence_length: int | None
    speed: Speed = "exact"

    def fits_with(self, other: "Job") -> bool:
        """Say whether both can be sampled as one batch."""
        own = {"prompt", "negative_prompt", "seed", "fps"}
        same = self.model_dump(exclude=own) == other.model_dump(exclude=own)
        return same and (self.negative_prompt is None) == (other.negative_prompt is None)


def read_prompts(config: GenerateConfig) -> list[PromptConfig]:
    """Collect the prompts of a configuration with their own settings, in the order given."""
    texts = [*config.prompts, *([] if config.prompt is None else [config.prompt])]
    prompts = [_validate({"prompt": text}, "") for text in texts]
    if config.prompts_file is not None:
        prompts += _read_file(config.prompts_file)
        if not prompts:
            raise UserError(f"{config.prompts_file}: no prompts in it; write one a line")
    return prompts


def plan_jobs(
    prompts: Iterable[PromptConfig], common: SamplingConfig, defaults: Mapping[str, Any]
) -> list[Job]:
    """Fill in every setting: a prompt's own value wins over `common`, and that over `defaults`.

    The videos of one prompt get the seeds seed, seed+1, ...; so a video depends on its prompt, its
    seed and its settings, never on what else is made in the same run.
    """
    jobs = []
    for prompt in prompts:
        said = {**_said(common), **_said(prompt)}
        settings = {"seed": 0, "num_videos_per_prompt": 1, "speed": "exact", **defaults, **said}
        job = Job.model_validate({name: settings.get(name) for name in Job.model_fields})
        seeds = range(job.seed, job.seed + settings["num_videos_per_prompt"])
        jobs += [job.model_copy(update={"seed": seed}) for seed in seeds]
    return jobs


def file_names(jobs: Iterable[Job]) -> Iterator[str]:
    """Give each job a name without suffix that any file system takes, different from the others."""
    taken: set[str] = set()
    for job in jobs:
        stem = f"{slug(job.prompt)}_seed{job.seed}"
        name, number = stem, 1
        while name in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name)
        yield name


def slug(text: str) -> str:
    """Make a short name of letters and digits of any script, and dashes.

    A shortened name ends with a hash of the whole text, so that long prompts which begin alike
    differ.
    """
    letters = unicodedata.normalize("NFC", text).lower()
    # Letters, marks and digits only: no separators, control or direction characters get through.
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in letters)
    name = "-".join(kept.split()) or "video"
    if len(name) <= _LONGEST_SLUG and len(name.encode()) <= _LONGEST_SLUG_BYTES:
        return name
    short = name[:_LONGEST_SLUG].encode()[:_LONGEST_SLUG_BYTES].decode(errors="ignore")
    return f"{short.rstrip('-')}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _said(settings: SamplingConfig) -> dict[str, Any]:
    """Give the settings that were named, by name, not those left to others."""
    names = {*SamplingConfig.model_fields, "prompt"}
    return settings.model_dump(include=names, exclude_none=True)


def _read_file(path: Path) -> list[PromptConfig]:
    with os_errors(path, "read"):
        data = path.read_bytes()
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    return [_read_line(line, f"{path} line {number}: ") for number, line in numbered]


def _read_line(line: str, where: str) -> PromptConfig:
    if not line.startswith("{"):
        return _validate({"prompt": line}, where)
    try:
        content = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}not JSON ({error})") from error
    return _validate(content, where)


def _validate(content: dict[str, object], where: str) -> PromptConfig:
    try:
        return PromptConfig.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{where}{describe_validation_error(error)}") from error
