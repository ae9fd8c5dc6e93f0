"""Which weights a stage begins with: a model's, or the averages of a run's checkpoint."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from contentv.base.errors import UserError
from contentv.distributed.checkpoint import inspect, latest, read_into
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.pipelines.folder import INDEX
from contentv.pipelines.loading import check_weights
from contentv.pipelines.locate import locate_model
from contentv.training.state import refuse_other_network, untied

_NOT_LOADED = ("vae", "text_encoder", "text_encoder_2", "text_encoder_3")
_STATE = "state.json"


@dataclass(frozen=True)
class Start:
    """Weights to begin with: `path` is a model folder, or a checkpoint when `is_checkpoint`."""

    path: Path
    is_checkpoint: bool


def find_start(name: str) -> Start:
    """From what a person calls weights; UserError when it is neither model nor checkpoint."""
    path = Path(name)
    if (path / _STATE).is_file():
        return Start(path, is_checkpoint=True)
    if (found := latest(path)) is not None:
        return Start(found, is_checkpoint=True)
    if path.is_dir() and not (path / INDEX).is_file():
        raise UserError(
            f"init_from={name}: is neither a model folder nor a stage of a run; name one that has "
            f"a {INDEX} or a checkpoint"
        )
    return Start(locate_model(name), is_checkpoint=False)


def load_transformer(model: Path) -> ContentVTransformer3DModel:
    """The transformer of a model folder, in float32, on the CPU.

    Of an image model, such as Stable Diffusion 3.5 Large, the layers are the same; its 2-D
    position table is left out.

    Raises:
        UserError: an image model with blocks that a video model has not (SD3.5 Medium).
        ModelFilesError: files are missing, cut short or of another network.
    """
    check_weights(model, passed=_NOT_LOADED)
    return ContentVTransformer3DModel.from_pretrained(
        model / "transformer", torch_dtype=torch.float32, local_files_only=True
    )


def read_averages(
    checkpoint: Path, networks: nn.Module, *, group: dist.ProcessGroup | None
) -> None:
    """Fill `networks` with the averaged weights of a checkpoint, whatever layout wrote it.

    Each process reads its own parts. A checkpoint may hold more networks than these. UserError when
    it has not these ones.
    """
    stored, weights = inspect(checkpoint), untied(networks)
    there = stored.tensors.get("ema", {})
    refuse_other_network(weights, {k: x.size for k, x in there.items() if k in weights})
    read_into(stored, {"ema": weights}, group=group)
