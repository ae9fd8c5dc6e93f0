"""All that a run must remember to go on as if it had never stopped."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from contentv.base.errors import UserError, WorldError
from contentv.distributed import checkpoint


@dataclass
class TrainState:
    """Weights, their moving average, optimiser moments and the count of finished steps."""

    networks: nn.Module
    optimizers: list[Optimizer]
    ema: dict[str, Tensor]
    step: int = 0

    @classmethod
    def start(cls, networks: nn.Module, optimizers: list[Optimizer]) -> "TrainState":
        """State of a run that has not made a step."""
        ema = {k: v.detach().clone() for k, v in untied(networks).items()}
        return cls(networks, optimizers, ema)

    @torch.no_grad()
    def update_ema(self, decay: float) -> None:
        """Move the average towards the weights; early steps use a shorter memory."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        current = untied(self.networks)
        averaged = [k for k, v in self.ema.items() if v.is_floating_point()]
        torch._foreach_lerp_(
            [self.ema[k] for k in averaged], [current[k] for k in averaged], 1 - decay
        )

    def save(self, folder: Path, values: Mapping[str, Any]) -> Path:
        """Write a checkpoint under `folder`; `values` is the run's configuration."""
        moments, plain = _split_optimizers(self.optimizers)
        tensors = {"model": untied(self.networks), "ema": self.ema, "optimizer": moments}
        content = checkpoint.Checkpoint(
            self.step, tensors, {"optimizers": plain, "config": dict(values)}
        )
        return checkpoint.save(folder, content)

    def resume(self, folder: Path, values: Mapping[str, Any]) -> bool:
        """Load the newest checkpoint under `folder`; False when there is none.

        Raises:
            UserError: it was made with another configuration or for other networks.
            WorldError: it is damaged.
        """
        path = checkpoint.latest(folder)
        if path is None:
            return False
        loaded = checkpoint.load(path)
        missing = {"model", "ema", "optimizer"} - loaded.tensors.keys()
        if missing:
            raise WorldError(
                f"{path}: has no {', '.join(sorted(missing))}.safetensors; "
                "delete it to resume from the one before"
            )
        _refuse_changes(path, loaded.values["config"], values)
        load_untied(self.networks, loaded.tensors["model"])
        self.ema = {k: v.to(self.ema[k].device) for k, v in loaded.tensors["ema"].items()}
        _join_optimizers(self.optimizers, loaded.tensors["optimizer"], loaded.values["optimizers"])
        self.step = loaded.step
        return True


def untied(networks: nn.Module) -> dict[str, Tensor]:
    """Weights by name, each once: T5 knows its embedding under two names."""
    state = networks.state_dict()
    names: dict[int, str] = {}
    for name, value in state.items():
        names.setdefault(value.data_ptr(), name)
    return {name: state[name] for name in names.values()}


def load_untied(networks: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load what `untied` gave; UserError when names or shapes are those of another network."""
    ours = {name: value.shape for name, value in untied(networks).items()}
    theirs = {name: value.shape for name, value in tensors.items()}
    if ours != theirs:
        other = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
        raise UserError(
            f"the checkpoint is of another network ({', '.join(other[:3])}, {len(other)} in all "
            "differ); choose another --out"
        )
    networks.load_state_dict(dict(tensors), strict=False)


def _refuse_changes(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    before, now = _flat(before), _flat(now)
    changed = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
    if changed:
        shown = ", ".join(f"{k}={before.get(k)}, now {now.get(k)}" for k in changed)
        raise UserError(
            f"{path}: made with other settings ({shown}); restore them or choose another --out"
        )


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": leaf for inner, leaf in _flat(value).items()}
        else:
            flat[name] = value
    return flat


def _split_optimizers(optimizers: list[Optimizer]) -> tuple[dict[str, Tensor], list[Any]]:
    """Tensors by "optimizer.parameter.name", and the rest as JSON values."""
    tensors: dict[str, Tensor] = {}
    plain: list[Any] = []
    for index, optimizer in enumerate(optimizers):
        state = optimizer.state_dict()
        for parameter, moments in state["state"].items():
            tensors |= {f"{index}.{parameter}.{name}": value for name, value in moments.items()}
        plain.append(state["param_groups"])
    return tensors, plain


def _join_optimizers(
    optimizers: list[Optimizer], tensors: Mapping[str, Tensor], plain: list[Any]
) -> None:
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for key, value in tensors.items():
        index, parameter, name = key.split(".")
        states[int(index)].setdefault(int(parameter), {})[name] = value
    for optimizer, state, groups in zip(optimizers, states, plain, strict=True):
        optimizer.load_state_dict({"state": state, "param_groups": copy.deepcopy(groups)})
