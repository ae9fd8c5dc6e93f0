"""The captions of exported clips: a file to which each is added as soon as it is there."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from contentv.base.errors import WorldError
from contentv.base.files import os_errors

CAPTIONS_NAME = "captions.jsonl"


@dataclass(frozen=True)
class Written:
    """One caption and all that is known of it.

    `clip` is the exported file's path, which changes with its content. `fault` says why the text is
    not used. `prompt` is the hash of the prompt, `times` are seconds of the frames that were shown.
    """

    clip: str
    length: str
    captioner: str
    prompt: str
    text: str
    fault: str
    finished: bool
    times: tuple[float, ...]
    prompt_tokens: int
    answer_tokens: int
    seconds: float

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What was asked of whom: equal keys need no second answer."""
        return self.clip, self.length, self.captioner, self.prompt


def read_captions(folder: Path) -> list[Written]:
    """Read what is there; a line that a crash cut short is left out, and so is asked for again."""
    path = folder / CAPTIONS_NAME
    if not path.is_file():
        return []
    found = []
    with os_errors(path, "read"):
        lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
            found.append(Written(**{**content, "times": tuple(content["times"])}))
        except (ValueError, TypeError, KeyError) as error:
            if number < len(lines):
                raise WorldError(
                    f"{path}: line {number} is damaged; remove it to caption that clip again"
                ) from error
    return found


@contextmanager
def appending(folder: Path) -> Iterator["Appender"]:
    """Open the file for more; each caption is on the disk when `add` returns."""
    path = folder / CAPTIONS_NAME
    with os_errors(path, "write"), path.open("ab+") as file:
        _end_last_line(file)
        yield Appender(file)


class Appender:
    """Adds captions to an open file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def add(self, caption: Written) -> None:
        """Write a line and wait for the disk."""
        self._file.write(json.dumps(asdict(caption), ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _end_last_line(file: IO[bytes]) -> None:
    """Take away what a killed process left of a line."""
    size = file.seek(0, os.SEEK_END)
    keep = size
    while keep:
        file.seek(keep - 1)
        if file.read(1) == b"\n":
            break
        keep -= 1
    if keep < size:
        file.truncate(keep)
    file.seek(0, os.SEEK_END)
