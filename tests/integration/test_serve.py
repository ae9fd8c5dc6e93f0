"""`contentv serve` as a command: certificates, a server in a process of its own, its end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from chains import prepare
from contentv.cli import main
from contentv.encoding.config import ServeConfig
from contentv.encoding.remote import PlanTickets, RemoteSource
from contentv.recipes.serve import open_offers

PATIENCE = 90.0


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("serve"))


def words(work: Path) -> list[str]:
    given = {"clips": work / "films", "plan": work / "recipe.yaml", "model": work / "model"}
    more = {"cache": work / "cache", "workers": 1, "device": "cpu"}
    return [str(word) for name, value in (given | more).items() for word in (f"--{name}", value)]


def line_with(pattern: str, log: Path, process: subprocess.Popen[str]) -> str:
    """What the first group of `pattern` is in the log, once it is there."""
    end = time.monotonic() + PATIENCE
    while (found := re.search(pattern, log.read_text())) is None:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)
    return found[1]


def test_what_the_command_serves_is_what_the_recipe_plans(work: Path) -> None:
    certs, log = work / "certs", work / "log"
    assert main(["serve", "certs", "--out", str(certs)]) == 0
    more = ["--tls", str(certs / "server"), "--bind", "127.0.0.1:0", "--metrics-port", "0"]
    config = ServeConfig(
        clips=work / "films",
        plan=work / "recipe.yaml",
        model=str(work / "model"),
        cache=work / "another",
        workers=1,
        device="cpu",
    )
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "contentv.cli", "serve", *words(work), *more],
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    try:
        offers = {offer.stage: offer for offer in open_offers(config)}
        address = line_with(r"(\S+): serving", log, process)
        page = line_with(r"(http://127.0.0.1:\d+)/metrics", log, process)
        with urllib.request.urlopen(f"{page}/health") as answer:
            health = json.loads(answer.read())
        assert [o["stage"] for o in health["offers"]] == list(offers)
        for name in ("vae_adaptation", "stage3"):
            offer = offers[name]
            tickets = PlanTickets(offer.batch_of.batches.plan, offer.build, group=1, groups=2)
            with RemoteSource([address], tickets, steps=2, tls=certs / "client") as source:
                (batch,) = source(1).batches
            assert batch.keys == offer.batch_of(tickets(1).tickets[0]).keys
        with urllib.request.urlopen(f"{page}/metrics") as answer:
            assert b'contentv_serve_requests_total{outcome="sent"}' in answer.read()
    finally:
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=PATIENCE)[0]
    assert (process.returncode, said) == (0, "stopped; every request was finished\n")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--stage", "stage9"], "stage=stage9: no such stage; use vae_adaptation"),
        (["--tls", "absent"], "absent: has no ca.pem; give the server's or the client's folder"),
        (["--bind", "0.0.0.0:8815"], "bind=0.0.0.0:8815: others can reach this; give --tls"),
        (["--bind", "8815"], "8815: must be HOST:PORT"),
        (["--plan", "absent.yaml"], "cannot read absent.yaml"),
    ],
)
def test_a_wrong_request_is_one_line(
    work: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert main(["serve", *words(work), *more]) != 0
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"contentv: {said}")
