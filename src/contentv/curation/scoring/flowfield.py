"""Where every point of a picture goes in the next one.

`dis_flow` is the one place to exchange: GMFlow (the paper's) or RAFT need only be a `FlowFunction`.
Their weights are in no package, so OpenCV's DIS stands here, which needs none.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from contentv.curation.scoring.vision import opencv
from contentv.curation.step import Picture

Flow: TypeAlias = NDArray[np.float32]
"""``[h w 2]``: how far each point moves to the right and down, in pixels."""

FlowFunction: TypeAlias = Callable[[Picture, Picture], Flow]
"""From two luma pictures ``[h w]`` of one size to the flow from the first to the second."""

SMALLEST = 24  # pixels: the shortest side with room for DIS's patches on its finest scale

# Between OpenCV's presets: `fast` stops at a quarter of the resolution and measures zooms 6 % too
# slow; `medium` takes 1.6 times as long as this, and gains half a percent.
_FINEST_SCALE, _PATCH, _STRIDE = 1, 8, 4
_DESCENT_STEPS, _REFINEMENT_STEPS = 16, 3


def dis_flow() -> FlowFunction:
    """Dense inverse search (Kroeger et al. 2016) on one thread."""
    cv2 = opencv()
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(_FINEST_SCALE)
    search.setPatchSize(_PATCH)
    search.setPatchStride(_STRIDE)
    search.setGradientDescentIterations(_DESCENT_STEPS)
    search.setVariationalRefinementIterations(_REFINEMENT_STEPS)
    return lambda first, second: search.calc(first, second, None)


def explained(first: Picture, second: Picture, flow: Flow) -> float:
    """Give the part of the picture whose change the flow explains: 0..1.

    Of a window's change (mean square difference) the flow must remove more than half. Noise makes a
    flow too, but none that turns one picture into the other: of noise alone nothing is explained.
    """
    cv2 = opencv()
    height, width = first.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    border = cv2.BORDER_REPLICATE
    moved = cv2.remap(second, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, None, border)
    before, after = (_window_means(cv2.absdiff(first, other)) for other in (second, moved))
    return float(np.mean((after < _LEFT * before) & (before > _VISIBLE)))


def texture(picture: Picture) -> NDArray[np.float32]:
    """How surely each point's movement can be told, ``[h w]``.

    The least eigenvalue of the structure tensor. A flat place goes along with its surroundings, an
    edge along itself: both seem too slow.
    """
    cv2 = opencv()
    values: NDArray[np.float32] = cv2.cornerMinEigenVal(
        cv2.GaussianBlur(picture, (0, 0), _SMOOTH), _PATCH + 1
    )
    return values


_SMOOTH = 1.0  # pixels: compression's own texture does not move along

_LEFT = 0.5
_VISIBLE = 0.5  # squared grey levels: less is rounding
_WINDOW = 17  # pixels


def _window_means(difference: Picture) -> NDArray[np.float32]:
    squares = np.square(difference, dtype=np.float32)
    means: NDArray[np.float32] = opencv().boxFilter(squares, -1, (_WINDOW, _WINDOW))
    return means
