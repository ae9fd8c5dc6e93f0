"""`contentv curate pack`: exported clips in the layouts of other programs."""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from contentv.base.errors import UserError
from contentv.base.files import atomic_dir, atomic_path
from contentv.base.progress import progress
from contentv.curation.products import PackConfig
from contentv.data.manifest import MANIFEST_NAME, Clip, inside, read_manifest


@dataclass(frozen=True)
class PackResult:
    """How many clips were packed, and how many were left out for want of a caption."""

    out: Path
    clips: int
    left_out: int

    def __str__(self) -> str:
        left = f", {self.left_out} left out: no caption, or damaged" if self.left_out else ""
        return f"{self.clips} clips{left}\n{self.out}"


def run(config: PackConfig) -> PackResult:
    """Write a new folder of captioned clips; it appears whole or not at all.

    Raises:
        UserError: there is nothing to pack, or something is in the way.
    """
    if config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
        raise UserError(f"out={config.out}: is not empty; choose another folder")
    manifest = config.clips / MANIFEST_NAME
    if not manifest.is_file():
        raise UserError(
            f"{config.clips}: has no {MANIFEST_NAME}; `contentv curate export` makes it"
        )
    clips = read_manifest(manifest)
    good = [clip for clip in clips if not clip.obstacle]
    if not good:
        raise UserError(f"{config.clips}: no clip has a caption; `contentv curate caption` first")
    with atomic_dir(config.out) as part:
        if config.layout == "metadata":
            _write_metadata(part, config.clips, good)
        else:
            _write_tars(part, config.clips, good, config.shard_mb * 1_000_000)
    return PackResult(config.out, len(good), len(clips) - len(good))


def _write_metadata(out: Path, root: Path, clips: Sequence[Clip]) -> None:
    with atomic_path(out / "metadata.jsonl") as part, part.open("w", encoding="utf-8") as file:
        for clip in progress(clips, "copying clips"):
            place = out / clip.path
            place.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(inside(root, clip.path), place)
            file.write(json.dumps({"file_name": clip.path, **_texts(clip)}) + "\n")


def _write_tars(out: Path, root: Path, clips: Sequence[Clip], most: int) -> None:
    left = iter(progress(clips, "writing tar files"))
    number, clip = 0, next(left, None)
    while clip is not None:
        with tarfile.open(out / f"clips-{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            while clip is not None and tar.offset < most:
                for name, data in _members(root, clip):
                    _add(tar, name, data)
                clip = next(left, None)
        number += 1


def _members(root: Path, clip: Clip) -> Iterator[tuple[str, bytes]]:
    suffix = Path(clip.path).suffix
    yield f"{clip.id}{suffix}", inside(root, clip.path).read_bytes()
    yield f"{clip.id}.json", json.dumps(_texts(clip)).encode()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # no owner, no time: equal clips give equal shards
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _texts(clip: Clip) -> dict[str, str]:
    texts = {"caption": clip.short, "long_caption": clip.long, "captioner": clip.captioner}
    return {name: text for name, text in texts.items() if text}


def _link_or_copy(source: Path, place: Path) -> None:
    try:
        os.link(source, place)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, place)
