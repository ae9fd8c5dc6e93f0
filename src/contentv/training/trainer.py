"""The loop: a batch that is a pure function of the step, a loss, an update, a checkpoint."""

import math
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Generic

import torch
from torch import Tensor, nn

from contentv.base.errors import NumericsError
from contentv.base.log import get_logger
from contentv.distributed.checkpoint import CheckpointWriter, inspect, latest
from contentv.training.changes import changed_settings
from contentv.training.config import RunOptions, StageConfig
from contentv.training.guard import SpikeGuard, highest, not_finite
from contentv.training.metrics import Metrics
from contentv.training.numbers import StepNumbers
from contentv.training.objectives.base import Objective
from contentv.training.optim import build_optimizers, learning_rate
from contentv.training.peers import Peers
from contentv.training.signals import Interrupted, stop_signals
from contentv.training.state import TrainState
from contentv.training.watch import Watch
from contentv.training.work import BatchT, Work, work_of

_log = get_logger(__name__)

Clip = Callable[[Iterable[nn.Parameter], float], Tensor]
"""Scale gradients to a norm; gives the norm before, over all processes."""

_PLAIN, _ALONE = RunOptions(), Peers()
_UNWATCHED: Watch[Any] = Watch()


class Trainer(Generic[BatchT]):
    """Runs one stage from its newest checkpoint to its last step.

    `batches(step)` must be pure: then a resumed run sees exactly what the uninterrupted one saw.
    It gives a batch, or this process's share of the step as `Work`. The trainer computes where the
    objective's networks are. With `peers`, gradients are summed over them by the networks
    themselves or by `clip`, which knows the norm over all.
    """

    def __init__(
        self,
        objective: Objective[BatchT],
        batches: Callable[[int], BatchT | Work[BatchT]],
        config: StageConfig,
        folder: Path,
        *,
        options: RunOptions = _PLAIN,
        watch: Watch[BatchT] = _UNWATCHED,
        peers: Peers = _ALONE,
        clip: Clip = torch.nn.utils.clip_grad_norm_,
    ) -> None:
        self.objective, self.batches, self.config, self.folder = objective, batches, config, folder
        self._options, self._watch, self._peers, self._clip = options, watch, peers, clip
        self._device = next(objective.networks.parameters()).device
        self._guard = SpikeGuard(config.spikes)
        optimizers = build_optimizers(objective.networks.named_parameters(), config.optimizer)
        self.state = TrainState.start(objective.networks, optimizers)

    def run(self) -> TrainState:
        """Train to the end; on SIGINT or SIGTERM save, then raise Interrupted.

        Raises:
            NumericsError: a loss or gradient is not a number, or too many spikes came in a row.
            UserError: the newest checkpoint was made with other settings.
            WorldError: a checkpoint is damaged or cannot be written.
        """
        self._resume()
        if self._options.dry_run:
            self._note(self.describe())
            return self.state
        if self.state.step >= self.config.steps:
            return self.state
        metrics = Metrics(
            self.folder,
            self.config.name,
            self.config.steps,
            peers=self._peers,
            peak_flops=self._watch.peak_flops,
            wandb=self._options.wandb,
        )
        with closing(metrics), self._writer() as writer, stop_signals() as stop:
            stopped = self._loop(metrics, writer, stop)
        if stopped:
            self._note(f"{self.config.name}: saved at step {self.state.step}; run again to go on")
            raise Interrupted(f"{self.config.name}: saved at step {self.state.step}")
        return self.state

    def describe(self) -> str:
        """What a run would do from here, for a person; draws the first batch."""
        config, networks = self.config, self.objective.networks
        trained = sum(p.numel() for p in networks.parameters() if p.requires_grad)
        frozen = sum(p.numel() for p in networks.parameters() if not p.requires_grad)
        if self.state.step >= config.steps:
            return f"{config.name}: finished at step {self.state.step}"
        work = work_of(self.batches)(self.state.step)
        return (
            f"{config.name}: would train steps {self.state.step} to {config.steps}, "
            f"{trained:,} weights ({frozen:,} frozen) with {config.optimizer.name} on "
            f"{self._device}, {self._peers.count} processes; next batch: {work.count} samples in "
            f"{len(work.batches)} parts; a checkpoint every {config.checkpoint_every} steps"
        )

    def _resume(self) -> None:
        found = self._peers.gather(str(path) if (path := latest(self.folder)) else None)[0]
        if found is None:
            return
        stored = inspect(Path(found))
        now = self.config.model_dump(mode="json")
        before = stored.values.get("config", {})
        accepted = changed_settings(stored.path, before, now, accept=self._options.accept)
        for text in accepted:
            self._note(f"{self.config.name}: goes on with {text}")
        self.state.load(stored, group=self._peers.saving)
        self._guard.load(stored.values["guard"])
        self._note(f"{self.config.name}: resumed at step {self.state.step}")

    def _writer(self) -> CheckpointWriter:
        return CheckpointWriter(self.folder, keep=self.config.keep, group=self._peers.saving)

    def _save(self, writer: CheckpointWriter) -> int:
        values = {"config": self.config.model_dump(mode="json"), "guard": self._guard.state()}
        writer.save(self.state.checkpoint(values))
        return self.state.step

    def _loop(self, metrics: Metrics, writer: CheckpointWriter, stop: threading.Event) -> bool:
        """Step to the end or to a stop; gives whether it was stopped."""
        saved, stopped = self.state.step, False
        while self.state.step < self.config.steps and not stopped:
            stopped = self._step(metrics, stop)
            if self._is_due(self.config.log_every):
                metrics.report(self.state.step)
            if self._is_due(self.config.validate_every):
                metrics.write(self.state.step, self._watch.validate(self.state))
            if self._is_due(self.config.checkpoint_every):
                saved = self._save(writer)
        if saved != self.state.step:
            self._save(writer)
        writer.wait()
        return stopped

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.state.step % every == 0

    def _step(self, metrics: Metrics, stop: threading.Event) -> bool:
        """One step; gives whether any process was asked to stop."""
        started = time.monotonic()
        work = work_of(self.batches)(self.state.step)
        waited = time.monotonic() - started
        losses = self._backward(work)
        norm = float(self._clip(self.objective.networks.parameters(), self.config.max_grad_norm))
        numbers = StepNumbers.of(work, losses, self._watch)
        total, stops = self._peers.sum(numbers.shares["loss"], float(stop.is_set()))
        loss = total / self._peers.sharing
        self._refuse_not_a_number(loss, norm, work, losses)
        spike = self._guard.judge(loss, norm)
        if spike:
            self._skip(spike, work, losses)
        else:
            self._update()
        self.state.step += 1
        if not spike:
            self.state.update_ema(self.config.ema_decay)
        skipped = {"skipped": float(self._guard.skipped)} if self.config.spikes.factor else {}
        metrics.add(numbers, {"grad_norm": norm, "data_seconds": waited, **skipped})
        return bool(stops)

    def _backward(self, work: Work[BatchT]) -> list[dict[str, Tensor]]:
        """Gradients of this process's share of the mean loss; per-sample losses of each batch."""
        found = []
        for batch in work.batches:
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self.config.bf16):
                losses = self.objective.losses(batch.to(self._device))
            (losses["loss"].sum() / work.count).backward()
            found.append({key: value.detach() for key, value in losses.items()})
        return found

    def _update(self) -> None:
        rate = learning_rate(self.config.optimizer, self.state.step, self.config.steps)
        for optimizer in self.state.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def _refuse_not_a_number(
        self, loss: float, norm: float, work: Work[BatchT], losses: list[dict[str, Tensor]]
    ) -> None:
        if math.isfinite(norm) and math.isfinite(loss):
            return
        what = f"loss is {loss}" if math.isfinite(norm) else f"gradient is {norm}"
        names = ", ".join(not_finite(work.keys, losses, self._peers))
        raise NumericsError(f"{self._where()}: {what}; samples: {names}")

    def _skip(self, spike: str, work: Work[BatchT], losses: list[dict[str, Tensor]]) -> None:
        """Leave an update out; NumericsError when there were too many in a row."""
        text = f"{self._where()}: {spike}; highest: {highest(work.keys, losses, self._peers)}"
        if self._guard.exhausted:
            raise NumericsError(f"{text}; {self._guard.in_a_row} spikes in a row, so the run stops")
        self._note(f"{text}; update skipped, {self._guard.skipped} in all")
        for optimizer in self.state.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _where(self) -> str:
        return f"{self.config.name} step {self.state.step}"

    def _note(self, text: str) -> None:
        if self._peers.is_first:
            _log.info("%s", text)
