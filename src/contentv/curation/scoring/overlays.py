"""Overlays: logos and borders that a whole source carries, found by what its shots have in common.

Every clip of a source gets the same row.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from contentv.curation.scoring.borders import BorderFinder, Borders
from contentv.curation.scoring.persistence import distinct, persistent
from contentv.curation.scoring.vision import opencv
from contentv.curation.settings import OverlaySettings
from contentv.curation.step import Box, Footage, Picture, Row, Span, Stream

_MARGIN = 2  # pixels inside a border where its edge still shows


class OverlayStep:
    """Logos and borders of a source.

    Columns:

    * `overlay_boxes`: x, y, width, height of each logo or watermark, in parts of the picture;
    * `overlay_evidence`: found, none, or insufficient where too few shots of distinct scenes were
      seen to say either;
    * `border_left`, `border_top`, `border_right`, `border_bottom`: parts of the picture's width or
      height; `border_kind`: none, black or blurred.
    """

    name: ClassVar[str] = "overlays"
    version: ClassVar[int] = 1
    stream: ClassVar[Stream] = "samples"
    columns: ClassVar[Mapping[str, type]] = {
        "overlay_boxes": list,
        "overlay_evidence": str,
        "border_left": float,
        "border_top": float,
        "border_right": float,
        "border_bottom": float,
        "border_kind": str,
    }

    def __init__(self, config: OverlaySettings) -> None:
        self.config = config

    def watch(self, footage: Footage) -> "OverlayWatcher":  # noqa: ARG002 - none of it matters here
        """Begin with a video."""
        return OverlayWatcher(self.config)


class OverlayWatcher:
    """Keeps at most `kept` small grey samples, evenly spread over what was seen: 17 MB."""

    def __init__(self, config: OverlaySettings) -> None:
        self._config = config
        self._borders = BorderFinder(config)
        self._samples: list[tuple[float, Picture]] = []
        self._seen = 0
        self._every = 1

    def see(self, time: float, picture: Picture) -> None:
        """Take the next sample, ``[h w 3]`` RGB."""
        cv2 = opencv()
        luma = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        self._borders.see(luma)
        if self._seen % self._every == 0:
            self._samples.append((time, _small(luma, self._config.side)))
        self._seen += 1
        if len(self._samples) > self._config.kept:
            self._samples = self._samples[::2]
            self._every *= 2

    def score(self, spans: Sequence[Span], crops: Sequence[Box]) -> list[Row]:
        """Give a row for each clip; crops do not matter, they are made of these rows."""
        assert len(spans) == len(crops)
        if not self._seen:
            return [dict.fromkeys(OverlayStep.columns) for _ in spans]
        borders = self._borders.find([picture for _, picture in self._samples])
        boxes = self._overlays(self._shots(spans), borders)
        row: Row = {
            "overlay_boxes": [side for box in boxes or () for side in _sides(box)],
            "overlay_evidence": "insufficient" if boxes is None else "found" if boxes else "none",
            "border_left": borders.left,
            "border_top": borders.top,
            "border_right": borders.right,
            "border_bottom": borders.bottom,
            "border_kind": borders.kind,
        }
        return [dict(row) for _ in spans]

    def _shots(self, spans: Sequence[Span]) -> list[Picture]:
        """Choose the middle one of each shot's samples; of many shots some, evenly spread."""
        shots: dict[int, list[Picture]] = {}
        limits: dict[int, tuple[float, float]] = {}
        for span in spans:
            start, end = limits.get(span.shot, (span.start, span.end))
            limits[span.shot] = min(start, span.start), max(end, span.end)
        for time, picture in self._samples:
            for shot, (start, end) in limits.items():
                if time == start or start < time < end:
                    shots.setdefault(shot, []).append(picture)
        chosen = [samples[len(samples) // 2] for _, samples in sorted(shots.items())]
        return chosen[:: -(-len(chosen) // self._config.most_shots) or 1]

    def _overlays(self, shots: Sequence[Picture], borders: Borders) -> list[Box] | None:
        """Look inside the borders, whose own edges persist too; None: too few distinct shots."""
        if len(shots) < self._config.distinct_shots:
            return None
        height, width = shots[0].shape
        inner = borders.inner
        top, left = _inside(inner.y, height), _inside(inner.x, width)
        bottom = height - _inside(borders.bottom, height)
        right = width - _inside(borders.right, width)
        if min(bottom - top, right - left) < 1:
            return None
        edges = distinct((shot[top:bottom, left:right] for shot in shots), self._config)
        if len(edges) < self._config.distinct_shots:
            return None
        scale_x, scale_y = (right - left) / width, (bottom - top) / height
        return [
            Box(
                left / width + box.x * scale_x,
                top / height + box.y * scale_y,
                box.width * scale_x,
                box.height * scale_y,
            )
            for box in persistent(edges, self._config)
        ]


def _small(luma: Picture, side: int) -> Picture:
    """Scale so that the short side is `side`; nothing is enlarged."""
    cv2 = opencv()
    height, width = luma.shape
    scale = min(1.0, side / min(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return luma if scale == 1 else cv2.resize(luma, size, interpolation=cv2.INTER_AREA)


def _inside(border: float, side: int) -> int:
    return -int(-border * side // 1) + _MARGIN if border else 0


def _sides(box: Box) -> tuple[float, float, float, float]:
    return box.x, box.y, box.width, box.height
