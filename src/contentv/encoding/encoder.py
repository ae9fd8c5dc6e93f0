"""Clips and captions to features: the one way in which they become what a trainer reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor, nn

from contentv.base.errors import UserError
from contentv.base.types import Frames
from contentv.data.batch import video_tensor
from contentv.data.features import network_hash
from contentv.models.text import TextTowers, embed, fitting_length, tokenize
from contentv.models.vae import Posterior, encode


class TowerEmbeds(NamedTuple):
    """What each tower makes of one caption, on the CPU, in the arithmetic of the towers.

    Sequences [n w] of the two CLIP towers and [m d] of T5; pooled vectors [p] of the former.
    """

    clip: Tensor
    clip_pooled: Tensor
    clip_2: Tensor
    clip_2_pooled: Tensor
    t5: Tensor


@dataclass(frozen=True)
class FeatureEncoder:
    """The frozen networks that make features; who encodes only clips needs no `towers`, and so on.

    One clip or caption a call, through the pipeline's own functions, so that features are those of
    generation and do not depend on neighbours. A picture is a clip of one frame.
    """

    vae: AutoencoderKLWan | None = None
    towers: TextTowers | None = None

    @property
    def identity(self) -> str:
        """Hash of the autoencoder's encoder; its decoder does not count."""
        vae = self.autoencoder
        return network_hash(nn.ModuleList([vae.encoder, vae.quant_conv]))

    @property
    def autoencoder(self) -> AutoencoderKLWan:
        """The autoencoder, which must be there."""
        assert self.vae is not None
        return self.vae

    @property
    def text_towers(self) -> TextTowers:
        """The text towers; UserError when there are none that read captions."""
        towers = self.towers
        if towers is None or None in (
            towers.tokenizer, towers.text_encoder, towers.text_encoder_2
        ):  # fmt: skip
            raise UserError("the model has no CLIP text encoder; take one that reads prompts")
        return towers

    @property
    def text_device(self) -> torch.device:
        """Where the text towers are."""
        device: torch.device = self.text_towers.encoders["text_encoder"].device
        return device

    @torch.no_grad()
    def clip(self, frames: Frames) -> Posterior:
        """Posterior of raw latents [c t h w] of one clip [4k+1 h w 3], bfloat16, on the CPU."""
        vae = self.autoencoder
        video = video_tensor(frames[None]).to(vae.device, vae.dtype)
        return Posterior(*(part[0].bfloat16().cpu().contiguous() for part in encode(vae, video)))

    @torch.no_grad()
    def caption(self, caption: str, length: int) -> TowerEmbeds:
        """Embeddings of one caption, of which T5 reads `length` tokens."""
        towers, device = self.text_towers, self.text_device
        tokens = tokenize(towers, [caption], max_length_3=length)
        with torch.autocast(device.type, enabled=False):
            found = embed(towers, tokens.to(device))
        sequence, pooled = found.sequence[0].cpu(), found.pooled[0].cpu()
        first, second, *_ = (encoder.config for encoder in towers.encoders.values())
        rows, width = len(sequence) - length, first.hidden_size
        return TowerEmbeds(
            sequence[:rows, :width],
            pooled[: first.projection_dim],
            sequence[:rows, width : width + second.hidden_size],
            pooled[first.projection_dim :],
            sequence[rows:],
        )

    def lengths(self, caption: str, lengths: Sequence[int]) -> tuple[int, ...]:
        """Those of T5's lengths at which a caption can stand in a batch, shortest first."""
        shortest = fitting_length(self.text_towers, [caption], lengths)
        return tuple(length for length in sorted(lengths) if length >= shortest)
