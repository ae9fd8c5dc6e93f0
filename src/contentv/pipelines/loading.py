"""Model folders in and out: every index form that exists in, one that all can read out."""

from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import AutoencoderKLWan, DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers import CLIPTextModelWithProjection, T5EncoderModel
from transformers.utils import logging as transformers_logging

from contentv.base.errors import ModelFilesError
from contentv.base.files import read_json, write_json
from contentv.lowbit.libraries import pipeline_config
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.pipelines.folder import INDEX, read_header
from contentv.pipelines.locate import locate_model
from contentv.pipelines.memory.quantized_folder import (
    check_no_other_way,
    check_saved,
    loading_configs,
)
from contentv.pipelines.memory.quantizing import DEFAULT_COMPONENTS, align_floats

Dtype = torch.dtype | Mapping[str, torch.dtype]

_OURS = ["contentv.models.transformer", "ContentVTransformer3DModel"]
# The only entry with which the published demo.py loads a folder; diffusers reads it as well.
_PUBLISHED = ["diffusers", "SD3Transformer2DModel"]
_HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "token")
MODELS: dict[str, Any] = {
    "transformer": ContentVTransformer3DModel,
    "vae": AutoencoderKLWan,
    "text_encoder": CLIPTextModelWithProjection,
    "text_encoder_2": CLIPTextModelWithProjection,
    "text_encoder_3": T5EncoderModel,
}


class FolderPipeline(DiffusionPipeline):
    """A diffusers pipeline that reads and writes ContentV's model folders."""

    @classmethod
    def from_pretrained(
        cls,
        model: str | PathLike[str],
        *,
        dtype: Dtype | None = None,
        torch_dtype: Dtype | None = None,
        quantization: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - diffusers' own
    ) -> Self:
        """Loads a folder or Hub repository in any published form; the transformer is always ours.

        Args:
            model: folder, or Hub id.
            dtype: of all parts but the autoencoder, which stays float32; or one per component,
                `{"default": ..., "vae": ...}`. Default float32.
            torch_dtype: the older name of `dtype`.
            quantization: kind of `enable_model_quantization`, for the transformer and T5: each
                weight is rounded as it is read, so the folder's own need not fit in memory.
            kwargs: diffusers' own: components by name, device_map, quantization_config, revision...

        Raises:
            UserError: `model` is neither a folder nor a Hub id; or this machine does not compute
                with weights of the kind asked for, or found in the folder.
            ModelFilesError: a file is missing, cut short, or of another model.
        """
        folder = locate(fspath(model), cls.download, kwargs)
        check_weights(folder, passed=kwargs.keys())
        dtypes = component_dtypes(torch_dtype if dtype is None else dtype)
        loaded = components_of(folder) - kwargs.keys()
        check_saved(folder, loaded)
        if quantization is not None:
            wanted = [name for name in DEFAULT_COMPONENTS if name in loaded]
            check_no_other_way(quantization, kwargs)
            configs = loading_configs(folder, quantization, dtypes, wanted)
            kwargs["quantization_config"] = pipeline_config(configs) if configs else None
        pipe: Self = super().from_pretrained(folder, dtype=dtypes, **kwargs)
        for part in loaded & pipe.components.keys():
            align_floats(pipe.components[part])
        pipe.register_to_config(_name_or_path=fspath(model))
        return pipe

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as diffusers
        """The folder's index; all its forms lead to our transformer."""
        index = super().load_config(*args, **kwargs)
        return with_our_transformer(index) if isinstance(index, dict) else index

    def save_config(
        self,
        save_directory: str | PathLike[str],
        push_to_hub: bool = False,
        **kwargs: Any,  # noqa: ANN401 - diffusers' own
    ) -> None:
        """Writes the index, last of all parts, in the form that the published demo.py reads too."""
        super().save_config(save_directory, push_to_hub=push_to_hub, **kwargs)
        finish_saved_folder(Path(save_directory), dict(self.config))


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keeps the loaders of both libraries from drawing bars."""
    libraries = (diffusers_logging, transformers_logging)
    drawing = [library for library in libraries if library.is_progress_bar_enabled()]
    for library in drawing:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in drawing:
            library.enable_progress_bar()


def with_our_transformer(index: Mapping[str, Any]) -> dict[str, Any]:
    """The index of a folder with our class as its transformer, whatever it says or leaves out."""
    return {**index, "transformer": _OURS}


def component_dtypes(dtype: Dtype | None) -> dict[str, torch.dtype]:
    """A dtype per component, as diffusers takes it: `dtype`, by default float32.

    The autoencoder gets float32 unless a mapping has an entry for it.
    """
    if dtype is None:
        dtype = torch.float32
    given = dict(dtype) if isinstance(dtype, Mapping) else {"default": dtype}
    return {"default": torch.float32, "vae": torch.float32, **given}


def locate(model: str, download: Callable[..., str], options: MutableMapping[str, Any]) -> Path:
    """The folder of a built-in model, a path or a Hub id.

    `download` is diffusers', for those who say in `options` from where or whereto.
    """
    hub_options = {name: options.pop(name) for name in _HUB_OPTIONS if name in options}
    offline = hub_options.pop("local_files_only", False)
    if hub_options and not Path(model).is_dir():
        return Path(download(model, local_files_only=offline, **hub_options))
    return locate_model(model, offline=offline)


def check_weights(folder: Path, *, passed: Collection[str] = ()) -> None:
    """ModelFilesError when a network's files are missing, cut short or of another network.

    diffusers and transformers would fill what is missing with random numbers. Reads headers only;
    components `passed` by the caller are not looked at.
    """
    for name in components_of(folder) - set(passed):
        config_file = folder / name / "config.json"
        if not config_file.is_file():
            raise ModelFilesError(f"{config_file}: is missing; download or export the model again")
        if "quantization_config" not in read_json(config_file):
            _compare(folder / name, empty_model(MODELS[name], folder / name))


def components_of(folder: Path) -> set[str]:
    """Names of the networks that a folder has."""
    index = with_our_transformer(read_json(folder / INDEX))
    return {name for name in MODELS if (index.get(name) or [None])[0] is not None}


def finish_saved_folder(folder: Path, index: Mapping[str, Any]) -> None:
    """Rewrites what diffusers and transformers saved so that older releases can read it too."""
    parts = {
        name: _published_entry(name, entry)
        for name, entry in index.items()
        if entry is not None
        if not name.startswith("_") or name in ("_class_name", "_diffusers_version")
    }
    write_json(folder / INDEX, parts)
    for config_file in folder.glob("*/config.json"):
        # diffusers notes where a part was loaded from: a path on this machine.
        config = read_json(config_file)
        if config.pop("_name_or_path", None) is not None:
            write_json(config_file, config)
    for config in folder.glob("tokenizer*/tokenizer_config.json"):
        _make_tokenizer_classic(config)


def _published_entry(name: str, entry: Any) -> Any:  # noqa: ANN401 - a value of the index
    if name == "transformer":
        return _PUBLISHED
    if isinstance(entry, list | tuple) and entry[1] in ("T5Tokenizer", "TokenizersBackend"):
        return ["transformers", "T5TokenizerFast"]
    return entry


def _make_tokenizer_classic(config_file: Path) -> None:
    """Undoes what transformers 5 writes and 4.x cannot read."""
    config = read_json(config_file)
    extra = config.pop("extra_special_tokens", [])
    if isinstance(extra, list) and extra:
        config["additional_special_tokens"] = extra
    for note in ("backend", "is_local", "local_files_only"):
        config.pop(note, None)
    if config.get("tokenizer_class") in ("T5Tokenizer", "TokenizersBackend"):
        config["tokenizer_class"] = "T5TokenizerFast"
    write_json(config_file, config)
    tokenizer_file = config_file.with_name("tokenizer.json")
    tokenizer = read_json(tokenizer_file)
    # What the last call asked for would otherwise be part of the model.
    write_json(tokenizer_file, {**tokenizer, "truncation": None, "padding": None})
    if tokenizer["model"]["type"] == "BPE":
        _write_bpe_files(config_file.parent, tokenizer["model"])


def _write_bpe_files(folder: Path, model: Mapping[str, Any]) -> None:
    """CLIP's slow tokenizer reads a vocabulary and merges, not tokenizer.json."""
    write_json(folder / "vocab.json", model["vocab"])
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    text = "\n".join(["#version: 0.2", *pairs]) + "\n"
    (folder / "merges.txt").write_text(text, encoding="utf-8")


