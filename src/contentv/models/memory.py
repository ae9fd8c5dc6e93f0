"""Memory of sampling with the transformer: its weights in parts, and what a forward holds.

Counts follow `transformer.py` and `attention.py` tensor by tensor, with an attention that never
stores its scores. Nothing here needs torch.
"""

from collections.abc import Iterator

from contentv.models.cost import TransformerSize, block_parameters, num_parameters
from contentv.video.shapes import LatentShape

# Whole streams that are there at once, each as wide as a token. Attention: the stream, its norm,
# queries, keys, values, the result. Feed-forward: the stream before and after attention, its norm;
# and both sides of the GELU, four widths each.
_ATTENTION = 6
_BESIDE_FEED_FORWARD = 3
_FEED_FORWARD = 8
# With this many pieces attention is fuller than a feed-forward; fewer keep more of a device busy.
_PIECES = 4
_TIME_CHANNELS = 256


def forward_memory(
    size: TransformerSize,
    latent: LatentShape,
    text_tokens: int,
    *,
    samples: int,
    itemsize: int,
    chunk: int | None,
) -> float:
    """Bytes of activations at the fullest moment of a forward of `samples` samples.

    `chunk` tokens at a time go through a feed-forward; None is all of them.
    """
    token = float(samples * itemsize * size.width)
    video, text = size.video_tokens(latent) * token, text_tokens * token
    feed_forward = _FEED_FORWARD * video
    if chunk is not None:
        piece = min(chunk * token, video)
        # What is finished beside a piece at work; then all of it twice as it is joined.
        feed_forward = max(video - piece + _FEED_FORWARD * piece, 2 * video)
    inputs = text_tokens * samples * itemsize * (size.text_width + size.width)
    fullest = max(_ATTENTION * (video + text), _BESIDE_FEED_FORWARD * video + feed_forward)
    return fullest + 2 * text + inputs


def chunk_tokens(size: TransformerSize, latent: LatentShape) -> int:
    """Tokens of a piece with which attention is the fullest moment, not the feed-forward."""
    return -(-size.video_tokens(latent) // _PIECES)


def block_linears(size: TransformerSize) -> Iterator[tuple[int, int]]:
    """Rows and columns of each linear that acts on tokens, in all blocks."""
    d = size.width
    for block in range(size.num_layers):
        is_last = block == size.num_layers - 1
        yield from [(d, d)] * (7 if is_last else 8)
        yield from [(4 * d, d), (d, 4 * d)] * (1 if is_last else 2)


def modulation_linears(size: TransformerSize) -> Iterator[tuple[int, int]]:
    """Rows and columns of each linear that makes vectors for norms, in all blocks."""
    d = size.width
    for block in range(size.num_layers):
        yield (6 * d, d)
        yield (2 * d if block == size.num_layers - 1 else 6 * d, d)


def conditioning_parameters(size: TransformerSize) -> int:
    """Number of parameters that precomputed modulation does without, outside of the blocks."""
    d = size.width
    return d * (_TIME_CHANNELS + size.pooled_width + 2 * d) + 4 * d + 2 * (d * d + d)


def modulation_vectors(size: TransformerSize) -> int:
    """Numbers kept of one evaluation of all modulations."""
    return sum(rows for rows, _ in modulation_linears(size)) + 2 * size.width


def outer_parameters(size: TransformerSize) -> int:
    """Number of parameters outside of the blocks."""
    last_lacks = 13 * size.width**2 + 10 * size.width
    return num_parameters(size) - size.num_layers * block_parameters(size) + last_lacks
