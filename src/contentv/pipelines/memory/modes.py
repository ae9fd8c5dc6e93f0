"""Ways to keep a model in little memory, from the fastest to the smallest."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from contentv.pipelines.config import Decoding, Offload, Quantization

# The less a way to decode changes the picture, the earlier it stands.
_DECODED: dict[Decoding, str] = {
    "float32": "",
    "bfloat16": "bfloat16 decoding",
    "tiles": "tiled decoding",
}
_PLACED = {
    "none": "all parts at once",
    "model": "one part at a time",
    "group": "streamed blocks",
    "sequential": "layer by layer",
}


@dataclass(frozen=True)
class Mode:
    """Where parts are and in which form; each choice saves memory of its own.

    `offload` is what rests in main memory. `pinned`: blocks that are streamed wait in pages that
    never move, so that the device fetches them by itself, at the cost of more main memory.
    `modulation`: adaLN is evaluated before denoising, and a third of the weights stays away.
    `chunked`: a feed-forward takes some tokens at a time. `lazy`: parts are read from disk when
    their act begins and let go when it ends.
    """

    offload: Offload = "none"
    pinned: bool = False
    modulation: bool = False
    chunked: bool = False
    decoding: Decoding = "float32"
    quantization: Quantization | None = None
    lazy: bool = False

    @property
    def exact(self) -> bool:
        """Whether videos are those of the mode that saves nothing, up to rounding."""
        return self.decoding == "float32" and self.quantization is None

    def __str__(self) -> str:
        parts = [
            self.quantization or "",
            "" if self.lazy and self.offload == "none" else _PLACED[self.offload],
            "pinned memory" if self.pinned else "",
            "stored modulation" if self.modulation else "",
            "chunked feed-forward" if self.chunked else "",
            _DECODED[self.decoding],
            "parts from disk" if self.lazy else "",
        ]
        return ", ".join(part for part in parts if part)


_WHOLE = Mode()
_MODEL = Mode("model")
_STORED = Mode("model", modulation=True)
_STORED_CHUNKED = Mode("model", modulation=True, chunked=True)
# A forward takes longer than reading its weights over the bus, so streaming is hidden; what counts
# against it is a bus that others use too.
_PINNED = Mode("group", pinned=True)
_PINNED_CHUNKED = Mode("group", pinned=True, chunked=True)
_STREAMED = Mode("group")
_STREAMED_CHUNKED = Mode("group", chunked=True)
# Each layer waits for its weights: minutes more a video.
_LAYERED = Mode("sequential", chunked=True)

EXACT = (
    *(_WHOLE, _MODEL, _STORED, _STORED_CHUNKED),
    *(_PINNED, _PINNED_CHUNKED, _STREAMED, _STREAMED_CHUNKED),
    _LAYERED,
)
"""Modes with the model's own weights and its own decoding, the fastest first."""

_QUANTIZED = (_WHOLE, _MODEL, _STORED, _STORED_CHUNKED)

_ALONE = (_WHOLE, Mode(chunked=True), Mode(lazy=True), Mode(chunked=True, lazy=True))


def modes(quantization: Quantization | None = None) -> Iterator[Mode]:
    """All modes in the order of preference, quantized ones if allowed.

    Exact ones first; then the model's own weights with other ways to decode; then quantized ones.
    """
    yield from _decoded(EXACT)
    if quantization is not None:
        yield from quantized_modes(quantization)


def quantized_modes(kind: Quantization) -> Iterator[Mode]:
    """Modes of weights that are quantized, in the order of preference."""
    quantized = [replace(mode, quantization=kind) for mode in _QUANTIZED]
    yield from _decoded(quantized)


def modes_alone(quantization: Quantization | None = None) -> Iterator[Mode]:
    """Modes of a machine without a card, in the order of preference."""
    yield from _decoded(_ALONE)
    if quantization is not None:
        quantized = [replace(mode, quantization=quantization) for mode in _ALONE]
        yield from _decoded(quantized)


def _decoded(listed: Sequence[Mode]) -> Iterator[Mode]:
    return (replace(mode, decoding=way) for way in _DECODED for mode in listed)
