"""The shapes that clips are trained in, and which of them a clip gets."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from contentv.base.config import Config
from contentv.video.shapes import VideoShape

Bucket: TypeAlias = VideoShape
"""Frames, height and width of the clips that are trained together; 1 frame: pictures."""

RATIOS = ((16, 9), (3, 2), (4, 3), (1, 1), (3, 4), (2, 3), (9, 16))
# One to five seconds at 24 fps, with the five frames that make each of them 4k+1.
DURATIONS = (29, 53, 77, 101, 125)
_SAME_SPEED = 0.05  # 23.976, 24 and 25 fps are used frame for frame

Reason = Literal["no_pictures", "no_videos", "too_slow", "too_short", "too_small", "too_narrow"]


class BucketConfig(Config):
    """The grid of buckets: each area in each of seven aspect ratios, times each number of frames.

    No bucket has more pixels than its area. Videos are brought to `fps` by leaving frames out.
    """

    areas: tuple[int, ...] = Field(
        (432 * 768,), min_length=1, description="pixels of a frame: one or more resolutions"
    )
    frames: tuple[int, ...] = Field(
        (1, *DURATIONS), min_length=1, description="lengths to train on; 1 stands for pictures"
    )
    fps: float = Field(24.0, gt=0, le=1000, description="frames a second that training shows")
    multiple: int = Field(16, gt=0, description="what height and width divide by")
    max_crop: float = Field(
        0.5, ge=0, lt=1, description="drop clips that would lose a larger share of the picture"
    )

    @field_validator("frames")
    @classmethod
    def _whole_latent_frames(cls, frames: tuple[int, ...]) -> tuple[int, ...]:
        for count in frames:
            if count < 1 or (count - 1) % 4:
                below = max(1, (count - 1) // 4 * 4 + 1)
                raise ValueError(f"frames={count}: must be 4k+1; use {below} or {below + 4}")
        return tuple(sorted(set(frames)))

    @model_validator(mode="after")
    def _room_for_a_bucket(self) -> "BucketConfig":
        least = 4 * self.multiple**2
        for area in self.areas:
            if area < least:
                raise ValueError(f"areas={area}: too small for its shapes; use {least} or more")
        return self


@dataclass(frozen=True, slots=True)
class Size:
    """What is known of a clip before it is decoded; pictures have one frame."""

    frames: int
    height: int
    width: int
    fps: float
    is_picture: bool


@dataclass(frozen=True, slots=True)
class Fit:
    """How a clip is brought to its bucket: resized to `height` x `width`, then cut out of that.

    `frames` is how many there are to choose from at the training's fps, one for every `stride`
    frames of the file.
    """

    bucket: Bucket
    height: int
    width: int
    frames: int
    stride: float

    @property
    def cropped(self) -> float:
        """Share of the picture that is cut off, 0..1."""
        return 1 - self.bucket.height * self.bucket.width / (self.height * self.width)

    def times(self, start: float) -> tuple[int, ...]:
        """Numbers of the frames used, counted in the file; `start` in 0..1 chooses the first."""
        first = round(start * (self.frames - self.bucket.frames))
        return tuple(round((first + i) * self.stride) for i in range(self.bucket.frames))

    def corner(self, down: float, right: float) -> tuple[int, int]:
        """Top and left of the part used, in the resized picture; 0..1 each, 0.5 is the middle."""
        top, left = self.height - self.bucket.height, self.width - self.bucket.width
        return round(down * top), round(right * left)


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a clip fits no bucket: the reason to count by, and the sentence for a person."""

    reason: Reason
    detail: str


