"""`contentv train finetune` on several processes, each with the whole model."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor

from builders import build_random_pipeline
from chains import words, write_data
from commands import Command
from contentv.base.errors import UserError
from contentv.data.planned import PlannedBatches
from contentv.data.source import StepFeatures
from contentv.distributed.checkpoint import latest, load
from contentv.recipes import finetune
from contentv.recipes.config import FinetuneConfig
from ranks import folder, run_ranks

CPU = torch.device("cpu")
CLOSE = 1e-6
LORA = Path("lora/pytorch_lora_weights.safetensors")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def settings(work: Path, out: str, **changes: object) -> FinetuneConfig:
    """Three steps of two batches, on what `work` has."""
    usual = {
        "data": work / "films",
        "model": str(work / "model"),
        "out": work / out,
        "frames": (1, 5),
        "steps": 3,
        "batch_size": 2,
        "micro_batches": 2,
        "learning_rate": 1e-2,
        "log_every": 1,
        "checkpoint_every": 1,
        "workers": 1,
        "device": "cpu",
    }
    return FinetuneConfig.model_validate({**usual, **changes})


@contextmanager
def watched(file: Path, before: Callable[[int], None] = lambda _: None) -> Iterator[None]:
    """Writes to `file` the step, name and noise of all samples; calls `before` each step."""
    real = PlannedBatches.__call__

    def draw(batches: PlannedBatches, step: int) -> StepFeatures:
        before(step)
        drawn = real(batches, step)
        with file.open("a") as lines:
            for batch in drawn.batches:
                for key, noise in zip(batch.keys, batch.noise, strict=True):
                    seen = [step, key, sha256(noise.numpy().tobytes()).hexdigest()]
                    lines.write(json.dumps(seen) + "\n")
        return drawn

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlannedBatches, "__call__", draw)
        yield


def stored(out: Path) -> dict[str, Tensor]:
    """All of a run's newest checkpoint."""
    path = latest(out / "finetune")
    assert path is not None
    groups = load(path).tensors
    return {f"{group}.{name}": x for group, found in groups.items() for name, x in found.items()}


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def losses(out: Path) -> list[float]:
    """Losses and gradient norms of all steps."""
    lines = [json.loads(line) for line in (out / "finetune/log.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if "loss" in line for name in ("loss", "grad_norm")]


def size(out: Path) -> int:
    """Bytes of the newest checkpoint's tensors."""
    path = latest(out / "finetune")
    assert path is not None
    return sum(file.stat().st_size for file in path.glob("*.safetensors"))


def never_stopped_then_killed() -> None:
    """A LoRA, all weights, and a LoRA whose second process dies before the last step."""
    rank = dist.get_rank()
    with pytest.raises(UserError, match="micro_batches=3: must be a multiple of the 2 processes"):
        finetune.finetune(settings(folder(), "other", micro_batches=3), CPU)
    with watched(folder() / f"seen-{rank}.jsonl"):
        assert finetune.finetune(settings(folder(), "never"), CPU) == (rank == 0)
    finetune.finetune(settings(folder(), "full", full=True), CPU)

    def die(step: int) -> None:
        if (rank, step) == (1, 2):
            os.kill(os.getpid(), signal.SIGKILL)

    with watched(folder() / f"killed-{rank}.jsonl", die):
        finetune.finetune(settings(folder(), "killed"), CPU)


def go_on() -> None:
    """The run whose process was killed, and one that a single process began."""
    for out in ("killed", "alone"):
        finetune.finetune(settings(folder(), out), CPU)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a model, and runs: of one process, and of two that never stopped or were killed."""
    work = tmp_path_factory.mktemp("finetune")
    write_data(work / "films")
    build_random_pipeline(work / "model", blocks=1)
    with watched(work / "seen.jsonl"):
        finetune.run(settings(work, "alone"))
    finetune.run(settings(work, "alone-full", full=True))
    (work / "ranks").mkdir()
    with pytest.raises(AssertionError):
        run_ranks(never_stopped_then_killed, 2, work / "ranks")
    return work


@pytest.mark.timeout(300)
def test_two_processes_learn_what_one_does(work: Path) -> None:
    def seen(*names: str) -> list[str]:
        return sorted(line for name in names for line in (work / name).read_text().splitlines())

    assert seen("seen-0.jsonl", "seen-1.jsonl") == seen("seen.jsonl")
    assert len(seen("seen-0.jsonl")) >= 3
    assert len(seen("seen-1.jsonl")) >= 3
    assert not (work / "other").exists()
    for ours, theirs in (("never", "alone"), ("full", "alone-full")):
        assert losses(work / ours) == pytest.approx(losses(work / theirs), rel=CLOSE)
        assert difference(stored(work / ours), stored(work / theirs)) < CLOSE
        assert size(work / ours) < 1.1 * size(work / theirs), "tensors were written twice"
    assert difference(load_file(work / "never" / LORA), load_file(work / "alone" / LORA)) < CLOSE
    assert max(x.abs().max() for x in load_file(work / "never" / LORA).values()) > 1e-2


@pytest.mark.timeout(300)
def test_a_run_goes_on_after_a_kill_and_on_more_processes(work: Path) -> None:
    assert not (work / "killed" / "lora").exists()
    begun = latest(work / "killed" / "finetune")
    assert begun is not None
    assert begun.name < "step-00000003"
    expected = load_file(work / "alone" / LORA)
    shutil.rmtree(work / "alone" / "lora")
    shutil.rmtree(work / "alone" / "finetune" / "step-00000003")
    (work / "again").mkdir()
    run_ranks(go_on, 2, work / "again")
    ours, theirs = stored(work / "killed"), stored(work / "never")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (work / "killed" / LORA).read_bytes() == (work / "never" / LORA).read_bytes()
    assert difference(load_file(work / "alone" / LORA), expected) < CLOSE


@pytest.mark.timeout(300)
def test_torchrun_starts_it(work: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\n")
    asked = {"validate_every": 3, "validation_prompts": tmp_path / "prompts.txt"}
    line = words(settings(work, "torchrun", **asked))
    main = (*TORCHRUN, "-m", "contentv.cli")
    with Command(["train", "finetune", *line], tmp_path / "log", main=main) as command:
        code, said = command.ends()
    log = (tmp_path / "log").read_text()
    assert code == 0, log
    assert said.split() == [str(work / "torchrun" / "lora")]  # one speaks
    assert log.count("finetune 3/3") == 1, log
    ours, theirs = (load_file(work / out / LORA) for out in ("torchrun", "never"))
    assert difference(ours, theirs) < CLOSE
    assert len(list((work / "torchrun/validation").rglob("*.mp4"))) == 1
