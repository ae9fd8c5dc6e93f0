"""The smallest stage there is, fitting a line, and ways to break it off."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from contentv.training.config import StageConfig
from contentv.training.state import TrainState, untied
from contentv.training.trainer import Trainer


class CrashError(Exception):
    """Stands for a power cut."""


def everything(state: TrainState) -> dict[str, Tensor]:
    """Weights, averages and moments by name."""
    tensors = {f"model.{name}": value for name, value in untied(state.networks).items()}
    tensors |= {f"ema.{name}": value for name, value in state.ema.items()}
    for index, optimizer in enumerate(state.optimizers):
        for parameter, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"{index}.{parameter}.{key}": v for key, v in moments.items()}
    return {name: value.detach().clone() for name, value in tensors.items()}


def whole(state: TrainState) -> dict[str, Tensor]:
    """Weights, averages and moments in full; a collective of all that share them."""
    return {
        name: value.full_tensor() if isinstance(value, DTensor) else value
        for name, value in everything(state).items()
    }


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


def line(folder: Path, values: Callable[[int], Tensor], **config: object) -> Trainer[Numbers]:
    torch.manual_seed(0)
    stage = StageConfig(name="line", **{"steps": 4, "bf16": False, "log_every": 2, **config})
    return Trainer(Line(), lambda step: Numbers(values(step)), stage, folder)


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)
