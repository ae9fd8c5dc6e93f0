"""Where the parts of a pipeline are, in which form, and when: all that saves memory."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import Tensor, nn

from contentv.base.errors import UserError
from contentv.models.modulation import modulation_parts, stored_modulation, without_modulation
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.models.vae import to_bfloat16
from contentv.pipelines.memory.disk import ACTS, Act, FromDisk
from contentv.pipelines.memory.offloading import (
    CPU,
    Offload,
    WholeOnUse,
    can_stream,
    check_empty,
    check_offload,
    computing_device,
    networks,
    stop_streaming,
    stream,
)
from contentv.pipelines.memory.quantizing import (
    QuantizationReport,
    check_can_fuse,
    quantize,
)

if TYPE_CHECKING:
    from contentv.pipelines.config import Quantization
    from contentv.pipelines.memory.choosing import MemoryPlan
    from contentv.pipelines.pipeline import ContentVPipeline


class Placement(FromDisk):
    """Part of the pipeline: brings parts to where an act needs them, and takes them away."""

    transformer: ContentVTransformer3DModel
    _offload: Offload = "none"
    _streaming: Mapping[str, Any] | None = None
    _offload_device: torch.device | None = None
    _precomputes: bool = False
    _joint_attention_kwargs: dict[str, Any] | None

    # --- acts -------------------------------------------------------------------------------------

    @contextmanager
    def _act(self, act: Act) -> Iterator[None]:
        if act != "text":  # of the encoders, those that prompts are new to
            for name in ACTS[act] & self._parts.keys():
                self._fetch(name)
        try:
            yield
        except BaseException:
            self.maybe_free_model_hooks()
            raise
        finally:
            self._leave(act)

    def _leave(self, act: Act) -> None:
        for name, network in networks(self).items():
            part = self._parts.get(name)
            if name not in ACTS[act] or (part is not None and not part.is_present):
                continue
            if part is not None and self._releases:
                if self._offload == "group":
                    stop_streaming(network)
                part.empty()
            elif isinstance(getattr(network, "_hf_hook", None), WholeOnUse):
                self._put_away(name, network)

    def _put_away(self, name: str, network: nn.Module) -> None:
        if self._offload == "model" or (self._offload == "group" and name == "vae"):
            network.to(CPU)

    def _fetch(self, name: str) -> bool:
        """Brings a part from disk to where it computes; whether it has new hooks around it."""
        part = self._parts[name]
        is_new = not part.is_present
        if is_new:
            part.fill()
            for step in self._on_arrival.get(name, ()):
                step(part.network)
        streams = self._offload == "group" and name != "vae"
        if is_new and streams:
            assert self._streaming is not None
            stream(name, part.network, self._streaming)
        if not streams:
            self._make_room(name)
            part.network.to(self._home)
        return is_new and streams

    def _make_room(self, name: str) -> None:
        for other, part in self._parts.items():
            if self._offload == "model" and other != name and part.is_present:
                part.network.to(CPU)

    # --- offload ----------------------------------------------------------------------------------

    @property
    def offload_kind(self) -> Offload:
        """Which of the three kinds of offload is on, or "none"."""
        return "group" if self._maybe_raise_error_if_group_offload_active() else self._offload

    def enable_model_cpu_offload(
        self, gpu_id: int | None = None, device: torch.device | str | None = None
    ) -> None:
        """Keeps each part in main memory but while it computes, on an accelerator.

        Raises:
            UserError: there is no accelerator; another kind of offload is on; parts were placed by
                device_map, or compiled.
        """
        self._offload_by_hooks("model", super().enable_model_cpu_offload, gpu_id, device)

    def enable_sequential_cpu_offload(
        self, gpu_id: int | None = None, device: torch.device | str | None = None
    ) -> None:
        """Keeps each layer in main memory but while it computes: least memory, many times slower.

        Raises:
            UserError: as `enable_model_cpu_offload`; or a part is quantized by bitsandbytes, or the
                pipeline is lazy.
        """
        if self.is_lazy:
            raise UserError(
                "sequential offload: not for parts read from disk when needed; use "
                'enable_group_offload(offload_type="leaf_level")'
            )
        self._offload_by_hooks("sequential", super().enable_sequential_cpu_offload, gpu_id, device)

    def enable_group_offload(  # noqa: PLR0917 - diffusers' names and order
        self,
        onload_device: torch.device | str | None = None,
        offload_device: torch.device | str = CPU,
        offload_type: str = "block_level",
        num_blocks_per_group: int | None = 1,
        non_blocking: bool = False,
        use_stream: bool | None = None,
        record_stream: bool = False,
        low_cpu_mem_usage: bool = False,
        offload_to_disk_path: str | PathLike[str] | None = None,
        exclude_modules: str | Collection[str] | None = None,
    ) -> None:
        """Keeps weights in main memory and copies block after block while others compute.

        The autoencoder comes whole: frames and tiles call for its weights hundreds of times.

        Args:
            onload_device: where blocks compute; by default this machine's accelerator.
            offload_device: where they rest.
            offload_type: "block_level", or "leaf_level": layer by layer.
            num_blocks_per_group: blocks that travel together; with a stream always 1.
            non_blocking: as diffusers'; with a stream always so.
            use_stream: copy beside computing, from pinned memory; by default where it can be.
            record_stream: no wait per block; but copies are faster, and blocks would pile up.
            low_cpu_mem_usage: pins weights as they travel, not all of them beforehand.
            offload_to_disk_path: new or empty folder for weights, in place of main memory.
            exclude_modules: parts that stay on `onload_device`.

        Raises:
            UserError: as `enable_model_cpu_offload`; weights of bitsandbytes; files in the folder.
        """
        check_offload(self, "group", self.offload_kind)
        device = computing_device("group", onload_device)
        excluded = [exclude_modules] if isinstance(exclude_modules, str) else exclude_modules or []
        self._check_options(excluded, offload_to_disk_path)
        self.disable_offload()
        options = {
            "onload_device": device,
            "offload_device": torch.device(offload_device),
            "offload_type": offload_type,
            "num_blocks_per_group": num_blocks_per_group,
            "non_blocking": non_blocking,
            "use_stream": can_stream(device) if use_stream is None else use_stream,
            "record_stream": record_stream,
            "low_cpu_mem_usage": low_cpu_mem_usage,
            "offload_to_disk_path": offload_to_disk_path,
        }
        self._start_streaming(device, options, excluded)

    def _check_options(self, excluded: Collection[str], path: str | PathLike[str] | None) -> None:
        if path is not None:
            check_empty(Path(path))
        if excluded and self.is_lazy:
            raise UserError("exclude_modules: not for parts read from disk when needed")
        for name in excluded:
            if name not in networks(self):
                known = ", ".join(networks(self))
                raise UserError(f"exclude_modules={name}: no such part; use {known}")

    def _start_streaming(
        self, device: torch.device, options: Mapping[str, Any], excluded: Collection[str]
    ) -> None:
        self._offload, self._streaming = "group", options
        self._compute_on(device)
        for name, network in networks(self).items():
            if name in excluded:
                network.to(device)
            elif name in self._parts:
                if self._parts[name].is_present and name != "vae":
                    stream(name, network, options)
            elif name == "vae":
                network.to(CPU)
                WholeOnUse(device, self._bring_vae).put_on(network)
            else:
                stream(name, network, options)

    def _bring_vae(self) -> bool:
        assert self._streaming is not None
        self.vae.to(self._streaming["onload_device"])
        return False

    def disable_offload(self) -> None:
        """Undoes all offload; the parts are in main memory then.

        Raises:
            UserError: the weights are in files of `offload_to_disk_path`.
        """
        if self._streaming is not None and self._streaming["offload_to_disk_path"] is not None:
            raise UserError(
                f"disable_offload: weights are in {self._streaming['offload_to_disk_path']}; load "
                "the pipeline again"
            )
        if self.offload_kind == "group":
            for network in networks(self).values():
                stop_streaming(network)
            if "vae" not in self._parts and hasattr(self.vae, "_hf_hook"):
                WholeOnUse.take_off(self.vae)
        elif not self.is_lazy:
            super().remove_all_hooks()
        self._offload, self._streaming = "none", None
        self._compute_on(CPU)

    def remove_all_hooks(self) -> None:
        """Undoes model and sequential offload, by diffusers' name; not the hooks of other kinds."""
        if self._offload != "group" and not self.is_lazy:
            super().remove_all_hooks()
            self._offload = "none"

    def _offload_by_hooks(
        self,
        kind: Offload,
        enable: Callable[..., None],
        gpu_id: int | None,
        device: torch.device | str | None,
    ) -> None:
        check_offload(self, kind, self.offload_kind)
        if device is None and self._offload == kind:
            device = self._offload_device  # LoRA's loader switches it on again, and does not say
        found = computing_device(kind, device)
        if self.is_lazy:
            self._compute_on(found)
            self._offload_device = found
        else:
            enable(gpu_id=gpu_id, device=found)
        self._offload = kind

    # --- modulation, quantization -----------------------------------------------------------------

    def enable_precomputed_modulation(self, enabled: bool = True) -> None:
        """Evaluates adaLN for all steps before they begin: a third of the weights stays away.

        These weights rest in main memory, each visits the accelerator once a call. Exact but for
        rounding (1e-6). A callback may not change pooled embeddings then.
        """
        self._precomputes = enabled
        if self.is_lazy or self.offload_kind != "none":
            return  # they rest in main memory anyhow
        for module in modulation_parts(self.transformer):
            module.to(CPU if enabled else self.transformer.proj_out.weight.device)

    def _modulation_ahead(
        self, state: Mapping[str, Any], timesteps: Tensor
    ) -> AbstractContextManager[None]:
        """Around the steps of a call: what they need of adaLN, if it is to be computed before."""
        if not self._precomputes:
            return nullcontext()
        pooled = (state["pooled_prompt_embeds"], state["negative_pooled_prompt_embeds"])
        return stored_modulation(
            self.transformer,
            timesteps,
            torch.cat([rows for rows in pooled if rows is not None]),
            self._execution_device,
            lora_scale=(self._joint_attention_kwargs or {}).get("scale"),
        )

    def to(self, *args: Any, **kwargs: Any) -> Self:  # noqa: ANN401 - diffusers' own
        """As diffusers'; weights of a precomputed modulation stay in main memory.

        Raises:
            UserError: of a lazy pipeline, a number format, or a device while offload is on.
        """
        if self.is_lazy and self.offload_kind != "none":
            raise UserError("to: parts are offloaded; pipe.disable_offload() first")
        if not self._precomputes or self.is_lazy or self.offload_kind != "none":
            return super().to(*args, **kwargs)
        with without_modulation(self.transformer):
            super().to(*args, **kwargs)
        for module in modulation_parts(self.transformer):
            module.to(self.transformer.dtype)
        return self

    def enable_model_quantization(
        self, kind: str, components: Collection[str] | None = None
    ) -> QuantizationReport:
        """Keeps weights in few bits, from now on; before offload and compile.

        By default those of the transformer and of T5, as far as the pipeline has them.

        See `pipelines.quantizing.quantize` for kinds, what is refused and what is reported.
        """
        if self.is_lazy:
            self._read_quantized(kind, components)
            return QuantizationReport(())  # nothing is rounded before it is read
        return quantize(self, kind, components)

    def enable_bfloat16_decoding(self) -> None:
        """Decodes in bfloat16, channels last, from now on: half the memory, not exact.

        Its PSNR to the float32 decode is in docs/memory-and-speed.md. `pipe.vae.float()` undoes it.
        """
        self._when_present("vae", to_bfloat16)

    def fuse_lora(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - diffusers' own
        """Adds the loaded LoRAs to the weights, as diffusers does it.

        Raises:
            UserError: a part is quantized.
        """
        check_can_fuse(self)
        super().fuse_lora(*args, **kwargs)

    def fit(
        self,
        vram_gb: float,
        *,
        host_gb: float | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        quantization: "Quantization | None" = None,
    ) -> "MemoryPlan":
        """Puts the pipeline into the fastest mode in which one video fits; print the plan.

        The model's own weights and whole frames are preferred. Tiled decoding is not exact and the
        last means before rounded weights, which are used only if `quantization` allows a kind. On
        a machine without a card main memory alone is planned for, and the plan says so.

        Args:
            vram_gb: GiB of the card that may be used.
            host_gb: GiB of main memory that may be used; None: most of what the machine has. With
                little of it, open the pipeline with `lazy=True, release=True`.
            height: of the largest video to be made; None: the folder's own.
            width: of it.
            num_frames: of it.
            quantization: kind of `enable_model_quantization` that may be used where nothing else
                fits.

        Raises:
            UserError: nothing fits; it names the least that would, and the way to it.
        """
        from contentv.pipelines.memory.fitting import fit

        return fit(
            cast("ContentVPipeline", self),
            vram_gb,
            host_gb=host_gb,
            height=height,
            width=width,
            num_frames=num_frames,
            quantization=quantization,
        )
