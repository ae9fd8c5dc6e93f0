"""Unseen clips through the autoencoder and back: what no transformer can do better."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from contentv.base.errors import ModelFilesError
from contentv.base.types import Frames
from contentv.data.batch import video_tensor
from contentv.evaluation.questions import Question
from contentv.evaluation.scoring import Row, judge
from contentv.models.vae import encode, normalize
from contentv.pipelines.decoding import stream_frames

_ENCODED_AT_ONCE = 8


class Reconstruction:
    """Answers questions with the reconstruction of the very clip they describe."""

    def __init__(self, vae: AutoencoderKLWan) -> None:
        self._vae = vae

    def batches(self, questions: Sequence[Question], size: int) -> list[tuple[Question, ...]]:
        """Group questions in their order; `size` bounds what a stopped run loses."""
        return [tuple(questions[i : i + size]) for i in range(0, len(questions), size)]

    @torch.no_grad()
    def answer(self, batch: Sequence[Question]) -> Iterator[tuple[Row, Frames]]:
        """Give row, PSNR included, and decoded frames of each question."""
        for first in range(0, len(batch), _ENCODED_AT_ONCE):
            part = batch[first : first + _ENCODED_AT_ONCE]
            clips = np.stack([question.sample.frames() for question in part])
            video = video_tensor(clips).to(self._vae.device, self._vae.dtype)
            latents = normalize(self._vae, encode(self._vae, video).mean)
            for place, question in enumerate(part):
                frames = stream_frames(self._vae, latents[place : place + 1])
                clip = clips[place]
                yield judge(question, frames, blank=clip.shape, reference=clip)


def load_autoencoder(folder: Path, device: torch.device) -> AutoencoderKLWan:
    """Load only the autoencoder of a model folder, in float32.

    Raises:
        ModelFilesError: it is not there, or not a Wan autoencoder.
    """
    try:
        vae = AutoencoderKLWan.from_pretrained(
            folder, subfolder="vae", torch_dtype=torch.float32, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelFilesError(f"{folder / 'vae'}: cannot be loaded ({reason})") from error
    return vae.eval().to(device)
