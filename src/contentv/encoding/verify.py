"""Reads every shard of a store again and says which are damaged."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load

from contentv.base.errors import UserError, WorldError
from contentv.base.files import os_errors
from contentv.base.progress import progress
from contentv.encoding.identity import read_identity
from contentv.encoding.index import read_index
from contentv.encoding.store import (
    CAPTIONS,
    CLIPS,
    INDEX_NAME,
    ShardFolder,
    content_name,
    parse_rows,
    read_metadata,
    shard_files,
)


@dataclass(frozen=True)
class VerifyResult:
    """How many shards were read, what is wrong with some, and whether these were removed."""

    shards: int
    damaged: tuple[tuple[Path, str], ...]
    removed: bool

    @property
    def exit_code(self) -> int:
        """1 when a shard is damaged."""
        return 1 if self.damaged else 0

    def __str__(self) -> str:
        lines = [f"{path}: {fault}" for path, fault in self.damaged]
        if not self.damaged:
            return f"{self.shards} shards are whole"
        end = "removed; encode again" if self.removed else "nothing was removed; add --remove"
        return "\n".join([*lines, f"{len(self.damaged)} of {self.shards} shards damaged; {end}"])


def verify(store: Path, *, remove: bool) -> VerifyResult:
    """Compare each shard with its name, a hash of its bytes, and look for NaN and for rows lost.

    `remove` deletes what is damaged, so that the next run makes it again. UserError when `store` is
    no store of features.
    """
    if read_identity(store) is None:
        raise UserError(f"{store}: is no store of features; name the --out of an earlier run")
    folders = [store / name for name in (CLIPS, CAPTIONS)]
    paths = [path for folder in folders for path in shard_files(folder)]
    damaged = [(path, fault) for path in progress(paths, "verifying") if (fault := _fault(path))]
    lost = [(path, "is missing") for folder in folders for path in _lost(folder)]
    if remove:
        for path, _ in damaged:
            with os_errors(path, "remove"):
                path.unlink()
        for folder in folders:
            ShardFolder(folder).refresh()
    return VerifyResult(len(paths) + len(lost), (*damaged, *lost), remove)


def _lost(folder: Path) -> Iterator[Path]:
    names = {row.shard for row in read_index(folder / INDEX_NAME)}
    yield from sorted(folder / name for name in names if not (folder / name).is_file())


def _fault(path: Path) -> str:
    try:
        with os_errors(path, "read"):
            data = path.read_bytes()
        if content_name(data) != path.stem:
            return "its bytes are not those that were written"
        tensors = load(data)
        count = sum(not row.fault for row in parse_rows(read_metadata(path)))
    except WorldError as error:
        return str(error)
    except (SafetensorError, ValueError, TypeError) as error:
        return f"is no shard ({error})"
    if any(len(tensor) != count for tensor in tensors.values()):
        return f"its tensors do not have {count} rows"
    bad = sorted(name for name, tensor in tensors.items() if not tensor.isfinite().all())
    return f"NaN or infinity in {', '.join(bad)}" if bad else ""
