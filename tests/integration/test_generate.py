"""`contentv generate` from arguments to files, with a small untrained model."""

import json
import runpy
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from builders import build_random_pipeline
from contentv.cli import main
from contentv.pipelines.config import GenerateConfig
from contentv.pipelines.run import run
from contentv.video.io import read_video

PROMPT = "a red circle moves left"
NAME = "a-red-circle-moves-left_seed0"


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Generate = Callable[..., Outcome]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_pipeline(tmp_path_factory.mktemp("models") / "random", blocks=1)


@pytest.fixture
def generate(model: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Generate:
    """Run the verb; the model and a folder for the results are given unless said otherwise."""

    def call(*arguments: str, out: Path | None = None, model: Path | str = model) -> Outcome:
        capfd.readouterr()
        given = ["--model", str(model), "--out", str(out or tmp_path / "out")]
        code = main(["generate", *given, *arguments])
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def assert_one_line(outcome: Outcome, code: int, *parts: str) -> None:
    assert outcome.code == code, outcome.err
    assert outcome.err.count("\n") == 1, outcome.err
    assert outcome.err[:-1].isprintable()
    for part in parts:
        assert part in outcome.err
    assert outcome.out == ""


# ---- what comes out


def test_a_prompt_becomes_a_video_and_a_json_file(generate: Generate, tmp_path: Path) -> None:
    outcome = generate(PROMPT)
    assert outcome == Outcome(0, f"{tmp_path}/out/{NAME}.mp4\n", "")
    assert names(tmp_path) == [f"{NAME}.json", f"{NAME}.mp4"]
    clip = read_video(tmp_path / "out" / f"{NAME}.mp4")
    assert clip.frames.shape == (17, 256, 256, 3)
    assert clip.fps == 8
    sidecar = json.loads((tmp_path / "out" / f"{NAME}.json").read_text())
    assert sidecar["job"]["prompt"] == PROMPT
    assert sidecar["job"]["num_inference_steps"] == 2
    assert sidecar["scale"] == 4
    assert sidecar["model"]["of"] == "all bytes"
    assert len(sidecar["model"]["sha256"]) == 64


def test_settings_change_the_video(generate: Generate) -> None:
    settings = "--num_frames 5 --height 48 --width 32 --fps 4 --scale 2 --num-inference-steps 1"
    more = "--guidance-scale 1 --flow-shift 3 --seed 7 --max-sequence-length 20"
    negative = ("--negative-prompt", "a green square")
    outcome = generate(PROMPT, *settings.split(), *more.split(), *negative)
    assert outcome.code == 0, outcome.err
    clip = read_video(Path(outcome.out.strip()))
    assert clip.frames.shape == (5, 96, 64, 3)
    assert clip.fps == 4
    job = json.loads(Path(outcome.out.strip()).with_suffix(".json").read_text())["job"]
    assert job["negative_prompt"] == "a green square"
    assert (job["seed"], job["flow_shift"], job["max_sequence_length"]) == (7, 3.0, 20)


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_the_json_file_makes_the_same_bytes_again(
    generate: Generate, tmp_path: Path, kind: str
) -> None:
    first, again = tmp_path / f"first.{kind}", tmp_path / f"again.{kind}"
    assert generate(PROMPT, "--seed", "5", "--num-frames", "5", out=first).code == 0
    outcome = run(GenerateConfig(sidecar=first.with_suffix(".json"), out=again))
    assert outcome.files == (again,)
    assert again.read_bytes() == first.read_bytes()
    assert again.with_suffix(".json").read_bytes() == first.with_suffix(".json").read_bytes()


def test_pictures_are_made_again_too(generate: Generate, tmp_path: Path) -> None:
    assert generate(PROMPT, "--format", "png", "--num-frames", "5").code == 0
    first = tmp_path / "out" / NAME
    assert names(first) == [f"frame_0000{index}.png" for index in range(5)]
    run(GenerateConfig(sidecar=tmp_path / "out" / f"{NAME}.json", out=tmp_path / "again"))
    for file in first.iterdir():
        assert (tmp_path / "again" / NAME / file.name).read_bytes() == file.read_bytes()


def test_one_frame_can_be_one_picture(generate: Generate, tmp_path: Path) -> None:
    assert generate(PROMPT, "--num-frames", "1", out=tmp_path / "one.png").code == 0
    assert names(tmp_path) == ["one.json", "one.png"]


def test_a_video_of_a_batch_is_made_again_bit_for_bit(generate: Generate, tmp_path: Path) -> None:
    prompts = ("a red circle moves left", "a small blue square stays", "a big green circle")
    assert generate(*prompts, "--batch-size", "3", "--num-frames", "5").code == 0
    for file in (tmp_path / "out").glob("*.mp4"):
        again = tmp_path / "again" / file.name
        run(GenerateConfig(sidecar=file.with_suffix(".json"), out=again))
        assert again.read_bytes() == file.read_bytes()
    assert len(names(tmp_path / "again")) == 6  # the neighbours are sampled and not written


def test_a_flag_wins_over_the_json_file(generate: Generate, tmp_path: Path) -> None:
    assert generate(PROMPT, "--seed", "5", "--num-frames", "5").code == 0
    sidecar = tmp_path / "out" / "a-red-circle-moves-left_seed5.json"
    outcome = run(GenerateConfig(sidecar=sidecar, out=tmp_path / "b", num_frames=1))
    job = json.loads(outcome.files[0].with_suffix(".json").read_text())["job"]
    assert (job["seed"], job["num_frames"]) == (5, 1)


def test_a_video_does_not_depend_on_its_neighbours(generate: Generate, tmp_path: Path) -> None:
    few = "--num-frames", "5"
    assert generate(PROMPT, *few).code == 0
    assert generate("a big square", PROMPT, *few, out=tmp_path / "two").code == 0
    files = [tmp_path / folder / f"{NAME}.mp4" for folder in ("out", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()


# ---- many at once


def test_prompts_come_from_files_with_settings_of_their_own(
    generate: Generate, tmp_path: Path
) -> None:
    lines = tmp_path / "prompts.jsonl"
    lines.write_text(
        '{"prompt": "a red circle", "seed": 3, "num_frames": 5}\n\n'
        "a blue square\n"
        '{"prompt": "a green circle", "num_videos_per_prompt": 2, "height": 32}\n',
        encoding="utf-8",
    )
    outcome = generate("--prompts", str(lines), "--num-frames", "1", "--seed", "10")
    assert outcome.code == 0, outcome.err
    made = {Path(line).stem: read_video(Path(line)).frames for line in outcome.out.split()}
    assert {name: len(frames) for name, frames in made.items()} == {
        "a-red-circle_seed3": 5,
        "a-blue-square_seed10": 1,
        "a-green-circle_seed10": 1,
        "a-green-circle_seed11": 1,
    }
    assert made["a-green-circle_seed10"].shape == (1, 256, 512, 3)
    assert not np.array_equal(made["a-green-circle_seed10"], made["a-green-circle_seed11"])


def test_finished_videos_are_kept_and_missing_ones_made(generate: Generate) -> None:
    arguments = ("a red circle", "a blue square", "--num-frames", "5", "--batch-size", "2")
    whole = generate(*arguments)
    files = [Path(line) for line in whole.out.split()]
    contents, times = _state(files)
    files[1].unlink()
    again = generate(*arguments)
    assert again == Outcome(0, whole.out, "1 of 2 videos were finished before\n")
    assert _state(files)[0] == contents
    assert _state(files)[1][0] == times[0]
    third = generate(*arguments)
    assert third.err == "2 of 2 videos were finished before\n"


def _state(files: list[Path]) -> tuple[list[bytes], list[int]]:
    return [file.read_bytes() for file in files], [file.stat().st_mtime_ns for file in files]


def test_another_video_is_not_overwritten_unasked(generate: Generate, tmp_path: Path) -> None:
    out = tmp_path / "x.mp4"
    few = ("--num-frames", "1")
    assert generate(PROMPT, *few, out=out).code == 0
    before = out.read_bytes()
    assert_one_line(generate("a square", *few, out=out), 2, "x.mp4: exists", "--overwrite")
    assert out.read_bytes() == before
    assert generate("a square", *few, "--overwrite", out=out).code == 0
    assert json.loads(out.with_suffix(".json").read_text())["job"]["prompt"] == "a square"
    assert generate("a square", *few, "--overwrite", out=out).err == ""  # made, not kept


def test_a_strangers_file_is_not_overwritten_unasked(generate: Generate, tmp_path: Path) -> None:
    out = tmp_path / "holiday.mp4"
    out.write_bytes(b"precious")
    assert_one_line(generate(PROMPT, out=out), 2, "exists and is another video")
    assert out.read_bytes() == b"precious"


@pytest.mark.parametrize(
    "prompt",
    ["../../etc/passwd", "a/b\\c", "line\nbreak\x00\x1b[31m", "\u202egnp.exe", ".", "~", "con"],
)
def test_no_prompt_leads_out_of_the_folder(generate: Generate, tmp_path: Path, prompt: str) -> None:
    outcome = generate(prompt, "--num-frames", "1", "--num-inference-steps", "1")
    assert outcome.code == 0, outcome.err
    assert len(names(tmp_path)) == 2
    for path in tmp_path.rglob("*.*"):
        assert path.parent == tmp_path / "out"
        assert path.name.isprintable()
        assert not path.name.startswith(".")


# ---- bad requests


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([""], ["the prompt is empty"]),
        (["  \t "], ["the prompt is empty"]),
        (["x" * 10_000], ["at most 4000 characters"]),
        ([PROMPT, "--negative-prompt", "x" * 10_000], ["at most 4000 characters"]),
        ([PROMPT, "--num-frames", "18"], ["num_frames=18: must be 4k+1; use 17 or 21"]),
        ([PROMPT, "--num-frames", "0"], ["num_frames=0"]),
        ([PROMPT, "--height", "100"], ["height=100: must be a multiple of 16; use 96 or 112"]),
        ([PROMPT, "--width", "-16"], ["width=-16"]),
        ([PROMPT, "--width", "1000000000"], ["width=1000000000"]),
        ([PROMPT, "--guidance-scale", "nan"], ["guidance_scale=nan: input should be a finite"]),
        ([PROMPT, "--flow-shift", "inf"], ["flow_shift=inf"]),
        ([PROMPT, "--num-inference-steps", "-5"], ["num_inference_steps=-5"]),
        ([PROMPT, "--seed", "-1"], ["seed=-1"]),
        ([PROMPT, "--seed", "abc"], ["seed=abc"]),
        ([PROMPT, "--fps", "0"], ["fps=0"]),
        ([PROMPT, "--device", "quantum"], ["device=quantum", "use one of"]),
        ([PROMPT, "--device", "cpu", "--offload", "model"], ["offload=model", "leave it out"]),
        ([PROMPT, "--out", "x.avi"], ["use .mp4, .gif or .png"]),
        ([PROMPT, "--out", "x.mp4", "--format", "gif"], ["change one of --out and --format"]),
        ([PROMPT, "--out", "x.png"], ["a picture has 1 frame"]),
        ([PROMPT, "b", "--out", "x.mp4"], ["one file for 2 videos; name a folder"]),
        ([], ["no prompt"]),
    ],
)
def test_a_bad_request_is_one_line_and_exit_2(
    generate: Generate, tmp_path: Path, arguments: list[str], parts: list[str]
) -> None:
    assert_one_line(generate(*arguments), 2, *parts)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no prompts in it"),
        (b'{"prompt": "a", "sede": 3}', "line 1: sede: there is no such setting"),
        (b"a circle\n{oops}", "line 2: not JSON"),
        (b'{"prompt": ""}', "the prompt is empty"),
        (b'{"seed": 3}', "line 1: prompt: is required"),
        (b'{"prompt": "a", "num_frames": 6}', "num_frames=6: must be 4k+1"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
    ],
)
def test_a_bad_prompt_file_is_named_with_the_line(
    generate: Generate, tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "prompts").write_bytes(content)
    outcome = generate("--prompts", str(tmp_path / "prompts"))
    assert_one_line(outcome, 2, str(tmp_path / "prompts"), message)


