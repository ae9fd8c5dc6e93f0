"""Weights that rest in main memory and visit the accelerator: what may be combined, and streaming.

Whole parts and single layers travel by accelerate's hooks, through diffusers' methods; groups of
layers by diffusers' group offloading, which copies the next group while one computes.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.hooks import ModelHook
from diffusers import DiffusionPipeline
from diffusers.hooks import HookRegistry, apply_group_offloading
from torch import nn

from contentv.base.device import pick_device
from contentv.base.errors import UserError

Offload = Literal["none", "model", "sequential", "group"]

CPU = torch.device("cpu")
# Ways to the list of blocks, where a network does not have it itself.
_BLOCKS = {
    "text_encoder": ["text_model", "encoder", "text_projection"],
    "text_encoder_2": ["text_model", "encoder", "text_projection"],
}
_GROUP_HOOKS = ("group_offloading", "layer_execution_tracker", "lazy_prefetch_group_offloading")


class WholeOnUse(ModelHook):
    """Calls `bring` before each use of a network, which then computes on `device`.

    `bring` says whether it put hooks around the network, which then begins its call anew.
    diffusers' autoencoders ask for it in `encode` and `decode` also.
    """

    def __init__(self, device: torch.device, bring: Callable[[], bool]) -> None:
        self.execution_device = device  # diffusers reads it
        self._bring = bring

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:  # noqa: ANN401, ARG002 - accelerate's
        """For functions beside `forward`: inputs as they are."""
        self._bring()
        return args, kwargs

    def put_on(self, network: nn.Module) -> None:
        """From now on; below the hooks of others, which may come and go."""
        inner = network.forward

        def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the network's own
            return (network.forward if self._bring() else inner)(*args, **kwargs)

        network.forward = forward
        network._hf_hook = self  # noqa: SLF001

    @staticmethod
    def take_off(network: nn.Module) -> None:
        """Undoes `put_on`."""
        del network.forward, network._hf_hook  # noqa: SLF001


def networks(pipe: DiffusionPipeline) -> dict[str, nn.Module]:
    """The networks of a pipeline that are there, by name."""
    return {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}


def computing_device(kind: Offload, device: torch.device | str | None) -> torch.device:
    """Where offloaded parts compute: `device`, else this machine's accelerator.

    Raises:
        UserError: there is none. A CPU must be asked for by name: it is for tests.
    """
    found = pick_device() if device is None else torch.device(device)
    if device is None and found.type == "cpu":
        raise UserError(f"{kind} offload: there is nothing to unload from a CPU; leave it out")
    return found


def check_offload(pipe: DiffusionPipeline, kind: Offload, found: Offload) -> None:
    """UserError when a pipeline that has `found` cannot have its parts offloaded as `kind`."""
    if found not in ("none", kind):
        raise UserError(f"{kind} offload: {found} offload is on; pipe.disable_offload() first")
    if pipe._is_pipeline_device_mapped():  # noqa: SLF001
        raise UserError(
            f"{kind} offload: device_map has placed the parts; load without device_map, or call "
            "pipe.reset_device_map() first"
        )
    if found == kind:
        return
    for name, network in networks(pipe).items():
        if is_compiled(network):
            raise UserError(f"{kind} offload: {name} is compiled already; offload, then compile")
        if kind != "model" and _has_bitsandbytes(network):
            raise UserError(
                f"{kind} offload: {name} is quantized by bitsandbytes, whose scales do not travel "
                "layer by layer; use enable_model_cpu_offload(), or int8 and int4 of torchao"
            )


def is_compiled(network: nn.Module) -> bool:
    """Whether a network or a part of it runs compiled."""
    return any(
        hasattr(each, "_orig_mod") or each._compiled_call_impl is not None  # noqa: SLF001
        for each in network.modules()
    )


def _has_bitsandbytes(network: nn.Module) -> bool:
    return any(type(p).__module__.startswith("bitsandbytes") for p in network.parameters())


def can_stream(device: torch.device) -> bool:
    """Whether copies to a device can go on beside its computing."""
    return device.type != "cpu" and hasattr(torch.get_device_module(device), "Stream")


def check_empty(folder: Path) -> None:
    """UserError when there are files in `folder`: of whichever model, they would be read back."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"offload_to_disk_path={folder}: must be a new or empty folder")


def stream(name: str, network: nn.Module, options: Mapping[str, Any]) -> None:
    """Streams a part's weights, by `options` of diffusers' `apply_group_offloading`."""
    path = options["offload_to_disk_path"]
    # Parts of one class would write the same names.
    own = {"offload_to_disk_path": None if path is None else str(Path(path) / name)}
    # T5's table is under two names: it must not be in a second group beside that of the stack.
    target = network.encoder if name == "text_encoder_3" else network
    assert isinstance(target, nn.Module)
    apply_group_offloading(target, **{**options, **own}, block_modules=_BLOCKS.get(name))


def stop_streaming(network: nn.Module) -> None:
    """Undoes `stream`; the weights are in main memory then."""
    registry = HookRegistry.check_if_exists_or_initialize(network)
    for hook in _GROUP_HOOKS:
        registry.remove_hook(hook, recurse=True)
