"""Training data over the network: real servers over TLS, killed, stopped, lying, attacked."""

import json
import os
import random
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pyarrow import flight
from torch import Tensor, nn

from contentv.base.errors import UserError, WorldError
from contentv.data.batch import FeatureBatch
from contentv.encoding.admission import Limits
from contentv.encoding.certificates import read_client, read_server, run
from contentv.encoding.config import CertsConfig
from contentv.encoding.offers import Offer
from contentv.encoding.remote import RemoteConfig, RemoteSource
from contentv.encoding.server import EncodeServer
from contentv.encoding.tokens import make_token
from contentv.encoding.wire import Ticket, size_of
from contentv.training.config import StageConfig
from contentv.training.trainer import Trainer
from contentv.training.work import Work
from lines import equal as same
from lines import everything
from serving import (
    BUILD,
    MICRO_BATCHES,
    PLAN,
    STAGE,
    STEPS,
    Process,
    batch_of,
    damaged,
    equal,
    servers,
    ticket,
    tickets,
)

Encode = Callable[[Ticket], FeatureBatch]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tls") / "certs"
    run(CertsConfig(out=out))
    return out


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, tls: Path) -> Iterator[list[Process]]:
    """Two servers in processes of their own."""
    with servers(tmp_path_factory.mktemp("servers"), tls, {}, {}) as started:
        yield started


@dataclass
class Here:
    """Servers in this process, drained at the end of a test."""

    tls: Path
    stack: ExitStack

    def __call__(
        self,
        encode: Encode = batch_of,
        *,
        kind: type[EncodeServer] = EncodeServer,
        build: str = BUILD,
        plain: bool = False,
        **limits: float,
    ) -> EncodeServer:
        offer = Offer(PLAN, build, 7, STAGE, STEPS, MICRO_BATCHES, encode)
        credentials = None if plain else read_server(self.tls / "server")
        asked = Limits.model_validate({"drain_seconds": 5.0, **limits})
        server = kind([offer], bind="127.0.0.1:0", credentials=credentials, limits=asked)
        self.stack.callback(server.drain)
        return server


@pytest.fixture
def here(tls: Path) -> Iterator[Here]:
    with ExitStack() as stack:
        yield Here(tls, stack)


def source(tls: Path | None, *addresses: str, **config: float) -> RemoteSource:
    folder = tls / "client" if tls else None
    asked = RemoteConfig.model_validate(config)
    return RemoteSource(addresses, tickets, steps=STEPS, tls=folder, config=asked)


def check(remote: RemoteSource, steps: range) -> None:
    """The batches are those of the pure function, none missing, none twice."""
    for step in steps:
        got = remote(step)
        assert got.num_samples == 2 * MICRO_BATCHES
        assert len(got.batches) == MICRO_BATCHES
        for number, batch in enumerate(got.batches):
            assert equal(batch, batch_of(ticket(step, number)))


def connect(folder: Path, address: str) -> flight.FlightClient:
    own = read_client(folder)
    return flight.FlightClient(
        f"grpc+tls://{address}",
        tls_root_certs=own.authority,
        cert_chain=own.certificate,
        private_key=own.key,
        generic_options=[("grpc.use_local_subchannel_pool", 1)],
    )


def asking(token: str = "", timeout: float = 30.0) -> flight.FlightCallOptions:
    headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
    return flight.FlightCallOptions(timeout=timeout, headers=headers)


def reason(client: flight.FlightClient, data: bytes, options: flight.FlightCallOptions) -> str:
    """Why a ticket is refused."""
    with pytest.raises(flight.FlightError) as caught:
        client.do_get(flight.Ticket(data), options).read_all()
    told = json.loads(caught.value.extra_info)
    assert "Traceback" not in str(caught.value)
    return f"{told['kind']}: {told['reason']}"


def resident(process: Process) -> float:
    """Memory of a server in MB."""
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


# ------------------------------------------------------------------------- servers that go wrong


def test_a_stopped_server_costs_no_batch_and_its_late_replies_no_harm(
    pair: list[Process], tls: Path
) -> None:
    with source(tls, pair[0].address, pair[1].address) as remote:
        check(remote, range(5))
        pair[1].signal(signal.SIGSTOP)
        check(remote, range(5, 20))
        pair[1].signal(signal.SIGCONT)
        check(remote, range(20, STEPS))


def test_a_damaged_reply_is_asked_for_elsewhere(
    pair: list[Process], tls: Path, here: Here, caplog: pytest.LogCaptureFixture
) -> None:
    class Lying(EncodeServer):
        def _encode(self, *given: object) -> pa.RecordBatch:
            return damaged(super()._encode(*given))

    lying = here(kind=Lying)
    with source(tls, lying.address, pair[0].address) as remote:
        check(remote, range(10))
    assert lying.admission.tally.outcomes["sent"] > 0
    assert "its digest does not fit" in caplog.text