def test_an_unknown_model_is_answered_with_what_there_is(generate: Generate) -> None:
    assert_one_line(generate(PROMPT, model="tinny"), 2, "model=tinny: no such model", "there are")


def test_a_hub_model_that_is_not_here_is_said_offline(generate: Generate) -> None:
    outcome = generate(PROMPT, "--offline", model="ByteDance/ContentV-8B")
    assert_one_line(outcome, 1, "not on this machine, and offline", "tiny")


def test_a_sidecar_of_another_model_or_kind_is_refused(
    generate: Generate, tmp_path: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert generate(PROMPT, "--num-frames", "1").code == 0
    sidecar = tmp_path / "out" / f"{NAME}.json"
    content = json.loads(sidecar.read_text())
    content["model"]["sha256"] = "0" * 64
    sidecar.write_text(json.dumps(content))
    assert main(["generate", "--from", str(sidecar), "--out", str(tmp_path / "b")]) == 1
    assert "not the one of" in capfd.readouterr().err
    assert main(["generate", "--from", str(model / "model_index.json")]) == 2
    assert "not the JSON file of a video" in capfd.readouterr().err


# ---- a bad world


@pytest.fixture
def broken(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "model"))


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _swap(file: Path) -> None:
    shutil.copy(file.parents[1] / "text_encoder" / "model.safetensors", file)


