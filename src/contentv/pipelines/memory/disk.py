"""Networks that are empty until they are needed: their weights are read from disk then.

An empty network is real but for its weights, which are on the meta device. It keeps its identity
and all that was switched on in it (chunks, tiles, back-ends, caches) as weights come and go.
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, Self

import torch
from diffusers import DiffusionPipeline
from torch import nn

from contentv.base.errors import ModelFilesError, UserError
from contentv.lowbit.libraries import kind_of_config
from contentv.pipelines.loading import (
    MODELS,
    check_weights,
    component_dtypes,
    components_of,
    empty_model,
    locate,
    no_progress_bars,
)
from contentv.pipelines.memory.offloading import CPU, WholeOnUse
from contentv.pipelines.memory.quantized_folder import check_saved, loading_configs
from contentv.pipelines.memory.quantizing import DEFAULT_COMPONENTS, align_floats
from contentv.pipelines.prompts import PromptCache

Act = Literal["text", "denoise", "decode"]
"""What a call does, one after another."""

ACTS: Mapping[Act, set[str]] = {
    "text": {"text_encoder", "text_encoder_2", "text_encoder_3"},
    "denoise": {"transformer"},
    "decode": {"vae"},
}
"""The networks that each act needs."""

Step = Callable[[nn.Module], None]
"""What is done to a part once its weights are there, in place."""


class DiskPart:
    """A network and the folder its weights are in."""

    def __init__(self, folder: Path, name: str, dtype: torch.dtype) -> None:
        self._folder, self._name = folder / name, name
        self.dtype = dtype
        self.quantization: Any = None  # a config of the library that reads it
        self.network = self._empty()
        self.empty()

    def fill(self) -> None:
        """Reads the weights.

        Raises:
            ModelFilesError: they cannot be read (any more).
        """
        options = {"dtype": self.dtype}
        if self.quantization is not None:
            options["quantization_config"] = self.quantization
        try:
            with no_progress_bars():
                read = MODELS[self._name].from_pretrained(self._folder, **options)
        except (OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelFilesError(f"{self._folder}: cannot be read ({reason})") from error
        align_floats(read)
        transplant(read, self.network)
        self.is_present = True

    @property
    def kind(self) -> str | None:
        """What the weights are rounded to as they are read; None: they stay as the folder's."""
        return None if self.quantization is None else kind_of_config(self.quantization.to_dict())

    def empty(self) -> None:
        """Lets the weights go."""
        transplant(self._empty(), self.network)
        self.is_present = False

    def _empty(self) -> nn.Module:
        network = empty_model(MODELS[self._name], self._folder)
        return nn.Module.to(network, self.dtype).eval()  # the libraries' own warn of lost digits


def transplant(source: nn.Module, target: nn.Module) -> None:
    """Gives `target` the weights of a network of the same architecture.

    Layers of another class, as quantization makes them, come whole, and so do a loader's notes.
    Weights count as not written to since, so prompts stay in the prompt cache.
    """
    fresh: dict[int, nn.Parameter] = {}
    for name, theirs in list(source.named_modules()):
        mine = target.get_submodule(name)
        if type(mine) is not type(theirs):
            target.set_submodule(name, theirs)
            continue
        for key, parameter in theirs._parameters.items():  # noqa: SLF001 - tied weights stay tied
            mine._parameters[key] = _unwritten(parameter, fresh)  # noqa: SLF001
        mine._buffers.update(theirs._buffers)  # noqa: SLF001
    for note, value in vars(source).items():
        if note not in vars(target):
            setattr(target, note, value)


def _unwritten(
    parameter: nn.Parameter | None, fresh: dict[int, nn.Parameter]
) -> nn.Parameter | None:
    if parameter is None or type(parameter) is not nn.Parameter:
        return parameter
    if type(parameter.data) is not torch.Tensor:  # quantized: its parts would be lost
        return parameter
    if id(parameter) not in fresh:
        fresh[id(parameter)] = nn.Parameter(parameter.data, parameter.requires_grad)
    return fresh[id(parameter)]


