"""What a stage is made of: a run that goes on must not become another one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contentv.base.config import Config, load_yaml, save_yaml
from contentv.base.errors import UserError
from contentv.data.buckets import BucketConfig
from contentv.data.planned import SamplingConfig
from contentv.distributed.checkpoint import latest

_FILE = "run.yaml"


class Identity(Config):
    """All that decides data and network of a fine-tuning, but what a stage's checkpoint knows.

    `model` and `clips` are hashes of the start weights and of the list of clips; `lora_rank` is
    None when all weights learn.
    """

    model: str
    clips: str
    buckets: BucketConfig
    sampling: SamplingConfig
    batch_size: int
    micro_batches: int
    lora_rank: int | None


class StageIdentity(Config):
    """All that decides data and network of a stage of a recipe, but what its checkpoint knows.

    `model` is a hash of the folder whose autoencoder and text encoders encode, `init_from` what was
    said about start weights, if anything, `clips` a hash of the list of clips.
    """

    model: str
    init_from: str
    clips: str
    buckets: BucketConfig
    sampling: SamplingConfig
    video_first: int
    pictures: int
    videos: int
    batch_size: int
    room: float
    micro_batches: int


def begin(folder: Path, identity: Config) -> None:
    """Write down what the run in `folder` is made of."""
    save_yaml(identity, folder / _FILE)


def refuse_another_run(folder: Path, stage: Path, identity: Config) -> None:
    """UserError when the stage has a checkpoint and the run in `folder` was made of another."""
    if not (folder / _FILE).is_file() or latest(stage) is None:
        return
    before = load_yaml(type(identity), folder / _FILE)
    changed = _differences(before.model_dump(mode="json"), identity.model_dump(mode="json"))
    if changed:
        raise UserError(
            f"{folder}: began with other data or another network ({', '.join(changed)}); "
            "restore them or choose another --out"
        )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = []
    for name, value in before.items():
        if isinstance(value, Mapping):
            found += _differences(value, now[name])
        elif value != now[name]:
            found.append(f"{name}={_shown(value)}, now {_shown(now[name])}")
    return found


def _shown(value: object) -> str:
    # Of a hash its beginning is enough.
    return value[:8] if isinstance(value, str) and len(value) in (16, 64) else str(value)
