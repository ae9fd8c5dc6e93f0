"""All that a run must remember to go on as if it had never stopped."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from contentv.base.errors import UserError, WorldError
from contentv.distributed.checkpoint import Checkpoint, Stored, read_into


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
        ema = {k: v.clone() for k, v in untied(networks).items()}
        return cls(networks, optimizers, ema)

    @torch.no_grad()
    def update_ema(self, decay: float) -> None:
        """Move the average towards the weights; early steps use a shorter memory."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        current = untied(self.networks)
        averaged = [k for k, v in self.ema.items() if v.is_floating_point()]
        torch._foreach_lerp_(
            [_own(self.ema[k]) for k in averaged], [_own(current[k]) for k in averaged], 1 - decay
        )

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The networks with the averaged weights, for the time of the body."""
        self._exchange()
        try:
            yield self.networks
        finally:
            self._exchange()

    def checkpoint(self, values: Mapping[str, Any]) -> Checkpoint:
        """What to save; `values` is all that the run must remember beside tensors."""
        moments = _moments(self.networks, self.optimizers)
        tensors = {"model": untied(self.networks), "ema": self.ema, "optimizer": moments}
        return Checkpoint(self.step, tensors, values)

    def load(self, stored: Stored, *, group: dist.ProcessGroup | None = None) -> None:
        """Go on from a checkpoint, each process with its own parts of the tensors.

        The optimizers keep their own settings: those of a stage are compared before.

        Raises:
            UserError: it is of another network.
            WorldError: it is damaged, or no checkpoint of a run.
        """
        if missing := {"model", "ema"} - stored.tensors.keys():
            raise WorldError(f"{stored.path}: has no {', '.join(missing)}; choose another --out")
        model = untied(self.networks)
        for name in ("model", "ema"):
            refuse_other_network(model, {k: x.size for k, x in stored.tensors[name].items()})
        moments = _empty_moments(self.networks, stored)
        tensors = {"model": model, "ema": self.ema, "optimizer": moments}
        read_into(stored, tensors, group=group)
        _join_moments(self.networks, self.optimizers, moments)
        self.step = stored.step

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, weight in untied(self.networks).items():
            weight, average = _own(weight), _own(self.ema[name])  # noqa: PLW2901 - its local part
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)


def untied(networks: nn.Module) -> dict[str, Tensor]:
    """Weights by name, each once: T5 knows its embedding under two names."""
    names: dict[int, str] = {}
    state = networks.state_dict(keep_vars=True)  # the parameters themselves, so that equal is same
    for name, value in state.items():
        names.setdefault(id(value), name)
    return {name: state[name].detach() for name in names.values()}


def load_untied(networks: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load what `untied` gave; UserError when names or shapes are those of another network."""
    refuse_other_network(untied(networks), {name: x.shape for name, x in tensors.items()})
    networks.load_state_dict(dict(tensors), strict=False)


def refuse_other_network(weights: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    """UserError when `weights` have other names or shapes."""
    ours = {name: value.shape for name, value in weights.items()}
    if ours != shapes:
        other = sorted(k for k in ours.keys() | shapes.keys() if ours.get(k) != shapes.get(k))
        raise UserError(
            f"the checkpoint is of another network ({', '.join(other[:3])}, {len(other)} in all "
            "differ); choose another --out"
        )


def _own(tensor: Tensor) -> Tensor:
    """This process's part of a tensor, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _moments(networks: nn.Module, optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """All optimizers' tensors by "optimizer/moment/parameter"."""
    names = {id(p): name for name, p in networks.named_parameters()}
    return {
        f"{index}/{moment}/{names[id(parameter)]}": value
        for index, optimizer in enumerate(optimizers)
        for parameter, moments in optimizer.state.items()
        for moment, value in moments.items()
    }


def _empty_moments(networks: nn.Module, stored: Stored) -> dict[str, Tensor]:
    """Room for the moments that a checkpoint has; one shaped like its parameter is cut like it."""
    parameters = dict(networks.named_parameters())
    moments: dict[str, Tensor] = {}
    for key, about in stored.tensors.get("optimizer", {}).items():
        _, _, name = key.split("/", 2)
        parameter, dtype = parameters[name].detach(), about.properties.dtype
        if about.size == parameter.shape:
            moments[key] = torch.empty_like(parameter, dtype=dtype)
        else:
            moments[key] = torch.empty(about.size, dtype=dtype)
    return moments


def _join_moments(
    networks: nn.Module, optimizers: list[Optimizer], tensors: Mapping[str, Tensor]
) -> None:
    names = {id(p): name for name, p in networks.named_parameters()}
    states: list[dict[str, dict[str, Tensor]]] = [{} for _ in optimizers]
    for key, value in tensors.items():
        index, moment, name = key.split("/", 2)
        states[int(index)].setdefault(name, {})[moment] = value
    for optimizer, state in zip(optimizers, states, strict=True):
        own = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
        optimizer.load_state_dict(
            {
                "state": {i: state[name] for i, name in enumerate(own) if name in state},
                "param_groups": optimizer.state_dict()["param_groups"],
            }
        )
