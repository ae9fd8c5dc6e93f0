import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from contentv.encoding import patience
from contentv.encoding.patience import noticing_signals


@pytest.fixture
def wish() -> Iterator[threading.Event]:
    """Set by SIGTERM, as the trainer's wish to stop after the step is."""
    wished = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: wished.set())
    yield wished
    signal.signal(signal.SIGTERM, before)


def test_the_wish_is_heard_and_only_a_long_wait_is_broken_off(
    monkeypatch: pytest.MonkeyPatch, wish: threading.Event
) -> None:
    monkeypatch.setattr(patience, "_GRACE", 0.2)
    with noticing_signals() as check:
        check()
        os.kill(os.getpid(), signal.SIGTERM)
        check()
        assert wish.is_set()
        time.sleep(0.3)
        with pytest.raises(KeyboardInterrupt):
            check()


def test_handlers_are_as_before_afterwards(wish: threading.Event) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with noticing_signals():
        assert signal.getsignal(signal.SIGTERM) is not before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert not wish.is_set()


def test_a_handler_that_raises_does_so_at_once() -> None:
    threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt), noticing_signals():
        time.sleep(5)


def test_other_threads_are_left_alone() -> None:
    done: list[bool] = []

    def wait() -> None:
        with noticing_signals() as check:
            check()
            done.append(True)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    assert done == [True]
