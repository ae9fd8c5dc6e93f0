"""A person's data set as the plan of a training stage."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from contentv.base.errors import UserError
from contentv.base.log import get_logger
from contentv.data.batching import Cost, batch_sizes, tokens
from contentv.data.buckets import Bucket, Buckets, Fit
from contentv.data.check import Check, Verdict, judge
from contentv.data.entries import Listing
from contentv.data.manifest import Clip, manifest_hash
from contentv.data.plan import MixPhase, Plan
from contentv.data.shelves import shelve

Sizes: TypeAlias = Callable[[Sequence[Bucket]], Mapping[Bucket, int]]
"""The batch of each bucket that has clips, given smallest first."""

Mix: TypeAlias = Callable[[Sequence[Fit]], tuple[MixPhase, ...]]
"""When pictures and when videos are seen, given the clips that are used."""

_log = get_logger(__name__)

# A stage ends when its own steps are made; a plan without an end lets it be made longer.
_ENDLESS = 1_000_000_000


@dataclass(frozen=True)
class PlannedData:
    """The clips, the buckets they are shown in, and who comes when."""

    listing: Listing
    buckets: Buckets
    plan: Plan


def plan_data(
    listing: Listing,
    buckets: Buckets,
    cost: Cost,
    *,
    seed: int,
    stage: str,
    sizes: Sizes,
    mix: Mix,
    batches_per_step: int,
) -> PlannedData:
    """Plan a stage; what becomes of the clips is logged.

    UserError when none can be used, or when the mix wants pictures or videos and there are none.
    """
    verdicts = [judge(clip, buckets) for clip in listing.clips]
    fits = [verdict.fit for verdict in verdicts if verdict.fit]
    if not fits:
        raise UserError(_nothing_usable(listing, verdicts))
    batch = sizes(sorted({fit.bucket for fit in fits}, key=tokens))
    _say(Check(listing, verdicts, batch))
    plan = Plan(
        seed,
        stage,
        shelve(listing.clips, buckets, batch, cost),
        phases=mix(fits),
        batches_per_step=batches_per_step,
        content=clips_hash(listing.clips),
    )
    return PlannedData(listing, buckets, plan)


def sizes_at_most(cost: Cost, batch_size: int) -> Sizes:
    """`batch_size` clips of the largest bucket; other batches have no more cost or tokens.

    For one process or a few: they hardly wait for each other, so costs need not be equal as
    `batch_sizes` makes them.
    """

    def sizes(shapes: Sequence[Bucket]) -> Mapping[Bucket, int]:
        budget, room = (batch_size * max(map(unit, shapes)) for unit in (cost, tokens))
        return {
            shape: min(int(budget / cost(shape) * (1 + 1e-12)), int(room) // tokens(shape))
            for shape in shapes
        }

    return sizes


def sizes_alike(
    cost: Cost, length: Callable[[Bucket], int], *, batch_size: int, room: float
) -> Sizes:
    """Batches that cost alike, so that no process waits for another: see `batch_sizes`.

    Like `batch_size` clips of the largest bucket. None has more than `room` times the tokens of
    these, text included, as `length` counts them: that is what memory holds.
    """

    def sizes(shapes: Sequence[Bucket]) -> Mapping[Bucket, int]:
        most = int(room * batch_size * max(map(length, shapes)))
        budget = batch_size * max(map(cost, shapes))
        return batch_sizes(shapes, cost, budget=budget, most=lambda shape: most // length(shape))

    return sizes


def as_they_come(fits: Sequence[Fit]) -> tuple[MixPhase, ...]:
    """Pictures and videos as often as there are of each."""
    pictures = sum(fit.bucket.frames == 1 for fit in fits)
    # Proportions have a limit that a large data set exceeds; their quotient is what counts.
    scale = max(1, len(fits) // 1_000_000 + 1)
    videos = len(fits) - pictures
    return (MixPhase(steps=_ENDLESS, pictures=-(-pictures // scale), videos=-(-videos // scale)),)


def joint(*, video_first: int, pictures: int, videos: int) -> Mix:
    """Videos alone for `video_first` steps, then both in these proportions of clips."""
    first = (MixPhase(steps=video_first),) if video_first else ()
    phases = (*first, MixPhase(steps=_ENDLESS, pictures=pictures, videos=videos))
    return lambda _: phases


def clips_hash(clips: Sequence[Clip]) -> str:
    """Identity of a data set, shared by a copy in another folder with other times of change."""
    return manifest_hash([replace(clip, stamp="", source="") for clip in clips])


def _say(check: Check) -> None:
    _log.info("%d of %d clips are used", len(check.used), len(check.verdicts))
    for verdict in (v for v in check.verdicts if not v.fit):
        _log.debug("%s", verdict)
    for reason, number in check.dropped.items():
        _log.info("dropped, %s: %d", reason, number)
    for warning in check.warnings:
        _log.warning("%s", warning)


def _nothing_usable(listing: Listing, verdicts: Sequence[Verdict]) -> str:
    reasons = Check(listing, verdicts, {}).dropped
    counted = ", ".join(f"{reason}: {number}" for reason, number in reasons.items())
    return (
        f"{listing.root}: none of its {len(verdicts)} clips can be used ({counted}), such as "
        f"{verdicts[0].clip.id}: {verdicts[0].detail}; `contentv data check` tells of each"
    )
