"""What a call needs before its first step: a size, noise, a scheduler."""

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from contentv.base.errors import UserError
from contentv.base.log import get_logger
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.models.vae import scale_factors
from contentv.pipelines.checks import check_count, check_generators, check_number, check_size
from contentv.video.shapes import LatentShape, VideoShape, round_frames

logger = get_logger(__name__)

_PUBLISHED_BLOCKS = 38
_PUBLISHED_SHIFT = 17.0


def latent_shape(
    wanted: VideoShape, vae: AutoencoderKLWan, transformer: ContentVTransformer3DModel
) -> LatentShape:
    """Latents of a video of size `wanted`, its frames rounded down to 4k+1.

    Raises:
        UserError: sides that autoencoder and patches do not divide.
    """
    factors = scale_factors(vae)
    check_count("num_frames", wanted.frames)
    multiple = factors.space * transformer.config.patch_size
    check_size(wanted.height, wanted.width, multiple=multiple)
    frames = round_frames(wanted.frames, factors.time)
    if frames != wanted.frames:
        logger.warning("num_frames=%d: rounded down to %d = 4k+1", wanted.frames, frames)
    return factors.latent(VideoShape(frames, wanted.height, wanted.width))


def initial_latents(
    shape: LatentShape,
    channels: int,
    generator: torch.Generator | list[torch.Generator] | None,
    *,
    like: Tensor,
) -> Tensor:
    """Noise [b c t h w], one video per row of `like`, in its dtype and on its device.

    It is drawn on the generator's device, so that one seed gives one video on every machine.
    """
    check_generators(generator, len(like))
    size = (len(like), channels, shape.frames, shape.height, shape.width)
    return randn_tensor(size, generator=generator, device=like.device, dtype=like.dtype)


def shifted_scheduler(
    scheduler: FlowMatchEulerDiscreteScheduler, flow_shift: float | None, *, num_blocks: int
) -> FlowMatchEulerDiscreteScheduler:
    """The scheduler with `flow_shift` in place of its own shift; None keeps it.

    Warns when a model of the published size would sample with another shift than it was made for.
    """
    own_shift = scheduler.config.get("shift")
    if flow_shift is not None:
        check_number("flow_shift", flow_shift, above=0.0)
        if own_shift is None:
            raise UserError(f"flow_shift={flow_shift}: {type(scheduler).__name__} has no shift")
        return scheduler.from_config(scheduler.config, shift=flow_shift)
    if num_blocks == _PUBLISHED_BLOCKS and own_shift != _PUBLISHED_SHIFT:
        logger.warning(
            "the scheduler's shift is %s; the published model samples with 17: pass flow_shift=17",
            own_shift,
        )
    return scheduler
