"""Captions of toy footage by the oracle: true by construction of the world, no model needed."""

from typing import ClassVar

import numpy as np

from contentv.base.rng import numpy_generator
from contentv.curation.captions.captioner import Answer, CaptionError, Request, Sampling
from contentv.toyworld.captions import caption
from contentv.toyworld.oracle import read
from contentv.toyworld.reading import NOTHING


class OracleCaptioner:
    """Reads a toy clip's facts from its pixels and words them as the toy world does."""

    sampling: ClassVar[Sampling] = Sampling(rate=None, most=10_000, pixels=1 << 30)
    name = "toyworld-oracle"
    parallel = 1

    def __call__(self, request: Request) -> Answer:
        """Describe a clip, equal frames in equal words; CaptionError for any other footage."""
        frames = np.stack(request.shown.frames)
        try:
            facts = read(frames).facts()
        except ValueError as error:
            raise CaptionError(f"not a clip of the toy world ({error})") from error
        if facts["shape"] == NOTHING:
            raise CaptionError("the oracle sees no object in it")
        drawn = numpy_generator("oracle caption", request.length, frames[0].tobytes().hex()[:4096])
        return Answer(caption(facts, drawn, long=request.length == "detailed").text)
