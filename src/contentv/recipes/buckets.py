"""The buckets of clips that a person asks for, completed by what the model was made for."""

from typing import Protocol

from pydantic import ValidationError

from contentv.base.config import describe_validation_error
from contentv.base.errors import UserError
from contentv.data.buckets import DURATIONS, BucketConfig
from contentv.pipelines.folder import GenerationDefaults


class AskedBuckets(Protocol):
    """The settings of buckets that commands share; None: the model's own."""

    @property
    def areas(self) -> tuple[int, ...] | None:
        """Pixels of a frame."""
        ...

    @property
    def frames(self) -> tuple[int, ...] | None:
        """Lengths."""
        ...

    @property
    def fps(self) -> float | None:
        """Frames a second."""
        ...

    @property
    def max_crop(self) -> float:
        """Largest share of the picture that may be lost."""
        ...


def bucket_config(config: AskedBuckets, defaults: GenerationDefaults) -> BucketConfig:
    """The buckets asked for; what is not said is what the model was made for."""
    longest = defaults.num_frames
    settings = {
        "areas": config.areas or (defaults.height * defaults.width,),
        "frames": config.frames or (1, *(n for n in DURATIONS if n < longest), longest),
        "fps": config.fps or defaults.fps,
        "max_crop": config.max_crop,
    }
    try:
        return BucketConfig.model_validate(settings)
    except ValidationError as error:
        raise UserError(describe_validation_error(error)) from error
