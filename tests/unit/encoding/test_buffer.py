"""The buffer alone: whoever hands batches in, whenever, however often, the trainer sees one row."""

import random
import threading
import time

import pytest

from contentv.encoding import buffer as buffering
from contentv.encoding.buffer import StepBuffer
from contentv.encoding.wire import size_of
from serving import batch_of, equal, ticket, tickets

SIZE = size_of(batch_of(ticket()))


def small(depth: int = 3, steps: int = 6, batches: float = 100) -> StepBuffer:
    return StepBuffer(
        lambda step: tickets(step).tickets, steps=steps, depth=depth, max_bytes=int(batches * SIZE)
    )


def takes(buffer: StepBuffer, server: str = "a", most: int = 99) -> list[tuple[int, int]]:
    """Which tickets a fetcher gets when it asks again and again."""
    taken = []
    while len(taken) < most and (found := buffer.take(server, 0.0)) is not None:
        taken.append((found.step, found.micro_batch))
    return taken


def test_tickets_are_given_out_once_in_the_order_of_need_as_far_as_depth() -> None:
    buffer = small(depth=2)
    buffer.aim(1)
    assert takes(buffer, "a", 1) + takes(buffer, "b") == [(1, 0), (1, 1), (2, 0), (2, 1)]
    buffer.aim(2)
    assert takes(buffer) == [(3, 0), (3, 1)]


def test_nothing_is_wanted_past_the_last_step() -> None:
    buffer = small(depth=4, steps=3)
    buffer.aim(2)
    assert takes(buffer) == [(2, 0), (2, 1)]
    buffer.aim(3)
    assert takes(buffer) == []


def test_late_double_and_disordered_replies_are_harmless() -> None:
    buffer, replies = small(depth=6), [ticket(s, m) for s in range(6) for m in range(2)] * 3
    random.Random(0).shuffle(replies)
    buffer.aim(0)
    for number, reply in enumerate(replies):
        buffer.put(str(number % 2), reply, batch_of(reply))
    buffer.put("a", ticket(39), batch_of(ticket(39)))
    for step in range(6):
        batches = buffer.pop(step, 0.0)
        assert batches is not None
        for number, batch in enumerate(batches):
            assert equal(batch, batch_of(ticket(step, number)))
        buffer.aim(step + 1)
        buffer.put("a", ticket(step), batch_of(ticket(step)))  # comes after it was used
    assert buffer.dropped == 24 + 1 + 6
    assert buffer.held == 0


def test_a_step_is_whole_or_not_given() -> None:
    buffer = small()
    buffer.aim(0)
    buffer.put("a", ticket(0, 1), batch_of(ticket(0, 1)))
    assert buffer.pop(0, 0.01) is None
    buffer.put("a", ticket(0, 0), batch_of(ticket(0, 0)))
    assert len(buffer.pop(0, 0.0) or ()) == 2


def test_memory_is_bounded_but_the_step_that_is_needed_always_comes() -> None:
    buffer = small(depth=4, batches=3.5)
    buffer.aim(0)
    held = []
    for step in range(6):
        while (found := buffer.take("a", 0.0)) is not None:
            buffer.put("a", found, batch_of(found))
            held.append(buffer.held)
        assert buffer.pop(step, 0.0) is not None
        buffer.aim(step + 1)
    assert max(held) == 3 * SIZE
    tight = small(batches=0.1)
    tight.aim(0)
    assert takes(tight, most=2) == [(0, 0), (0, 1)]
    tight.put("a", ticket(0, 0), batch_of(ticket(0, 0)))
    assert takes(tight) == []


def test_what_a_server_did_not_answer_is_free_for_others_at_once() -> None:
    buffer = small(depth=1)
    buffer.aim(0)
    assert takes(buffer, "a") == [(0, 0), (0, 1)]
    assert takes(buffer, "b") == []
    buffer.give_back("a", ticket(0, 1))
    assert takes(buffer, "b") == [(0, 1)]


def test_a_late_server_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffering, "_FIRST_GUESS", 0.02)
    monkeypatch.setattr(buffering, "_LEAST", 0.05)
    buffer = small(depth=1)
    buffer.aim(0)
    assert takes(buffer, "stopped") == [(0, 0), (0, 1)]
    assert takes(buffer, "b") == []
    time.sleep(0.08)
    assert takes(buffer, "stopped") == []
    assert takes(buffer, "b") == [(0, 0), (0, 1)]
    for number in range(2):
        buffer.put("b", ticket(0, number), batch_of(ticket(0, number)))
    assert buffer.pop(0, 0.0) is not None
    buffer.put("stopped", ticket(0, 0), batch_of(ticket(0, 0)))
    assert (buffer.dropped, buffer.held) == (1, 0)


def test_going_back_asks_again() -> None:
    buffer = small(depth=2)
    buffer.aim(3)
    buffer.put("a", ticket(3, 0), batch_of(ticket(3, 0)))
    buffer.aim(0)
    assert buffer.held == 0
    assert takes(buffer) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_a_fault_of_a_fetcher_reaches_the_trainer() -> None:
    buffer = small()
    buffer.aim(0)
    threading.Timer(0.05, buffer.fail, [ZeroDivisionError("ours")]).start()
    with pytest.raises(ZeroDivisionError, match="ours"):
        buffer.pop(0, 10.0)


def test_closing_sends_fetchers_home() -> None:
    buffer = small()
    began = time.monotonic()
    threading.Timer(0.05, buffer.close).start()
    assert buffer.take("a", 10.0) is None
    assert time.monotonic() - began < 5
