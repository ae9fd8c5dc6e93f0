"""Weights of few bits and model folders: rounded as they are read, and found in a folder."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from contentv.base.device import pick_device
from contentv.base.errors import UserError
from contentv.base.files import read_json
from contentv.lowbit.backends.support import check_dtype, check_runs
from contentv.lowbit.libraries import (
    check_installed,
    diffusers_config,
    kind_of_config,
    transformers_config,
)
from contentv.pipelines.memory.quantizing import TRANSFORMER_LAYERS, kind_for


def loading_configs(
    folder: Path, kind: str, dtypes: Mapping[str, torch.dtype], names: Collection[str]
) -> dict[str, Any]:
    """Settings, by component, with which the loaders round each weight of a folder as they read it.

    Components that the folder has in this kind are left out.

    Raises:
        UserError: a component of another kind; a device or number format that does not go with it.
    """
    check_runs(kind, pick_device())
    check_installed(kind)
    configs = {}
    for name in names:
        wanted, found = kind_for(name, kind), _saved_kind(folder, name)
        dtype = dtypes[name] if name in dtypes else dtypes["default"]
        if found is None:
            check_dtype(wanted, name, dtype)
            configs[name] = (
                diffusers_config(wanted, TRANSFORMER_LAYERS, dtype)
                if name == "transformer"
                else transformers_config(wanted, dtype)
            )
        elif found != wanted:
            raise UserError(
                f"quantization={kind}: {folder / name} holds {found}, which is not rounded again; "
                "load the folder with the float weights"
            )
    return configs


def check_no_other_way(kind: str, options: Collection[str]) -> None:
    """UserError when what else `from_pretrained` is told contradicts `quantization`."""
    if "quantization_config" in options:
        raise UserError(
            f"quantization={kind}: quantization_config says the same in another way; give one"
        )
    if "device_map" in options:
        raise UserError(
            f"quantization={kind}: device_map places float weights; leave it out, then move or "
            "offload the pipeline"
        )


def check_saved(folder: Path, names: Collection[str]) -> None:
    """UserError when components of a folder are of a kind that this machine does not compute."""
    for name in names:
        kind = _saved_kind(folder, name)
        if kind is not None and kind != "another kind":
            check_runs(kind, pick_device())
            check_installed(kind)


def _saved_kind(folder: Path, name: str) -> str | None:
    config_file = folder / name / "config.json"
    if not config_file.is_file():
        return None
    return kind_of_config(read_json(config_file).get("quantization_config"))
