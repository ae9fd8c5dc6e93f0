"""Joint attention over video and text tokens, through any of diffusers' attention back-ends."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models import attention_dispatch
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from torch import Tensor, nn

from contentv.base.errors import UserError, WorldError
from contentv.models.embeddings import rotate
from contentv.models.windows import WindowAttention

_EPS = 1e-6


@dataclass(frozen=True)
class Backend:
    """A way to compute attention that diffusers knows by a name.

    `exact`: its result differs from another exact one's by rounding only; the others round queries
    and keys to 8 bits or fewer. `device`: the kind of device it is for, "" for any. `fetched`: its
    kernel comes from the Hugging Face Hub when it is first chosen.
    """

    exact: bool
    device: str
    fetched: bool
    what: str


BACKENDS = {
    "native": Backend(True, "", False, "what PyTorch thinks best for the device"),
    "_native_math": Backend(True, "", False, "plain products; keeps all scores: for proofs"),
    "flex": Backend(True, "", False, "PyTorch's flex attention; compile the blocks with it"),
    "_native_flash": Backend(True, "", False, "PyTorch's flash attention 2"),
    "_native_efficient": Backend(True, "cuda", False, "PyTorch's memory-efficient attention"),
    "_native_cudnn": Backend(True, "cuda", False, "cuDNN's fused attention"),
    "_native_npu": Backend(True, "npu", False, "Ascend's fused attention"),
    "flash": Backend(True, "cuda", False, "flash attention 2 (flash-attn)"),
    "flash_hub": Backend(True, "cuda", True, "flash attention 2"),
    "_flash_3": Backend(True, "cuda", False, "flash attention 3, Hopper (built from source)"),
    "_flash_3_hub": Backend(True, "cuda", True, "flash attention 3, Hopper"),
    "flash_4_hub": Backend(True, "cuda", True, "flash attention 4, Blackwell"),
    "aiter_fa2_hub": Backend(True, "cuda", True, "flash attention 2 on AMD"),
    "xformers": Backend(True, "cuda", False, "xFormers' memory-efficient attention"),
    "sage": Backend(False, "cuda", False, "8-bit scores, its own choice for the card"),
    "sage_hub": Backend(False, "cuda", True, "8-bit scores, its own choice for the card"),
    "sage_blackwell_hub": Backend(False, "cuda", True, "4-bit scores and values, Blackwell"),
    "_sage_qk_int8_pv_fp16_triton": Backend(False, "cuda", False, "int8 scores, half values"),
    "_sage_qk_int8_pv_fp16_cuda": Backend(False, "cuda", False, "int8 scores, half values"),
    "_sage_qk_int8_pv_fp8_cuda": Backend(False, "cuda", False, "int8 scores, fp8 values, Ada on"),
    "_sage_qk_int8_pv_fp8_cuda_sm90": Backend(False, "cuda", False, "the same for Hopper"),
}
"""Names that `set_attention_backend` takes; attention here is without mask, in heads of 64."""


def usable_backends(*, exact: bool) -> list[str]:
    """Names of the exact back-ends, or of the approximate ones, that this machine has.

    Only trying says whether a kernel takes this card and dtype. None is fetched from the Hub.
    """
    return [
        name
        for name, backend in BACKENDS.items()
        if backend.exact == exact and not backend.fetched and _lack(name) is None
    ]


def find_backend(name: str) -> AttentionBackendName:
    """The back-end `name`, ready to compute.

    Raises:
        UserError: there is none of this name, or its device or package is not on this machine.
        WorldError: its kernel cannot be fetched from the Hub.
    """
    if name not in BACKENDS:
        raise UserError(f"attention backend {name!r}: must be one of {', '.join(BACKENDS)}")
    if (lack := _lack(name)) is not None:
        others = ", ".join(usable_backends(exact=True))
        raise UserError(f"attention backend {name}: {lack}; this machine has {others}")
    found = AttentionBackendName(name)
    try:
        attention_dispatch._maybe_download_kernel_for_backend(found)  # noqa: SLF001
    except Exception as error:  # the Hub, and builds of kernels: each has its own
        reason = " ".join(str(error).split())[:200]
        raise WorldError(f"attention backend {name}: cannot be fetched ({reason})") from error
    return found


def _lack(name: str) -> str | None:
    """What keeps this machine from using a back-end, if anything."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    kind = BACKENDS[name].device
    if kind and (accelerator is None or accelerator.type != kind):
        return f"is for {kind} devices"
    if name == "flex" and accelerator is not None and accelerator.type == "npu":
        return "is not for npu devices"
    try:
        attention_dispatch._check_attention_backend_requirements(AttentionBackendName(name))  # noqa: SLF001
    except RuntimeError as error:
        return f"is not installed ({' '.join(str(error).split())})"
    return None


