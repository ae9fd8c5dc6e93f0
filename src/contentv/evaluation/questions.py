"""What a model is asked: fresh captioned scenes, each with its own noise."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from contentv.base.rng import key
from contentv.evaluation.config import EvaluateConfig
from contentv.toyworld.captions import Caption
from contentv.toyworld.dataset import Sample, sample
from contentv.toyworld.scene import DIRECTIONS, Scene

Kind = Literal["short", "long", "scene"]
Split = Literal["seen", "held_out"]


@dataclass(frozen=True)
class Question:
    """One clip to make: its caption's facts count; for kind "scene" all facts of the scene do."""

    split: Split
    index: int
    kind: Kind
    seed: int
    sample: Sample

    @property
    def name(self) -> str:
        """Unique among all questions of a seed, whatever their number."""
        return f"{self.split}-{self.index:06d}-{self.kind}"

    @property
    def caption(self) -> Caption:
        """The text, and the facts that must be seen."""
        if self.kind == "scene":
            return Caption(self.sample.short.text, self.sample.scene.facts)
        return self.sample.long if self.kind == "long" else self.sample.short


def ask(config: EvaluateConfig) -> Iterator[Question]:
    """Give the questions of a configuration; more of them begin with the same ones."""
    splits: tuple[Split, ...] = ("seen", "held_out") if config.split == "both" else (config.split,)
    kinds: tuple[Kind, ...] = (
        ("short", "long") if config.captions == "mixed" else (config.captions,)
    )
    if config.suite == "autoencoder":
        kinds = ("scene",)
    for number in range(config.num_prompts):
        split = splits[number % len(splits)]
        index = number // len(splits)
        yield Question(
            split=split,
            index=index,
            kind=kinds[index % len(kinds)],
            # 31 bits: short enough to be typed after `generate --seed`.
            seed=key("evaluation noise", config.seed, split, index) >> 32,
            sample=sample(config.seed, index, split=split),
        )


def family(scene: Scene) -> str:
    """What kind of happening a scene is: move, still, zoom, spin, two, pan."""
    facts = scene.facts
    if "shape2" in facts:
        return "two"
    if facts["camera"] != "still":
        return "pan"
    if facts["motion"] in DIRECTIONS:
        return "move"
    return {"grows": "zoom", "shrinks": "zoom", "spins": "spin"}.get(facts["motion"], "still")
