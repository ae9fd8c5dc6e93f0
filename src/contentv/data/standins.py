"""Clips that turned out unreadable in training, and which others took their place."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from contentv.base.errors import WorldError
from contentv.base.log import get_logger

_log = get_logger(__name__)


class UnreadableClipError(WorldError):
    """A clip cannot be decoded; another stands in for it. A full disk is not this."""


@dataclass(frozen=True)
class StandIn:
    """Ids of a clip and of the one in its place, and what is wrong with the first."""

    clip: str
    reason: str
    instead: str


Record = Callable[[StandIn], None]


class StandInFile:
    """A JSON line for each stand-in, once, however often it is needed and the run resumed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: set[str] | None = None

    @classmethod
    def of_group(cls, folder: Path, group: int, groups: int) -> Self:
        """The file of one of `groups` data groups in a run's folder; each has its own."""
        return cls(folder / ("stand_ins.jsonl" if groups == 1 else f"stand_ins-{group:05d}.jsonl"))

    def __call__(self, stand_in: StandIn) -> None:
        """Write it down and say it, unless that was done."""
        known = self._lines()
        # Names of files need not be text: what is not is written as \\udcXX.
        line = json.dumps(asdict(stand_in))
        if line in known:
            return
        known.add(line)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        _log.warning("%s; %s stands in", stand_in.reason, stand_in.instead)

    def _lines(self) -> set[str]:
        if self._known is None:
            there = self._path.is_file()
            text = self._path.read_text(encoding="utf-8") if there else ""
            self._known = set(text.splitlines())
        return self._known
