"""Guidance passes: one by one or together, with the same result."""

import pytest
import torch
from diffusers import FirstBlockCacheConfig
from torch import Tensor

from builders import random_pipeline
from contentv.base.errors import UserError
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.pipelines.speed.guidance import PASSES, Inputs


@pytest.fixture(scope="module")
def pipe() -> ContentVPipeline:
    return random_pipeline()


def make(
    pipe: ContentVPipeline, passes: str, prompt: str | list[str], **settings: object
) -> Tensor:
    pipe.set_guidance_passes(passes)
    latents: Tensor = pipe(
        prompt,
        height=32,
        width=32,
        num_frames=5,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
        **settings,
    ).frames
    pipe.set_guidance_passes("sequential")
    return latents


@pytest.mark.parametrize("prompt", ["a red circle", ["a red circle", "a blue square moves left"]])
def test_batched_passes_give_what_sequential_ones_give(
    pipe: ContentVPipeline, prompt: str | list[str]
) -> None:
    expected = make(pipe, "sequential", prompt, negative_prompt="big")
    batched = make(pipe, "batched", prompt, negative_prompt="big")
    assert (batched - expected).norm() <= 1e-5 * expected.norm()


def test_batched_passes_call_the_transformer_once_a_step(pipe: ContentVPipeline) -> None:
    rows: list[int] = []
    hook = pipe.transformer.register_forward_pre_hook(
        lambda _module, _args, inputs: rows.append(len(inputs["hidden_states"])), with_kwargs=True
    )
    for passes, expected in (("sequential", [1, 1, 1, 1]), ("batched", [2, 2])):
        rows.clear()
        make(pipe, passes, "a red circle", num_inference_steps=2)
        assert rows == expected
        assert max(rows) == PASSES[passes].rows
    make(pipe, "batched", "a red circle", num_inference_steps=2, guidance_scale=1.0)
    assert rows[-2:] == [1, 1]
    hook.remove()


@pytest.mark.parametrize("name", PASSES)
def test_passes_tell_the_prompt_from_the_negative_prompt(name: str) -> None:
    """A velocity that is its own text's pooled vector comes back in its own place."""
    cond, uncond = (
        Inputs(torch.zeros(2, 1), torch.zeros(2), torch.zeros(2, 3, 1), torch.full((2, 1), value))
        for value in (1.0, -1.0)
    )
    velocity, negative = PASSES[name](lambda inputs, _: inputs.pooled_prompt_embeds, cond, uncond)
    assert velocity.tolist() == [[1.0], [1.0]]
    assert negative.tolist() == [[-1.0], [-1.0]]


def test_a_step_cache_refuses_batched_passes_whichever_comes_first() -> None:
    pipe = random_pipeline()
    pipe.set_guidance_passes("batched")
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(UserError, match=r"'batched'.*one by one.*disable_cache"):
        pipe("a red circle", output_type="latent")
    with pytest.raises(UserError, match="'batched'"):
        pipe.set_guidance_passes("batched")
    pipe.transformer.disable_cache()
    pipe.set_guidance_passes("batched")


def test_unknown_passes_are_refused(pipe: ContentVPipeline) -> None:
    with pytest.raises(UserError, match="'twice': must be one of sequential, batched"):
        pipe.set_guidance_passes("twice")
