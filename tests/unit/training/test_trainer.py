import json
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from builders import VOCABULARY, random_transformer
from contentv.base.errors import NumericsError, UserError
from contentv.data.features import Features
from contentv.data.source import LatentBatches, LatentPhase
from contentv.data.toyset import ClipPhase, ToyVideoBatches
from contentv.models.zoo import TEXT_LENGTHS, tiny_autoencoder, tiny_text_towers
from contentv.training.config import OptimizerConfig, StageConfig
from contentv.training.objectives.autoencoder import AutoencoderObjective
from contentv.training.objectives.flow_matching import FlowMatchingObjective
from contentv.training.state import TrainState, untied
from contentv.training.trainer import Interrupted, Trainer

STEPS = 5


class CrashError(Exception):
    """Stands for a power cut."""


def autoencoder(folder: Path, *, decoder_only: bool = False) -> Trainer[Any]:
    torch.manual_seed(0)
    config = StageConfig(name="autoencoder3d", steps=STEPS, checkpoint_every=2, log_every=2)
    # Clips only after the checkpoint: the time convolutions begin to learn after a resume.
    phases = (ClipPhase(steps=3, shapes=((1, 3),)), ClipPhase(steps=2, shapes=((5, 2),)))
    batches = ToyVideoBatches(0, config.name, phases, size=16)
    objective = AutoencoderObjective(tiny_autoencoder(), decoder_only=decoder_only)
    return Trainer(objective, batches, config, folder)


def decoder(folder: Path) -> Trainer[Any]:
    return autoencoder(folder, decoder_only=True)


def flow(folder: Path) -> Trainer[Any]:
    torch.manual_seed(0)
    config = StageConfig(
        name="flow",
        steps=STEPS,
        checkpoint_every=2,
        log_every=2,
        optimizer=OptimizerConfig(name="muon", warmup_steps=2),
    )
    mean = torch.randn(6, 16, 2, 4, 4)
    texts = ("a", "red", "circle", "moves", "right", "a red circle")
    clips = Features(mean, torch.full_like(mean, -4), texts, tuple("big " * 30 for _ in texts))
    phases = (
        LatentPhase(steps=2, clips=3, frames=1),
        LatentPhase(steps=3, clips=2, frames=2, long_every=2),
    )
    batches = LatentBatches(clips, torch.zeros(16), torch.ones(16), 0, config.name, phases)
    objective = FlowMatchingObjective(
        random_transformer(1), tiny_text_towers(VOCABULARY), text_lengths=TEXT_LENGTHS
    )
    return Trainer(objective, batches, config, folder)


def everything(state: TrainState) -> dict[str, Tensor]:
    """Weights, averages and moments by name."""
    tensors = {f"model.{name}": value for name, value in untied(state.networks).items()}
    tensors |= {f"ema.{name}": value for name, value in state.ema.items()}
    for index, optimizer in enumerate(state.optimizers):
        for parameter, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"{index}.{parameter}.{key}": v for key, v in moments.items()}
    return {name: value.detach().clone() for name, value in tensors.items()}


def until(
    step: int, stop: Callable[[], None], batches: Callable[[int], object]
) -> Callable[[int], object]:
    """Batches during the drawing of one of which `stop` happens."""

    def draw(number: int) -> object:
        if number == step:
            stop()
        return batches(number)

    return draw


def crash() -> None:
    raise CrashError


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


def test_a_changed_stage_is_refused(tmp_path: Path) -> None:
    flow(tmp_path).run()
    trainer = flow(tmp_path)
    trainer.config = trainer.config.model_copy(update={"ema_decay": 0.5})
    with pytest.raises(UserError, match=r"ema_decay=0\.999, now 0\.5"):
        trainer.run()


@dataclass(frozen=True)
class Numbers:
    """A batch of numbers with names."""

    values: Tensor
    keys: tuple[str, ...] = ("first", "second", "third")

    def to(self, device: torch.device) -> "Numbers":
        return Numbers(self.values.to(device), self.keys)


@dataclass
class Line:
    """Fit one weight."""

    networks: nn.Module = field(default_factory=lambda: nn.Linear(1, 1))

    def losses(self, batch: Numbers) -> dict[str, Tensor]:
        squares = self.networks(batch.values[:, None]).square().flatten()
        return {"loss": squares, "twice": 2 * squares}


def line(folder: Path, values: Callable[[int], Tensor], **config: float) -> Trainer[Numbers]:
    torch.manual_seed(0)
    stage = StageConfig(name="line", **{"steps": 4, "bf16": False, "log_every": 2, **config})
    return Trainer(Line(), lambda step: Numbers(values(step)), stage, folder)


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
    real = TrainState.save

    def save(state: TrainState, folder: Path, values: dict[str, Any]) -> Path:
        saved.append(state.step)
        return real(state, folder, values)

    monkeypatch.setattr(TrainState, "save", save)
    line(tmp_path / "even", lambda _: torch.ones(3), checkpoint_every=2).run()
    line(tmp_path / "odd", lambda _: torch.ones(3), checkpoint_every=3).run()
    assert saved == [2, 4, 3, 4]
