import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from contentv.base.errors import WorldError
from contentv.base.types import Frame
from contentv.video.sandbox import clips_from_child, frames_from_child, values_from_child

HOSTILE = """
import os, sys, time
import numpy as np
from contentv.base.errors import WorldError

def two(side):
    for value in (1, 2):
        yield np.full((side, side, 3), value, np.uint8), 8.0

def hangs(after):
    yield from two(4)
    time.sleep(after)

def eats(size):
    yield np.zeros(size, np.uint8), 1.0

def dies(how):
    yield from two(4)
    sys.stdout.flush()
    os.abort() if how == "abort" else os._exit(7)

def refuses(words):
    yield from two(4)
    raise WorldError(words)

def has_a_bug():
    yield from two(4)
    1 / 0

def group():
    yield {"group": os.getpgrp()}

def clips(then):
    yield from two(4)
    yield {"fault": ""}
    yield from two(4)
    yield {"fault": "is cut short"}
    yield from two(4)
    sys.stdout.flush()
    if then == "hangs":
        time.sleep(60)
    elif then == "dies":
        os._exit(7)
    yield {"fault": ""}
"""


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "hostile.py").write_text(HOSTILE)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{':'.join(sys.path)}")
    return "hostile"


def frames(
    target: str, *, seconds: float = 30, memory: int = 2 << 30, **arguments: object
) -> Iterator[tuple[Frame, float]]:
    return frames_from_child(target, arguments, seconds=seconds, memory=memory, max_pixels=1 << 20)


def test_frames_and_numbers_arrive(hostile: str) -> None:
    pairs = list(frames(f"{hostile}:two", side=5))
    assert [number for _, number in pairs] == [8.0, 8.0]
    assert np.array_equal(pairs[1][0], np.full((5, 5, 3), 2, np.uint8))


def test_a_hanging_child_is_stopped_in_time(hostile: str) -> None:
    begin = time.monotonic()
    with pytest.raises(WorldError, match="took longer than 2 s and was stopped"):
        list(frames(f"{hostile}:hangs", seconds=2, after=60))
    assert time.monotonic() - begin < 10


def test_a_hungry_child_is_refused_memory(hostile: str) -> None:
    with pytest.raises(WorldError, match=r"needs more than 0\.5 GiB of memory"):
        list(frames(f"{hostile}:eats", memory=1 << 29, size=2 << 30))


@pytest.mark.parametrize(("how", "code"), [("abort", -6), ("exit", 7)])
def test_a_dying_child_does_not_take_us_along(hostile: str, how: str, code: int) -> None:
    with pytest.raises(WorldError, match=rf"the decoder died \(exit code {code}\)"):
        list(frames(f"{hostile}:dies", how=how))


def test_a_bug_in_the_child_is_a_death(hostile: str) -> None:
    with pytest.raises(WorldError, match=r"died \(exit code 1\)"):
        list(frames(f"{hostile}:has_a_bug"))


def test_the_childs_own_words_come_through(hostile: str) -> None:
    with pytest.raises(WorldError, match=r"^no, not this one$"):
        list(frames(f"{hostile}:refuses", words="no, not this one"))


def test_more_pixels_than_agreed_are_not_accepted(hostile: str) -> None:
    with pytest.raises(WorldError, match="more than 1048576 pixels"):
        list(frames(f"{hostile}:two", side=1000))


def test_stopping_early_ends_the_child(hostile: str) -> None:
    stream = frames(f"{hostile}:hangs", after=60)
    next(stream)
    begin = time.monotonic()
    stream.close()  # type: ignore[attr-defined]
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    ("then", "words"), [("ends", ""), ("hangs", "took longer than 0.5 s"), ("dies", "exit code 7")]
)
def test_each_clip_has_its_own_limits_and_a_death_is_of_one_clip(
    hostile: str, then: str, words: str
) -> None:
    limits = {"seconds": 0.5, "memory": 2 << 30, "max_pixels": 32}  # of a clip, not of them all
    found = clips_from_child(f"{hostile}:clips", {"then": then}, **limits)
    first, second = next(found), next(found)
    assert [int(frame[0, 0, 0]) for frame in first] == [1, 2]
    assert second == "is cut short"
    if words:
        with pytest.raises(WorldError, match=words):
            next(found)
    else:
        assert [len(clip) for clip in found] == [2]


def test_a_clip_of_more_pixels_than_agreed_is_not_accepted(hostile: str) -> None:
    limits = {"seconds": 30, "memory": 2 << 30, "max_pixels": 31}
    with pytest.raises(WorldError, match="more than 31 pixels"):
        next(clips_from_child(f"{hostile}:clips", {"then": "ends"}, **limits))


def test_signals_to_our_group_do_not_reach_the_child(hostile: str) -> None:
    """Else a clip that was being decoded when training was stopped would count as unreadable."""
    value = next(values_from_child(f"{hostile}:group", {}, seconds=30, memory=2 << 30))
    assert value["group"] != os.getpgrp()
