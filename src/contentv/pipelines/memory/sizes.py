"""How large a model's parts are, from its config files alone: no weights are looked at."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, cast, get_args

from contentv.base.errors import ContentVError, UserError
from contentv.base.files import read_json
from contentv.models.cost import TransformerSize
from contentv.models.textcost import CLIP_G, ClipSize, T5Size
from contentv.models.vaecost import AutoencoderSize
from contentv.pipelines.config import Quantization
from contentv.pipelines.folder import GenerationDefaults, read_defaults, read_parts
from contentv.pipelines.locate import locate_model

PUBLISHED_MODEL = "ByteDance/ContentV-8B"
_CLIP_TOKENS = 77


@dataclass(frozen=True)
class ModelSizes:
    """The parts of a model; without text encoders it reads embeddings made elsewhere.

    `kind` is set where the weights are quantized already.
    """

    transformer: TransformerSize
    vae: AutoencoderSize
    clips: tuple[ClipSize, ...]
    t5: T5Size | None
    clip_tokens: int = _CLIP_TOKENS
    kind: Quantization | None = None

    def without_text(self) -> Self:
        """The same without text encoders."""
        return replace(self, clips=(), t5=None)


PUBLISHED = ModelSizes(
    transformer=TransformerSize(),
    vae=AutoencoderSize(),
    clips=(ClipSize(), CLIP_G),
    t5=T5Size(),
)
"""The 8B model's, for those who plan before they download it."""


def sizes_of_configs(configs: dict[str, Any]) -> ModelSizes:
    """Sizes from the configs of parts by name; text encoders may be absent."""
    clips = [configs[name] for name in ("text_encoder", "text_encoder_2") if name in configs]
    t5 = configs.get("text_encoder_3")
    return ModelSizes(
        transformer=TransformerSize.of(configs["transformer"]),
        vae=AutoencoderSize.of(configs["vae"]),
        clips=tuple(ClipSize.of(config) for config in clips),
        t5=None if t5 is None else T5Size.of(t5),
        clip_tokens=clips[0].get("max_position_embeddings", _CLIP_TOKENS)
        if clips
        else _CLIP_TOKENS,
        kind=_saved_kind(configs["transformer"]),
    )


def known_kind(kind: str | None) -> Quantization | None:
    """UserError when weights are quantized to a kind whose size is not known."""
    if kind is not None and kind not in get_args(Quantization):
        raise UserError(
            "the transformer is quantized in a way whose size is not known; load the float weights"
        )
    return cast("Quantization | None", kind)


def _saved_kind(config: Mapping[str, Any]) -> Quantization | None:
    settings = config.get("quantization_config")
    if settings is None:
        return None
    # Only here: it takes torch to know them.
    from contentv.lowbit.libraries import kind_of_config

    return known_kind(
        kind_of_config(settings if isinstance(settings, dict) else settings.to_dict())
    )


def read_sizes(folder: Path) -> ModelSizes:
    """Sizes of the parts of a model folder, whose weights may be absent.

    Raises:
        UserError: not a model folder, or a size that is no positive whole number.
    """
    names = ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
    there = [name for name in names if name in read_parts(folder)]
    return sizes_of_configs({name: read_json(folder / name / "config.json") for name in there})


def find_sizes(model: str) -> tuple[ModelSizes, GenerationDefaults]:
    """Sizes and settings of a model by name, path or Hub id, without a download.

    Of the published model both are known anyway.
    """
    try:
        folder = locate_model(model, offline=True)
        return read_sizes(folder), read_defaults(folder)
    except ContentVError:
        if model != PUBLISHED_MODEL:
            raise
        return PUBLISHED, GenerationDefaults()
