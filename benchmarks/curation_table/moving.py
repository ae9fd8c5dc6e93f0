"""Motion: is what stands still told from what moves, and are known speeds measured right?"""

from collections.abc import Iterable, Iterator

import numpy as np
from curation_table.workshop import Line, Workshop, at_least, at_most, look, share, threshold

from composites import played, write
from contentv.base.types import Frame
from contentv.curation.scoring.motion import MotionStep
from contentv.curation.settings import MotionSettings
from footage import frames
from planted import noisy, pan_speed, panned, zoom_speed, zoomed

_FPS, _SECONDS = 24, 3
_COUNT = _FPS * _SECONDS + 1
_WINDOW = (400, 300)
_LARGE = ("Megamind", "vtest", "box", "cup")  # files with pictures from which a window is cut
_INTERVAL = 1 / 8  # seconds between two pictures that are compared


class _Stage:
    """Writes pictures and measures their motion."""

    def __init__(self, shop: Workshop) -> None:
        self.shop, self.step = shop, MotionStep(MotionSettings())

    def motion(self, shown: Iterable[Frame], column: str = "motion") -> float:
        path = self.shop.place("motion.mp4")
        write(path, shown, fps=_FPS, crf=18)
        return float(str(look(path, [self.step]).row(self.step)[column]))


def moving(shop: Workshop) -> Iterator[Line]:
    """Stills, noise, pans and zooms; and that no real clip counts as still."""
    stage, rng = _Stage(shop), np.random.default_rng(shop.seed)
    yield from _still(shop, stage, rng)
    large = [next(frames(take)) for take in shop.pool if take.name in _LARGE]
    pans, zooms = [], []
    for number in range(shop.count(40)):
        picture = large[number % len(large)]
        speed = _speed(picture, rng)
        shown = panned(picture, speed, size=_WINDOW, fps=_FPS, count=_COUNT)
        pans.append(stage.motion(shown, "motion_background") / pan_speed(speed, _WINDOW) - 1)
        rate = float(rng.uniform(1.04, 1.3)) ** float(rng.choice([-1, 1]))
        shown = zoomed(picture, rate, size=_WINDOW, fps=_FPS, count=_COUNT)
        true = zoom_speed(rate, _WINDOW, _INTERVAL)
        zooms.append(stage.motion(shown, "motion_background") / true - 1)
    for name, errors, aim in (("pan", pans, 0.01), ("zoom", zooms, 0.05)):
        size = np.abs(errors)
        note = f"median {np.median(size):.4f}"
        yield at_most(
            f"{name}: largest error of its speed", float(size.max()), aim, len(size), note
        )


def _still(shop: Workshop, stage: _Stage, rng: np.random.Generator) -> Iterator[Line]:
    least = threshold("motion")
    takes = shop.pool[:: max(1, round(1 / shop.effort))]
    still, real = [], []
    for take in takes:
        shown = played(take, 0, _COUNT, (480, 270))
        grey = np.full_like(shown[0], int(rng.integers(60, 200)))
        still.append(stage.motion([shown[0]] * _COUNT))
        still.append(stage.motion(noisy(shown[0], 4.0, rng) for _ in range(_COUNT)))
        still.append(stage.motion(noisy(grey, 8.0, rng) for _ in range(_COUNT)))
        real.append(stage.motion(shown))
    found = sum(value < least for value in still)
    note = f"threshold {least:g}, most {max(still):.4f}, slowest real clip {min(real):.4f}"
    recall = share(found, len(still))
    yield at_least("stills and noise: recall", recall, 1.0, len(still), note)


def _speed(picture: Frame, rng: np.random.Generator) -> tuple[float, float]:
    """A pan in any direction, as fast as the picture has room for at most."""
    room = np.array([picture.shape[1] - _WINDOW[0], picture.shape[0] - _WINDOW[1]])
    angle = float(rng.uniform(0, 2 * np.pi))
    way = np.array([np.cos(angle), np.sin(angle)])
    fastest = float((room / np.maximum(np.abs(way), 1e-6)).min()) / _SECONDS
    x, y = way * fastest * float(rng.uniform(0.3, 0.98))
    return float(x), float(y)
