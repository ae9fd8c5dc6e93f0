"""Keeps what a watcher needs again: a little of it in memory, the rest on disk."""

import tempfile
import weakref

_IN_MEMORY = 16 << 20  # bytes; more goes into a temporary file that has no name


class Spool:
    """Byte strings by number, in the order in which they were added. Gone with the object."""

    def __init__(self, in_memory: int = _IN_MEMORY) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=in_memory)  # noqa: SIM115 - see below
        self._ends = [0]
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def add(self, content: bytes) -> None:
        """Keep one more."""
        self._file.seek(self._ends[-1])
        self._file.write(content)
        self._ends.append(self._ends[-1] + len(content))

    def get(self, number: int) -> bytes:
        """Give what was added as number `number`, counted from 0."""
        self._file.seek(self._ends[number])
        return self._file.read(self._ends[number + 1] - self._ends[number])
