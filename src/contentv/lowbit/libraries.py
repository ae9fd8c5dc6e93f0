"""The one seam of torchao, bitsandbytes and diffusers' quantizers: linear layers of few bits.

What is quantized after loading is what the libraries' own loaders make of the same settings, layer
for layer and bit for bit, so both ways save the same files.
"""

import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from contentv.base.errors import UserError

INT4_GROUP = 64
_NF4_NOTES = 160  # a layer's shape, kind and block size as text
_SAVED_AS = (
    ("Int8DynamicActivationInt8WeightConfig", "int8-dynamic"),
    ("Int8WeightOnlyConfig", "int8"),
    ("Int4WeightOnlyConfig", "int4"),
    ("Float8", "fp8"),
)


@dataclass(frozen=True)
class Layers:
    """Which linear layers of a network are quantized, by regular expressions of their whole names.

    `tokens` process many tokens a sample: where a kind rounds inputs, it rounds theirs. `vectors`
    process one: their weights alone are rounded. `kept` are parts that stay as they are.
    """

    tokens: str
    vectors: str
    kept: tuple[str, ...]

    def chosen(self, model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
        """Names and layers to quantize."""
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and self.matches(name):
                yield name, module

    def matches(self, name: str) -> bool:
        """Whether the linear layer of this name is quantized."""
        return any(re.fullmatch(pattern, name) for pattern in (self.tokens, self.vectors))


EVERY_LAYER = Layers(tokens="", vectors=".+", kept=())
"""All linear layers, weights only: what text encoders can bear."""


def check_installed(kind: str) -> None:
    """UserError when the library that makes this kind is not installed."""
    library = "bitsandbytes" if kind == "nf4" else "torchao"
    if importlib.util.find_spec(library) is None:
        raise UserError(f"quantization={kind}: needs {library}: pip install 'contentv[quant]'")


def kind_of(model: nn.Module) -> str | None:
    """The kind a network was quantized to, None for none, "another kind" for none of ours."""
    quantizer = getattr(model, "hf_quantizer", None)
    return None if quantizer is None else kind_of_config(quantizer.quantization_config.to_dict())


def kind_of_config(settings: dict[str, Any] | None) -> str | None:
    """The same of the `quantization_config` in a saved network's config.json."""
    if settings is None:
        return None
    if settings.get("load_in_4bit") and settings.get("bnb_4bit_quant_type") == "nf4":
        return "nf4"
    written = json.dumps(settings.get("quant_type"))
    return next((kind for mark, kind in _SAVED_AS if mark in written), "another kind")


def diffusers_config(kind: str, layers: Layers, dtype: torch.dtype) -> Any:  # noqa: ANN401 - theirs
    """Settings with which diffusers quantizes a network as it loads it."""
    check_installed(kind)
    from diffusers import BitsAndBytesConfig, TorchAoConfig

    if kind == "nf4":
        return BitsAndBytesConfig(**_nf4_settings(dtype), llm_int8_skip_modules=list(layers.kept))
    from torchao.quantization import FqnToConfig

    settings = FqnToConfig(
        {f"re:{layers.vectors}": _weights_only(kind), f"re:{layers.tokens}": _for_tokens(kind)}
    )
    return TorchAoConfig(settings, modules_to_not_convert=list(layers.kept))


def transformers_config(kind: str, dtype: torch.dtype) -> Any:  # noqa: ANN401 - theirs
    """The same for a network of transformers: weights of all its linear layers."""
    check_installed(kind)
    from transformers import BitsAndBytesConfig, TorchAoConfig

    if kind == "nf4":
        return BitsAndBytesConfig(**_nf4_settings(dtype), llm_int8_skip_modules=[])
    return TorchAoConfig(_weights_only(kind), modules_to_not_convert=[])


def pipeline_config(configs: dict[str, Any]) -> Any:  # noqa: ANN401 - theirs
    """Settings for each component of a pipeline, as `from_pretrained` takes them."""
    from diffusers import PipelineQuantizationConfig

    return PipelineQuantizationConfig(quant_mapping=configs)


def quantize_layers(
    model: nn.Module, kind: str, layers: Layers, dtype: torch.dtype, device: torch.device
) -> tuple[int, int]:
    """Quantizes a loaded network in place and notes on it how, so that it can be saved.

    Each layer visits `device`, where its kernels are, and goes back to where it was.

    Returns:
        How many layers and how many of their parameters.
    """
    from_diffusers = hasattr(model, "register_to_config")
    config = (
        diffusers_config(kind, layers, dtype)
        if from_diffusers
        else transformers_config(kind, dtype)
    )
    num_layers = num_parameters = 0
    for name, layer in list(layers.chosen(model)):
        num_layers += 1
        num_parameters += layer.weight.numel()
        home = layer.weight.device
        layer.to(device)
        if kind == "nf4":
            model.set_submodule(name, _nf4_layer(layer, dtype).to(device).to(home))
        else:
            _quantize_with_torchao(layer, kind, tokens=bool(re.fullmatch(layers.tokens, name)))
            layer.to(home)
    _note(model, config, from_diffusers=from_diffusers)
    return num_layers, num_parameters


def stored_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers of a network, packed ones and their scales as stored."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(_bytes(tensor) for tensor in tensors)


def predicted_bytes(kind: str, rows: int, columns: int) -> int:
    """Bytes of a weight [rows columns] once it is quantized: numbers, scales and zero points."""
    if kind in ("int8", "int8-dynamic"):
        return rows * columns + rows * (4 + 1)
    if kind == "fp8":
        return rows * columns + rows * 4
    if kind == "int4":
        # The kernel's tiles: rows of a multiple of 8, columns of a multiple of 1024.
        rows, columns = -(-rows // 8) * 8, -(-columns // 1024) * 1024
        return rows * columns // 2 + rows * columns // INT4_GROUP * (2 + 2)
    blocks = -(-rows * columns // 64)
    # Double quantization: a byte of scale per block of 64, a float per 256 of those; two tables.
    return -(-rows * columns // 2) + blocks + -(-blocks // 256) * 4 + 4 * (16 + 256) + _NF4_NOTES


def _nf4_settings(dtype: torch.dtype) -> dict[str, Any]:
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": dtype,
    }


def _nf4_layer(layer: nn.Linear, dtype: torch.dtype) -> nn.Module:
    """A layer of bitsandbytes with the weights of `layer`; moving it to a device rounds them."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    made = Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=dtype,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    made.weight = Params4bit(
        layer.weight.data,
        requires_grad=False,
        compress_statistics=True,
        quant_type="nf4",
        module=made,
    )
    made.bias = layer.bias
    made.requires_grad_(False)
    return made


def _quantize_with_torchao(layer: nn.Linear, kind: str, *, tokens: bool) -> None:
    from torchao.quantization import quantize_

    quantize_(layer, _for_tokens(kind) if tokens else _weights_only(kind))


def _weights_only(kind: str) -> Any:  # noqa: ANN401 - torchao's
    from torchao import quantization as ao

    # `set_inductor_config=False`: the compiler's settings are the process's, not this model's.
    if kind == "int4":
        return ao.Int4WeightOnlyConfig(
            group_size=INT4_GROUP,
            int4_packing_format="tile_packed_to_4d",
            set_inductor_config=False,
        )
    if kind == "fp8":
        return ao.Float8WeightOnlyConfig(set_inductor_config=False)
    return ao.Int8WeightOnlyConfig(set_inductor_config=False)


def _for_tokens(kind: str) -> Any:  # noqa: ANN401 - torchao's
    from torchao import quantization as ao

    if kind == "int8-dynamic":
        return ao.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
    if kind == "fp8":
        return ao.Float8DynamicActivationFloat8WeightConfig(
            granularity=ao.PerRow(), set_inductor_config=False
        )
    return _weights_only(kind)


def _note(model: Any, config: Any, *, from_diffusers: bool) -> None:  # noqa: ANN401 - theirs
    """What the libraries' loaders note on a network that they quantized."""
    if from_diffusers:
        from diffusers.quantizers.auto import DiffusersAutoQuantizer

        quantizer = DiffusersAutoQuantizer.from_config(config, pre_quantized=False)
        if config.quant_method != "bitsandbytes":
            quantizer.validate_environment()  # without it torchao's cannot save
        model.register_to_config(quantization_config=config)
    else:
        from transformers.quantizers.auto import AutoHfQuantizer

        quantizer = AutoHfQuantizer.from_config(config, pre_quantized=False)
        model.config.quantization_config = config
    model.hf_quantizer = quantizer
    model.is_quantized = True
    model.quantization_method = config.quant_method
    if kind_of(model) == "nf4":
        model.is_loaded_in_4bit = model.is_4bit_serializable = True


def _bytes(tensor: Any) -> int:  # noqa: ANN401 - tensors of three libraries
    if is_traceable_wrapper_subclass(tensor):
        names, _ = tensor.__tensor_flatten__()
        return sum(_bytes(getattr(tensor, name)) for name in names)
    state = getattr(tensor, "quant_state", None)
    if state is None:
        return int(tensor.nbytes)
    return int(tensor.nbytes) + sum(
        value.nbytes for value in state.as_dict(packed=True).values() if isinstance(value, Tensor)
    )
