"""Blur: the variance of a picture's Laplacian, and how much of it one more blur takes away.

Sums are kept per tile of the picture, so that a crop found later needs no second look at pixels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from contentv.curation.scoring.vision import opencv
from contentv.curation.settings import BlurSettings
from contentv.curation.step import Box, Footage, Picture, Row, Span, Stream

_ROUNDING = 1e-6  # parts of the picture: a crop that ends where a tile ends holds the tile
_MEDIAN_OF_NOISE = 0.6745  # median of |x| where x is normal with variance 1
_LAPLACIAN = 20**0.5  # standard deviation of the Laplacian of white noise of deviation 1


class BlurStep:
    """How sharp each clip is inside its crop, at the size of the samples.

    Columns, over the samples of a clip:

    * `blur_p50`, `blur_min`: median and least variance of the Laplacian of brightness (0..255),
      low where the picture is blurred. Noise raises it.
    * `noise_sigma`: median of |HH| / 0.6745 over tiles and samples, where HH is the diagonal detail
      of a Haar wavelet: the standard deviation of white noise, in steps of 0.74.
    * `reblur`: median of that variance over the one after one more blur. Near 1 the picture was
      blurred already; None where it is of one colour.
    * `sharpness`: blur_p50 without what noise adds to it (20 noise_sigma^2, half of it at most),
      times reblur; 0 for one colour. The variance alone is also low for sharp pictures with little
      detail, and high for blurred ones with much contrast or noise.
    """

    name: ClassVar[str] = "blur"
    version: ClassVar[int] = 2
    stream: ClassVar[Stream] = "samples"
    columns: ClassVar[Mapping[str, type]] = {
        "blur_p50": float,
        "blur_min": float,
        "noise_sigma": float,
        "reblur": float,
        "sharpness": float,
    }

    def __init__(self, config: BlurSettings) -> None:
        self.config = config

    def watch(self, footage: Footage) -> "BlurWatcher":  # noqa: ARG002 - none of it matters here
        """Begin with a video."""
        return BlurWatcher(self.config)


class BlurWatcher:
    """Keeps 5 kB a sample: 17 MB an hour of footage."""

    def __init__(self, config: BlurSettings) -> None:
        self._config = config
        self._samples: list[_Sample] = []

    def see(self, time: float, picture: Picture) -> None:
        """Take the next sample, ``[h w 3]`` RGB."""
        cv2 = opencv()
        luma = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        edge = cv2.Laplacian(luma, cv2.CV_32F)
        # Whole numbers, as in the picture: rounding is most of what a blurred one has of edges.
        soft = cv2.Laplacian(cv2.GaussianBlur(luma, (0, 0), self._config.reblur), cv2.CV_32F)
        tiles = self._config.tiles
        sums = [_tile_sums(image, tiles) for image in (edge, edge**2, soft, soft**2)]
        sample = _Sample(time, luma.shape, np.stack(sums), _tile_noise(luma, tiles))
        self._samples.append(sample)

    def score(self, spans: Sequence[Span], crops: Sequence[Box]) -> list[Row]:
        """Give a row for each clip; None in all columns where nothing was seen of the crop."""
        return [self._row(span, crop) for span, crop in zip(spans, crops, strict=True)]

    def _row(self, span: Span, crop: Box) -> Row:
        samples = [sample for sample in self._samples if span.holds(sample.time)]
        if not samples or not samples[0].pixels(crop):
            return dict.fromkeys(BlurStep.columns)
        variances = [sample.variances(crop) for sample in samples]
        ratios = [sharp / soft for sharp, soft in variances if soft > 0]
        noise = np.concatenate([sample.noise[sample.inside(crop)].ravel() for sample in samples])
        sigma = float(np.median(noise)) / 2 / _MEDIAN_OF_NOISE
        middle = float(np.median([sharp for sharp, _ in variances]))
        reblur = float(np.median(ratios)) if ratios else None
        return {
            "blur_p50": middle,
            "blur_min": min(sharp for sharp, _ in variances),
            "noise_sigma": sigma,
            "reblur": reblur,
            "sharpness": _without_noise(middle, sigma) * (reblur or 0.0),
        }


def _without_noise(variance: float, sigma: float) -> float:
    # The noise of compressed video is not white: what is left of it would be too little.
    return variance - min(_LAPLACIAN**2 * sigma**2, variance / 2)


@dataclass(frozen=True)
class _Sample:
    """What is kept of a picture of `shape` pixels: sums over its tiles.

    `sums` are ``[4 rows columns]``: of the Laplacian, of its square, of both after a blur. `noise`
    is each tile's median, twice the coefficient HH.
    """

    time: float
    shape: tuple[int, int]
    sums: NDArray[np.float32]
    noise: NDArray[np.int16]

    def inside(self, crop: Box) -> tuple[slice, slice]:
        """Find the rows and columns of tiles that lie wholly in the crop."""
        height, width = self.shape
        rows, columns = self.noise.shape
        return (
            _between(_edges(height, rows), crop.y, crop.height),
            _between(_edges(width, columns), crop.x, crop.width),
        )

    def pixels(self, crop: Box) -> int:
        """Count the pixels of those tiles."""
        edges = map(_edges, self.shape, self.noise.shape)
        return math.prod(
            int(np.diff(at)[part].sum()) for at, part in zip(edges, self.inside(crop), strict=True)
        )

    def variances(self, crop: Box) -> tuple[float, float]:
        """Give the variance of the Laplacian in those tiles, as it is and after a blur."""
        total = self.sums[:, *self.inside(crop)].sum((1, 2), dtype=np.float64)
        edge, square, soft, soft_square = (total / self.pixels(crop)).tolist()
        return max(0.0, square - edge**2), max(0.0, soft_square - soft**2)


def _edges(side: int, tiles: int) -> NDArray[np.intp]:
    """Cut `side` pixels into at most `tiles` parts that differ by one pixel at most."""
    count = min(side, tiles)
    return np.arange(count + 1) * side // count


def _between(edges: NDArray[np.intp], start: float, length: float) -> slice:
    parts = edges / edges[-1]
    first = np.searchsorted(parts, start - _ROUNDING)
    last = np.searchsorted(parts, start + length + _ROUNDING, side="right") - 1
    return slice(int(first), max(int(first), int(last)))


def _tile_sums(image: NDArray[np.float32], tiles: int) -> NDArray[np.float32]:
    rows, columns = (_edges(side, tiles)[:-1] for side in image.shape)
    return np.add.reduceat(np.add.reduceat(image, rows, axis=0), columns, axis=1)


def _tile_noise(luma: Picture, tiles: int) -> NDArray[np.int16]:
    """Give each tile's median of |a - b - c + d| over squares of four pixels, evenly chosen."""
    height, width = luma.shape
    rows, columns = _chosen(height, tiles), _chosen(width, tiles)
    top, left = rows.ravel(), columns.ravel()
    down = luma[top].astype(np.int16) - luma[np.minimum(top + 1, height - 1)]
    detail = np.abs(down[:, left] - down[:, np.minimum(left + 1, width - 1)])
    squares = detail.reshape(*rows.shape, *columns.shape).transpose(0, 2, 1, 3)
    flat = squares.reshape(len(rows), len(columns), -1)
    middle = flat.shape[-1] // 2
    return np.partition(flat, middle, axis=-1)[..., middle]


def _chosen(side: int, tiles: int) -> NDArray[np.intp]:
    """Choose where squares begin: ``[tiles squares]``, two pixels apart or a little more."""
    count = min(side, tiles)
    each = max(1, side // 2 // count)
    return (np.arange(count * each) * side // (count * each)).reshape(count, each)
