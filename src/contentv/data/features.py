"""Precomputed latents of toy clips: shards, each whole or absent."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from contentv.base.errors import UserError, WorldError
from contentv.base.files import atomic_path


@dataclass(frozen=True)
class Features:
    """Of n clips: posterior mean and log-variance of raw latents [n c t h w]."""

    mean: Tensor
    logvar: Tensor

    def __len__(self) -> int:
        return len(self.mean)

    def sample(self, indices: Sequence[int], noise: Tensor) -> Tensor:
        """Raw latents of some clips, float32 [b c t h w], of as many latent frames as `noise`."""
        picked, frames = list(indices), noise.shape[2]
        mean, logvar = (x[picked, :, :frames].float() for x in (self.mean, self.logvar))
        return mean + torch.exp(0.5 * logvar) * noise


def write_shard(path: Path, features: Features, *, encoder: str) -> None:
    """Write one shard atomically; `encoder` identifies the network that made it."""
    tensors = {"mean": features.mean, "logvar": features.logvar}
    tensors = {name: value.to(torch.bfloat16).contiguous() for name, value in tensors.items()}
    with atomic_path(path) as part:
        save_file(tensors, part, {"encoder": encoder})


def load_shards(folder: Path, *, encoder: str) -> Features:
    """Join all shards of a folder in the order of their names.

    Raises:
        UserError: no shards, or some that another encoder made.
        WorldError: a shard is damaged.
    """
    paths = sorted(folder.glob("[!.]*.safetensors"))
    if not paths:
        raise UserError(f"{folder}: no feature shards; encode the clips first")
    shards = [_load_shard(path, encoder) for path in paths]
    return Features(
        torch.cat([s.mean for s in shards]),
        torch.cat([s.logvar for s in shards]),
    )


def network_hash(network: nn.Module) -> str:
    """Identity of a network's weights, 16 hex digits."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _load_shard(path: Path, encoder: str) -> Features:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            mean, logvar = file.get_tensor("mean"), file.get_tensor("logvar")
        made_by = metadata["encoder"]
    except (SafetensorError, OSError, KeyError) as error:
        raise WorldError(f"{path}: damaged ({error}); delete it and encode anew") from error
    if made_by != encoder:
        raise UserError(
            f"{path}: made by encoder {made_by}, training uses {encoder}; "
            "delete the folder and encode anew"
        )
    return Features(mean, logvar)
