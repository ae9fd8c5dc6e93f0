"""What every layout of a data set shares: which files are clips, and what counts as a caption."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from contentv.data.manifest import Clip, Kind, escape

LayoutName = Literal["manifest", "table", "lists", "webdataset", "sidecars"]

VIDEO_SUFFIXES = (
    *(".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".gif", ".mpg"),
    *(".mpeg", ".ts", ".flv", ".ogv", ".wmv", ".3gp"),
)
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

# Names in use for the same thing, the commoner first.
PATH_NAMES = (
    *("file_name", "video", "path", "video_path", "file_path", "file", "filename"),
    *("image", "image_path", "media", "media_path", "clip"),
)
SHORT_NAMES = ("caption", "text", "prompt", "cap", "short_caption", "short", "description")
LONG_NAMES = ("long_caption", "long_prompt", "long", "detailed_caption")
MAX_CAPTION = 1 << 20  # bytes of a caption file; more is no caption


@dataclass(frozen=True)
class Listing:
    """The clips that a data set names, in its order, and what else was seen (`notes`)."""

    layout: LayoutName
    root: Path
    clips: list[Clip]
    notes: tuple[str, ...] = ()


def new_clip(path: str, short: str, long: str = "", *, source: str, fault: str = "") -> Clip:
    """A clip that is named but not measured, with the first fault that shows without opening it."""
    path = path.strip().removeprefix("./")
    kind = kind_of(path)
    if not fault and (reason := escape(path)):
        fault = f"its path {path!r} {reason}"
    if not fault and kind is None:
        fault = f"{PurePosixPath(path).suffix or 'no suffix'}: not a kind of video or picture"
    return Clip(path, path, kind or "video", short, long, source=source, fault=fault)


def kind_of(path: str) -> Kind | None:
    """Whether a file name is that of a video or a picture; None: of neither."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return "video"
    return "picture" if suffix in PICTURE_SUFFIXES else None


def captions_of(row: Mapping[str, object]) -> tuple[str, str]:
    """Short and long caption of a row, by the names in use; empty when there is none.

    Of a list of captions the shortest and the longest.
    """
    short, long = (_texts(row, names) for names in (SHORT_NAMES, LONG_NAMES))
    if len(short) > 1 and not long:
        long = short
    return min(short, key=len, default=""), max(long, key=len, default="")


def decode_caption(data: bytes) -> str:
    """Text of a caption file, on one line; ValueError when it is not UTF-8 text."""
    return " ".join(data.decode("utf-8-sig").split())


def with_own_ids(clips: Iterable[Clip]) -> list[Clip]:
    """Number the second and further clips of the same id: `a.mp4`, `a.mp4#2`."""
    seen: dict[str, int] = {}
    result = []
    for clip in clips:
        count = seen[clip.id] = seen.get(clip.id, 0) + 1
        result.append(clip if count == 1 else replace(clip, id=f"{clip.id}#{count}"))
    return result


def _texts(row: Mapping[str, object], names: tuple[str, ...]) -> list[str]:
    value = next((row[name] for name in names if row.get(name)), None)
    values = value if isinstance(value, list) else [value]
    return [" ".join(text.split()) for text in values if isinstance(text, str) and text.strip()]
