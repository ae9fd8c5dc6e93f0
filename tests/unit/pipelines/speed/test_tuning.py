"""Tuning: everything really runs, on the CPU; the report says what was found and is kept."""

from pathlib import Path

import pytest
import torch
from diffusers import FirstBlockCacheConfig
from torch import Tensor

from builders import random_pipeline
from contentv.base.errors import UserError
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.pipelines.speed import tuning
from contentv.pipelines.speed.guidance import Inputs
from contentv.pipelines.speed.tuned import TuningReport, Way, recall
from contentv.pipelines.speed.tuning import PLAIN, Tuner, is_compiled

SIZE = {"height": 32, "width": 32, "num_frames": 5}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_LEAST_SECONDS", 0.0)


def make(pipe: ContentVPipeline) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    latents: Tensor = pipe("a red circle", **SIZE, generator=generator, output_type="latent").frames
    return latents


def test_the_choice_is_the_fastest_of_its_table_and_is_applied() -> None:
    pipe = random_pipeline()
    expected = make(pipe)
    report = pipe.tune(**SIZE, repeats=1)
    timed = {trial.seconds: trial.way for trial in report.trials if not trial.obstacle}
    assert report.chosen == timed[min(timed)]
    assert pipe.guidance_passes.name == report.chosen.passes
    for block in pipe.transformer.transformer_blocks:
        assert block.attn.processor._attention_backend == report.chosen.backend
    assert (make(pipe) - expected).norm() <= 1e-5 * expected.norm()


def test_every_exact_way_of_a_cpu_runs_and_agrees() -> None:
    report = random_pipeline().tune(**SIZE, repeats=1)
    ways = {(t.way.backend, t.way.passes): t for t in report.trials}
    assert {("native", "sequential"), ("_native_math", "sequential")} <= ways.keys()
    assert any(passes == "batched" for _, passes in ways)
    assert any(trial.way.layers == "packed" for trial in report.trials)
    for trial in report.trials:
        if not trial.obstacle.startswith("does not run"):
            assert trial.obstacle == ""
            assert trial.difference <= 1e-5
    assert report.trials[0].difference == 0.0
    assert not any("sage" in trial.way.backend for trial in report.trials)


def test_the_table_names_every_way_and_marks_one() -> None:
    report = random_pipeline().tune(**SIZE, repeats=1)
    lines = str(report).splitlines()
    assert "float32, latents 16x2x4x4, 128 text tokens" in lines[0]
    assert len(lines) == 2 + len(report.trials)
    assert sum("<- chosen" in line for line in lines) == 1


class Stub:
    """Velocities that are right, slow or wrong by the way that is applied."""

    def __init__(self, pipe: ContentVPipeline) -> None:
        self.transformer = pipe.transformer

    def __call__(self, inputs: Inputs, _context: str) -> Tensor:
        backend = self.transformer.transformer_blocks[0].attn.processor._attention_backend
        if backend == "_native_math":
            raise NotImplementedError("no kernel\nfor this card")
        if backend == "_native_flash":
            return inputs.latents * float("nan")
        if len(inputs.latents) == 2:
            return inputs.latents * 1.01
        return inputs.latents


def test_ways_that_fail_or_differ_are_rows_with_a_reason() -> None:
    pipe = random_pipeline()
    inputs = tuning.example_inputs(pipe.transformer, torch.device("cpu"), (16, 2, 4, 4), 8)
    tuner = Tuner(pipe.transformer, Stub(pipe), inputs, 1)
    for backend in ("native", "_native_math", "_native_flash"):
        tuner.try_way(Way(backend=backend, passes="sequential", layers="plain"))
    tuner.try_way(Way(backend="native", passes="batched", layers="plain"))
    assert [trial.obstacle for trial in tuner.trials] == [
        "",
        "does not run: no kernel for this card",
        "differs by more than 0.0001",
        "differs by more than 0.0001",
    ]
    assert tuner.best == PLAIN


def test_plain_products_of_a_long_video_are_not_tried() -> None:
    pipe = random_pipeline()
    latents = torch.empty(1, 16, 32, 54, 96, device="meta")
    text = torch.empty(1, 333, 128, device="meta")
    inputs = Inputs(latents, torch.zeros(1), text, torch.empty(1, 96, device="meta"))
    tuner = Tuner(pipe.transformer, Stub(pipe), (inputs, inputs), 1)
    tuner.try_way(Way(backend="_native_math", passes="sequential", layers="plain"))
    assert tuner.trials[0].obstacle == "its scores would take 13 GiB"


def test_a_kept_report_is_applied_without_trying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tuning.json"
    first = random_pipeline().tune(**SIZE, repeats=1, file=file)
    other = random_pipeline().tune(**{**SIZE, "height": 48}, repeats=1, file=file)
    monkeypatch.delattr(tuning, "Tuner")
    pipe = random_pipeline()
    assert pipe.tune(**SIZE, file=file) == first
    assert pipe.guidance_passes.name == first.chosen.passes
    assert recall(file, other.conditions) == other
    versions = {**first.conditions.versions, "torch": "1.0"}
    assert recall(file, first.conditions.model_copy(update={"versions": versions})) is None


@pytest.mark.parametrize("content", ["{}", '[{"trials": []}]', "[1]"])
def test_a_file_of_something_else_is_refused_before_trying(tmp_path: Path, content: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(content)
    with pytest.raises(UserError, match=r"other\.json: not a file of tuning reports"):
        random_pipeline().tune(**SIZE, file=file)
    assert file.read_text() == content


def test_wrong_orders_are_refused() -> None:
    pipe = random_pipeline()
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(UserError, match="tune first"):
        pipe.tune(**SIZE)
    pipe.transformer.disable_cache()
    pipe.transformer.compile_repeated_blocks()
    with pytest.raises(UserError, match="compiled already"):
        pipe.tune(**SIZE)


def test_impossible_sizes_are_refused() -> None:
    pipe = random_pipeline()
    with pytest.raises(UserError, match="height=30"):
        pipe.tune(height=30)
    with pytest.raises(UserError, match="repeats=0"):
        pipe.tune(**SIZE, repeats=0)


@pytest.mark.slow
def test_compiled_blocks_are_tried_when_allowed() -> None:
    pipe = random_pipeline()
    expected = make(pipe)
    torch.compiler.reset()
    report = pipe.tune(**SIZE, repeats=1, may_compile=True)
    compiled = report.trials[-1]
    assert compiled.way.layers == "compiled"
    assert compiled.obstacle == ""
    assert is_compiled(pipe.transformer) == (report.chosen.layers == "compiled")
    assert (make(pipe) - expected).norm() <= 1e-5 * expected.norm()
    assert isinstance(report, TuningReport)
