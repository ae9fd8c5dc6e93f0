"""Videos sampled by several processes together against one process."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from diffusers import FirstBlockCacheConfig
from torch import Tensor

from builders import random_pipeline
from contentv.base.errors import UserError, WorldError
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.pipelines.speed.parallel import explained_loss, spread
from ranks import folder, run_ranks

SAME = 1e-5
CALL = {"prompt": ["a big red circle", "a small square"], "output_type": "latent"}


def latents(pipe: ContentVPipeline, **options: object) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return pipe(**CALL, **options, generator=generator).frames


def check(*, guidance: int, tokens: int, windows: bool = False) -> None:
    """All processes get the same bits, and but for rounding those of one process."""
    pipe = random_pipeline()
    if windows:
        pipe.transformer.enable_window_attention((1, 2, 2), (2, 1, 3))
    calls = [{}, {"guidance_scale": 1.0}, {"height": 48, "num_frames": 9}]
    expected = [latents(pipe, **call) for call in calls]
    spread(pipe, guidance=guidance, tokens=tokens)
    for call, alone in zip(calls, expected, strict=True):
        together = latents(pipe, **call)
        assert (together - alone).abs().max() <= SAME, (guidance, tokens, call)
        everyone = [torch.empty_like(together) for _ in range(dist.get_world_size())]
        dist.all_gather(everyone, together)
        assert all(torch.equal(other, together) for other in everyone)


def in_two_processes() -> None:
    check(guidance=2, tokens=1)
    check(guidance=1, tokens=2)
    check(guidance=1, tokens=2, windows=True)
    check_each_runs_one_pass()
    check_caches_are_refused()
    refused(2, 2, "guidance=2, tokens=2: makes 4 processes, not the 2 .* use guidance=1, tokens=2")
    refused(3, 1, "guidance=3: has two passes; use 1 or 2")
    one_dies()


def in_four_processes() -> None:
    check(guidance=2, tokens=2)
    check(guidance=2, tokens=2, windows=True)
    refused(1, 4, "tokens=4: each process needs a head of its own, and there are 2; use 2")


def in_three_processes() -> None:
    refused(2, 1, "guidance=2, tokens=1: makes 2 processes, not the 3 .* use guidance=1, tokens=3$")


def check_each_runs_one_pass() -> None:
    pipe = random_pipeline()
    spread(pipe, guidance=2)
    forwards = []
    pipe.transformer.register_forward_hook(lambda *_: forwards.append(1))
    latents(pipe, num_inference_steps=3)
    assert len(forwards) == 3


def check_caches_are_refused() -> None:
    pipe = random_pipeline()
    spread(pipe, tokens=2)
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(UserError, match="step caches do not work so; use guidance=2"):
        latents(pipe)


def refused(guidance: int, tokens: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        spread(random_pipeline(), guidance=guidance, tokens=tokens)


def one_dies() -> None:
    """Whoever is left says so at once: it does not wait for the minute of the group's timeout."""
    pipe = random_pipeline()
    spread(pipe, guidance=2)

    def die(*_: object) -> dict[str, object]:
        if dist.get_rank() == 1:
            os._exit(0)
        return {}

    with pytest.raises(WorldError, match="lost another process"), explained_loss():
        latents(pipe, callback_on_step_end=die)
    (folder() / "told").touch()
    os._exit(0)  # nobody is there to leave together with


def test_two_processes_sample_what_one_does_and_a_dead_one_does_not_hang_the_other(
    tmp_path: Path,
) -> None:
    place = tmp_path / "ranks"
    place.mkdir()
    run_ranks(in_two_processes, 2, place)
    assert (tmp_path / "told").exists()


@pytest.mark.slow
def test_four_processes_sample_what_one_does(tmp_path: Path) -> None:
    run_ranks(in_four_processes, 4, tmp_path)


@pytest.mark.slow
def test_three_processes_cannot_take_guidance_apart(tmp_path: Path) -> None:
    run_ranks(in_three_processes, 3, tmp_path)
