"""The toy world's endless captioned data set: a sample is a pure function of seed, split, index."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contentv.base.rng import numpy_generator
from contentv.toyworld.captions import Caption, caption
from contentv.toyworld.render import render
from contentv.toyworld.scene import Scene, Split, sample_scene


@dataclass(frozen=True, slots=True)
class Sample:
    """A scene and two captions of it."""

    scene: Scene
    short: Caption
    long: Caption

    def frames(self, num_frames: int = 17, size: int = 64) -> NDArray[np.uint8]:
        """Draw the clip, uint8 [num_frames, size, size, 3]."""
        return render(self.scene, frames=num_frames, size=size)


def scene_at(seed: int, index: int, *, split: Split = "train") -> Scene:
    """The scene of sample `index`, without its captions."""
    return sample_scene(numpy_generator("toyworld scene", seed, split, index), split=split)


def sample(seed: int, index: int, *, split: Split = "train") -> Sample:
    """Sample `index` (0, 1, 2, … without end) of a split, the same on every machine."""
    # One stream each: a change of the captions' wording leaves the scenes as they were.
    scene = scene_at(seed, index, split=split)
    short, long = (
        caption(scene.facts, numpy_generator(f"toyworld {name}", seed, split, index), long=is_long)
        for name, is_long in (("short", False), ("long", True))
    )
    return Sample(scene, short, long)
