"""Joint attention over video and text tokens, through any of diffusers' attention back-ends."""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from torch import Tensor, nn

from contentv.models.embeddings import rotate

_EPS = 1e-6


class JointAttentionProcessor:
    """Computes a `JointAttention`.

    `_attention_backend` and `_parallel_config` are diffusers' names: `set_attention_backend` and
    `enable_parallelism` write them. No back-end set means the one diffusers finds active.
    """

    _attention_backend: AttentionBackendName | None = None
    _parallel_config: Any = None

    def __call__(
        self,
        attn: "JointAttention",
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        rotation: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Video [b n d] and text [b m d] to their attention outputs."""
        query, key, value = attn.project_video(hidden_states)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        text_query, text_key, text_value = attn.project_text(encoder_hidden_states)

        # Video first, text after, no mask: padding of the text takes part, as it did in training.
        joint = self.attend(
            torch.cat([query, text_query], dim=1),
            torch.cat([key, text_key], dim=1),
            torch.cat([value, text_value], dim=1),
        )
        joint = joint.flatten(2).to(hidden_states.dtype)
        video, text = joint.split([hidden_states.shape[1], encoder_hidden_states.shape[1]], dim=1)
        return attn.project_out(video, text)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Softmax attention among all tokens, [b n h d] each; may be replaced per processor."""
        return dispatch_attention_fn(
            query,
            key,
            value,
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )


class HeadNorm(nn.RMSNorm):
    """Root-mean-square norm of each head, in the dtype of its input so that one kernel does it."""

    def forward(self, x: Tensor) -> Tensor:
        """Heads [b n h d], each normalised over d."""
        weight = self.weight.to(x.dtype)
        return F.rms_norm(x, self.normalized_shape, weight, self.eps)


class JointAttention(AttentionModuleMixin, nn.Module):
    """Attention of SD3's MMDiT: own projections per stream, one softmax over both.

    `has_text_output=False` builds no text output projection (last block). `qk_norm` normalises
    queries and keys of each head by their root mean square.
    """

    processor: JointAttentionProcessor
    _default_processor_cls = JointAttentionProcessor
    _available_processors = (JointAttentionProcessor,)
    _supports_qkv_fusion = False

    def __init__(
        self, *, num_heads: int, head_dim: int, qk_norm: bool, has_text_output: bool
    ) -> None:
        super().__init__()
        dim = num_heads * head_dim
        self.head_dim = head_dim
        self.to_q = nn.Linear(dim, dim)
        self.to_k = nn.Linear(dim, dim)
        self.to_v = nn.Linear(dim, dim)
        self.add_q_proj = nn.Linear(dim, dim)
        self.add_k_proj = nn.Linear(dim, dim)
        self.add_v_proj = nn.Linear(dim, dim)
        self.norm_q = _head_norm(head_dim, qk_norm)
        self.norm_k = _head_norm(head_dim, qk_norm)
        self.norm_added_q = _head_norm(head_dim, qk_norm)
        self.norm_added_k = _head_norm(head_dim, qk_norm)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        self.to_add_out = nn.Linear(dim, dim) if has_text_output else None
        self.processor = JointAttentionProcessor()

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        rotation: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Video [b n d] and text [b m d] to their attention outputs."""
        return self.processor(self, hidden_states, encoder_hidden_states, rotation)

    def project_video(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key, value [b n h d] of video tokens."""
        query, key = self.to_q(hidden_states), self.to_k(hidden_states)
        return (
            self.norm_q(self._heads(query)),
            self.norm_k(self._heads(key)),
            self._heads(self.to_v(hidden_states)),
        )

    def project_text(self, encoder_hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key, value [b m h d] of text tokens."""
        query = self.add_q_proj(encoder_hidden_states)
        key = self.add_k_proj(encoder_hidden_states)
        return (
            self.norm_added_q(self._heads(query)),
            self.norm_added_k(self._heads(key)),
            self._heads(self.add_v_proj(encoder_hidden_states)),
        )

    def project_out(self, video: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Joint attention's two parts [b n d], [b m d] back to their streams."""
        # Without a projection the text is of no use, but caches of attention outputs want tensors.
        return self.to_out[0](video), text if self.to_add_out is None else self.to_add_out(text)

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (-1, self.head_dim))


def _head_norm(head_dim: int, qk_norm: bool) -> nn.Module:
    return HeadNorm(head_dim, eps=_EPS) if qk_norm else nn.Identity()
