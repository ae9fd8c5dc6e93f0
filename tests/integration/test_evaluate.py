"""`contentv evaluate` from the command line, on an untrained model."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from builders import build_random_pipeline
from contentv.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_pipeline(tmp_path_factory.mktemp("models") / "random")


def evaluate(*arguments: object) -> int:
    return main(["evaluate", *(str(argument) for argument in arguments)])


def rows(out: Path) -> list[dict[str, object]]:
    lines = (line for path in sorted(out.rglob("*.jsonl")) for line in path.open())
    return [json.loads(line) for line in lines]


def test_toybench(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    flags = ("--model", model, "--batch-size", 4, "--num-inference-steps", 1, "--out", out)
    assert evaluate("toybench", *flags, "--num-prompts", 8) == 0
    printed = capsys.readouterr().out
    assert "held_out" in printed
    assert printed.splitlines()[-1] == str(out / "report.html")
    report = json.loads((out / "report.json").read_text())
    assert report["num_prompts"] == len(rows(out)) == 8
    assert report["models"][0]["settings"]["sampling"]["num_inference_steps"] == 1
    assert report["models"][0]["groups"]["lines"]["seen"][0]["total"] == 4
    assert "All facts right" in (out / "report.md").read_text()
    assert (out / "report.html").stat().st_size > 10_000
    assert {path.stem for path in out.rglob("*.png")} >= {"samples", "failures"}

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.jsonl")}
    assert evaluate("toybench", *flags, "--num-prompts", 10) == 0
    assert before.items() <= {p: p.stat().st_mtime_ns for p in out.rglob("*.jsonl")}.items()
    assert len(rows(out)) == 10


def test_two_models_are_compared(model: Path, tmp_path: Path) -> None:
    other = build_random_pipeline(tmp_path / "other", blocks=1)
    flags = ("--model", model, "--compare", other, "--num-prompts", 4, "--captions", "short")
    assert evaluate("toybench", *flags, "--num-inference-steps", 1, "--out", tmp_path / "out") == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [part["name"] for part in report["models"]] == [str(model), str(other)]
    assert sum(report["comparison"]["all"]["pairs"]) == 4
    first, second = (
        {(row["name"], row["prompt"], row["seed"]) for row in rows(folder)}
        for folder in sorted((tmp_path / "out").iterdir())
        if folder.is_dir()
    )
    assert first == second


def test_autoencoder(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--model", model, "--num-prompts", 4, "--out", tmp_path)
    assert evaluate("autoencoder", *flags) == 0
    assert "PSNR" in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    assert 0 < report["models"][0]["psnr"]["value"] < 30


def times(folder: Path) -> dict[Path, int]:
    """When each finished file was written; what is half-written has a dot before its name."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("[!.]*.jsonl")}


def test_a_killed_evaluation_goes_on(model: Path, tmp_path: Path) -> None:
    flags = ["toybench", "--model", str(model), "--num-prompts", "8", "--batch-size", "1"]
    command = [sys.executable, "-m", "contentv.cli", "evaluate", *flags, "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment) as process:
        end = time.monotonic() + 90
        while not list(tmp_path.rglob("[!.]*.jsonl")) and time.monotonic() < end:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    finished = times(tmp_path)
    assert 1 <= len(finished) < 8
    assert not (tmp_path / "report.json").exists()
    assert evaluate(*flags, "--out", tmp_path) == 0
    assert len(rows(tmp_path)) == 8
    assert finished.items() <= times(tmp_path).items()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["toybench", "--model", "nothing"], 2, "no such model"),
        (["vbench"], 2, "suite=vbench"),
        (["autoencoder", "--flow-shift", "3"], 2, "flow_shift has no effect on autoencoder"),
        (["autoencoder", "--speed", "fast"], 2, "speed has no effect on autoencoder"),
        (["toybench", "--num-prompts", "none"], 2, "num_prompts=none"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(*arguments) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_a_place_that_cannot_be_written_is_one_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    flags = ("--model", model, "--num-prompts", 2, "--out", tmp_path / "file" / "out")
    assert evaluate("toybench", *flags) == 1
    assert capsys.readouterr().err.count("\n") == 1
