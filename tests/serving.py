"""Encode servers for tests: real ones, in processes of their own, with a pure function for encoder.

This file is the program: it takes settings as JSON, prints its address, drains on SIGTERM, and
prints `drained` when every request was finished.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from contentv.base.log import setup_logging
from contentv.data.batch import FeatureBatch
from contentv.encoding.certificates import read_server
from contentv.encoding.offers import Offer
from contentv.encoding.remote import StepTickets
from contentv.encoding.server import EncodeServer
from contentv.encoding.wire import Ticket

PLAN, BUILD, STAGE, STEPS, MICRO_BATCHES = "ab12", "cd34", "stage1", 40, 2


def ticket(step: int = 0, micro_batch: int = 0, **changed: object) -> Ticket:
    values = {"plan": PLAN, "build": BUILD, "seed": 7, "stage": STAGE, "step": step}
    return Ticket.model_validate({**values, "micro_batch": micro_batch, **changed})


def tickets(step: int) -> StepTickets:
    numbers = range(MICRO_BATCHES)
    return StepTickets(tuple(ticket(step, number) for number in numbers), 2 * MICRO_BATCHES)


def batch_of(asked: Ticket, *, width: int = 256) -> FeatureBatch:
    """Random numbers keyed by all of a ticket."""
    generator = torch.Generator().manual_seed(hash((asked.seed, asked.step, asked.micro_batch)))
    shapes = ((2, 4, 3, 4, 4), (2, 4, 3, 4, 4), (2,), (2, 5, width), (2, 8))
    latents, noise, sigma, sequence, pooled = (
        torch.randn(shape, generator=generator) for shape in shapes
    )
    keys = (f"clip {asked.step}", f"film/{asked.micro_batch}.mp4")
    return FeatureBatch(latents, noise, sigma, sequence.bfloat16(), pooled.bfloat16(), keys)


def equal(one: FeatureBatch, other: FeatureBatch) -> bool:
    names = ("latents", "noise", "sigma", "sequence", "pooled")
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    same = all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)
    return same and one.keys == other.keys


def damaged(reply: pa.RecordBatch) -> pa.RecordBatch:
    """A reply with one bit of its latents flipped on the way."""
    data = bytearray(reply.column(0)[0].as_buffer())
    data[17] ^= 4
    first = pa.array([bytes(data)], pa.large_binary())
    return pa.RecordBatch.from_arrays([first, *reply.columns[1:]], schema=reply.schema)


class Process:
    """A running server; `errors` is the file with its log."""

    def __init__(self, errors: Path, tls: Path | None, **settings: object) -> None:
        wanted = {"tls": str(tls / "server") if tls else None, **settings}
        self.errors = errors
        with errors.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, __file__, json.dumps(wanted)],
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )

    @property
    def address(self) -> str:
        """Known once the server listens."""
        if not hasattr(self, "_address"):
            assert self.process.stdout is not None
            self._address = self.process.stdout.readline().strip()
            assert self._address, self.errors.read_text()
        return self._address

    def signal(self, number: int) -> None:
        assert self.address
        self.process.send_signal(number)


@contextmanager
def servers(
    folder: Path, tls: Path | None, *settings: dict[str, object]
) -> Iterator[list[Process]]:
    """Servers with these settings, started side by side and killed at the end."""
    started = [
        Process(folder / f"server{number}.log", tls, **each) for number, each in enumerate(settings)
    ]
    try:
        assert all(each.address for each in started)
        yield started
    finally:
        for each in started:
            each.process.kill()
            each.process.wait()
            assert each.process.stdout is not None
            each.process.stdout.close()


def main(settings: dict[str, Any]) -> None:
    setup_logging()

    def encode(asked: Ticket) -> FeatureBatch:
        time.sleep(settings.get("seconds", 0.0))
        return batch_of(asked)

    offer = Offer(PLAN, BUILD, 7, STAGE, STEPS, MICRO_BATCHES, encode)
    tls = settings["tls"]
    credentials = read_server(Path(tls)) if tls else None
    bind = f"127.0.0.1:{settings.get('port', 0)}"
    server = EncodeServer([offer], bind=bind, credentials=credentials)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    print(server.address, flush=True)
    stop.wait()
    print("drained" if server.drain() else "cut off", flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
