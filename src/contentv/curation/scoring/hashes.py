"""Perceptual hashes: a few bits that survive re-encoding. The seam of imagehash."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from PIL import Image

from contentv.base.errors import UserError
from contentv.curation.scoring.instants import spread
from contentv.curation.settings import HashSettings
from contentv.curation.step import Box, Footage, Picture, Row, Span, Stream

DIGITS = 16
"""Hex digits of one picture's hash: 64 bits."""
_SIDE = 128  # pixels: the hash looks at 32x32, so that much is enough to begin with


class HashStep:
    """A hash of each clip by which `duplicates/dedup.py` knows a copy; a crop does not change it.

    Column `phash`: the 64-bit hashes of `frames` samples at uniform time, one after the other in
    hex. Each bit says whether one of the 64 lowest frequencies (DCT) of the picture's brightness is
    above their median. Equal for equal pictures, half the bits differ for others, and for mirrored
    ones too. None where no sample of the clip was seen.
    """

    name: ClassVar[str] = "hashes"
    version: ClassVar[int] = 1
    stream: ClassVar[Stream] = "samples"
    columns: ClassVar[Mapping[str, type]] = {"phash": str}

    def __init__(self, config: HashSettings) -> None:
        self.config = config

    def watch(self, footage: Footage) -> "HashWatcher":  # noqa: ARG002 - none of it matters here
        """Begin with a video."""
        return HashWatcher(self.config)


class HashWatcher:
    """Keeps 100 bytes a sample."""

    def __init__(self, config: HashSettings) -> None:
        self._config = config
        self._times: list[float] = []
        self._hashes: list[str] = []

    def see(self, time: float, picture: Picture) -> None:
        """Take the next sample, ``[h w 3]`` RGB."""
        self._times.append(time)
        self._hashes.append(phash(picture))

    def score(self, spans: Sequence[Span], crops: Sequence[Box]) -> list[Row]:  # noqa: ARG002
        """Give a row for each clip."""
        return [{"phash": self._hash(span)} for span in spans]

    def _hash(self, span: Span) -> str | None:
        chosen = spread(self._times, span, self._config.frames)
        return "".join(self._hashes[index] for index in chosen) or None


def phash(picture: Picture) -> str:
    """Hash a picture ``[h w 3]`` RGB to 16 hex digits; UserError where imagehash is missing."""
    try:
        import imagehash
    except ImportError as error:
        raise UserError("imagehash: needs pip install 'contentv[curate]'") from error
    grey = Image.fromarray(picture).convert("L")
    small = grey.reduce((max(1, grey.width // _SIDE), max(1, grey.height // _SIDE)))
    return str(imagehash.phash(small))