@pytest.mark.parametrize(
    ("file", "harm", "part"),
    [
        ("transformer/diffusion_pytorch_model.safetensors", Path.unlink, "transformer"),
        ("text_encoder_3/model.safetensors", Path.unlink, "text_encoder_3"),
        ("vae/diffusion_pytorch_model.safetensors", _cut, "not a whole safetensors file"),
        ("text_encoder/model.safetensors", _cut, "not a whole safetensors file"),
        ("transformer/diffusion_pytorch_model.safetensors", _swap, "transformer"),
        ("vae/diffusion_pytorch_model.safetensors", _swap, "vae"),
        ("text_encoder_3/model.safetensors", _swap, "text_encoder_3"),
        ("vae", shutil.rmtree, "vae"),
        ("transformer/config.json", Path.unlink, "transformer"),
        ("scheduler/scheduler_config.json", Path.unlink, "scheduler"),
        ("tokenizer/tokenizer.json", lambda file: file.write_text("{"), "tokenizer"),
        ("model_index.json", lambda file: file.write_text("{"), "model_index.json"),
    ],
)
def test_a_broken_model_folder_is_one_line_and_no_file(
    generate: Generate, broken: Path, file: str, harm: Callable[[Path], object], part: str
) -> None:
    harm(broken / file)
    assert_one_line(generate(PROMPT, model=broken), 1, str(broken), part)
    assert not (broken.parent / "out").exists() or names(broken.parent / "out") == []


