"""Who may be served now: a bounded queue, so that a server's memory and its answers are bounded."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydantic import Field

from contentv.base.config import Config
from contentv.base.errors import ContentVError
from contentv.base.log import get_logger

_log = get_logger(__name__)

_LOG_SECONDS = 1.0


class RefusedError(ContentVError):
    """A request that is not served.

    `kind` is "busy" or "draining" (another server may do it), "refused" (none with this set-up
    will) or "failed" (encoding did not work).
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


class Limits(Config):
    """How much a server takes on; times in seconds.

    `waiting` requests queue for `encodes` encoders, `unsent` replies may be in memory, of which one
    connection may hold `per_connection`. A reply not fetched in `send_seconds` loses its
    connection.
    """

    encodes: int = Field(1, ge=1, le=64)
    waiting: int = Field(32, ge=0, le=4096)
    unsent: int = Field(16, ge=1, le=4096)
    per_connection: int = Field(8, ge=1, le=4096)
    wait_seconds: float = Field(60.0, gt=0)
    send_seconds: float = Field(60.0, gt=0)
    drain_seconds: float = Field(30.0, gt=0)


@dataclass(eq=False)
class Visit:
    """A request from its arrival until its reply is sent; `since` is when sending began, or 0."""

    peer: str
    since: float = 0.0


@dataclass
class Tally:
    """What has happened since the start."""

    outcomes: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    encode_seconds: float = 0.0


class Admission:
    """Lets requests in, one after the other, or says why not. All methods may be called at once."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.tally = limits, Tally()
        self._visits: set[Visit] = set()
        self._encoding = 0
        self._draining = False
        self._changed = threading.Condition()
        self._logged = 0.0
        self._unlogged = 0

    @property
    def draining(self) -> bool:
        """Whether nobody is let in any more."""
        return self._draining

    def enter(self, peer: str) -> Visit:
        """Let a request in; RefusedError when there is no room."""
        with self._changed:
            if self._draining:
                raise RefusedError("draining", "the server is shutting down; ask another")
            own = sum(visit.peer == peer for visit in self._visits)
            if own >= self.limits.per_connection:
                raise RefusedError("busy", f"{own} requests of this connection are open; fetch one")
            unsent = sum(visit.since > 0 for visit in self._visits)
            waiting = len(self._visits) - unsent - self._encoding
            if waiting >= self.limits.waiting + self.limits.encodes - self._encoding:
                raise RefusedError("busy", f"{waiting} requests are waiting; ask another server")
            visit = Visit(peer)
            self._visits.add(visit)
            return visit

    @contextmanager
    def encoding(self, visit: Visit) -> Iterator[None]:
        """Hold an encoder for the body, which makes the reply; RefusedError when none is free."""
        with self._changed:
            if not self._changed.wait_for(self._is_room, self.limits.wait_seconds):
                raise RefusedError("busy", "no encoder was free in time; ask another server")
            self._encoding += 1
        begin = time.monotonic()
        try:
            yield
            visit.since = time.monotonic()
        finally:
            with self._changed:
                self._encoding -= 1
                self.tally.encode_seconds += time.monotonic() - begin
                self._changed.notify_all()

    def leave(self, visit: Visit) -> None:
        """End a visit, however it went."""
        with self._changed:
            self._visits.discard(visit)
            self._changed.notify_all()

    def count(self, outcome: str, size: int = 0) -> None:
        """Note how a request ended, and the bytes of its reply."""
        with self._changed:
            self.tally.outcomes[outcome] += 1
            self.tally.bytes += size

    def note(self, refused: RefusedError) -> None:
        """Count a refusal and log it, one line a second at most: strangers may knock for hours."""
        self.count(refused.kind)
        with self._changed:
            now = time.monotonic()
            if now - self._logged < _LOG_SECONDS:
                self._unlogged += 1
                return
            more = f" (and {self._unlogged} others)" if self._unlogged else ""
            self._logged, self._unlogged = now, 0
        _log.warning("%s: %s%s", refused.kind, refused.reason, more)

    def stuck(self, seconds: float) -> list[str]:
        """Connections that have not fetched a reply for so long."""
        now = time.monotonic()
        with self._changed:
            late = [v for v in self._visits if v.since > 0 and now - v.since > seconds]
        return sorted({visit.peer for visit in late})

    def drain(self) -> None:
        """Refuse new requests from now on."""
        with self._changed:
            self._draining = True

    def wait_until_empty(self, seconds: float) -> bool:
        """Wait for all requests under way; gives whether they ended in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._visits, seconds)

    def gauges(self) -> dict[str, int]:
        """How many requests are waiting, encoding and unsent now."""
        with self._changed:
            unsent = sum(visit.since > 0 for visit in self._visits)
            waiting = len(self._visits) - unsent - self._encoding
            return {"waiting": waiting, "encoding": self._encoding, "unsent": unsent}

    def _is_room(self) -> bool:
        unsent = sum(visit.since > 0 for visit in self._visits)
        return self._encoding < self.limits.encodes and (
            unsent + self._encoding < self.limits.unsent
        )
