"""Contact sheets: a clip as a strip of frames, many strips with their texts on one picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from contentv.base.files import atomic_path
from contentv.base.types import Frame, Frames

STRIP_FRAMES = 5
_READABLE_SIDE = 96
_GAP = 16
_FONT_SIZE = 15
_LINE = 19
_PAPER, _INK, _RED = (255, 255, 255), (30, 30, 30), (176, 32, 32)


@dataclass(frozen=True)
class Cell:
    """One clip on a sheet: its strip [h w 3], what it was to show, and what is wrong."""

    strip: Frame
    text: str
    note: str = ""


def strip(frames: Frames, count: int = STRIP_FRAMES) -> Frame:
    """Put `count` frames of [t h w 3] side by side, a white line between: [h count*(w+1)-1 3].

    The first and the last frame are among them.
    """
    picked = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    lined = np.pad(frames[picked], ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=255)
    return np.concatenate(list(lined), axis=1)[:, :-1]


def write_sheet(path: Path, cells: Sequence[Cell], *, columns: int = 3) -> Path:
    """Write a PNG with one cell per clip, row by row; all strips are of one size."""
    with atomic_path(path) as part:
        draw_sheet(cells, columns=columns).save(part)
    return path


def draw_sheet(cells: Sequence[Cell], *, columns: int = 3) -> Image.Image:
    """Draw at least one cell; small frames are enlarged by a whole factor."""
    pictures = [_enlarged(cell.strip) for cell in cells]
    width, height = pictures[0].size
    font = ImageFont.load_default(_FONT_SIZE)
    texts = [_lines(cell, font, width) for cell in cells]
    columns = min(columns, len(cells))
    rows = [range(i, min(i + columns, len(cells))) for i in range(0, len(cells), columns)]
    heights = [height + _LINE * max(len(texts[i]) for i in row) + _GAP for row in rows]
    sheet = Image.new("RGB", (columns * (width + _GAP) + _GAP, sum(heights) + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    top = _GAP
    for row, row_height in zip(rows, heights, strict=True):
        for column, i in enumerate(row):
            left = _GAP + column * (width + _GAP)
            sheet.paste(pictures[i], (left, top))
            for line, (text, colour) in enumerate(texts[i]):
                draw.text((left, top + height + 2 + line * _LINE), text, fill=colour, font=font)
        top += row_height
    return sheet


def _enlarged(picture: NDArray[np.uint8]) -> Image.Image:
    scale = -(-_READABLE_SIDE // picture.shape[0])
    image = Image.fromarray(picture)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_Line = tuple[str, tuple[int, int, int]]


def _lines(cell: Cell, font: _Font, width: int) -> list[_Line]:
    return [
        (line, colour)
        for text, colour in ((cell.text, _INK), (cell.note, _RED))
        for line in _wrapped(text, font, width)
    ]


def _wrapped(text: str, font: _Font, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
