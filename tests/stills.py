"""Pictures of real shots that show different scenes."""

from functools import cache
from itertools import islice

from contentv.base.types import Frame
from footage import frames, real_files, takes

SIZE = (480, 270)


@cache
def stills() -> tuple[Frame, ...]:
    """Give one picture of each of ten shots, ``[270 480 3]``; three are enlarged much."""
    listed = takes(real_files())
    enlarged = [take for take in listed if take.name == "test"][:3]
    chosen = [take for take in listed if take.name != "test"] + enlarged
    return tuple(next(islice(frames(take, SIZE), 10, None)) for take in chosen)
