"""The loop: a batch that is a pure function of the step, a loss, an update, a checkpoint."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from contentv.base.errors import NumericsError
from contentv.base.log import get_logger
from contentv.training.config import StageConfig
from contentv.training.metrics import Metrics
from contentv.training.objectives.base import Objective
from contentv.training.optim import build_optimizers, learning_rate
from contentv.training.state import TrainState

_log = get_logger(__name__)


class Batch(Protocol):
    """A batch knows the names of its samples, to tell them in an error, and can be moved."""

    @property
    def keys(self) -> tuple[str, ...]:
        """One name per sample."""
        ...

    def to(self, device: torch.device) -> Self:
        """The same batch on `device`."""
        ...


BatchT = TypeVar("BatchT", bound=Batch)


class Interrupted(KeyboardInterrupt):
    """Stopped by SIGINT or SIGTERM after saving."""


class Trainer(Generic[BatchT]):
    """Runs one stage from its newest checkpoint to its last step.

    `batches(step)` must be pure: then a resumed run sees exactly what the uninterrupted one saw.
    It computes where the objective's networks are.
    """

    def __init__(
        self,
        objective: Objective[BatchT],
        batches: Callable[[int], BatchT],
        config: StageConfig,
        folder: Path,
    ) -> None:
        self.objective, self.batches, self.config, self.folder = objective, batches, config, folder
        self._device = next(objective.networks.parameters()).device
        optimizers = build_optimizers(objective.networks.named_parameters(), config.optimizer)
        self.state = TrainState.start(objective.networks, optimizers)

    def run(self) -> TrainState:
        """Train to the end; on SIGINT or SIGTERM save, then raise Interrupted."""
        values = self.config.model_dump(mode="json")
        if self.state.resume(self.folder, values):
            _log.info("%s: resumed at step %d", self.config.name, self.state.step)
        if self.state.step == self.config.steps:
            return self.state
        metrics = Metrics(self.folder, self.config.name, self.config.steps)
        with closing(metrics), _stop_signals() as stop:
            saved = self.state.step
            while self.state.step < self.config.steps and not stop.is_set():
                self._step(metrics)
                if self.state.step % self.config.checkpoint_every == 0:
                    self.state.save(self.folder, values)
                    saved = self.state.step
            if saved != self.state.step:
                self.state.save(self.folder, values)
        if stop.is_set():
            _log.info("%s: saved at step %d; run again to go on", self.config.name, self.state.step)
            raise Interrupted(f"{self.config.name}: saved at step {self.state.step}")
        return self.state

    def _step(self, metrics: Metrics) -> None:
        started = time.monotonic()
        batch = self.batches(self.state.step)
        waited = time.monotonic() - started
        rate = learning_rate(self.config.optimizer, self.state.step, self.config.steps)
        losses, norm = self._update(batch, rate)
        self.state.step += 1
        self.state.update_ema(self.config.ema_decay)
        values = {key: float(value.mean()) for key, value in losses.items()}
        metrics.add({**values, "grad_norm": norm, "data_seconds": waited}, len(batch.keys))
        if self.state.step % self.config.log_every == 0:
            metrics.report(self.state.step)

    def _update(self, batch: BatchT, rate: float) -> tuple[dict[str, Tensor], float]:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.config.bf16):
            losses = self.objective.losses(batch.to(self._device))
        losses["loss"].mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(
            self.objective.networks.parameters(), self.config.max_grad_norm
        )
        if not torch.isfinite(norm):
            raise NumericsError(
                f"{self.config.name} step {self.state.step}: gradient is {norm}; "
                f"samples: {_blame(losses['loss'], batch.keys)}"
            )
        for optimizer in self.state.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return {key: value.detach() for key, value in losses.items()}, float(norm)


def _blame(losses: Tensor, keys: tuple[str, ...]) -> str:
    """Names of the samples whose loss is not finite; of all when each is."""
    bad = [key for key, fine in zip(keys, losses.isfinite(), strict=True) if not fine]
    return ", ".join(bad or keys)


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event set by SIGINT or SIGTERM; outside the main thread signals are left alone."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {s: signal.signal(s, lambda *_: stop.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
