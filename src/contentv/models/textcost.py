"""What the text encoders cost: parameters, and memory of one prompt's forward.

Counts follow transformers' classes layer by layer; nothing here needs torch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from contentv.models.cost import renamed

_CLIP_NAMES = {
    "vocab_size": "vocabulary",
    "hidden_size": "width",
    "intermediate_size": "inner",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "max_position_embeddings": "positions",
    "projection_dim": "projection",
}
_T5_NAMES = {
    "vocab_size": "vocabulary",
    "d_model": "width",
    "d_kv": "head_dim",
    "d_ff": "inner",
    "num_layers": "num_layers",
    "num_heads": "num_heads",
    "relative_attention_num_buckets": "buckets",
    "feed_forward_proj": "feed_forward",
}


@dataclass(frozen=True)
class ClipSize:
    """The numbers of a CLIP text encoder's config that costs depend on; the defaults are CLIP-L."""

    vocabulary: int = 49408
    width: int = 768
    inner: int = 3072
    num_layers: int = 12
    num_heads: int = 12
    positions: int = 77
    projection: int = 768

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Reads a `text_encoder/config.json`, or the `config` of a model."""
        return cls(**renamed(config, _CLIP_NAMES))

    @property
    def embeddings(self) -> int:
        """Number of parameters of tables, which no quantization changes."""
        return (self.vocabulary + self.positions) * self.width

    @property
    def block(self) -> int:
        """Number of parameters of one layer."""
        d, inner = self.width, self.inner
        return 4 * (d * d + d) + (d * inner + inner) + (inner * d + d) + 4 * d

    @property
    def parameters(self) -> int:
        """Number of parameters of the whole encoder with its projection."""
        ends = 2 * self.width + self.width * self.projection
        return self.embeddings + self.num_layers * self.block + ends

    def working(self, tokens: int, itemsize: int) -> float:
        """Bytes beside the weights: all layers' results, and one layer's inside."""
        layers = (self.num_layers + 1) * self.width + 2 * self.inner
        return float(itemsize * (tokens * layers + 2 * self.num_heads * tokens * tokens))


CLIP_G = ClipSize(width=1280, inner=5120, num_layers=32, num_heads=20, projection=1280)


@dataclass(frozen=True)
class T5Size:
    """The numbers of a T5 encoder's config that costs depend on; the defaults are T5-XXL v1.1."""

    vocabulary: int = 32128
    width: int = 4096
    head_dim: int = 64
    inner: int = 10240
    num_layers: int = 24
    num_heads: int = 64
    buckets: int = 32
    feed_forward: str = "gated-gelu"

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Reads a `text_encoder_3/config.json`, or the `config` of a model."""
        return cls(**renamed(config, _T5_NAMES))

    @property
    def embeddings(self) -> int:
        """Number of parameters of tables, which no quantization changes."""
        return self.vocabulary * self.width + self.buckets * self.num_heads

    @property
    def block(self) -> int:
        """Number of parameters of one layer."""
        matrices = 3 if self.feed_forward.startswith("gated") else 2
        attention = 4 * self.width * self.num_heads * self.head_dim
        return attention + matrices * self.width * self.inner + 2 * self.width

    @property
    def parameters(self) -> int:
        """Number of parameters of the whole encoder."""
        return self.embeddings + self.num_layers * self.block + self.width

    def linears(self) -> Iterator[tuple[int, int]]:
        """Rows and columns of each linear layer."""
        heads = self.num_heads * self.head_dim
        matrices = 2 if self.feed_forward.startswith("gated") else 1
        for _ in range(self.num_layers):
            yield from [(heads, self.width)] * 3
            yield (self.width, heads)
            yield from [(self.inner, self.width)] * matrices
            yield (self.width, self.inner)

    def working(self, tokens: int, itemsize: int) -> float:
        """Bytes beside the weights: the positions' bias, scores, one layer's inside."""
        scores = 3 * self.num_heads * tokens * tokens * itemsize
        return float(scores + itemsize * tokens * (3 * self.inner + 2 * self.width))
