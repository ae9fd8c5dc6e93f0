"""The log of a catalogue: one line of JSON for everything that happened, never rewritten."""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from contentv.base.files import os_errors
from contentv.curation.engine.visit import Outcome


class Events:
    """Appends to the log; times are seconds since 1970."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, event: str, said: Mapping[str, object]) -> None:
        """Write a line, in one write: a killed process leaves at most one cut short."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **said})
        with os_errors(self._path, "write"), self._path.open("ab", buffering=0) as file:
            file.write(f"{line}\n".encode())

    def visited(self, worker: int, outcome: Outcome) -> None:
        """Note a visit: which process, from when to when, seconds of processor time, memory."""
        self.note("visit", {"worker": worker, "pid_of_run": os.getpid(), **asdict(outcome)})
