"""What a chain of training stages is made of, and how a YAML file changes a recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from contentv.base.config import Config, describe_validation_error
from contentv.base.errors import UserError
from contentv.base.files import os_errors
from contentv.data.buckets import BucketConfig
from contentv.data.planned import SamplingConfig
from contentv.distributed.config import ParallelConfig, RecomputeConfig
from contentv.recipes.config import ValidationConfig
from contentv.training.config import OptimizerConfig, SpikeConfig, StageConfig


class StageRecipe(Config):
    """One stage: which clips, in which shapes and batches, and how the weights are updated.

    Of its `steps` the first `video_first` see videos alone, the others pictures and videos in the
    proportions `pictures` : `videos`. `batch_size` is of the largest bucket; those of the others
    cost alike, as far as memory goes: that holds `room` times the tokens of that batch. A step has
    `micro_batches` batches, of all processes together: the batch of a step does not depend on how
    many processes there are, and their data groups must divide it.

    Without a `parallel` layout each node keeps the weights once, split over its devices.
    `init_from` names start weights: a model folder, a Hugging Face id, a stage of a run or one of
    its checkpoints; without it a stage begins with the averaged weights of the one before.
    """

    steps: int = Field(gt=0)
    buckets: BucketConfig
    sampling: SamplingConfig = SamplingConfig()
    video_first: int = Field(0, ge=0)
    pictures: int = Field(1, ge=0, le=1_000_000)
    videos: int = Field(1, ge=0, le=1_000_000)
    batch_size: int = Field(1, ge=1)
    room: float = Field(1.0, ge=1)
    micro_batches: int = Field(1, ge=1)
    optimizer: OptimizerConfig = OptimizerConfig()
    max_grad_norm: float = Field(1.0, gt=0)
    spikes: SpikeConfig = SpikeConfig()
    ema_decay: float = Field(0.999, ge=0, lt=1)
    bf16: bool = True
    parallel: ParallelConfig | None = None
    recompute: RecomputeConfig = RecomputeConfig()
    init_from: str | None = None
    log_every: int = Field(20, gt=0)
    checkpoint_every: int = Field(200, gt=0)
    keep: int = Field(2, gt=0)
    validation: ValidationConfig = ValidationConfig()

    @model_validator(mode="after")
    def _mix_and_buckets_agree(self) -> Self:
        of_pictures, of_videos = 1 in self.buckets.frames, max(self.buckets.frames) > 1
        if not self.pictures + self.videos:
            raise ValueError("pictures=0: and videos=0 leave nothing to train on; raise one")
        if self.pictures and not of_pictures:
            raise ValueError(
                f"pictures={self.pictures}: buckets.frames has no 1; add it or use pictures=0"
            )
        if (self.videos or self.video_first) and not of_videos:
            name, value = next((n, v) for n in ("videos", "video_first") if (v := getattr(self, n)))
            raise ValueError(f"{name}={value}: buckets.frames has pictures only; use {name}=0")
        if self.video_first >= self.steps:
            raise ValueError(f"video_first={self.video_first}: must be below steps={self.steps}")
        return self

    def config(self, name: str, seed: int) -> StageConfig:
        """What the trainer asks of a stage of this name."""
        shared = StageConfig.model_fields.keys() & StageRecipe.model_fields.keys()
        settings = {field: getattr(self, field) for field in shared}
        return StageConfig(name=name, seed=seed, validate_every=self.validation.every, **settings)


class Recipe(Config):
    """Stages by name, in the order in which they are trained; `seed` keys all random numbers."""

    seed: int = Field(0, ge=0)
    stages: dict[str, StageRecipe] = Field(min_length=1)

    def stage(self, name: str) -> StageRecipe:
        """The stage of this name; UserError when there is none."""
        if name not in self.stages:
            raise UserError(f"stage={name}: no such stage; use {', '.join(self.stages)}")
        return self.stages[name]

    def before(self, name: str) -> str | None:
        """Name of the stage before, None for the first."""
        names = [None, *self.stages]
        return names[names.index(name) - 1]


def changed_recipe(recipe: Recipe, file: Path) -> Recipe:
    """`recipe` with what a YAML file says otherwise, at any depth; stages are found by name.

    UserError when the file has an unknown or contradictory setting, or a stage that is not there.
    """
    with os_errors(file, "read"):
        text = file.read_text(encoding="utf-8")
    try:
        said = yaml.safe_load(text) or {}
        if not isinstance(said, Mapping):
            raise UserError(f"{file}: not settings by name; write such as `seed: 1`")
        stages = said.get("stages")
        for name in stages if isinstance(stages, Mapping) else ():
            recipe.stage(name)
        return Recipe.model_validate(_merged(recipe.model_dump(), said))
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not YAML ({' '.join(str(error).split())})") from error
    except ValidationError as error:
        raise UserError(f"{file}: {describe_validation_error(error)}") from error


def _merged(before: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(before)
    for name, value in said.items():
        both = isinstance(value, Mapping) and isinstance(before.get(name), Mapping)
        merged[name] = _merged(before[name], value) if both else value
    return merged
