from pathlib import Path

import numpy as np
from PIL import Image

from contentv.evaluation.sheet import Cell, draw_sheet, strip, write_sheet


def clip(frames: int = 17, side: int = 64) -> np.ndarray:
    levels = np.arange(frames, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(levels, (frames, side, side, 3)).copy()


def test_a_strip_goes_from_the_first_frame_to_the_last() -> None:
    picture = strip(clip())
    assert picture.shape == (64, 5 * 64 + 4, 3)
    assert picture[0, ::65, 0].tolist() == [0, 4, 8, 12, 16]
    assert picture[0, 64::65, 0].tolist() == [255] * 4
    assert strip(clip(frames=1)).shape == (64, 64, 3)


def test_cells_stand_in_rows_with_room_for_their_text() -> None:
    short = Cell(strip(clip()), "a red circle")
    long = Cell(strip(clip()), "many words " * 40, note="colour: blue, not red")
    one, two, tall = draw_sheet([short]), draw_sheet([short] * 3, columns=2), draw_sheet([long])
    assert one.width >= 5 * 128
    assert two.width > 2 * 640
    assert two.height > 1.8 * one.height
    assert tall.height > one.height + 60


def test_the_file_shows_the_frames(tmp_path: Path) -> None:
    frames = np.full((5, 64, 64, 3), (215, 35, 45), np.uint8)
    path = write_sheet(tmp_path / "sheet.png", [Cell(strip(frames), "red all over")])
    with Image.open(path) as image:
        colours = {colour for _, colour in image.getcolors(1 << 20) or ()}
    assert (215, 35, 45) in colours
    assert list(tmp_path.iterdir()) == [path]
