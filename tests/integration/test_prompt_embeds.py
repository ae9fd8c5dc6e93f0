"""`contentv encode --prompts`, `contentv generate --prompt-embeds`: no text encoder is loaded."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from builders import build_random_pipeline
from contentv.cli import main
from contentv.pipelines.studio import load_pipeline

LONG = "a big red circle moves right " * 4
PROMPTS = [
    {"prompt": "a red circle moves left", "seed": 3},
    {"prompt": "a small green square", "negative_prompt": LONG, "seed": 1},
    {"prompt": LONG, "num_frames": 5, "max_sequence_length": 40},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_pipeline(tmp_path_factory.mktemp("models") / "random", blocks=1)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("\n".join(json.dumps(prompt) for prompt in PROMPTS))
    return path


@pytest.fixture(scope="module")
def embeds(model: Path, prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("embeds") / "embeds.safetensors"
    line = ["--prompts", str(prompts), "--model", str(model), "--out", str(out)]
    assert main(["encode", *line, "--device", "cpu"]) == 0
    return out


def generate(model: Path, out: Path, *more: str) -> int:
    return main(["generate", "--model", str(model), "--out", str(out), "--device", "cpu", *more])


def sidecars(folder: Path) -> dict[str, dict[str, object]]:
    return {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}


def test_the_videos_are_those_of_the_text_encoders_and_the_json_file_says_so(
    model: Path, prompts: Path, embeds: Path, tmp_path: Path
) -> None:
    small = ("--num-frames", "5", "--num-inference-steps", "1")
    assert generate(model, tmp_path / "text", "--prompts", str(prompts), *small) == 0
    assert generate(model, tmp_path / "embeds", "--prompt-embeds", str(embeds), *small) == 0
    text, embedded = sidecars(tmp_path / "text"), sidecars(tmp_path / "embeds")
    assert text.keys() == embedded.keys()
    assert len(text) == 3
    sha256 = hashlib.sha256(embeds.read_bytes()).hexdigest()
    for name in text:
        assert embedded[name].pop("prompt_embeds") == sha256
        assert text[name].pop("prompt_embeds") is None
        assert embedded[name] == text[name]  # `frames_sha256` among the rest


def test_no_text_encoder_is_loaded(model: Path) -> None:
    pipe = load_pipeline(model, torch.float32, text=False)
    encoders = (pipe.text_encoder, pipe.text_encoder_2, pipe.text_encoder_3)
    assert encoders == (pipe.tokenizer, pipe.tokenizer_2, pipe.tokenizer_3) == (None, None, None)
    assert load_pipeline(model, torch.float32).text_encoder_3 is not None


def test_what_the_file_does_not_hold_is_refused_in_one_line(
    model: Path, embeds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    another = shutil.copytree(model, tmp_path / "another")
    weights = load_file(another / "text_encoder/model.safetensors")
    name = min(weights)
    save_file({**weights, name: weights[name] + 1}, another / "text_encoder/model.safetensors")
    junk = tmp_path / "junk.safetensors"
    save_file({"x": torch.zeros(1)}, junk)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(embeds.read_bytes()[:-1])
    ours = ["--prompt-embeds", str(embeds)]
    for folder, more, words in (
        (model, [*ours, "something else"], "'something else': is not in"),
        (model, [*ours, "--negative-prompt", "blurry"], "'blurry': is not in"),
        (model, [*ours, "--max-sequence-length", "41"], "max_sequence_length=41"),
        (another, ours, "another has"),
        (model, ["--prompt-embeds", str(junk)], "holds no embeddings of prompts"),
        (model, ["--prompt-embeds", str(cut)], "holds no embeddings of prompts"),
    ):
        assert generate(folder, tmp_path / "out", *more) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert words in said
    assert not (tmp_path / "out").exists()
