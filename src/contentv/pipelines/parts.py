"""Parts of a model folder by themselves, loaded as the pipeline loads them."""

from pathlib import Path
from typing import ClassVar

import torch
from diffusers import AutoencoderKLWan
from transformers import (
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5EncoderModel,
    T5TokenizerFast,
)

from contentv.base.files import read_json
from contentv.models.text import TextTowers
from contentv.pipelines.loading import FolderPipeline
from contentv.pipelines.studio import load_folder


class _Autoencoder(FolderPipeline):
    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__()
        self.register_modules(vae=vae)


class _Towers(FolderPipeline):
    _optional_components: ClassVar[list[str]] = [
        *("text_encoder", "text_encoder_2", "text_encoder_3"),
        *("tokenizer", "tokenizer_2", "tokenizer_3"),
    ]

    def __init__(  # noqa: PLR0917 - diffusers reads the names
        self,
        text_encoder: CLIPTextModelWithProjection | None,
        tokenizer: CLIPTokenizer | None,
        text_encoder_2: CLIPTextModelWithProjection | None,
        tokenizer_2: CLIPTokenizer | None,
        text_encoder_3: T5EncoderModel | None,
        tokenizer_3: T5TokenizerFast | None,
    ) -> None:
        super().__init__()
        self.register_modules(
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            text_encoder_3=text_encoder_3,
            tokenizer_3=tokenizer_3,
        )


def load_vae(folder: Path, device: torch.device) -> AutoencoderKLWan:
    """The autoencoder of a model folder, frozen; ModelFilesError when it is damaged."""
    vae: AutoencoderKLWan = load_folder(_Autoencoder, folder, torch.float32).to(device).vae
    return vae.requires_grad_(False).eval()


def load_towers(folder: Path, dtype: torch.dtype, device: torch.device) -> TextTowers:
    """Tokenizers and text encoders of a model folder, frozen; ModelFilesError when damaged."""
    parts = load_folder(_Towers, folder, dtype).to(device)
    for encoder in (parts.text_encoder, parts.text_encoder_2, parts.text_encoder_3):
        if encoder is not None:
            encoder.requires_grad_(False).eval()
    return TextTowers(
        tokenizer=parts.tokenizer,
        tokenizer_2=parts.tokenizer_2,
        tokenizer_3=parts.tokenizer_3,
        text_encoder=parts.text_encoder,
        text_encoder_2=parts.text_encoder_2,
        text_encoder_3=parts.text_encoder_3,
        sequence_width=read_json(folder / "transformer" / "config.json")["joint_attention_dim"],
    )
