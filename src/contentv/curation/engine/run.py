"""`contentv curate run` and `contentv curate retry`."""

import hashlib
import os
from collections.abc import Collection
from functools import partial

from contentv.base.config import load_yaml, save_yaml
from contentv.base.errors import UserError
from contentv.curation.catalogue import VIDEOS, read_columns
from contentv.curation.config import CurationSettings, Record, RetryConfig, RunConfig
from contentv.curation.engine.gathering import Judging
from contentv.curation.engine.pool import visit_in_processes
from contentv.curation.engine.ray import visit_with_ray
from contentv.curation.engine.scan import path_of, scan, uri_of
from contentv.curation.engine.steps import chain_of
from contentv.curation.engine.visit import Job
from contentv.curation.engine.working import Engine, Summary, alone, work
from contentv.curation.scoring.embedding import embedding_name
from contentv.curation.teaching.heads import apply_head, load_clip_head

RECORD = "run.yaml"
_FILES = "files.parquet"


def run(config: RunConfig) -> Summary:
    """Bring a catalogue up to date with its sources; gives the counts of all that is in it."""
    settings = load_yaml(CurationSettings, config.settings) if config.settings else None
    sources = tuple(uri_of(source) for source in config.sources)
    record = Record(sources=sources, settings=settings or CurationSettings())
    with alone(config.out):
        save_yaml(record, config.out / RECORD)
        return _work(record, config)


def retry(config: RetryConfig) -> Summary:
    """Visit those again that failed for one reason; gives the counts of all in the catalogue."""
    if not (config.out / RECORD).is_file():
        raise UserError(f"{config.out}: has no {RECORD}; begin with contentv curate run")
    record = load_yaml(Record, config.out / RECORD)
    with alone(config.out):
        videos = read_columns(config.out, VIDEOS, ["video_id", "status", "error_class"])
        rows = zip(*videos.values(), strict=True)
        failed = ("failed", config.error_class)
        again = {name for name, *why in rows if tuple(why) == failed}
        return _work(record, config, again)


def _work(record: Record, config: RunConfig | RetryConfig, again: Collection[str] = ()) -> Summary:
    settings, workers = record.settings, config.workers or os.cpu_count() or 1
    found = scan(list(map(path_of, record.sources)), config.out / _FILES, workers=workers)
    job = Job(config.out.absolute(), chain_of(settings), settings.limits)
    return work(found, job, _engine(config, workers), _judging(settings), again)


def _judging(settings: CurationSettings) -> Judging:
    path = settings.aesthetic.video_head
    if path is None:
        return Judging(settings.dedup)
    head, vectors = load_clip_head(path), embedding_name(settings.embedding)
    digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    return Judging(settings.dedup, partial(apply_head, head, embedding=vectors), digest)


def _engine(config: RunConfig | RetryConfig, workers: int) -> Engine:
    if config.engine == "ray":
        return partial(visit_with_ray, workers=workers, address=config.ray_address)
    return partial(visit_in_processes, workers=workers)
