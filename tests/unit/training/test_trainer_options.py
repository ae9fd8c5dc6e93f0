import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contentv.base.errors import NumericsError, UserError
from contentv.data.batch import LatentBatch
from contentv.distributed.checkpoint import latest
from contentv.training.config import OptimizerConfig, RunOptions, SpikeConfig, StageConfig
from contentv.training.groups import SIGMA_EDGES, latent_groups
from contentv.training.state import TrainState
from contentv.training.trainer import Trainer
from contentv.training.watch import Watch
from contentv.training.work import Work, accumulate
from lines import CrashError, Line, Numbers, crash, equal, everything, line, until
from trainers import flow


def test_a_dry_run_says_what_would_run_and_does_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = flow(tmp_path / "run")
    before = everything(trainer.state)
    dry = Trainer(
        trainer.objective,
        trainer.batches,
        trainer.config,
        tmp_path / "run",
        options=RunOptions(dry_run=True),
    )
    with caplog.at_level("INFO"):
        after = everything(dry.run())
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not (tmp_path / "run").exists()
    text = caplog.text
    assert "flow: would train steps 0 to 5" in text
    assert "weights (0 frozen) with muon on cpu" in text
    assert "next batch: 3 samples" in text


def test_a_dry_run_of_a_begun_stage_starts_from_its_checkpoint(tmp_path: Path) -> None:
    trainer = line(tmp_path, lambda _: torch.ones(3), steps=4)
    trainer.batches = until(2, crash, trainer.batches)
    trainer.config = trainer.config.model_copy(update={"checkpoint_every": 2})
    with pytest.raises(CrashError):
        trainer.run()
    begun = line(tmp_path, lambda _: torch.ones(3), steps=4)
    begun._resume()
    assert "would train steps 2 to 4, 2 weights" in begun.describe()
    finished = line(tmp_path, lambda _: torch.ones(3), steps=4)
    finished.run()
    assert finished.describe() == "line: finished at step 4"


def test_jumps_of_the_clock_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = everything(line(tmp_path / "calm", lambda _: torch.ones(3)).run())
    clock = iter(range(10**9, 0, -(10**6)))
    monkeypatch.setattr("time.time", lambda: next(clock))
    jumpy = everything(line(tmp_path / "jumpy", lambda _: torch.ones(3)).run())
    assert all(torch.equal(whole[name], jumpy[name]) for name in whole)
    rows = [json.loads(row) for row in (tmp_path / "jumpy" / "log.jsonl").read_text().splitlines()]
    assert all(0 < row["step_seconds"] < 60 for row in rows)


def test_validation_sees_the_averages_and_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    whole = everything(line(tmp_path / "whole", lambda _: torch.ones(3)).run())
    seen = {}

    def validate(state: TrainState) -> dict[str, float]:
        with state.averaged() as networks:
            seen[state.step] = float(networks.weight.detach())
        return {"validation/weight": seen[state.step]}

    trainer = line(tmp_path / "watched", lambda _: torch.ones(3), validate_every=2)
    trainer._watch = Watch(validate=validate)
    averages = {}
    trainer.batches = noted_averages(trainer, averages)
    watched = everything(trainer.run())
    assert all(torch.equal(whole[name], watched[name]) for name in whole)
    averages[4] = float(trainer.state.ema["weight"])
    assert seen == {2: averages[2], 4: averages[4]}
    assert seen[4] != float(trainer.state.networks.weight.detach())
    rows = [
        json.loads(row) for row in (tmp_path / "watched" / "log.jsonl").read_text().splitlines()
    ]
    found = {row["step"]: row["validation/weight"] for row in rows if "validation/weight" in row}
    assert found == seen


def noted_averages(trainer: Trainer[Any], averages: dict[int, float]) -> Callable[[int], object]:
    """The trainer's batches; each draw notes the averaged weight of that many steps."""
    real = trainer.batches

    def draw(step: int) -> object:
        averages[step] = float(trainer.state.ema["weight"])
        return real(step)

    return draw


@dataclass
class Precise(Line):
    """The same line in numbers precise enough to compare sums of another order."""

    networks: nn.Module = field(default_factory=lambda: nn.Linear(1, 1).double())