def test_a_server_with_another_model_is_told_and_left_alone(
    pair: list[Process], tls: Path, here: Here, caplog: pytest.LogCaptureFixture
) -> None:
    other = here(build="99")
    with source(tls, other.address, pair[0].address) as remote:
        check(remote, range(10))
    assert f"build={BUILD}: this server has build 99 of {STAGE}" in caplog.text
    with source(tls, other.address) as alone, pytest.raises(UserError, match="this server has"):
        alone(0)


def test_an_encoder_that_fails_once_is_asked_again(here: Here, tls: Path) -> None:
    failed: list[Ticket] = []

    def encode(asked: Ticket) -> FeatureBatch:
        if asked not in failed:
            failed.append(asked)
            raise ZeroDivisionError if asked.step % 2 else WorldError("the disk is full")
        return batch_of(asked)

    with source(tls, here(encode).address) as remote:
        check(remote, range(4))


def test_two_servers_make_up_for_slow_ones_and_memory_stays_bounded(here: Here, tls: Path) -> None:
    def slow(asked: Ticket) -> FeatureBatch:
        time.sleep(0.02)
        return batch_of(asked)

    first, second = here(slow), here(slow)
    with source(tls, first.address, second.address, max_bytes=1) as remote:
        check(remote, range(6))
        assert remote._buffer.held <= MICRO_BATCHES * size_of(batch_of(ticket()))
    assert min(s.admission.tally.outcomes["sent"] for s in (first, second)) > 0


# ------------------------------------------------------------------------------------ strangers


@pytest.fixture
def strangers(tmp_path: Path) -> Path:
    """Certificates and tokens of another authority."""
    run(CertsConfig(out=tmp_path / "strangers"))
    return tmp_path / "strangers"


def test_no_certificate_or_a_strangers_gets_no_word(
    pair: list[Process], tls: Path, strangers: Path
) -> None:
    token = read_client(tls / "client").secret
    known = tls / "client" / "ca.pem"
    shutil.copyfile(known, strangers / "client" / "ca.pem")  # so that only the server objects
    bare = flight.FlightClient(f"grpc+tls://{pair[0].address}", tls_root_certs=known.read_bytes())
    plain = flight.FlightClient(f"grpc://{pair[0].address}")
    for client in (connect(strangers / "client", pair[0].address), bare, plain):
        with pytest.raises((flight.FlightUnavailableError, flight.FlightTimedOutError)):
            client.do_get(flight.Ticket(ticket().encode()), asking(token, 3.0))


def test_a_server_of_a_stranger_is_not_believed(pair: list[Process], strangers: Path) -> None:
    with pytest.raises(flight.FlightUnavailableError):
        connect(strangers / "client", pair[0].address).list_actions(asking(timeout=3.0))


def test_a_token_is_needed_and_must_be_good(
    pair: list[Process], tls: Path, strangers: Path
) -> None:
    client, good = connect(tls / "client", pair[0].address), ticket().encode()
    expired = make_token(read_server(tls / "server").secret, "trainer", seconds=-1)
    theirs = read_client(strangers / "client").secret
    assert reason(client, good, asking()) == "refused: the call has no token"
    assert reason(client, good, asking(expired)).startswith("refused: the token expired at ")
    assert "not signed with this server's key" in reason(client, good, asking(theirs))
    with pytest.raises(flight.FlightUnauthenticatedError):
        list(client.do_action(flight.Action("metrics", b""), asking()))


def test_a_trainer_with_an_expired_token_ends_with_the_reason(
    pair: list[Process], tls: Path, tmp_path: Path
) -> None:
    shutil.copytree(tls / "client", tmp_path / "client")
    token = make_token(read_server(tls / "server").secret, "trainer", seconds=-1)
    (tmp_path / "client" / "token").write_text(token)
    with source(tmp_path, pair[0].address) as remote, pytest.raises(UserError, match="expired"):
        remote(0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"plan": "ffff"}, f"plan=ffff: this server has plan {PLAN} of {STAGE}"),
        ({"seed": 8}, "seed=8: this server has seed 7"),
        ({"stage": "stage9"}, f"stage=stage9: this server has {STAGE}"),
        ({"step": STEPS}, f"step={STEPS}: {STAGE} has {STEPS} steps"),
        ({"step": 2**40 - 1}, "step=1099511627775: "),
        ({"step": 10**50}, "not a ticket: step="),
        ({"step": -1}, "not a ticket: step=-1"),
        ({"groups": 3}, "groups=3: must divide 2"),
        ({"groups": 2, "micro_batch": 1}, "micro_batch=1: each of 2 groups has 1 a step"),
    ],
)
def test_a_ticket_that_is_not_ours_is_refused(
    pair: list[Process], tls: Path, changed: dict[str, object], said: str
) -> None:
    data = json.dumps(ticket().model_dump() | changed).encode()
    client, token = connect(tls / "client", pair[0].address), read_client(tls / "client").secret
    assert reason(client, data, asking(token)).startswith(f"refused: {said}")