class Buckets:
    """The buckets of a configuration, smallest first, and the one that suits a clip."""

    def __init__(self, config: BucketConfig) -> None:
        self.config = config
        self._tiers = [
            list(dict.fromkeys(sides(area, ratio, config.multiple) for ratio in RATIOS))
            for area in sorted(config.areas, reverse=True)
        ]
        self._video_frames = [count for count in config.frames if count > 1]
        flat = {size for tier in self._tiers for size in tier}
        shapes = (Bucket(count, *size) for count in config.frames for size in flat)
        self.shapes = tuple(sorted(shapes, key=_order))

    def fit(self, size: Size) -> Fit | Misfit:
        """Give the bucket of nearest aspect ratio, then of the most pixels, then the longest.

        Nothing is enlarged, in space or in time.
        """
        if size.is_picture:
            return self._in_space(size, 1, 1, 1.0)
        if not self._video_frames:
            return Misfit("no_videos", "this stage trains on pictures only")
        speed = size.fps / self.config.fps
        stride = speed if abs(speed - 1) > _SAME_SPEED else 1.0
        if stride < 1:
            rule = "no frame is shown twice; set fps to the data's own"
            return Misfit("too_slow", f"{size.fps:g} fps, training {self.config.fps:g}: {rule}")
        # A hair more than the quotient: 48 fps are exactly twice 24, whatever division says.
        usable = math.floor((size.frames - 1) / stride + 1e-6) + 1
        place = bisect_right(self._video_frames, usable)
        if not place:
            need = f"the shortest bucket has {self._video_frames[0]}"
            return Misfit("too_short", f"{usable} frames at {self.config.fps:g} fps; {need}")
        return self._in_space(size, self._video_frames[place - 1], usable, stride)

    def _in_space(self, size: Size, frames: int, usable: int, stride: float) -> Fit | Misfit:
        if frames not in self.config.frames:
            return Misfit("no_pictures", "this stage trains on videos only")
        aspect = math.log(size.width / size.height)
        for tier in self._tiers:
            height, width = min(tier, key=lambda side: abs(math.log(side[1] / side[0]) - aspect))
            scale = max(height / size.height, width / size.width)
            if scale <= 1:
                fit = Fit(
                    Bucket(frames, height, width),
                    max(height, round(size.height * scale)),
                    max(width, round(size.width * scale)),
                    usable,
                    stride,
                )
                return self._judge_crop(size, fit)
        need = f"its smallest bucket is {height}x{width}, and nothing is enlarged"
        return Misfit("too_small", f"{size.height}x{size.width}: {need}")

    def _judge_crop(self, size: Size, fit: Fit) -> Fit | Misfit:
        if fit.cropped <= self.config.max_crop:
            return fit
        lost = f"{fit.cropped:.0%} would be cut off, more than max_crop={self.config.max_crop:g}"
        return Misfit("too_narrow", f"{size.height}x{size.width}: {lost}")


def sides(area: int, ratio: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Height and width, multiples of `multiple`, of no more than `area` pixels together.

    Of all such pairs the nearest to `ratio` (width to height) and to the area, by their logs; the
    ratio counts twice. Turning the ratio turns the pair.
    """
    wide, high = ratio
    if wide < high:
        width, height = sides(area, (high, wide), multiple)
        return height, width

    def error(size: tuple[int, int]) -> float:
        height, width = size
        return 2 * abs(math.log(width * high / (height * wide))) - math.log(height * width)

    middle = int(math.sqrt(area * high / wide) / multiple)
    pairs = []
    for height in (multiple * count for count in range(max(1, middle - 1), middle + 2)):
        most = area // height // multiple * multiple
        fitting = min(most, round(height * wide / high / multiple) * multiple)
        pairs += [(height, width) for width in (most, fitting) if width]
    return min(pairs, key=error)


def ratio_name(bucket: Bucket) -> str:
    """The named aspect ratio nearest to a bucket, such as `16:9`."""
    aspect = math.log(bucket.width / bucket.height)
    wide, high = min(RATIOS, key=lambda ratio: abs(math.log(ratio[0] / ratio[1]) - aspect))
    return f"{wide}:{high}"


def bucket_name(bucket: Bucket) -> str:
    """A bucket as people write it, frames x height x width: `125x432x768`."""
    return f"{bucket.frames}x{bucket.height}x{bucket.width}"


def _order(bucket: Bucket) -> tuple[int, int, int]:
    return bucket.frames, bucket.height * bucket.width, bucket.height
