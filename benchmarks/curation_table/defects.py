"""Text, logos, borders and blur: is what was planted found, and only that?"""

from collections.abc import Iterator
from functools import partial
from itertools import product

import numpy as np
from curation_table.workshop import Line, Workshop, at_least, at_most, look, share, threshold
from numpy.typing import NDArray

from composites import Plan, Truth, composite, played, write
from contentv.base.types import Frame
from contentv.curation.scoring.blur import BlurStep
from contentv.curation.scoring.crop import crops
from contentv.curation.scoring.overlays import OverlayStep
from contentv.curation.scoring.text import TextStep
from contentv.curation.settings import BlurSettings, CropSettings, OverlaySettings, TextSettings
from contentv.curation.step import WHOLE, Row, Span
from contentv.video.watching import SAMPLE_SIDE
from planted import Edges, blurred, bordered, logo, overlaid, subtitled, subtitles

_FPS = 24
_SIDES = ("left", "top", "right", "bottom")
_CLEAR: Row = {"overlay_boxes": [], **{f"border_{side}": 0.0 for side in _SIDES}}
_ALPHAS = (0.15, 0.25, 0.4, 0.7, 1.0)
_SOURCE = Plan(shots=8, kinds=("cut",), lengths=(48, 72))
_NEAR = 2  # pixels by which a border may be off


def text(shop: Workshop) -> Iterator[Line]:
    """Clips with lines that change, with one that stays, and with none."""
    step, settings = TextStep(TextSettings()), CropSettings()
    takes = shop.pool[: shop.count(30)]
    found = false = said = 0
    lost = []
    for number, (take, way) in enumerate(product(takes, ("changing", "staying", "none"))):
        shown = played(take, 0, 5 * _FPS, (854, 480))
        if way != "none":
            words = subtitles(shop.seed + number, _FPS, persistent=way == "staying")
            shown = [subtitled(f, t) if (t := words(n)) else f for n, f in enumerate(shown)]
        path = shop.place("text.mp4")
        write(path, shown, fps=_FPS)
        seen = look(path, [step])
        row = seen.row(step)
        persistent = bool(row["text_persistent"])
        said += persistent
        found += persistent and way != "none"
        false += persistent and way == "none"
        if persistent and way != "none":
            crop = crops(seen.footage, [seen.whole], [row], [_CLEAR], settings)[0]
            lost.append(1.0 if crop["crop_fault"] else float(str(crop["crop_lost"])))
    planted = 2 * len(takes)
    yield at_least("subtitles: recall", share(found, planted), 0.98, planted)
    yield at_least("subtitles: precision", share(said - false, said), 0.97, said)
    note = f"median {np.median(lost):.3f}" if lost else ""
    yield at_most(
        "subtitles: most area lost by the crop", max(lost, default=0), 0.2, len(lost), note
    )


def logos(shop: Workshop) -> Iterator[Line]:
    """Sources of eight shots with a logo of each opacity, and without."""
    step = OverlayStep(OverlaySettings())
    found = false = planted = clean = 0
    missed = []
    seed = shop.seed
    for alpha, _ in product((0.0, *_ALPHAS), range(shop.count(8))):
        seed += 1
        cover = logo(_SOURCE.size, seed)
        change = partial(_with_logo, cover=cover, alpha=alpha)
        truth = composite(shop.place("logo.mp4"), seed, shop.pool, _SOURCE, change)
        row = _source_row(truth, step)
        hit, extra = _hits(row, cover, alpha)
        planted += alpha > 0
        clean += 1
        found += alpha > 0 and hit
        false += extra
        if alpha and not hit:
            missed.append(f"{alpha:g} ({row['overlay_evidence']})")
    note = f"missed: {', '.join(missed)}" if missed else ""
    yield at_least("logos from opacity .15: recall", share(found, planted), 0.95, planted, note)
    yield at_most("logos: sources with a false box", share(false, clean), 0.02, clean)


