"""Encodes a data set into a store: what is not there yet, and nothing twice."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from contentv.base.errors import UserError
from contentv.base.files import atomic_path, remove
from contentv.base.progress import progress
from contentv.data.buckets import Buckets
from contentv.data.check import Verdict, judge
from contentv.data.entries import Listing
from contentv.encoding.identity import StoreIdentity, TextIdentity
from contentv.encoding.store import CAPTIONS, CLIPS, ShardFolder, text_key
from contentv.encoding.views import View, list_views, share_out

if TYPE_CHECKING:
    from contentv.encoding.encoder import FeatureEncoder
    from contentv.encoding.workers import OpenEncoder

FAILURES_NAME = "failures.jsonl"


@dataclass(frozen=True)
class Encoders:
    """What opens the encoders of clips and of captions, if they are needed."""

    clips: "OpenEncoder"
    captions: "Callable[[], FeatureEncoder]"


@dataclass(frozen=True)
class EncodeResult:
    """What a store holds now of a data set, and what was done for it.

    `decoded` counts the views whose file was opened, `failed` those that the store has no latents
    of, in this run or before.
    """

    store: Path
    clips: int
    dropped: Counter[str]
    views: int
    decoded: int
    failed: int
    captions: int
    embedded: int

    def __str__(self) -> str:
        lines = [f"{self.clips} clips, {self.views} views: {self.decoded} encoded now"]
        lines += [f"  dropped, {reason}: {count}" for reason, count in self.dropped.items()]
        if self.failed:
            lines.append(f"  cannot be read: {self.failed}, see {self.store / FAILURES_NAME}")
        lines.append(f"{self.captions} captions: {self.embedded} encoded now")
        return "\n".join([*lines, f"{self.store}"])


def encode_dataset(
    store: Path,
    listing: Listing,
    identity: StoreIdentity,
    encoders: Encoders,
    *,
    workers: int,
    retry: bool,
) -> EncodeResult:
    """Bring a store up to date with a data set.

    A clip that cannot be read becomes a row of the store and of `failures.jsonl`; with `retry` such
    clips of earlier runs are tried again. UserError when no clip can be used.
    """
    buckets = Buckets(identity.clips.buckets)
    verdicts = [judge(clip, buckets) for clip in listing.clips]
    usable = [(verdict.clip, verdict.fit) for verdict in verdicts if verdict.fit]
    if not usable:
        raise UserError(_nothing_usable(listing, verdicts))
    views = list_views(usable, identity.clips.windows, identity.clips.encoder)
    texts = _texts(verdicts) if identity.text else []
    shards = ShardFolder(store / CLIPS)
    wanted = shards.missing((view.key for view in views), retry=retry)
    jobs = list(share_out(view for view in views if view.key in wanted))
    decoded = 0
    with progress(len(wanted), "encoding clips") as line:
        for _ in _encode_clips(shards.folder, listing.root, jobs, encoders, workers):
            decoded += 1
            line.advance()
    shards.refresh()
    failed = [place for view in views if (place := shards.places[view.key]).fault]
    _write_failures(store / FAILURES_NAME, {place.name: place.fault for place in failed})
    return EncodeResult(
        store=store,
        clips=len(usable),
        dropped=Counter(verdict.reason for verdict in verdicts if not verdict.fit),
        views=len(views),
        decoded=decoded,
        failed=len(failed),
        captions=len(texts),
        embedded=_embed_captions(store / CAPTIONS, texts, identity.text, encoders),
    )


def _encode_clips(
    folder: Path, root: Path, jobs: Sequence[Sequence[View]], encoders: Encoders, workers: int
) -> Iterator[bool]:
    if not jobs:
        return
    # Only here: nothing to do is found out without seconds of imports.
    from contentv.encoding.workers import encode_in_processes, encode_views

    if workers == 1:
        yield from encode_views(encoders.clips(0), root, folder, jobs)
    else:
        yield from encode_in_processes(encoders.clips, root, folder, jobs, workers)


def _texts(verdicts: Sequence[Verdict]) -> list[str]:
    """Every caption of a usable clip once, and the empty one, which a dropped caption is."""
    clips = [verdict.clip for verdict in verdicts if verdict.fit]
    return list(dict.fromkeys(["", *(text for clip in clips for text in (clip.short, clip.long))]))


def _embed_captions(
    folder: Path, texts: Sequence[str], identity: TextIdentity | None, encoders: Encoders
) -> int:
    shards = ShardFolder(folder)
    wanted = shards.missing(text_key(text) for text in texts)
    todo = [text for text in texts if text_key(text) in wanted]
    if todo and identity is not None:
        from contentv.encoding.texts import encode_texts

        encoder = encoders.captions()
        with progress(len(todo), "encoding captions") as line:
            for _ in encode_texts(encoder, folder, todo, identity.lengths):
                line.advance()
    if texts:
        shards.refresh()
    return len(todo)


def _write_failures(path: Path, reasons: dict[str, str]) -> None:
    if not reasons:
        remove(path)
        return
    with atomic_path(path) as part, part.open("w", encoding="utf-8") as file:
        for clip, reason in sorted(reasons.items()):
            # Names of files need not be text: what is not is written as \udcXX.
            file.write(json.dumps({"clip": clip, "reason": reason}) + "\n")


def _nothing_usable(listing: Listing, verdicts: Sequence[Verdict]) -> str:
    first = next(iter(verdicts), None)
    example = f", such as {first.clip.id}: {first.detail}" if first else ""
    return (
        f"{listing.root}: none of its {len(verdicts)} clips can be used{example}; "
        "`contentv data check` tells of each"
    )
