"""Small and large catalogues of curation, as `curate run` leaves them, without any footage."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

VIDEO: dict[str, Any] = {
    "video_id": "v0",
    "uri": "v0.mp4",
    "kind": "video",
    "status": "ok",
    "source": "studio",
    "error_class": None,
    "error": None,
}
CLIP: dict[str, Any] = {
    "clip_id": "c0",
    "video_id": "v0",
    "uri": "v0.mp4",
    "kind": "video",
    "shot": 0,
    "start": 0.0,
    "end": 5.0,
    "start_pts": 0,
    "end_pts": 125,
    "width": 1280,
    "height": 720,
    "fps": 25.0,
    "duration": 5.0,
    "crop_x": 0.0,
    "crop_y": 0.0,
    "crop_width": 1.0,
    "crop_height": 1.0,
    "crop_fault": "",
    "dup_of": None,
    "dup_sim": None,
    "dup_level": None,
}
"""A clip that nothing is wrong with, before any score."""


def write_catalogue(
    folder: Path, clips: Sequence[Mapping[str, Any]], videos: Sequence[Mapping[str, Any]] = (VIDEO,)
) -> Path:
    """Write both tables; what a row does not say is as in CLIP and VIDEO."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "catalogue.json").write_text("{}")
    write_table(folder / "clips.parquet", [{**CLIP, **clip} for clip in clips], CLIP)
    write_table(folder / "videos.parquet", [{**VIDEO, **video} for video in videos], VIDEO)
    return folder


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], usual: Mapping[str, Any]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    names = list(dict.fromkeys([*usual, *(name for row in rows for name in row)]))
    columns = {name: pa.array([row.get(name) for row in rows]) for name in names}
    for name, column in columns.items():  # a column without any value has a type all the same
        if pa.types.is_null(column.type):
            columns[name] = column.cast(pa.float64() if name == "dup_sim" else pa.string())
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), path)


def random_catalogue(folder: Path, count: int, seed: int, scores: Mapping[str, float]) -> Path:
    """Write `count` clips of five a video; each of `scores` is uniform between 0 and its number."""
    import pyarrow as pa
    from pyarrow import parquet

    rng = np.random.default_rng(seed)
    videos = [hashlib.blake2b(f"{seed} {i}".encode(), digest_size=16).hexdigest()
              for i in range(-(-count // 5))]  # fmt: skip
    sizes = np.array([(1920, 1080), (1280, 720), (640, 360), (720, 1280), (320, 240)])
    width, height = sizes[rng.integers(0, len(sizes), count)].T
    duration = rng.integers(60, 160, count) / 25
    video = np.repeat(pa.array(videos), 5)[:count] if count else np.array([], str)
    start = np.arange(count) % 5 * 7.0
    columns = {
        "clip_id": _digests(count, seed),
        "video_id": video,
        "uri": video,
        "kind": rng.choice(["video", "video", "video", "picture"], count),
        "shot": np.arange(count) % 5,
        "start": start,
        "end": start + duration,
        "start_pts": (start * 25).astype(int),
        "end_pts": ((start + duration) * 25).round().astype(int),
        "width": width,
        "height": height,
        "fps": rng.choice([24.0, 25.0, 30.0, 12.0], count),
        "duration": duration,
        "crop_x": np.zeros(count),
        "crop_y": np.zeros(count),
        "crop_width": np.where(rng.random(count) < 0.2, rng.integers(80, 100, count) / 100, 1.0),
        "crop_height": np.where(rng.random(count) < 0.2, rng.integers(80, 100, count) / 100, 1.0),
        "crop_fault": rng.choice(["", "", "", "", "text_uncroppable"], count),
        "dup_of": pa.array(np.full(count, "another"), mask=rng.random(count) < 0.9),
        "dup_sim": pa.array(rng.random(count)),
        "dup_level": pa.array(np.full(count, "A"), mask=rng.random(count) < 0.9),
        **{
            name: pa.array(rng.random(count) * most, mask=rng.random(count) < 0.01)
            for name, most in scores.items()
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "catalogue.json").write_text("{}")
    parquet.write_table(pa.table(columns), folder / "clips.parquet")
    rows = [{**VIDEO, "video_id": name, "uri": f"{name}.mp4"} for name in videos]
    write_table(folder / "videos.parquet", rows, VIDEO)
    return folder


def _digests(count: int, seed: int) -> np.ndarray[Any, Any]:
    """Ids of 32 hex digits, all different."""
    words = np.random.default_rng(seed + 1).permutation(count).astype(">u8").tobytes()
    text = words.hex()
    return np.array([text[i : i + 16] * 2 for i in range(0, len(text), 16)])
