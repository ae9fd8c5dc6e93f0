"""The encode server: batches to whoever shows a certificate, a token and a ticket of our plan.

It keeps nothing between requests, so that any of several servers can answer any ticket, and one
that died is replaced by starting another.
"""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from pyarrow import flight

from contentv.base.errors import ContentVError, UserError
from contentv.base.log import get_logger
from contentv.encoding.admission import Admission, Limits, RefusedError, Visit
from contentv.encoding.certificates import Credentials
from contentv.encoding.offers import Offer, refused
from contentv.encoding.sockets import hang_up, is_loopback, split_address
from contentv.encoding.tokens import check_token
from contentv.encoding.wire import Ticket, decode_ticket, pack

_log = get_logger(__name__)

_KINDS = {
    "busy": flight.FlightUnavailableError,
    "draining": flight.FlightUnavailableError,
    "failed": flight.FlightInternalError,
    "refused": flight.FlightServerError,
}
_ACTIONS = {"health": "whether new requests are taken, and of which stages", "metrics": "numbers"}
_LOOK_SECONDS = 0.5


class EncodeServer(flight.FlightServerBase):
    """Serves offers at HOST:PORT from when it is made until `drain`.

    With `credentials` it takes connections of trainers that `contentv serve certs` knows, and of
    nobody else. UserError when it would be open to the network without, or cannot listen.
    """

    def __init__(
        self,
        offers: Sequence[Offer],
        *,
        bind: str,
        credentials: Credentials | None = None,
        limits: Limits | None = None,
    ) -> None:
        host, port = split_address(bind)
        if credentials is None and not is_loopback(host):
            raise UserError(
                f"bind={bind}: others can reach this; give --tls (`contentv serve certs` makes it) "
                "or bind to 127.0.0.1"
            )
        self.host, self.admission = host, Admission(limits or Limits())
        self._offers = {offer.stage: offer for offer in offers}
        scheme = "grpc" if credentials is None else "grpc+tls"
        place = f"[{host}]" if ":" in host else host
        security = {} if credentials is None else _security(credentials, self.admission)
        try:
            super().__init__(f"{scheme}://{place}:{port}", **security)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"bind={bind}: cannot listen there ({_first_line(error)})") from error
        self._over = threading.Event()
        threading.Thread(target=self._hang_up_on_the_slow, daemon=True).start()

    @property
    def address(self) -> str:
        """HOST:PORT, where a port of 0 has become the one that was free."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def do_get(
        self, context: flight.ServerCallContext, ticket: flight.Ticket
    ) -> flight.FlightDataStream:
        """Answer a ticket with one record."""
        with self._telling():
            asked = _decode(ticket.ticket)
            offer = self._offers.get(asked.stage)
            if offer is None:
                raise refused(f"stage={asked.stage}: this server has {', '.join(self._offers)}")
            offer.check(asked)
            visit = self.admission.enter(context.peer())
            try:
                record = self._encode(context, offer, asked, visit)
            except BaseException:
                self.admission.leave(visit)
                raise
            replies = self._send(record, visit)
            # Begun, so that its end runs also when Flight drops it before the first record.
            next(replies)
            return flight.GeneratorStream(record.schema, replies)

    def do_action(
        self,
        context: flight.ServerCallContext,  # noqa: ARG002 - Flight's signature
        action: flight.Action,
    ) -> Iterator[flight.Result]:
        """Answer `health` or `metrics` with text."""
        with self._telling():
            if action.type not in _ACTIONS:
                raise refused(f"action={action.type[:60]}: there are {', '.join(_ACTIONS)}")
            text = self.health() if action.type == "health" else self.metrics()
            return iter([flight.Result(text.encode())])

    def list_actions(
        self,
        context: flight.ServerCallContext,  # noqa: ARG002 - Flight's signature
    ) -> list[tuple[str, str]]:
        """Name the actions."""
        return list(_ACTIONS.items())

    def health(self) -> str:
        """JSON: whether requests are taken, and what is offered."""
        status = "draining" if self.admission.draining else "serving"
        offers = [
            {"stage": o.stage, "plan": o.plan, "build": o.build, "steps": o.steps}
            for o in self._offers.values()
        ]
        return json.dumps({"status": status, "offers": offers})

    def metrics(self) -> str:
        """Counters and gauges in Prometheus' text format."""
        tally = self.admission.tally
        lines = ["# TYPE contentv_serve_requests_total counter"]
        for outcome, number in sorted(tally.outcomes.items()):
            lines.append(f'contentv_serve_requests_total{{outcome="{outcome}"}} {number}')
        for name, value in (("bytes", tally.bytes), ("encode_seconds", tally.encode_seconds)):
            lines += [
                f"# TYPE contentv_serve_{name}_total counter",
                f"contentv_serve_{name}_total {value}",
            ]
        lines.append("# TYPE contentv_serve_requests gauge")
        for state, number in self.admission.gauges().items():
            lines.append(f'contentv_serve_requests{{state="{state}"}} {number}')
        return "\n".join(lines) + "\n"

    def drain(self) -> bool:
        """Refuse new requests, finish those under way, stop; gives whether all were finished.

        After `drain_seconds` the connections that are left are shut.
        """
        seconds = self.admission.limits.drain_seconds
        self.admission.drain()
        finished = self.admission.wait_until_empty(seconds)
        self._over.set()
        stopping = threading.Thread(target=self.shutdown, daemon=True)
        stopping.start()
        stopping.join(_LOOK_SECONDS)
        end = time.monotonic() + seconds
        while stopping.is_alive() and time.monotonic() < end:
            for peer in self.admission.stuck(0.0):
                hang_up(peer)
            stopping.join(_LOOK_SECONDS)
        return finished

    def _encode(
        self, context: flight.ServerCallContext, offer: Offer, ticket: Ticket, visit: Visit
    ) -> pa.RecordBatch:
        with self.admission.encoding(visit):
            if context.is_cancelled():
                raise RefusedError("busy", "whoever asked is gone")
            try:
                return pack(offer.batch_of(ticket), ticket, offer.build)
            except ContentVError as error:
                raise RefusedError("failed", str(error)) from error

    def _send(self, record: pa.RecordBatch, visit: Visit) -> Iterator[pa.RecordBatch]:
        outcome = "unfetched"
        try:
            yield record  # taken by `do_get`, to begin
            yield record
            outcome = "sent"
        finally:
            self.admission.leave(visit)
            self.admission.count(outcome, record.nbytes if outcome == "sent" else 0)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Turn a refusal into an error that the other side understands, without a traceback."""
        try:
            yield
        except RefusedError as error:
            self.admission.note(error)
            raise _as_flight_error(error) from None
        except Exception as error:  # noqa: BLE001 - one request's fault is not the server's end
            _log.debug("a fault of ours", exc_info=True)
            fault = RefusedError("failed", f"unexpected {type(error).__name__}: {error}")
            self.admission.note(fault)
            raise _as_flight_error(fault) from None

    def _hang_up_on_the_slow(self) -> None:
        seconds = self.admission.limits.send_seconds
        while not self._over.wait(min(_LOOK_SECONDS, seconds / 2)):
            for peer in self.admission.stuck(seconds):
                if hang_up(peer):
                    reason = f"{peer} did not fetch its reply in {seconds:g} s; connection shut"
                    self.admission.note(RefusedError("slow", reason))


class _TokenCheck(flight.ServerMiddlewareFactory):
    """Lets only calls through that carry a token which has not expired."""

    def __init__(self, key: str, admission: Admission) -> None:
        super().__init__()
        self._key, self._admission = key, admission

    def start_call(
        self,
        info: flight.CallInfo,  # noqa: ARG002 - Flight's signature
        headers: dict[str, list[Any]],
    ) -> None:
        """Raise FlightUnauthenticatedError for a call without a good token."""
        try:
            check_token(self._key, _bearer(headers.get("authorization", [])))
        except UserError as error:
            self._admission.note(RefusedError("refused", str(error)))
            data = json.dumps({"kind": "refused", "reason": str(error)}).encode()
            raise flight.FlightUnauthenticatedError(str(error), data) from None


def _bearer(values: list[Any]) -> str:
    scheme, _, token = str(values[0] if len(values) == 1 else "").partition(" ")
    if scheme.lower() != "bearer":
        raise UserError("the call has no token")
    return token


def _first_line(error: BaseException) -> str:
    """Give the beginning of a library's long message."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].partition(". Detail:")[0][:300]


def _decode(data: bytes) -> Ticket:
    """Read a stranger's ticket, or refuse it with the reason."""
    try:
        return decode_ticket(data)
    except UserError as error:
        raise refused(str(error)) from error


def _security(credentials: Credentials, admission: Admission) -> dict[str, Any]:
    return {
        "tls_certificates": [(credentials.certificate, credentials.key)],
        "verify_client": True,
        "root_certificates": credentials.authority,
        "middleware": {"token": _TokenCheck(credentials.secret, admission)},
    }


def _as_flight_error(error: RefusedError) -> flight.FlightError:
    data = json.dumps({"kind": error.kind, "reason": error.reason}).encode()
    return _KINDS[error.kind](error.reason, data)
