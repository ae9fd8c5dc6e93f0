"""What tuning found: its table, for people and for the next process."""

import importlib.metadata
from pathlib import Path
from typing import Literal

import torch
from pydantic import ValidationError

from contentv.base.config import Config, describe_validation_error
from contentv.base.device import device_name
from contentv.base.errors import UserError
from contentv.base.files import read_json, write_json
from contentv.models.transformer import ContentVTransformer3DModel

_DECISIVE = ("torch", "diffusers")
_KEPT = 64


Layers = Literal["plain", "packed", "compiled"]
"""As they are; with weights in a CPU's order (`models/packing.py`); as compiled blocks."""


class Way(Config):
    """One exact way to compute a guided step; `layers` are "plain", "packed" or "compiled"."""

    backend: str
    passes: str
    layers: Layers


class Trial(Config):
    """A way with the seconds of a guided step and how far its velocities are from the plain way's.

    `obstacle` says why it cannot be chosen; then there may be neither.
    """

    way: Way
    seconds: float | None = None
    difference: float | None = None
    obstacle: str = ""


class Conditions(Config):
    """What the fastest way depends on: a report counts where all of it is the same."""

    device: str
    dtype: str
    threads: int
    latents: tuple[int, ...]
    text_tokens: int
    blocks: int
    width: int
    compiling: bool
    versions: dict[str, str]


class TuningReport(Config):
    """All trials; the chosen one is the fastest of those without obstacle. Prints as a table."""

    conditions: Conditions
    trials: tuple[Trial, ...]

    @property
    def chosen(self) -> Way:
        """The fastest way that runs and agrees with the plain one."""
        return fastest(self.trials)

    def __str__(self) -> str:
        now = self.conditions
        latents = "x".join(map(str, now.latents))
        lines = [
            f"{now.device}, {now.dtype}, latents {latents}, {now.text_tokens} text tokens",
            f"{'attention':24} {'passes':12} {'layers':10} {'s a step':>9} {'differs':>8}",
        ]
        return "\n".join([*lines, *(self._line(trial) for trial in self.trials)])

    def _line(self, trial: Trial) -> str:
        way = trial.way
        seconds = "" if trial.seconds is None else f"{trial.seconds:.4f}"
        difference = "" if trial.difference is None else f"{trial.difference:.0e}"
        note = trial.obstacle or ("<- chosen" if way == self.chosen else "")
        line = (
            f"{way.backend:24} {way.passes:12} {way.layers:10} {seconds:>9} {difference:>8}  {note}"
        )
        return line.rstrip()


def fastest(trials: tuple[Trial, ...]) -> Way:
    """The way of least time among those that run and agree."""
    timed = [
        (trial.seconds, trial.way)
        for trial in trials
        if trial.seconds is not None and not trial.obstacle
    ]
    return min(timed, key=lambda pair: pair[0])[1]


def conditions_of(
    transformer: ContentVTransformer3DModel,
    device: torch.device,
    *,
    latents: tuple[int, ...],
    text_tokens: int,
    compiling: bool,
) -> Conditions:
    """The conditions of a tuning in this process, with these weights."""
    return Conditions(
        device=device_name(device),
        dtype=str(transformer.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        latents=latents,
        text_tokens=text_tokens,
        blocks=transformer.config.num_layers,
        width=transformer.config.caption_projection_dim,
        compiling=compiling,
        versions={name: importlib.metadata.version(name) for name in _DECISIVE},
    )


def recall(file: Path, conditions: Conditions) -> TuningReport | None:
    """The report of the same conditions in `file`, None when there is none, or no file.

    Raises:
        UserError: the file is not one of tuning reports.
    """
    return next((report for report in _read(file) if report.conditions == conditions), None)


def remember(file: Path, report: TuningReport) -> None:
    """Puts a report first in `file`, in place of one of the same conditions."""
    others = [other for other in _read(file) if other.conditions != report.conditions]
    write_json(file, [kept.model_dump(mode="json") for kept in [report, *others][:_KEPT]])


def _read(file: Path) -> list[TuningReport]:
    if not file.exists():
        return []
    content = read_json(file)
    if not isinstance(content, list):
        raise UserError(f"{file}: not a file of tuning reports; name another, or delete it")
    try:
        return [TuningReport.model_validate(report) for report in content]
    except ValidationError as error:
        reason = describe_validation_error(error)
        raise UserError(f"{file}: not a file of tuning reports ({reason})") from error
