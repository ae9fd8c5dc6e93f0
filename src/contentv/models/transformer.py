"""ContentV's transformer: the MMDiT of Stable Diffusion 3.5 over the tokens of a whole video.

Parameters carry SD3's names, so the published weights, SD3.5's weights and SD3's LoRAs fit.
Paper: arXiv 2506.05343 section 3.1; MMDiT: arXiv 2403.03206.
"""

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.hooks import _helpers as cache_registry
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.attention import AttentionMixin, FeedForward
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.embeddings import CombinedTimestepTextProjEmbeddings
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import apply_lora_scale
from torch import Tensor, nn

from contentv.base.errors import UserError
from contentv.lowbit.libraries import kind_of
from contentv.models.attending import AttentionChoices
from contentv.models.attention import JointAttention
from contentv.models.embeddings import Grid, PatchEmbed3D, RotaryPositions, SinCosPositions

_EPS = 1e-6


class Modulation(nn.Module):
    """Makes vectors [b 1 d] that steer a normalisation from the conditioning [b d]."""

    def __init__(self, dim: int, num_vectors: int) -> None:
        super().__init__()
        self.num_vectors = num_vectors
        self.linear = nn.Linear(dim, num_vectors * dim)

    def forward(self, temb: Tensor) -> tuple[Tensor, ...]:
        """`num_vectors` vectors; SD3 calls this adaLN."""
        return self.linear(F.silu(temb)).unsqueeze(1).chunk(self.num_vectors, dim=-1)


