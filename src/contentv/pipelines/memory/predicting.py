"""How much memory a video needs in each mode, act by act. Numbers only: nothing is loaded.

On the card are weights and activations, counted tensor by tensor. What a device takes besides is
stated, not counted: `OVERHEAD`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from contentv.models.memory import chunk_tokens, forward_memory, modulation_vectors
from contentv.models.vaecost import decode_memory, tile_of, tiled_video_bytes
from contentv.pipelines.memory.modes import Mode
from contentv.pipelines.memory.sizes import ModelSizes
from contentv.pipelines.memory.weights import (
    decoding_itemsize,
    largest_unpacked,
    pinned_copy,
    resting_weights,
    weights_on_card,
)
from contentv.video.shapes import LatentShape, ScaleFactors, VideoShape

GIB = 2**30
OVERHEAD = 0.8 * GIB
"""What a card gives to the device's context, to kernels' workspaces and to gaps: 0.6 to 1 GiB."""
HOST_OVERHEAD = 1.5 * GIB
"""What the process needs on the host beside the model: Python, libraries, buffers."""

_FP32 = 4
_FACTORS = ScaleFactors()


def gib(number: float) -> str:
    """A number of bytes as people read it, in GiB."""
    digits = 1 if number >= 10 * GIB else 2
    return f"{number / GIB:.{digits}f}"


@dataclass(frozen=True)
class Call:
    """What one call makes: `videos` of one shape from texts of `text_tokens` tokens in all.

    `rows` of the transformer's batch are one video: 2 where both passes of guidance are one
    forward. The autoencoder decodes `decoded` videos at once. Weights take `itemsize` bytes.
    """

    video: VideoShape
    text_tokens: int
    steps: int
    videos: int = 1
    rows: int = 1
    decoded: int = 1
    itemsize: int = 2

    @property
    def latent(self) -> LatentShape:
        """Latents of one video."""
        return _FACTORS.latent(self.video)


@dataclass(frozen=True)
class Prediction:
    """Bytes at the fullest moment of each act on the card, and of the model on the host.

    `video` is what the host holds of a video that is decoded in tiles.
    """

    text: float
    denoise: float
    decode: float
    parts: float
    video: float

    @property
    def peak(self) -> float:
        """Bytes of the fullest act."""
        return max(self.text, self.denoise, self.decode)

    @property
    def card(self) -> float:
        """Bytes that a card must have."""
        return self.peak + OVERHEAD

    @property
    def host(self) -> float:
        """Bytes that the host must have beside the card."""
        return self.parts + self.video + HOST_OVERHEAD

    @property
    def alone(self) -> float:
        """Bytes that a host without a card must have."""
        return max(self.text, self.denoise, self.decode + self.video) + HOST_OVERHEAD


def predict(sizes: ModelSizes, call: Call, mode: Mode) -> Prediction:
    """Memory of `call` in `mode`."""
    weights = weights_on_card(sizes, mode, call.itemsize)
    resting = resting_weights(sizes, mode, call.itemsize)
    vectors = 2 * call.steps * call.itemsize * modulation_vectors(sizes.transformer)
    parts = max(resting) if mode.lazy else sum(resting)
    parts += pinned_copy(sizes, call.itemsize) * mode.pinned + vectors * mode.modulation
    unpacked = largest_unpacked(sizes, mode, call.itemsize)
    return Prediction(
        text=weights.text + unpacked.text + _reading(sizes, call),
        denoise=weights.denoise + unpacked.denoise + _denoising(sizes, call, mode),
        decode=weights.decode + _decoding(sizes, call, mode),
        parts=parts,
        video=_whole_video(sizes, call) if mode.decoding == "tiles" else 0.0,
    )


def predict_all(sizes: ModelSizes, calls: Sequence[Call], mode: Mode) -> Prediction:
    """What the fullest of `calls` needs, act by act."""
    found = [predict(sizes, call, mode) for call in calls]
    return Prediction(
        text=max(each.text for each in found),
        denoise=max(each.denoise for each in found),
        decode=max(each.decode for each in found),
        parts=max(each.parts for each in found),
        video=max(each.video for each in found),
    )


def _reading(sizes: ModelSizes, call: Call) -> float:
    """Activations of the text encoders, which read one prompt at a time."""
    clip = max((clip.working(sizes.clip_tokens, call.itemsize) for clip in sizes.clips), default=0)
    tokens = max(1, call.text_tokens - sizes.clip_tokens)
    t5 = 0.0 if sizes.t5 is None else sizes.t5.working(tokens, call.itemsize)
    return max(clip, t5) + _texts(sizes, call)


def _texts(sizes: ModelSizes, call: Call) -> float:
    """The texts of both passes of guidance, there throughout."""
    size = sizes.transformer
    numbers = call.text_tokens * size.text_width + size.pooled_width
    return float(2 * call.videos * call.itemsize * numbers)


def _denoising(sizes: ModelSizes, call: Call, mode: Mode) -> float:
    size, latent = sizes.transformer, call.latent
    forward = forward_memory(
        size,
        latent,
        call.text_tokens,
        samples=call.videos * call.rows,
        itemsize=call.itemsize,
        chunk=chunk_tokens(size, latent) if mode.chunked else None,
    )
    # The noise, the latents, the velocity of the pass before.
    latents = 3 * call.itemsize * call.videos * _latent_numbers(sizes, latent)
    return forward + _texts(sizes, call) + latents


def _decoding(sizes: ModelSizes, call: Call, mode: Mode) -> float:
    """Activations of the decoder, and what it takes in."""
    # As they came, in the autoencoder's format, and scaled.
    latents = 3 * _FP32 * call.decoded * _latent_numbers(sizes, call.latent)
    piece = tile_of(call.latent) if mode.decoding == "tiles" else call.latent
    itemsize = decoding_itemsize(mode)
    return latents + decode_memory(sizes.vae, piece, samples=call.decoded, itemsize=itemsize)


def _whole_video(sizes: ModelSizes, call: Call) -> float:
    return tiled_video_bytes(sizes.vae, call.latent, samples=call.decoded)


def _latent_numbers(sizes: ModelSizes, latent: LatentShape) -> int:
    return sizes.vae.z_dim * latent.frames * latent.height * latent.width
