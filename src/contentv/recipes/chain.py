"""Stages that follow from one another, in one process or several side by side."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from contentv.base.errors import UserError, WorldError
from contentv.base.log import get_logger

_log = get_logger(__name__)

_LOOK = 0.2  # seconds between looks at running stages


@dataclass(frozen=True)
class Link:
    """One stage of a chain, which comes after those named.

    `run` goes on from wherever it stopped and returns at once when it is finished.
    """

    name: str
    after: tuple[str, ...]
    run: Callable[[], None]
    is_done: Callable[[], bool]


def run_chain(links: Sequence[Link]) -> None:
    """Run all stages, one after another."""
    for link in links:
        link.run()


def run_link(links: Sequence[Link], name: str) -> None:
    """Run one stage; UserError when there is none of that name or it is not its turn."""
    by_name = {link.name: link for link in links}
    if name not in by_name:
        raise UserError(f"stage={name}: no such stage; there are {', '.join(by_name)}")
    missing = [before for before in by_name[name].after if not by_name[before].is_done()]
    if missing:
        raise UserError(
            f"stage={name}: {', '.join(missing)} must be finished first; leave --stage out to run "
            "the whole chain"
        )
    by_name[name].run()


def run_beside(links: Sequence[Link], jobs: int, command: Callable[[str], Sequence[str]]) -> None:
    """Run the stages in processes of their own, at most `jobs` at once, in the order given.

    `command` gives what runs one stage. Ctrl-C and SIGTERM reach all of them.

    Raises:
        WorldError: a stage failed; those under way are stopped, which they survive.
    """
    waiting = [link for link in links if not link.is_done()]
    running: dict[str, _Process] = {}
    try:
        while waiting or running:
            running = {name: process for name, process in running.items() if not process.ended()}
            for link in _ready(waiting, running)[: jobs - len(running)]:
                waiting.remove(link)
                running[link.name] = _Process(link.name, command(link.name))
            time.sleep(_LOOK)
    finally:
        for process in running.values():
            process.stop()


def _ready(waiting: Sequence[Link], running: dict[str, "_Process"]) -> list[Link]:
    """Stages whose turn it is: all before them were there from the start or have ended well."""
    unfinished = {link.name for link in waiting} | running.keys()
    return [link for link in waiting if not unfinished.intersection(link.after)]


class _Process:
    """A stage under way; its lines are written with its name before them."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self._name = name
        _log.info("%s: begins", name)
        self._process = subprocess.Popen(  # noqa: S603 - this program itself
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self._reader = threading.Thread(target=self._copy, daemon=True)
        self._reader.start()

    def ended(self) -> bool:
        """Whether it has ended well; WorldError when it has failed."""
        code = self._process.poll()
        if code is None:
            return False
        self._reader.join()
        if code:
            raise WorldError(f"stage {self._name} ended with code {code}; its lines say why")
        _log.info("%s: done", self._name)
        return True

    def stop(self) -> None:
        """Ask it to save and stop, and wait until it has."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()
        self._reader.join()

    def _copy(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                sys.stderr.write(f"[{self._name}] {line.decode(errors='replace')}")
                sys.stderr.flush()
