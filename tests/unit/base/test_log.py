import logging
from collections.abc import Iterator

import pytest

from contentv.base.log import get_logger, only_errors, setup_logging


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger("contentv")
    before = (root.handlers[:], root.level, root.propagate)
    yield
    root.handlers[:], root.propagate = before[0], before[2]
    root.setLevel(before[1])


def test_lines_go_to_standard_error_once(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging()
    setup_logging()
    get_logger("contentv.x").info("hello")
    get_logger("contentv.x").debug("hidden")
    captured = capsys.readouterr()
    assert captured.err == "hello\n"
    assert captured.out == ""


def test_verbose_shows_more(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(verbose=True)
    get_logger("x").debug("detail")
    assert "contentv.x: detail" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wanted", "said"), [(True, "bad\nafter\n"), (False, "fine\nbad\nafter\n")]
)
def test_one_of_many_processes_tells_and_the_others_only_errors(
    *, wanted: bool, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_logging()
    with only_errors(wanted=wanted):
        get_logger("x").info("fine")
        get_logger("x").error("bad")
    get_logger("x").info("after")
    assert capsys.readouterr().err == said
