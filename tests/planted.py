"""Defects planted into real pictures: text, logos, borders, blur; and motion of known speed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from contentv.base.types import Frame

Logo: TypeAlias = Literal["word", "ring", "star"]
LOGOS: tuple[Logo, ...] = ("word", "ring", "star")
CORNERS = ("top left", "top right", "bottom left", "bottom right")
_WORDS = ("never", "wanted", "leave", "this", "place", "without", "you", "tell", "them", "what")


@dataclass(frozen=True)
class Edges:
    """Pixels of black at each side of a frame."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0


def line(seed: int, number: int) -> str:
    """A line of subtitles: 3 to 8 words."""
    rng = np.random.default_rng([seed, number, 7])
    words = rng.choice(_WORDS, int(rng.integers(3, 9)))
    return " ".join(words).capitalize() + str(rng.choice([".", "?", "!"]))


def subtitled(frame: Frame, text: str, *, height: float = 0.065, bottom: float = 0.05) -> Frame:
    """Write a line in white with a black edge, centred. Both numbers are parts of the height."""
    picture = Image.fromarray(frame)
    draw, font = ImageDraw.Draw(picture), _font(round(height * frame.shape[0]))
    wide = draw.textlength(text, font)
    if wide > 0.92 * picture.width:
        font = _font(int(height * frame.shape[0] * 0.92 * picture.width / wide))
    place = (picture.width / 2, (1 - bottom) * picture.height)
    edge = max(1, picture.height // 270)
    draw.text(place, text, "white", font, anchor="md", stroke_width=edge, stroke_fill="black")
    return np.asarray(picture)


def subtitles(seed: int, fps: int, *, persistent: bool) -> Callable[[int], str]:
    """Give the text of each frame: another line every 2 s with short gaps, or always the same."""

    def text(number: int) -> str:
        if persistent:
            return line(seed, 0)
        index, place = divmod(number, 2 * fps)
        return "" if place > 1.8 * fps else line(seed, index)

    return text


def logo(size: tuple[int, int], seed: int) -> NDArray[np.float32]:
    """Coverage ``[h w]`` 0..1 of a word, ring or star in a corner of a frame of `size` (w, h)."""
    rng = np.random.default_rng([seed, 11])
    corner, shape = str(rng.choice(CORNERS)), LOGOS[int(rng.integers(len(LOGOS)))]
    side = round(float(rng.uniform(0.12, 0.18)) * size[1])
    picture = Image.new("L", size)
    margin = round(float(rng.uniform(0.03, 0.06)) * size[1])
    stamp = _stamp(shape, side, int(rng.integers(100)))
    left = margin if "left" in corner else size[0] - margin - stamp.width
    top = margin if "top" in corner else size[1] - margin - stamp.height
    picture.paste(stamp, (left, top))
    return np.asarray(picture, np.float32) / 255


def overlaid(frame: Frame, cover: NDArray[np.float32], alpha: float) -> Frame:
    """Lay white over a frame with opacity `alpha` where `cover` is 1."""
    part = alpha * cover[..., None]
    return np.asarray(np.rint(frame * (1 - part) + 255 * part), np.uint8)


def bordered(frame: Frame, edges: Edges) -> Frame:
    """Scale the picture into a black frame of its own size."""
    height, width = frame.shape[:2]
    inner = (width - edges.left - edges.right, height - edges.top - edges.bottom)
    out = np.zeros_like(frame)
    scaled = np.asarray(Image.fromarray(frame).resize(inner, Image.Resampling.BICUBIC))
    out[edges.top : edges.top + inner[1], edges.left : edges.left + inner[0]] = scaled
    return out


def blurred(frame: Frame, sigma: float) -> Frame:
    """Blur with a Gaussian of `sigma` pixels."""
    return np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(sigma)))


def noisy(frame: Frame, sigma: float, rng: np.random.Generator) -> Frame:
    """Add noise of standard deviation `sigma`, of 255."""
    noise = rng.normal(0, sigma, frame.shape)
    return np.asarray(np.clip(np.rint(frame + noise), 0, 255), np.uint8)


def panned(
    picture: Frame, speed: tuple[float, float], *, size: tuple[int, int], fps: int, count: int
) -> Iterator[Frame]:
    """Move a window of `size` (w, h) over a picture by `speed` (x, y) pixels a second, centred."""
    middle = np.array([picture.shape[1], picture.shape[0]]) / 2
    steps = np.arange(count) - (count - 1) / 2
    for step in steps:
        centre = middle + np.array(speed) * step / fps
        yield _window(picture, centre, np.array(size, float), size)


def zoomed(
    picture: Frame, rate: float, *, size: tuple[int, int], fps: int, count: int
) -> Iterator[Frame]:
    """Enlarge the middle of a picture `rate` times a second; it begins as large as it can be."""
    middle = np.array([picture.shape[1], picture.shape[0]]) / 2
    widest = np.array(size, float) * min(picture.shape[1] / size[0], picture.shape[0] / size[1])
    slowest = 1.0 if rate >= 1 else rate ** ((count - 1) / fps)
    for number in range(count):
        yield _window(picture, middle, widest * slowest / rate ** (number / fps), size)


def pan_speed(speed: tuple[float, float], size: tuple[int, int]) -> float:
    """Say a pan in diagonals a second."""
    return float(np.hypot(*speed) / np.hypot(*size))


def zoom_speed(rate: float, size: tuple[int, int], interval: float) -> float:
    """Mean way of a picture's points in a zoom, in diagonals a second, seen every `interval` s."""
    x, y = np.meshgrid(
        np.arange(size[0]) - (size[0] - 1) / 2, np.arange(size[1]) - (size[1] - 1) / 2
    )
    return float(np.hypot(x, y).mean() * abs(rate**interval - 1) / interval / np.hypot(*size))


def _window(
    picture: Frame,
    centre: NDArray[np.floating],
    extent: NDArray[np.floating],
    size: tuple[int, int],
) -> Frame:
    low, high = centre - extent / 2, centre + extent / 2
    limit = np.array([picture.shape[1], picture.shape[0]])
    if (low < -1e-6).any() or (high > limit + 1e-6).any():
        raise ValueError(f"a window of {extent} at {centre} lies outside of a picture of {limit}")
    box = (*np.maximum(low, 0).tolist(), *np.minimum(high, limit).tolist())
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC, box=box))


def _stamp(shape: Logo, side: int, number: int) -> Image.Image:
    if shape == "word":
        font, text = _font(side // 2), f"TV{number}"
        wide = round(ImageDraw.Draw(Image.new("L", (1, 1))).textlength(text, font))
        stamp = Image.new("L", (wide + 2, side // 2 + 4))
        ImageDraw.Draw(stamp).text((1, stamp.height // 2), text, 255, font, anchor="lm")
        return stamp
    stamp = Image.new("L", (4 * side, 4 * side))
    draw = ImageDraw.Draw(stamp)
    if shape == "ring":
        draw.ellipse((0, 0, 4 * side - 1, 4 * side - 1), outline=255, width=max(8, side // 2))
    else:
        draw.polygon(_star(4 * side), fill=255)
    return stamp.resize((side, side), Image.Resampling.LANCZOS)


def _star(side: int) -> Sequence[tuple[float, float]]:
    angles = np.arange(10) * np.pi / 5 - np.pi / 2
    radii = np.where(np.arange(10) % 2, 0.2, 0.5) * side
    places = side / 2 + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    return [(float(x), float(y)) for x, y in places]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
