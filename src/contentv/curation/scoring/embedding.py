"""Embeddings: a vector for each clip, near to those of clips that show the same.

They find duplicates (`duplicates/dedup.py`) and jumps inside a clip that shot detection missed.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from contentv.curation.scoring.efficientnet import Embedder, lite0
from contentv.curation.scoring.instants import inside, spread
from contentv.curation.settings import EmbeddingSettings
from contentv.curation.step import Box, Footage, Picture, Row, Span, Stream, key

_TINY = 1e-12


class EmbeddingStep:
    """What each clip shows, as a vector; a crop does not change it.

    Columns:

    * `embedding`: unit vector, the mean of the unit vectors of `frames` samples at uniform time;
      1280 numbers, rounded to what 16 bits hold.
    * `sem_jump`: distance (0..2) between the unit vectors of the first and the last sample, both
      away from the ends of the clip; 0 for a picture, None where there are no two samples. High
      where a clip holds two scenes.

    None where no sample of the clip was seen. Another network (InternVideo2, CLIP) takes the place
    of `efficientnet.lite0` as another `Embedder`; thresholds of similarity then need to be measured
    anew.
    """

    name: ClassVar[str] = "embedding"
    version: ClassVar[int] = 1
    stream: ClassVar[Stream] = "samples"
    columns: ClassVar[Mapping[str, type]] = {"embedding": list, "sem_jump": float}

    def __init__(self, config: EmbeddingSettings) -> None:
        self.config = config

    @cached_property
    def _embed(self) -> Embedder:
        return lite0()

    def watch(self, footage: Footage) -> "EmbeddingWatcher":  # noqa: ARG002 - none of it matters
        """Begin with a video; the first time, the network is loaded."""
        return EmbeddingWatcher(self._embed, self.config)


class EmbeddingWatcher:
    """Keeps 2.5 kB a sample: 9 MB an hour of footage."""

    def __init__(self, embed: Embedder, config: EmbeddingSettings) -> None:
        self._embed, self._config = embed, config
        self._times: list[float] = []
        self._vectors: list[NDArray[np.float16]] = []

    def see(self, time: float, picture: Picture) -> None:
        """Take the next sample, ``[h w 3]`` RGB; it is embedded at once, and by itself."""
        self._times.append(time)
        self._vectors.append(unit(self._embed(picture)).astype(np.float16))

    def score(self, spans: Sequence[Span], crops: Sequence[Box]) -> list[Row]:  # noqa: ARG002
        """Give a row for each clip."""
        return [{"embedding": self._vector(span), "sem_jump": self._jump(span)} for span in spans]

    def _vector(self, span: Span) -> list[float] | None:
        chosen = spread(self._times, span, self._config.frames)
        if not chosen:
            return None
        mean = np.mean([self._vectors[index].astype(np.float32) for index in chosen], axis=0)
        vector: list[float] = unit(mean).astype(np.float16).tolist()
        return vector

    def _jump(self, span: Span) -> float | None:
        seen = inside(self._times, span)
        if span.kind == "picture":
            return 0.0 if seen else None
        edge = self._config.jump_edge * (span.end - span.start)
        within = [i for i in seen if span.start + edge <= self._times[i] <= span.end - edge]
        if len(within) < 2:
            return None
        first, last = (self._vectors[index].astype(np.float32) for index in (within[0], within[-1]))
        return float(np.linalg.norm(last - first))


def embedding_name(settings: EmbeddingSettings) -> str:
    """Name what makes a catalogue's vectors: equal names, vectors that one head may score."""
    return key(EmbeddingStep.name, EmbeddingStep.version, settings)


def unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale a vector to length 1; one of zeros stays."""
    return vector / max(float(np.linalg.norm(vector)), _TINY)
