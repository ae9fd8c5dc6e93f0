"""Which kinds of low-bit weights a device computes with, and in which number formats."""

import torch

from contentv.base.errors import UserError

KINDS = ("int8", "int8-dynamic", "int4", "nf4", "fp8")
"""Ways to keep weights, by their names in `enable_model_quantization`."""

_KINDS_OF = {
    "cpu": ("int8", "int8-dynamic"),
    "cuda": KINDS,
}
# Weights that are turned back into floats for plain products: every device can.
_ANYWHERE = ("int8",)
_NEEDS = {
    "int8-dynamic": "multiplies integers, which torch does on CPUs and CUDA cards",
    "int4": "has kernels for CUDA cards only",
    "nf4": "is loaded by diffusers' bitsandbytes quantizer, which asks for a GPU",
    "fp8": "is multiplied by CUDA cards of compute capability 8.9 and above only",
}
_FP8_CAPABILITY = (8, 9)
_HALF_FITS = ("nf4",)
_BFLOAT16_ONLY = ("int4", "fp8")


def check_kind(kind: str) -> None:
    """UserError when there is no such kind."""
    if kind not in KINDS:
        raise UserError(f"quantization={kind}: must be one of {', '.join(KINDS)}")


def check_runs(kind: str, device: torch.device) -> None:
    """UserError when `device` has no kernels for weights of this kind."""
    check_kind(kind)
    possible = _KINDS_OF.get(device.type, _ANYWHERE)
    if kind == "fp8" and kind in possible and _capability(device) < _FP8_CAPABILITY:
        possible = tuple(other for other in possible if other != "fp8")
    if kind not in possible:
        raise UserError(
            f"quantization={kind}: {_NEEDS[kind]}; on {device.type} use {' or '.join(possible)}"
        )


def check_dtype(kind: str, name: str, dtype: torch.dtype) -> None:
    """UserError when the part called `name` computes in a format that does not go with `kind`."""
    if dtype == torch.float16 and kind not in _HALF_FITS:
        raise UserError(
            f"quantization={kind}: {name} computes in float16, which the products of whole numbers "
            "overflow; load it with dtype=torch.bfloat16 or torch.float32"
        )
    if dtype != torch.bfloat16 and kind in _BFLOAT16_ONLY:
        raise UserError(
            f"quantization={kind}: {name} computes in {str(dtype).removeprefix('torch.')}, the "
            "kernels in bfloat16 only; load it with dtype=torch.bfloat16"
        )


def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)
