"""Clips to features: the one way in which pixels become latents for training."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from contentv.data.batch import video_tensor
from contentv.data.features import Features, network_hash, write_shard
from contentv.models import vae as autoencoder
from contentv.toyworld.dataset import sample

SHARD_CLIPS = 256
# One size for every call, so that a clip's features do not depend on its neighbours.
GROUP_CLIPS = 8


@torch.no_grad()
def encode_frames(vae: AutoencoderKLWan, clips: np.ndarray) -> autoencoder.Posterior:
    """Posterior of raw latents for bytes [b t h w 3]."""
    groups = [autoencoder.encode(vae, video_tensor(part)) for part in _groups(clips)]
    return autoencoder.Posterior(torch.cat([g.mean for g in groups]), torch.cat([g.logvar for g in groups]))


def encode_toyworld(
    vae: AutoencoderKLWan, folder: Path, *, clips: int, seed: int, worker: int = 0, workers: int = 1
) -> Iterator[Path]:
    """Encode toy clips 0 … `clips`-1 of the training split; yields each shard as it is finished.

    Shards already there are left alone. Worker `worker` of `workers` makes every `workers`-th shard.
    """
    encoder = network_hash(vae)
    for first in range(worker * SHARD_CLIPS, clips, workers * SHARD_CLIPS):
        path = folder / f"clips-{first:08d}.safetensors"
        if not path.exists():
            write_shard(path, _shard(vae, range(first, min(first + SHARD_CLIPS, clips)), seed), encoder=encoder)
        yield path


def _shard(vae: AutoencoderKLWan, indices: range, seed: int) -> Features:
    samples = [sample(seed, index, split="train") for index in indices]
    posterior = encode_frames(vae, np.stack([s.frames() for s in samples]))
    return Features(
        posterior.mean,
        posterior.logvar,
        tuple(s.short.text for s in samples),
        tuple(s.long.text for s in samples),
    )


def _groups(clips: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(clips), GROUP_CLIPS):
        yield clips[first : first + GROUP_CLIPS]
