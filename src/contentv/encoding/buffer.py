"""Batches fetched ahead, keyed by step, so that when and from where they come does not matter."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from contentv.data.batch import FeatureBatch
from contentv.encoding.wire import Ticket, size_of

_FIRST_GUESS = 10.0  # seconds a fetch may take before anything is known of them
_PATIENCE = 3.0  # times the usual duration until another server is asked too
_LEAST = 1.0


@dataclass
class _Order:
    """A ticket, who is fetching it since when, and what came."""

    ticket: Ticket
    fetchers: dict[str, float] = field(default_factory=dict)
    batch: FeatureBatch | None = None


class StepBuffer:
    """Tickets of the next `depth` steps for fetchers to take, and their batches for the trainer.

    `tickets(step)` is pure; `steps` is where they end. No ticket ahead of the step asked for is
    given out when what is held and on its way would exceed `max_bytes`, judged by the largest batch
    seen. A ticket that takes much longer than usual is given to a second server: what comes first
    counts, the rest is dropped.
    """

    def __init__(
        self,
        tickets: Callable[[int], Sequence[Ticket]],
        *,
        steps: int,
        depth: int,
        max_bytes: int,
    ) -> None:
        self._tickets, self._steps, self._depth = tickets, steps, depth
        self._max_bytes = max_bytes
        self._orders: dict[tuple[int, int], _Order] = {}
        self._first = 0
        self._held = self._largest = 0
        self._usual: float | None = None
        self._closed = False
        self._fault: BaseException | None = None
        self._changed = threading.Condition()
        self.dropped = 0

    @property
    def held(self) -> int:
        """Bytes of the batches that are waiting for the trainer."""
        return self._held

    def aim(self, step: int) -> None:
        """Want the steps from this one on; what is held of others is dropped."""
        with self._changed:
            self._first = step
            wanted = range(step, min(step + self._depth, self._steps))
            for key in [key for key in self._orders if key[0] not in wanted]:
                self._forget(key)
            for number in wanted:
                if (number, 0) not in self._orders:
                    for index, ticket in enumerate(self._tickets(number)):
                        self._orders[number, index] = _Order(ticket)
            self._changed.notify_all()

    def pop(self, step: int, seconds: float) -> tuple[FeatureBatch, ...] | None:
        """Take a step's batches when they are complete within so long.

        Raises what `fail` was given.
        """
        with self._changed:
            orders = [order for key, order in sorted(self._orders.items()) if key[0] == step]
            self._changed.wait_for(
                lambda: self._fault or all(order.batch for order in orders), seconds
            )
            if self._fault:
                raise self._fault
            batches = tuple(order.batch for order in orders if order.batch is not None)
            if len(batches) < len(orders):
                return None
            for key in [key for key in self._orders if key[0] == step]:
                self._forget(key)
            self._changed.notify_all()
            return batches

    def take(self, server: str, seconds: float) -> Ticket | None:
        """Give a fetcher of `server` the most urgent ticket, or None when so long none is due."""
        with self._changed:
            end = time.monotonic() + seconds
            while not self._closed:
                order = self._due(server)
                if order is not None:
                    order.fetchers[server] = time.monotonic()
                    return order.ticket
                left = end - time.monotonic()
                if left <= 0:
                    break
                # Not only a change makes a ticket due: time does, when a server is late.
                self._changed.wait(min(left, _LEAST / 4))
            return None

    def put(self, server: str, ticket: Ticket, batch: FeatureBatch) -> None:
        """Hand in what a server sent; what nobody waits for any more is dropped."""
        with self._changed:
            order = self._find(ticket)
            if order is None or order.batch is not None:
                self.dropped += 1
                return
            began = order.fetchers.pop(server, None)
            if began is not None:
                took = time.monotonic() - began
                self._usual = took if self._usual is None else 0.8 * self._usual + 0.2 * took
            order.batch = batch
            self._held += size_of(batch)
            self._largest = max(self._largest, size_of(batch))
            self._changed.notify_all()

    def give_back(self, server: str, ticket: Ticket) -> None:
        """Return a ticket that a server did not answer; others may take it at once."""
        with self._changed:
            order = self._find(ticket)
            if order is not None:
                order.fetchers.pop(server, None)
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Let the trainer know of a fault in a fetcher."""
        with self._changed:
            self._fault = error
            self._changed.notify_all()

    def close(self) -> None:
        """Send all fetchers home."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _due(self, server: str) -> _Order | None:
        now = time.monotonic()
        patience = self._patience()
        for key, order in sorted(self._orders.items()):
            if order.batch is not None or server in order.fetchers:
                continue
            if any(now - since < patience for since in order.fetchers.values()):
                continue
            return order if key[0] == self._first or self._is_room() else None
        return None

    def _patience(self) -> float:
        usual = _FIRST_GUESS if self._usual is None else self._usual
        return max(_LEAST, _PATIENCE * usual)

    def _is_room(self) -> bool:
        coming = sum(bool(order.fetchers) for order in self._orders.values())
        return self._held + (coming + 1) * self._largest <= self._max_bytes

    def _find(self, ticket: Ticket) -> _Order | None:
        orders = (order for key, order in self._orders.items() if key[0] == ticket.step)
        return next((order for order in orders if order.ticket == ticket), None)

    def _forget(self, key: tuple[int, int]) -> None:
        batch = self._orders.pop(key).batch
        if batch is not None:
            self._held -= size_of(batch)
