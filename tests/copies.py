"""The seven ways in which one clip comes twice: what a de-duplication has to see through."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from composites import write
from contentv.base.types import Frame
from planted import line, subtitled

Shown: TypeAlias = list[Frame]
_POOR = 38  # x264's constant quality: blocks are seen


def half_scale(shown: Shown) -> Shown:
    """Half as wide and high; even sides."""
    height, width = shown[0].shape[:2]
    size = (width // 4 * 2, height // 4 * 2)
    return [np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BOX)) for f in shown]


def brighter(shown: Shown) -> Shown:
    """20 % brighter."""
    return [np.asarray(np.minimum(np.rint(f * 1.2), 255), np.uint8) for f in shown]


def cropped(shown: Shown) -> Shown:
    """Without 5 % at every side; even sides."""
    height, width = shown[0].shape[:2]
    y, x = round(0.05 * height), round(0.05 * width)
    tall, wide = (height - 2 * y) // 2 * 2, (width - 2 * x) // 2 * 2
    return [f[y : y + tall, x : x + wide] for f in shown]


def burnt_in(shown: Shown) -> Shown:
    """With a subtitle."""
    return [subtitled(f, line(3, 0)) for f in shown]


def flipped(shown: Shown) -> Shown:
    """Seen in a mirror."""
    return [f[:, ::-1] for f in shown]


def _same(shown: Shown) -> Shown:
    return shown


CHANGES: dict[str, Callable[[Shown], Shown]] = {
    "poor": _same,
    "half": half_scale,
    "brighter": brighter,
    "cropped": cropped,
    "subtitle": burnt_in,
    "shifted": _same,
    "flipped": flipped,
}


def write_copies(folder: Path, stem: str, shown: Shown, *, fps: int) -> dict[str, Path]:
    """Write a clip as `original` and its seven copies; `shown` has half a second more at its end.

    `shifted` begins half a second later than the others and ends half a second later.
    """
    late = fps // 2
    first, second = shown[:-late], shown[late:]
    written = {"original": folder / f"{stem}-original.mp4"}
    write(written["original"], first, fps=fps)
    for name, change in CHANGES.items():
        written[name] = folder / f"{stem}-{name}.mp4"
        pictures = change(second if name == "shifted" else first)
        write(written[name], pictures, fps=fps, crf=_POOR if name == "poor" else 20)
    return written
