"""Results as part files, one per (video, step key): a part's existence is what says "done".

A part appears by a rename, after its bytes have reached the disk, so that a process can be killed
at any moment. One without rows is a part like others. Many parts become few files by `compact`;
where a video stands in several files, a part of its own counts, then the newest of the big ones.
"""

import os
import platform
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from contentv.base.files import os_errors, remove
from contentv.base.log import get_logger
from contentv.curation.step import Row
from contentv.curation.tables import (
    Columns,
    DamagedError,
    Table,
    joined,
    only,
    ordered,
    read_note,
    rows_of,
    rows_where,
    sealed,
    table_of,
    unsealed,
)

ID = "video_id"
_SUFFIX = ".parquet"
_MERGED = "merged-"
_HALF_WRITTEN = "unfinished"

_log = get_logger(__name__)


class Parts:
    """The folder of all parts: `<step key>/<video id>.parquet`, and big files `merged-<number>`.

    `damaged` counts the files that were found damaged, and removed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged = 0

    def sweep(self) -> None:
        """Remove what killed processes left half-written. Nobody else may be writing."""
        with os_errors(self.folder, "write"):
            remove(self.folder / _HALF_WRITTEN)

    def write(self, key: str, video: str, rows: Sequence[Row], columns: Columns) -> None:
        """Keep a step's rows of a video; WorldError when the disk does not take them."""
        full = [{ID: video, **row} for row in rows]
        data = sealed(table_of(full, {ID: str, **columns}), [video])
        self._commit(self.folder / key / f"{video}{_SUFFIX}", data)

    def read(self, key: str, video: str) -> list[Row] | None:
        """Give the rows of a video that is `held`; None when its part turns out to be damaged."""
        own = self.folder / key / f"{video}{_SUFFIX}"
        rows: list[Row] = []
        if own.is_file():
            with self._dropping_damaged(own) as damaged:
                rows = rows_of(unsealed(own)[0])
            return None if damaged else rows
        for path in self._merged(key):
            with self._dropping_damaged(path) as damaged:
                rows = rows_where(path, ID, video)
            if rows or damaged:
                return None if damaged else rows
        return rows

    def held(self, key: str) -> set[str]:
        """The videos whose results are there."""
        videos = {path.name.removesuffix(_SUFFIX) for path in self._own(key)}
        for path in self._merged(key):
            with self._dropping_damaged(path):
                videos.update(read_note(path))
        return videos

    def table(self, key: str, columns: Columns, videos: Collection[str]) -> Table:
        """All rows of these videos. Each file is checked; damaged ones are told and removed."""
        tables = []
        left = set(videos)
        for path in [*self._own(key), *self._merged(key)]:
            if path.name.startswith(_MERGED) or path.name.removesuffix(_SUFFIX) in left:
                with self._dropping_damaged(path):
                    table, held = unsealed(path)
                    tables.append(_of(table, held, left))
                    left.difference_update(held)
        return joined(tables, {ID: str, **columns})

    def stamps(self, key: str) -> list[str]:
        """What changes when a file of this step comes, goes or is written to."""
        with os_errors(self.folder / key, "read"):
            stats = ((path.name, path.stat()) for path in [*self._own(key), *self._merged(key)])
            return sorted(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)

    def compact(self, key: str, columns: Columns, *, above: int = 512, size: int = 2**27) -> None:
        """Put parts together into files of about `size` bytes once there are more than `above`."""
        own = self._own(key)
        if len(own) <= above:
            return
        small = [path for path in self._merged(key) if path.stat().st_size < size // 2]
        group: list[Path] = []
        room = size
        for path in [*own, *small]:
            group.append(path)
            room -= path.stat().st_size
            if room <= 0:
                self._merge(key, group, columns)
                group, room = [], size
        if group:
            self._merge(key, group, columns)

    def _merge(self, key: str, group: list[Path], columns: Columns) -> None:
        """Write one file of several, which are in the order in which they count; then drop them."""
        tables: list[Table] = []
        videos: set[str] = set()
        for path in group:
            with self._dropping_damaged(path):
                table, held = unsealed(path)
                tables.append(_of(table, held, set(held) - videos))
                videos.update(held)
        number = max((_number(path) for path in self._merged(key)), default=0) + 1
        content = ordered(joined(tables, {ID: str, **columns}), ID)
        path = self.folder / key / f"{_MERGED}{number:06d}{_SUFFIX}"
        self._commit(path, sealed(content, sorted(videos)))
        for old in group:
            old.unlink(missing_ok=True)

    def _own(self, key: str) -> list[Path]:
        return [path for path in self._files(key) if not path.name.startswith(_MERGED)]

    def _merged(self, key: str) -> list[Path]:
        found = [path for path in self._files(key) if path.name.startswith(_MERGED)]
        return sorted(found, key=_number, reverse=True)

    def _files(self, key: str) -> list[Path]:
        folder = self.folder / key
        if not folder.is_dir():
            return []
        with os_errors(folder, "read"), os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(_SUFFIX))
        return [folder / name for name in names]

    def _commit(self, path: Path, data: bytes) -> None:
        # Not `atomic_path`: that looks through the folder each time, and here it is a large one.
        name = f"{platform.node()}-{os.getpid()}-{path.parent.name}-{path.name}"
        part = self.folder / _HALF_WRITTEN / name
        with os_errors(path, "write"):
            part.parent.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
            _fsync_folder(path.parent)

    @contextmanager
    def _dropping_damaged(self, path: Path) -> Iterator[list[Path]]:
        """Catch DamagedError in the body: remove the file, so that its results count as missing."""
        damaged: list[Path] = []
        try:
            yield damaged
        except DamagedError:
            _log.warning("%s: damaged; its results are computed again", path)
            path.unlink(missing_ok=True)
            damaged.append(path)
            self.damaged += 1


def _of(table: Table, held: Collection[str], wanted: Collection[str]) -> Table:
    """The rows of those of its videos that are wanted: mostly all that it has."""
    chosen = [video for video in held if video in wanted]
    return table if len(chosen) == len(held) else only(table, ID, chosen)


def _number(path: Path) -> int:
    return int(path.name.removeprefix(_MERGED).removesuffix(_SUFFIX))


def _fsync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