def modulated_norm(hidden_states: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm of [b n d], then `* (1 + scale) + shift`."""
    normed = F.layer_norm(hidden_states, hidden_states.shape[-1:], eps=_EPS)
    return torch.addcmul(shift, normed, 1 + scale)


class ContentVTransformerBlock(nn.Module):
    """One MMDiT block: joint attention, then a feed-forward per stream.

    The last block reads the text but does not change it.
    """

    def __init__(self, *, num_heads: int, head_dim: int, qk_norm: bool, is_last: bool) -> None:
        super().__init__()
        dim = num_heads * head_dim
        self.chunk_size: int | None = None
        self.chunk_dim = 1
        self.is_last = is_last
        self.norm1 = Modulation(dim, 6)
        self.norm1_context = Modulation(dim, 2 if is_last else 6)
        self.attn = JointAttention(
            num_heads=num_heads, head_dim=head_dim, qk_norm=qk_norm, has_text_output=not is_last
        )
        self.ff = FeedForward(dim, dim_out=dim, activation_fn="gelu-approximate")
        if not is_last:
            self.ff_context = FeedForward(dim, dim_out=dim, activation_fn="gelu-approximate")

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        rotation: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Text [b m d] and video [b n d], in this order, from video, text, conditioning [b d]."""
        shift, scale, gate, ff_shift, ff_scale, ff_gate = self.norm1(temb)
        text_shift, text_scale, *text_rest = self._text_modulation(temb)

        attended, text_attended = self.attn(
            modulated_norm(hidden_states, shift, scale),
            modulated_norm(encoder_hidden_states, text_shift, text_scale),
            rotation,
        )

        hidden_states = torch.addcmul(hidden_states, gate, attended)
        del attended  # what is gone before a feed-forward is not there at the peak of memory
        if not self.is_last:
            text_gate, text_ff_shift, text_ff_scale, text_ff_gate = text_rest
            text = torch.addcmul(encoder_hidden_states, text_gate, text_attended)
        del text_attended

        normed = modulated_norm(hidden_states, ff_shift, ff_scale)
        hidden_states = torch.addcmul(hidden_states, ff_gate, self._chunked(self.ff, normed))
        if self.is_last:
            return encoder_hidden_states, hidden_states

        normed = modulated_norm(text, text_ff_shift, text_ff_scale)
        text = torch.addcmul(text, text_ff_gate, self._chunked(self.ff_context, normed))
        return text, hidden_states

    def _text_modulation(self, temb: Tensor) -> tuple[Tensor, ...]:
        vectors: tuple[Tensor, ...] = self.norm1_context(temb)
        # SD3's last text norm has its two vectors the other way round.
        return vectors[::-1] if self.is_last else vectors

    def _chunked(self, ff: nn.Module, hidden_states: Tensor) -> Tensor:
        if self.chunk_size is None:
            out: Tensor = ff(hidden_states)
            return out
        chunks = hidden_states.split(self.chunk_size, dim=self.chunk_dim)
        return torch.cat([ff(chunk) for chunk in chunks], dim=self.chunk_dim)


class ContentVTransformer3DModel(
    AttentionChoices, ModelMixin, AttentionMixin, ConfigMixin, PeftAdapterMixin, CacheMixin
):
    """Velocity (noise - data) of a noisy latent video, given a text.

    Takes every key of the published `transformer/config.json` (SD3's names). `sample_size` and
    `pos_embed_max_size` describe SD3.5's 2-D table and have no effect here.
    `pos_embed_type` is "ape" (published: absolute, sine-cosine) or "rope" (rotary: train anew).

    Raises:
        UserError: a width that does not fit the others, or an SD3 option ContentV does not have.
    """

    _supports_gradient_checkpointing = True
    _repeated_blocks: ClassVar[list[str]] = ["ContentVTransformerBlock"]
    _no_split_modules: ClassVar[list[str]] = ["ContentVTransformerBlock"]
    # SD3.5's 2-D table: present in its files, of no use to a video.
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"pos_embed\.pos_embed"]
    _skip_layerwise_casting_patterns: ClassVar[list[str]] = [
        *("pos_embed", "time_text_embed", "context_embedder"),
        *("norm_out", "proj_out"),
        "lora_",
    ]

    @register_to_config
    def __init__(  # noqa: PLR0913, PLR0917 - the keys of SD3's config.json
        self,
        sample_size: int = 128,  # noqa: ARG002
        patch_size: int = 2,
        in_channels: int = 16,
        num_layers: int = 38,
        attention_head_dim: int = 64,
        num_attention_heads: int = 38,
        joint_attention_dim: int = 4096,
        caption_projection_dim: int = 2432,
        pooled_projection_dim: int = 2048,
        out_channels: int = 16,
        pos_embed_max_size: int = 192,  # noqa: ARG002
        dual_attention_layers: tuple[int, ...] = (),
        qk_norm: Literal["rms_norm"] | None = "rms_norm",
        pos_embed_type: Literal["ape", "rope"] = "ape",
    ) -> None:
        super().__init__()
        dim = num_attention_heads * attention_head_dim
        _check_options(dim, caption_projection_dim, dual_attention_layers, qk_norm, pos_embed_type)
        self.pos_embed = PatchEmbed3D(in_channels=in_channels, embed_dim=dim, patch_size=patch_size)
        self.sincos = SinCosPositions(dim) if pos_embed_type == "ape" else None
        self.rotary = RotaryPositions(attention_head_dim) if pos_embed_type == "rope" else None
        self.time_text_embed = CombinedTimestepTextProjEmbeddings(dim, pooled_projection_dim)
        self.context_embedder = nn.Linear(joint_attention_dim, dim)
        self.transformer_blocks = nn.ModuleList(
            ContentVTransformerBlock(
                num_heads=num_attention_heads,
                head_dim=attention_head_dim,
                qk_norm=qk_norm is not None,
                is_last=index == num_layers - 1,
            )
            for index in range(num_layers)
        )
        self.norm_out = Modulation(dim, 2)
        self.proj_out = nn.Linear(dim, patch_size**2 * out_channels)
        self.gradient_checkpointing = False

    @apply_lora_scale("joint_attention_kwargs")
    def forward(  # noqa: PLR0917 - diffusers' conventions
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
        joint_attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Predicts the velocity.

        Args:
            hidden_states: noisy latents, normalised, [b c t h w].
            encoder_hidden_states: text tokens [b m joint_attention_dim], no mask.
            pooled_projections: pooled text [b pooled_projection_dim].
            timestep: sigma * 1000 per sample, [b], 0..1000, not rounded.
            joint_attention_kwargs: `{"scale": s}` sets the strength of LoRAs; nothing else.
            return_dict: False returns `(velocity,)`.

        Returns:
            Velocity [b c t h' w'], h' and w' rounded down to multiples of `patch_size`.
        """
        _check_no_options_left(joint_attention_kwargs)
        grid = self.pos_embed.grid(hidden_states)
        tokens = self.pos_embed(hidden_states)
        if self.sincos is not None:
            tokens = self.sincos.add(tokens)
        rotation = None if self.rotary is None else self.rotary.rotation(grid, tokens.device)
        tokens = tokens.flatten(1, 3)
        temb = self.time_text_embed(timestep, pooled_projections)
        text = self.context_embedder(encoder_hidden_states)
        tokens, rotation = self._in_window_order(grid, tokens, text, rotation)

        for block in self.transformer_blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                text, tokens = self._gradient_checkpointing_func(
                    block, tokens, text, temb, rotation
                )
            else:
                text, tokens = block(tokens, text, temb, rotation)

        scale, shift = self.norm_out(temb)
        patches = self.proj_out(modulated_norm(tokens, shift, scale))
        velocity = self._unpatchify(self._in_raster_order(patches), grid)
        return Transformer2DModelOutput(sample=velocity) if return_dict else (velocity,)

    def enable_forward_chunking(self, chunk_size: int = 4096, dim: int = 1) -> None:
        """Runs each feed-forward on `chunk_size` tokens (`dim=1`) or samples (`dim=0`) at a time.

        Saves memory: the feed-forward is the peak of a forward. Any chunk fits any length.
        """
        if chunk_size < 1 or dim not in (0, 1):
            raise UserError(
                f"chunk_size={chunk_size}, dim={dim}: chunk_size must be positive, dim 0 or 1"
            )
        self._set_chunks(chunk_size, dim)

    def disable_forward_chunking(self) -> None:
        """Undoes `enable_forward_chunking`."""
        self._set_chunks(None, 1)

    def _set_chunks(self, chunk_size: int | None, dim: int) -> None:
        for block in self.transformer_blocks:
            assert isinstance(block, ContentVTransformerBlock)
            block.chunk_size, block.chunk_dim = chunk_size, dim

    def enable_layerwise_casting(
        self,
        storage_dtype: torch.dtype = torch.float8_e4m3fn,
        compute_dtype: torch.dtype | None = None,
        skip_modules_pattern: tuple[str, ...] | None = None,
        skip_modules_classes: tuple[type[nn.Module], ...] | None = None,
        non_blocking: bool = False,
    ) -> None:
        """Keeps weights in `storage_dtype` and computes in `compute_dtype`.

        The two ends of the model and LoRAs stay as they are, adaLN does not: diffusers' own default
        skips all that is called "norm", a third of this model's weights.

        Raises:
            UserError: the weights are quantized.
        """
        if (kind := kind_of(self)) is not None:
            raise UserError(f"layerwise casting: the weights are quantized to {kind} already")
        super().enable_layerwise_casting(
            storage_dtype,
            compute_dtype,
            skip_modules_pattern or tuple(self._skip_layerwise_casting_patterns),
            skip_modules_classes,
            non_blocking,
        )

    def enable_cache(self, config: Any) -> None:  # noqa: ANN401 - any of diffusers' configs
        """Reuses computations between steps; `config` is one of diffusers' cache configs."""
        _tell_caches_about_blocks()
        super().enable_cache(config)

    def _unpatchify(self, patches: Tensor, grid: Grid) -> Tensor:
        """[b t*h*w p*q*c] to [b c t h*p w*q]; within a token the channel runs fastest."""
        size = self.config.patch_size
        patches = patches.unflatten(1, grid).unflatten(-1, (size, size, -1))
        return patches.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)


