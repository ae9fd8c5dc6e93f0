"""Fresh networks of the tiny model: ContentV in small, every part of the 8B folder present."""

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, WanResample
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from contentv.models.embeddings import Grid, SinCosPositions
from contentv.models.text import TextTowers
from contentv.models.tokenizers import clip_tokenizer, t5_tokenizer
from contentv.models.transformer import ContentVTransformer3DModel

TEXT_LENGTHS = (16, 112)
_CLIP_LENGTH = 16
_CLIP_WIDTH = 48
_T5_WIDTH = 128
_TRAINED_GRID = Grid(frames=5, height=4, width=4)


def tiny_transformer() -> ContentVTransformer3DModel:
    """Six MMDiT blocks of width 192."""
    transformer = ContentVTransformer3DModel(
        num_layers=6,
        num_attention_heads=3,
        attention_head_dim=64,
        caption_projection_dim=192,
        joint_attention_dim=_T5_WIDTH,
        pooled_projection_dim=2 * _CLIP_WIDTH,
    )
    start_with_clear_positions(transformer, _TRAINED_GRID)
    return transformer


@torch.no_grad()
def start_with_clear_positions(transformer: ContentVTransformer3DModel, grid: Grid) -> None:
    """Let a fresh transformer tell its tokens apart by place.

    On a grid of few tokens most channels of the sine-cosine table are the same for all of them and
    drown those that differ. The patches' bias takes away what all places share, and patches start
    at half their strength.
    """
    projection = transformer.pos_embed.proj
    table = SinCosPositions(projection.out_channels)
    axes = table.axes(grid, torch.float32, torch.device("cpu"))
    shared = torch.cat([axis.flatten(0, -2).mean(0) for axis in axes])
    assert projection.bias is not None
    projection.bias.sub_(shared)
    projection.weight.mul_(0.5)


def tiny_text_towers(vocabulary: frozenset[str]) -> TextTowers:
    """Two CLIP towers and a T5 encoder that know the words of `vocabulary`, untrained."""
    clip = clip_tokenizer(vocabulary, max_length=_CLIP_LENGTH, pad_token="<|endoftext|>")
    clip_2 = clip_tokenizer(vocabulary, max_length=_CLIP_LENGTH, pad_token="!")
    t5 = t5_tokenizer(vocabulary, max_length=max(TEXT_LENGTHS))
    t5_config = T5Config(
        vocab_size=len(t5), d_model=_T5_WIDTH, d_kv=32, num_heads=4, d_ff=256, num_layers=4,
        feed_forward_proj="gated-gelu", dropout_rate=0.0, is_encoder_decoder=False, use_cache=False,
    )  # fmt: skip
    return TextTowers(
        tokenizer=clip,
        tokenizer_2=clip_2,
        tokenizer_3=t5,
        text_encoder=_clip_encoder(len(clip), clip.eos_token_id, "quick_gelu"),
        text_encoder_2=_clip_encoder(len(clip_2), clip_2.eos_token_id, "gelu"),
        text_encoder_3=T5EncoderModel(t5_config),
    )


def _clip_encoder(
    vocab_size: int, eos_token_id: int, activation: str
) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=vocab_size, hidden_size=_CLIP_WIDTH, intermediate_size=2 * _CLIP_WIDTH,
        projection_dim=_CLIP_WIDTH, num_hidden_layers=2, num_attention_heads=2,
        hidden_act=activation, max_position_embeddings=_CLIP_LENGTH,
        bos_token_id=eos_token_id - 1, eos_token_id=eos_token_id, pad_token_id=eos_token_id,
    )  # fmt: skip
    return CLIPTextModelWithProjection(config)


def tiny_autoencoder() -> AutoencoderKLWan:
    """Wan's causal autoencoder for small clips: 4 frames and 8 x 8 pixels a latent, 16 channels."""
    vae = AutoencoderKLWan(
        base_dim=16,
        decoder_base_dim=24,
        z_dim=16,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        patch_size=2,
        in_channels=12,
        out_channels=12,
        latents_mean=[0.0] * 16,
        latents_std=[1.0] * 16,
        scale_factor_temporal=4,
        scale_factor_spatial=8,
    )
    start_as_image_model(vae)
    return vae


@torch.no_grad()
def start_as_image_model(vae: AutoencoderKLWan) -> None:
    """Let a fresh causal autoencoder treat a clip as a row of stills.

    Temporal kernels look at the newest frame only, at the gain of a 2-D network; time convolutions
    repeat their last frame. Trained on images it then already decodes clips, at a quarter of the
    frame rate.
    """
    for module in vae.modules():
        if isinstance(module, WanResample) and hasattr(module, "time_conv"):
            _repeat_newest(module.time_conv)
        elif isinstance(module, WanCausalConv3d) and module.kernel_size == (3, 3, 3):
            _newest_tap_only(module)
    # A narrow posterior from the start; the KL term widens it where that is cheap.
    z_dim = vae.config.z_dim
    vae.quant_conv.bias[z_dim:].fill_(-6.0)
    vae.quant_conv.weight[z_dim:].zero_()


def _newest_tap_only(conv: WanCausalConv3d) -> None:
    newest = conv.weight[:, :, -1:].clone()
    conv.weight.zero_()
    conv.weight[:, :, -1:] = newest * 3**0.5


def _repeat_newest(conv: WanCausalConv3d) -> None:
    conv.weight.zero_()
    copies = conv.out_channels // conv.in_channels
    eye = torch.eye(conv.in_channels).repeat(copies, 1)
    conv.weight[:, :, -1, 0, 0] = eye
    assert isinstance(conv.bias, nn.Parameter)
    conv.bias.zero_()