class FromDisk(DiffusionPipeline):
    """Part of the pipeline: networks that are read when they are needed. Other pipelines have none.

    `_home` is where they compute. `_on_arrival` are steps for networks that have just been read.
    """

    _parts: Mapping[str, DiskPart] = {}
    _on_arrival: Mapping[str, list[Step]] = {}
    _prompt_cache: PromptCache
    _folder: Path
    _releases: bool = False
    _home: torch.device = CPU

    @classmethod
    def from_pretrained(
        cls,
        model: str | PathLike[str],
        *,
        lazy: bool = False,
        release: bool = False,
        **kwargs: Any,  # noqa: ANN401 - the folder's and diffusers' own
    ) -> Self:
        """Loads a folder or Hub repository; see `FolderPipeline.from_pretrained` for all options.

        Args:
            model: folder, or Hub id.
            lazy: read each network when it is first needed. Files are checked now.
            release: let it go when its act (text, denoise, decode) ends. Prompts used before need
                no text encoders again.
            kwargs: as without `lazy`, but for device_map and quantization_config.

        Raises:
            UserError: options that contradict each other.
            ModelFilesError: a file is missing, cut short, or of another model.
        """
        if not lazy:
            if release:
                raise UserError("release=True: what is read once cannot be let go; add lazy=True")
            return super().from_pretrained(model, **kwargs)
        folder = locate(fspath(model), cls.download, kwargs)
        parts = _parts_of(folder, kwargs)
        networks = {name: part.network for name, part in parts.items()}
        pipe: Self = super().from_pretrained(folder, **kwargs, **networks)
        pipe.register_to_config(_name_or_path=fspath(model))
        pipe._folder, pipe._parts, pipe._releases = folder, parts, release
        pipe._on_arrival = {name: [] for name in parts}
        pipe._compute_on(CPU)
        for name, network in networks.items():
            WholeOnUse(CPU, partial(pipe._fetch, name)).put_on(network)
        return pipe

    @property
    def is_lazy(self) -> bool:
        """Whether networks are read when they are needed."""
        return bool(self._parts)

    @property
    def _execution_device(self) -> torch.device:
        return self._home if self.is_lazy else super()._execution_device

    def _fetch(self, name: str) -> bool:
        """Brings a network; whether it has new hooks around it."""
        raise NotImplementedError

    def _when_present(self, name: str, step: Step) -> None:
        """Does something to a network, now if it is there, and whenever it comes from disk."""
        if name in self._parts:
            self._on_arrival[name].append(step)
        network: nn.Module | None = getattr(self, name)
        if network is not None and (name not in self._parts or self._parts[name].is_present):
            step(network)

    def _read_quantized(self, kind: str, components: Collection[str] | None) -> None:
        if components is None:
            components = [name for name in DEFAULT_COMPONENTS if name in self._parts]
        for name in components:
            if name not in self._parts or name == "vae":
                raise UserError(f"components: {name} is not read from disk, or never quantized")
        if any(part.is_present for part in self._parts.values()) and self._home != CPU:
            raise UserError(f"quantization={kind}: parts are offloaded or moved; quantize first")
        _quantize(self._folder, self._parts, kind, components)
        self._prompt_cache.clear()

    def _compute_on(self, device: torch.device) -> None:
        """For lazy pipelines: where networks go, those that are there at their next use."""
        self._home = device
        for part in self._parts.values():
            if part.is_present:
                part.network.to(CPU)

    def to(self, *args: Any, **kwargs: Any) -> Self:  # noqa: ANN401 - diffusers' own
        """As diffusers'; networks that are still to be read go to the device then.

        Raises:
            UserError: a number format, for a lazy pipeline.
        """
        if not self.is_lazy:
            return super().to(*args, **kwargs)
        values = [value for value in (*args, *kwargs.values()) if value is not None]
        if any(isinstance(value, torch.dtype) for value in values):
            raise UserError("to(dtype): weights are read in a format; from_pretrained(..., dtype=)")
        for device in values:
            self._compute_on(torch.device(device))
        return self

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - diffusers' own
        """As diffusers'; reads what is not there for it."""
        absent = [part for part in self._parts.values() if not part.is_present]
        try:
            for part in absent:
                part.fill()
            super().save_pretrained(*args, **kwargs)
        finally:
            for part in absent:
                part.empty()

    def load_lora_weights(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - diffusers' own
        """As diffusers'.

        Raises:
            UserError: the pipeline is lazy: adapters would go with the weights they sit on.
        """
        if self.is_lazy:
            raise UserError(
                "LoRA: not for parts read from disk when needed; load without lazy=True, or save a "
                "folder with it: fuse_lora(), unload_lora_weights(), save_pretrained()"
            )
        super().load_lora_weights(*args, **kwargs)


def _parts_of(folder: Path, options: dict[str, Any]) -> dict[str, DiskPart]:
    """The networks of a folder but for those in `options`, whose `quantization` is used up."""
    for name in ("device_map", "quantization_config"):
        if name in options:
            raise UserError(f"{name}: not with lazy=True; use pipe.fit, .to or quantization=")
    names = components_of(folder) - options.keys()
    check_weights(folder, passed=options.keys())
    check_saved(folder, names)
    dtype = options.get("torch_dtype") if options.get("dtype") is None else options["dtype"]
    dtypes = component_dtypes(dtype)
    parts = {
        name: DiskPart(folder, name, dtypes.get(name, dtypes["default"])) for name in sorted(names)
    }
    kind = options.pop("quantization", None)
    if kind is not None:
        _quantize(folder, parts, kind, [name for name in DEFAULT_COMPONENTS if name in parts])
    return parts


def _quantize(
    folder: Path, parts: Mapping[str, DiskPart], kind: str, names: Collection[str]
) -> None:
    """From now on, weights of `names` are rounded as they are read."""
    dtypes = {name: parts[name].dtype for name in names}
    for name, settings in loading_configs(folder, kind, dtypes, names).items():
        parts[name].quantization = settings
        if parts[name].is_present:
            parts[name].empty()
