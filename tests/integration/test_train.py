"""`contentv train smoke`: all stages of the tiny recipe in seconds, killed and resumed."""

import os
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from contentv.base.errors import ModelFilesError, NumericsError, UserError
from contentv.data.toylatents import LatentBatches
from contentv.data.toyset import ClipPhase
from contentv.distributed.checkpoint import latest, load
from contentv.models.zoo import TEXT_LENGTHS
from contentv.pipelines.folder import check_folder
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.recipes import export, selftest, tiny, toychain
from contentv.recipes.config import ExportConfig, TrainConfig
from contentv.recipes.run import run
from contentv.recipes.toystages import Compute
from contentv.training.signals import Interrupted

CPU = Compute(torch.device("cpu"), compiled=False)
STAGES = tuple(tiny.SMOKE.stages)


def train(out: Path, stage: str | None = None) -> Path:
    return run(TrainConfig(recipe="smoke", out=out, stage=stage, compiled=False)).model


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of every safetensors file, by file and name."""
    return {
        f"{file.relative_to(folder)}:{name}": tensor
        for file in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def differences(one: Path, other: Path) -> list[str]:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    return [name for name in ours if not torch.equal(ours[name], theirs[name])]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that never stopped."""
    out = tmp_path_factory.mktemp("finished")
    train(out)
    return out / "smoke"


