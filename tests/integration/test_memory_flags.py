"""`contentv generate --vram, --host, --quantization, --explain-memory`, with a small model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from builders import build_random_pipeline
from contentv.base.device import pick_device
from contentv.cli import main
from contentv.pipelines.memory.modes import Mode
from contentv.pipelines.memory.predicting import GIB, Call, predict
from contentv.pipelines.memory.sizes import PUBLISHED_MODEL, read_sizes
from contentv.video.shapes import VideoShape

PROMPT = "a red circle moves left"
SHORT = ("--num-frames", "5", "--num-inference-steps", "1")
WITHOUT_A_CARD = pytest.mark.skipif(
    pick_device() != torch.device("cpu"), reason="this machine has a card"
)


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    def sidecar(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(
            Path(self.out.strip()).with_suffix(".json").read_text()
        )
        return content


Generate = Callable[..., Outcome]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_pipeline(tmp_path_factory.mktemp("models") / "random", blocks=1)


@pytest.fixture
def generate(capfd: pytest.CaptureFixture[str]) -> Generate:
    def call(*arguments: str | Path) -> Outcome:
        capfd.readouterr()
        code = main(["generate", *map(str, arguments)])
        return Outcome(code, *capfd.readouterr())

    return call


def assert_one_line(outcome: Outcome, code: int, *parts: str) -> None:
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    assert outcome.err.count("\n") == 1, outcome.err
    for part in parts:
        assert part in outcome.err


# ---- the table


def test_the_published_model_is_explained_before_it_is_here(
    generate: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nowhere")
    limits = ("--vram", "6", "--host", "32")
    outcome = generate("--explain-memory", "--model", PUBLISHED_MODEL, *limits)
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[1] == "1 x 125 frames of 432 x 768, 333 text tokens, 16 bit"
    rows = [line for line in lines if line.strip()[:1].isdigit() and "frames" not in line]
    assert len(rows) == 39
    assert [row.split("  ")[-1] for row in rows if row.endswith("<-")] == [
        "streamed blocks, bfloat16 decoding <-"
    ]
    assert "memory: streamed blocks, bfloat16 decoding" in lines


def test_no_weights_are_looked_at(generate: Generate, model: Path, tmp_path: Path) -> None:
    for file in model.glob("*/config.json"):
        copy = tmp_path / file.relative_to(model)
        copy.parent.mkdir()
        copy.write_bytes(file.read_bytes())
    (tmp_path / "model_index.json").write_bytes((model / "model_index.json").read_bytes())
    outcome = generate("--explain-memory", "--model", tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert "17 frames of 64 x 64, 128 text tokens" in outcome.out
    assert "<-" not in outcome.out


def test_the_table_is_of_what_was_asked_for(generate: Generate) -> None:
    shape = ("--num-frames", "5", "--height", "128", "--batch-size", "2", "--dtype", "float32")
    asked = (PROMPT, "a blue square", *shape, "--quantization", "nf4")
    outcome = generate("--explain-memory", "--model", "tiny", *asked)
    assert "2 x 5 frames of 128 x 64, 144 text tokens, 32 bit" in outcome.out
    assert "nf4, one part at a time" in outcome.out
    assert "int8" not in outcome.out


def test_a_machine_without_a_card_has_a_table_of_its_own(generate: Generate) -> None:
    outcome = generate("--explain-memory", "--model", PUBLISHED_MODEL, "--device", "cpu")
    assert "GiB in main memory in each act" in outcome.out
    assert "parts from disk" in outcome.out
    assert "streamed" not in outcome.out


def test_the_table_says_why_nothing_fits(generate: Generate) -> None:
    outcome = generate("--explain-memory", "--model", PUBLISHED_MODEL, "--vram", "0.5")
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1].startswith("vram=0.5: the least that works is 2.")


# ---- bad requests


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--vram", "0"], ["vram=0"]),
        (["--vram", "-3"], ["vram=-3"]),
        (["--vram", "nan"], ["vram=nan"]),
        (["--host", "0"], ["host=0"]),
        (["--vram", "8", "--offload", "model"], ["offload=model", "leave out one"]),
        (["--host", "8", "--offload", "group"], ["offload=group", "leave out one"]),
        (["--vram", "8", "--device", "cpu"], ["vram=8: device=cpu has main memory only"]),
        (["--quantization", "int3"], ["quantization=int3"]),
        (["--host", "0.5", "--device", "cpu"], ["host=0.5: the least that works is 1.6 GiB"]),
    ],
)
def test_a_bad_request_is_one_line_and_exit_2(
    generate: Generate, model: Path, tmp_path: Path, arguments: list[str], parts: list[str]
) -> None:
    outcome = generate(PROMPT, "--model", model, "--out", tmp_path / "x.mp4", *arguments)
    assert_one_line(outcome, 2, *parts)
    assert list(tmp_path.iterdir()) == []


@WITHOUT_A_CARD
def test_a_cards_memory_without_a_card_is_a_mistake(
    generate: Generate, model: Path, tmp_path: Path
) -> None:
    outcome = generate(PROMPT, "--model", model, "--out", tmp_path / "x.mp4", "--vram", "8")
    assert_one_line(outcome, 2, "vram=8: this machine has no card", "--explain-memory", "--host")


# ---- videos


def test_little_main_memory_gives_the_same_video(
    generate: Generate, model: Path, tmp_path: Path
) -> None:
    usual = generate(PROMPT, *SHORT, "--model", model, "--out", tmp_path / "usual.mp4")
    asked = (PROMPT, *SHORT, "--device", "cpu", "--model", model)
    outcome = generate(
        *asked, "--host", f"{needed(model, Mode(lazy=True)):.6f}", "--out", tmp_path / "little.mp4"
    )
    assert outcome.code == 0, outcome.err
    assert "memory: parts from disk" in outcome.err
    assert outcome.sidecar()["frames_sha256"] == usual.sidecar()["frames_sha256"]


def test_another_decoding_is_noted_and_made_again(
    generate: Generate, model: Path, tmp_path: Path
) -> None:
    shape = ("--height", "384", "--width", "384", "--device", "cpu")
    mode = Mode(chunked=True, lazy=True, decoding="bfloat16")
    host = f"{needed(model, mode, side=384):.6f}"
    first, again = tmp_path / "first.mp4", tmp_path / "again.mp4"
    outcome = generate(PROMPT, *SHORT, *shape, "--model", model, "--host", host, "--out", first)
    assert outcome.code == 0, outcome.err
    assert "not exact: decoding rounds to bfloat16" in outcome.err
    assert outcome.sidecar()["machine"]["decoding"] == "bfloat16"
    assert generate("--from", first.with_suffix(".json"), "--out", again).code == 0
    assert again.read_bytes() == first.read_bytes()


def test_rounded_weights_are_noted_and_made_again(
    generate: Generate, model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torchao")
    first, again = tmp_path / "first.mp4", tmp_path / "again.mp4"
    rounded = ("--quantization", "int8", "--model", model, "--device", "cpu")
    outcome = generate(PROMPT, *SHORT, *rounded, "--out", first)
    assert outcome.code == 0, outcome.err
    assert outcome.sidecar()["machine"]["quantization"] == "int8"
    assert generate("--from", first.with_suffix(".json"), "--out", again).code == 0
    assert again.read_bytes() == first.read_bytes()


def test_rounding_is_not_used_where_exact_weights_fit(
    generate: Generate, model: Path, tmp_path: Path
) -> None:
    allowed = ("--quantization", "int8", "--host", "8", "--device", "cpu")
    out = tmp_path / "x.mp4"
    outcome = generate(PROMPT, *SHORT, *allowed, "--model", model, "--out", out)
    assert outcome.code == 0, outcome.err
    assert outcome.sidecar()["machine"]["quantization"] is None


def needed(model: Path, mode: Mode, *, side: int = 64) -> float:
    """GiB, and a little, that a short video needs in float32 without a card."""
    call = Call(VideoShape(5, side, side), text_tokens=128, steps=1, itemsize=4)
    return predict(read_sizes(model), call, mode).alone / GIB + 1e-5
