"""Batches of fresh toy captions with the facts they state: text alone, without pictures."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from contentv.base.rng import numpy_generator
from contentv.toyworld.captions import Caption, caption
from contentv.toyworld.scene import VALUES, sample_scene


@dataclass(frozen=True)
class CaptionBatch:
    """Captions and, for each fact of `VALUES`, the place of its value, or the number of values
    where the caption does not state it: facts int64 [b f].
    """

    captions: tuple[str, ...]
    facts: Tensor
    keys: tuple[str, ...]

    def to(self, device: torch.device) -> Self:
        """The same batch on `device`."""
        return replace(self, facts=self.facts.to(device))


@dataclass(frozen=True)
class ToyCaptionBatches:
    """Batch number `step` of a stage: of every three batches two are short captions, one is long.

    Scenes are those of the training split: no caption names a held-out pair.
    """

    seed: int
    stage: str
    short: int
    long: int

    def __call__(self, step: int) -> CaptionBatch:
        """Draw the captions of a step."""
        is_long = step % 3 == 2
        count = self.long if is_long else self.short
        drawn = [self._draw(step, slot, is_long=is_long) for slot in range(count)]
        return CaptionBatch(
            tuple(found.text for found in drawn),
            torch.tensor([_places(found.facts) for found in drawn]),
            tuple(f"{self.stage}/{step}/{slot}" for slot in range(count)),
        )

    def _draw(self, step: int, slot: int, *, is_long: bool) -> Caption:
        rng = numpy_generator(self.seed, self.stage, step, slot)
        return caption(sample_scene(rng, split="train").facts, rng, long=is_long)


def _places(facts: dict[str, str]) -> list[int]:
    return [
        values.index(facts[name]) if name in facts else len(values)
        for name, values in VALUES.items()
    ]
