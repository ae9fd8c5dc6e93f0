"""Bytes of a model's weights: of its parts at rest, and on the card while an act is at work."""

from typing import NamedTuple

from contentv.models.cost import TransformerSize, block_parameters, num_parameters
from contentv.models.memory import (
    block_linears,
    conditioning_parameters,
    modulation_linears,
    outer_parameters,
)
from contentv.models.textcost import ClipSize, T5Size
from contentv.models.vaecost import autoencoder_parameters
from contentv.pipelines.config import Quantization
from contentv.pipelines.memory.modes import Mode
from contentv.pipelines.memory.sizes import ModelSizes

_TAPS = 27  # of a convolution over time, height and width
_STREAMED = 2  # blocks on the card: the one at work and the one on its way


class Acts(NamedTuple):
    """A number of bytes for each act of a call."""

    text: float
    denoise: float
    decode: float


def resting_weights(sizes: ModelSizes, mode: Mode, itemsize: int) -> Acts:
    """The parts that each act needs, in the form they rest in."""
    return Acts(
        text=sum(_encoders(sizes, mode.quantization, itemsize)),
        denoise=_transformer(sizes.transformer, mode.quantization, itemsize),
        decode=_autoencoder(sizes, mode),
    )


def weights_on_card(sizes: ModelSizes, mode: Mode, itemsize: int) -> Acts:
    """What of them is on the card at most while an act is at work."""
    resting = resting_weights(sizes, mode, itemsize)
    if mode.offload == "sequential":
        return _one_layer(sizes, mode, itemsize)
    if mode.offload == "group":
        return _two_blocks(sizes, mode, itemsize)._replace(decode=resting.decode)
    without = (
        _modulation(sizes.transformer, mode.quantization, itemsize) if mode.modulation else 0.0
    )
    acts = resting._replace(denoise=resting.denoise - without)
    if mode.offload == "model":
        # Encoders come one after the other.
        encoders = _encoders(sizes, mode.quantization, itemsize)
        return acts._replace(text=max(encoders, default=0.0))
    if mode.lazy:
        return acts
    return Acts(sum(resting), sum(acts), sum(resting))


def pinned_copy(sizes: ModelSizes, itemsize: int) -> float:
    """Bytes of the transformer in pinned memory, where torch rounds each up to a power of two.

    The weights themselves go when all of a part's copies are there.
    """
    size = sizes.transformer
    linears = [*block_linears(size), *modulation_linears(size)]
    rounded = sum(1 << (itemsize * rows * columns - 1).bit_length() for rows, columns in linears)
    others = num_parameters(size) - sum(rows * columns for rows, columns in linears)
    return float(rounded + itemsize * others)


def largest_unpacked(sizes: ModelSizes, mode: Mode, itemsize: int) -> Acts:
    """Bytes of the one linear that quantized weights are unpacked to at a time."""
    if mode.quantization is None:
        return Acts(0.0, 0.0, 0.0)
    linears = [*block_linears(sizes.transformer)]
    if not mode.modulation:
        linears += modulation_linears(sizes.transformer)
    text = [] if sizes.t5 is None else sizes.t5.linears()
    widest = max(rows * columns for rows, columns in linears)
    widest_text = max((rows * columns for rows, columns in text), default=0)
    return Acts(float(itemsize * widest_text), float(itemsize * widest), 0.0)


def _transformer(size: TransformerSize, kind: Quantization | None, itemsize: int) -> float:
    linears = [*block_linears(size), *modulation_linears(size)]
    return _part(num_parameters(size), linears, kind, itemsize)


def _modulation(size: TransformerSize, kind: Quantization | None, itemsize: int) -> float:
    """What precomputed modulation keeps away from the card."""
    linears = list(modulation_linears(size))
    biases = sum(rows for rows, _ in linears)
    parameters = sum(rows * columns for rows, columns in linears) + biases
    return _part(parameters + conditioning_parameters(size), linears, kind, itemsize)


def _encoders(sizes: ModelSizes, kind: Quantization | None, itemsize: int) -> list[float]:
    """Each text encoder; of them T5 alone is ever quantized."""
    clips = [float(itemsize * clip.parameters) for clip in sizes.clips]
    if sizes.t5 is None:
        return clips
    linears = list(sizes.t5.linears())
    return [*clips, _part(sizes.t5.parameters, linears, kind, itemsize)]


def decoding_itemsize(mode: Mode) -> int:
    """Bytes of a number in the autoencoder, which is in float32 unless it is rounded on purpose."""
    return 2 if mode.decoding == "bfloat16" else 4


def _autoencoder(sizes: ModelSizes, mode: Mode) -> float:
    return float(decoding_itemsize(mode) * autoencoder_parameters(sizes.vae))


def _part(
    parameters: int, linears: list[tuple[int, int]], kind: Quantization | None, itemsize: int
) -> float:
    """Bytes of a part of so many parameters, its `linears` quantized to `kind`."""
    if kind is None:
        return float(itemsize * parameters)
    from contentv.lowbit.libraries import predicted_bytes

    plain = parameters - sum(rows * columns for rows, columns in linears)
    return itemsize * plain + float(sum(predicted_bytes(kind, *shape) for shape in linears))


def _two_blocks(sizes: ModelSizes, mode: Mode, itemsize: int) -> Acts:
    """Blocks come and go, what is outside of them stays for the act."""
    size = sizes.transformer
    block = block_parameters(size) - 12 * (size.width**2 + size.width) * mode.modulation
    transformer = outer_parameters(size) + min(_STREAMED, size.num_layers) * block
    texts = [
        encoder.parameters - max(0, encoder.num_layers - _STREAMED) * encoder.block
        for encoder in _text(sizes)
    ]
    return Acts(float(itemsize * max(texts, default=0)), float(itemsize * transformer), 0.0)


def _one_layer(sizes: ModelSizes, mode: Mode, itemsize: int) -> Acts:
    """The widest layer; of a text encoder that is its table, of the autoencoder a convolution."""
    widest = max(rows * columns for rows, columns in modulation_linears(sizes.transformer))
    table = max((encoder.embeddings for encoder in _text(sizes)), default=0)
    channels = sizes.vae.decoder_base_dim * max(sizes.vae.dim_mult)
    decode = float(decoding_itemsize(mode) * _TAPS * channels**2)
    return Acts(float(itemsize * table), float(itemsize * widest), decode)


def _text(sizes: ModelSizes) -> list[ClipSize | T5Size]:
    return [*sizes.clips, *([] if sizes.t5 is None else [sizes.t5])]
