"""Validation on untrained networks: what it writes, and that a training does not notice it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from pydantic import ValidationError
from torch import Tensor, nn

from builders import DEFAULTS, random_pipeline
from contentv.base.errors import UserError
from contentv.data.buckets import BucketConfig, Buckets
from contentv.data.entries import Listing
from contentv.data.manifest import Clip
from contentv.models.zoo import tiny_autoencoder
from contentv.pipelines.folder import GenerationDefaults
from contentv.pipelines.jobs import Job
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.recipes.config import ValidationConfig
from contentv.recipes.dataset import as_they_come, plan_data, sizes_at_most
from contentv.recipes.validation import (
    TOY_PROMPTS,
    Validation,
    first_captions,
    judge,
    plan_videos,
)
from contentv.toyworld.captions import parse
from contentv.toyworld.dataset import sample
from contentv.training.objectives.flow_matching import FlowMatchingObjective
from contentv.training.state import TrainState, load_untied
from contentv.training.trainer import Trainer
from contentv.training.watch import Watch
from contentv.video.io import read_video, write_video
from lines import equal, everything
from trainers import flow

PROMPTS = ("a red circle moves right", "a panda surfs")


def jobs(*prompts: str, **settings: object) -> tuple[Job, ...]:
    few = {"num_frames": 5, "num_inference_steps": 2, **settings}
    config = ValidationConfig.model_validate({"every": 1, "prompts": prompts, **few})
    return plan_videos(config, GenerationDefaults.model_validate(DEFAULTS))


def pipeline_of(objective: FlowMatchingObjective) -> ContentVPipeline:
    towers = objective.towers
    return ContentVPipeline(
        transformer=objective.transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        vae=tiny_autoencoder(),
        text_encoder=towers.text_encoder,
        tokenizer=towers.tokenizer,
        text_encoder_2=towers.text_encoder_2,
        tokenizer_2=towers.tokenizer_2,
        text_encoder_3=towers.text_encoder_3,
        tokenizer_3=towers.tokenizer_3,
        generation_defaults=DEFAULTS,
    )


def training(folder: Path, *, every: int, watched: list[nn.Module]) -> TrainState:
    """The state after a small stage of transformer and text towers, with videos on the way."""
    plain = flow(folder)
    assert isinstance(plain.objective, FlowMatchingObjective)
    pipe = pipeline_of(plain.objective)
    validate = Validation(pipe, jobs(*PROMPTS), folder / "validation", bf16=True)
    watched += [plain.objective.networks.train(), pipe.vae.eval()]
    config = plain.config.model_copy(update={"validate_every": every})
    watch = Watch(validate=validate)
    torch.manual_seed(7)
    return Trainer(plain.objective, plain.batches, config, folder, watch=watch).run()


def test_a_training_with_videos_is_bitwise_the_training_without(tmp_path: Path) -> None:
    networks: list[nn.Module] = []
    without = training(tmp_path / "without", every=0, watched=networks)
    drawn = torch.get_rng_state()
    watched = training(tmp_path / "with", every=2, watched=networks)
    assert torch.equal(drawn, torch.get_rng_state())
    assert equal(everything(watched), everything(without))
    for before, after in zip(networks[:2], networks[2:], strict=True):
        assert state_of(before) == state_of(after)
    found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.glob("*/validation/*/*"))
    assert found == [
        f"with/validation/step-0000000{step}/{name}.mp4"
        for step in (2, 4)
        for name in ("00-a-red-circle-moves-right", "01-a-panda-surfs")
    ]
    lines = [json.loads(x) for x in (tmp_path / "with/log.jsonl").read_text().splitlines()]
    judged = {line["step"]: line for line in lines if "validation/all_facts" in line}
    assert judged.keys() == {2, 4}
    for line in judged.values():
        assert 0 <= line["validation/all_facts"] <= line["validation/facts"] <= 1


def state_of(network: nn.Module) -> list[object]:
    modes = [layer.training for layer in network.modules()]
    weights = [(x.dtype, x.requires_grad, x.grad is None) for x in network.parameters()]
    return [*modes, *weights]


def as_generated(pipe: ContentVPipeline, weights: dict[str, Tensor], path: Path) -> bytes:
    """The file of the first prompt, made by the pipeline with these weights."""
    load_untied(pipe.transformer, weights)
    latents = pipe(
        PROMPTS[0],
        num_frames=5,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
    ).frames
    write_video(path, pipe.stream(latents), fps=8, scale=4)
    return path.read_bytes()


def test_the_videos_are_those_that_the_averaged_weights_generate(tmp_path: Path) -> None:
    pipe = random_pipeline(1)
    state = TrainState.start(pipe.transformer, [])
    for average in state.ema.values():
        average.add_(
            torch.randn(average.shape, generator=torch.Generator().manual_seed(1)), alpha=0.2
        )
    before = everything(state)
    (job,) = jobs(PROMPTS[0], seed=3)
    shares = Validation(pipe, [job], tmp_path / "all", bf16=False)(state)
    assert equal(before, everything(state))
    made = tmp_path / "all" / "step-00000000" / "00-a-red-circle-moves-right.mp4"
    assert read_video(made).frames.shape == (5, 256, 256, 3)
    facts = judge(job, read_video(made).frames)
    assert shares["validation/facts"] == sum(facts.values()) / len(facts)
    raw = {name.removeprefix("model."): x for name, x in before.items() if "model." in name}
    assert made.read_bytes() == as_generated(pipe, dict(state.ema), tmp_path / "ema.mp4")
    assert made.read_bytes() != as_generated(pipe, raw, tmp_path / "raw.mp4")


def test_a_video_that_cannot_be_made_is_told_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipe = random_pipeline(1)
    state = TrainState.start(pipe.transformer, [])
    for average in state.ema.values():
        average.fill_(torch.nan)
    weights = {name: x.clone() for name, x in pipe.transformer.state_dict().items()}
    shares = Validation(pipe, jobs(*PROMPTS), tmp_path, bf16=True)(state)
    assert shares == {"validation/all_facts": 0.0, "validation/facts": 0.0}
    assert [r.message.split(": ")[1][:22] for r in caplog.records] == ["NaN or infinite values"] * 2
    assert not list(tmp_path.rglob("*.mp4"))
    assert all(torch.equal(weights[k], x) for k, x in pipe.transformer.state_dict().items())


def test_the_oracle_judges_prompts_of_the_toy_world_and_no_others() -> None:
    first, second = sample(4, 0), sample(4, 1)
    assert first.short.facts != second.short.facts
    (job,) = jobs(first.short.text)
    assert judge(job, first.frames()) == dict.fromkeys(first.short.facts, True)
    assert not all(judge(job, second.frames()).values())
    assert judge(job, None) == dict.fromkeys(first.short.facts, False)
    for other in jobs("a red panda moves right") + jobs(first.short.text, height=64, width=96):
        assert judge(other, np.zeros((5, other.height, other.width, 3), np.uint8)) == {}


def test_the_toy_worlds_prompts_are_each_of_another_happening() -> None:
    facts = [judge(job, None).keys() for job in jobs(*TOY_PROMPTS)]
    assert all({"shape", "colour"} <= stated for stated in facts)
    happenings = {
        (f.get("motion"), f.get("relation"), f.get("camera")) for f in map(parse, TOY_PROMPTS)
    }
    assert len(happenings) == len(TOY_PROMPTS)


def test_a_prompt_of_a_file_may_have_settings_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('a blue square\n{"prompt": "a red circle", "seed": 9, "num_frames": 1}\n')
    made = jobs("first", prompts_file=file, seed=5, guidance_scale=2)
    assert [(job.prompt, job.seed, job.num_frames) for job in made] == [
        ("first", 5, 5),
        ("a blue square", 5, 5),
        ("a red circle", 9, 1),
    ]
    assert {(job.guidance_scale, job.height, job.fps) for job in made} == {(2.0, 64, 8)}


def test_what_cannot_be_validated_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="every=5: no prompts to validate with"):
        ValidationConfig(every=5)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(UserError, match="no prompts in it"):
        jobs(prompts_file=tmp_path / "empty.txt")


def test_captions_are_the_first_different_ones_of_clips_in_use() -> None:
    def clip(number: int, text: str, frames: int = 5) -> Clip:
        size = {"frames": frames, "fps": 8.0, "height": 64, "width": 64}
        return Clip(str(number), f"{number}.mp4", "video", text, **size, stamp="1")  # type: ignore[arg-type]

    texts = ("unused", "one", "two", "one", "three")
    clips = [clip(n, text, frames=5 if n else 2) for n, text in enumerate(texts)]
    data = plan_data(
        Listing("sidecars", Path("films"), clips),
        Buckets(BucketConfig(areas=(64 * 64,), frames=(5,), fps=8)),
        lambda _: 1.0,
        seed=0,
        stage="stage",
        sizes=sizes_at_most(lambda _: 1.0, 1),
        mix=as_they_come,
        batches_per_step=1,
    )
    assert first_captions(data) == ("one", "two", "three")
    assert first_captions(data, most=2) == ("one", "two")
