"""Runs a decoder in a child process that cannot hang, eat the memory, or crash this one.

Decoders are large C programs fed with files from strangers. The child gets a limit on wall time and
one on its address space, and whatever happens to it becomes one WorldError here.
"""

import contextlib
import importlib
import json
import math
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from contentv.base.errors import MediaError, WorldError
from contentv.base.types import Frame

Item: TypeAlias = tuple[NDArray[np.uint8], dict[str, Any]] | dict[str, Any]
"""What a child may yield: bytes of any shape with what is to be known of them, or plain values."""

_START = (
    "import sys; sys.path.append(sys.argv[1]); from contentv.video.sandbox import child; child()"
)
_OUT_OF_MEMORY = 3
_LONGEST_LINE = 10_000

Received = TypeVar("Received")
_START_SECONDS = 30.0  # a busy machine takes its time to start an interpreter


def frames_from_child(
    target: str, arguments: dict[str, Any], *, seconds: float, memory: int, max_pixels: int
) -> Iterator[tuple[Frame, float]]:
    """Yield what the generator `target` ("module:function") yields when called in a child process.

    It is called with `arguments` (JSON) and yields pairs of a frame and a number. `seconds` is wall
    time for all of them, `memory` is bytes. WorldError when the child raises one, sends more than
    `max_pixels` in total, takes too long, needs too much memory or dies.
    """
    command = _command(target, arguments, memory)
    late = threading.Event()
    with _started(command) as process:
        watchdog = threading.Timer(seconds, _stop, (process, late))
        watchdog.start()
        try:
            assert process.stdout is not None
            yield from _receive(process.stdout, max_pixels)
        except EOFError as error:
            raise _cause_of_death(process, late, seconds, memory) from error
        finally:
            watchdog.cancel()
            process.kill()


def values_from_child(
    target: str, arguments: dict[str, Any], *, seconds: float, memory: int
) -> Iterator[dict[str, Any]]:
    """Yield the dicts, of plain values, that the generator `target` yields in a child process.

    As `frames_from_child`, but `seconds` is how long each of them may take, the start of the child
    aside. When the child hangs or dies, those that came before have been yielded and WorldError
    says what happened to the next.
    """

    def receive(stream: IO[bytes]) -> dict[str, Any] | None:
        line = _receive_line(stream)
        if "error" in line:
            raise WorldError(str(line["error"]))
        return dict(line["value"]) if "value" in line else None

    yield from _each(target, arguments, receive, seconds=seconds, memory=memory)


def clips_from_child(
    target: str, arguments: dict[str, Any], *, seconds: float, memory: int, max_pixels: int
) -> Iterator[list[Frame] | str]:
    """Yield each clip that the generator `target` yields in a child process, or why it has none.

    For a clip `target` yields pairs of a frame and a number, which is not used, then a dict whose
    `fault` is empty, or else is yielded here instead of the frames. `seconds` and `max_pixels` are
    for each clip, the start of the child aside. As `values_from_child` when the child hangs or
    dies.
    """

    def receive(stream: IO[bytes]) -> list[Frame] | str | None:
        return _receive_clip(stream, max_pixels)

    clips: Iterator[list[Frame] | str] = _each(
        target, arguments, receive, seconds=seconds, memory=memory
    )
    yield from clips


def arrays_from_child(
    target: str, arguments: dict[str, Any], *, seconds: float, memory: int, max_bytes: int
) -> Iterator[Item]:
    """Yield the arrays with their notes, and the plain dicts, that `target` yields in a child.

    `max_bytes` and `seconds` are for each of them, the start of the child aside; time the caller
    takes is not counted. MediaError when the child raises one, hangs, dies or sends too much.
    """

    def receive(stream: IO[bytes]) -> Item | None:
        return _receive_item(stream, max_bytes)

    items: Iterator[Item] = _each(target, arguments, receive, seconds=seconds, memory=memory)
    yield from items


def child() -> None:
    """Be the child: limit the address space, then run what the command line names."""
    _, _, target, arguments, memory = sys.argv
    _limit_memory(int(memory))
    module, function = target.split(":")
    try:
        _send(getattr(importlib.import_module(module), function)(**json.loads(arguments)))
    except MemoryError:
        sys.exit(_OUT_OF_MEMORY)


def _each(
    target: str,
    arguments: dict[str, Any],
    receive: Callable[[IO[bytes]], Received | None],
    *,
    seconds: float,
    memory: int,
) -> Iterator[Received]:
    """Yield what `receive` reads of a child's output until it gives None; `seconds` for each."""
    command = _command(target, arguments, memory)
    late = threading.Event()
    with _started(command) as process:
        try:
            item = _in_time(receive, process, late, seconds + _START_SECONDS)
            while item is not None:
                yield item
                item = _in_time(receive, process, late, seconds)
        except EOFError as error:
            raise _cause_of_death(process, late, seconds, memory) from error
        finally:
            process.kill()


