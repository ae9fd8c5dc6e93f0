"""WebDataset shards: tar files in which a clip and its caption share a name but for the suffix."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from contentv.base.files import os_errors
from contentv.data.entries import MAX_CAPTION, captions_of, decode_caption, kind_of, new_clip
from contentv.data.manifest import Clip

_CAPTION_SUFFIXES = (".txt", ".caption", ".json")


def read_tars(root: Path, shards: list[Path]) -> list[Clip]:
    """List the clips of uncompressed tar files; nothing is unpacked.

    A clip's bytes stay where they are: the record says at which offset. A shard that is damaged
    gives the clips before the damage and one faulty clip that names it.
    """
    return [clip for shard in shards for clip in _read_shard(root, shard)]


def _read_shard(root: Path, shard: Path) -> Iterator[Clip]:
    name = shard.relative_to(root).as_posix()
    captions: dict[str, tuple[str, str]] = {}
    media: list[tarfile.TarInfo] = []
    damage = ""
    with os_errors(shard, "read"), shard.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    _sort(tar, member, captions, media)
                # tarfile takes a header that it cannot read for the end, and says nothing.
                file.seek(tar.offset)
            if any(file.read(tarfile.BLOCKSIZE)):
                damage = f"the tar file is damaged after {len(media)} clips"
        except (tarfile.TarError, EOFError, ValueError) as error:
            damage = f"the tar file is damaged after {len(media)} clips ({error})"
    for member in media:
        yield _clip(name, member, captions.get(_key(member.name), ("", "")), size)
    if damage:
        yield Clip(name, name, "video", source=name, fault=damage)


def _sort(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    captions: dict[str, tuple[str, str]],
    media: list[tarfile.TarInfo],
) -> None:
    """Put a member where it belongs; what is neither caption nor clip is left alone."""
    if not member.isreg() or member.issparse():
        return
    suffix = Path(member.name).suffix.lower()
    if kind_of(member.name):
        media.append(member)
    elif suffix in _CAPTION_SUFFIXES and member.size <= MAX_CAPTION:
        file = tar.extractfile(member)
        found = _captions(file.read() if file else b"", suffix)
        old = captions.get(_key(member.name), ("", ""))
        captions[_key(member.name)] = (found[0] or old[0], found[1] or old[1])


def _captions(data: bytes, suffix: str) -> tuple[str, str]:
    try:
        if suffix != ".json":
            return decode_caption(data), ""
        content = json.loads(data)
    except (ValueError, RecursionError):
        return "", ""
    return captions_of(content) if isinstance(content, dict) else ("", "")


def _clip(shard: str, member: tarfile.TarInfo, captions: tuple[str, str], size: int) -> Clip:
    cut = member.offset_data + member.size > size
    fault = "is cut short" if cut else "is empty" if not member.size else ""
    clip = new_clip(f"{shard}/{member.name}", *captions, source=shard, fault=fault)
    return replace(clip, path=shard, offset=member.offset_data, length=member.size)


def _key(name: str) -> str:
    """What the members of one sample share: the name up to the first dot of its last part."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.split('.')[0]}"
