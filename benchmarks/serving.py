"""How fast batches travel over loopback from encode servers, and how long a trainer waits.

OMP_NUM_THREADS=1 python benchmarks/serving.py
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from pyarrow import flight

from contentv.data.batch import FeatureBatch
from contentv.encoding.certificates import read_client, read_server, run
from contentv.encoding.config import CertsConfig
from contentv.encoding.offers import Offer
from contentv.encoding.remote import RemoteConfig, RemoteSource, StepTickets
from contentv.encoding.server import EncodeServer
from contentv.encoding.wire import Ticket

RESULTS = Path(__file__).parent / "results"
MESSAGE = 8 * 2**20
# Bytes a second that a rank of the 8B model needs at most: reference case of 256 devices.
RATES = {"stage 1, pictures": 40e6, "stage 1, videos": 10e6, "stage 2": 2.5e6}
FOREVER = 2**30


def ticket(step: int) -> Ticket:
    """Ask for a step's batch."""
    return Ticket(plan="ab", build="cd", seed=0, stage="stage", step=step)


def tickets(step: int) -> StepTickets:
    """Ask for all of a step."""
    return StepTickets((ticket(step),), 1)


def batch(size: int) -> FeatureBatch:
    """A batch of `size` bytes, most of them embeddings, as in training on pictures."""
    sequence = torch.randn(1, size // 2 // 4096, 4096).bfloat16()
    latents = torch.randn(1, 16, 1, 8, 8)
    return FeatureBatch(latents, latents, torch.rand(1), sequence, torch.randn(1, 2048), ("clip",))


class Server(EncodeServer):
    """Sends one stream of raw messages when asked to, or batches as always."""

    def do_get(self, context: flight.ServerCallContext, asked: flight.Ticket) -> object:
        """Answer `raw` with a stream without end."""
        if asked.ticket != b"raw":
            return super().do_get(context, asked)
        data = pa.array([np.random.default_rng(0).bytes(MESSAGE)], pa.large_binary())
        record = pa.RecordBatch.from_arrays([data], ["data"])
        return flight.GeneratorStream(record.schema, (record for _ in range(FOREVER)))


def serve(folder: str, size: int) -> None:
    """Be a server until killed."""
    fixed = batch(size)
    offer = Offer("ab", "cd", 0, "stage", FOREVER, 1, lambda _: fixed)
    credentials = read_server(Path(folder) / "server") if folder else None
    server = Server([offer], bind="127.0.0.1:0", credentials=credentials)
    print(server.address, flush=True)
    time.sleep(3600)


@contextmanager
def servers(number: int, tls: Path | None, size: int) -> Iterator[list[str]]:
    """Servers in processes of their own; gives their addresses."""
    command = [sys.executable, __file__, "--serve", str(tls or ""), "--size", str(size)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(number)]
    try:
        yield [process.stdout.readline().strip() for process in started if process.stdout]
    finally:
        for process in started:
            process.kill()
            process.wait()


def raw_stream(address: str, tls: Path | None, seconds: float) -> tuple[float, float]:
    """One stream of messages of 8 MiB, read and thrown away: GB/s, and the reader's CPU s a GB."""
    security, headers = {}, []
    if tls:
        own = read_client(tls / "client")
        security = {
            "tls_root_certs": own.authority,
            "cert_chain": own.certificate,
            "private_key": own.key,
        }
        headers = [(b"authorization", f"Bearer {own.secret}".encode())]
    client = flight.FlightClient(f"grpc{'+tls' if tls else ''}://{address}", **security)
    options = flight.FlightCallOptions(headers=headers)
    reader = client.do_get(flight.Ticket(b"raw"), options)
    for _ in range(4):
        reader.read_chunk()
    begin, cpu, count = time.perf_counter(), time.process_time(), 0
    while (now := time.perf_counter()) - begin < seconds:
        reader.read_chunk()
        count += 1
    cpu = time.process_time() - cpu
    reader.cancel()
    size = count * MESSAGE / 1e9
    return size / (now - begin), cpu / size


def source_rate(addresses: list[str], tls: Path | None, streams: int, seconds: float) -> float:
    """GB/s of batches of 8 MiB through the source: ticket, digests at both ends, a copy."""
    config = RemoteConfig(depth=8, streams=streams)
    folder = tls / "client" if tls else None
    with RemoteSource(addresses, tickets, steps=FOREVER, tls=folder, config=config) as source:
        for step in range(8):
            source(step)
        begin, step = time.perf_counter(), 8
        while (now := time.perf_counter()) - begin < seconds:
            source(step)
            step += 1
    return (step - 8) * MESSAGE / (now - begin) / 1e9


def waits(addresses: list[str], tls: Path, rate: float, steps: int) -> dict[str, float]:
    """A trainer's waiting when a step needs 8 MiB and computes as long as that is at `rate`."""
    step_seconds, waited = MESSAGE / rate, []
    with RemoteSource(addresses, tickets, steps=FOREVER, tls=tls / "client") as source:
        source(0)
        time.sleep(step_seconds)  # a warm buffer
        for step in range(1, steps + 1):
            before = source.waited_seconds
            source(step)
            waited.append(source.waited_seconds - before)
            time.sleep(step_seconds)
    return {
        "step_ms": round(1000 * step_seconds, 1),
        "median_wait_ms": round(1000 * statistics.median(waited), 3),
        "max_wait_ms": round(1000 * max(waited), 3),
        "wait_percent": round(100 * sum(waited) / steps / step_seconds, 3),
    }


def measure(seconds: float) -> dict[str, object]:
    """All numbers; rates are the best of three, for others use these cores."""
    result: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        tls = Path(name, "certs")
        run(CertsConfig(out=tls))
        for way, folder in (("plain", None), ("tls", tls)):
            with servers(1, folder, MESSAGE) as (address,):
                tries = [raw_stream(address, folder, seconds) for _ in range(3)]
                result[f"one_stream_{way}_gb_s"] = round(max(rate for rate, _ in tries), 2)
                result[f"one_stream_{way}_all_gb_s"] = [round(rate, 2) for rate, _ in tries]
                cpu = min(cpu for _, cpu in tries)
                result[f"one_stream_{way}_reader_cpu_s_per_gb"] = round(cpu, 3)
                for streams in (1, 2):
                    rate = source_rate([address], folder, streams, seconds)
                    result[f"source_{way}_{streams}_streams_gb_s"] = round(rate, 2)
        with servers(2, tls, MESSAGE) as addresses:
            result["wait"] = {
                name: waits(addresses, tls, rate, steps=max(5, int(8 * rate / MESSAGE)))
                for name, rate in RATES.items()
            }
    return result


def main() -> None:
    """Measure once, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each rate")
    parser.add_argument("--serve", help="internal: be a server")
    parser.add_argument("--size", type=int, default=MESSAGE)
    parser.add_argument("--out", type=Path, help="default: results/serving-DATE-MACHINE.json")
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve, options.size)
        return
    torch.set_num_threads(1)
    date = f"{datetime.now(UTC):%F}"
    content = {
        "date": date,
        "message_bytes": MESSAGE,
        **measure(options.seconds),
        "load": round(os.getloadavg()[0], 1),
        "nice": os.nice(0),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "pyarrow": pa.__version__,
    }
    print(json.dumps(content, indent=2))
    default = RESULTS / f"serving-{date}-{platform.machine()}.json"
    (options.out or default).write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
