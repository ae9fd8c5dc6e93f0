"""Latents to pictures: the last act, which also notices when there is nothing to see."""

from collections.abc import Iterator

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from diffusers.utils import numpy_to_pil
from PIL.Image import Image
from torch import Tensor

from contentv.base.errors import UserError
from contentv.base.types import Frame
from contentv.models.vae import iter_decode
from contentv.pipelines.checks import check_finite, check_not_black
from contentv.video.transforms import to_uint8, to_unit

Videos = np.ndarray | Tensor | list[list[Image]]


def decode_videos(vae: AutoencoderKLWan, latents: Tensor, output_type: str) -> Videos:
    """Normalised latents [b c t h w] to videos in the form that `output_type` names.

    Raises:
        NumericsError: a video has NaN values or is black throughout.
    """
    video = torch.cat(list(_unit_pieces(vae, latents)), dim=2)
    if output_type == "pt":
        return video.transpose(1, 2)
    frames: np.ndarray = video.permute(0, 2, 3, 4, 1).numpy()
    return [numpy_to_pil(clip) for clip in frames] if output_type == "pil" else frames


def stream_frames(vae: AutoencoderKLWan, latents: Tensor) -> Iterator[Frame]:
    """Frames [h w 3] of one video, latents [1 c t h w], as the decoder finishes them.

    Raises:
        UserError: latents of several videos.
        NumericsError: NaN values, at once; black throughout, at the end.
    """
    if len(latents) != 1:
        raise UserError(f"latents of {len(latents)} videos: stream them one by one")
    for piece in _unit_pieces(vae, latents):
        yield from to_uint8(piece[0].permute(1, 2, 3, 0).numpy())


def _unit_pieces(vae: AutoencoderKLWan, latents: Tensor) -> Iterator[Tensor]:
    """Pieces [b 3 n h w] in 0..1, float32, on the CPU."""
    brightest = torch.zeros(len(latents))
    for piece in iter_decode(vae, latents):
        unit = to_unit(piece).float().cpu()
        check_finite(unit, "in the decoded video")
        brightest = torch.maximum(brightest, unit.amax(dim=(1, 2, 3, 4)))
        yield unit
    check_not_black(float(brightest.min()))