def precise(folder: Path, batches: Callable[[int], Any]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    stage = StageConfig(name="precise", steps=3, bf16=False)
    return everything(Trainer(Precise(), batches, stage, folder).run())


def numbers(*values: float) -> Numbers:
    return Numbers(
        torch.tensor(values, dtype=torch.float64), tuple(f"sample {value}" for value in values)
    )


def test_unequal_micro_batches_are_one_batch(tmp_path: Path) -> None:
    one = precise(tmp_path / "one", lambda _: numbers(1, 2, 3, 40))
    parts = (numbers(1, 2, 3), numbers(40))
    several = precise(tmp_path / "several", lambda _: Work(parts, 4))
    assert all(torch.allclose(one[name], several[name], rtol=1e-12, atol=0) for name in one)
    # A mean of means would count the lone sample three times, which the gradient shows.
    doubled = precise(tmp_path / "mean of means", lambda _: Work((*parts, *[numbers(40)] * 2), 6))
    assert not torch.allclose(one["0.0.exp_avg"], doubled["0.0.exp_avg"], rtol=1e-4, atol=0)


def test_accumulated_batches_follow_each_other(tmp_path: Path) -> None:
    rows = {number: numbers(float(number)) for number in range(6)}
    pairs = precise(tmp_path / "pairs", lambda step: numbers(2.0 * step, 2.0 * step + 1))
    two = precise(tmp_path / "two", accumulate(rows.__getitem__, 2))
    assert all(torch.allclose(pairs[name], two[name], rtol=1e-12, atol=0) for name in pairs)


SPIKES = SpikeConfig(factor=20, history=4, limit=2)


def spiky(folder: Path, at: tuple[int, ...], steps: int = 10, limit: int = 2) -> Trainer[Numbers]:
    """A line whose batches at some steps hold a number out of all proportion."""
    return line(
        folder,
        lambda step: torch.tensor([1.0, 10_000.0 if step in at else 2.0, 3.0]),
        steps=steps,
        checkpoint_every=2,
        spikes=SPIKES.model_copy(update={"limit": limit}),
    )


def test_a_spike_is_told_and_its_update_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = spiky(tmp_path, (6,))
    weights = {}
    real = trainer.batches

    def draw(step: int) -> Numbers:
        weights[step] = everything(trainer.state)
        return real(step)

    trainer.batches = draw
    with caplog.at_level("INFO"):
        trainer.run()
    same = {step for step in range(9) if equal(weights[step], weights[step + 1])}
    assert same == {6}
    assert "line step 6: loss" in caplog.text
    assert "highest: second (loss" in caplog.text
    assert "update skipped, 1 in all" in caplog.text
    rows = [json.loads(row) for row in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["skipped"] for row in rows][-1] == 1


def test_too_many_spikes_in_a_row_stop_the_run(tmp_path: Path) -> None:
    spiky(tmp_path / "apart", (5, 7, 9)).run()
    with pytest.raises(NumericsError, match=r"line step 7: .*second.*2 spikes in a row") as error:
        spiky(tmp_path / "together", (6, 7)).run()
    assert "\n" not in str(error.value)


def test_a_resumed_run_remembers_what_is_usual(tmp_path: Path) -> None:
    whole = everything(spiky(tmp_path / "whole", (5, 6), limit=3).run())
    trainer = spiky(tmp_path / "broken", (5, 6), limit=3)
    trainer.batches = until(6, crash, trainer.batches)
    with pytest.raises(CrashError):
        trainer.run()
    assert latest(tmp_path / "broken").name == "step-00000006"
    resumed = spiky(tmp_path / "broken", (5, 6), limit=3)
    assert equal(whole, everything(resumed.run()))
    assert resumed._guard.skipped == 2


def test_losses_are_reported_by_noise_level_kind_and_shape(tmp_path: Path) -> None:
    trainer = flow(tmp_path)
    trainer.config = trainer.config.model_copy(update={"log_every": 5})
    trainer._watch = Watch(groups=latent_groups)
    seen = []
    losses = trainer.objective.losses

    def noted(batch: LatentBatch) -> dict[str, Tensor]:
        found = losses(batch)
        seen.extend(zip(batch.sigma.tolist(), found["loss"].tolist(), strict=True))
        return found

    trainer.objective.losses = noted  # type: ignore[method-assign]
    trainer.run()
    (row,) = [json.loads(row) for row in (tmp_path / "log.jsonl").read_text().splitlines()]
    expected = {}
    for low, high in pairwise(SIGMA_EDGES):
        if inside := [loss for sigma, loss in seen if low <= sigma < high]:
            expected[f"loss/sigma/{low:g}-{high:g}"] = pytest.approx(sum(inside) / len(inside))
    assert {key: value for key, value in row.items() if "/sigma/" in key} == expected
    images, videos = (
        [loss for _, loss in seen[:6]],
        [loss for _, loss in seen[6:]],
    )
    for name, part in (("image", images), ("video", videos)):
        assert row[f"loss/kind/{name}"] == pytest.approx(sum(part) / len(part))
    assert row["loss/shape/1x4x4"] == row["loss/kind/image"]
    assert row["loss/shape/2x4x4"] == row["loss/kind/video"]


def test_the_log_has_the_share_of_the_peak_that_was_reached(tmp_path: Path) -> None:
    trainer = line(tmp_path, lambda _: torch.ones(3))
    trainer._watch = Watch(flops=lambda batch: 100.0 * len(batch.keys), peak_flops=5000.0)
    trainer.run()
    for row in (tmp_path / "log.jsonl").read_text().splitlines():
        values = json.loads(row)
        assert values["mfu"] == pytest.approx(300 / values["step_seconds"] / 5000)


def test_without_a_peak_the_log_has_no_share_of_it(tmp_path: Path) -> None:
    line(tmp_path, lambda _: torch.ones(3)).run()
    assert "mfu" not in (tmp_path / "log.jsonl").read_text()


def stopped_half_way(folder: Path) -> None:
    trainer = line(folder, lambda _: torch.ones(3), checkpoint_every=2)
    trainer.batches = until(2, crash, trainer.batches)
    with pytest.raises(CrashError):
        trainer.run()


def test_a_changed_stage_is_refused_and_may_be_accepted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopped_half_way(tmp_path)
    optimizer = OptimizerConfig(weight_decay=0.5)
    changed = line(tmp_path, lambda _: torch.ones(3), optimizer=optimizer)
    with pytest.raises(UserError, match=r"optimizer\.weight_decay=0\.01, now 0\.5.*--accept"):
        changed.run()
    changed._options = RunOptions(accept=True)
    with caplog.at_level("INFO"):
        changed.run()
    assert "line: goes on with optimizer.weight_decay=0.01, now 0.5" in caplog.text
    assert changed.state.optimizers[0].param_groups[0]["weight_decay"] == 0.5
    again = line(tmp_path, lambda _: torch.ones(3), optimizer=optimizer)
    again.run()  # the accepted settings are those of the run from now on


def test_how_a_run_is_watched_may_change(tmp_path: Path) -> None:
    stopped_half_way(tmp_path)
    changes = {"log_every": 1, "checkpoint_every": 1, "keep": 1, "validate_every": 3}
    assert line(tmp_path, lambda _: torch.ones(3), **changes).run().step == 4
