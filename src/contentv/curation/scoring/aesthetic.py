"""Beauty: LAION's predictor where its weights are given, and a formula that needs none."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image
from pydantic import Field

from contentv.base.config import Config
from contentv.base.errors import UserError
from contentv.base.files import os_errors
from contentv.curation.scoring.instants import spread
from contentv.curation.scoring.looks import Looks, looks_of, proxy_score
from contentv.curation.scoring.spool import Spool
from contentv.curation.settings import AestheticSettings
from contentv.curation.step import Box, Footage, Picture, Row, Span, Stream
from contentv.curation.teaching.heads import load_laion_head

Judge = Callable[[Sequence[Picture]], list[float]]
"""From pictures ``[h w 3]`` RGB to LAION's score of each, about 1..10."""

_KEYS = 3  # samples of a clip that are judged: near its first, middle and last part
_SIDE = 320  # pixels: enough for CLIP's 224 after a crop to 0.7
_QUALITY = 95


class AestheticIdentity(Config):
    """Where the weights lie, and what they are: only that decides a score."""

    clip: Path | None = Field(None, exclude=True)
    head: Path | None = Field(None, exclude=True)
    weights: str = ""


def identified(settings: AestheticSettings) -> AestheticIdentity:
    """Read the files that settings name, once, and give the hash of all they hold.

    UserError for a folder without CLIP's files; WorldError for files that cannot be read.
    """
    if settings.clip is None or settings.head is None:
        return AestheticIdentity()
    shards = sorted(settings.clip.glob("*.safetensors"))
    named = [settings.clip / name for name in ("config.json", "preprocessor_config.json")]
    if not shards or not all(path.is_file() for path in named):
        needed = "config.json, preprocessor_config.json and .safetensors"
        raise UserError(f"{settings.clip}: needs {needed}; give a folder of CLIP-L/14")
    digest = hashlib.blake2b(digest_size=16)
    for path in (*named, *shards, settings.head):
        with os_errors(path, "read"), path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    where = {"clip": settings.clip.absolute(), "head": settings.head.absolute()}
    return AestheticIdentity(**where, weights=digest.hexdigest())


class AestheticStep:
    """How each clip looks inside its crop: means over up to 3 samples at uniform time.

    Columns:

    * `aes_proxy`: 0..10, `looks.proxy_score`: a formula of colour, contrast and exposure that was
      fitted to nobody's judgement. It sorts out the grey and the burnt, no more.
    * `aes_laion`: about 1..10, LAION's aesthetic head over CLIP-L/14 (1.5 GB of weights, given by
      path). None without them: the proxy never stands in for it.

    None where no sample of the clip was seen.
    """

    name: ClassVar[str] = "aesthetic"
    version: ClassVar[int] = 1
    stream: ClassVar[Stream] = "samples"
    columns: ClassVar[Mapping[str, type]] = {"aes_proxy": float, "aes_laion": float}

    def __init__(self, config: AestheticIdentity) -> None:
        self.config = config

    @cached_property
    def _judge(self) -> Judge | None:
        if self.config.clip is None or self.config.head is None:
            return None
        return laion_judge(self.config.clip, self.config.head)

    def watch(self, footage: Footage) -> "AestheticWatcher":  # noqa: ARG002 - none of it matters
        """Begin with a video; the first time, CLIP is loaded."""
        return AestheticWatcher(self._judge)


class AestheticWatcher:
    """Keeps sums of 9 kB a sample and, for CLIP, a small picture of each, on disk if many."""

    def __init__(self, judge: Judge | None) -> None:
        self._judge = judge
        self._times: list[float] = []
        self._looks: list[Looks] = []
        self._pictures = Spool()

    def see(self, time: float, picture: Picture) -> None:
        """Take the next sample, ``[h w 3]`` RGB."""
        self._times.append(time)
        self._looks.append(looks_of(picture))
        self._pictures.add(_packed(picture) if self._judge else b"")

    def score(self, spans: Sequence[Span], crops: Sequence[Box]) -> list[Row]:
        """Give a row for each clip."""
        return [self._row(span, crop) for span, crop in zip(spans, crops, strict=True)]

    def _row(self, span: Span, crop: Box) -> Row:
        keys = sorted(set(spread(self._times, span, _KEYS)))
        if not keys:
            return dict.fromkeys(AestheticStep.columns)
        proxy = float(np.mean([proxy_score(self._looks[key], crop) for key in keys]))
        if self._judge is None:
            return {"aes_proxy": proxy, "aes_laion": None}
        pictures = [_cropped(self._pictures.get(key), crop) for key in keys]
        return {"aes_proxy": proxy, "aes_laion": float(np.mean(self._judge(pictures)))}


def laion_judge(clip: Path, head: Path) -> Judge:
    """Load CLIP's vision tower and LAION's head for it."""
    from contentv.curation.scoring.clipvision import clip_embedder

    embed = clip_embedder(clip)
    score = load_laion_head(head)
    return lambda pictures: score(embed(pictures)).tolist()


def _packed(picture: Picture) -> bytes:
    image = Image.fromarray(picture)
    scale = min(1.0, _SIDE / min(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    content = BytesIO()
    small = image.resize(size, Image.Resampling.BICUBIC)
    small.save(content, "JPEG", quality=_QUALITY, subsampling=0)
    return content.getvalue()


def _cropped(content: bytes, crop: Box) -> Picture:
    with Image.open(BytesIO(content)) as image:
        left, top = round(crop.x * image.width), round(crop.y * image.height)
        right = max(left + 1, round((crop.x + crop.width) * image.width))
        bottom = max(top + 1, round((crop.y + crop.height) * image.height))
        return np.asarray(image.crop((left, top, right, bottom)))
