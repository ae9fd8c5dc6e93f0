"""What the transformer costs: floating-point operations, parameters, memory for the backward.

Counts follow `transformer.py` layer by layer; a multiply-add is two operations. Nothing here needs
torch, so a plan for any cluster is made on any machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from contentv.base.errors import UserError
from contentv.video.shapes import LatentShape

Recompute = Literal["none", "full", "selective"]
"""What a backward computes again: nothing, whole blocks, or all but attention and exchanges."""

_TIME_CHANNELS = 256
_BF16, _FP32 = 2, 4
# Config names of SD3 to ours; what a config leaves out is as published.
_SD3_NAMES = {
    "num_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "attention_head_dim": "head_dim",
    "joint_attention_dim": "text_width",
    "pooled_projection_dim": "pooled_width",
    "in_channels": "in_channels",
    "out_channels": "out_channels",
    "patch_size": "patch_size",
}


@dataclass(frozen=True)
class TransformerSize:
    """The numbers of `transformer/config.json` that costs depend on; the defaults are the 8B's."""

    num_layers: int = 38
    num_heads: int = 38
    head_dim: int = 64
    text_width: int = 4096
    pooled_width: int = 2048
    in_channels: int = 16
    out_channels: int = 16
    patch_size: int = 2

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Read a `transformer/config.json`, or the `config` of a model.

        Raises:
            UserError: a size that is not a positive whole number.
        """
        sizes = renamed(config, _SD3_NAMES)
        for name, value in sizes.items():
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{name}={value}: must be a positive whole number")
        return cls(**sizes)

    @property
    def width(self) -> int:
        """Width of a token."""
        return self.num_heads * self.head_dim

    def video_tokens(self, latent: LatentShape) -> int:
        """Number of tokens that a latent video is cut into."""
        rows, columns = latent.height // self.patch_size, latent.width // self.patch_size
        return latent.frames * rows * columns


def renamed(config: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Those values of a config that `names` maps to names of ours, under these."""
    return {ours: config[name] for name, ours in names.items() if name in config}


def num_parameters(size: TransformerSize) -> int:
    """Number of parameters of the whole transformer."""
    d, patch = size.width, size.patch_size**2
    last_lacks = (d * d + d) + (8 * d * d + 5 * d) + (4 * d * d + 4 * d)
    blocks = size.num_layers * block_parameters(size) - last_lacks
    return blocks + end_parameters(size) + patch * size.out_channels * (d + 1)


def block_parameters(size: TransformerSize) -> int:
    """Number of parameters of any block but the last, which is smaller."""
    d = size.width
    attention = 2 * (4 * d * d + 4 * d + 2 * size.head_dim)
    feed_forward = 2 * (8 * d * d + 5 * d)
    modulation = 2 * (6 * d * d + 6 * d)
    return attention + feed_forward + modulation


def end_parameters(size: TransformerSize) -> int:
    """Number of parameters before the blocks, and of the modulation after them."""
    d = size.width
    inputs = size.in_channels * size.patch_size**2 + size.text_width
    conditioning = _TIME_CHANNELS + size.pooled_width + 2 * d
    return d * (inputs + conditioning) + 6 * d + 2 * d * d + 2 * d


def lora_parameters(size: TransformerSize, rank: int) -> int:
    """Number of parameters of LoRAs of `rank` on all attention projections."""
    projections = 8 * size.num_layers - 1
    return projections * 2 * size.width * rank


def forward_flops(size: TransformerSize, latent: LatentShape, text_tokens: int) -> float:
    """Operations of one forward of one sample."""
    attention = attention_flops(size, latent, text_tokens)
    return attention + linear_flops(size, latent, text_tokens)


def attention_flops(size: TransformerSize, latent: LatentShape, text_tokens: int) -> float:
    """Operations of scores and mixing in all blocks: the part that grows with tokens squared."""
    tokens = size.video_tokens(latent) + text_tokens
    return 4.0 * size.num_layers * size.width * tokens**2


def linear_flops(size: TransformerSize, latent: LatentShape, text_tokens: int) -> float:
    """Operations of everything but attention."""
    d, layers = size.width, size.num_layers
    video, patch = size.video_tokens(latent), size.patch_size**2
    blocks = 24 * d * d * (layers * video + (layers - 1) * text_tokens) + 6 * d * d * text_tokens
    modulation = 24 * d * d * (layers - 1) + 16 * d * d + 4 * d * d
    conditioning = 2 * d * (_TIME_CHANNELS + size.pooled_width + 2 * d)
    patches = 2 * d * patch * (size.in_channels + size.out_channels) * video
    return float(
        blocks + modulation + conditioning + patches + 2 * d * size.text_width * text_tokens
    )


