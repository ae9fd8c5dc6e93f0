"""Small real models for tests: untrained, in the folder layout of the published 8B model."""

from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from contentv.models.transformer import ContentVTransformer3DModel
from contentv.models.zoo import TEXT_LENGTHS, tiny_autoencoder, tiny_text_towers
from contentv.pipelines.pipeline import ContentVPipeline

VOCABULARY = frozenset(
    ["a", "big", "small", "red", "green", "blue", "circle", "square", "moves", "left", "right"]
)
DEFAULTS = {
    "height": 64,
    "width": 64,
    "num_frames": 17,
    "fps": 8,
    "num_inference_steps": 2,
    "guidance_scale": 3.0,
    "text_lengths": list(TEXT_LENGTHS),
}


def random_transformer(blocks: int = 2, **config: object) -> ContentVTransformer3DModel:
    """A transformer of two heads of 32 channels that reads the tiny text towers."""
    torch.manual_seed(0)
    settings = {
        "num_layers": blocks,
        "num_attention_heads": 2,
        "attention_head_dim": 32,
        "caption_projection_dim": 64,
        "joint_attention_dim": 128,
        "pooled_projection_dim": 96,
    }
    return ContentVTransformer3DModel(**{**settings, **config}).eval()


def random_pipeline(blocks: int = 2) -> ContentVPipeline:
    """A pipeline for clips of 17 frames of 64 x 64."""
    torch.manual_seed(0)
    towers = tiny_text_towers(VOCABULARY)
    pipe = ContentVPipeline(
        transformer=random_transformer(blocks),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        vae=tiny_autoencoder().eval(),
        text_encoder=towers.text_encoder.eval(),
        tokenizer=towers.tokenizer,
        text_encoder_2=towers.text_encoder_2.eval(),
        tokenizer_2=towers.tokenizer_2,
        text_encoder_3=towers.text_encoder_3.eval(),
        tokenizer_3=towers.tokenizer_3,
        generation_defaults=DEFAULTS,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def build_random_pipeline(folder: Path, *, blocks: int = 2) -> Path:
    """Writes `random_pipeline` as a model folder and gives its path."""
    random_pipeline(blocks).save_pretrained(folder)
    return folder


def make_clip(pipe: ContentVPipeline, **settings: Any) -> Any:  # noqa: ANN401 - by `output_type`
    """A short clip of 32 x 32 from seed 0."""
    defaults = {
        "prompt": "a red circle moves left",
        "height": 32,
        "width": 32,
        "num_frames": 5,
        "generator": torch.Generator().manual_seed(0),
        "output_type": "np",
    }
    return pipe(**{**defaults, **settings}).frames
