import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from contentv.base.errors import NumericsError
from contentv.distributed.checkpoint import Checkpoint, CheckpointWriter
from contentv.training.config import OptimizerConfig, StageConfig
from contentv.training.optim import build_optimizers, learning_rate
from contentv.training.signals import Interrupted
from contentv.training.state import untied
from contentv.training.trainer import Trainer
from lines import CrashError, Line, Numbers, crash, everything, line, until
from trainers import STEPS, autoencoder, decoder, flow


@pytest.mark.parametrize("make", [autoencoder, flow])
def test_training_is_bitwise_the_plain_loop(
    tmp_path: Path, make: Callable[[Path], Trainer[Any]]
) -> None:
    state = make(tmp_path / "trainer").run()
    plain = make(tmp_path / "plain")
    networks, config = plain.objective.networks, plain.config
    optimizers = build_optimizers(networks.named_parameters(), config.optimizer)
    average = {name: value.clone() for name, value in untied(networks).items()}
    for step in range(STEPS):
        with torch.autocast("cpu", torch.bfloat16):
            losses = plain.objective.losses(plain.batches(step))
        losses["loss"].mean().backward()
        torch.nn.utils.clip_grad_norm_(networks.parameters(), config.max_grad_norm)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config.optimizer, step, config.steps)
            optimizer.step()
            optimizer.zero_grad()
        decay = min(config.ema_decay, (2 + step) / (11 + step))
        for name, value in untied(networks).items():
            if value.is_floating_point():
                average[name].lerp_(value, 1 - decay)
    ours, theirs = untied(state.networks), untied(networks)
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    assert [name for name in average if not torch.equal(state.ema[name], average[name])] == []


@pytest.mark.parametrize("make", [autoencoder, decoder, flow])
def test_a_resumed_run_is_bitwise_the_run_that_never_stopped(
    tmp_path: Path, make: Callable[[Path], Trainer[Any]]
) -> None:
    whole = everything(make(tmp_path / "whole").run())
    for step in (
        1,
        3,
        4,
    ):  # before the first checkpoint, after one, after one made by a resumed run
        trainer = make(tmp_path / "broken")
        trainer.batches = until(step, crash, trainer.batches)
        with pytest.raises(CrashError):
            trainer.run()
    torch.manual_seed(123)  # nothing may lean on the global generator
    broken = everything(make(tmp_path / "broken").run())
    assert broken.keys() == whole.keys()
    assert [name for name in whole if not torch.equal(whole[name], broken[name])] == []
    start = everything(make(tmp_path / "start").state)
    assert any(not torch.equal(start[name], whole[name]) for name in start)


def test_a_finished_stage_is_loaded_not_trained_again(tmp_path: Path) -> None:
    first = everything(decoder(tmp_path).run())
    again = decoder(tmp_path)
    again.batches = until(0, crash, crash)  # type: ignore[arg-type]
    second = everything(again.run())
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_the_decoder_leaves_latents_alone(tmp_path: Path) -> None:
    trainer = decoder(tmp_path)
    before = everything(trainer.state)
    after = everything(trainer.run())
    changed = {
        name
        for name in before
        if name.startswith(("model.", "ema.")) and not torch.equal(before[name], after[name])
    }
    assert changed
    assert not [name for name in changed if ".encoder." in name or ".quant_conv." in name]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_saves_and_stops_and_the_run_goes_on_exactly(
    tmp_path: Path, number: signal.Signals
) -> None:
    def values(step: int) -> Tensor:
        return torch.tensor([1.0, 2.0, 3.0 + step])

    whole = everything(line(tmp_path / "whole", values).run())
    trainer = line(tmp_path / "stopped", values)
    trainer.batches = until(1, lambda: signal.raise_signal(number), trainer.batches)
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted, match="saved at step 2"):
        trainer.run()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert (tmp_path / "stopped" / "step-00000002" / "state.json").is_file()
    rest = everything(line(tmp_path / "stopped", values).run())
    assert all(torch.equal(whole[name], rest[name]) for name in whole)


