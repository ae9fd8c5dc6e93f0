"""Decodes a video once and shows it to the shot finder and to the steps that have not seen it."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from contentv.curation.engine.chain import Chain, ShotWatching, Stage, span_of
from contentv.curation.settings import LimitSettings
from contentv.curation.step import WHOLE, Box, Footage, Row, Span, Stream, Watcher
from contentv.curation.tables import rows_of, table_of
from contentv.data.manifest import Kind
from contentv.video.sandbox import Item, arrays_from_child

_SHOWN = "contentv.video.watching:watch"
_BYTES_A_PIXEL = 3

Held = Mapping[str, list[Row]]
"""Rows by step key; those of keys after the crop are not looked at and may be left out."""


@dataclass(frozen=True)
class Opened:
    """The stages of a chain with their models, as `Stage.open` and `ShotStage.open` gave them."""

    shots: Callable[[Footage], ShotWatching]
    step: Callable[[Stage, Footage], Watcher]


@dataclass(frozen=True)
class Subject:
    """What is looked at, and how."""

    video_id: str
    kind: Kind
    path: Path
    limits: LimitSettings
    tolerant: bool


def look(subject: Subject, chain: Chain, opened: Opened, held: Held) -> dict[str, list[Row]]:
    """Give the rows of every key of the chain that is not held. Decodes only if a step must watch.

    MediaError when the file cannot be shown to its end.
    """
    missing = chain.columns.keys() - held.keys()
    if missing <= {chain.crop.key}:
        return _scored(chain, _Seen(footage_of(subject, held[chain.video_key][0])), held)
    with contextlib.closing(_shown(subject)) as items:
        seen = _watched(items, subject, chain, opened, missing)
    return {chain.video_key: [seen.row], **_scored(chain, seen, held)}


def footage_of(subject: Subject, row: Row) -> Footage:
    """Say of a file what steps need to know, from its row."""
    width, height, pts, fps = row["width"], row["height"], row["first_pts"], row["fps"]
    assert isinstance(width, int)
    assert isinstance(height, int)
    assert isinstance(pts, int)
    assert isinstance(fps, float)
    base = Fraction(str(row["time_base"]))
    return Footage(subject.video_id, subject.path, subject.kind, width, height, fps, base, pts)


class _Seen:
    """What was collected of a video while it was shown."""

    def __init__(self, footage: Footage) -> None:
        self.footage = footage
        self.row: Row = {}
        self.shots: ShotWatching | None = None
        self.watchers: dict[str, Watcher] = {}
        self.samples: list[tuple[float, int]] = []


def _shown(subject: Subject) -> Generator[Item, None, None]:
    limits = subject.limits
    arguments = {
        "path": str(subject.path),
        "kind": subject.kind,
        "max_pixels": limits.max_pixels,
        "tolerant": subject.tolerant,
    }
    yield from arrays_from_child(
        _SHOWN,
        arguments,
        seconds=limits.seconds,
        memory=round(limits.memory_gib * 2**30),
        max_bytes=_BYTES_A_PIXEL * limits.max_pixels,
    )


def _watched(
    items: Iterator[Item], subject: Subject, chain: Chain, opened: Opened, missing: set[str]
) -> _Seen:
    facts = _facts(_values(next(items), "facts"))
    seen = _Seen(footage_of(subject, facts))
    if chain.shots.key in missing:
        seen.shots = opened.shots(seen.footage)
    viewers: defaultdict[Stream, list[Watcher]] = defaultdict(list)
    for stage in (*chain.before, *chain.after):
        if stage.key in missing:
            seen.watchers[stage.key] = opened.step(stage, seen.footage)
            viewers[stage.stream].append(seen.watchers[stage.key])
    summary: dict[str, Any] = {}
    for item in items:
        if isinstance(item, dict):
            summary = _values(item, "summary")
            continue
        picture, note = item
        time, pts = float(note["time"]), int(note["pts"])
        if note["stream"] == "samples":
            seen.samples.append((time, pts))
        if note["stream"] == "thumbs" and seen.shots:
            seen.shots.see(time, pts, picture)
        for watcher in viewers[note["stream"]]:
            watcher.see(time, picture)
    seen.row = {"kind": subject.kind, **facts, **_summed_up(summary)}
    return seen


def _scored(chain: Chain, seen: _Seen, held: Held) -> dict[str, list[Row]]:
    """Rows of the keys that are not held, each from those before it."""
    found: dict[str, list[Row]] = {}

    def rows(key: str, make: Callable[[], list[Row]]) -> list[Row]:
        if key in held:
            return held[key]
        # As they will be read again: a later run must find nothing else than this one does.
        found[key] = rows_of(table_of(make(), chain.columns[key]))
        return found[key]

    def divided() -> list[Row]:
        assert seen.shots, "spans are held, or the shots were watched"
        return seen.shots.spans(seen.samples)

    spans = [span_of(row) for row in rows(chain.shots.key, divided)]

    def scores(stage: Stage, boxes: Sequence[Box]) -> list[Row]:
        return _named(spans, seen.watchers[stage.key].score(spans, boxes))

    whole = [WHOLE] * len(spans)
    early: dict[str, list[Row]] = {}
    for stage in chain.before:
        early[stage.name] = rows(stage.key, partial(scores, stage, whole))
    cropped = partial(chain.crop.crops, seen.footage, spans, early)
    crops = rows(chain.crop.key, lambda: _named(spans, cropped()))
    boxes = [chain.crop.box(row) for row in crops]
    for stage in chain.after:
        if stage.key in seen.watchers:
            rows(stage.key, partial(scores, stage, boxes))
    return found


def _named(spans: Sequence[Span], rows: Sequence[Row]) -> list[Row]:
    return [{"clip_id": span.clip_id, **row} for span, row in zip(spans, rows, strict=True)]


def _values(item: Item, name: str) -> dict[str, Any]:
    assert isinstance(item, dict)
    return dict(item[name])


def _facts(facts: Mapping[str, Any]) -> Row:
    """What the child said of the file, as what it must be: the child has read strangers' bytes."""
    return {
        **{name: str(facts[name]) for name in ("container", "codec", "time_base")},
        **{name: int(facts[name]) for name in ("width", "height", "rotation", "bit_depth")},
        **{name: float(facts[name]) for name in ("fps", "sar")},
        **{name: bool(facts[name]) for name in ("interlaced", "hdr")},
        "first_pts": int(facts["first_pts"]),
    }


def _summed_up(summary: Mapping[str, Any]) -> Row:
    errors = int(summary["errors"])
    return {
        "vfr": bool(summary["vfr"]),
        "duration": float(summary["duration"]),
        "frames": int(summary["frames"]),
        "decode_errors": errors,
        "status": "partial" if errors else "ok",
        "error_class": "corrupt" if errors else "",
        "error": f"{errors} frames or packets could not be decoded" if errors else "",
    }