def empty_model(model_class: Any, folder: Path) -> nn.Module:  # noqa: ANN401 - two libraries
    """A network as the folder's config says, its weights on the meta device."""
    with torch.device("meta"):
        if issubclass(model_class, CLIPTextModelWithProjection | T5EncoderModel):
            config = model_class.config_class.from_pretrained(folder)
            model: nn.Module = model_class(config)
        else:
            model = model_class.from_config(model_class.load_config(folder))
    return model


def _compare(folder: Path, model: nn.Module) -> None:
    found: dict[str, tuple[int, ...]] = {}
    for file in folder.glob("*.safetensors"):
        found |= {name: tuple(entry["shape"]) for name, entry in read_header(file).items()}
    if not found:
        raise ModelFilesError(f"{folder}: no .safetensors file; download or export the model again")
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    other = f"so these are not the weights of a {type(model).__name__} with this config"
    for name, shape in expected.items():
        if found.get(name, shape) != shape:
            raise ModelFilesError(f"{folder}: {name} is {found[name]}, must be {shape}, {other}")
    missing = sorted(expected.keys() - found.keys())
    # transformers renames and ties text encoders' weights as it loads; only strangers lack most.
    is_text_encoder = not isinstance(model, ContentVTransformer3DModel | AutoencoderKLWan)
    if len(missing) > (len(expected) // 2 if is_text_encoder else 0):
        raise ModelFilesError(
            f"{folder}: lacks {missing[0]} and {len(missing) - 1} other tensors, {other}"
        )
