"""Latents of the toy world's clips, for the stages that train the tiny model."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from contentv.base.types import Frames
from contentv.data.batch import video_tensor
from contentv.data.features import Features, write_shard
from contentv.encoding.encoder import FeatureEncoder
from contentv.models.vae import Posterior
from contentv.models.vae_clip import encode_clip
from contentv.toyworld.dataset import scene_at
from contentv.toyworld.render import render

SHARD_CLIPS = 256
# One size for every call, so that a clip's features do not depend on its neighbours.
GROUP_CLIPS = 8


@dataclass(frozen=True)
class ToyEncoder:
    """The encoder half of an autoencoder, in the arithmetic it was trained in, 8 clips a call.

    `compiled` pays a minute at the start and halves the time of a clip.
    """

    vae: AutoencoderKLWan
    compiled: bool = False

    @property
    def identity(self) -> str:
        """As `FeatureEncoder.identity`."""
        return FeatureEncoder(self.vae).identity

    @torch.no_grad()
    def encode(self, clips: Frames) -> Posterior:
        """Posterior of raw latents for bytes [b t h w 3], float32, on the CPU."""
        encode = _compiled_encode() if self.compiled else encode_clip
        device = self.vae.device
        with torch.autocast(device.type, torch.bfloat16):
            videos = (video_tensor(group).to(device) for group in _groups(clips))
            moments = [encode(self.vae, video).float().cpu() for video in videos]
        return Posterior(*torch.cat(moments)[: len(clips)].chunk(2, dim=1))


def encode_toyworld(
    encoder: ToyEncoder,
    folder: Path,
    *,
    clips: int,
    frames: int,
    seed: int,
    worker: int = 0,
    workers: int = 1,
) -> Iterator[Path]:
    """Encode toy clips 0 … `clips`-1 of the training split; yields each shard as it is finished.

    `frames` is their whole length, or 1 for pictures: how they begin. Shards already there are left
    alone. Of several workers, number `worker` makes every `workers`-th shard.
    """
    for first in range(worker * SHARD_CLIPS, clips, workers * SHARD_CLIPS):
        path = folder / shard_name(first)
        if not path.exists():
            indices = range(first, min(first + SHARD_CLIPS, clips))
            features = _shard(encoder, indices, frames, seed)
            write_shard(path, features, encoder=encoder.identity)
        yield path


def shard_name(first: int) -> str:
    """File of the shard that begins with clip `first`."""
    return f"clips-{first:08d}.safetensors"


def _shard(encoder: ToyEncoder, indices: range, frames: int, seed: int) -> Features:
    clips = [render(scene_at(seed, index), frames=frames) for index in indices]
    return Features(*encoder.encode(np.stack(clips)))


@cache
def _compiled_encode() -> Callable[[AutoencoderKLWan, Tensor], Tensor]:
    return torch.compile(encode_clip, dynamic=False)


def _groups(clips: Frames) -> Iterator[Frames]:
    """Groups of GROUP_CLIPS, the last one filled up with repeats of its last clip."""
    for first in range(0, len(clips), GROUP_CLIPS):
        group = clips[first : first + GROUP_CLIPS]
        yield np.concatenate([group, np.repeat(group[-1:], GROUP_CLIPS - len(group), axis=0)])


def latent_statistics(features: Features) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of raw latents per channel, each [c]: what normalisation takes out."""
    mean = features.mean.float()
    return mean.mean((0, 2, 3, 4)), mean.std((0, 2, 3, 4))
