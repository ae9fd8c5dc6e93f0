"""Files that are either whole or absent, and operating-system errors turned into one line."""

import errno
import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contentv.base.errors import UserError, WorldError

_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space or choose another place",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another place",
    errno.EFBIG: "the file would exceed the size limit of this process or file system",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.EACCES: "permission denied; choose a place you may use",
    errno.EPERM: "the operation is not permitted; choose a place you may use",
    errno.ENOENT: "no such file or folder",
    errno.EEXIST: "something of that name is in the way",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder",
    errno.ENAMETOOLONG: "the name is too long",
}


@contextmanager
def os_errors(path: Path, verb: str) -> Iterator[None]:
    """Turn an OSError of the body into a WorldError: `cannot <verb> <path>: <reason>`."""
    try:
        yield
    except OSError as error:
        raise WorldError(f"cannot {verb} {path}: {describe_os_error(error)}") from error


def describe_os_error(error: OSError) -> str:
    """Say the reason of an OSError and what to do about it, without path or number."""
    known = _ADVICE.get(error.errno or 0)
    return known or error.strerror or " ".join(str(error).split()) or type(error).__name__


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, of its suffix, which becomes `path` on success.

    The body writes the file; it reaches the disk before it gets its name. On any error, Ctrl-C
    included, nothing is left. Missing parent folders are made.
    """
    with os_errors(path, "write"):
        part = _make_room(path)
        try:
            yield part
            _flush_to_disk(part)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Give a fresh folder beside `path` which on success replaces what was at `path`."""
    with os_errors(path, "write"):
        part = _make_room(path)
        part.mkdir()
        try:
            yield part
            for file in part.rglob("*"):
                if file.is_file():
                    _flush_to_disk(file)
            _replace_dir(part, path)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


def remove(path: Path) -> None:
    """Remove a file, or a folder with all in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically: indented, UTF-8, NaN refused."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:  # noqa: ANN401 - JSON is anything
    """Read a JSON file; WorldError when it cannot be read, UserError when it is not JSON."""
    with os_errors(path, "read"):
        data = path.read_bytes()
    try:
        return json.loads(data.decode("utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from error


def _make_room(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    return part_of(path, os.getpid())


def part_of(path: Path, pid: int) -> Path:
    """Where process `pid` of this machine writes `path` before it is whole.

    Machines that share a folder have names of their own: their processes may have equal numbers.
    """
    return path.parent / f".part-{platform.node()}-{pid}-{path.name}"


def _remove_leftovers(path: Path) -> None:
    # A killed process (SIGKILL, power cut) cannot tidy up; the next one that writes the file does.
    head, tail = f".part-{platform.node()}-", f"-{path.name}"
    for file in path.parent.iterdir():
        pid = file.name.removeprefix(head).removesuffix(tail)
        ours = pid.isdigit() and file.name == f"{head}{pid}{tail}"
        if ours and not _is_running(int(pid)):
            remove(file)


def _is_running(pid: int) -> bool:
    if os.name != "posix":  # elsewhere signal 0 is not a question
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _replace_dir(part: Path, path: Path) -> None:
    if not path.exists():
        part.replace(path)
        return
    old = part.with_name(part.name + ".old")
    path.replace(old)
    part.replace(path)
    remove(old)


def _flush_to_disk(file: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