def _command(target: str, arguments: dict[str, Any], memory: int) -> list[str]:
    root = str(Path(__file__).resolve().parents[2])
    return [sys.executable, "-P", "-c", _START, root, target, json.dumps(arguments), str(memory)]


def _started(command: list[str]) -> "subprocess.Popen[bytes]":
    # A session of its own: Ctrl-C and the SIGTERM of a scheduler reach all processes of a group,
    # and a clip whose decoder was ended so would count as one that cannot be read.
    return subprocess.Popen(  # noqa: S603 - our own interpreter with our own program
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _send(items: Iterator[tuple[Frame, float] | Item]) -> None:
    output = sys.stdout.buffer
    try:
        for item in items:
            if isinstance(item, dict):
                _send_line(output, {"value": item})
                output.flush()
                continue
            frame, note = item
            height, width = frame.shape[:2]
            head = {"height": height, "width": width, "number": note}
            _send_line(
                output, {"shape": frame.shape, "note": note} if isinstance(note, dict) else head
            )
            output.write(frame.tobytes())
        _send_line(output, {"end": True})
    except WorldError as error:
        _send_line(output, {"error": str(error), "cause": getattr(error, "cause", "corrupt")})
    output.flush()


def _send_line(output: IO[bytes], content: dict[str, Any]) -> None:
    output.write(json.dumps(content).encode() + b"\n")


def _receive(stream: IO[bytes], max_pixels: int) -> Iterator[tuple[Frame, float]]:
    pixels = 0
    while not (head := _receive_line(stream)).get("end"):
        frame = _receive_frame(stream, head, max_pixels - pixels, max_pixels)
        pixels += frame.shape[0] * frame.shape[1]
        yield frame, float(head["number"])


def _receive_clip(stream: IO[bytes], max_pixels: int) -> list[Frame] | str | None:
    """The frames of the next clip, or what is wrong with it; None: there are no more clips."""
    frames: list[Frame] = []
    pixels = 0
    while "value" not in (head := _receive_line(stream)):
        if head.get("end"):
            return None
        frames.append(_receive_frame(stream, head, max_pixels - pixels, max_pixels))
        pixels += frames[-1].shape[0] * frames[-1].shape[1]
    return str(head["value"]["fault"]) or frames


def _receive_item(stream: IO[bytes], max_bytes: int) -> Item | None:
    head = _receive_line(stream)
    if head.get("end"):
        return None
    if "error" in head:
        raise MediaError(str(head["error"]), str(head["cause"]))
    if "value" in head:
        return dict(head["value"])
    shape = [int(side) for side in head["shape"]]
    size = math.prod(shape)
    if min(shape) < 1 or size > max_bytes:
        raise MediaError(f"has pictures of more than {max_bytes} bytes", "unsupported")
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return np.frombuffer(data, np.uint8).reshape(shape), dict(head["note"])


def _receive_frame(stream: IO[bytes], head: dict[str, Any], room: int, max_pixels: int) -> Frame:
    # The child has read a stranger's file, so what it says is checked like that file.
    if "error" in head:
        raise WorldError(str(head["error"]))
    height, width = int(head["height"]), int(head["width"])
    if min(height, width) < 1 or height * width > room:
        raise WorldError(f"has more than {max_pixels} pixels")
    data = stream.read(height * width * 3)
    if len(data) < height * width * 3:
        raise EOFError
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)


def _in_time(
    receive: Callable[[IO[bytes]], Received],
    process: subprocess.Popen[bytes],
    late: threading.Event,
    seconds: float,
) -> Received:
    assert process.stdout is not None
    watchdog = threading.Timer(seconds, _stop, (process, late))
    watchdog.start()
    try:
        return receive(process.stdout)
    finally:
        watchdog.cancel()


def _receive_line(stream: IO[bytes]) -> dict[str, Any]:
    line = stream.readline(_LONGEST_LINE)
    if not line.endswith(b"\n"):
        raise EOFError
    content: dict[str, Any] = json.loads(line)
    return content


def _stop(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    process.kill()


def _cause_of_death(
    process: subprocess.Popen[bytes], late: threading.Event, seconds: float, memory: int
) -> MediaError:
    code = process.wait()
    if late.is_set():
        return MediaError(f"decoding took longer than {seconds:g} s and was stopped", "timeout")
    if code == _OUT_OF_MEMORY:
        return MediaError(f"decoding needs more than {memory / 2**30:g} GiB of memory", "oom")
    return MediaError(f"the decoder died (exit code {code})", "crash")


def _limit_memory(memory: int) -> None:
    with contextlib.suppress(ImportError):  # without POSIX the limits on time and pixels remain
        resource = importlib.import_module("resource")
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