class JointAttentionProcessor:
    """Computes a `JointAttention`.

    `_attention_backend` and `_parallel_config` are diffusers' names: `set_attention_backend` and
    `enable_parallelism` write them. No back-end set means the one diffusers finds active. With
    `windows`, tokens see those around them only.
    """

    _attention_backend: AttentionBackendName | None = None
    _parallel_config: Any = None
    windows: WindowAttention | None = None

    def __call__(
        self,
        attn: "JointAttention",
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        rotation: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Video [b n d] and text [b m d] to their attention outputs."""
        # Video first, text after, no mask: padding of the text takes part, as it did in training.
        # One after another, so that a stream's own copy is gone before the next comes.
        query = attn.query(hidden_states, encoder_hidden_states, rotation)
        key = attn.key(hidden_states, encoder_hidden_states, rotation)
        value = attn.value(hidden_states, encoder_hidden_states)
        joint = self.attend(query, key, value)
        del query, key, value
        joint = joint.flatten(2).to(hidden_states.dtype)
        video, text = joint.split([hidden_states.shape[1], encoder_hidden_states.shape[1]], dim=1)
        return attn.project_out(video, text)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Softmax attention among all tokens, [b n h d] each; may be replaced per processor."""
        if self.windows is not None:
            return self.windows.attend(query, key, value, self._dense)
        return self._dense(query, key, value)

    def _dense(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
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

    def query(self, video: Tensor, text: Tensor, rotation: Tensor | None = None) -> Tensor:
        """Queries [b n+m h d] of video [b n d] and text [b m d]."""
        return torch.cat(
            [
                _rotated(self.norm_q(self._heads(self.to_q(video))), rotation),
                self.norm_added_q(self._heads(self.add_q_proj(text))),
            ],
            dim=1,
        )

    def key(self, video: Tensor, text: Tensor, rotation: Tensor | None = None) -> Tensor:
        """Keys [b n+m h d] of video [b n d] and text [b m d]."""
        return torch.cat(
            [
                _rotated(self.norm_k(self._heads(self.to_k(video))), rotation),
                self.norm_added_k(self._heads(self.add_k_proj(text))),
            ],
            dim=1,
        )

    def value(self, video: Tensor, text: Tensor) -> Tensor:
        """Values [b n+m h d] of video [b n d] and text [b m d]."""
        return self._heads(torch.cat([self.to_v(video), self.add_v_proj(text)], dim=1))

    def project_out(self, video: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Joint attention's two parts [b n d], [b m d] back to their streams."""
        # Without a projection the text is of no use, but caches of attention outputs want tensors.
        return self.to_out[0](video), text if self.to_add_out is None else self.to_add_out(text)

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (-1, self.head_dim))


def _rotated(heads: Tensor, rotation: Tensor | None) -> Tensor:
    return heads if rotation is None else rotate(heads, rotation)


def _head_norm(head_dim: int, qk_norm: bool) -> nn.Module:
    return HeadNorm(head_dim, eps=_EPS) if qk_norm else nn.Identity()
