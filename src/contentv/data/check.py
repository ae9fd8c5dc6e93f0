"""What training will do with every clip of a data set, and what is odd about the whole."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from contentv.data.buckets import Bucket, Buckets, Fit, bucket_name, ratio_name
from contentv.data.entries import Listing
from contentv.data.manifest import Clip

_OFTEN = 0.1  # share of clips from which on something is worth a warning
_RARE = 0.01
_DEEP_CROP = 0.2


@dataclass(frozen=True, slots=True)
class Verdict:
    """A clip and how it fits, or the reason it is dropped: one word to count by, one sentence."""

    clip: Clip
    fit: Fit | None
    reason: str = ""
    detail: str = ""

    def row(self) -> dict[str, object]:
        """As one line of JSON; sizes are height x width, `cropped` is a share of the picture."""
        clip, fit = self.clip, self.fit
        head = {"id": clip.id, "path": clip.path, "kind": clip.kind, "used": fit is not None}
        if fit is None:
            return {**head, "reason": self.reason, "detail": self.detail}
        return {
            **head,
            "bucket": bucket_name(fit.bucket),
            "ratio": ratio_name(fit.bucket),
            "size": f"{clip.height}x{clip.width}",
            "resized": f"{fit.height}x{fit.width}",
            "cropped": round(fit.cropped, 4),
            "frames": clip.frames,
            "fps": round(clip.fps, 3),
            "frames_at_training_fps": fit.frames,
            "frames_used": fit.bucket.frames,
            "truncated": fit.frames - fit.bucket.frames,
        }

    def __str__(self) -> str:
        if self.fit is None:
            return f"{self.clip.id}: dropped, {self.reason}: {self.detail}"
        fit = self.fit
        crop = f", {fit.cropped:.0%} cropped" if fit.cropped >= 0.005 else ""
        length = f", {fit.bucket.frames} of {fit.frames} frames" if fit.bucket.frames > 1 else ""
        return f"{self.clip.id}: {bucket_name(fit.bucket)}{crop}{length}"


def judge(clip: Clip, buckets: Buckets) -> Verdict:
    """Say what training does with a clip."""
    if clip.fault:
        return Verdict(clip, None, "faulty", clip.fault)
    if clip.obstacle:
        return Verdict(clip, None, "no_caption", clip.obstacle)
    fit = buckets.fit(clip.size)
    if isinstance(fit, Fit):
        return Verdict(clip, fit)
    return Verdict(clip, None, fit.reason, fit.detail)


@dataclass(frozen=True)
class Check:
    """The verdicts on a data set; `sizes` are the batch sizes it will be trained with."""

    listing: Listing
    verdicts: Sequence[Verdict]
    sizes: Mapping[Bucket, int]

    @cached_property
    def used(self) -> list[Verdict]:
        """Those of clips that are trained on."""
        return [verdict for verdict in self.verdicts if verdict.fit]

    @cached_property
    def dropped(self) -> Counter[str]:
        """Number of clips for each reason to drop them, the commonest first."""
        reasons = Counter(verdict.reason for verdict in self.verdicts if not verdict.fit)
        return Counter(dict(reasons.most_common()))

    @cached_property
    def clips_of(self) -> dict[Bucket, int]:
        """Number of clips of each bucket that has any, in the order of `sizes`."""
        counts = Counter(verdict.fit.bucket for verdict in self.verdicts if verdict.fit)
        return {shape: counts[shape] for shape in self.sizes if shape in counts}

    def batches_of(self, bucket: Bucket) -> int:
        """Micro-batches of an epoch."""
        return -(-self.clips_of[bucket] // self.sizes[bucket])

    def summary(self) -> dict[str, object]:
        """Totals, for a program."""
        return {
            "layout": self.listing.layout,
            "root": str(self.listing.root),
            "clips": len(self.verdicts),
            "used": len(self.used),
            "dropped": dict(self.dropped),
            "buckets": {
                bucket_name(shape): {
                    "ratio": ratio_name(shape),
                    "clips": count,
                    "batch": self.sizes[shape],
                    "batches": self.batches_of(shape),
                }
                for shape, count in self.clips_of.items()
            },
            "batches_per_epoch": sum(map(self.batches_of, self.clips_of)),
            "warnings": self.warnings,
        }

    @cached_property
    def warnings(self) -> list[str]:
        """What a person should know before training."""
        if not self.used:
            return ["no clip can be used; nothing can be trained"]
        return [*self.listing.notes, *self._losses(), *self._shapes(), *self._captions()]

    def _losses(self) -> Iterator[str]:
        total = len(self.verdicts)
        for reason, count in self.dropped.items():
            if count >= _OFTEN * total:
                example = next(v.detail for v in self.verdicts if v.reason == reason)
                yield f"{count} of {total} clips are dropped, {reason}: {example}"
        fits = [verdict.fit for verdict in self.used if verdict.fit]
        deep = sum(fit.cropped > _DEEP_CROP for fit in fits)
        if deep >= _OFTEN * total:
            yield f"{deep} clips lose more than {_DEEP_CROP:.0%} of the picture to their bucket"
        seen = sum(fit.bucket.frames for fit in fits)
        if seen < sum(fit.frames for fit in fits) / 2:
            share = 1 - seen / sum(fit.frames for fit in fits)
            yield (
                f"{share:.0%} of all frames lie past their bucket's length: one part of each clip "
                "is seen at a time; cut long videos into clips with a caption each"
            )

    def _shapes(self) -> Iterator[str]:
        for shape, count in self.clips_of.items():
            name, batch = bucket_name(shape), self.sizes[shape]
            if count < batch:
                yield f"{name} has {count} clips and a batch of {batch}: it never fills a batch"
            elif count < _RARE * len(self.used):
                yield f"{name} has {count} of {len(self.used)} clips: it is seldom seen"
        counts = list(self.clips_of.values())
        if len(counts) > 1 and max(counts) > 20 * median(counts):
            most = max(self.clips_of, key=lambda shape: self.clips_of[shape])
            yield f"{bucket_name(most)} has more than 20 times the clips of half of the buckets"

    def _captions(self) -> Iterator[str]:
        texts = Counter(verdict.clip.short or verdict.clip.long for verdict in self.used)
        text, count = texts.most_common(1)[0]
        if count > 1 and count >= _OFTEN * len(self.used):
            yield f"{count} of {len(self.used)} clips have the same caption: {text[:60]!r}"
