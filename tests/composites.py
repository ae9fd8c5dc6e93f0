"""Videos with planted boundaries, made of real shots by seed: the truth is exact to the frame."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, TypeAlias

import av
import numpy as np
from PIL import Image

from contentv.base.types import Frame
from footage import Take, frames

BoundaryKind = Literal["cut", "dissolve", "fade", "wipe"]
Planted: TypeAlias = Callable[[Frame, int, int], Frame]

KINDS: tuple[BoundaryKind, ...] = ("cut", "dissolve", "fade", "wipe")
WIPES = ("right", "left", "down", "up")
FPS = 24
_DIFFERENT = 18.0  # mean difference of two pictures, of 255, that everybody sees


@dataclass(frozen=True)
class Boundary:
    """Where one shot becomes another: frames `first`..`last` show both, or black between them.

    `last + 1` is the first frame of the new shot alone; after a cut that is `first`.
    """

    kind: BoundaryKind
    first: int
    last: int


@dataclass(frozen=True)
class Truth:
    """What is in a composite. `shots` are frames [start, stop) of each shot alone."""

    path: Path
    count: int
    fps: int
    boundaries: tuple[Boundary, ...]
    flashes: tuple[int, ...]
    shots: tuple[tuple[int, int], ...]
    takes: tuple[Take, ...]

    def is_clean(self, start: float, end: float) -> bool:
        """Whether a clip of [start, end) seconds shows nothing but frames of one shot."""
        return not self.shown(start, end)

    def shown(self, start: float, end: float) -> list[Boundary]:
        """The boundaries of which a clip of [start, end) seconds shows a frame, or both sides."""
        first, stop = round(start * self.fps), round(end * self.fps)
        return [at for at in self.boundaries if first <= at.last and at.first < stop]


@dataclass(frozen=True)
class Plan:
    """How to make a composite: each boundary's kind is drawn from `kinds`."""

    shots: int = 12
    kinds: tuple[BoundaryKind, ...] = KINDS
    lengths: tuple[int, int] = (96, 160)  # frames of a take that are used, transitions included
    soft: tuple[int, int] = (8, 36)  # frames of a dissolve, fade or wipe
    flashes: int = 0  # shots that have a flash of 1 to 3 bright frames in the middle
    size: tuple[int, int] = (480, 270)
    crf: int = 20


def composite(
    path: Path,
    seed: int,
    pool: Sequence[Take],
    plan: Plan = Plan(),
    planted: Planted | None = None,
) -> Truth:
    """Write a video of shots drawn from `pool`; neighbours differ enough for a viewer to see it.

    `planted` changes each frame at the end, given its number and the number of its shot.
    """
    reel = _Reel(np.random.default_rng([seed, 5]), pool, plan)
    shown = reel.frames()
    if planted:
        change = planted
        shown = (change(frame, number, reel.shot) for number, frame in enumerate(shown))
    count = write(path, shown, fps=FPS, crf=plan.crf)
    starts = [0, *(boundary.last + 1 for boundary in reel.boundaries)]
    stops = [*(boundary.first for boundary in reel.boundaries), count]
    spans = tuple(zip(starts, stops, strict=True))
    boundaries, flashes = tuple(reel.boundaries), tuple(reel.flashes)
    return Truth(path, count, FPS, boundaries, flashes, spans, tuple(reel.takes))


def write(path: Path, pictures: Iterable[Frame], *, fps: int, crf: int = 20) -> int:
    """Encode H.264 fast, with one thread; give the number of frames."""
    count = 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if not count:
                stream.width, stream.height = frame.width, frame.height
            frame.pts, frame.time_base = count, Fraction(1, fps)
            container.mux(stream.encode(frame))
            count += 1
        container.mux(stream.encode(None))
    return count


def played(take: Take, start: int, length: int, size: tuple[int, int] | None) -> list[Frame]:
    """Give `length` frames of a take from `start` on; it is played to and fro where too short."""
    part = Take(take.path, take.start + start, min(take.stop, take.start + start + length))
    once = list(frames(part, size))
    there_and_back = [*once, *once[-2:0:-1]]
    return [there_and_back[number % len(there_and_back)] for number in range(length)]


