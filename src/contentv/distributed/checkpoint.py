"""Training checkpoints: a folder of safetensors and JSON that exists whole or not at all."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from contentv.base.errors import UserError, WorldError
from contentv.base.files import atomic_dir, os_errors, read_json, write_json

_PREFIX = "step-"
_STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """Groups of tensors by name (model, ema, optimizer) and the plain values beside them."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    values: Mapping[str, Any]


def save(folder: Path, checkpoint: Checkpoint, *, keep: int = 2) -> Path:
    """Write `folder/step-NNNNNNNN` by temp and rename; drop all but the newest `keep`."""
    path = folder / f"{_PREFIX}{checkpoint.step:08d}"
    with atomic_dir(path) as part:
        for name, group in checkpoint.tensors.items():
            save_file(
                {k: v.detach().contiguous() for k, v in group.items()}, part / f"{name}.safetensors"
            )
        write_json(part / _STATE, {"step": checkpoint.step, "values": checkpoint.values})
    for old in _all(folder)[:-keep]:
        with os_errors(old, "remove"):
            (old / _STATE).unlink()  # first, so that a half-removed folder does not count
            shutil.rmtree(old)
    return path


def latest(folder: Path) -> Path | None:
    """Newest complete checkpoint of a run, or None."""
    found = _all(folder)
    return found[-1] if found else None


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; WorldError names the file that is damaged."""
    try:
        state = read_json(path / _STATE)
        step, values = int(state["step"]), dict(state["values"])
    except (UserError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path / _STATE, error.__cause__ or error) from error
    tensors = {file.stem: _load_tensors(file) for file in sorted(path.glob("*.safetensors"))}
    return Checkpoint(step, tensors, values)


def _all(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob(f"{_PREFIX}*") if (p / _STATE).is_file())


def _load_tensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: BaseException) -> WorldError:
    return WorldError(f"{file}: damaged ({error}); delete its folder to resume from the one before")
