"""`contentv data check`: tells what training will do with a data set before it does it."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from contentv.base.errors import ContentVError, UserError
from contentv.base.files import atomic_path, write_json
from contentv.base.log import get_logger
from contentv.data.batching import batch_sizes, transformer_cost
from contentv.data.buckets import BucketConfig, Buckets, bucket_name, ratio_name
from contentv.data.check import Check, judge
from contentv.data.config import CheckConfig
from contentv.data.entries import Listing
from contentv.data.layouts import read_dataset
from contentv.data.manifest import MANIFEST_NAME, TEST_MARK, Clip, read_manifest, write_manifest
from contentv.data.probing import measure_clips

_CLIPS_FILE, _SUMMARY_FILE = "clips.jsonl", "summary.json"
_NO_USABLE_CLIP = 2

_log = get_logger(__name__)


@dataclass(frozen=True)
class CheckResult:
    """The findings, and the folder that holds them."""

    check: Check
    out: Path
    show: int

    @property
    def exit_code(self) -> int:
        """2 when no clip can be used."""
        return 0 if self.check.used else _NO_USABLE_CLIP

    def __str__(self) -> str:
        check = self.check
        ordered = sorted(check.verdicts, key=lambda verdict: verdict.fit is not None)
        lines = [str(verdict) for verdict in ordered[: self.show]]
        if (hidden := len(ordered) - self.show) > 0:
            lines.append(f"... and {hidden} more in {self.out / _CLIPS_FILE}")
        lines += ["", f"{len(check.used)} of {len(check.verdicts)} clips are used"]
        lines += [f"  dropped, {reason}: {count}" for reason, count in check.dropped.items()]
        if check.used:
            lines += ["", *_table(check)]
        lines += [f"warning: {warning}" for warning in check.warnings]
        lines.append(f"{self.out}: {_CLIPS_FILE}, {_SUMMARY_FILE}, {MANIFEST_NAME}")
        return "\n".join(lines)


def run(config: CheckConfig) -> CheckResult:
    """Read a data set's layout, measure its clips and judge each; write rows, summary, manifest."""
    out = config.out or Path(f"{config.path.resolve().stem}_check")
    listing = load_dataset(
        config.path, config.root, cache=out, workers=config.workers, test_captions=True
    )
    buckets = Buckets(config)
    cost = transformer_cost(config.width)
    sizes = batch_sizes(
        buckets.shapes,
        cost,
        budget=config.batch_size * max(map(cost, buckets.shapes)),
        most=lambda _: config.max_batch_size,
    )
    check = Check(listing, [judge(clip, buckets) for clip in listing.clips], sizes)
    _write(out, check, config)
    return CheckResult(check, out, config.show)


def load_dataset(
    path: Path, root: Path | None, *, cache: Path, workers: int, test_captions: bool = False
) -> Listing:
    """List a data set's clips with their sizes; what is measured is kept as `cache`/manifest.

    The next call measures only files that are new or have changed. UserError for captions of models
    that are only for tests, unless `test_captions`.
    """
    listing = read_dataset(path, root)
    if not test_captions:
        _refuse_test_captions(path, listing)
    store = cache / MANIFEST_NAME

    def save(clips: list[Clip]) -> None:
        write_manifest(store, clips)

    clips = measure_clips(
        listing.root,
        listing.clips,
        known=_remembered(store),
        workers=workers or os.cpu_count() or 1,
        save=save,
    )
    save(clips)
    return replace(listing, clips=clips)


def _refuse_test_captions(path: Path, listing: Listing) -> None:
    meaningless = [clip for clip in listing.clips if clip.captioner.startswith(TEST_MARK)]
    if meaningless:
        count, by = len(meaningless), meaningless[0].captioner
        way = "caption them with another model, or give --test-captions"
        raise UserError(f"{path}: {count} clips have captions by {by}, which mean nothing; {way}")


def _remembered(store: Path) -> list[Clip]:
    if not store.is_file():
        return []
    try:
        return read_manifest(store)
    except ContentVError as error:
        _log.warning("%s; measuring all clips again", error)
        return []


def _write(out: Path, check: Check, buckets: BucketConfig) -> None:
    with atomic_path(out / _CLIPS_FILE) as part, part.open("w", encoding="utf-8") as file:
        for verdict in check.verdicts:
            # Names of files need not be text: what is not is written as \udcXX.
            file.write(json.dumps(verdict.row()) + "\n")
    settings = {name: getattr(buckets, name) for name in BucketConfig.model_fields}
    write_json(out / _SUMMARY_FILE, {**check.summary(), "settings": settings})


def _table(check: Check) -> list[str]:
    lines = [f"{'bucket':>15} {'ratio':>5} {'clips':>8} {'batch':>6} {'batches':>8}"]
    for shape, count in check.clips_of.items():
        numbers = f"{count:>8} {check.sizes[shape]:>6} {check.batches_of(shape):>8}"
        lines.append(f"{bucket_name(shape):>15} {ratio_name(shape):>5} {numbers}")
    return lines
