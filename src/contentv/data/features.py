"""Precomputed features of a data set: safetensors shards beside their captions, each whole or absent."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from contentv.base.errors import UserError
from contentv.base.files import atomic_path


@dataclass(frozen=True)
class Features:
    """Of n clips: posterior mean and log-variance of raw latents [n c t h w] and their captions."""

    mean: Tensor
    logvar: Tensor
    short: tuple[str, ...]
    long: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.short)

    def sample(self, indices: Sequence[int], noise: Tensor) -> Tensor:
        """Raw latents of some clips, float32 [b c t h w] with as many latent frames as `noise` has."""
        picked, frames = list(indices), noise.shape[2]
        mean, logvar = (x[picked, :, :frames].float() for x in (self.mean, self.logvar))
        return mean + torch.exp(0.5 * logvar) * noise


def write_shard(path: Path, features: Features, *, encoder: str) -> None:
    """Write one shard atomically; `encoder` identifies the network that made it."""
    metadata = {"encoder": encoder, "short": json.dumps(features.short), "long": json.dumps(features.long)}
    tensors = {name: getattr(features, name).to(torch.bfloat16).contiguous() for name in ("mean", "logvar")}
    with atomic_path(path) as part:
        save_file(tensors, part, metadata)


def load_shards(folder: Path, *, encoder: str) -> Features:
    """Join all shards of a folder in the order of their names; refuses those of another encoder."""
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise UserError(f"{folder}: no feature shards; encode the clips first")
    shards = [_load_shard(path, encoder) for path in paths]
    return Features(
        torch.cat([s.mean for s in shards]),
        torch.cat([s.logvar for s in shards]),
        tuple(text for s in shards for text in s.short),
        tuple(text for s in shards for text in s.long),
    )


def network_hash(network: nn.Module) -> str:
    """Identity of a network's weights, 16 hex digits."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _load_shard(path: Path, encoder: str) -> Features:
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    if metadata["encoder"] != encoder:
        raise UserError(
            f"{path}: made by encoder {metadata['encoder']}, training uses {encoder}; delete the folder and encode anew"
        )
    tensors = load_file(path)
    return Features(tensors["mean"], tensors["logvar"], *(tuple(json.loads(metadata[k])) for k in ("short", "long")))
