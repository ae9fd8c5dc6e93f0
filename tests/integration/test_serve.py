"""`contentv serve` as a command: certificates, a server in a process of its own, its end."""

import json
import re
import signal
import urllib.request
from pathlib import Path

import pytest

from chains import prepare, words
from commands import Command
from contentv.cli import main
from contentv.encoding.config import ServeConfig
from contentv.encoding.remote import PlanTickets, RemoteSource
from contentv.recipes.autotune import AutotuneResult
from contentv.recipes.serve import run
from contentv.recipes.served import open_stages


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("serve"))


def settings(work: Path) -> ServeConfig:
    return ServeConfig(
        clips=work / "films",
        plan=work / "recipe.yaml",
        model=str(work / "model"),
        cache=work / "cache",
        workers=1,
        device="cpu",
    )


def test_what_the_command_serves_is_what_the_recipe_plans(work: Path) -> None:
    certs, log = work / "certs", work / "log"
    assert main(["serve", "certs", "--out", str(certs)]) == 0
    more = ["--tls", str(certs / "server"), "--bind", "127.0.0.1:0", "--metrics-port", "0"]
    with Command(["serve", *words(settings(work)), *more], log) as command:
        offers = {each.offer.stage: each for each in open_stages(settings(work), work / "latents")}
        address = command.says(r"(\S+): serving")
        page = command.says(r"(http://127.0.0.1:\d+)/metrics")
        with urllib.request.urlopen(f"{page}/health") as answer:
            health = json.loads(answer.read())
        assert [o["stage"] for o in health["offers"]] == list(offers)
        for name in ("vae_adaptation", "stage3"):
            offer, plan = offers[name].offer, offers[name].batches.plan
            tickets = PlanTickets(plan, offer.build, group=1, groups=2)
            with RemoteSource([address], tickets, steps=2, tls=certs / "client") as source:
                (batch,) = source(1).batches
            assert batch.keys == offer.batch_of(tickets(1).tickets[0]).keys
        with urllib.request.urlopen(f"{page}/metrics") as answer:
            assert b'contentv_serve_requests_total{outcome="sent"}' in answer.read()
        assert command.ends(signal.SIGTERM) == (0, "stopped; every request was finished\n")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--stage", "stage9"], "stage=stage9: no such stage; use vae_adaptation"),
        (["--tls", "absent"], "absent: has no ca.pem; give the server's or the client's folder"),
        (["--bind", "0.0.0.0:8815"], "bind=0.0.0.0:8815: others can reach this; give --tls"),
        (["--bind", "8815"], "8815: must be HOST:PORT"),
        (["--plan", "absent.yaml"], "cannot read absent.yaml"),
        (["--trainers", "4"], "autotune=False: trainers and their steps go with --autotune only"),
        (["--autotune"], "autotune=True: say by --trainers how many devices train"),
        (["--autotune", "--trainers", "4"], "autotune=True: give either --step-seconds or --train"),
        (
            ["--autotune", "--trainers", "4", "--step-seconds", "2"],
            "step_seconds=2: is of one stage; name it by --stage",
        ),
        (
            ["--autotune", "--trainers", "4", "--trainer-device", "abacus"],
            "device=abacus: not a known kind",
        ),
    ],
)
def test_a_wrong_request_is_one_line(
    work: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert main(["serve", *words(settings(work)), *more]) != 0
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"contentv: {said}")


def test_autotune_measures_each_bucket_and_counts_devices(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--autotune", "--trainers", "16", "--stage", "stage1", "--step-seconds", "1e-6"]
    assert main(["serve", *words(settings(work)), *more]) == 0
    said = capsys.readouterr().out
    first, both, last = said.split("\n\n")
    assert first.startswith("stage1, steps 0 to 1: 2.0 clips a step")
    assert "5x64x64" in first
    assert "1x64x64" not in first, "the first step has videos only"
    assert both.startswith("stage1, steps 1 to 2: ")
    assert "1x64x64" in both
    needed = [int(found) for found in re.findall(r"in a step of 1e-06 s: (\d+) needed", said)]
    assert last.split()[0] == str(max(needed))
    # Two clips at a time of more than a tenth of a millisecond.
    assert max(needed) > 200
    assert "cpu" in last


def test_autotune_predicts_the_step_of_trainers_it_has_not_seen(work: Path) -> None:
    asked = {"autotune": True, "trainers": 16, "trainer_device": "h200", "stage": "stage1"}
    few = run(settings(work).model_copy(update=asked))
    many = run(settings(work).model_copy(update=asked | {"trainers": 32}))
    assert isinstance(few, AutotuneResult)
    assert isinstance(many, AutotuneResult)
    for one, other in zip(few.needs, many.needs, strict=True):
        assert one.step_seconds == pytest.approx(2 * other.step_seconds)
    assert "16 trainer devices (H200 SXM 141 GB) at 40% MFU, assumed" in str(few)
