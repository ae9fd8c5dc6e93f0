"""How a guided step gets its two velocities: with the prompt, and with the negative prompt."""

from collections.abc import Callable
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor


class Inputs(NamedTuple):
    """What one pass through the transformer reads.

    Latents [b c t h w], timesteps [b], text tokens [b m d] and pooled text [b p].
    """

    latents: Tensor
    timestep: Tensor
    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor


Predict = Callable[[Inputs, str], Tensor]
"""The velocity of inputs; the text names the pass for step caches: "cond" or "uncond"."""


class Passes(Protocol):
    """Runs the two passes of a step.

    `rows` is how many rows a video takes in one forward, which is what its activations cost.
    `separate` says whether step caches can tell the two passes apart.
    """

    name: ClassVar[str]
    rows: ClassVar[int]
    separate: ClassVar[bool]

    def __call__(self, predict: Predict, cond: Inputs, uncond: Inputs) -> tuple[Tensor, Tensor]:
        """Both velocities [b c t h w], the prompt's first."""
        ...


class SequentialPasses:
    """One pass after the other: half the memory, and step caches work."""

    name: ClassVar[str] = "sequential"
    rows: ClassVar[int] = 1
    separate: ClassVar[bool] = True

    def __call__(self, predict: Predict, cond: Inputs, uncond: Inputs) -> tuple[Tensor, Tensor]:
        """Both velocities [b c t h w], the prompt's first."""
        return predict(cond, "cond"), predict(uncond, "uncond")


class BatchedPasses:
    """Both in one forward, rows [uncond; cond]: fewer and larger products, for small videos.

    diffusers' FasterCache expects this order.
    """

    name: ClassVar[str] = "batched"
    rows: ClassVar[int] = 2
    separate: ClassVar[bool] = False

    def __call__(self, predict: Predict, cond: Inputs, uncond: Inputs) -> tuple[Tensor, Tensor]:
        """Both velocities [b c t h w], the prompt's first."""
        pairs = zip(uncond, cond, strict=True)
        velocities = predict(Inputs(*(torch.cat(pair) for pair in pairs)), "cond")
        negative, velocity = velocities.chunk(2)
        return velocity, negative


PASSES: dict[str, Passes] = {
    passes.name: passes for passes in (SequentialPasses(), BatchedPasses())
}
"""Those that `ContentVPipeline.set_guidance_passes` takes, by name."""