def _tell_caches_about_blocks() -> None:
    """First-block, Mag and Sea caches look up which output of a block is the video."""
    cache_registry.TransformerBlockRegistry.register(
        ContentVTransformerBlock,
        cache_registry.TransformerBlockMetadata(
            return_hidden_states_index=1, return_encoder_hidden_states_index=0
        ),
    )


def _check_options(
    dim: int,
    caption_projection_dim: int,
    dual_attention_layers: tuple[int, ...],
    qk_norm: str | None,
    pos_embed_type: str,
) -> None:
    if caption_projection_dim != dim:
        raise UserError(
            f"caption_projection_dim={caption_projection_dim}: must equal "
            f"num_attention_heads * attention_head_dim = {dim}"
        )
    if dual_attention_layers:
        raise UserError(
            f"dual_attention_layers={dual_attention_layers}: ContentV has none; "
            "use SD3.5-Large, not Medium"
        )
    if qk_norm not in ("rms_norm", None):
        raise UserError(f"qk_norm={qk_norm!r}: must be 'rms_norm' or None")
    if pos_embed_type not in ("ape", "rope"):
        raise UserError(f"pos_embed_type={pos_embed_type!r}: must be 'ape' or 'rope'")


def _check_no_options_left(joint_attention_kwargs: dict[str, Any] | None) -> None:
    """`apply_lora_scale` has taken "scale" out; anything else would be ignored silently."""
    if joint_attention_kwargs:
        raise UserError(
            f"joint_attention_kwargs={sorted(joint_attention_kwargs)}: only 'scale' (LoRA) is known"
        )
