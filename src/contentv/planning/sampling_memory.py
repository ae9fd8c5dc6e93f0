"""Memory of generating a video with the 8B model, measured without a device.

The pipeline runs as it is, with the hooks, chunks and tiles of a mode, on an imagined card
(`card.py`). Counted are weights and activations; what a device's context, its libraries'
workspaces and gaps between tensors take (0.6 to 1 GiB) is not.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from contentv.models.cost import TransformerSize
from contentv.models.memory import chunk_tokens
from contentv.models.text import TextTokens, embed
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.pipelines.memory.disk import Act
from contentv.pipelines.memory.fitting import place
from contentv.pipelines.memory.modes import Mode
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.planning.card import CARD, imagined_card
from contentv.video.shapes import ScaleFactors, VideoShape

ACTS: tuple[Act, ...] = ("text", "denoise", "decode")
_CLIP_TOKENS, _T5_TOKENS = 77, 256
_STEPS = 2  # the second meets what the first left behind
_DECODED = 3  # latent frames: the third meets all that layers remember, later ones the same


def measure_sampling_memory(
    mode: Mode, video: VideoShape, acts: Iterable[Act] = ACTS
) -> dict[Act, int]:
    """Bytes on the card at the fullest moment of each of `acts`, for one guided video in bfloat16.

    The autoencoder is in float32 and decodes the first frames only, as frames leave the card when
    they are finished. The prompt has CLIP's 77 and T5's 256 tokens. Weights in int8 are torchao's
    own tensors, those in nf4 stand-ins of their size.
    """
    peaks: dict[Act, int] = {}
    run = {"text": _read, "denoise": _denoise, "decode": _decode}
    with imagined_card() as card:
        pipe = published_pipeline()
        arrange(pipe, mode, video)
        for act in acts:
            card.restart()
            run[act](pipe, video)
            peaks[act] = card.peak
    return peaks


def published_pipeline() -> ContentVPipeline:
    """A pipeline of the published model's size without its tokenizers, weights in their dtypes."""
    pipe = ContentVPipeline(
        transformer=ContentVTransformer3DModel().to(torch.bfloat16).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=17.0),
        vae=AutoencoderKLWan().eval(),
        text_encoder=_clip(width=768, layers=12, heads=12, activation="quick_gelu"),
        tokenizer=None,
        text_encoder_2=_clip(width=1280, layers=32, heads=20, activation="gelu"),
        tokenizer_2=None,
        text_encoder_3=_t5(),
        tokenizer_3=None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def arrange(pipe: ContentVPipeline, mode: Mode, video: VideoShape) -> None:
    """Puts the parts of a pipeline where `mode` wants them, around `CARD`."""
    if mode.quantization == "nf4":
        pack_by_four(pipe.transformer.transformer_blocks)
        pack_by_four(pipe.text_towers().encoders["text_encoder_3"])
    elif mode.quantization is not None:
        pipe.enable_model_quantization(mode.quantization)
    latent = ScaleFactors().latent(video)
    chunk = chunk_tokens(TransformerSize.of(pipe.transformer.config), latent)
    place(pipe, mode, chunk=chunk if mode.chunked else None, device=CARD)


class FourBitLinear(nn.Module):
    """Memory of a linear layer of bitsandbytes' nf4, which only a graphics card computes.

    Two weights a byte and a byte of scale for 64 of them; the weights are unpacked for each call.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.shape, count = linear.weight.shape, linear.weight.numel()
        self.register_buffer("weight", torch.empty(count // 2, dtype=torch.int8))
        self.register_buffer("scales", torch.empty(count // 64, dtype=torch.int8))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.Linear`."""
        return F.linear(x, x.new_empty(self.shape), self.bias)


def pack_by_four(network: nn.Module) -> None:
    """Puts `FourBitLinear` in the place of each linear layer in a network."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, FourBitLinear(child))


def _read(pipe: ContentVPipeline, _: VideoShape) -> None:
    ids = (torch.zeros(1, n, dtype=torch.int64) for n in (_CLIP_TOKENS, _CLIP_TOKENS, _T5_TOKENS))
    with torch.no_grad(), pipe._act("text"):  # noqa: SLF001 - the act, without its tokenizers
        embed(pipe.text_towers(), TextTokens(*ids).to(CARD))
    pipe.maybe_free_model_hooks()


def _denoise(pipe: ContentVPipeline, video: VideoShape) -> None:
    config = pipe.transformer.config
    tokens = _CLIP_TOKENS + _T5_TOKENS
    sequences = [_empty(1, tokens, config.joint_attention_dim) for _ in range(2)]
    pooled = [_empty(1, config.pooled_projection_dim) for _ in range(2)]
    pipe(
        prompt_embeds=sequences[0],
        negative_prompt_embeds=sequences[1],
        pooled_prompt_embeds=pooled[0],
        negative_pooled_prompt_embeds=pooled[1],
        num_frames=video.frames,
        height=video.height,
        width=video.width,
        num_inference_steps=_STEPS,
        output_type="latent",
    )


def _decode(pipe: ContentVPipeline, video: VideoShape) -> None:
    latent = ScaleFactors().latent(video)
    frames = min(latent.frames, _DECODED)
    shape = (1, pipe.vae.config.z_dim, frames, latent.height, latent.width)
    for _ in pipe.stream(_empty(*shape)):
        pass


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.bfloat16)


def _clip(*, width: int, layers: int, heads: int, activation: str) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        hidden_act=activation,
        max_position_embeddings=_CLIP_TOKENS,
    )
    return CLIPTextModelWithProjection(config).to(torch.bfloat16).eval()


def _t5() -> T5EncoderModel:
    config = T5Config(
        d_model=4096, d_kv=64, num_heads=64, d_ff=10240, num_layers=24, vocab_size=32128,
        feed_forward_proj="gated-gelu", dropout_rate=0.0, is_encoder_decoder=False, use_cache=False,
    )  # fmt: skip
    return T5EncoderModel(config).to(torch.bfloat16).eval()
