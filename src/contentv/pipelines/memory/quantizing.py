"""Weights of few bits in a pipeline: which parts, at which moment, and what it saved."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import torch
from diffusers import DiffusionPipeline
from diffusers.hooks.group_offloading import _is_group_offload_enabled
from diffusers.hooks.layerwise_casting import _LAYERWISE_CASTING_HOOK
from torch import nn

from contentv.base.device import pick_device
from contentv.base.errors import UserError
from contentv.base.log import get_logger
from contentv.lowbit.backends.support import check_dtype, check_runs
from contentv.lowbit.libraries import (
    EVERY_LAYER,
    Layers,
    check_installed,
    kind_of,
    quantize_layers,
    stored_bytes,
)
from contentv.pipelines.memory.offloading import is_compiled

DEFAULT_COMPONENTS = ("transformer", "text_encoder_3")
"""A pipeline's two large parts."""

TRANSFORMER_LAYERS = Layers(
    tokens=r"transformer_blocks\.\d+\.(attn\.(to|add)_.+|ff(_context)?\..+)",
    # A modulation reads one vector a sample: a third of the weights, next to none of the work.
    vectors=r"transformer_blocks\.\d+\.norm1(_context)?\.linear",
    # Half a percent of the weights, and all that enters or leaves goes through them.
    kept=("pos_embed", "time_text_embed", "context_embedder", "norm_out", "proj_out"),
)

