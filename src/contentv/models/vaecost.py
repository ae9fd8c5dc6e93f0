"""What the autoencoder costs when it decodes: parameters, and memory at its fullest layer.

Counts follow diffusers' `AutoencoderKLWan` layer by layer, as `vae.py` runs it: a latent frame, or
a few small ones, at a time, each causal convolution keeping the two last frames it saw.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from contentv.video.shapes import LatentShape

_KEPT = 2  # frames that a causal convolution remembers
_NORMS = 4  # a norm's input, its quotient and two products are there at once
_TILE = 32  # latents: diffusers' 256 pixels

# Output pixels per call of the decoder. A latent frame of 256x256 is more than this, so most videos
# are decoded a latent frame at a time; a tiny clip takes two calls, not one per latent frame.
PIXELS_PER_CALL = 2**16


@dataclass(frozen=True)
class AutoencoderSize:
    """The numbers of `vae/config.json` that costs depend on; the defaults are Wan 2.1's."""

    base_dim: int = 96
    decoder_base_dim: int = 96
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temperal_downsample: tuple[bool, ...] = (False, True, True)
    in_channels: int = 3
    out_channels: int = 3
    patch_size: int = 1

    @property
    def sides(self) -> int:
        """How many times the decoder enlarges the sides of latents, before patches are undone."""
        return 2 ** (len(self.dim_mult) - 1)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Reads a `vae/config.json`, or the `config` of a model."""
        lists = ("dim_mult", "temperal_downsample")
        numbers = ("base_dim", "z_dim", "num_res_blocks", "in_channels", "out_channels")
        given: dict[str, Any] = {name: config[name] for name in numbers if name in config}
        given |= {name: tuple(config[name]) for name in lists if name in config}
        return cls(
            **given,
            decoder_base_dim=config.get("decoder_base_dim") or config.get("base_dim", 96),
            patch_size=config.get("patch_size") or 1,
        )


@dataclass(frozen=True)
class _Layer:
    """A residual block, or with `doubles_time` a doubling of the sides, at one place.

    `side` is how many times smaller its input's sides are than the decoder's output, `frames` how
    many of its frames one latent frame becomes. `waiting` channels of its level's input are held by
    the caller meanwhile.
    """

    channels: int
    out_channels: int
    side: int
    frames: int
    waiting: int
    doubles_time: bool | None = None


def autoencoder_parameters(size: AutoencoderSize) -> int:
    """Number of parameters of encoder and decoder."""
    z = size.z_dim
    between = (4 * z * z + 2 * z) + (z * z + z)
    return _encoder_parameters(size) + decoder_parameters(size) - (z * z + z) + between


def decoder_parameters(size: AutoencoderSize) -> int:
    """Number of parameters that decoding reads."""
    z = size.z_dim
    first, last = _decoder_widths(size)
    total = (z * z + z) + _conv(z, first) + _attention(first)
    for layer in _layers(size):
        if layer.doubles_time is None:
            total += _residual(layer.channels, layer.out_channels)
        else:
            total += _upsample(layer.channels, doubles_time=layer.doubles_time)
    return total + last + _conv(last, size.out_channels)


def decode_memory(
    size: AutoencoderSize, latent: LatentShape, *, samples: int, itemsize: int
) -> float:
    """Bytes beside weights and latents at the fullest layer, the frames just finished included."""
    pixel = float(samples * itemsize * latent.height * latent.width * size.sides**2)
    pixels_per_latent = 4 * latent.height * latent.width * 8**2
    at_once = min(max(1, PIXELS_PER_CALL // (samples * pixels_per_latent)), latent.frames)
    finished = 3 * size.out_channels * pixel * 4 * at_once
    return _decoder_memory(size, latent.frames, at_once, pixel) + finished


def tile_of(latent: LatentShape) -> LatentShape:
    """What one tile of a video's latents is, at most; tiles wait on the host."""
    return LatentShape(latent.frames, min(latent.height, _TILE), min(latent.width, _TILE))


def tiled_video_bytes(size: AutoencoderSize, latent: LatentShape, *, samples: int) -> float:
    """Bytes on the host of a video put together from tiles: strips of tiles, joined, once more."""
    frames = 4 * (latent.frames - 1) + 1
    pixels = frames * latent.height * latent.width * size.sides**2
    return 3.0 * 4 * samples * size.out_channels * pixels


