"""Time stamps of frames in the order in which they are shown."""

import heapq
from collections import deque
from collections.abc import Iterable, Iterator

from av.video.frame import VideoFrame

_REORDERED = 4  # more frames than any common encoder holds back


def in_order(frames: Iterable[VideoFrame]) -> Iterator[tuple[VideoFrame, int]]:
    """Give decoded frames with their time stamps rising.

    Decoders give frames as they are shown, but old containers (AVI) have the time stamps of packets
    as they are stored: those of neighbouring frames are exchanged. Frames without one are left out.
    """
    held: deque[VideoFrame] = deque()
    stamps: list[int] = []
    for frame in frames:
        if frame.pts is None:
            continue
        held.append(frame)
        heapq.heappush(stamps, frame.pts)
        if len(held) > _REORDERED:
            yield held.popleft(), heapq.heappop(stamps)
    while held:
        yield held.popleft(), heapq.heappop(stamps)
