"""Where the parts of a pipeline are, in which form, and when: all that saves memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from diffusers import DiffusionPipeline

Act = Literal["text", "denoise", "decode"]
"""What a call does, one after another; each needs other parts."""


class Placement(DiffusionPipeline):
    """Part of the pipeline: brings parts to where an act needs them, and takes them away."""

    @contextmanager
    def _act(self, act: Act) -> Iterator[None]:  # noqa: ARG002
        yield