_CHOICES = ("transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
_MIB = 2**20

logger = get_logger(__name__)


class QuantizedPart(NamedTuple):
    """What became of a component; nothing, when it was of this kind before."""

    name: str
    kind: str
    num_layers: int
    num_quantized: int
    num_parameters: int
    bytes_before: int
    bytes_after: int

    def __str__(self) -> str:
        if not self.num_layers:
            return f"{self.name}: is {self.kind} already ({self.bytes_after / _MIB:,.1f} MiB)"
        share = self.num_quantized / self.num_parameters
        return (
            f"{self.name}: {self.num_layers} layers to {self.kind}, {share:.1%} of "
            f"{self.num_parameters:,} parameters, {self.bytes_before / _MIB:,.1f} MiB before, "
            f"{self.bytes_after / _MIB:,.1f} MiB now"
        )


@dataclass(frozen=True)
class QuantizationReport:
    """What became of each component, in the order asked for; prints as one line each."""

    parts: tuple[QuantizedPart, ...]

    def __str__(self) -> str:
        return "\n".join(str(part) for part in self.parts)


def quantize(
    pipe: DiffusionPipeline, kind: str, components: Collection[str] | None
) -> QuantizationReport:
    """Rounds the weights of components of a loaded pipeline, in place.

    By default of the transformer and of T5, as far as the pipeline has them.
    `kind` is "int8" (weights), "int8-dynamic" (also the inputs of layers that process tokens), or,
    for graphics cards, "fp8", "int4" or "nf4". Text encoders' weights alone are ever rounded. All
    is checked before anything is changed. What is of that kind already stays, with a note.

    Raises:
        UserError: the kind, the component, the device, the number format or what was done to the
            pipeline before does not allow it; the message says what does.
    """
    device = _computing_device(pipe)
    check_runs(kind, device)
    check_installed(kind)
    if components is None:
        components = [name for name in DEFAULT_COMPONENTS if getattr(pipe, name) is not None]
    modules = {name: _component(pipe, name) for name in components}
    for name, module in modules.items():
        _check_part(pipe, name, module, kind)
    parts = [_quantize_part(name, module, kind, device) for name, module in modules.items()]
    if any(part.num_layers for part in parts):
        pipe._prompt_cache.clear()  # noqa: SLF001 - embeddings of encoders that are others now
    for part in parts:
        logger.info("%s", part)
    return QuantizationReport(tuple(parts))


def check_can_fuse(pipe: DiffusionPipeline) -> None:
    """UserError when LoRAs would be added to weights that are rounded already."""
    for name, part in pipe.components.items():
        kind = kind_of(part) if isinstance(part, nn.Module) else None
        if kind is not None:
            raise UserError(
                f"fuse_lora: {name} is {kind}, and its weights are not rounded again; leave the "
                "LoRA loaded beside them, or fuse it into the float model and quantize then"
            )


def align_floats(module: nn.Module) -> None:
    """Copies what a quantized network has left in floats to where products expect it in memory.

    A file's tensors begin anywhere, and on a CPU the last bit of a product depends on where its
    weights begin: a model and its saved copy would differ by it. Float networks are left alone.
    """
    if kind_of(module) is None:
        return
    for parameter in module.parameters():
        if type(parameter) is nn.Parameter and parameter.device.type == "cpu":
            parameter.data = parameter.data.clone()


def kind_for(name: str, kind: str) -> str:
    """The kind of a component: text encoders, which run once a prompt, keep their inputs."""
    return "int8" if kind == "int8-dynamic" and name != "transformer" else kind


def _computing_device(pipe: DiffusionPipeline) -> torch.device:
    """Where the pipeline computes, now or once it is moved or offloaded."""
    device: torch.device = pipe._execution_device  # noqa: SLF001
    return pick_device() if device.type == "cpu" else device


def _component(pipe: DiffusionPipeline, name: str) -> nn.Module:
    if name not in _CHOICES:
        raise UserError(f"components: {name} is not quantized; use {', '.join(_CHOICES)}")
    module: nn.Module | None = getattr(pipe, name)
    if module is None:
        raise UserError(f"components: this pipeline has no {name}; leave it out of components")
    return module


def _check_part(pipe: DiffusionPipeline, name: str, module: nn.Module, kind: str) -> None:
    wanted, found = kind_for(name, kind), kind_of(module)
    if found is not None and found != wanted:
        raise UserError(
            f"quantization={kind}: {name} is {found} already, and rounding twice adds up; load the "
            "model again with the kind you want"
        )
    if found is not None:
        return
    check_dtype(wanted, name, _dtype(module))
    fault = next((fault for fault, found in _faults(pipe, module).items() if found), None)
    if fault is not None:
        raise UserError(f"quantization={kind}: {name} {fault}")


def _faults(pipe: DiffusionPipeline, module: nn.Module) -> dict[str, bool]:
    """What must not be the case, the way out beside it."""
    modules = list(module.modules())
    spread = getattr(pipe, "hf_device_map", None) is not None
    offloaded = any(hasattr(each, "_hf_hook") for each in modules)
    return {
        "was placed by device_map; load it without, quantize, then move or offload it": spread,
        "is offloaded already; quantize first, then offload": (
            offloaded or _is_group_offload_enabled(module)
        ),
        "is compiled already; quantize first, then compile": is_compiled(module),
        "has its weights cast layer by layer; use one or the other": any(map(_is_cast, modules)),
        "carries a LoRA; load it after quantizing, or make it part of the weights before: "
        "fuse_lora(), then unload_lora_weights()": bool(getattr(module, "peft_config", None)),
        "is in training mode; call eval() on it, or train on float weights": module.training,
    }


def _dtype(module: nn.Module) -> torch.dtype:
    dtype = module.dtype
    assert isinstance(dtype, torch.dtype)
    return dtype


def _is_cast(module: nn.Module) -> bool:
    registry = getattr(module, "_diffusers_hook", None)
    return registry is not None and registry.get_hook(_LAYERWISE_CASTING_HOOK) is not None


def _quantize_part(name: str, module: nn.Module, kind: str, device: torch.device) -> QuantizedPart:
    kind = kind_for(name, kind)
    num_parameters = sum(parameter.numel() for parameter in module.parameters())
    before = stored_bytes(module)
    num_layers = num_quantized = 0
    if kind_of(module) is None:
        layers = TRANSFORMER_LAYERS if name == "transformer" else EVERY_LAYER
        num_layers, num_quantized = quantize_layers(module, kind, layers, _dtype(module), device)
        align_floats(module)
    after = stored_bytes(module)
    return QuantizedPart(name, kind, num_layers, num_quantized, num_parameters, before, after)
