"""Speeds: what each leaves out, that it comes back, and that nothing is left behind."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from diffusers import FasterCacheConfig, FirstBlockCacheConfig
from pydantic import ValidationError
from torch import Tensor, nn

from builders import build_random_pipeline, random_pipeline
from contentv.base.errors import UserError
from contentv.pipelines.config import GenerateConfig, PromptConfig
from contentv.pipelines.folder import GenerationDefaults
from contentv.pipelines.jobs import Job, plan_jobs
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.pipelines.run import run
from contentv.pipelines.speed.settings import (
    PRESETS,
    Cache,
    FasterCache,
    FirstBlockCache,
    PyramidCache,
    SpeedConfig,
    TaylorSeerCache,
    choose_speed,
)

STEPS = 10
PROMPTS = ["a red circle moves left", "a big blue square"]
CACHES: list[Cache] = [
    FirstBlockCache(threshold=0.3),
    TaylorSeerCache(),
    PyramidCache(sigmas=(0.0, 1.0)),
    FasterCache(),
]
HASTY = [
    SpeedConfig(steps=0.5),
    SpeedConfig(solver="dpm"),
    SpeedConfig(solver="unipc"),
    SpeedConfig(guided=(0.8, 1.0)),
    *(SpeedConfig(cache=cache) for cache in CACHES),
]


@pytest.fixture(scope="module")
def shared() -> ContentVPipeline:
    return random_pipeline(blocks=3)


@pytest.fixture
def pipe(shared: ContentVPipeline) -> Iterator[ContentVPipeline]:
    yield shared
    shared.set_speed("exact")


@pytest.fixture(scope="module")
def exact(shared: ContentVPipeline) -> Tensor:
    return make(shared)


def make(pipe: ContentVPipeline, **settings: Any) -> Tensor:  # noqa: ANN401 - by name
    defaults = {
        "prompt": PROMPTS[0],
        "height": 32,
        "width": 32,
        "num_frames": 5,
        "num_inference_steps": STEPS,
        "generator": torch.Generator().manual_seed(0),
        "output_type": "latent",
    }
    latents = pipe(**{**defaults, **settings}).frames
    assert isinstance(latents, Tensor)
    return latents


class Rows:
    """Counts the rows that a module computes."""

    def __init__(self, module: nn.Module) -> None:
        self.number = 0
        self._handle = module.register_forward_pre_hook(self._count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def _count(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.number += len(inputs[0])


def rows_of(pipe: ContentVPipeline, module: nn.Module, **settings: Any) -> int:  # noqa: ANN401
    with Rows(module) as rows:
        make(pipe, **settings)
    return rows.number


def name(speed: SpeedConfig) -> str:
    return speed.cache.name if speed.cache else ",".join(speed.model_fields_set)


# --- what is left out, and what it does -----------------------------------------------------------


@pytest.mark.parametrize("speed", HASTY, ids=name)
def test_each_changes_a_little_and_nothing_after_it(
    pipe: ContentVPipeline, exact: Tensor, speed: SpeedConfig
) -> None:
    pipe.set_speed(speed)
    hasty = make(pipe)
    change = (hasty - exact).norm() / exact.norm()
    assert 0 < change < 0.2
    assert torch.equal(make(pipe), hasty)  # no call sees what an earlier one left
    pipe.set_speed("exact")
    assert not pipe.transformer.is_cache_enabled
    assert torch.equal(make(pipe), exact)


@pytest.mark.parametrize("speed", HASTY, ids=name)
def test_videos_beside_each_other_do_not_mix(pipe: ContentVPipeline, speed: SpeedConfig) -> None:
    """Except that one gate of the first-block cache decides for all of them."""
    pipe.set_speed(speed)
    noise = torch.randn(2, 16, 2, 4, 4)
    both = make(pipe, prompt=PROMPTS, latents=noise)
    for row, prompt in enumerate(PROMPTS):
        alone = make(pipe, prompt=prompt, latents=noise[row : row + 1])
        tolerance = 0.05 if isinstance(speed.cache, FirstBlockCache) else 1e-4
        torch.testing.assert_close(both[row : row + 1], alone, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("speed", HASTY, ids=name)
def test_a_call_that_was_stopped_leaves_nothing(pipe: ContentVPipeline, speed: SpeedConfig) -> None:
    def stop(_pipe: ContentVPipeline, step: int, _time: Tensor, tensors: Any) -> Any:  # noqa: ANN401
        _pipe._interrupt = step == 2
        return tensors

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    pipe.set_speed(speed)
    expected = make(pipe)
    make(pipe, prompt=PROMPTS[1], callback_on_step_end=stop)
    assert torch.equal(make(pipe), expected)
    with pytest.raises(KeyboardInterrupt):
        make(pipe, prompt=PROMPTS[1], callback_on_step_end=fail)
    assert torch.equal(make(pipe), expected)


def test_a_callback_may_end_guidance(pipe: ContentVPipeline) -> None:
    def end(_pipe: ContentVPipeline, step: int, _time: Tensor, tensors: Any) -> Any:  # noqa: ANN401
        _pipe._guidance_scale = 1.0 if step >= 4 else 3.0
        return tensors

    expected = make(pipe, callback_on_step_end=end)
    for speed in HASTY:
        pipe.set_speed(speed)
        change = (make(pipe, callback_on_step_end=end) - expected).norm() / expected.norm()
        assert change < 0.2


def test_a_first_block_cache_that_never_finds_its_like_is_exact(
    pipe: ContentVPipeline, exact: Tensor
) -> None:
    pipe.set_speed(SpeedConfig(cache=FirstBlockCache(threshold=0.0)))
    torch.testing.assert_close(make(pipe), exact, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("cache", "rows"),
    [
        (FirstBlockCache(threshold=0.0), 2 * STEPS),
        (FirstBlockCache(threshold=1e9), 2),  # the first step of each pass
        (TaylorSeerCache(interval=2, warmup=3), 2 * (3 + 3)),  # steps 4, 6, 8
        (TaylorSeerCache(interval=3, warmup=2), 2 * (2 + 3)),  # steps 3, 6, 9
    ],
)
def test_hits_are_blocks_that_do_not_run(pipe: ContentVPipeline, cache: Cache, rows: int) -> None:
    pipe.set_speed(SpeedConfig(cache=cache))
    assert rows_of(pipe, pipe.transformer.transformer_blocks[1].ff) == rows


def test_pyramid_computes_attention_every_other_time(pipe: ContentVPipeline) -> None:
    block = pipe.transformer.transformer_blocks[1]
    pipe.set_speed(SpeedConfig(cache=PyramidCache(sigmas=(0.0, 1.0))))
    # Sigma 1, the first step, is outside of any range.
    assert rows_of(pipe, block.attn.to_q) == 2 * STEPS / 2
    assert rows_of(pipe, block.ff) == 2 * STEPS


def test_faster_cache_leaves_out_unguided_rows(pipe: ContentVPipeline) -> None:
    pipe.set_speed(SpeedConfig(cache=FasterCache(interval=5, sigma=1.0)))
    block = pipe.transformer.transformer_blocks[1]
    assert rows_of(pipe, block.ff) == STEPS + 2  # both halves in steps 0 and 5 only
    assert rows_of(pipe, block.attn.to_q) < STEPS + 2


@pytest.mark.parametrize(("guided", "passes"), [((0.0, 1.0), 20), ((0.9, 1.0), 14), ((1, 1), 11)])
def test_guidance_doubles_only_the_steps_in_its_range(
    pipe: ContentVPipeline, guided: tuple[float, float], passes: int
) -> None:
    """Shift 5: sigmas 1, .978, .952, .921, .882, ..., so four of ten are above .9."""
    pipe.set_speed(SpeedConfig(guided=guided))
    assert rows_of(pipe, pipe.transformer.transformer_blocks[0].ff) == passes


@pytest.mark.parametrize(
    ("asked", "taken"), [(50, (50, 25, 13)), (20, (20, 10, 5)), (3, (3, 2, 1)), (1, (1, 1, 1))]
)
def test_presets_take_their_share_of_the_steps_asked_for(
    pipe: ContentVPipeline, asked: int, taken: tuple[int, ...]
) -> None:
    assert tuple(speed.num_steps(asked) for speed in PRESETS.values()) == taken
    pipe.set_speed("fast")
    make(pipe, num_inference_steps=asked)
    assert pipe.num_timesteps == taken[-1]


def test_presets_are_ordered_by_their_work(pipe: ContentVPipeline) -> None:
    rows = []
    for preset in ("exact", "balanced", "fast"):
        pipe.set_speed(preset)
        block = pipe.transformer.transformer_blocks[1]
        rows.append(rows_of(pipe, block.ff, num_inference_steps=20))
    assert rows[0] == 40
    assert rows[0] / rows[1] > 1.5
    assert rows[0] / rows[2] > 3


# --- refused --------------------------------------------------------------------------------------


def test_unknown_names_are_refused(pipe: ContentVPipeline) -> None:
    with pytest.raises(UserError, match="speed='quick': must be one of exact, balanced, fast"):
        pipe.set_speed("quick")
    assert choose_speed(pipe.speed) is PRESETS["exact"]


@pytest.mark.parametrize(
    "settings",
    [
        {"guided": (0.9, 0.1)},
        {"guided": (0.5, 1.0), "cache": PyramidCache()},
        {"guided": (0.5, 1.0), "cache": FasterCache()},
        {"steps": 0},
        {"steps": 1.5},
        {"cache": {"name": "mag"}},
        {"solver": "heun"},
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SpeedConfig(**settings)


def test_a_cache_of_somebody_elses_stays_and_is_respected() -> None:
    pipe = random_pipeline(blocks=3)
    config = FirstBlockCacheConfig(threshold=0.1)
    pipe.transformer.enable_cache(config)
    with pytest.raises(UserError, match=r"has a FirstBlockCacheConfig already; .*disable_cache"):
        pipe.set_speed(SpeedConfig(cache=TaylorSeerCache()))
    pipe.set_speed("fast" if PRESETS["fast"].cache is None else "exact")
    assert pipe.transformer._cache_config is config


def test_faster_cache_on_two_passes_would_mix_them_and_is_refused() -> None:
    """diffusers' hook splits one forward's rows into halves; of two forwards it splits each."""
    pipe = random_pipeline(blocks=3)
    pipe.transformer.enable_cache(FasterCacheConfig(current_timestep_callback=pipe._timestep))
    with pytest.raises(UserError, match="would take one half for the other"):
        make(pipe)


def test_faster_cache_needs_guidance(pipe: ContentVPipeline) -> None:
    pipe.set_speed(SpeedConfig(cache=FasterCache()))
    with pytest.raises(UserError, match="needs guidance_scale above 1"):
        make(pipe, guidance_scale=1.0)


def test_a_cache_comes_before_compiling() -> None:
    pipe = random_pipeline(blocks=3)
    pipe.transformer.transformer_blocks[0].compile()
    with pytest.raises(UserError, match="set the speed, then compile"):
        pipe.set_speed(SpeedConfig(cache=FirstBlockCache()))
    pipe.set_speed(SpeedConfig(steps=0.5, solver="unipc"))  # needs no hooks


# --- jobs -----------------------------------------------------------------------------------------


def test_the_flag_reaches_the_job_and_another_command_keeps_it() -> None:
    def jobs(prompt: PromptConfig, defaults: dict[str, Any], **flags: Any) -> list[Job]:  # noqa: ANN401
        config = GenerateConfig.model_validate({"prompts": ("unused",), **flags})
        return plan_jobs([prompt], config, defaults)

    folder = GenerationDefaults().model_dump()
    (plain,) = jobs(PromptConfig(prompt="a"), folder)
    (hasty,) = jobs(PromptConfig(prompt="a"), folder, speed="fast")
    (own,) = jobs(PromptConfig(prompt="a", speed="balanced"), folder, speed="fast")
    assert (plain.speed, hasty.speed, own.speed) == ("exact", "fast", "balanced")
    assert not plain.fits_with(hasty)
    assert jobs(PromptConfig(prompt="a"), hasty.model_dump()) == [hasty]
    assert jobs(PromptConfig(prompt="a"), hasty.model_dump(), speed="exact") == [plain]
    earlier = plain.model_dump(exclude={"speed"})  # of a video made before there were speeds
    assert Job.model_validate(earlier) == plain


def test_a_video_is_made_again_at_its_own_speed(tmp_path: Path) -> None:
    model = str(build_random_pipeline(tmp_path / "model"))
    asked = {"prompts": (PROMPTS[0],), "model": model, "num_frames": 5, "num_inference_steps": 8}
    hashes = {}
    for speed in ("exact", "fast"):
        outcome = run(GenerateConfig(**asked, speed=speed, out=tmp_path / speed))
        (hashes[speed],) = (_sidecar(file) for file in outcome.files)
    again = run(GenerateConfig(sidecar=_beside(tmp_path / "fast"), out=tmp_path / "again"))
    assert [_sidecar(file) for file in again.files] == [hashes["fast"]]
    assert hashes["fast"] != hashes["exact"]


def _beside(folder: Path) -> Path:
    (sidecar,) = folder.glob("*.json")
    return sidecar


def _sidecar(video: Path) -> tuple[str, str]:
    content = json.loads(_beside(video.parent).read_text())
    return content["job"]["speed"], content["frames_sha256"]
