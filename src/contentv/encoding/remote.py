"""The source that asks encode servers: fetches ahead of the trainer, from whichever answers.

Fetchers are threads: waiting for the network, checking digests and copying bytes all happen outside
of Python's lock, so a step that computes is not held up.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from pydantic import Field

from contentv.base.config import Config
from contentv.base.errors import UserError
from contentv.base.log import get_logger
from contentv.data.batch import FeatureBatch
from contentv.data.plan import Plan
from contentv.data.source import StepFeatures
from contentv.encoding.buffer import StepBuffer
from contentv.encoding.certificates import read_client
from contentv.encoding.client import Line
from contentv.encoding.patience import noticing_signals
from contentv.encoding.wire import Ticket

_log = get_logger(__name__)

_TICK = 0.2
# Seconds that a fetcher leaves a failing server alone, at most so long one that is busy.
_SHORTEST, _LONGEST, _LONGEST_BUSY = 0.05, 5.0, 0.5


class RemoteConfig(Config):
    """How far and how stubbornly batches are fetched ahead.

    `depth` steps and `max_bytes` are held at most; each server gets `streams` requests at a time,
    which may take `timeout` seconds. While the trainer waits, a line says so every `warn_every`
    seconds.
    """

    depth: int = Field(4, ge=1, le=1024)
    max_bytes: int = Field(4 * 2**30, gt=0)
    streams: int = Field(2, ge=1, le=8)
    timeout: float = Field(120.0, gt=0)
    warn_every: float = Field(10.0, gt=0)


class StepTickets(NamedTuple):
    """One group's tickets of a step, in the order of computing, and the samples of all groups."""

    tickets: tuple[Ticket, ...]
    num_samples: int


@dataclass(frozen=True)
class PlanTickets:
    """What one data-parallel group of `groups` asks for; all ranks of a group ask the same."""

    plan: Plan
    build: str
    group: int = 0
    groups: int = 1

    def __call__(self, step: int) -> StepTickets:
        """Give the tickets of a step."""
        planned = self.plan(step)
        hand = planned.deal(self.group, self.groups)
        tickets = tuple(
            Ticket(
                plan=self.plan.hash,
                build=self.build,
                seed=self.plan.seed,
                stage=self.plan.stage,
                step=step,
                group=self.group,
                groups=self.groups,
                micro_batch=number,
            )
            for number in range(len(hand))
        )
        return StepTickets(tickets, planned.num_samples)


class RemoteSource:
    """Gives the batches of a step, fetched from `servers` (HOST:PORT) before they are asked for.

    A server that fails, is slow or sends damaged batches is left alone for a while, and others
    answer for it. When none does, the trainer waits, says so, and can be interrupted. Only servers
    that all refuse from the start, for a reason that will not go away, end the run. Close it when
    the stage ends.
    """

    def __init__(
        self,
        servers: Sequence[str],
        tickets: Callable[[int], StepTickets],
        *,
        steps: int,
        tls: Path | None = None,
        config: RemoteConfig | None = None,
    ) -> None:
        if not servers:
            raise UserError("servers: none named; give HOST:PORT of one or more encode servers")
        self._step_tickets, self._config = tickets, config or RemoteConfig()
        credentials = None if tls is None else read_client(tls)
        self._buffer = StepBuffer(
            lambda step: tickets(step).tickets,
            steps=steps,
            depth=self._config.depth,
            max_bytes=self._config.max_bytes,
        )
        self._closing = threading.Event()
        self._lines = [Line(server, credentials, self._config.timeout) for server in servers]
        self._threads: list[threading.Thread] = []
        self._fed = False
        self.waited_seconds = 0.0

    def __call__(self, step: int) -> StepFeatures:
        """Give a step's batches; waits until they are here.

        UserError when all servers refuse before any has answered.
        """
        self._start()
        self._buffer.aim(step)
        begin = time.monotonic()
        batches = self._buffer.pop(step, 0.0) or self._wait(step, begin)
        self.waited_seconds += time.monotonic() - begin
        self._fed = True
        self._buffer.aim(step + 1)
        return StepFeatures(batches, self._step_tickets(step).num_samples)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop fetching; requests under way are abandoned."""
        self._closing.set()
        self._buffer.close()
        for line in self._lines:
            line.cancel()
        for thread in self._threads:
            thread.join(_TICK)

    @property
    def dropped(self) -> int:
        """Replies that came twice or too late."""
        return self._buffer.dropped

    def _start(self) -> None:
        # Not before the first step: a dry run that draws none needs no server.
        if self._threads:
            return
        for line in self._lines:
            for _ in range(self._config.streams):
                thread = threading.Thread(target=self._fetch, args=(line,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _wait(self, step: int, begin: float) -> tuple[FeatureBatch, ...]:
        warned = begin
        with noticing_signals() as check:
            while True:
                batches = self._buffer.pop(step, _TICK)
                if batches is not None:
                    return batches
                check()
                self._give_up_if_all_refuse()
                now = time.monotonic()
                if now - warned >= self._config.warn_every:
                    warned = now
                    states = "; ".join(line.state for line in self._lines)
                    _log.warning(
                        "step %d: waiting for data for %.0f s; %s", step, now - begin, states
                    )

    def _give_up_if_all_refuse(self) -> None:
        if not self._fed and all(line.refusal for line in self._lines):
            reasons = "; ".join(dict.fromkeys(line.refusal for line in self._lines))
            raise UserError(f"no server gives these batches: {reasons}")

    def _fetch(self, line: Line) -> None:
        """Answer tickets from one server until closed."""
        pause = _SHORTEST
        try:
            while not self._closing.is_set():
                ticket = self._buffer.take(line.server, _TICK)
                if ticket is None:
                    continue
                batch = line.ask(ticket)
                if batch is None:
                    self._buffer.give_back(line.server, ticket)
                    self._closing.wait(pause)
                    pause = min(2 * pause, _LONGEST_BUSY if line.is_busy else _LONGEST)
                else:
                    self._buffer.put(line.server, ticket, batch)
                    pause = _SHORTEST
        except Exception as error:  # noqa: BLE001 - a thread's fault is the trainer's
            self._buffer.fail(error)
