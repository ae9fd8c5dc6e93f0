"""Finds the videos and pictures below some folders and names each by its bytes.

A file that moves keeps its name, one that is overwritten gets another, and the same bytes in two
places are one video. A second scan reads no file whose size, time and inode are as they were.
"""

import hashlib
import os
import stat
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from contentv.base.errors import UserError, WorldError
from contentv.base.files import describe_os_error
from contentv.base.log import get_logger
from contentv.base.progress import Progress
from contentv.curation.step import Row
from contentv.curation.tables import Columns, read_table, rows_of, write_rows
from contentv.data.entries import kind_of
from contentv.data.manifest import Kind

_COLUMNS: Columns = {"uri": str, "inode": int, "size": int, "mtime": int, "video_id": str}
_BLOCK = 2**22
_RECENT = 2 * 10**9  # ns: a file this young may change again without its time showing it
_SAVE_SECONDS = 60.0

_log = get_logger(__name__)


@dataclass(frozen=True)
class Stamp:
    """What stays the same while a file does: inode, bytes, time of the last change in ns."""

    inode: int
    size: int
    mtime: int


@dataclass(frozen=True)
class File:
    """A place where a video lies, and the folder or file that was asked for and led to it."""

    path: Path
    source: Path
    stamp: Stamp

    @property
    def uri(self) -> str:
        """Its path as text (see `uri_of`)."""
        return uri_of(self.path)


@dataclass(frozen=True)
class Source:
    """A video or picture: the name of its bytes and every place where they lie, in order.

    A file that cannot be read has a `fault`, and is named by its place.
    """

    video_id: str
    kind: Kind
    files: tuple[File, ...]
    fault: str = ""


@dataclass(frozen=True)
class Scan:
    """The videos found, by name, and a line about each thing that was passed over."""

    videos: list[Source]
    notes: list[str]


def uri_of(path: Path) -> str:
    """Write an absolute path as text: bytes that are no printable text, and %, become %XX."""
    letters = os.fspath(path.absolute())
    return "".join(c if c.isprintable() and c != "%" else _quoted(c) for c in letters)


def path_of(uri: str) -> Path:
    """Give the path that `uri_of` wrote."""
    return Path(os.fsdecode(unquote_to_bytes(uri)))


def scan(sources: Sequence[Path], cache: Path, *, workers: int = 1) -> Scan:
    """Find and name everything below `sources`. What was read is remembered in the file `cache`.

    UserError when a source does not exist. Whatever else goes wrong is a fault or a note.
    """
    walk = _Walk()
    for source in sources:
        walk.enter(source)
    known = _remembered(cache)
    seen, started = dict(known), time.monotonic()
    found: defaultdict[str, list[tuple[File, str]]] = defaultdict(list)
    with ThreadPoolExecutor(workers) as pool:
        named = pool.map(lambda file: _name(file, known), walk.files)
        pairs = zip(walk.files, named, strict=True)
        shown = Progress(pairs, "reading files", total=len(walk.files), stream=sys.stderr)
        for file, (video, fault) in shown:
            found[video].append((file, fault))
            if not fault and time.time_ns() - file.stamp.mtime > _RECENT:
                seen[file.uri] = (file.stamp, video)
            if time.monotonic() - started > _SAVE_SECONDS:
                _remember(cache, seen)
                started = time.monotonic()
    if seen != known:
        _remember(cache, seen)
    videos = [_source(video, places) for video, places in sorted(found.items())]
    return Scan([*videos, *walk.faulty], walk.notes)


def stamp_of(path: Path) -> Stamp:
    """Look at a file; OSError when it cannot be seen."""
    return _stamp(path.stat())