def borders(shop: Workshop) -> Iterator[Line]:
    """Sources of eight shots with black at some sides, and without."""
    step = OverlayStep(OverlaySettings())
    near = planted = clean = false = 0
    seed, (width, height) = shop.seed, _SOURCE.size
    for shape, _ in product(("letter", "pillar", "window", "none"), range(shop.count(25))):
        seed += 1
        edges = _edges(shape, np.random.default_rng(seed))
        change = partial(_with_edges, edges=edges)
        truth = composite(shop.place("borders.mp4"), seed, shop.pool, _SOURCE, change)
        row = _source_row(truth, step)
        sides = [float(str(row[f"border_{side}"])) for side in _SIDES]
        said = np.array(sides) * (width, height, width, height)
        off = np.abs(said - (edges.left, edges.top, edges.right, edges.bottom)).max()
        planted += shape != "none"
        near += shape != "none" and off <= _NEAR
        clean += shape == "none"
        false += shape == "none" and row["border_kind"] != "none"
    yield at_least(
        "borders: sources with all sides within 2 px", share(near, planted), 0.99, planted
    )
    yield at_most("borders: sources with a false one", share(false, clean), 0.01, clean)


def blur(shop: Workshop) -> Iterator[Line]:
    """Real clips as they are, and blurred, at the size at which blur is measured."""
    step, least = BlurStep(BlurSettings()), threshold("sharpness")
    values: dict[float, list[float]] = {0.0: [], 2.0: [], 3.0: [], 5.0: []}
    takes = shop.pool[:: max(1, round(1 / shop.effort))]
    for take, sigma in product(takes, values):
        shown = played(take, 0, 3 * _FPS, None)
        scale = max(1.0, min(shown[0].shape[:2]) / SAMPLE_SIDE)
        path = shop.place("blur.mp4")
        write(path, [blurred(f, sigma * scale) if sigma else f for f in shown], fps=_FPS)
        values[sigma].append(float(str(look(path, [step]).row(step)["sharpness"])))
    planted = [value for sigma, found in values.items() if sigma for value in found]
    sharp = values[0.0]
    recall = share(sum(value < least for value in planted), len(planted))
    note = f"threshold {least:g}, sharpest blurred {max(planted):.1f}"
    yield at_least("blur from sigma 2: recall", recall, 1.0, len(planted), note)
    rejected = sum(value < least for value in sharp)
    note = f"least sharp {min(sharp):.1f}"
    yield at_most("sharp real clips rejected", rejected, 0, len(sharp), note)


def _source_row(truth: Truth, step: OverlayStep) -> Row:
    """The row of a source, its shots being known."""
    spans = [
        Span(str(index), "video", index, start / truth.fps, stop / truth.fps, start, stop)
        for index, (start, stop) in enumerate(truth.shots)
    ]
    seen = look(truth.path, [step])
    truth.path.unlink()
    return seen.watchers[step.name].score(spans, [WHOLE] * len(spans))[0]


def _with_logo(frame: Frame, _: int, __: int, *, cover: NDArray[np.float32], alpha: float) -> Frame:
    return overlaid(frame, cover, alpha) if alpha else frame


def _with_edges(frame: Frame, _: int, __: int, *, edges: Edges) -> Frame:
    return bordered(frame, edges)


def _hits(row: Row, cover: NDArray[np.float32], alpha: float) -> tuple[bool, bool]:
    """Whether a box holds most of the logo; whether there is a box that has none of it."""
    height, width = cover.shape
    numbers = row["overlay_boxes"]
    assert isinstance(numbers, list)
    hit = extra = False
    for x, y, wide, high in np.reshape(numbers, (-1, 4)):
        rows = slice(max(0, round(y * height)), round((y + high) * height))
        columns = slice(max(0, round(x * width)), round((x + wide) * width))
        part = float(cover[rows, columns].sum() / cover.sum()) if alpha else 0.0
        hit |= part >= 0.5
        extra |= part < 0.05
    return hit, extra


def _edges(shape: str, rng: np.random.Generator) -> Edges:
    left, right = (int(side) for side in rng.integers(6, 70, 2))
    top, bottom = (int(side) for side in rng.integers(6, 40, 2))
    if shape == "letter":
        return Edges(top=top, bottom=bottom)
    if shape == "pillar":
        return Edges(left=left, right=right)
    return Edges(left, top, right, bottom) if shape == "window" else Edges()
