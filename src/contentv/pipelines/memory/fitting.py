"""`pipe.fit(vram_gb=8)`: chooses a mode for a loaded pipeline, and puts the pipeline into it."""

from dataclasses import replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import torch
from diffusers import AutoencoderKLWan
from torch import nn

from contentv.base.device import main_memory, pick_device, total_memory
from contentv.lowbit.libraries import kind_of
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.models.vae import to_bfloat16
from contentv.pipelines.config import Decoding, Quantization
from contentv.pipelines.memory.choosing import MemoryPlan, choose, limits_within
from contentv.pipelines.memory.modes import Mode
from contentv.pipelines.memory.predicting import GIB, Call
from contentv.pipelines.memory.sizes import ModelSizes, known_kind, sizes_of_configs
from contentv.pipelines.preparation import fill_in, latent_shape
from contentv.video.shapes import ScaleFactors

if TYPE_CHECKING:
    from contentv.pipelines.pipeline import ContentVPipeline

_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


def fit(
    pipe: "ContentVPipeline",
    vram_gb: float,
    *,
    host_gb: float | None,
    height: int | None,
    width: int | None,
    num_frames: int | None,
    quantization: Quantization | None,
) -> MemoryPlan:
    """See `Placement.fit`."""
    device = pick_device()
    host = host_memory() if host_gb is None else host_gb
    limits = limits_within(vram_gb, host, card_memory(device))
    sizes = sizes_of(pipe)
    settings = fill_in(pipe.defaults, height=height, width=width, num_frames=num_frames)
    latent = latent_shape(settings, pipe.vae, pipe.transformer)
    call = Call(
        video=ScaleFactors().pixels(latent),
        text_tokens=sizes.clip_tokens + max(pipe.defaults.text_lengths),
        steps=settings.num_inference_steps,
        rows=pipe.guidance_passes.rows,
        itemsize=pipe.transformer.dtype.itemsize,
    )
    plan = choose(sizes, [call], limits, quantization=quantization, lazy=(pipe.is_lazy,))
    if plan.mode.quantization != sizes.kind:
        assert plan.mode.quantization is not None
        pipe.disable_offload()
        pipe.enable_model_quantization(plan.mode.quantization)
    place(pipe, plan.mode, chunk=plan.chunk, device=device)
    return plan


def card_memory(device: torch.device) -> float | None:
    """GiB of the card that a device is; None: it is none; inf: its driver does not say."""
    if device.type == "cpu":
        return None
    total = total_memory(device)
    return inf if total is None else total / GIB


def host_memory() -> float:
    """GiB of main memory that a program may use here: nine tenths; inf: it is not known."""
    total = main_memory()
    return inf if total is None else 0.9 * total / GIB


def sizes_of(pipe: "ContentVPipeline") -> ModelSizes:
    """Sizes of the parts that a pipeline has."""
    encoders = {name: getattr(pipe, name) for name in _ENCODERS}
    configs = {name: part.config.to_dict() for name, part in encoders.items() if part is not None}
    parts = {"transformer": pipe.transformer.config, "vae": pipe.vae.config, **configs}
    sizes = sizes_of_configs(parts)
    from_disk = pipe._parts.get("transformer")  # noqa: SLF001
    kind = kind_of(pipe.transformer) if from_disk is None else from_disk.kind
    return sizes if kind is None else replace(sizes, kind=known_kind(kind))


def place(pipe: "ContentVPipeline", mode: Mode, *, chunk: int | None, device: torch.device) -> None:
    """Puts a pipeline into a mode, whatever it was in before, to compute on `device`.

    `chunk` tokens go through a feed-forward at a time. Weights keep the form they are in: an
    autoencoder that was rounded to bfloat16 stays so.
    """
    pipe.disable_offload()
    pipe.enable_precomputed_modulation(mode.modulation)
    pipe._when_present("transformer", partial(_chunk, tokens=chunk))  # noqa: SLF001
    pipe._when_present("vae", partial(_decode_by, way=mode.decoding))  # noqa: SLF001
    if mode.offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif mode.offload == "group":
        pipe.enable_group_offload(onload_device=device, low_cpu_mem_usage=not mode.pinned)
    elif mode.offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        pipe.to(device)


def _chunk(transformer: nn.Module, *, tokens: int | None) -> None:
    assert isinstance(transformer, ContentVTransformer3DModel)
    if tokens is None:
        transformer.disable_forward_chunking()
    else:
        transformer.enable_forward_chunking(tokens)


def _decode_by(vae: nn.Module, *, way: Decoding) -> None:
    assert isinstance(vae, AutoencoderKLWan)
    if way == "tiles":
        vae.enable_tiling()
    else:
        vae.disable_tiling()
    if way == "bfloat16":
        to_bfloat16(vae)