@dataclass
class _Walk:
    """Collects files in the order of their names; enters a folder once, whatever leads to it."""

    files: list[File] = field(default_factory=list)
    faulty: list[Source] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    folders: set[tuple[int, int]] = field(default_factory=set)
    places: set[str] = field(default_factory=set)

    def enter(self, source: Path) -> None:
        status = _look(source)
        if isinstance(status, FileNotFoundError) and not source.is_symlink():
            raise UserError(f"{uri_of(source)}: there is no such file or folder")
        if not isinstance(status, OSError) and stat.S_ISDIR(status.st_mode):
            self._folders([(source, status)], source)
        else:
            self._file(source, source, kind_of(source.name) or "video", status)

    def _folders(self, waiting: list[tuple[Path, os.stat_result]], source: Path) -> None:
        while waiting:
            folder, status = waiting.pop()
            if (status.st_dev, status.st_ino) in self.folders:
                self._pass_over(folder, "is a folder that was seen already")
                continue
            self.folders.add((status.st_dev, status.st_ino))
            waiting += reversed(self._inside(folder, source))

    def _inside(self, folder: Path, source: Path) -> list[tuple[Path, os.stat_result]]:
        """Take the folder's files; give the folders in it."""
        below = []
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries)
        except OSError as error:
            self._pass_over(folder, describe_os_error(error))
            return []
        for path in (folder / name for name in names):
            status, kind = _look(path), kind_of(path.name)
            if not isinstance(status, OSError) and stat.S_ISDIR(status.st_mode):
                below.append((path, status))
            elif kind:
                self._file(path, source, kind, status)
        return below

    def _file(self, path: Path, source: Path, kind: Kind, status: os.stat_result | OSError) -> None:
        if (uri := uri_of(path)) in self.places:
            return
        self.places.add(uri)
        if isinstance(status, OSError):
            file, fault = File(path, source, Stamp(0, 0, 0)), describe_os_error(status)
        else:
            file = File(path, source, _stamp(status))
            fault = "" if stat.S_ISREG(status.st_mode) else "is not a file"
        if fault:
            self.faulty.append(Source(_place_id(file), kind, (file,), fault))
        else:
            self.files.append(file)

    def _pass_over(self, folder: Path, why: str) -> None:
        self.notes.append(f"{uri_of(folder)}: {why}; passed over")
        _log.warning("%s", self.notes[-1])


def _look(path: Path) -> os.stat_result | OSError:
    try:
        return path.stat()
    except OSError as error:
        return error


def _name(file: File, known: dict[str, tuple[Stamp, str]]) -> tuple[str, str]:
    """Give the name of a file's bytes, or of its place and what is wrong."""
    stamp, video = known.get(file.uri, (None, ""))
    if stamp == file.stamp:
        return video, ""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with file.path.open("rb") as opened:
            while block := opened.read(_BLOCK):
                digest.update(block)
            after = _stamp(os.fstat(opened.fileno()))
    except OSError as error:
        return _place_id(file), describe_os_error(error)
    if after != file.stamp:
        return _place_id(file), "changes while it is read"
    return digest.hexdigest(), ""


def _source(video: str, places: list[tuple[File, str]]) -> Source:
    files = tuple(sorted((file for file, _ in places), key=lambda file: file.uri))
    return Source(video, kind_of(files[0].path.name) or "video", files, places[0][1])


def _place_id(file: File) -> str:
    return hashlib.blake2b(f"unreadable|{file.uri}".encode(), digest_size=16).hexdigest()


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_ino, status.st_size, status.st_mtime_ns)


def _quoted(letter: str) -> str:
    return quote_from_bytes(os.fsencode(letter), safe="")


def _remembered(cache: Path) -> dict[str, tuple[Stamp, str]]:
    if not cache.is_file():
        return {}
    try:
        rows = rows_of(read_table(cache, list(_COLUMNS)))
    except WorldError as error:
        _log.warning("%s; reading all files again", error)
        return {}
    return {uri: (Stamp(*stamp), video) for uri, *stamp, video in map(_values, rows)}


def _values(row: Row) -> list[Any]:
    return [row[name] for name in _COLUMNS]


def _remember(cache: Path, seen: dict[str, tuple[Stamp, str]]) -> None:
    rows: list[Row] = [
        {"uri": uri, "inode": s.inode, "size": s.size, "mtime": s.mtime, "video_id": video}
        for uri, (s, video) in sorted(seen.items())
    ]
    write_rows(cache, rows, _COLUMNS)
