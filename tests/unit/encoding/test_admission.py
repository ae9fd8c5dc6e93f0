import logging
import threading
import time

import pytest

from contentv.encoding.admission import Admission, Limits, RefusedError, Visit


def refusal(admission: Admission, peer: str = "x") -> str:
    with pytest.raises(RefusedError) as caught:
        admission.enter(peer)
    return caught.value.kind


def encode(admission: Admission, visit: Visit) -> None:
    with admission.encoding(visit):
        pass


def test_so_many_may_wait_and_no_more() -> None:
    admission = Admission(Limits(encodes=2, waiting=3))
    visits = [admission.enter(str(number)) for number in range(5)]
    assert refusal(admission) == "busy"
    encode(admission, visits[0])
    admission.leave(visits[0])
    admission.enter("late")
    assert refusal(admission) == "busy"


def test_one_connection_cannot_take_all_places() -> None:
    admission = Admission(Limits(per_connection=2))
    for _ in range(2):
        encode(admission, admission.enter("greedy"))
    assert refusal(admission, "greedy") == "busy"
    admission.enter("another")


def test_only_so_many_are_encoded_at_once() -> None:
    admission, now, most = Admission(Limits(encodes=2, per_connection=9)), [], []
    begin = threading.Barrier(6)

    def work() -> None:
        visit = admission.enter("x")
        begin.wait()
        with admission.encoding(visit):
            now.append(1)
            most.append(len(now))
            time.sleep(0.01)
            now.pop()
        admission.leave(visit)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 2
    assert admission.gauges() == {"waiting": 0, "encoding": 0, "unsent": 0}


def test_replies_that_nobody_fetches_hold_up_encoding_and_nothing_grows() -> None:
    admission = Admission(Limits(unsent=1, wait_seconds=0.05))
    slow = admission.enter("slow")
    encode(admission, slow)
    other = admission.enter("other")
    with pytest.raises(RefusedError, match="no encoder was free in time"):
        encode(admission, other)
    assert admission.stuck(0.01) == ["slow"]
    admission.leave(slow)
    encode(admission, other)


def test_an_encoder_that_fails_is_free_again() -> None:
    admission = Admission(Limits(wait_seconds=0.05))
    with pytest.raises(ZeroDivisionError), admission.encoding(admission.enter("x")):
        raise ZeroDivisionError
    encode(admission, admission.enter("x"))


def test_draining_refuses_and_waits_for_the_rest() -> None:
    admission = Admission(Limits())
    visit = admission.enter("x")
    admission.drain()
    assert refusal(admission) == "draining"
    assert not admission.wait_until_empty(0.01)
    threading.Timer(0.05, admission.leave, [visit]).start()
    assert admission.wait_until_empty(10)


def test_refusals_are_counted_all_and_logged_seldom(caplog: pytest.LogCaptureFixture) -> None:
    admission = Admission(Limits())
    with caplog.at_level(logging.WARNING, "contentv"):
        for number in range(1000):
            admission.note(RefusedError("refused", f"step={number}"))
    assert admission.tally.outcomes["refused"] == 1000
    assert [record.getMessage() for record in caplog.records] == ["refused: step=0"]
