"""Where videos go: paths from `--out` and `--format`, and which of them are finished already."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from contentv.base.errors import UserError
from contentv.base.files import os_errors
from contentv.pipelines.config import Format
from contentv.pipelines.jobs import Job, file_names
from contentv.pipelines.sidecar import ModelIdentity, read_sidecar, sidecar_path

_FORMATS: tuple[Format, ...] = get_args(Format)
_OTHER_KINDS = {".avi", ".mkv", ".mov", ".webm", ".webp", ".jpg", ".jpeg"}


def choose_format(out: Path | None, wanted: Format | None, fallback: Format = "mp4") -> Format:
    """Give the kind of file: by the suffix of `out`, else as wanted, else `fallback`."""
    suffix = out.suffix.lower() if out else ""
    if out and suffix in _OTHER_KINDS:
        raise UserError(f"out={out}: use .mp4, .gif or .png, or name a folder")
    by_suffix = next((name for name in _FORMATS if suffix == f".{name}"), None)
    if by_suffix and wanted not in (None, by_suffix):
        raise UserError(f"out={out}: is not {wanted}; change one of --out and --format")
    return by_suffix or wanted or fallback


def choose_paths(out: Path | None, kind: Format, jobs: Sequence[Job]) -> list[Path]:
    """Give each job its file, or its folder of pictures; UserError when `out` cannot hold them."""
    if out and out.suffix.lower() == f".{kind}":
        if len(jobs) > 1:
            raise UserError(f"out={out}: is one file for {len(jobs)} videos; name a folder")
        if kind == "png" and jobs[0].num_frames > 1:
            raise UserError(f"out={out}: a picture has 1 frame; use --num-frames 1, or .mp4")
        return [out]
    suffix = "" if kind == "png" else f".{kind}"
    return [(out or Path()) / f"{name}{suffix}" for name in file_names(jobs)]


def check_writable(path: Path) -> None:
    """Raise WorldError now, not after minutes of sampling, when `path` cannot be written."""
    probe = path.parent / f".{path.name}.{os.getpid()}.probe"
    with os_errors(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()


def is_finished(path: Path, job: Job, model: ModelIdentity, scale: int, *, overwrite: bool) -> bool:
    """Say whether `path` already is the video of `job`, never so when it is to be overwritten.

    UserError when it is something else.
    """
    if overwrite or not path.exists():
        return False
    # The JSON file is written first, so a finished video has one.
    sidecar = sidecar_path(path)
    same = sidecar.is_file() and read_sidecar(sidecar).is_of(job, model, scale)
    if not same:
        raise UserError(f"{path}: exists and is another video; add --overwrite or change --out")
    return same
