"""Ctrl-C, also while libraries are imported.

A KeyboardInterrupt in the middle of an import may run through C++ code that cannot bear it:
PyTorch's then ends the process with SIGABRT. So none is raised there.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeAlias

Handler: TypeAlias = Callable[[int, FrameType | None], None]

INTERRUPTED = 130  # what shells expect of a program ended by Ctrl-C: 128 + 2
_IMPORT = "<frozen importlib._bootstrap>"
_SOON = 0.05  # seconds until an import under way is looked at again


@contextmanager
def ending_at_once(line: str) -> Iterator[None]:
    """Let SIGINT write `line` and end the process: for a body that has nothing to clean up."""

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        os.write(sys.stderr.fileno(), f"{line}\n".encode())
        os._exit(INTERRUPTED)

    with _handlers({signal.SIGINT: end}):
        yield


@contextmanager
def raising_between_imports() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt, as soon as no import is under way."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if not _is_importing(frame):
            raise KeyboardInterrupt
        threading.Timer(_SOON, os.kill, (os.getpid(), signal.SIGINT)).start()

    with _handlers({signal.SIGINT: interrupt}):
        yield


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT:
            return True
        frame = frame.f_back
    return False


@contextmanager
def _handlers(new: dict[signal.Signals, Handler]) -> Iterator[None]:
    """Signal handlers for the time of the body; only a main thread has any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in new.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
