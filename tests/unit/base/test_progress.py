import io

import pytest

from contentv.base.progress import Progress, duration, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_iterating_gives_all_items() -> None:
    assert list(progress([3, 1], "x")) == [3, 1]
    assert list(progress(3, "x")) == [0, 1, 2]


def test_a_quick_job_outside_a_terminal_is_silent() -> None:
    stream = io.StringIO()
    assert sum(Progress(range(9), "x", total=9, stream=stream)) == 36
    assert stream.getvalue() == ""


def test_a_terminal_gets_one_line_that_ends() -> None:
    stream = Terminal()
    for _ in Progress(range(3), "sampling", total=3, stream=stream):
        pass
    assert stream.getvalue().endswith("\n")
    assert stream.getvalue().count("\n") == 1
    assert "sampling: 3/3" in stream.getvalue()


def test_the_line_tells_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with Progress(range(100), "x", total=100, stream=io.StringIO()) as bar:
        bar.advance(25)
        assert bar.line(150.0) == "x: 25/100, 2.0 s each, 2:30 left"
        assert bar.line(105.0) == "x: 25/100, 5.0/s, 15.0 s left"
        bar.advance(75)
        assert bar.line(110.0) == "x: 100/100, 10.0/s, took 10.0 s"


def test_an_unknown_total_and_no_item_yet_are_fine() -> None:
    stream = io.StringIO()
    assert "left" not in Progress(iter(()), "x", total=None, stream=stream).line(1e9)
    assert "? left" in Progress(iter(()), "x", total=4, stream=stream).line(1e9)


def test_a_failure_ends_the_terminal_line() -> None:
    stream = Terminal()
    bar = Progress(range(3), "x", total=3, stream=stream)
    bar.advance(3)
    with pytest.raises(ZeroDivisionError), bar:
        raise ZeroDivisionError
    assert stream.getvalue().endswith("\n")


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.24, "4.2 s"), (187, "3:07"), (8100, "2:15:00"), (59.96, "60.0 s")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text