def test_not_a_number_is_an_error_that_names_the_sample_and_saves_nothing(tmp_path: Path) -> None:
    def values(step: int) -> Tensor:
        return torch.tensor([1.0, float("nan") if step == 3 else 2.0, 3.0])

    trainer = line(tmp_path, values, checkpoint_every=2)
    with pytest.raises(NumericsError, match=r"line step 3: gradient is nan; samples: second$"):
        trainer.run()
    assert all(p.isfinite().all() for p in trainer.objective.networks.parameters())
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000002"]


def test_an_infinite_gradient_of_finite_losses_names_all_samples(tmp_path: Path) -> None:
    @dataclass
    class Cusp(Line):
        def losses(self, batch: Numbers) -> dict[str, Tensor]:
            return {"loss": (self.networks(batch.values[:, None]) * 0).abs().sqrt().flatten()}

    trainer = Trainer(
        Cusp(), lambda _: Numbers(torch.ones(3)), StageConfig(name="cusp", steps=1), tmp_path
    )
    with pytest.raises(NumericsError, match=r"samples: first, second, third$"):
        trainer.run()


def test_gradients_are_clipped_to_their_norm(tmp_path: Path) -> None:
    """Adam does not mind a scale, so look at what it remembers: the clipped gradient."""
    trainer = line(tmp_path, lambda _: torch.full((3,), 100.0), max_grad_norm=0.5, steps=1)
    trainer.run()
    moments = trainer.state.optimizers[0].state.values()
    gradients = torch.cat([state["exp_avg"].flatten() / (1 - 0.9) for state in moments])
    assert gradients.norm() == pytest.approx(0.5, rel=1e-4)


def test_the_first_steps_are_as_long_as_the_rate_of_the_schedule(tmp_path: Path) -> None:
    """On a constant gradient Adam moves every weight by the learning rate."""
    optimizer = OptimizerConfig(learning_rate=0.1, warmup_steps=2, weight_decay=0.0)

    @dataclass
    class Slope(Line):
        def losses(self, batch: Numbers) -> dict[str, Tensor]:
            return {"loss": self.networks(batch.values[:, None]).flatten()}

    stage = StageConfig(name="slope", steps=3, optimizer=optimizer)
    trainer = Trainer(Slope(), lambda _: Numbers(torch.ones(3)), stage, tmp_path)
    before = everything(trainer.state)
    after = everything(trainer.run())
    for name in ("model.weight", "model.bias"):
        assert torch.allclose(before[name] - after[name], torch.tensor(0.05 + 0.1 + 0.1), atol=1e-4)


def test_the_average_follows_the_weights_of_every_step(tmp_path: Path) -> None:
    trainer = line(tmp_path, lambda _: torch.ones(3), ema_decay=0.0)
    state = trainer.run()
    assert torch.equal(state.ema["weight"], state.networks.weight)


def test_the_log_has_means_of_the_steps_since_the_last_line(tmp_path: Path) -> None:
    seen = []
    trainer = line(tmp_path, lambda step: torch.full((3,), float(step)))
    losses = trainer.objective.losses

    def noted(batch: Numbers) -> dict[str, Tensor]:
        found = losses(batch)
        seen.append(float(found["loss"].detach().mean()))
        return found

    trainer.objective.losses = noted  # type: ignore[method-assign]
    trainer.run()
    rows = [json.loads(row) for row in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    assert rows[0]["loss"] == pytest.approx((seen[0] + seen[1]) / 2)
    assert rows[1]["loss"] == pytest.approx((seen[2] + seen[3]) / 2)
    assert rows[1]["twice"] == pytest.approx(seen[2] + seen[3])
    assert rows[0]["samples_per_second"] == pytest.approx(3 / rows[0]["step_seconds"])
    assert list(tmp_path.glob("events.*"))


def test_a_checkpoint_is_written_once_per_step_it_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    real = CheckpointWriter.save

    def save(writer: CheckpointWriter, content: Checkpoint) -> Path:
        saved.append(content.step)
        return real(writer, content)

    monkeypatch.setattr(CheckpointWriter, "save", save)
    line(tmp_path / "even", lambda _: torch.ones(3), checkpoint_every=2).run()
    line(tmp_path / "odd", lambda _: torch.ones(3), checkpoint_every=3, keep=1).run()
    assert saved == [2, 4, 3, 4]
    assert [path.name for path in (tmp_path / "odd").glob("step-*")] == ["step-00000004"]