def test_the_trained_folder_is_whole_and_generates(finished: Path) -> None:
    check_folder(finished / "model")
    assert {tensor.dtype for tensor in weights(finished / "model").values()} == {torch.bfloat16}
    pipe = ContentVPipeline.from_pretrained(finished / "model", torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    videos = pipe(
        "A red circle moves right",
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).frames
    assert np.asarray(videos).shape == (1, 17, 64, 64, 3)
    defaults = pipe.config.generation_defaults
    assert (defaults["num_frames"], defaults["fps"]) == (17, 8)
    assert tuple(defaults["text_lengths"]) == TEXT_LENGTHS
    assert pipe.scheduler.config.shift == defaults["flow_shift"]


def test_the_folder_holds_the_averages_and_the_statistics_of_its_latents(finished: Path) -> None:
    pipe = ContentVPipeline.from_pretrained(finished / "model", torch_dtype=torch.float32)
    average = load(latest(finished / "stage3")).tensors["ema"]
    for name, value in pipe.transformer.state_dict().items():
        assert torch.equal(value, average[f"transformer.{name}"].bfloat16().float()), name
    decoder = load(latest(finished / "decoder")).tensors["ema"]
    for name, value in pipe.vae.state_dict().items():
        assert torch.equal(value, decoder[name].bfloat16().float()), name
    shard = load_file(next((finished / "clips").iterdir()))
    mean = shard["mean"].float().mean((0, 2, 3, 4))
    assert torch.allclose(torch.tensor(pipe.vae.config.latents_mean), mean, atol=1e-5)
    assert not torch.allclose(mean, torch.zeros(16), atol=1e-3)


def test_no_trace_of_temporary_folders_is_left(finished: Path) -> None:
    assert not [path for path in finished.rglob("*") if ".part" in path.name]
    configs = [path.read_text() for path in (finished / "model").rglob("*.json")]
    assert not [text for text in configs if ".part" in text or str(finished) in text]


def test_a_dry_run_builds_everything_and_leaves_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        result = run(TrainConfig(recipe="smoke", out=tmp_path, compiled=False, dry_run=True))
    for stage in STAGES:
        assert f"{stage}: would train steps 0 to " in caplog.text
    assert "nothing was trained" in str(result)
    assert list(tmp_path.rglob("*")) == []


def test_a_dry_run_of_a_finished_run_says_so(
    finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = sorted(finished.rglob("*"))
    with caplog.at_level("INFO"):
        run(TrainConfig(recipe="smoke", out=finished.parent, compiled=False, dry_run=True))
    assert [f"{stage}: finished at step" in caplog.text for stage in STAGES] == [True] * len(STAGES)
    assert sorted(finished.rglob("*")) == before


@pytest.mark.parametrize("group", ["ema", "raw"])
def test_an_exported_checkpoint_is_a_model_with_its_weights(
    finished: Path, tmp_path: Path, group: Literal["ema", "raw"]
) -> None:
    result = export.run(
        ExportConfig(
            checkpoint=finished / "stage3",
            base=finished / "model",
            out=tmp_path / "model",
            weights=group,
            dtype="fp32",
        )
    )
    assert result.step == 4
    assert "transformer" in result.networks
    check_folder(result.model)
    stored = load(latest(finished / "stage3")).tensors["ema" if group == "ema" else "model"]
    exported = ContentVPipeline.from_pretrained(result.model, torch_dtype=torch.float32)
    for name, value in exported.transformer.state_dict().items():
        assert torch.equal(value, stored[f"transformer.{name}"]), name
    base = weights(finished / "model")
    same = [
        torch.equal(x, base[n].float()) for n, x in weights(result.model).items() if "vae/" in n
    ]
    assert same
    assert all(same)


def test_the_averages_in_bfloat16_are_what_training_exported(
    finished: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    export.run(ExportConfig(checkpoint=finished / "stage3", base=finished / "model", out=model))
    assert differences(finished / "model", model) == []


def test_a_base_model_that_cannot_be_loaded_is_named_and_nothing_is_written(
    finished: Path, tmp_path: Path
) -> None:
    base, out = tmp_path / "base", tmp_path / "model"
    shutil.copytree(finished / "model", base)
    (base / "vae" / "config.json").write_text('{"_class_name": "AutoencoderKLWan", "z_dim": "x"}')
    with pytest.raises(ModelFilesError, match="base: cannot be loaded"):
        export.run(ExportConfig(checkpoint=finished / "stage3", base=base, out=out))
    assert not out.exists()


def test_a_folder_without_a_checkpoint_exports_nothing(finished: Path, tmp_path: Path) -> None:
    config = ExportConfig(checkpoint=tmp_path, base=finished / "model", out=tmp_path / "model")
    with pytest.raises(UserError, match="holds no checkpoint"):
        export.run(config)


def test_training_again_changes_nothing(finished: Path) -> None:
    before = weights(finished)
    train(finished.parent)
    after = weights(finished)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def begun(finished: Path, out: Path) -> None:
    """A run that has not begun its last stage."""
    shutil.copytree(finished, out / "smoke")
    shutil.rmtree(out / "smoke" / "stage3")
    shutil.rmtree(out / "smoke" / "model")


KILLED = """
import os, signal, sys, time
from pathlib import Path
import torch
from contentv.data.toylatents import LatentBatches
from contentv.recipes.config import TrainConfig
from contentv.recipes.run import run
from contentv.recipes.toystages import Compute
def draw(batches, step, real=LatentBatches.__call__):
    if step == 3:
        while not list(Path(sys.argv[1]).glob("smoke/stage3/step-00000002")):
            time.sleep(0.01)  # it is being written meanwhile
        os.kill(os.getpid(), signal.SIGKILL)
    return real(batches, step)
torch.set_num_threads(1)
LatentBatches.__call__ = draw
run(TrainConfig(recipe="smoke", out=Path(sys.argv[1]), compiled=False))
"""


@pytest.mark.timeout(300)  # another process imports torch meanwhile
def test_killed_in_mid_stage_and_resumed_the_weights_are_bitwise_the_same(
    finished: Path, tmp_path: Path
) -> None:
    begun(finished, tmp_path)
    source = str(Path(tiny.__file__).parents[2])
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        check=False,
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (tmp_path / "smoke" / "model").exists()
    assert latest(tmp_path / "smoke" / "stage3").name == "step-00000002"  # a step is lost
    torch.manual_seed(99)
    run(TrainConfig(recipe="smoke", out=tmp_path, jobs=2, compiled=False))
    assert differences(finished, tmp_path / "smoke") == []


def test_sigterm_saves_the_stage_stops_the_run_and_it_goes_on_exactly(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(finished, tmp_path)
    real = LatentBatches.__call__

    def draw(batches: LatentBatches, step: int) -> object:
        if (batches.stage, step) == ("stage3", 0):
            signal.raise_signal(signal.SIGTERM)
        return real(batches, step)

    with monkeypatch.context() as patch:
        patch.setattr(LatentBatches, "__call__", draw)
        with pytest.raises(Interrupted, match="stage3: saved at step 1"):
            train(tmp_path)
    assert latest(tmp_path / "smoke" / "stage3").name == "step-00000001"
    assert not (tmp_path / "smoke" / "model").exists()
    train(tmp_path)
    assert differences(finished / "model", tmp_path / "smoke" / "model") == []


def copied(finished: Path, out: Path) -> Path:
    """A finished run without its large files: enough to be refused."""
    for stage in STAGES:
        state = latest(finished / stage) / "state.json"
        target = out / stage / state.parent.name
        target.mkdir(parents=True)
        (target / "state.json").write_bytes(state.read_bytes())
    (out / "run.yaml").write_bytes((finished / "run.yaml").read_bytes())
    return out


OTHER_PHASES = tiny.SMOKE.autoencoder2d.model_copy(
    update={"phases": (ClipPhase(steps=2, shapes=((1, 3),)),)}
)


@pytest.mark.parametrize(
    ("change", "stage", "what"),
    [
        ({"autoencoder2d": OTHER_PHASES}, "autoencoder2d", "phases"),
        ({"clips": 8}, "t2i", "clips"),
        ({"seed": 1}, "t2i", "seed"),
    ],
)
def test_other_data_for_a_stage_that_has_begun_is_refused(
    finished: Path, tmp_path: Path, change: dict[str, object], stage: str, what: str
) -> None:
    recipe = tiny.SMOKE.model_copy(update=change)
    folder = copied(finished, tmp_path)
    before = (folder / "run.yaml").read_bytes()
    with pytest.raises(UserError, match=f"stage {stage} began with other {what}"):
        toychain.links(recipe, folder, CPU)
    assert (folder / "run.yaml").read_bytes() == before


def test_features_of_another_number_of_clips_are_refused(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "smoke")
    shutil.rmtree(tmp_path / "smoke" / "model")
    shard = next((tmp_path / "smoke" / "clips").iterdir())
    shard.with_name("clips-00000016.safetensors").write_bytes(shard.read_bytes())
    with pytest.raises(UserError, match="holds 32 clips, the recipe has 16"):
        train(tmp_path)


def test_phases_must_fill_their_stage() -> None:
    settings = tiny.SMOKE.model_dump()
    settings["stage3"]["stage"]["steps"] += 1
    with pytest.raises(ValueError, match=r"stage3: steps=5, but its phases have 4 together"):
        tiny.TinyRecipe.model_validate(settings)


def test_a_stage_has_the_name_of_its_place() -> None:
    settings = tiny.SMOKE.model_dump()
    settings["stage2"]["stage"]["name"] = "stage1"
    with pytest.raises(ValueError, match=r"stage2\.stage\.name=stage1: must be stage2"):
        tiny.TinyRecipe.model_validate(settings)


def test_each_stage_begins_with_the_averages_of_the_one_before(finished: Path) -> None:
    """With no step made between, hand-over would be the identity: two steps of 1e-5 are nearly."""
    names = ("t2i", "vae_adaptation", "stage1", "stage2", "stage3")
    ends = {name: load(latest(finished / name)).tensors["ema"] for name in names}
    for before, after in pairwise(names):
        near = torch.cat([(ends[after][k] - ends[before][k]).flatten() for k in ends[after]])
        assert 0 < near.abs().max() < 0.02
    towers = {name for name in ends["t2i"] if name.startswith("text_encoder")}
    assert towers
    assert not towers & ends["stage3"].keys()
    decoder, before = (
        load(latest(finished / name)).tensors["ema"] for name in ("decoder", "autoencoder3d")
    )
    same = {name for name in decoder if torch.equal(decoder[name], before[name])}
    assert {name for name in decoder if name.startswith("encoder")} <= same
    assert {name for name in decoder if name.startswith("decoder")} - same


def test_a_stage_alone_waits_for_its_turn(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stage=t2i: pictures, text_encoders must be finished"):
        train(tmp_path, stage="t2i")
    assert train(tmp_path, stage="text_encoders") == tmp_path / "smoke" / "text_encoders"
    assert differences(finished / "text_encoders", tmp_path / "smoke" / "text_encoders") == []


def test_the_selftest_learns_one_clip_by_heart(tmp_path: Path) -> None:
    result = run(TrainConfig(selftest=True, device="cpu", out=tmp_path))
    assert "selftest passed" in str(result)
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_does_not_learn_fails_the_selftest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "_HALF", 1)
    with pytest.raises(NumericsError, match=r"selftest: loss .* after 2 steps on cpu, must fall"):
        run(TrainConfig(selftest=True, device="cpu"))


@pytest.mark.parametrize("given", [{}, {"recipe": "smoke", "selftest": True}])
def test_a_training_is_a_recipe_or_the_selftest(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="name tiny or smoke, or ask for --selftest alone"):
        TrainConfig(**given)