def test_a_model_that_computes_nan_gives_no_black_file(generate: Generate, broken: Path) -> None:
    _fill_with_nan(broken / "transformer" / "diffusion_pytorch_model.safetensors")
    assert_one_line(generate(PROMPT, model=broken), 1, "NaN or infinite", "step 1")
    assert names(broken.parent / "out") == []


def _fill_with_nan(file: Path) -> None:
    data = bytearray(file.read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    nan = struct.pack("<f", float("nan"))
    data[begin:] = nan * ((len(data) - begin) // 4)
    file.write_bytes(data)


def test_a_folder_without_index_is_no_model(generate: Generate, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    outcome = generate(PROMPT, model=tmp_path / "empty")
    assert_one_line(outcome, 2, "has no model_index.json")


@pytest.mark.parametrize("place", ["/proc/videos", "file/videos"])
def test_an_unwritable_place_is_said_before_sampling(
    generate: Generate, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("")
    assert_one_line(generate(PROMPT, out=tmp_path / place), 1, "cannot write", place)


# ---- the demo of the published repository


def demo(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["demo.py", *arguments])
    runpy.run_path(str(Path(__file__).parents[2] / "demo.py"), run_name="__main__")


def test_the_demo_writes_a_video(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):  # again and again, without a question
        demo(tmp_path, monkeypatch, "--model_id", str(model))
    assert names(tmp_path) == ["video.json", "video.mp4"]


def test_where_the_demo_cannot_load_the_model_it_names_the_tiny_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(SystemExit) as caught:
        demo(tmp_path, monkeypatch)
    assert isinstance(caught.value.code, str)  # what Python prints before it exits with 1
    assert "ByteDance/ContentV-8B" in caught.value.code
    assert "--model_id tiny" in caught.value.code
    assert "\n" not in caught.value.code
