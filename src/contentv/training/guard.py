"""Spikes of the loss and of the gradient norm, and which samples are behind a fault."""

from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor

from contentv.training.config import SpikeConfig
from contentv.training.peers import Peers


class SpikeGuard:
    """Remembers the last updates; says of the next one whether it sticks out.

    Every process of a run must be told the same numbers, then all decide the same.
    """

    def __init__(self, config: SpikeConfig) -> None:
        self._config = config
        self._losses: deque[float] = deque(maxlen=config.history)
        self._norms: deque[float] = deque(maxlen=config.history)
        self.in_a_row = 0
        self.skipped = 0

    @property
    def exhausted(self) -> bool:
        """Whether as many spikes as allowed came in a row."""
        return self.in_a_row >= self._config.limit

    def judge(self, loss: float, norm: float) -> str:
        """Say what sticks out, or "" when nothing does and the update may be made."""
        if not self._config.factor:
            return ""
        seen = len(self._losses) >= (self._config.history + 1) // 2
        found = self._excess("loss", loss, self._losses) if seen else ""
        found = found or (self._excess("gradient norm", norm, self._norms) if seen else "")
        if found:
            self.in_a_row, self.skipped = self.in_a_row + 1, self.skipped + 1
        else:
            self.in_a_row = 0
            self._losses.append(loss)
            self._norms.append(norm)
        return found

    def state(self) -> dict[str, Any]:
        """All it remembers, as JSON values: a resumed run decides as if it had never stopped."""
        return {
            "losses": list(self._losses),
            "norms": list(self._norms),
            "in_a_row": self.in_a_row,
            "skipped": self.skipped,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        self._losses = deque(state["losses"], self._config.history)
        self._norms = deque(state["norms"], self._config.history)
        self.in_a_row, self.skipped = int(state["in_a_row"]), int(state["skipped"])

    def _excess(self, name: str, value: float, before: deque[float]) -> str:
        usual = median(before)
        # A loss that is usually 0 or less has no scale to be a multiple of.
        if usual <= 0 or value <= self._config.factor * usual:
            return ""
        return f"{name} {value:.4g} is {value / usual:.3g} times the usual {usual:.4g}"


def not_finite(keys: tuple[str, ...], losses: list[dict[str, Tensor]], peers: Peers) -> list[str]:
    """Names of the samples of all processes whose loss is not finite; of all when each is."""
    fine = torch.cat([each["loss"] for each in losses]).isfinite().tolist()
    bad = [key for key, good in zip(keys, fine, strict=True) if not good]
    everyone = peers.gather([bad, list(keys)])
    named = [key for each in everyone for key in each[0]]
    return named or [key for each in everyone for key in each[1]]


def highest(
    keys: tuple[str, ...], losses: list[dict[str, Tensor]], peers: Peers, *, count: int = 3
) -> str:
    """The samples of all processes with the highest losses, for a person."""
    values = torch.cat([each["loss"] for each in losses]).tolist()
    own = sorted(zip(values, keys, strict=True), reverse=True)[:count]
    pairs = sorted((tuple(pair) for each in peers.gather(own) for pair in each), reverse=True)
    return ", ".join(f"{key} (loss {value:.4g})" for value, key in pairs[:count])