def model_flops(size: TransformerSize, latent: LatentShape, text_tokens: int) -> float:
    """Operations that training one sample needs: a backward is two forwards. MFU counts these."""
    return 3 * forward_flops(size, latent, text_tokens)


def executed_flops(
    size: TransformerSize,
    latent: LatentShape,
    text_tokens: int,
    *,
    recompute: Recompute,
    every: int = 1,
    frozen: bool = False,
) -> float:
    """Operations that training one sample executes, recomputation in one block of `every` included.

    `frozen` weights (LoRA) need no gradient of their own: their backward costs one forward.
    """
    attention = attention_flops(size, latent, text_tokens)
    linear = linear_flops(size, latent, text_tokens)
    again = {"none": 0.0, "full": attention + linear, "selective": linear}[recompute]
    return 3 * attention + (2 if frozen else 3) * linear + again / every


@dataclass(frozen=True)
class Spread:
    """How many ways tokens (`sp`) and matrices (`tp`) of a sample are split; all zeros counted."""

    sp: int = 1
    tp: int = 1

    def tokens(self, count: int) -> int:
        """Tokens that one process holds of `count`."""
        return -(-count // self.sp)

    def heads(self, count: int) -> int:
        """Heads that one process attends with of `count`."""
        return -(-(count // self.tp) // self.sp)


UNSPLIT = Spread()


@dataclass(frozen=True)
class Activations:
    """Bytes that one process holds for the backward of its samples, in bfloat16.

    `blocks` is kept by the forward of all blocks together, `ends` before and after them. `working`
    comes while one block's backward runs: what it computes again, and gradients. `exchanged` are
    the send and receive buffers of one all-to-all.
    """

    blocks: float
    ends: float
    working: float
    exchanged: float


def activations(
    size: TransformerSize,
    latent: LatentShape,
    text_tokens: int,
    *,
    samples: int,
    recompute: Recompute,
    every: int = 1,
    spread: Spread = UNSPLIT,
) -> Activations:
    """Memory of `samples` samples in one forward and backward.

    The forward runs in bfloat16 with an attention that never stores its scores. Autocast would
    keep the norms in float32 on an accelerator, which is a quarter more without recomputation.
    """
    video = size.video_tokens(latent)
    tokens = spread.tokens(video) + spread.tokens(text_tokens)
    token = float(size.width * _BF16)
    whole = _whole_block(size, video + text_tokens, tokens, spread, copied=samples > 1)
    light = {
        "none": whole,
        "full": tokens * token,
        "selective": tokens * token + _results(size, video + text_tokens, tokens, spread),
    }[recompute]
    treated = -(-size.num_layers // every)
    blocks = treated * light + (size.num_layers - treated) * whole
    # A split sample's share is a view that keeps all of its tokens alive.
    ends = text_tokens * size.text_width * _BF16 + (video * token if spread.sp > 1 else 0)
    # The feed-forward's backward holds most: two residuals, and gradients on both of its sides.
    gradients = (2 * tokens + (1 + 4 / spread.tp) * spread.tokens(video)) * token
    # Where the last block is kept whole, it is gone before another one is computed again.
    again = whole - light if (size.num_layers - 1) % every == 0 else 0.0
    heads = spread.heads(size.num_heads) * spread.sp if spread.sp > 1 else 0
    return Activations(
        blocks=samples * blocks,
        ends=samples * ends,
        working=samples * (again + gradients),
        exchanged=samples * 6.0 * _BF16 * size.head_dim * heads * tokens,
    )


def _whole_block(
    size: TransformerSize, all_tokens: int, tokens: int, spread: Spread, *, copied: bool
) -> float:
    """Bytes that autograd keeps of one block for one sample.

    Per token of `width`: two residuals, two norms, two modulated norms, two gated results; split
    by `tp`: query and key before their norm, and both sides (4 widths each) of the GELU. Attention
    keeps query, key, value and result. With several samples its result is copied once more.
    """
    token = size.width * _BF16
    wide = 8 * token + (10 + copied) * token / spread.tp
    statistics = _FP32 * (4 + 2 * size.num_heads / spread.tp)
    modulation = 14 * token
    attention = 4 * all_tokens * spread.heads(size.num_heads) * size.head_dim * _BF16
    sums = all_tokens * spread.heads(size.num_heads) * _FP32
    return tokens * (wide + statistics) + modulation + attention + sums


def _results(size: TransformerSize, all_tokens: int, tokens: int, spread: Spread) -> float:
    """Bytes of what selective recomputation keeps: attention's result, and what was exchanged."""
    heads = spread.heads(size.num_heads)
    result = float(all_tokens * heads * (size.head_dim * _BF16 + _FP32))
    if spread.sp == 1:
        return result
    queries = 3 * all_tokens * heads * size.head_dim * _BF16
    return result + queries + tokens * size.width * _BF16 / spread.tp
