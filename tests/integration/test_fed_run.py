"""A training fed by servers over TLS, all real commands; everything fails once, no bit changes."""

import json
import re
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from chains import chain, prepare, words
from commands import Command
from contentv.cli import main
from contentv.distributed.checkpoint import inspect, latest, load
from contentv.encoding.config import ServeConfig

STAGE, STEPS = "stage1", 60
BAD_NETWORK = (str(Path(__file__).parents[1] / "bad_network.py"),)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = prepare(tmp_path_factory.mktemp("fed"))
    text = (folder / "recipe.yaml").read_text().replace("steps: 2", f"steps: {STEPS}")
    text = text.replace("checkpoint_every: 1", "checkpoint_every: 4")
    (folder / "recipe.yaml").write_text(text)
    return folder


def serve(work: Path, name: str, port: int = 0, main: tuple[str, ...] | None = None) -> Command:
    config = ServeConfig(
        clips=work / "films",
        plan=work / "recipe.yaml",
        model=str(work / "model"),
        bind=f"127.0.0.1:{port}",
        tls=work / "certs" / "server",
        stage=STAGE,
        cache=work / "cache",
        workers=1,
        device="cpu",
    )
    more = {} if main is None else {"main": main}
    return Command(["serve", *words(config)], work / f"{name}.log", **more)


def train(work: Path, out: str, **changes: object) -> list[str]:
    asked = {"stage": STAGE, "init_from": str(work / "model"), **changes}
    return ["train", "contentv_8b", *words(chain(work, out, **asked))]


def encode(work: Path) -> Path:
    """A store of features of the stage's clips."""
    what = ["--clips", str(work / "films"), "--model", str(work / "model"), "--device", "cpu"]
    buckets = ["--areas", "4096", "--frames", "1", "5", "--fps", "8"]
    assert main(["encode", *what, *buckets, "--out", str(work / "features")]) == 0
    return work / "features"


def steps(folder: Path) -> int:
    """How far the trainer has come."""
    log = folder / STAGE / "log.jsonl"
    numbers = re.findall(r'"step": (\d+)', log.read_text()) if log.is_file() else []
    return max(map(int, numbers), default=0)


def same(one: Path, other: Path) -> bool:
    """Whether two runs ended with the same bits: weights, averages and moments."""
    ours, theirs = (load(latest(folder / STAGE)).tensors for folder in (one, other))
    assert ours.keys() == theirs.keys()
    return all(
        tensors.keys() == theirs[group].keys()
        and all(torch.equal(value, theirs[group][name]) for name, value in tensors.items())
        for group, tensors in ours.items()
    )


@pytest.mark.timeout(300)
def test_a_run_survives_its_servers_its_network_and_itself(work: Path) -> None:
    """Kill, pause, corruption, restart; the weights are those of a run from a store, bit by bit."""
    assert main(["serve", "certs", "--out", str(work / "certs")]) == 0
    fed = work / "fed"
    with ExitStack() as stack:
        first = stack.enter_context(serve(work, "first"))
        second = stack.enter_context(serve(work, "second", main=BAD_NETWORK))
        assert main(train(work, "stored", features=(encode(work),))) == 0
        addresses = tuple(each.says(r"(\S+): serving") for each in (first, second))
        command = train(work, "fed", servers=addresses, tls=work / "certs" / "client")

        def reaches(step: int) -> None:
            trainer.until(lambda: steps(fed) >= step)

        trainer = stack.enter_context(Command(command, work / "trainer.log"))
        reaches(4)
        first.kill()
        reaches(steps(fed) + 8)  # more than lay in the buffer
        second.pause()
        stack.enter_context(serve(work, "again", int(addresses[0].rpartition(":")[2])))
        reaches(steps(fed) + 10)
        trainer.kill()
        saved = latest(fed / STAGE)
        assert saved is not None
        assert 0 < inspect(saved).step < STEPS
        second.go_on()
        again = stack.enter_context(Command(command, work / "trainer.log"))
        assert again.ends()[0] == 0, again.log.read_text()
    said = (work / "trainer.log").read_text()
    assert f"{addresses[1]}: its digest does not fit" in said
    assert f"{addresses[0]}: answers again" in said
    assert not (fed / "latents").exists()
    assert same(work / "stored", fed)
    reports = [json.loads(line) for line in (fed / STAGE / "log.jsonl").read_text().splitlines()]
    assert {report["step"] for report in reports} == set(range(1, STEPS + 1))
