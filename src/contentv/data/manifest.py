"""One row for every clip of a data set, and the Parquet file of all of them. Uses pyarrow alone."""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from contentv.base.errors import UserError, WorldError
from contentv.base.files import atomic_path, os_errors
from contentv.data.buckets import Size

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["video", "picture"]

MANIFEST_NAME = "manifest.parquet"
TEST_MARK = "test:"
"""Begins the names of captioners whose texts mean nothing: no training without being told to."""

_VERSION = b"1"
_DRIVE = re.compile(r"^[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip as training reads it.

    `path` is relative to the data folder; in a tar file the clip is the `length` bytes from
    `offset` on (0 bytes: the whole file). `start` and `frames` count frames of the file; a picture
    has one frame at 0 fps. `stamp` says which state of the file was measured, empty: not said.
    A `fault` says why the clip cannot be used; its numbers may then be 0. `captioner` is who wrote
    the captions, empty: not said.
    """

    id: str
    path: str
    kind: Kind
    short: str = ""
    long: str = ""
    start: int = 0
    frames: int = 0
    fps: float = 0.0
    height: int = 0
    width: int = 0
    source: str = ""
    offset: int = 0
    length: int = 0
    stamp: str = ""
    fault: str = ""
    captioner: str = ""

    @property
    def duration(self) -> float:
        """Seconds; 0 for a picture."""
        return self.frames / self.fps if self.fps else 0.0

    @property
    def is_measured(self) -> bool:
        """Whether its size is known, so that its file need not be opened to judge it."""
        return self.height > 0 and self.frames > 0

    @property
    def obstacle(self) -> str:
        """Why no stage can use it: its fault, or that it has no caption; empty when any can."""
        return self.fault or ("" if self.short or self.long else "has no caption")

    @property
    def size(self) -> Size:
        """What decides its bucket."""
        return Size(self.frames, self.height, self.width, self.fps, self.kind == "picture")


_FIELDS = {field.name: field for field in dataclasses.fields(Clip)}
_REQUIRED = ("id", "path", "kind", "frames", "fps", "height", "width")


def write_manifest(path: Path, clips: Sequence[Clip]) -> None:
    """Write the table atomically, with each clip's duration in seconds for other readers."""
    from pyarrow import parquet, table

    columns = {name: [getattr(clip, name) for clip in clips] for name in _FIELDS}
    columns["duration"] = [clip.duration for clip in clips]
    with atomic_path(path) as part:
        content = table(columns, schema=_schema()).replace_schema_metadata({"contentv": _VERSION})
        parquet.write_table(content, part, compression="zstd")


def read_manifest(path: Path) -> list[Clip]:
    """Read a table, also one that other programs made: columns that are not ours are left out.

    UserError for a missing column, an id twice, or values that no clip can have; WorldError for a
    file that is damaged. A path that leads out of the folder becomes the clip's fault.
    """
    columns = _read_columns(path)
    for name in _REQUIRED:
        if name not in columns:
            raise UserError(
                f"{path}: has no column {name}; a manifest needs {', '.join(_REQUIRED)}"
            )
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    clips = [_checked(path, Clip(**dict(zip(names, row, strict=True)))) for row in rows]
    seen: set[str] = set()
    for clip in clips:
        if clip.id in seen:
            raise UserError(f"{path}: id {clip.id} stands twice; give each clip its own")
        seen.add(clip.id)
    return clips


def manifest_hash(clips: Sequence[Clip]) -> str:
    """Identity of the clips and their order: 16 hex digits."""
    digest = hashlib.blake2b(digest_size=8)
    for clip in clips:
        digest.update(repr(dataclasses.astuple(clip)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def escape(path: str) -> str:
    """Say why a path from data may not be followed; empty when it stays inside its folder."""
    if not path or "\0" in path:
        return "is not a path"
    parts = path.replace("\\", "/").split("/")
    if parts[0] == "" or _DRIVE.match(path):
        return "is an absolute path; write it relative to the data's folder"
    if ".." in parts:
        return "leads out of the data's folder; put the file inside"
    return ""


def inside(root: Path, path: str) -> Path:
    """Give the place of a path from data; UserError when it, or a link in it, leads outside."""
    reason = escape(path)
    place = root / path
    if not reason and not place.resolve().is_relative_to(root.resolve()):
        reason = "is a link that leads out of the data's folder; copy the file"
    if reason:
        raise UserError(f"{path!r}: {reason}")
    return place


def _schema() -> "pa.Schema":
    import pyarrow as pa

    types = {int: pa.int64(), float: pa.float64()}
    columns = [(name, types.get(cast("type", f.type), pa.string())) for name, f in _FIELDS.items()]
    return pa.schema([*columns, ("duration", pa.float64())])


def _read_columns(path: Path) -> dict[str, list[object]]:
    import pyarrow as pa
    from pyarrow import parquet

    # An open file instead of a name: pyarrow would read a name with :// in it from the network.
    with os_errors(path, "read"), path.open("rb") as file:
        try:
            content = parquet.ParquetFile(file)
            names = [name for name in _FIELDS if name in content.schema_arrow.names]
            table = content.read(columns=names).select(names)
        except (pa.ArrowException, OSError) as error:
            raise WorldError(f"{path}: damaged, or not Parquet ({_first_line(error)})") from error
    try:
        wanted = pa.schema([_schema().field(name) for name in names])
        return table.cast(wanted).to_pydict()
    except pa.ArrowException as error:
        rule = "see docs/data.md for what each column holds"
        raise UserError(f"{path}: {_first_line(error)}; {rule}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _checked(path: Path, clip: Clip) -> Clip:
    wrong = _wrong_value(clip)
    if wrong:
        raise UserError(f"{path}: clip {clip.id}: {wrong}")
    if clip.fault or not (reason := escape(clip.path)):
        return clip
    return dataclasses.replace(clip, fault=f"its path {clip.path!r} {reason}")


def _wrong_value(clip: Clip) -> str:
    for name, field in _FIELDS.items():
        value = getattr(clip, name)
        if value is None:
            return f"{name} is empty"
        if field.type in (int, float) and not 0 <= value < 2**53:
            return f"{name}={value}: must be a number of 0 or more"
    if clip.kind not in ("video", "picture"):
        return f"kind={clip.kind}: must be video or picture"
    return "" if clip.fault else _wrong_size(clip)


def _wrong_size(clip: Clip) -> str:
    if min(clip.frames, clip.height, clip.width) < 1:
        return "frames, height and width must be 1 or more"
    if (clip.kind == "video") != (clip.fps > 0):
        return f"fps={clip.fps:g}: must be above 0 for a video and 0 for a picture"
    return ""
