"""The connection of a trainer to one encode server."""

import json
import threading

import pyarrow as pa
from pyarrow import flight

from contentv.base.errors import ContentVError, WorldError
from contentv.base.log import get_logger
from contentv.data.batch import FeatureBatch
from contentv.encoding.certificates import Credentials
from contentv.encoding.sockets import split_address
from contentv.encoding.wire import MAX_REPLY_BYTES, Ticket, unpack

_log = get_logger(__name__)


class Line:
    """Asks a server for batches, from several threads; knows how it last went.

    `is_busy` says that it only had no time, `refusal` why it will never answer, if it said so.
    """

    def __init__(self, server: str, credentials: Credentials | None, timeout: float) -> None:
        host, port = split_address(server)
        scheme = "grpc" if credentials is None else "grpc+tls"
        self._place = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        self.server, self._credentials, self._timeout = server, credentials, timeout
        self._client: flight.FlightClient | None = None
        self._readers: set[flight.FlightStreamReader] = set()
        self._lock = threading.Lock()
        self._trouble = ""
        self._is_over = False
        self.refusal = ""
        self.is_busy = False

    @property
    def state(self) -> str:
        """What to say of the server to somebody who waits."""
        return f"{self.server}: {self._trouble or 'no answer yet'}"

    def ask(self, ticket: Ticket) -> FeatureBatch | None:
        """Give the batch of a ticket, or None when the server does not give it."""
        try:
            batch = self._get(ticket)
        except (pa.ArrowException, OSError, ContentVError, StopIteration) as error:
            self._note(error)
            return None
        if self._trouble:
            _log.info("%s: answers again", self.server)
        self._trouble = self.refusal = ""
        return batch

    def cancel(self) -> None:
        """End what is being received, and say nothing of it."""
        with self._lock:
            self._is_over = True
            for reader in self._readers:
                reader.cancel()

    def _get(self, ticket: Ticket) -> FeatureBatch:
        headers = []
        if self._credentials is not None:
            headers.append((b"authorization", f"Bearer {self._credentials.secret}".encode()))
        options = flight.FlightCallOptions(timeout=self._timeout, headers=headers)
        reader = self._connected().do_get(flight.Ticket(ticket.encode()), options)
        with self._lock:
            self._readers.add(reader)
        try:
            return unpack(reader.read_chunk().data, ticket)
        finally:
            with self._lock:
                self._readers.discard(reader)

    def _connected(self) -> flight.FlightClient:
        with self._lock:
            if self._client is None:
                self._client = _connect(self._place, self._credentials)
            return self._client

    def _note(self, error: BaseException) -> None:
        kind, reason = _explain(error)
        known = bool(self._trouble)
        self._trouble, self.is_busy = reason, kind == "busy"
        self.refusal = f"{self.server}: {reason}" if kind == "refused" else ""
        if not known and not self.is_busy and not self._is_over:
            _log.warning("%s: %s", self.server, reason)
        if kind == "timeout":
            # A machine that lost its power does not end a connection: the next call makes another.
            with self._lock:
                self._client = None


def _connect(place: str, credentials: Credentials | None) -> flight.FlightClient:
    security = {}
    if credentials is not None:
        security = {
            "tls_root_certs": credentials.authority,
            "cert_chain": credentials.certificate,
            "private_key": credentials.key,
        }
    # A server that comes back is found again soon, and no other connection's failures count.
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.max_receive_message_length", MAX_REPLY_BYTES),
    ]
    return flight.FlightClient(place, generic_options=options, **security)


def _explain(error: BaseException) -> tuple[str, str]:
    """Give the kind of a failure and what to say of it."""
    try:
        told = json.loads(getattr(error, "extra_info", b"") or b"null")
        return str(told["kind"]), " ".join(str(told["reason"]).split())[:300]
    except (TypeError, ValueError, KeyError):
        pass
    if isinstance(error, WorldError):
        return "corrupt", str(error)
    if isinstance(error, flight.FlightTimedOutError):
        return "timeout", "no reply in time"
    text = str(error).partition(". gRPC client debug context")[0].strip()
    return "unreachable", " ".join(text.split())[:200] or type(error).__name__
