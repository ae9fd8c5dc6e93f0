"""One clip, one row: which of the facts asked for can be read in its pixels."""

from collections.abc import Iterable, Mapping

import numpy as np

from contentv.base.config import Config
from contentv.base.errors import NumericsError
from contentv.base.types import Frame, Frames
from contentv.evaluation.questions import Kind, Question, Split, family
from contentv.toyworld.oracle import read
from contentv.toyworld.reading import Reading, check

_NUMBERS = ("nothing", "one object", "two objects")
_MIRRORED = {"left": "right", "right": "left", "above": "below", "below": "above"}
_IDENTICAL_DB = 100.0


class Row(Config):
    """What was asked, what was seen, and which facts are right.

    `psnr` in dB, of reconstructions only. `fault` says why there is no video; all facts are wrong
    then. `seconds` is the clip's part of the time that its batch took.
    """

    name: str
    split: Split
    kind: Kind
    family: str
    prompt: str
    seed: int
    asked: dict[str, str]
    seen: dict[str, str]
    right: dict[str, bool]
    psnr: float | None = None
    fault: str | None = None
    seconds: float = 0.0

    @property
    def all_right(self) -> bool:
        """Whether every fact asked for is seen."""
        return all(self.right.values())

    @property
    def mistakes(self) -> str:
        """The wrong facts as "shape: square, not circle"."""
        wrong = [name for name, right in self.right.items() if not right]
        return "; ".join(f"{name}: {self.seen[name]}, not {self.asked[name]}" for name in wrong)


def score(question: Question, frames: Frames, *, reference: Frames | None = None) -> Row:
    """Read bytes [t h w 3] and compare; with a `reference` of that size also its PSNR."""
    asked = question.caption.facts
    reading = read(frames)
    right = check(asked, reading)
    return Row(
        **_identity(question),
        seen=seen_as(asked, reading, right),
        right=right,
        psnr=None if reference is None else psnr(frames, reference),
    )


def judge(
    question: Question,
    frames: Iterable[Frame],
    *,
    blank: tuple[int, int, int, int],
    reference: Frames | None = None,
) -> tuple[Row, Frames]:
    """Score frames as they are decoded; where that fails, say why beside a `blank` clip."""
    try:
        clip = np.stack(list(frames))
    except NumericsError as error:
        return no_video(question, str(error)), np.zeros(blank, np.uint8)
    return score(question, clip, reference=reference), clip


def no_video(question: Question, fault: str) -> Row:
    """The row of a clip that could not be made."""
    asked = question.caption.facts
    return Row(
        **_identity(question),
        seen=dict.fromkeys(asked, "no video"),
        right=dict.fromkeys(asked, False),
        fault=fault,
    )


def psnr(frames: Frames, reference: Frames) -> float:
    """Peak signal-to-noise ratio of one clip in dB, over all its bytes; 100 for equal ones."""
    difference = frames.astype(np.float32) - reference
    error = float(np.mean(difference * difference))
    return min(_IDENTICAL_DB, 10 * float(np.log10(255.0**2 / error))) if error else _IDENTICAL_DB


def seen_as(
    asked: Mapping[str, str], reading: Reading, right: Mapping[str, bool]
) -> dict[str, str]:
    """What is seen in place of each fact asked for; equal to it exactly where it is right."""
    pair = "shape2" in asked or "relation" in asked
    if len(reading.bodies) != (2 if pair else 1):
        number = _NUMBERS[len(reading.bodies)]
        scenery = {} if pair else {"background": reading.background, "camera": reading.camera}
        return {name: scenery.get(name, number) for name in asked}
    facts = reading.facts()
    orders = [facts, _swapped(facts)] if pair else [facts]
    # Of two objects either may be the one named first: the order that the verdict was given in.
    best = max(orders, key=lambda seen: sum((seen.get(n) == asked[n]) == right[n] for n in asked))
    # One of two objects can be as asked and the other not.
    return {
        name: "mixed" if not right[name] and best.get(name) == asked[name] else best.get(name, "-")
        for name in asked
    }


def _swapped(facts: dict[str, str]) -> dict[str, str]:
    return {
        **facts,
        "shape": facts["shape2"],
        "shape2": facts["shape"],
        "colour": facts["colour2"],
        "colour2": facts["colour"],
        "relation": _MIRRORED[facts["relation"]],
    }


def _identity(question: Question) -> dict[str, object]:
    return {
        "name": question.name,
        "split": question.split,
        "kind": question.kind,
        "family": family(question.sample.scene),
        "prompt": question.caption.text,
        "seed": question.seed,
        "asked": question.caption.facts,
    }
