"""Numbers of a run: a JSON line per report, a line on the terminal, curves in TensorBoard."""

import importlib
import importlib.util
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch.utils.tensorboard import SummaryWriter

from contentv.base.errors import UserError
from contentv.base.log import get_logger
from contentv.training.numbers import StepNumbers
from contentv.training.peers import Peers

_log = get_logger(__name__)


class Metrics:
    """Averages between reports, over all processes; the first process writes them.

    Loss groups are written as "loss/way/group" and left out on the terminal.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        steps: int,
        *,
        peers: Peers,
        peak_flops: float | None = None,
        wandb: str | None = None,
    ) -> None:
        self._name, self._steps, self._peers, self._peak = name, steps, peers, peak_flops
        self._sinks: list[_Sink] = []
        if peers.is_first:
            folder.mkdir(parents=True, exist_ok=True)
            curves: list[_Sink] = [] if wandb is None else [_Wandb(folder, name, wandb)]
            self._sinks = [*curves, _Lines(folder), _Board(folder)]
        self._reset()

    def add(self, numbers: StepNumbers, values: Mapping[str, float]) -> None:
        """Take in one step; `values` are this process's own and not added up over processes."""
        for key, value in numbers.shares.items():
            self._shares[key] = self._shares.get(key, 0.0) + value
        for key, value in values.items():
            self._values[key] = self._values.get(key, 0.0) + value
        for key, (total, count) in numbers.groups.items():
            before, seen = self._groups.get(key, (0.0, 0))
            self._groups[key] = (before + total, seen + count)
        self._flops += numbers.flops
        self._samples += numbers.samples
        self._step_count += 1

    def report(self, step: int) -> dict[str, float]:
        """Write the averages since the last report; units: seconds and samples per second."""
        seconds = time.monotonic() - self._since
        own = {"shares": self._shares, "groups": self._groups, "flops": self._flops}
        everyone = self._peers.gather(own)
        each = self._step_count * self._peers.sharing
        means = {key: value / each for key, value in _added(everyone).items()}
        means |= {key: value / self._step_count for key, value in self._values.items()}
        means |= {
            "step_seconds": seconds / self._step_count,
            "samples_per_second": self._samples / seconds,
        }
        flops = sum(each["flops"] for each in everyone)
        if self._peak is not None and flops:
            means["mfu"] = flops / (seconds * self._peak * self._peers.count)
        left = (self._steps - step) * means["step_seconds"] / 60
        if self._sinks:
            text = "  ".join(f"{key} {value:.4g}" for key, value in means.items())
            _log.info("%s %d/%d  %s  %.0f min left", self._name, step, self._steps, text, left)
        means |= _group_means(everyone)
        self.write(step, means)
        self._reset()
        return means

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write values of a step as they are."""
        for sink in self._sinks:
            sink.write(step, values)

    def close(self) -> None:
        """Close the files."""
        for sink in self._sinks:
            sink.close()

    def _reset(self) -> None:
        self._shares: dict[str, float] = {}
        self._values: dict[str, float] = {}
        self._groups: dict[str, tuple[float, int]] = {}
        self._flops = 0.0
        self._samples = self._step_count = 0
        self._since = time.monotonic()


def _added(everyone: list[dict[str, Any]]) -> dict[str, float]:
    keys = {key: None for each in everyone for key in each["shares"]}  # in the order they came
    return {key: sum(each["shares"].get(key, 0.0) for each in everyone) for key in keys}


def _group_means(everyone: list[dict[str, Any]]) -> dict[str, float]:
    means = {}
    for key in sorted({key for each in everyone for key in each["groups"]}):
        totals, counts = zip(*(each["groups"].get(key, (0.0, 0)) for each in everyone), strict=True)
        means[f"loss/{key}"] = sum(totals) / sum(counts)
    return means


class _Sink(Protocol):
    def write(self, step: int, values: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class _Lines:
    """`log.jsonl`; its time is the wall clock's, which nothing else here reads."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "log.jsonl").open("a", encoding="utf-8")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._file.write(json.dumps({"step": step, "time": time.time(), **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class _Board:
    def __init__(self, folder: Path) -> None:
        self._board = SummaryWriter(str(folder))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._board.add_scalar(key, value, step)

    def close(self) -> None:
        self._board.close()


class _Wandb:
    """Curves in a project of wandb, which is asked for by name: it sends them over the network."""

    def __init__(self, folder: Path, name: str, project: str) -> None:
        if importlib.util.find_spec("wandb") is None:
            raise UserError(f"wandb={project}: wandb is not installed; install it or leave it out")
        library = importlib.import_module("wandb")
        self._run = library.init(project=project, name=name, dir=str(folder))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()
