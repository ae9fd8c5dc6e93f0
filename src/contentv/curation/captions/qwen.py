"""Captions from a Qwen2.5-VL folder on this machine, through transformers.

The frames are given as pictures, one after the other: the model's own video processor needs
torchvision, which does not import beside a CPU build of torch.
"""

from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image

from contentv.base.device import default_dtype, pick_device
from contentv.base.errors import UserError
from contentv.curation.captions.captioner import Answer, Request, Sampling
from contentv.data.manifest import TEST_MARK

_FEWEST = 100_000_000  # parameters of a model that can say something; less is a stand-in for tests


class QwenCaptioner:
    """A folder as `save_pretrained` writes it: model, tokenizer and image processor."""

    sampling: ClassVar[Sampling] = Sampling()
    parallel = 1

    def __init__(self, folder: Path, device: str | None = None) -> None:
        """UserError when the folder holds no such model."""
        from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
            Qwen2VLImageProcessorPil,
        )

        if not (folder / "config.json").is_file():
            raise UserError(f"{folder}: has no config.json; give a Qwen2.5-VL folder")
        self._device = pick_device(device)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._pictures = Qwen2VLImageProcessorPil.from_pretrained(folder, local_files_only=True)
            model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
                folder,
                dtype=default_dtype(self._device),
                local_files_only=True,
                use_safetensors=True,
            )
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{folder}: is no Qwen2.5-VL folder ({reason})") from error
        self._model: Any = model.to(self._device).eval()
        mark = TEST_MARK if model.num_parameters() < _FEWEST else ""
        self.name = f"{mark}{folder.resolve().name}"

    @torch.no_grad()
    def __call__(self, request: Request) -> Answer:
        """Describe a clip by greedy decoding."""
        inputs = self._inputs(request)
        length = inputs["input_ids"].shape[1]
        made = self._model.generate(**inputs, max_new_tokens=request.max_tokens, do_sample=False)
        tokens = made[0, length:]
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return Answer(text, len(tokens) < request.max_tokens, length, len(tokens))

    def _inputs(self, request: Request) -> dict[str, torch.Tensor]:
        pictures = [Image.fromarray(frame) for frame in request.shown.frames]
        seen = self._pictures(images=pictures, return_tensors="pt")
        merged = self._pictures.merge_size**2
        pads = [int(grid.prod()) // merged for grid in seen["image_grid_thw"]]
        frames = "".join(
            f"{time:.1f} s: <|vision_start|>{'<|image_pad|>' * count}<|vision_end|>"
            for time, count in zip(request.shown.times, pads, strict=True)
        )
        asked = f"<|im_start|>user\n{frames}{request.prompt}<|im_end|>\n<|im_start|>assistant\n"
        text = self._tokenizer(asked, return_tensors="pt")
        # Which tokens are pictures: newer releases of the model ask for it.
        kinds = (text["input_ids"] == self._model.config.image_token_id).int()
        inputs = {**text, "mm_token_type_ids": kinds, **seen}
        return {name: tensor.to(self._device) for name, tensor in inputs.items()}
