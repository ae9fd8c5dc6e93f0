"""What one training step consumes, noise included: nothing random is drawn after this."""

from dataclasses import dataclass, replace
from typing import Self

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

    def to(self, device: torch.device) -> Self:
        """The same batch on `device`."""
        return replace(
            self,
            latents=self.latents.to(device),
            noise=self.noise.to(device),
            sigma=self.sigma.to(device),
        )


@dataclass(frozen=True)
class TowerBatch(LatentBatch):
    """A latent batch whose three text encoders read captions of their own.

    `captions` is what the first reads. Each encoder's captions are dropped by themselves.
    """

    captions_2: tuple[str, ...]
    captions_3: tuple[str, ...]
