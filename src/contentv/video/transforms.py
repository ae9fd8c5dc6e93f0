"""Value ranges and integer scaling of frames."""

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from contentv.base.types import Frames

if TYPE_CHECKING:
    from torch import Tensor

_READABLE_SIDE = 256

Values = TypeVar("Values", "Tensor", NDArray[np.floating])


def to_unit(video: Values) -> Values:
    """Map a video, tensor or array of any shape, from -1..1 to 0..1; what lies outside is cut."""
    return (video / 2 + 0.5).clip(0.0, 1.0)


def to_uint8(unit: NDArray[np.floating]) -> Frames:
    """Round values in 0..1 to bytes; what lies outside is cut off. ValueError on NaN."""
    if np.isnan(unit).any():
        raise ValueError("the picture has NaN values")
    return np.asarray(np.rint(np.clip(unit, 0.0, 1.0) * 255.0), np.uint8)


def from_uint8(frames: Frames) -> NDArray[np.float32]:
    """Map bytes to float32 in -1..1; the inverse of `to_uint8(to_unit(video))`."""
    return frames.astype(np.float32) / np.float32(127.5) - np.float32(1.0)


def enlarge(frames: Frames, scale: int) -> Frames:
    """Repeat each pixel `scale` times along height and width of `[... h w 3]`."""
    return frames if scale == 1 else frames.repeat(scale, axis=-3).repeat(scale, axis=-2)


def reduce(frames: Frames, scale: int) -> Frames:
    """Undo `enlarge`, also after lossy coding: the rounded mean of each `scale` x `scale` block."""
    if scale == 1:
        return frames
    *lead, height, width, channels = frames.shape
    if height % scale or width % scale:
        raise ValueError(f"{height}x{width} pixels do not divide by the scale {scale}")
    blocks = frames.reshape(*lead, height // scale, scale, width // scale, scale, channels)
    return np.asarray(np.rint(blocks.mean(axis=(-4, -2), dtype=np.float32)), np.uint8)


def display_scale(height: int, width: int) -> int:
    """Give the smallest whole factor that makes the shorter side at least 256 pixels."""
    return max(1, -(-_READABLE_SIDE // min(height, width)))
