"""CLIP's view of pictures, from a folder as transformers saves it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from contentv.base.device import pick_device
from contentv.base.errors import UserError
from contentv.curation.step import Picture

PictureEmbedder: TypeAlias = Callable[[Sequence[Picture]], NDArray[np.float64]]
"""From pictures ``[h w 3]`` RGB to unit vectors ``[n d]``."""


def clip_embedder(folder: Path) -> PictureEmbedder:
    """Load the vision tower; pictures are prepared by PIL, as its `preprocessor_config.json` says.

    UserError when the folder is not CLIP's, or lacks some of the tower's weights.
    """
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tower = _tower(folder)
    device = pick_device()
    tower = tower.to(device).eval()
    prepare = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)

    @torch.inference_mode()
    def embed(pictures: Sequence[Picture]) -> NDArray[np.float64]:
        images = [Image.fromarray(picture) for picture in pictures]
        pixels = prepare(images=images, return_tensors="pt")["pixel_values"].to(device)
        vectors = tower(pixel_values=pixels).image_embeds.double().cpu().numpy()
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return embed


def _tower(folder: Path) -> Any:  # noqa: ANN401 - transformers is untyped
    from transformers import CLIPVisionModelWithProjection

    try:
        tower, loaded = CLIPVisionModelWithProjection.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder}: is no CLIP folder ({reason})") from error
    # What is missing would be left at random.
    if loaded["missing_keys"]:
        missing = ", ".join(sorted(loaded["missing_keys"])[:3])
        raise UserError(f"{folder}: lacks weights of CLIP's vision tower ({missing}, ...)")
    return tower
