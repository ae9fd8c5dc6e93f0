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
from contentv.pipelines.folder import GenerationDefaults
from contentv.video.shapes import LatentShape, VideoShape, round_frames

logger = get_logger(__name__)

_PUBLISHED_BLOCKS = 38
_PUBLISHED_SHIFT = 17.0


def fill_in(defaults: GenerationDefaults, **given: float | None) -> GenerationDefaults:
    """The settings of a call: those given, the folder's own where None.

    Raises:
        UserError: a number of frames or steps below 1, guidance or shift that is no finite number.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = defaults.model_copy(update=chosen)
    check_count("num_frames", settings.num_frames)
    check_count("num_inference_steps", settings.num_inference_steps)
    check_number("guidance_scale", settings.guidance_scale)
    if settings.flow_shift is not None:
        check_number("flow_shift", settings.flow_shift, above=0.0)
    return settings


def latent_shape(
    settings: GenerationDefaults, vae: AutoencoderKLWan, transformer: ContentVTransformer3DModel
) -> LatentShape:
    """Latents of a video of the size in `settings`, its frames rounded down to 4k+1.

    Raises:
        UserError: sides that autoencoder and patches do not divide.
    """
    factors = scale_factors(vae)
    height, width, wanted = settings.height, settings.width, settings.num_frames
    check_size(height, width, multiple=factors.space * transformer.config.patch_size)
    frames = round_frames(wanted, factors.time)
    if frames != wanted:
        logger.warning("num_frames=%d: rounded down to %d = 4k+1", wanted, frames)
    return factors.latent(VideoShape(frames, height, width))


def initial_latents(
    given: Tensor | None,
    shape: LatentShape,
    channels: int,
    generator: torch.Generator | list[torch.Generator] | None,
    *,
    like: Tensor,
) -> Tensor:
    """Noise [b c t h w], one video per row of `like`, in its dtype; or the latents given.

    It is drawn on the generator's device, so that one seed gives one video on every machine.

    Raises:
        UserError: generators or latents for another number of videos.
    """
    if given is not None:
        if given.ndim != 5 or given.shape[:2] != (len(like), channels):
            raise UserError(
                f"latents {tuple(given.shape)}: must be [{len(like)} {channels} t h w], "
                "a row for each video"
            )
        return given
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
        if own_shift is None:
            raise UserError(f"flow_shift={flow_shift}: {type(scheduler).__name__} has no shift")
        return scheduler.from_config(scheduler.config, shift=flow_shift)
    if num_blocks == _PUBLISHED_BLOCKS and own_shift != _PUBLISHED_SHIFT:
        logger.warning(
            "the scheduler's shift is %s; the published model samples with 17: pass flow_shift=17",
            own_shift,
        )
    return scheduler
