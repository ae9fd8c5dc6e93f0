"""Visits videos with Ray Data, here or on a cluster. The only user of Ray.

Ray only schedules: it gets names of files and gives words about them. Results lie in the part
files, so the folder must be one that all machines share; a run that is stopped goes on from there.
"""

import logging
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from contentv.base.errors import ContentVError, UserError, WorldError
from contentv.curation.engine.visit import Job, Outcome, Task, Visitor

_STORE = 200 * 2**20  # bytes for what is passed around: words, never pictures
_MOST_BLOCKS = 10_000


def visit_with_ray(
    job: Job, tasks: Sequence[Task], workers: int, address: str | None = None
) -> Generator[tuple[int, Outcome], None, None]:
    """As `engine.visit_in_processes`, with Ray's actors: those of the cluster at `address`, if any.

    UserError when Ray is not installed, WorldError when it fails.
    """
    if not tasks:
        return
    with _started(workers, address) as library:
        rows = [{"task": task} for task in tasks]
        blocks = min(len(rows), _MOST_BLOCKS)
        visited = library.data.from_items(rows, override_num_blocks=blocks).map_batches(
            _actor(job),
            batch_size=1,
            compute=library.data.ActorPoolStrategy(size=min(workers, len(tasks))),
            num_cpus=1,
        )
        try:
            for row in visited.iter_rows():
                worker, stop = row.pop("worker"), row.pop("stop")
                if stop:
                    raise WorldError(stop)
                yield worker, Outcome(**row)
        except library.exceptions.RayError as error:
            raise WorldError(f"Ray: {str(error).strip().splitlines()[-1]}") from error


def _actor(job: Job) -> type:
    """A worker. When it dies, Ray starts another and hands it the video again.

    The job is a part of the class: arguments of a constructor may be gone when it starts again.
    """

    class Actor:
        def __init__(self) -> None:
            self.visitor = Visitor(job)

        def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
            (task,) = batch["task"]
            try:
                outcome, stop = self.visitor.visit(task), ""
            except ContentVError as error:
                name = task.source.video_id
                outcome, stop = Outcome(name, "", "", "", 0, 0.0, 0.0, 0.0, 0, 0), str(error)
            said = {**asdict(outcome), "worker": os.getpid(), "stop": stop}
            return {name: [value] for name, value in said.items()}

    return Actor


@contextmanager
def _started(workers: int, address: str | None) -> Iterator[Any]:
    # Ray reads this when it starts, and there is no other way to tell it: it is to call nobody.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError("--engine ray: needs pip install 'contentv[ray]'") from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    here = {"num_cpus": workers, "include_dashboard": False, "object_store_memory": _STORE}
    asked: dict[str, Any] = quiet if address else {**quiet, **here}
    ray.init(address=address or "local", **asked)
    ray.data.DataContext.get_current().enable_progress_bars = False
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()
