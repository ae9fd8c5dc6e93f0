"""Array types of the layers below torch, and the legend of shape letters used everywhere.

b batch, c channel, t time, h height, w width, n tokens, d width of a token. A *video* tensor is
``[b 3 t h w]`` in -1..1, *latents* are ``[b c t h w]``, *frames* are bytes ``[t h w 3]``, RGB.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Frame: TypeAlias = NDArray[np.uint8]
"""One picture, ``[h w 3]``, RGB, 0..255."""

Frames: TypeAlias = NDArray[np.uint8]
"""A clip, ``[t h w 3]``, RGB, 0..255."""
