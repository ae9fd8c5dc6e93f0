"""Runs of several processes: checkpoints for any number of them, and a trainer that goes on."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from contentv.base.errors import NumericsError
from contentv.distributed.checkpoint import inspect, latest, load
from contentv.distributed.clip import clip_grad_norm
from contentv.training.config import OptimizerConfig, SpikeConfig, StageConfig
from contentv.training.metrics import Metrics
from contentv.training.numbers import StepNumbers
from contentv.training.peers import Peers
from contentv.training.state import TrainState
from contentv.training.trainer import Trainer
from contentv.training.watch import Watch
from contentv.training.work import Work
from lines import CrashError, Line, Numbers, crash, until, whole
from ranks import folder, run_ranks

EXACT = 1e-12
STEPS = 6
SAMPLES = 5


def network() -> nn.Module:
    """Odd sizes: over four processes one has no row of the last layer."""
    torch.manual_seed(0)
    layers = (nn.Linear(1, 7), nn.Tanh(), nn.Linear(7, 3), nn.Tanh(), nn.Linear(3, 1))
    return nn.Sequential(*layers).double()


def sharded(mesh: DeviceMesh) -> nn.Module:
    model = fully_shard(network(), mesh=mesh)
    model.set_gradient_divide_factor(1.0)
    model.set_force_sum_reduction_for_comms(True)
    return model


class Team:
    """The first `size` processes; all processes must make it, only its members may train.

    Weights are cut over all of them, or over each of two halves.
    """

    def __init__(self, size: int, *, halves: bool = False) -> None:
        self.size, self.halves = size, halves
        ranks = torch.arange(size)
        self.mesh = (
            DeviceMesh("cpu", ranks.view(2, -1), mesh_dim_names=("replicate", "shard"))
            if halves
            else DeviceMesh("cpu", ranks)
        )
        groups = [dist.new_group(list(range(size)), backend="gloo") for _ in range(2)]
        self.member = dist.get_rank() < size
        self.peers = Peers(*groups) if self.member else Peers()


def work(step: int, rank: int, size: int) -> Work[Numbers]:
    """Five samples a step, dealt to the processes: never the same number to each."""
    values = torch.arange(1.0, SAMPLES + 1, dtype=torch.float64) + step
    mine = values[rank::size]
    keys = tuple(f"step {step} value {float(value)}" for value in mine)
    return Work((Numbers(mine, keys),), SAMPLES)


def trainer(team: Team | None, run: Path, **settings: object) -> Trainer[Numbers]:
    config = StageConfig(
        **{
            "name": "team",
            "steps": STEPS,
            "bf16": False,
            "checkpoint_every": 2,
            "log_every": 2,
            "optimizer": OptimizerConfig(warmup_steps=2),
            **settings,
        }
    )
    rank, size = (dist.get_rank(), team.size) if team else (0, 1)
    return Trainer(
        Line(sharded(team.mesh) if team else network()),
        lambda step: work(step, rank, size),
        config,
        run,
        watch=Watch(groups=lambda batch: {"parity": [str(int(x) % 2) for x in batch.values]}),
        peers=team.peers if team else Peers(),
        clip=clip_grad_norm,
    )


def difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def stored(path: Path) -> dict[str, Tensor]:
    """All of a checkpoint, under the names of `everything`."""
    tensors = load(path).tensors
    assert tensors.keys() == {"model", "ema", "optimizer"}
    return {f"{group}.{name}": x for group, found in tensors.items() for name, x in found.items()}


def contents(state: TrainState) -> dict[str, Tensor]:
    groups = state.checkpoint({}).tensors
    return {
        f"{group}.{name}": x.full_tensor() if isinstance(x, DTensor) else x
        for group, found in groups.items()
        for name, x in found.items()
    }


def reshard() -> None:
    """Every number of processes reads what every number wrote, bit for bit."""
    teams = [*(Team(size) for size in (1, 2, 3, 4)), Team(4, halves=True)]
    for number, writers in enumerate(teams):
        run = folder() / f"written-by-{number}"
        if writers.member:
            before = trainer(writers, run, steps=2).run()
            kept, path = contents(before), latest(run)
            assert path is not None
            files = {file.name.split("-model")[0] for file in path.glob("*.safetensors")}
            assert len(files) == writers.size or writers.halves
            on_disk = stored(path)
            assert on_disk.keys() == kept.keys()
            assert all(torch.equal(on_disk[name], kept[name]) for name in kept)
        dist.barrier()
        for readers in teams:
            if readers.member:
                path = latest(run)
                assert path is not None
                state = trainer(readers, run).state
                state.load(inspect(path), group=readers.peers.saving)
                found, expected = contents(state), stored(path)
                assert [k for k in expected if not torch.equal(found[k], expected[k])] == []
            dist.barrier()


def crash_and_go_on() -> None:
    """Broken off between checkpoints: bitwise on the same layout, to rounding on another."""
    alone = whole(trainer(None, folder() / f"alone-{dist.get_rank()}").run())
    two, three = Team(2), Team(3)
    if two.member:
        never = whole(trainer(two, folder() / "never").run())
        assert difference(never, alone) < EXACT
        broken = trainer(two, folder() / "broken")
        broken.batches = until(3, crash, broken.batches)
        with pytest.raises(CrashError):
            broken.run()
        assert latest(folder() / "broken").name == "step-00000002"
        resumed = whole(trainer(two, folder() / "broken").run())
        assert all(torch.equal(never[name], resumed[name]) for name in never)
        moving = trainer(two, folder() / "moving")
        moving.batches = until(5, crash, moving.batches)
        with pytest.raises(CrashError):
            moving.run()
    dist.barrier()
    if three.member:
        assert latest(folder() / "moving").name == "step-00000004"
        assert difference(whole(trainer(three, folder() / "moving").run()), alone) < EXACT
    dist.barrier()


def report_and_guard() -> None:
    """The log, the guard and the stop are of all processes together."""
    team = Team(3)
    alone_folder = folder() / f"alone-{dist.get_rank()}"
    spikes = SpikeConfig(factor=1.5, history=2, limit=2)
    if team.member:
        trainer(None, alone_folder).run()
        trainer(team, folder() / "team").run()
        if team.peers.is_first:
            rows, expected = (
                (run / "log.jsonl").read_text().splitlines()
                for run in (folder() / "team", alone_folder)
            )
            assert len(rows) == len(expected) == STEPS // 2
            for row, other in zip(rows, expected, strict=True):
                assert_same_numbers(row, other)
        rising = trainer(team, folder() / "rising", spikes=spikes)
        real = rising.batches
        rising.batches = lambda step: scaled(real(step), 30 if step >= 3 else 1)
        with pytest.raises(NumericsError, match=r"2 spikes in a row") as error:
            rising.run()
        assert team.peers.gather(str(error.value)) == [str(error.value)] * 3
        assert "step 4 value" in str(error.value)
        stopping = trainer(team, folder() / "stopping")
        if dist.get_rank() == 1:
            stopping.batches = until(2, asked_to_stop, stopping.batches)
        with pytest.raises(KeyboardInterrupt, match="saved at step 3"):
            stopping.run()
    dist.barrier()


def talk() -> None:
    """Sums and messages; a loss that two processes share counts once."""
    rank = dist.get_rank()
    peers = Peers.of_world(sharing=2)
    assert (peers.count, peers.is_first) == (4, rank == 0)
    assert peers.sum(rank, 0.5) == [6.0, 2.0]
    said = {"text": "ü" * rank, "numbers": [rank, 1 / 3]}
    heard = peers.gather(said)
    assert heard[rank] == said
    assert [len(each["text"]) for each in heard] == [0, 1, 2, 3]
    metrics = Metrics(folder() / "metrics", "stage", 2, peers=peers)
    metrics.add(StepNumbers({"loss": 0.5}, {"kind/a": (3.0, 2)}, samples=4, flops=0.0), {})
    means = metrics.report(1)
    metrics.close()
    assert (means["loss"], means["loss/kind/a"]) == (1.0, 1.5)
    dist.barrier()
    assert (folder() / "metrics" / "log.jsonl").read_text().count("\n") == 1


def scaled(given: Work[Numbers], factor: float) -> Work[Numbers]:
    return Work(tuple(Numbers(b.values * factor, b.keys) for b in given.batches), given.count)


def assert_same_numbers(row: str, other: str) -> None:
    ours, theirs = json.loads(row), json.loads(other)
    assert ours.keys() == theirs.keys()
    assert {"loss/parity/0", "loss/parity/1", "loss", "twice", "grad_norm"} <= ours.keys()
    for key in ours.keys() - {"time", "step_seconds", "samples_per_second", "data_seconds"}:
        assert ours[key] == pytest.approx(theirs[key], rel=1e-9), key


def asked_to_stop() -> None:
    signal.raise_signal(signal.SIGTERM)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_one() -> None:
    team = Team(2)
    training = trainer(team, folder() / "run")
    if dist.get_rank() == 1:
        training.batches = until(5, killed, training.batches)
    training.run()


def go_on() -> None:
    team = Team(2)
    resumed = trainer(team, folder() / "run")
    found = latest(folder() / "run")
    assert found is not None
    assert found.name in ("step-00000002", "step-00000004")
    after = whole(resumed.run())
    never = whole(trainer(team, folder() / "never").run())
    assert all(torch.equal(never[name], after[name]) for name in never)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("function", [reshard, crash_and_go_on, report_and_guard, talk])
def test_four_processes(function: Callable[[], None], tmp_path: Path) -> None:
    (tmp_path / "ranks").mkdir()
    run_ranks(function, 4, tmp_path / "ranks")


@pytest.mark.timeout(300)
def test_a_killed_process_ends_the_run_and_the_next_goes_on(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    with pytest.raises(AssertionError):
        run_ranks(kill_one, 2, tmp_path / "first")
    run_ranks(go_on, 2, tmp_path / "second")