class _Reel:
    """Plays takes one after the other, and notes where they meet while they are played."""

    def __init__(self, rng: np.random.Generator, pool: Sequence[Take], plan: Plan) -> None:
        self.rng, self.pool, self.plan = rng, pool, plan
        self.boundaries: list[Boundary] = []
        self.flashes: list[int] = []
        self.takes: list[Take] = []
        self.shot = 0
        self._flashing = set(rng.permutation(plan.shots)[: plan.flashes].tolist())

    def frames(self) -> Iterator[Frame]:
        number = 0
        pictures = self._next(None)
        for shot in range(self.plan.shots):
            self.shot = shot
            following = self._next(pictures[-1]) if shot + 1 < self.plan.shots else []
            kind, soft = self._kind()
            soft = soft if following else 0
            alone, tail = _split(pictures, len(pictures) - soft)
            head, pictures = _split(following, soft)
            if shot in self._flashing:
                alone = self._flashed(alone, number)
            yield from alone
            number += len(alone)
            if following:
                self.boundaries.append(Boundary(kind, number, number + soft - 1))
            yield from _mixed(kind, tail, head, str(self.rng.choice(WIPES)))
            number += soft

    def _kind(self) -> tuple[BoundaryKind, int]:
        kind = self.plan.kinds[int(self.rng.integers(len(self.plan.kinds)))]
        return kind, 0 if kind == "cut" else int(self.rng.integers(*self.plan.soft, endpoint=True))

    def _next(self, last: Frame | None) -> list[Frame]:
        while True:
            take = self.pool[int(self.rng.integers(len(self.pool)))]
            length = int(self.rng.integers(*self.plan.lengths, endpoint=True))
            start = int(self.rng.integers(max(1, take.stop - take.start - length + 1)))
            if self.takes and take == self.takes[-1]:
                continue
            pictures = played(take, start, length, self.plan.size)
            if last is None or _difference(last, pictures[0]) >= _DIFFERENT:
                self.takes.append(take)
                return pictures

    def _flashed(self, alone: list[Frame], number: int) -> list[Frame]:
        at, length = len(alone) // 2, int(self.rng.integers(1, 3, endpoint=True))
        self.flashes.append(number + at)
        bright = [_blend(frame, np.full_like(frame, 255), 0.8) for frame in alone[at : at + length]]
        return [*alone[:at], *bright, *alone[at + length :]]


def _split(pictures: list[Frame], at: int) -> tuple[list[Frame], list[Frame]]:
    return pictures[:at], pictures[at:]


def _difference(one: Frame, other: Frame) -> float:
    """Mean difference of two pictures seen from far."""
    small = [_thumb(picture).astype(np.float32) for picture in (one, other)]
    return float(np.abs(small[0] - small[1]).mean())


def _thumb(picture: Frame) -> Frame:
    return np.asarray(Image.fromarray(picture).resize((48, 27), Image.Resampling.BOX))


def _blend(one: Frame, other: Frame, weight: float) -> Frame:
    mixed = one.astype(np.float32) * (1 - weight) + other.astype(np.float32) * weight
    return np.asarray(np.rint(mixed), np.uint8)


def _mixed(kind: BoundaryKind, tail: list[Frame], head: list[Frame], way: str) -> Iterator[Frame]:
    for number, (old, new) in enumerate(zip(tail, head, strict=True), 1):
        weight = number / (len(tail) + 1)
        if kind == "dissolve":
            yield _blend(old, new, weight)
        elif kind == "wipe":
            yield _wiped(old, new, weight, way)
        elif weight <= 0.5:
            yield _blend(old, np.zeros_like(old), 2 * weight)
        else:
            yield _blend(np.zeros_like(new), new, 2 * weight - 1)


def _wiped(old: Frame, new: Frame, weight: float, way: str) -> Frame:
    across = way in ("right", "left")
    side = old.shape[1 if across else 0]
    place = np.arange(side) if way in ("right", "down") else np.arange(side)[::-1]
    shown = place < weight * side
    return np.where(shown[None, :, None] if across else shown[:, None, None], new, old)
