from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from contentv.base.errors import UserError
from contentv.base.types import Frame
from contentv.curation.scoring.aesthetic import AestheticIdentity, AestheticStep, identified
from contentv.curation.scoring.clipvision import clip_embedder
from contentv.curation.scoring.looks import looks_of, proxy_score
from contentv.curation.settings import AestheticSettings
from contentv.curation.step import WHOLE, Box, Footage, Row, Span, key
from contentv.curation.teaching.heads import load_laion_head
from motionpictures import texture

FOOTAGE = Footage("0" * 32, Path("a.mp4"), "video", 480, 270, 24.0, Fraction(1, 24), 0)
WIDTHS = (768, 1024, 128, 64, 16, 1)


def clip(start: float, end: float) -> Span:
    return Span(f"{start}", "video" if end > start else "picture", 0, start, end, 0, 1)


def colourful(seed: int = 0, size: tuple[int, int] = (128, 96)) -> Frame:
    return np.stack([texture(*size, seed=3 * seed + c)[..., 0] for c in range(3)], axis=-1)


def scores(config: AestheticIdentity, pictures: list[Frame], spans: list[Span]) -> list[Row]:
    watcher = AestheticStep(config).watch(FOOTAGE)
    for number, picture in enumerate(pictures):
        watcher.see(number + 0.5, picture)
    return watcher.score(spans, [WHOLE] * len(spans))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> AestheticSettings:
    """A CLIP tower of real architecture, small and untrained, and a random head of LAION's form."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        image_size=56, patch_size=14, projection_dim=768,
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    size = {"height": 56, "width": 56}
    CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size=size).save_pretrained(folder)
    layers = {}
    for place, wide, out in zip((0, 2, 4, 6, 7), WIDTHS[:-1], WIDTHS[1:], strict=True):
        linear = torch.nn.Linear(wide, out)
        layers[f"layers.{place}.weight"], layers[f"layers.{place}.bias"] = linear.parameters()
    save_file({name: value.detach() for name, value in layers.items()}, folder / "head.safetensors")
    (folder / "heads").mkdir()
    (folder / "head.safetensors").rename(folder / "heads" / "head.safetensors")
    return AestheticSettings(clip=folder, head=folder / "heads" / "head.safetensors")


def test_the_proxy_ranks_grey_and_burnt_below_colour() -> None:
    good = colourful()
    grey = np.repeat((good.mean(-1, keepdims=True) / 4 + 90).astype(np.uint8), 3, axis=-1)
    burnt = np.clip(good.astype(int) * 3 + 100, 0, 255).astype(np.uint8)
    black = np.zeros_like(good)
    said = [proxy_score(looks_of(picture), WHOLE) for picture in (good, grey, burnt, black)]
    assert said[0] > said[1] > said[3]
    assert said[0] > said[2]
    assert all(0 <= score <= 10 for score in said)


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (480, 16)])
def test_the_proxy_of_any_size_is_finite(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert 0 <= proxy_score(looks_of(picture), WHOLE) <= 10


def test_the_proxy_of_a_crop_is_that_of_the_cropped_picture() -> None:
    picture = colourful(size=(128, 128))
    part = picture[32:, :96]
    cropped = proxy_score(looks_of(picture), Box(0, 0.25, 0.75, 0.75))
    assert cropped == pytest.approx(proxy_score(looks_of(part), WHOLE), abs=0.15)
    assert cropped != proxy_score(looks_of(picture), WHOLE)


def test_a_clip_is_the_mean_of_its_key_samples() -> None:
    pictures = [colourful(seed) for seed in range(5)]
    one = [proxy_score(looks_of(picture), WHOLE) for picture in pictures]
    spans = [clip(0, 3), clip(3.5, 3.5), clip(9, 12), clip(0, 2)]
    rows = scores(AestheticIdentity(), pictures, spans)
    assert rows.pop(2) == {"aes_proxy": None, "aes_laion": None}
    assert [row["aes_proxy"] for row in rows] == pytest.approx(
        [np.mean(one[:3]), one[3], np.mean(one[:2])]
    )
    assert [row["aes_laion"] for row in rows] == [None] * 3


def test_laions_score_comes_from_clip_and_head_alone(folders: AestheticSettings) -> None:
    assert folders.clip is not None
    assert folders.head is not None
    picture = colourful(7, (64, 56))
    [row] = scores(identified(folders), [picture] * 3, [clip(0, 3)])
    vectors = clip_embedder(folders.clip)([picture])
    assert np.linalg.norm(vectors) == pytest.approx(1)
    wanted = load_laion_head(folders.head)(vectors)[0]
    assert row["aes_laion"] == pytest.approx(wanted, abs=2e-3)  # it was kept as a JPEG
    assert row["aes_laion"] != row["aes_proxy"]


def test_the_crop_is_what_clip_sees(folders: AestheticSettings) -> None:
    half = np.concatenate([colourful(1, (64, 64)), colourful(2, (64, 64))], axis=1)
    step = AestheticStep(identified(folders))
    left, alone = step.watch(FOOTAGE), step.watch(FOOTAGE)
    left.see(0.5, half)
    alone.see(0.5, half[:, :64])
    [cropped] = left.score([clip(0, 1)], [Box(0, 0, 0.5, 1)])
    [whole] = alone.score([clip(0, 1)], [WHOLE])
    assert cropped["aes_laion"] == pytest.approx(whole["aes_laion"], abs=2e-3)


def test_other_weights_are_another_step_and_another_place_is_not(
    folders: AestheticSettings, tmp_path: Path
) -> None:
    assert folders.head is not None
    other = tmp_path / "head.safetensors"
    other.write_bytes(folders.head.read_bytes())
    moved = AestheticSettings(clip=folders.clip, head=other)
    names = [key("aesthetic", 1, identified(config)) for config in (folders, moved)]
    assert names[0] == names[1]
    data = bytearray(other.read_bytes())
    data[-1] ^= 1
    other.write_bytes(data)
    assert key("aesthetic", 1, identified(moved)) not in (
        names[0],
        key("aesthetic", 1, AestheticIdentity()),
    )


def test_folders_that_are_not_clips_are_refused(folders: AestheticSettings, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs config\.json"):
        identified(AestheticSettings(clip=tmp_path, head=folders.head))
    with pytest.raises(ValueError, match="give both, or neither"):
        AestheticSettings(clip=tmp_path)
    assert folders.clip is not None
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((folders.clip / name).read_bytes())
    save_file({"other": torch.zeros(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="lacks weights of CLIP's vision tower"):
        clip_embedder(tmp_path)
