"""What one training step consumes, noise included: nothing random is drawn after this."""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from contentv.base.types import Frames
from contentv.video.transforms import from_uint8


def video_tensor(clips: Frames) -> Tensor:
    """Bytes [b t h w 3] to float32 [b 3 t h w] in -1..1, for training and encoding alike."""
    return torch.from_numpy(from_uint8(clips)).permute(0, 4, 1, 2, 3).contiguous()


@dataclass(frozen=True)
class VideoBatch:
    """Clips for the autoencoder: video [b 3 t h w] in -1..1 and posterior noise [b z t' h' w']."""

    video: Tensor
    noise: Tensor
    keys: tuple[str, ...]

    def to(self, device: torch.device) -> "VideoBatch":
        """The same batch on `device`."""
        return replace(self, video=self.video.to(device), noise=self.noise.to(device))


class NoisedBatch(Protocol):
    """What batches for the transformer share: data, noise, and where between both to look."""

    @property
    def latents(self) -> Tensor:
        """Data [b c t h w]."""
        ...

    @property
    def noise(self) -> Tensor:
        """As many normal numbers."""
        ...

    @property
    def sigma(self) -> Tensor:
        """Noise level of each sample, [b] in 0..1."""
        ...

    @property
    def keys(self) -> tuple[str, ...]:
        """One name per sample."""
        ...


@dataclass(frozen=True)
class LatentBatch:
    """Clips for the transformer: normalised latents and noise [b z t h w], sigma [b], captions.

    A dropped caption is already the empty string.
    """

    latents: Tensor
    noise: Tensor
    sigma: Tensor
    captions: tuple[str, ...]
    keys: tuple[str, ...]

    def to(self, device: torch.device) -> "LatentBatch":
        """The same batch on `device`."""
        return replace(
            self,
            latents=self.latents.to(device),
            noise=self.noise.to(device),
            sigma=self.sigma.to(device),
        )


@dataclass(frozen=True)
class FeatureBatch:
    """All that the transformer reads in training, made by networks that do not learn.

    `latents`, `noise` [b c t h w] float32, latents normalised; `sigma` [b] float32; `sequence`
    [b n d] and `pooled` [b p] are the prompts' embeddings, in the number format of the text
    encoders, each of which has dropped its captions already.
    """

    latents: Tensor
    noise: Tensor
    sigma: Tensor
    sequence: Tensor
    pooled: Tensor
    keys: tuple[str, ...]

    def to(self, device: torch.device) -> "FeatureBatch":
        """The same batch on `device`."""
        return replace(
            self,
            latents=self.latents.to(device),
            noise=self.noise.to(device),
            sigma=self.sigma.to(device),
            sequence=self.sequence.to(device),
            pooled=self.pooled.to(device),
        )
