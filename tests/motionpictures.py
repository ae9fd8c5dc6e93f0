"""Moving pictures of known speed for tests of motion, as `video.watching` would show them."""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from contentv.base.types import Frame
from contentv.curation.scoring.motion import MotionStep
from contentv.curation.settings import MotionSettings
from contentv.curation.step import WHOLE, Box, Footage, Picture, Row, Span
from contentv.video.watching import LUMA_RATE, LUMA_SIDE

FOOTAGE = Footage("0" * 32, Path("a.mp4"), "video", 480, 270, 24.0, Fraction(1, 24), 0)


def texture(width: int, height: int, seed: int = 0) -> Frame:
    """A picture with detail of every size and no edge, ``[h w 3]``."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width))
    for grain in (4, 8, 16, 32, 64):
        coarse = rng.standard_normal((height // grain + 2, width // grain + 2)).astype(np.float32)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(smooth) * grain**0.5
    low, high = total.min(), total.max()
    return np.repeat((255 * (total - low) / (high - low)).astype(np.uint8)[..., None], 3, 2)


def luma(frame: Frame) -> Picture:
    """Grey, at most 256 pixels long."""
    picture = Image.fromarray(frame).convert("L")
    scale = min(1.0, LUMA_SIDE / max(picture.size))
    width, height = (round(side * scale) for side in picture.size)
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX))


def shown(frames: Iterable[Frame], fps: float) -> Iterator[tuple[float, Picture]]:
    """Times and luma pictures: the first frame of every eighth of a second."""
    due = 0
    for number, frame in enumerate(frames):
        if number / fps * LUMA_RATE >= due - 0.03:
            due = int(number / fps * LUMA_RATE + 0.03) + 1
            yield number / fps, luma(frame)


def clip(start: float = 0.0, end: float = 60.0, number: int = 0) -> Span:
    """A video's span in seconds."""
    return Span(f"{number:032x}", "video", 0, start, end, round(24 * start), round(24 * end))


def measured(
    frames: Iterable[Frame],
    fps: float = 24.0,
    *,
    crop: Box = WHOLE,
    spans: Sequence[Span] = (clip(),),
) -> list[Row]:
    """Watch frames and score spans of them, the whole by default."""
    watcher = MotionStep(MotionSettings()).watch(FOOTAGE)
    for time, picture in shown(frames, fps):
        watcher.see(time, picture)
    return watcher.score(spans, [crop] * len(spans))


def turned(picture: Frame, rate: float, *, size: tuple[int, int], count: int) -> Iterator[Frame]:
    """Turn a picture counter-clockwise by `rate` degrees from frame to frame."""
    width, height = picture.shape[1], picture.shape[0]
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    for number in range(count):
        whole = Image.fromarray(picture).rotate(rate * number, Image.Resampling.BICUBIC)
        yield np.asarray(whole.crop((left, top, left + size[0], top + size[1])))


def passing(
    background: Iterable[Frame], thing: Frame, speed: float, *, fps: float
) -> Iterator[Frame]:
    """Lay a thing over frames; it moves to the right by `speed` pixels a second."""
    high, wide = thing.shape[:2]
    for number, frame in enumerate(background):
        left, top = round(frame.shape[1] * 0.1 + speed * number / fps), frame.shape[0] // 3
        picture = frame.copy()
        picture[top : top + high, left : left + wide] = thing
        yield picture
