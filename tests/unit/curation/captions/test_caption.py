import json
from pathlib import Path
from typing import Any

import pytest

from captioners import SENTENCE, Reply, chat_server, completion, tiny_qwen
from contentv.base.errors import UserError, WorldError
from contentv.curation.captions.caption import CaptionResult, run
from contentv.curation.captions.captioner import Sampling
from contentv.curation.captions.showing import frame_numbers
from contentv.curation.captions.written import CAPTIONS_NAME, read_captions
from contentv.curation.products import CaptionConfig
from contentv.data.manifest import MANIFEST_NAME, Clip, read_manifest, write_manifest
from contentv.data.run import load_dataset
from contentv.toyworld.captions import parse
from contentv.toyworld.dataset import sample
from contentv.video.io import write_video

DETAILED = f"{SENTENCE}. The light is soft and the colours are those of an early autumn"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three exported clips of the toy world, one more that could not be cut."""
    clips = []
    for number in range(3):
        path = f"clips/{number}.mp4"
        write_video(tmp_path / path, sample(3, number).frames(33), fps=8, scale=2)
        clips.append(Clip(f"id{number}", path, "video", frames=33, fps=8.0, height=128, width=128))
    clips.append(Clip("bad", "clips/bad.mp4", "video", fault="cannot be cut"))
    write_manifest(tmp_path / MANIFEST_NAME, clips)
    return tmp_path


def ask(folder: Path, captioner: str, **settings: object) -> CaptionResult:
    return run(CaptionConfig.model_validate({"clips": folder, "captioner": captioner, **settings}))


def by_length(_: int, body: dict[str, Any]) -> Reply:
    return completion(DETAILED if body["max_tokens"] > 80 else SENTENCE)


def test_the_oracles_captions_state_what_the_clips_show(folder: Path) -> None:
    found = ask(folder, "oracle")
    assert (found.captioned, found.asked, found.unanswered) == (3, 6, 0)
    for number, clip in enumerate(read_manifest(folder / MANIFEST_NAME)[:3]):
        truth = sample(3, number).scene.facts
        for text in (clip.short, clip.long):
            said = parse(text.lower())
            assert said
            assert all(truth.get(name) == value for name, value in said.items()), text
        assert clip.captioner == "toyworld-oracle"


def test_captions_of_a_server_are_kept_and_not_asked_for_again(folder: Path) -> None:
    with chat_server(by_length) as server:
        first = ask(folder, server.url)
        assert (first.captioned, first.asked) == (3, 6)
        assert len(server.asked) == 6
        again = ask(folder, server.url)
        assert (again.captioned, again.asked) == (3, 0)
        assert len(server.asked) == 6
    clips = read_manifest(folder / MANIFEST_NAME)
    assert [clip.short for clip in clips] == [SENTENCE] * 3 + [""]
    assert clips[0].long == DETAILED
    assert clips[3].fault == "cannot be cut"
    (kept, *_) = read_captions(folder)
    assert kept.times == pytest.approx([0.5, 1.5, 2.5, 3.5], abs=0.2)


def test_one_clip_without_an_answer_is_asked_again_next_time(folder: Path) -> None:
    def answer(number: int, body: dict[str, Any]) -> Reply:
        return (400, {"error": "too large"}) if number == 2 else by_length(number, body)

    with chat_server(answer) as server:
        first = ask(folder, server.url, parallel=1)
        assert (first.asked, first.unanswered) == (5, 1)
        second = ask(folder, server.url, parallel=1)
        assert (second.asked, second.unanswered, second.captioned) == (1, 0, 3)


def test_an_answer_cut_short_gets_more_room(folder: Path) -> None:
    def answer(_: int, body: dict[str, Any]) -> Reply:
        text = DETAILED if body["max_tokens"] >= 400 else SENTENCE
        enough = body["max_tokens"] in (160, 1600)
        return completion(text, finish="stop" if enough else "length")

    with chat_server(answer) as server:
        found = ask(folder, server.url, parallel=1)
    assert [body["max_tokens"] for body in server.asked[:5]] == [80, 160, 400, 800, 1600]
    assert found.captioned == 3
    assert not found.faults


def test_an_answer_that_fails_a_check_is_asked_for_again_with_a_reminder(folder: Path) -> None:
    def answer(_: int, body: dict[str, Any]) -> Reply:
        reminded = "Write a shorter description." in json.dumps(body)
        return completion(SENTENCE) if reminded else completion("word " * 200)

    with chat_server(answer) as server:
        found = ask(folder, server.url, parallel=1)
    # The short ones are right the second time, the detailed ones, not reminded of that, never.
    assert len(server.asked) == 3 * (2 + 3)
    assert [clip.short for clip in read_manifest(folder / MANIFEST_NAME)][:3] == [SENTENCE] * 3
    assert found.faults == {"repeats": 3}


def test_a_refusal_is_a_row_with_its_reason_and_no_caption(folder: Path) -> None:
    with chat_server(lambda *_: completion("I'm sorry, I cannot describe this video.")) as server:
        found = ask(folder, server.url)
    assert found.captioned == 0
    assert found.faults == {"refused": 6}
    assert all(not clip.short for clip in read_manifest(folder / MANIFEST_NAME))


def test_a_line_cut_short_by_a_crash_is_asked_for_again(folder: Path) -> None:
    with chat_server(by_length) as server:
        ask(folder, server.url)
        path = folder / CAPTIONS_NAME
        whole = path.read_bytes()
        path.write_bytes(whole[:-20])
        assert ask(folder, server.url).asked == 1
        assert len(read_captions(folder)) == 6
        path.write_bytes(whole.replace(b'"clip"', b'"flip"', 1))
        with pytest.raises(WorldError, match="line 1 is damaged"):
            ask(folder, server.url)


def test_a_tiny_models_captions_are_marked_and_not_trained_on(folder: Path, tmp_path: Path) -> None:
    found = ask(folder, str(tiny_qwen(tmp_path / "qwen")), device="cpu")
    assert found.asked == 6
    rows = [json.loads(line) for line in (folder / CAPTIONS_NAME).read_text().splitlines()]
    assert {row["captioner"] for row in rows} == {"test:qwen"}
    write_manifest(
        folder / MANIFEST_NAME,
        [Clip("a", "clips/0.mp4", "video", "x", frames=1, fps=8.0, height=8, width=8,
              captioner="test:qwen")],
    )  # fmt: skip
    with pytest.raises(UserError, match="1 clips have captions by test:qwen"):
        load_dataset(folder, None, cache=tmp_path / "cache", workers=1)
    assert load_dataset(folder, None, cache=tmp_path / "cache", workers=1, test_captions=True)


@pytest.mark.parametrize("captioner", ["nothing", "oracles"])
def test_an_unknown_captioner_is_refused(folder: Path, captioner: str) -> None:
    with pytest.raises(UserError, match="or the word oracle"):
        ask(folder, captioner)


def test_a_folder_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`contentv curate export` writes it"):
        ask(tmp_path, "oracle")


@pytest.mark.parametrize(
    ("frames", "fps", "expected"),
    [(96, 24.0, [12, 36, 60, 84]), (5, 24.0, [2]), (24 * 60, 24.0, None), (1, 0.0, [0])],
)
def test_frames_are_spread_evenly(frames: int, fps: float, expected: list[int] | None) -> None:
    kind = "video" if fps else "picture"
    clip = Clip("a", "a.mp4", kind, frames=frames, fps=fps, height=8, width=8)  # type: ignore[arg-type]
    numbers = frame_numbers(clip, Sampling())
    assert numbers == (expected or numbers)
    assert len(numbers) <= 16
    assert numbers == sorted(set(numbers))
