"""Heads: what turns an embedding into a score. LAION's for pictures, and our own for clips."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contentv.base.errors import UserError
from contentv.base.files import atomic_path, os_errors

Vectors = NDArray[np.floating[Any]]

_LAION_WIDTHS = (768, 1024, 128, 64, 16, 1)
_LAION_LAYERS = (0, 2, 4, 6, 7)  # places of the linear layers; dropout is between the first ones
_KIND = "contentv clip head 1"


@dataclass(frozen=True)
class LinearHead:
    """Scores ``[n d]`` vectors: `weights` ``[d]`` times a vector, plus `bias`."""

    weights: NDArray[np.float64]
    bias: float

    def __call__(self, vectors: Vectors) -> NDArray[np.float64]:
        """Give a score for each vector."""
        return vectors @ self.weights + self.bias


@dataclass(frozen=True)
class ClipHead:
    """A head over the vectors of clips. `embedding` names the only ones that it may score."""

    head: LinearHead
    embedding: str
    facts: Mapping[str, str]


def load_laion_head(path: Path) -> LinearHead:
    """Load LAION's aesthetic head for unit vectors of CLIP-L/14, 768-1024-128-64-16-1.

    Its layers have no activation between them, so they are multiplied into one. From a .pth file
    of the improved-aesthetic-predictor, or the same tensors as .safetensors. UserError when it
    holds anything else.
    """
    tensors = _tensors(path)
    weights, bias = np.eye(_LAION_WIDTHS[0]), np.zeros(_LAION_WIDTHS[0])
    for layer, (width, out) in zip(_LAION_LAYERS, pairwise(_LAION_WIDTHS), strict=True):
        matrix = tensors.get(f"layers.{layer}.weight", np.zeros(0))
        offset = tensors.get(f"layers.{layer}.bias", np.zeros(0))
        if matrix.shape != (out, width) or offset.shape != (out,):
            sizes = "-".join(map(str, _LAION_WIDTHS))
            raise UserError(f"{path}: layers.{layer} does not fit; give LAION's head {sizes}")
        weights, bias = matrix @ weights, matrix @ bias + offset
    return LinearHead(weights[0], float(bias[0]))


def save_clip_head(path: Path, head: ClipHead) -> None:
    """Write a head as safetensors, atomically, with the name of its embedding in the metadata."""
    from safetensors.numpy import save_file

    tensors = {"weights": head.head.weights, "bias": np.array([head.head.bias])}
    said = {**head.facts, "kind": _KIND, "embedding": head.embedding}
    with atomic_path(path) as part:
        save_file(tensors, part, metadata=said)


def load_clip_head(path: Path) -> ClipHead:
    """Read a head that `contentv curate teach` wrote; UserError when it is something else."""
    from safetensors import SafetensorError, safe_open

    try:
        with os_errors(path, "read"), safe_open(path, "np") as file:
            said = dict(file.metadata() or {})
            weights, bias = file.get_tensor("weights"), file.get_tensor("bias")
    except SafetensorError as error:
        raise UserError(f"{path}: is no head of contentv curate teach ({error})") from error
    shaped = weights.ndim == 1 and bias.shape == (1,)
    if said.pop("kind", "") != _KIND or "embedding" not in said or not shaped:
        raise UserError(f"{path}: is no head of contentv curate teach")
    embedding = said.pop("embedding")
    return ClipHead(LinearHead(weights.astype(np.float64), float(bias[0])), embedding, said)


def apply_head(head: ClipHead, vectors: Vectors, embedding: str) -> NDArray[np.float64]:
    """Score clips by their vectors ``[n d]``: the column `aes_video`.

    UserError when the vectors are not of the embedding that the head was taught on.
    """
    if embedding != head.embedding or vectors.shape[1:] != head.head.weights.shape:
        rule = f"the head was taught on {head.embedding}; teach one on this catalogue"
        raise UserError(f"embedding={embedding}: {rule}")
    return head.head(vectors)


def _tensors(path: Path) -> dict[str, NDArray[np.float64]]:
    """All tensors of a .safetensors file or of a foreign checkpoint, as float64."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    with os_errors(path, "read"):
        path.open("rb").close()
    if path.suffix == ".safetensors":
        try:
            return {name: value.astype(np.float64) for name, value in load_file(path).items()}
        except SafetensorError as error:
            raise UserError(f"{path}: is not safetensors ({error})") from error
    return _foreign(path)


def _foreign(path: Path) -> dict[str, NDArray[np.float64]]:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch says of a damaged file in many ways that it is
        raise UserError(f"{path}: holds more than weights, or is damaged") from error
    if not isinstance(state, dict):
        raise UserError(f"{path}: holds no tensors by name")
    found = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    return {name: value.double().numpy() for name, value in found.items()}
