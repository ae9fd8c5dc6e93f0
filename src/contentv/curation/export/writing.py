"""`contentv curate export`: the clips that a policy keeps, as files or as places in the sources."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from contentv.base.errors import ContentVError, UserError
from contentv.base.files import atomic_path
from contentv.base.progress import progress
from contentv.curation.database import opened
from contentv.curation.engine.scan import path_of
from contentv.curation.export.virtual import Virtual, point_into_sources
from contentv.curation.products import ExportConfig
from contentv.curation.selection.policy import Policy, load_policy
from contentv.curation.selection.select import decisions_path
from contentv.curation.step import Box
from contentv.data.entries import kind_of
from contentv.data.manifest import MANIFEST_NAME, Clip, Kind, read_manifest, write_manifest
from contentv.video.sandbox import values_from_child

_TARGET = "contentv.video.cutting"
_MEMORY = 4 << 30
_SECONDS = 600.0
_SAVE_EVERY = 200


@dataclass(frozen=True)
class Kept:
    """A clip to be exported: its place in the source, and the part of picture and time kept."""

    clip_id: str
    video_id: str
    path: Path
    kind: str
    start_pts: int
    end_pts: int
    box: Box

    @property
    def name(self) -> str:
        """Names the exported file by all that decides its content: 32 hex digits."""
        said = f"{self.clip_id}|{self.start_pts}|{self.end_pts}|{self.box}"
        return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class ExportResult:
    """What the folder holds now, and what was written for it.

    `root` is where the paths of a virtual table start; None: in the folder itself.
    """

    out: Path
    clips: int
    written: int
    failed: int
    left_out: Mapping[str, int]
    root: Path | None = None

    def __str__(self) -> str:
        lines = [f"{self.clips} clips, {self.written} written now"]
        if self.failed:
            lines.append(f"  could not be cut: {self.failed}; the manifest says why")
        lines += [f"  left out, {reason}: {count}" for reason, count in self.left_out.items()]
        needs = f" (read it with --root {self.root})" if self.root else ""
        return "\n".join([*lines, f"{self.out / MANIFEST_NAME}{needs}"])


def run(config: ExportConfig) -> ExportResult:
    """Export what a policy keeps.

    Raises:
        UserError: the policy has not been applied (`contentv curate select`), or keeps nothing.
    """
    policy = load_policy(config.policy)
    rows = list(_kept_rows(config, policy))[: config.limit]
    if not rows:
        raise UserError(f"policy={config.policy}: keeps no clip; `contentv curate funnel` says why")
    if config.virtual:
        found = point_into_sources(rows, config.root)
        return _write_virtual(config.out, found)
    jobs = [_job(row, policy) for row in rows]
    return _export(config.out, jobs, config.workers or os.cpu_count() or 1)


def _kept_rows(config: ExportConfig, policy: Policy) -> Iterator[dict[str, Any]]:
    """Clips that are kept with all that the catalogue knows of them and of their source."""
    decisions = decisions_path(config.catalogue, policy)
    if not decisions.is_file():
        way = f"run `contentv curate select --catalogue {config.catalogue} --policy "
        raise UserError(f"policy={config.policy}: has no decisions yet; {way}{config.policy}`")
    tables = {
        "clips": config.catalogue / "clips.parquet",
        "videos": config.catalogue / "videos.parquet",
        "decisions": decisions,
    }
    with opened(tables) as database:
        yield from database.rows("""
            SELECT c.clip_id, c.video_id, v.uri, c.kind, c.start_pts, c.end_pts, c.duration,
                c.start, c.width, c.height, d.bucket, d.crop_x, d.crop_y, d.crop_width,
                d.crop_height, v.time_base, v.rotation, v.sar, v.vfr, v.frames, c.fps,
                v.duration AS seconds
            FROM decisions AS d JOIN clips AS c USING (clip_id) JOIN videos AS v USING (video_id)
            WHERE d.keep ORDER BY d.rank NULLS LAST, c.clip_id
        """)


def _job(row: Mapping[str, Any], policy: Policy) -> Kept:
    box = Box(row["crop_x"], row["crop_y"], row["crop_width"], row["crop_height"])
    end = int(row["end_pts"])
    if policy.bucket and row["bucket"]:
        frames, height, width = (int(side) for side in str(row["bucket"]).split("x"))
        box = shaped(box, row["width"] / row["height"], width / height)
        if row["kind"] == "video":
            seconds = Fraction(frames) / Fraction(policy.bucket.fps).limit_denominator(1001)
            ticks = seconds / Fraction(str(row["time_base"]))
            end = min(end, int(row["start_pts"]) + int(ticks))
    return Kept(
        clip_id=str(row["clip_id"]),
        video_id=str(row["video_id"]),
        path=path_of(str(row["uri"])),
        kind=str(row["kind"]),
        start_pts=int(row["start_pts"]),
        end_pts=end,
        box=box,
    )


def shaped(box: Box, picture: float, wanted: float) -> Box:
    """The middle of `box` with the shape `wanted`; shapes are width over height, in pixels."""
    shape = picture * box.width / box.height
    if shape > wanted:
        width = box.width * wanted / shape
        return Box(box.x + (box.width - width) / 2, box.y, width, box.height)
    height = box.height * shape / wanted
    return Box(box.x, box.y + (box.height - height) / 2, box.width, height)


def _export(out: Path, jobs: Sequence[Kept], workers: int) -> ExportResult:
    manifest = out / MANIFEST_NAME
    known = {clip.id: clip for clip in read_manifest(manifest)} if manifest.is_file() else {}
    clips: dict[str, Clip] = {}
    todo = []
    for job in jobs:
        before = known.get(job.clip_id)
        is_there = before and not before.fault and job.name in before.path
        if before and is_there and (out / before.path).is_file():
            clips[job.clip_id] = before
        else:
            todo.append(job)
    pool = ThreadPoolExecutor(workers)
    try:
        with progress(len(todo), "cutting clips") as line:
            for done, clip in enumerate(pool.map(lambda job: _cut(out, job), todo), start=1):
                clips[clip.id] = clip
                line.advance()
                if done % _SAVE_EVERY == 0:
                    _save(manifest, jobs, clips)
    finally:
        pool.shutdown(cancel_futures=True)
    _save(manifest, jobs, clips)
    failed = sum(bool(clip.fault) for clip in clips.values())
    return ExportResult(out, len(clips) - failed, len(todo), failed, {})


def _save(manifest: Path, jobs: Sequence[Kept], clips: Mapping[str, Clip]) -> None:
    write_manifest(manifest, [clips[job.clip_id] for job in jobs if job.clip_id in clips])


def _cut(out: Path, job: Kept) -> Clip:
    suffix = ".mp4" if job.kind == "video" else ".png"
    path = f"clips/{job.name[:2]}/{job.name}{suffix}"
    kind: Kind = "video" if job.kind == "video" else "picture"
    try:
        with atomic_path(out / path) as part:
            (found,) = values_from_child(*_call(job, part), seconds=_SECONDS, memory=_MEMORY)
    except (ContentVError, ValueError) as error:
        return Clip(job.clip_id, path, kind, source=job.video_id, fault=str(error))
    return Clip(
        job.clip_id,
        path,
        kind,
        frames=int(found["frames"]),
        fps=float(found["fps"]),
        height=int(found["height"]),
        width=int(found["width"]),
        source=job.video_id,
    )


def _call(job: Kept, part: Path) -> tuple[str, dict[str, Any]]:
    box = [job.box.x, job.box.y, job.box.width, job.box.height]
    files = {"path": str(job.path), "out": str(part), "box": box}
    if job.kind == "video":
        times = {"start_pts": job.start_pts, "end_pts": job.end_pts, "most": 100_000}
        return f"{_TARGET}:cut_clip", {**files, **times}
    if kind_of(job.path.name) == "picture":
        return f"{_TARGET}:cut_picture", files
    return f"{_TARGET}:cut_frame", {**files, "pts": job.start_pts}


def _write_virtual(out: Path, found: Virtual) -> ExportResult:
    write_manifest(out / MANIFEST_NAME, found.clips)
    return ExportResult(out, len(found.clips), 0, 0, Counter(found.left_out), found.root)
