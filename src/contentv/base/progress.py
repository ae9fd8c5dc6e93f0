"""A progress line with rate and time left, on standard error."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import Generic, TextIO, TypeVar, overload

Item = TypeVar("Item")

_REDRAW_SECONDS = 0.1
_LINE_SECONDS = 10.0


class Progress(Generic[Item]):
    """Counts finished items: iterate over it, or use it with `with` and call `advance`.

    On a terminal one line is redrawn; elsewhere a line is written about every ten seconds, so that
    log files stay short and a quick job is silent.
    """

    def __init__(
        self, items: Iterable[Item], label: str, *, total: int | None, stream: TextIO
    ) -> None:
        self._items, self._label, self._total, self._stream = items, label, total, stream
        self._done = 0
        self._start = self._shown = time.monotonic()
        self._live = stream.isatty()
        self._drawn = False

    def __iter__(self) -> Iterator[Item]:
        with self:
            for item in self._items:
                yield item
                self.advance()

    def __enter__(self) -> "Progress[Item]":
        self._start = self._shown = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._drawn and self._live:
            self._stream.write("\n")
            self._stream.flush()

    def advance(self, count: int = 1) -> None:
        """Note that `count` more items are finished."""
        self._done += count
        now = time.monotonic()
        finished = self._done == self._total
        wait = _REDRAW_SECONDS if self._live else _LINE_SECONDS
        if now - self._shown >= wait or (finished and (self._live or self._drawn)):
            self._shown, self._drawn = now, True
            self._stream.write(("\r\033[K" if self._live else "") + self.line(now))
            self._stream.write("" if self._live else "\n")
            self._stream.flush()

    def line(self, now: float) -> str:
        """Give the text shown at time `now` (monotonic seconds)."""
        seconds = max(now - self._start, 1e-9)
        rate = self._done / seconds
        speed = f"{rate:.1f}/s" if rate >= 1 or rate == 0 else f"{1 / rate:.1f} s each"
        if self._total is None:
            return f"{self._label}: {self._done}, {speed}"
        left = duration((self._total - self._done) / rate) if self._done else "?"
        done = self._done == self._total
        end = f"took {duration(seconds)}" if done else f"{left} left"
        return f"{self._label}: {self._done}/{self._total}, {speed}, {end}"


@overload
def progress(items: int, label: str) -> Progress[int]: ...
@overload
def progress(items: Iterable[Item], label: str) -> Progress[Item]: ...
def progress(items: Iterable[Item] | int, label: str) -> Progress[Item] | Progress[int]:
    """Wrap `items`, or `range(items)` when it is a number, in a progress line called `label`."""
    if isinstance(items, int):
        return Progress(range(items), label, total=items, stream=sys.stderr)
    total = len(items) if isinstance(items, Sized) else None
    return Progress(items, label, total=total, stream=sys.stderr)


def duration(seconds: float) -> str:
    """Write a length of time for a person: `4.2 s`, `3:07`, `2:15:00`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
