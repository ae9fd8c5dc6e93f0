"""What a fine-tuning run is made of: a run that goes on must not become another one."""

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
    """All that decides data and network, but seed and steps, which a stage's checkpoint knows.

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


def begin(folder: Path, identity: Identity) -> None:
    """Write down what the run in `folder` is made of."""
    save_yaml(identity, folder / _FILE)


def refuse_another_run(folder: Path, stage: str, identity: Identity) -> None:
    """UserError when `stage` in `folder` has a checkpoint and was made of something else."""
    if not (folder / _FILE).is_file() or latest(folder / stage) is None:
        return
    before = load_yaml(Identity, folder / _FILE)
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
    return f"{value:.8}" if isinstance(value, str) else str(value)