def fuzzed(rng: random.Random) -> bytes:
    """A ticket after some accidents."""
    data = bytearray(ticket(rng.randrange(STEPS)).encode())
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(data) + 1)
        data[place : place + rng.randrange(3)] = rng.randbytes(rng.randrange(4))
    return bytes(data if rng.random() < 0.9 else rng.randbytes(rng.randrange(3000)))


def test_ten_thousand_fuzzed_tickets(pair: list[Process], tls: Path) -> None:
    server, rng = pair[0], random.Random(0)
    client, options = (
        connect(tls / "client", server.address),
        asking(read_client(tls / "client").secret),
    )
    before, logged, refused = resident(server), len(server.errors.read_text()), 0
    for _ in range(10_000):
        try:
            client.do_get(flight.Ticket(fuzzed(rng)), options).read_all()
        except flight.FlightServerError:
            refused += 1
    assert refused > 9000  # some accidents leave a good ticket
    assert resident(server) < before + 50
    assert len(server.errors.read_text()) < logged + 100_000
    with source(tls, server.address) as remote:
        check(remote, range(3))


def test_slow_readers_and_silent_connections_disturb_nobody(here: Here, tls: Path) -> None:
    def large(asked: Ticket) -> FeatureBatch:
        return batch_of(asked, width=500_000)  # more than gRPC takes off our hands

    def fed(remote: RemoteSource) -> bool:
        return all(len(remote(step).batches) == MICRO_BATCHES for step in range(3))

    server = here(large, per_connection=2, send_seconds=1.0)
    slow, options = (
        connect(tls / "client", server.address),
        asking(read_client(tls / "client").secret),
    )
    with ExitStack() as stack:
        host, _, port = server.address.rpartition(":")
        for _ in range(50):
            stack.enter_context(socket.create_connection((host, int(port))))
        readers = [slow.do_get(flight.Ticket(ticket(n).encode()), options) for n in range(2)]
        assert "2 requests of this connection" in reason(slow, ticket(2).encode(), options)
        with source(tls, server.address) as remote:
            assert fed(remote)
        end = time.monotonic() + 20
        while server.admission.gauges()["unsent"] and time.monotonic() < end:
            time.sleep(0.05)
        assert server.admission.gauges()["unsent"] == 0
        for reader in readers:
            with pytest.raises(flight.FlightUnavailableError):
                reader.read_all()
    assert server.admission.tally.outcomes["unfetched"] == 2
    assert server.drain()


def test_who_finds_the_queue_full_is_told_to_ask_another(here: Here, tls: Path) -> None:
    going = threading.Event()

    def held(asked: Ticket) -> FeatureBatch:
        going.wait(30)
        return batch_of(asked)

    server = here(held, waiting=0, per_connection=9)
    options = asking(read_client(tls / "client").secret)
    client = connect(tls / "client", server.address)
    first = threading.Thread(
        target=lambda: client.do_get(flight.Ticket(ticket().encode()), options).read_all()
    )
    first.start()
    while not server.admission.gauges()["encoding"]:
        time.sleep(0.01)
    assert reason(client, ticket(1).encode(), options).startswith("busy: ")
    going.set()
    first.join(30)
    assert server.admission.tally.outcomes["sent"] == 1


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "encoder-1:0"])
def test_without_tls_nobody_else_may_reach_it(bind: str) -> None:
    with pytest.raises(UserError, match="others can reach this; give --tls"):
        EncodeServer([], bind=bind)


def test_health_and_metrics(here: Here) -> None:
    server = here(plain=True)
    with source(None, server.address) as remote:
        check(remote, range(3))
    client = flight.FlightClient(f"grpc://{server.address}")
    pages = {
        name: next(iter(client.do_action(flight.Action(name, b"")))).body.to_pybytes().decode()
        for name in ("health", "metrics")
    }
    assert json.loads(pages["health"]) == {
        "status": "serving",
        "offers": [{"stage": STAGE, "plan": PLAN, "build": BUILD, "steps": STEPS}],
    }
    assert 'contentv_serve_requests_total{outcome="sent"}' in pages["metrics"]
    assert 'contentv_serve_requests{state="waiting"} 0' in pages["metrics"]
    with pytest.raises(flight.FlightServerError, match="there are health, metrics"):
        list(client.do_action(flight.Action("shutdown", b"")))
    with pytest.raises(NotImplementedError):
        client.do_put(flight.FlightDescriptor.for_path("x"), pa.schema([]))[0].close()


