import io
import sys
from fractions import Fraction
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image

from contentv.base.errors import UserError
from contentv.base.types import Frame
from contentv.curation.scoring.hashes import HashStep, phash
from contentv.curation.settings import HashSettings
from contentv.curation.step import WHOLE, Footage, Span

FOOTAGE = Footage("v", Path("v.mp4"), "video", 320, 180, 24.0, Fraction(1, 24), 0)


def landscape(seed: int, height: int = 180, width: int = 320) -> Frame:
    """Soft patches of brightness, as in photographs."""
    rough = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    picture = Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(picture)


def apart(one: str, other: str) -> float:
    return (int(one, 16) ^ int(other, 16)).bit_count() / (4 * len(one))


def test_a_small_picture_has_the_library_s_hash() -> None:
    picture = landscape(0, 90, 120)
    assert phash(picture) == str(imagehash.phash(Image.fromarray(picture)))


@pytest.mark.parametrize("seed", range(4))
def test_hashes_survive_poor_encoding_and_scaling_but_no_mirror(seed: int) -> None:
    picture = landscape(seed)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "jpeg", quality=25)
    poor = np.asarray(Image.open(buffer))
    half = np.asarray(Image.fromarray(picture).resize((160, 90), Image.Resampling.BOX))
    assert apart(phash(picture), phash(poor)) < 0.1
    assert apart(phash(picture), phash(half)) < 0.1
    assert apart(phash(picture), phash(picture[:, ::-1])) > 0.3
    assert apart(phash(picture), phash(landscape(seed + 100))) > 0.2


def test_a_clip_s_hash_is_that_of_its_samples_in_order() -> None:
    pictures = [landscape(seed) for seed in range(6)]
    watcher = HashStep(HashSettings()).watch(FOOTAGE)
    for number, picture in enumerate(pictures):
        watcher.see(number + 0.5, picture)
    spans = [
        Span("a", "video", 0, 1.0, 5.0, 24, 120),
        Span("b", "picture", 0, 2.5, 2.5, 60, 60),
        Span("c", "video", 1, 9.0, 12.0, 216, 288),
    ]
    rows = watcher.score(spans, [WHOLE] * 3)
    assert rows == [
        {"phash": "".join(phash(picture) for picture in pictures[1:5])},
        {"phash": phash(pictures[2]) * 4},
        {"phash": None},
    ]


def test_without_the_library_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(UserError, match=r"contentv\[curate\]"):
        phash(landscape(0))
