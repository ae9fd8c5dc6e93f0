"""`contentv train finetune`: from a folder of clips with captions to a LoRA or a model."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from builders import build_random_pipeline
from contentv.cli import main
from contentv.data.planned import PlannedBatches
from contentv.data.source import StepFeatures
from contentv.distributed.checkpoint import latest, load
from contentv.pipelines.folder import check_folder
from contentv.pipelines.jobs import slug
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.recipes.config import FinetuneConfig
from contentv.recipes.finetune import run
from contentv.toyworld.dataset import sample
from contentv.video.io import write_video
from lines import CrashError

LORA = Path("lora/pytorch_lora_weights.safetensors")
SMALL = "--frames 1 5 --steps 4 --batch-size 2 --checkpoint-every 2 --log-every 1 --workers 1"


def film(folder: Path, numbers: Sequence[int]) -> Path:
    """Toy clips of 5 frames with captions."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        clip = sample(0, number)
        write_video(folder / f"{number}.mp4", clip.frames(5), fps=8)
        (folder / f"{number}.txt").write_text(clip.short.text)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_pipeline(tmp_path_factory.mktemp("model") / "random", blocks=1)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos and a picture of use, and a clip that is too short."""
    folder = film(tmp_path_factory.mktemp("data") / "films", range(4))
    Image.fromarray(sample(0, 9).frames(1)[0]).save(folder / "9.png")
    (folder / "9.txt").write_text("a picture")
    write_video(folder / "short.mp4", np.zeros((3, 64, 64, 3), np.uint8), fps=8)
    (folder / "short.txt").write_text("too short")
    return folder


def finetune(films: Path, model: Path, out: Path, *more: str) -> int:
    line = ["--data", str(films), "--model", str(model), "--out", str(out), "--device", "cpu"]
    return main(["train", "finetune", *line, *SMALL.split(), *more])


@pytest.fixture(scope="module")
def finished(films: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that never stopped."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    assert finetune(films, model, out) == 0
    return out


def latents(pipe: ContentVPipeline) -> torch.Tensor:
    return pipe(
        "a red circle moves right",
        num_inference_steps=2,
        num_frames=5,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).frames


def test_the_lora_loads_into_the_pipeline_and_changes_its_videos(
    finished: Path, model: Path
) -> None:
    pipe = ContentVPipeline.from_pretrained(model, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    plain = latents(pipe)
    pipe.load_lora_weights(finished / "lora")
    assert (latents(pipe) - plain).abs().max() > 1e-5
    pipe.unload_lora_weights()
    assert torch.equal(latents(pipe), plain)


def test_the_lora_is_the_average_and_the_checkpoint_holds_nothing_frozen(finished: Path) -> None:
    lora = load_file(finished / LORA)
    average = load(latest(finished / "finetune")).tensors["ema"]
    assert all(".lora_" in name for name in average)
    assert {x.dtype for x in average.values()} == {torch.float32}
    stored = {name.replace(".default.weight", ".weight"): x for name, x in average.items()}
    assert lora.keys() == stored.keys()
    assert all(torch.equal(lora[name], stored[name]) for name in lora)
    assert {name.split(".")[4] for name in lora if "lora_B" in name} == {
        *("to_q", "to_k", "to_v", "to_out"),
        *("add_q_proj", "add_k_proj", "add_v_proj"),  # the last block has no text to give
    }


def test_each_clip_is_encoded_once_and_the_log_tells_pictures_from_videos(finished: Path) -> None:
    assert len(list((finished / "latents").rglob("*.safetensors"))) == 5
    lines = [json.loads(x) for x in (finished / "finetune/log.jsonl").read_text().splitlines()]
    kinds = {key for line in lines for key in line if key.startswith("loss/kind")}
    assert kinds == {"loss/kind/image", "loss/kind/video"}
    assert not (finished / "stand_ins.jsonl").exists()


def test_broken_off_and_resumed_the_lora_is_bitwise_the_same(
    finished: Path, films: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = PlannedBatches.__call__

    def draw(batches: PlannedBatches, step: int) -> StepFeatures:
        if step == 3:
            raise CrashError
        return real(batches, step)

    with monkeypatch.context() as patch:
        patch.setattr(PlannedBatches, "__call__", draw)
        assert finetune(films, model, tmp_path) == 1
    assert not (tmp_path / "lora").exists()
    assert latest(tmp_path / "finetune").name == "step-00000002"
    torch.manual_seed(99)
    assert finetune(films, model, tmp_path) == 0
    ours, theirs = load_file(tmp_path / LORA), load_file(finished / LORA)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


# Dies at a call of a method: before a step, in the middle of one, while a checkpoint is due.
FATAL = """
import os, signal, sys
from contentv.cli import main
from {module} import {owner}
real, calls = {owner}.{method}, []
def fatal(*args, **kwargs):
    calls.append(args)
    if len(calls) == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)
{owner}.{method} = fatal
sys.exit(main())
"""
DEATHS = (
    ("contentv.data.planned", "PlannedBatches", "__call__", 2),
    ("contentv.training.objectives.frozen_text", "FrozenTextObjective", "losses", 3),
    ("torch", "Tensor", "backward", 2),
    ("contentv.distributed.checkpoint", "CheckpointWriter", "save", 1),
)


@pytest.mark.slow  # four processes that load everything
def test_killed_again_and_again_the_lora_is_bitwise_the_same(
    films: Path, model: Path, tmp_path: Path
) -> None:
    out, longer = tmp_path / "run", ["--steps", "8", "--checkpoint-every", "1"]
    line = ["--data", str(films), "--model", str(model), "--out", str(out), "--device", "cpu"]
    for module, owner, method, call in DEATHS:
        code = FATAL.format(module=module, owner=owner, method=method, call=call)
        command = ["train", "finetune", *line, *SMALL.split(), *longer]
        done = subprocess.run(
            [sys.executable, "-c", code, *command], capture_output=True, text=True, check=False
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not (out / "lora").exists()
    assert latest(out / "finetune") is not None  # not begun anew each time
    assert finetune(films, model, out, *longer) == 0
    assert finetune(films, model, tmp_path / "whole", *longer) == 0
    ours, theirs = load_file(out / LORA), load_file(tmp_path / "whole" / LORA)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_videos_on_the_way_are_of_the_clips_captions_and_change_nothing(
    finished: Path, films: Path, model: Path, tmp_path: Path
) -> None:
    assert finetune(films, model, tmp_path, "--validate-every", "4") == 0
    made = sorted(path.name for path in (tmp_path / "validation/step-00000004").iterdir())
    captions = [(films / f"{number}.txt").read_text() for number in range(4)]
    assert made == [f"{n:02d}-{slug(caption)}.mp4" for n, caption in enumerate(captions)]
    assert 0 <= json.loads(last_line(tmp_path / "finetune/log.jsonl"))["validation/facts"] <= 1
    ours, theirs = load_file(tmp_path / LORA), load_file(finished / LORA)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def last_line(path: Path) -> str:
    return path.read_text().splitlines()[-1]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--caption-drop", "0.2"], "caption_drop=0.1, now 0.2"),
        (["--lora-rank", "8"], "lora_rank=16, now 8"),
        (["--frames", "5"], "frames=[1, 5], now [5]"),
        (["--learning-rate", "0.5"], "go on with --accept"),
        (["--seed", "1"], "seed=0, now 1"),
    ],
)
def test_a_run_does_not_become_another_one(
    finished: Path,
    films: Path,
    model: Path,
    *,
    more: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = (finished / LORA).read_bytes(), (finished / "run.yaml").read_bytes()
    assert finetune(films, model, finished, *more) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert before == ((finished / LORA).read_bytes(), (finished / "run.yaml").read_bytes())


def test_more_clips_are_another_run(
    finished: Path, films: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = shutil.copytree(films, tmp_path / "films")
    film(more, [7])
    out = shutil.copytree(finished, tmp_path / "run")
    assert finetune(more, model, out) == 2
    assert "other data or another network (clips=" in capsys.readouterr().err


def test_a_run_can_be_made_longer(finished: Path, films: Path, model: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(films, tmp_path / "elsewhere")  # the same clips in another place
    out = shutil.copytree(finished, tmp_path / "run")
    assert finetune(moved, model, out, "--steps", "5", "--accept") == 0
    assert latest(out / "finetune").name == "step-00000005"
    ours, theirs = load_file(out / LORA), load_file(finished / LORA)
    assert not all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_clip_that_breaks_after_it_was_measured_has_a_stand_in(
    finished: Path, films: Path, model: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(films, tmp_path / "films")
    broken = data / "2.mp4"
    state = broken.stat()
    broken.write_bytes(bytes(state.st_size))
    os.utime(broken, ns=(state.st_atime_ns, state.st_mtime_ns))
    out = tmp_path / "run"
    out.mkdir()
    shutil.copy(finished / "manifest.parquet", out)
    shutil.copytree(finished / "latents", out / "latents")
    for path in (out / "latents").rglob("*.safetensors"):  # all but one clip's are still good
        path.unlink()
    assert finetune(data, model, out) == 0
    (line,) = map(json.loads, (out / "stand_ins.jsonl").read_text().splitlines())
    assert (line["clip"], line["instead"] in {"0.mp4", "1.mp4", "3.mp4"}) == ("2.mp4", True)
    assert line["reason"].startswith("2.mp4: ")


def test_full_training_writes_a_model_folder(films: Path, model: Path, tmp_path: Path) -> None:
    assert finetune(films, model, tmp_path, "--full", "--steps", "2", "--recompute", "full") == 0
    check_folder(tmp_path / "model")
    before, after = (
        ContentVPipeline.from_pretrained(folder, torch_dtype=torch.float32)
        for folder in (model, tmp_path / "model")
    )
    average = load(latest(tmp_path / "finetune")).tensors["ema"]
    changed = []
    for name, value in after.transformer.state_dict().items():
        assert torch.equal(value, average[f"transformer.{name}"].bfloat16().float()), name
        start = before.transformer.state_dict()[name].bfloat16().float()
        changed.append(not torch.equal(value, start))
    assert any(changed)
    for part in ("vae", "text_encoder", "text_encoder_3"):
        theirs = getattr(before, part).state_dict()
        for name, value in getattr(after, part).state_dict().items():
            assert torch.equal(value, theirs[name].bfloat16().float()), name


def test_one_clip_is_learned_by_heart(model: Path, tmp_path: Path) -> None:
    data = film(tmp_path / "films", [0])
    run(
        FinetuneConfig(
            data=data, model=str(model), out=tmp_path / "run", full=True, frames=(5,), steps=60,
            learning_rate=2e-3, log_every=1, caption_drop=0, workers=1, device="cpu",
        )
    )  # fmt: skip
    lines = (tmp_path / "run/finetune/log.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    # Who knows only the clip, or only the noise, is wrong by the variance of the other.
    assert np.mean(losses[-12:]) < 0.7 * np.mean(losses[:12])
    assert np.mean(losses[-12:]) < 0.9


def test_a_dry_run_builds_everything_and_leaves_nothing(
    films: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune(films, model, tmp_path / "run", "--dry-run") == 0
    said = capsys.readouterr()
    assert "finetune: would train steps 0 to 4" in said.err
    assert "nothing was trained" in said.out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--frames", "125"], "none of its 6 clips can be used (too_short: 5"),
        (["--frames", "6"], "frames=6: must be 4k+1; use 5 or 9"),
        (["--full", "--lora-rank", "8"], "lora_rank=8: --full trains all weights"),
        (["--data", "absent"], "absent: no such file or folder"),
        (["--model", "absent"], "model=absent: no such model"),
        (["--validation-prompts", "p.txt"], "validation_prompts=p.txt: say how often"),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    films: Path,
    model: Path,
    tmp_path: Path,
    *,
    more: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert finetune(films, model, tmp_path, *more) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


@pytest.mark.parametrize(
    ("line", "said"), [(["train"], "{tiny,smoke}"), (["train", "finetune"], "--lora-rank")]
)
def test_help_tells_of_the_verb_and_costs_no_torch(line: list[str], said: str) -> None:
    code = (
        "import sys; from contentv.cli import main; "
        f"code = main({[*line, '--help']!r}); "
        "assert not {'torch', 'diffusers', 'numpy'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
