"""Shots: are the planted boundaries found, is nothing else, and are the clips free of them?"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from curation_table.workshop import Line, Look, Workshop, at_least, at_most, look, share

from composites import KINDS, Boundary, Plan, Truth, composite
from contentv.curation.cutting.division import divide
from contentv.curation.cutting.shots import Shot, ShotFinder
from contentv.curation.settings import ShotSettings

_CUTS = Plan(shots=24, kinds=("cut",), lengths=(40, 100), flashes=2)
_SOFT = Plan(shots=12, kinds=("dissolve", "fade", "wipe"), flashes=3)
_MIXED = Plan(shots=12, kinds=KINDS, flashes=3)
_NEAR = 1  # frames by which a cut may be off


@dataclass
class Tally:
    """What was counted over all videos."""

    planted: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    dirty: Counter[str] = field(default_factory=Counter)
    said: int = 0
    cuts_said: int = 0
    cuts_right: int = 0
    false: int = 0
    flashes: int = 0
    flashes_cut: int = 0
    minutes: float = 0.0
    clips: int = 0
    dirty_clips: int = 0


def boundaries(shop: Workshop) -> Iterator[Line]:
    """Cuts to the frame, soft transitions, flashes, and what clips show of them."""
    tally, finder = Tally(), ShotFinder(ShotSettings())
    seed = shop.seed
    for plan, full in ((_CUTS, 12), (_SOFT, 10), (_MIXED, 6)):
        for _ in range(shop.count(full)):
            seed += 1
            truth = composite(shop.place(f"shots-{seed}.mp4"), seed, shop.pool, plan)
            _count(tally, truth, look(truth.path, [], finder))
            truth.path.unlink()
    yield from _lines(tally)


def _lines(tally: Tally) -> Iterator[Line]:
    cuts = tally.planted["cut"]
    yield at_least("hard cuts: recall, +-1 frame", share(tally.found["cut"], cuts), 0.995, cuts)
    right = share(tally.cuts_right, tally.cuts_said)
    yield at_least("hard cuts: precision", right, 0.99, tally.cuts_said)
    soft = [kind for kind in KINDS if kind != "cut"]
    planted, found = (sum(count[kind] for kind in soft) for count in (tally.planted, tally.found))
    each = ", ".join(f"{kind} {tally.found[kind]}/{tally.planted[kind]}" for kind in soft)
    yield at_least("dissolves, fades, wipes: recall", share(found, planted), 0.97, planted, each)
    false = 10 * tally.false / tally.minutes
    note = f"{tally.false} in {tally.minutes:.1f} minutes"
    yield at_most("false boundaries in 10 minutes", false, 1, tally.said, note)
    yield at_most("flashes cut", tally.flashes_cut, 0, tally.flashes)
    note = ", ".join(f"{kind} {count}" for kind, count in sorted(tally.dirty.items()))
    yield at_most("clips with a transition frame", tally.dirty_clips, 0, tally.clips, note)


def _count(tally: Tally, truth: Truth, seen: Look) -> None:
    assert seen.shots
    shots = seen.shots.shots()
    said = [_frames(first, second, truth.fps) for first, second in pairwise(shots)]
    for boundary in truth.boundaries:
        tally.planted[boundary.kind] += 1
        tally.found[boundary.kind] += any(_agrees(place, boundary) for place in said)
    tally.said += len(said)
    for shot, place in zip(shots[:-1], said, strict=True):
        right = any(_agrees(place, boundary) for boundary in truth.boundaries)
        tally.false += not right
        if shot.end_kind == "cut":
            tally.cuts_said += 1
            tally.cuts_right += right
    for flash in truth.flashes:
        tally.flashes += 1
        tally.flashes_cut += any(first - 2 <= flash <= last + 2 for first, last in said)
    tally.minutes += truth.count / truth.fps / 60
    for span in divide(shots, seen.footage, seen.samples, ShotSettings()):
        if span.kind == "video":
            tally.clips += 1
            shown = truth.shown(span.start, span.end)
            tally.dirty_clips += bool(shown)
            tally.dirty.update(boundary.kind for boundary in shown)


def _frames(before: Shot, after: Shot, fps: int) -> tuple[int, int]:
    """First and last frame of what lies between two shots; after a cut the last is before."""
    return round(before.end * fps), round(after.start * fps) - 1


def _agrees(said: tuple[int, int], planted: Boundary) -> bool:
    """Whether a boundary is the planted one: a cut to a frame, another if both have a frame."""
    first, last = said
    if planted.kind == "cut":
        return planted.first - _NEAR <= first <= last + 1 <= planted.first + _NEAR
    return first <= planted.last + _NEAR and last + 1 >= planted.first - _NEAR
