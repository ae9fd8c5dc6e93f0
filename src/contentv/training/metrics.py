"""Numbers of a run: a JSON line per report, a line on the terminal, curves in TensorBoard."""

import json
import time
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from contentv.base.log import get_logger

_log = get_logger(__name__)


class Metrics:
    """Averages between reports; `samples` are counted for the rate."""

    def __init__(self, folder: Path, name: str, steps: int) -> None:
        self._name, self._steps = name, steps
        folder.mkdir(parents=True, exist_ok=True)
        self._lines = (folder / "log.jsonl").open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder))
        self._reset()

    def add(self, values: dict[str, float], samples: int) -> None:
        """Take in one step's values."""
        for key, value in values.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
            self._counts[key] = self._counts.get(key, 0) + 1
        self._samples += samples
        self._step_count += 1

    def report(self, step: int) -> dict[str, float]:
        """Write the averages since the last report; units: seconds and samples per second."""
        seconds = time.monotonic() - self._since
        means = {key: self._sums[key] / self._counts[key] for key in self._sums}
        means |= {
            "step_seconds": seconds / self._step_count,
            "samples_per_second": self._samples / seconds,
        }
        self._lines.write(json.dumps({"step": step, "time": time.time(), **means}) + "\n")
        self._lines.flush()
        for key, value in means.items():
            self._board.add_scalar(key, value, step)
        left = (self._steps - step) * means["step_seconds"] / 60
        text = "  ".join(f"{key} {value:.4g}" for key, value in means.items())
        _log.info("%s %d/%d  %s  %.0f min left", self._name, step, self._steps, text, left)
        self._reset()
        return means

    def close(self) -> None:
        """Close the files."""
        self._lines.close()
        self._board.close()

    def _reset(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._samples = self._step_count = 0
        self._since = time.monotonic()
