"""Visits videos in processes of one thread each, that may die, and end when this one does."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Self, TypeAlias

from contentv.base.errors import ContentVError, WorldError
from contentv.base.log import get_logger
from contentv.curation.engine.visit import MOST_ATTEMPTS, Job, Outcome, Task, Visitor, memory_in_use

ENOUGH_MEMORY = 3 * 2**29
"""Bytes: a worker that has come to hold more makes room for a fresh one."""

_Said: TypeAlias = Outcome | ContentVError | None
_PATIENCE = 5.0  # seconds that a worker has to end its decoder and itself

_log = get_logger(__name__)


def visit_in_processes(
    job: Job, tasks: Sequence[Task], workers: int, *, memory: int = ENOUGH_MEMORY
) -> Generator[tuple[int, Outcome], None, None]:
    """Visit all, in order as workers become free; give each outcome with its process's number.

    A process that dies is replaced and its video visited again; how often is `Visitor`'s to say.
    ContentVError when nothing can go on. Whatever ends the iteration ends the processes.
    """
    with _Pool(job, memory) as pool:
        waiting = deque(tasks)
        for _ in range(min(workers, len(tasks))):
            pool.add()
        while waiting or pool.busy:
            for worker, said in pool.heard():
                if isinstance(said, ContentVError):
                    raise said
                if said is not None:
                    yield worker.number, said
            waiting.extendleft(pool.lost)
            pool.lost.clear()
            for worker in pool.idle():
                if waiting:
                    worker.begin(waiting.popleft())
            for _ in range(min(workers, len(waiting)) - len(pool.workers)):
                pool.add()


class _Worker:
    """A process, and what it is at."""

    def __init__(self, number: int, process: SpawnProcess, pipe: Connection) -> None:
        self.number, self.process, self.pipe = number, process, pipe
        self.task: Task | None = None
        self.ready = False

    def begin(self, task: Task) -> None:
        self.task, self.ready = task, False
        with contextlib.suppress(BrokenPipeError):  # it has died: `heard` will find out
            self.pipe.send(task)


class _Pool:
    """The processes there are, and the tasks of those that died."""

    def __init__(self, job: Job, memory: int) -> None:
        self.job, self.memory = job, memory
        self.workers: dict[Connection, _Worker] = {}
        self.lost: list[Task] = []
        self._deaths: Counter[str] = Counter()
        self._started = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.process.terminate()
        for worker in self.workers.values():
            worker.process.join(_PATIENCE)
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()

    @property
    def busy(self) -> bool:
        """Whether a video is being visited."""
        return any(worker.task for worker in self.workers.values())

    def idle(self) -> list[_Worker]:
        """Those that wait for a task."""
        return [worker for worker in self.workers.values() if worker.ready]

    def add(self) -> None:
        """Start a process."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._started += 1
        process = context.Process(
            target=_work, args=(theirs, self.job, self.memory), daemon=True, name="curation"
        )
        process.start()
        theirs.close()
        self.workers[ours] = _Worker(self._started, process, ours)

    def heard(self) -> Iterator[tuple[_Worker, _Said]]:
        """Wait for a word from any of them; None: one is ready to begin."""
        for pipe in wait(list(self.workers)):
            assert isinstance(pipe, Connection)
            worker = self.workers[pipe]
            try:
                said = pipe.recv()
            except (EOFError, ConnectionResetError):
                self._bury(worker)
                continue
            worker.ready = said is None
            worker.task = None
            yield worker, said

    def _bury(self, worker: _Worker) -> None:
        del self.workers[worker.pipe]
        worker.pipe.close()
        worker.process.join()
        code = worker.process.exitcode
        if worker.task is None:
            if code:
                raise WorldError(f"a worker ended before its work began (exit code {code})")
            return
        video = worker.task.source.video_id
        self._deaths[video] += 1
        if self._deaths[video] > MOST_ATTEMPTS + 1:
            raise WorldError(f"workers end again and again at video {video} (exit code {code})")
        _log.warning("a worker died at video %s (exit code %s)", video, code)
        self.lost.append(worker.task)


def _work(pipe: Connection, job: Job, memory: int) -> None:
    """Be a worker: say None when ready, and the outcome of each task that comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's to handle
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # on its way out it ends its decoder
    threading.Thread(target=_end_with_parent, daemon=True).start()
    visitor = Visitor(job)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            pipe.send(None)
            task = pipe.recv()
            try:
                pipe.send(visitor.visit(task))
            except ContentVError as error:
                pipe.send(error)
            if memory_in_use() > memory:
                return


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_PATIENCE)
    os._exit(1)