def _decoder_memory(size: AutoencoderSize, num_latents: int, at_once: int, pixel: float) -> float:
    """What convolutions remember of all layers, and the frames inside the fullest layer.

    `pixel`: bytes of one channel of a frame at the end of the decoder.
    """
    streams = num_latents > 1
    remembered, fullest = 0.0, 0.0
    for layer in _layers(size):
        frame = pixel / layer.side**2
        # The first latent frame stays one frame; later ones become several.
        frames = layer.frames * at_once if streams else 1
        kept = min(_KEPT, layer.frames * (num_latents - 1) + 1)
        memory = _fullest(layer, frames, kept, joins=streams)
        remembered += frame * kept * _remembered_channels(layer)
        fullest = max(fullest, frame * memory)
    head = (_KEPT if streams else 1) * _decoder_widths(size)[1] * pixel
    tail = min(_KEPT, num_latents) * size.z_dim * pixel / size.sides**2
    return remembered + head + tail + fullest


def _fullest(layer: _Layer, frames: int, kept: int, *, joins: bool) -> float:
    """Bytes of a layer per byte of a frame's channel.

    `joins`: earlier frames are put before these, in a copy of its own.
    """
    c, d, waiting = layer.channels, layer.out_channels, frames * layer.waiting
    if layer.doubles_time is not None:
        after = frames * (2 if layer.doubles_time and joins else 1)
        return (frames + after) * c + 4 * after * (c + d) + waiting
    shortcut = frames * d if c != d else 0
    copies = 2 if joins else 1
    first = (frames + kept + copies * (frames + _KEPT)) * c
    second = (frames + kept + copies * (frames + _KEPT)) * d
    working = max(
        first, second, _NORMS * frames * d, frames * c + (frames + _KEPT) * c + frames * d
    )
    return frames * c + shortcut + working + waiting


def _remembered_channels(layer: _Layer) -> int:
    if layer.doubles_time is None:
        return layer.channels + layer.out_channels
    return layer.channels if layer.doubles_time else 0


def _layers(size: AutoencoderSize) -> Iterator[_Layer]:
    """The decoder from the latents on: two blocks in the middle, then level by level."""
    widths = [size.decoder_base_dim * mult for mult in (size.dim_mult[-1], *size.dim_mult[::-1])]
    side, frames = size.sides, 1
    for block in range(2):
        yield _Layer(widths[0], widths[0], side, frames, widths[0] * block)
    for level, out in enumerate(widths[1:]):
        entered = channels = widths[level] // (2 if level else 1)
        for block in range(size.num_res_blocks + 1):
            yield _Layer(channels, out, side, frames, entered if block else 0)
            channels = out
        if level < len(size.dim_mult) - 1:
            doubles = size.temperal_downsample[::-1][level]
            yield _Layer(out, out // 2, side, frames, entered, doubles_time=doubles)
            side, frames = side // 2, frames * (2 if doubles else 1)


def _decoder_widths(size: AutoencoderSize) -> tuple[int, int]:
    """Channels before the first level and after the last."""
    return (
        size.decoder_base_dim * size.dim_mult[-1],
        size.decoder_base_dim * size.dim_mult[0],
    )


def _encoder_parameters(size: AutoencoderSize) -> int:
    widths = [size.base_dim * mult for mult in (1, *size.dim_mult)]
    total = _conv(size.in_channels, widths[0])
    for level, out in enumerate(widths[1:]):
        channels = widths[level]
        for _ in range(size.num_res_blocks):
            total += _residual(channels, out)
            channels = out
        if level < len(size.dim_mult) - 1:
            total += 9 * out * out + out
            total += 3 * out * out + out if size.temperal_downsample[level] else 0
    last = widths[-1]
    middle = 2 * _residual(last, last) + _attention(last)
    return total + middle + last + _conv(last, 2 * size.z_dim)


def _conv(channels: int, out_channels: int) -> int:
    return 27 * channels * out_channels + out_channels


def _residual(channels: int, out_channels: int) -> int:
    shortcut = channels * out_channels + out_channels if channels != out_channels else 0
    convs = _conv(channels, out_channels) + _conv(out_channels, out_channels)
    return channels + out_channels + convs + shortcut


def _attention(channels: int) -> int:
    return channels + 4 * (channels * channels + channels)


def _upsample(channels: int, *, doubles_time: bool) -> int:
    spatial = 9 * channels * (channels // 2) + channels // 2
    return spatial + (6 * channels * channels + 2 * channels if doubles_time else 0)