# --------------------------------------------------------------------------------------- waiting


def test_a_trainer_waits_for_servers_that_are_not_there_and_says_so(
    tls: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
    late: list[EncodeServer] = []

    def begin() -> None:
        offer = Offer(PLAN, BUILD, 7, STAGE, STEPS, MICRO_BATCHES, batch_of)
        late.append(EncodeServer([offer], bind=address, credentials=read_server(tls / "server")))

    threading.Timer(1.0, begin).start()
    with source(tls, address, warn_every=0.3) as remote:
        check(remote, range(3))
        assert remote.waited_seconds > 0.8
    assert "step 0: waiting for data for" in caplog.text
    assert late[0].drain()


def test_waiting_can_be_interrupted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with source(None, address) as remote:
            threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
            began = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                remote(0)
            assert time.monotonic() - began < 20


# -------------------------------------------------------------------------------- a training run


@dataclass
class Mean:
    """Learns to tell the latents' mean from everything else in a batch."""

    networks: nn.Module = field(default_factory=lambda: nn.Linear(8, 1))

    def losses(self, batch: FeatureBatch) -> dict[str, Tensor]:
        told = self.networks(batch.pooled.float())[:, 0]
        return {"loss": (told - batch.latents.flatten(1).mean(1) - batch.sigma).square()}


def trainer(folder: Path, batches: Callable[[int], Work[FeatureBatch]]) -> Trainer[FeatureBatch]:
    torch.manual_seed(0)
    config = StageConfig(name=STAGE, steps=STEPS, bf16=False, checkpoint_every=10, log_every=10)
    return Trainer(Mean(), batches, config, folder)


def local(step: int) -> Work[FeatureBatch]:
    asked = tickets(step)
    return Work(tuple(batch_of(each) for each in asked.tickets), asked.num_samples)


def test_training_survives_kill_and_restart_of_servers_and_of_itself(
    pair: list[Process], tls: Path, tmp_path: Path
) -> None:
    """Ends with bitwise the weights of a run that never left its process."""
    whole = trainer(tmp_path / "whole", local).run()
    folder, waits = tmp_path / "fed", []

    class PowerCutError(Exception):
        pass

    def fed(remote: RemoteSource, events: dict[int, Callable[[], None]]) -> None:
        def batches(step: int) -> Work[FeatureBatch]:
            events.get(step, lambda: None)()
            before = remote.waited_seconds
            work = Work(*remote(step))
            waits.append(remote.waited_seconds - before)
            time.sleep(0.01)
            return work

        trainer(folder, batches).run()

    def power_cut() -> None:
        raise PowerCutError

    address = pair[1].address
    with source(tls, pair[0].address, address) as remote, pytest.raises(PowerCutError):
        fed(remote, {5: lambda: pair[1].signal(signal.SIGKILL), 15: power_cut})
    assert max(waits[1:]) < 2.0
    pair[1].process.wait()
    settings = {"port": int(address.rpartition(":")[2])}
    with servers(tmp_path, tls, settings) as again, source(tls, pair[0].address, address) as remote:
        fed(remote, {25: lambda: pair[0].signal(signal.SIGKILL)})
        assert again[0].address == address
    pair[0].process.wait()
    resumed = trainer(folder, local)
    resumed.run()
    assert same(everything(whole), everything(resumed.state))


def test_a_server_asked_to_stop_finishes_what_is_under_way(tls: Path, tmp_path: Path) -> None:
    with servers(tmp_path, tls, {"seconds": 0.7}) as (server,):
        client = connect(tls / "client", server.address)
        options = asking(read_client(tls / "client").secret)
        got: list[pa.Table] = []
        under_way = threading.Thread(
            target=lambda: got.append(
                client.do_get(flight.Ticket(ticket().encode()), options).read_all()
            )
        )
        under_way.start()
        time.sleep(0.3)
        server.signal(signal.SIGTERM)
        time.sleep(0.1)
        assert reason(client, ticket(1).encode(), options).startswith("draining: ")
        assert server.process.communicate(timeout=60)[0].strip() == "drained"
        assert server.process.returncode == 0
        under_way.join(30)
    assert got[0].num_rows == 1
