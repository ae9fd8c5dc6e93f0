"""Finds out how a data set is laid out, and lists its clips."""

import json
import os
from pathlib import Path

from contentv.base.errors import UserError
from contentv.data.entries import (
    MAX_CAPTION,
    Listing,
    captions_of,
    decode_caption,
    kind_of,
    new_clip,
    with_own_ids,
)
from contentv.data.manifest import MANIFEST_NAME, Clip, read_manifest
from contentv.data.tables import TABLE_SUFFIXES, read_pair, read_table
from contentv.data.tars import read_tars

_TABLES = tuple(f"metadata{suffix}" for suffix in TABLE_SUFFIXES)
_VIDEOS = "videos.txt"
_PROMPTS = ("prompt.txt", "prompts.txt", "captions.txt")
_KINDS = (
    "clips with .txt files beside them, metadata.csv, .jsonl or .json, videos.txt with prompt.txt, "
    f".tar files, or {MANIFEST_NAME}"
)


def read_dataset(path: Path, root: Path | None = None) -> Listing:
    """List the clips of a folder, or of the one file that describes a data set.

    Paths in the data are relative to `root`, by default the folder of the describing file.
    UserError when the folder says nothing, or two different things.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if root is not None and (path.is_dir() or path.suffix == ".tar"):
        raise UserError(f"root={root}: is for a table or manifest only; leave it out")
    if path.is_dir() and not (found := _describing_files(path)):
        return _read_sidecars(path)
    return _read_files(found if path.is_dir() else [path], root)


def _describing_files(folder: Path) -> list[Path]:
    """The file that describes a folder, or its tar files, or none: the clips do it themselves."""
    present = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    single = [name for name in (MANIFEST_NAME, *_TABLES, _VIDEOS) if name in present]
    tars = [name for name in present if name.endswith(".tar")]
    both = single + tars[:1]
    if len(both) > 1:
        raise UserError(
            f"{folder}: {' and '.join(both)} both describe it; give the one that holds, or "
            "move the other away"
        )
    return [folder / name for name in single or tars]


def _read_files(files: list[Path], root: Path | None) -> Listing:
    file, folder = files[0], root or files[0].parent
    if file.suffix == ".parquet":
        return Listing("manifest", folder, read_manifest(file))
    if file.suffix == ".tar":
        return Listing("webdataset", folder, with_own_ids(read_tars(folder, files)))
    if file.name == _VIDEOS:
        clips = read_pair(file, _prompts(file.parent))
        return Listing("lists", folder, with_own_ids(clips), _unnamed(folder, clips))
    if file.suffix.lower() in TABLE_SUFFIXES:
        clips = read_table(file)
        return Listing("table", folder, with_own_ids(clips), _unnamed(folder, clips))
    raise UserError(f"{file}: does not describe a data set; give {_KINDS}")


def _prompts(folder: Path) -> Path:
    found = [folder / name for name in _PROMPTS if (folder / name).is_file()]
    if len(found) != 1:
        has = " and ".join(file.name for file in found) or "no prompt.txt"
        raise UserError(f"{folder}: {_VIDEOS} and {has}; it needs one file of captions")
    return found[0]


def _read_sidecars(root: Path) -> Listing:
    files = _walk(root)
    media = [file for file in files if kind_of(file.name)]
    if not media:
        raise UserError(f"{root}: no clips found; a data set is {_KINDS}")
    stems = {file.with_suffix("") for file in media}
    lonely = [f for f in files if f.suffix == ".txt" and f.with_suffix("") not in stems]
    notes = (f"{len(lonely)} .txt files have no clip beside them",) if lonely else ()
    names = {os.fspath(file) for file in files}
    return Listing("sidecars", root, [_with_sidecar(file, root, names) for file in media], notes)


def _with_sidecar(file: Path, root: Path, names: set[str]) -> Clip:
    path = file.relative_to(root).as_posix()
    captions, fault = ("", ""), ""
    try:
        if os.fspath(beside := file.with_suffix(".txt")) in names:
            captions = (decode_caption(_read(beside)), "")
        elif os.fspath(beside := file.with_suffix(".json")) in names:
            content = json.loads(_read(beside))
            captions = captions_of(content) if isinstance(content, dict) else captions
    except (OSError, ValueError, RecursionError):
        fault = f"its caption, {beside.name}, cannot be read as UTF-8 text"
    return new_clip(path, *captions, source=file.parent.name, fault=fault)


def _read(file: Path) -> bytes:
    if file.stat().st_size > MAX_CAPTION:
        raise ValueError("too long")
    return file.read_bytes()


def _unnamed(root: Path, clips: list[Clip]) -> tuple[str, ...]:
    """Say how many clips lie in the folder and are not in its table."""
    named = {clip.path for clip in clips}
    paths = (f.relative_to(root).as_posix() for f in _walk(root) if kind_of(f.name))
    lost = [path for path in paths if path not in named]
    if not lost:
        return ()
    return (f"{len(lost)} clips in the folder are not named by its table, such as {lost[0]}",)


def _walk(folder: Path) -> list[Path]:
    """Files of a folder and its subfolders, hidden ones left out, links to folders not followed."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in sorted(names) if not name.startswith(".")]
    return found
