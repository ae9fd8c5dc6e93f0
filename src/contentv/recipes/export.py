"""`contentv export`: the weights of a checkpoint as a model folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from contentv.base.errors import UserError
from contentv.base.files import atomic_dir
from contentv.distributed.checkpoint import Stored, inspect, latest, read_into
from contentv.pipelines.folder import check_folder
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.pipelines.studio import load_pipeline
from contentv.recipes.config import ExportConfig
from contentv.training.state import load_untied

_GROUPS = {"ema": "ema", "raw": "model"}
_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
_NETWORKS = ("transformer", "text_encoder", "text_encoder_2", "text_encoder_3", "vae")


@dataclass(frozen=True)
class ExportResult:
    """Where the model is, of which step, and which of its networks the checkpoint had."""

    model: Path
    step: int
    networks: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.model}\nstep {self.step}: {', '.join(self.networks)}"


def run(config: ExportConfig) -> ExportResult:
    """Put a checkpoint's weights into a copy of the base model.

    Raises:
        UserError: no checkpoint, or one of networks that the base model has not.
        WorldError: the checkpoint or the base model is damaged.
    """
    stored = inspect(_find(config.checkpoint))
    check_folder(config.base)
    weights = _weights(stored, _GROUPS[config.weights])
    pipeline = load_pipeline(config.base, torch.float32)
    parts = _by_network(pipeline, weights, config.base)
    for name, tensors in parts.items():
        load_untied(getattr(pipeline, name), tensors)
    pipeline.to(dtype=_DTYPES[config.dtype])
    with atomic_dir(config.out) as part:
        pipeline.save_pretrained(part)
    return ExportResult(config.out, stored.step, tuple(parts))


def _find(path: Path) -> Path:
    if (path / "state.json").is_file():
        return path
    found = latest(path)
    if found is None:
        raise UserError(f"{path}: holds no checkpoint; name the folder of a stage of a run")
    return found


def _weights(stored: Stored, group: str) -> dict[str, Tensor]:
    about = stored.tensors.get(group, {})
    weights = {name: torch.empty(x.size, dtype=x.properties.dtype) for name, x in about.items()}
    if not weights:
        raise UserError(f"{stored.path}: has no weights of a run; name a checkpoint of training")
    read_into(stored, {group: weights})
    return weights


def _by_network(
    pipeline: ContentVPipeline, weights: Mapping[str, Tensor], base: Path
) -> dict[str, dict[str, Tensor]]:
    """Weights by network of the pipeline; an autoencoder's stage names none and is the VAE."""
    parts: dict[str, dict[str, Tensor]] = {}
    for full, value in weights.items():
        name, _, rest = full.partition(".")
        known = name in _NETWORKS
        parts.setdefault(name if known else "vae", {})[rest if known else full] = value
    for name in parts:
        if not isinstance(getattr(pipeline, name, None), nn.Module):
            raise UserError(f"{base}: has no {name}, the checkpoint has; choose another --base")
    return parts
