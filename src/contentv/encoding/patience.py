"""Being stopped while there is nothing to do but wait."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_GRACE = 3.0  # seconds in which the wait may still end well


@contextmanager
def noticing_signals() -> Iterator[Callable[[], None]]:
    """Give a check for the body to call, which raises KeyboardInterrupt after SIGINT or SIGTERM.

    The handlers that are there, such as the trainer's wish to stop after the step, run first; they
    get a few seconds to be enough.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    asked: list[float] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def notice(number: int, frame: FrameType | None) -> None:
        asked.append(time.monotonic())
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    def check() -> None:
        if asked and time.monotonic() - asked[0] > _GRACE:
            raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, notice)
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
