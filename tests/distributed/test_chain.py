"""The paper's chain of stages, small, on several processes: hand-over, resumption, layouts."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from chains import STAGES, chain, prepare
from contentv.base.errors import UserError
from contentv.data.planned import PlannedBatches
from contentv.data.source import StepFeatures
from contentv.distributed.checkpoint import Groups, Stored, latest, load, read_into
from contentv.recipes import pretraining
from contentv.training import state
from lines import CrashError
from ranks import folder, run_ranks

CPU = torch.device("cpu")


@contextmanager
def power_cut(stage: str, step: int) -> Iterator[None]:
    """The body ends when this step of the stage is drawn."""
    real = PlannedBatches.__call__

    def draw(batches: PlannedBatches, number: int) -> StepFeatures:
        if (batches.plan.stage, number) == (stage, step):
            raise CrashError
        return real(batches, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlannedBatches, "__call__", draw)
        with pytest.raises(CrashError):
            yield
    dist.barrier()


def tensors(out: Path, stage: str) -> dict[str, Tensor]:
    """All of a stage's newest checkpoint."""
    path = latest(out / stage)
    assert path is not None
    found = load(path).tensors
    return {f"{group}.{name}": x for group, some in found.items() for name, x in some.items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def forget_averages(stored: Stored, wanted: Groups, *, group: dist.ProcessGroup | None) -> None:
    """The fault: averages begin anew when a run goes on."""
    read_into(stored, {name: x for name, x in wanted.items() if name != "ema"}, group=group)


def stop_and_go_on() -> None:
    """Broken off in the middle of the chain and resumed, it ends with the same bits.

    A run whose averages are not restored ends with other averages: this test would see it.
    """
    assert pretraining.train_chain(chain(folder(), "never"), CPU) == (dist.get_rank() == 0)
    if dist.get_rank() == 0:
        later = shutil.ignore_patterns("stage2", "stage3")
        shutil.copytree(folder() / "never", folder() / "broken", ignore=later)
    dist.barrier()
    with power_cut("stage2", 1):
        pretraining.train_chain(chain(folder(), "broken"), CPU)
    assert latest(folder() / "broken" / "stage2").name == "step-00000001"
    assert latest(folder() / "broken" / "stage3") is None
    if dist.get_rank() == 0:
        shutil.copytree(folder() / "broken", folder() / "faulty")
    dist.barrier()
    pretraining.train_chain(chain(folder(), "broken"), CPU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "read_into", forget_averages)
        pretraining.train_chain(chain(folder(), "faulty", until="stage2"), CPU)
    dist.barrier()
    if dist.get_rank() == 0:
        for stage in STAGES[2:]:
            assert same(tensors(folder() / "broken", stage), tensors(folder() / "never", stage))
        never, faulty = (tensors(folder() / out, "stage2") for out in ("never", "faulty"))
        changed = {name for name in never if not torch.equal(never[name], faulty[name])}
        assert {name.split(".")[0] for name in changed} == {"ema"}


@pytest.mark.timeout(300)
def test_a_chain_goes_on_where_it_stopped(tmp_path: Path) -> None:
    prepare(tmp_path, stage1=1e-12)  # a rate that leaves weights as they were
    (tmp_path / "ranks").mkdir()
    run_ranks(stop_and_go_on, 2, tmp_path / "ranks")
    before, after = tensors(tmp_path / "never", STAGES[0]), tensors(tmp_path / "never", STAGES[1])
    weights = [name.removeprefix("model.") for name in before if name.startswith("model.")]
    moved = [float((before[f"model.{n}"] - before[f"ema.{n}"]).abs().max()) for n in weights]
    kept = [float((after[f"model.{n}"] - before[f"ema.{n}"]).abs().max()) for n in weights]
    assert max(moved) > 1e-3
    assert max(kept) < 1e-8, "stage1 did not begin with the averages of the stage before"


def tokens_and_weights() -> None:
    """Two groups of two processes, then one step more of the same run by another layout."""
    split = {"shard": 2, "sp": 2, "stage": "stage3", "init_from": str(folder() / "model")}
    with power_cut("stage3", 1):
        pretraining.train_chain(chain(folder(), "moved", **split), CPU)
    moved = {**split, "shard": 1, "sp": 1, "replicate": 2, "tp": 2}
    pretraining.train_chain(chain(folder(), "moved", **moved), CPU)
    with pytest.raises(UserError, match=r"shard=3: must divide 4 ranks; use 1, 2 or 4"):
        pretraining.train_chain(chain(folder(), "other", shard=3), CPU)
    with pytest.raises(UserError, match=r"sp=4: each rank needs a head of its own"):
        pretraining.train_chain(chain(folder(), "other", sp=4), CPU)
    with pytest.raises(UserError, match=r"micro_batches=2: must be a multiple of the 4 data gr"):
        pretraining.train_chain(chain(folder(), "other", shard=4), CPU)
    assert not (folder() / "other").exists()


@pytest.mark.timeout(300)
def test_the_layout_changes_nothing_but_rounding(tmp_path: Path) -> None:
    prepare(tmp_path)
    start = str(tmp_path / "model")
    alone = chain(tmp_path, "alone", stage="stage3", init_from=start)
    assert (tmp_path / "alone" / "model") == pretraining.run(alone).model
    (tmp_path / "ranks").mkdir()
    run_ranks(tokens_and_weights, 4, tmp_path / "ranks")
    assert losses(tmp_path / "moved") == pytest.approx(losses(tmp_path / "alone"), rel=1e-4)
    expected, found = (tensors(tmp_path / out, "stage3") for out in ("alone", "moved"))
    moments = [name for name in expected if "exp_avg/" in name]
    scale = max(float(expected[name].abs().max()) for name in moments)
    worst = max(float((found[name] - expected[name]).abs().max()) for name in moments)
    assert worst < 1e-3 * scale


def losses(out: Path) -> list[float]:
    """Losses and gradient norms of all steps."""
    lines = (out / "stage3" / "log.jsonl").read_text().splitlines()
    return [json.loads(line)[name] for line in lines for name in ("loss", "grad_norm")]
