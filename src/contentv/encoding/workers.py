"""Encodes views into shards, here or in several processes."""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TypeAlias

import torch

from contentv.base.errors import ContentVError, WorldError
from contentv.data.buckets import bucket_name
from contentv.data.media import read_clips
from contentv.encoding.ahead import ahead
from contentv.encoding.clips import middle
from contentv.encoding.encoder import FeatureEncoder
from contentv.encoding.store import Row, write_shard
from contentv.encoding.views import View
from contentv.models.vae import Posterior

OpenEncoder: TypeAlias = Callable[[int], FeatureEncoder]
"""Gives the encoder of clips to worker 0, 1, ...; can be sent to another process."""

_DECODED_AHEAD = 3


def encode_views(
    encoder: FeatureEncoder, root: Path, folder: Path, jobs: Sequence[Sequence[View]]
) -> Iterator[bool]:
    """Make a shard of each job; says of each view, as it is done, whether it could be read."""
    shown = [(view.clip, view.fit, middle(view.start)) for views in jobs for view in views]
    with contextlib.closing(ahead(read_clips(root, shown), depth=_DECODED_AHEAD)) as decoded:
        for views in jobs:
            rows: list[Row] = []
            posteriors: list[Posterior] = []
            for view in views:
                found = next(decoded)
                fault = str(found) if isinstance(found, ContentVError) else ""
                if not isinstance(found, ContentVError):
                    posteriors.append(encoder.clip(found))
                rows.append(Row(view.key, view.clip.id, bucket_name(view.fit.bucket), fault))
                yield not fault
            write_shard(folder, rows, _stack(posteriors))


def encode_in_processes(
    open_encoder: OpenEncoder,
    root: Path,
    folder: Path,
    jobs: Sequence[Sequence[View]],
    workers: int,
) -> Iterator[bool]:
    """As `encode_views`, in so many processes of one thread each; the shards are the same.

    WorldError when one of them fails.
    """
    context = multiprocessing.get_context("spawn")
    processes: dict[Connection, SpawnProcess] = {}
    try:
        for number in range(min(workers, len(jobs))):
            receiver, sender = context.Pipe(duplex=False)
            own = jobs[number::workers]
            given = {"open_encoder": open_encoder, "root": root, "folder": folder, "jobs": own}
            process = context.Process(
                target=_work, args=(sender, number), kwargs=given, daemon=True
            )
            process.start()
            sender.close()
            processes[receiver] = process
        yield from _listen(processes)
    finally:
        for process in processes.values():
            process.terminate()
            process.join()


def _listen(processes: dict[Connection, SpawnProcess]) -> Iterator[bool]:
    busy = dict(processes)
    while busy:
        for ready in wait(list(busy)):
            assert isinstance(ready, Connection)
            try:
                message = ready.recv()
            except EOFError:
                process = busy.pop(ready)
                process.join()
                if process.exitcode:
                    way = "what it finished is kept; run the command again"
                    raise WorldError(
                        f"a worker ended with exit code {process.exitcode}; {way}"
                    ) from None
                continue
            if isinstance(message, str):
                raise WorldError(message)
            yield message


def _work(
    sender: Connection,
    number: int,
    *,
    open_encoder: OpenEncoder,
    root: Path,
    folder: Path,
    jobs: Sequence[Sequence[View]],
) -> None:
    """Be a worker: send True or False for each view, or the text of an error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's to handle
    torch.set_num_threads(1)
    # A pipe without a reader: the first process is gone, and with it the command.
    with contextlib.suppress(BrokenPipeError):
        try:
            for readable in encode_views(open_encoder(number), root, folder, jobs):
                sender.send(readable)
        except ContentVError as error:
            sender.send(str(error))


def _stack(posteriors: list[Posterior]) -> dict[str, torch.Tensor]:
    if not posteriors:
        return {}
    means, logvars = zip(*posteriors, strict=True)
    return {"mean": torch.stack(means), "logvar": torch.stack(logvars)}
