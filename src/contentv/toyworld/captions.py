"""Facts of a scene → a short or a long caption, together with those that the caption states."""

from dataclasses import dataclass
from string import Formatter
from typing import TypeAlias

import numpy as np

from contentv.toyworld import words
from contentv.toyworld.parsing import parse
from contentv.toyworld.scene import DIRECTIONS

__all__ = ["Caption", "caption", "parse", "vocabulary"]

Facts: TypeAlias = dict[str, str]

MAX_SHORT_WORDS = 14
COMMON = 0.65  # how often a fact is said by its first phrase


@dataclass(frozen=True, slots=True)
class Caption:
    """A text, all lower case, and those of `Scene.facts` that it states: `parse(text) == facts`."""

    text: str
    facts: Facts


def caption(facts: Facts, rng: np.random.Generator, *, long: bool) -> Caption:
    """Describe a scene by its facts (`Scene.facts`, or as the oracle read them).

    Short: at most 14 words, no punctuation; object, colour and what happens, size and background
    now and then, style unless it is flat. Long: 60 to 100 words in sentences, every fact.
    """
    return _long(facts, rng) if long else _short(facts, rng)


def vocabulary() -> frozenset[str]:
    """Every word that a caption can hold."""
    phrases = [
        *(p for table in (words.COLOUR, words.SHAPE) for many in table.values() for p in many),
        *(p for _, table in words.SLOTS.values() for many in table.values() for p in many),
        *(p for table in (words.NEUTRAL, words.TEMPLATES) for many in table.values() for p in many),
        *(p for t in (words.DETAILS, words.PAIR_DETAILS) for many in t.values() for p in many),
        *words.GROUNDS, *words.ASIDES, "a an with an outline with a border",
    ]  # fmt: skip
    literals = (part for phrase in phrases for part, *_ in Formatter().parse(phrase))
    return frozenset(word for literal in literals for word in literal.split())


class _Writer(dict[str, str]):
    """Fills a template's slots for one scene and remembers which facts it has said."""

    def __init__(self, truth: Facts, rng: np.random.Generator, *, size: bool) -> None:
        super().__init__()
        self.truth = truth
        self.rng = rng
        self.facts: Facts = {}
        self._size = size and "size" in truth

    def write(self, template: str) -> str:
        return _with_articles(template.format_map(self))

    def __missing__(self, slot: str) -> str:
        if slot in words.NEUTRAL:
            return choose(self.rng, words.NEUTRAL[slot])
        if slot in ("object", "thing"):
            return ("a " if slot == "object" else "") + self._object()
        if slot == "other":
            return (
                "a " + self._say("colour2", words.COLOUR) + " " + self._say("shape2", words.SHAPE)
            )
        fact, phrases = words.SLOTS[slot]
        return self._say(fact, phrases)

    def _say(self, fact: str, phrases: words.Phrases) -> str:
        self.facts[fact] = self.truth[fact]
        return choose(self.rng, phrases[self.truth[fact]])

    def _object(self) -> str:
        parts = []
        if "shape" in self.facts:
            return self._say("shape", words.SHAPE)
        if self._size:
            parts.append(self._say("size", words.SIZE))
        suffix = ""
        if self.truth["style"] == "outlined" and self.rng.random() < 0.2:
            self.facts["style"] = "outlined"
            suffix = choose(self.rng, (" with an outline", " with a border"))
        elif self.truth["style"] != "flat":
            parts.append(self._say("style", words.STYLE))
        parts += [self._say("colour", words.COLOUR), self._say("shape", words.SHAPE)]
        return " ".join(parts) + suffix


def choose(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    """The first option with probability COMMON, else one of the others."""
    if len(options) == 1 or rng.random() < COMMON:
        return options[0]
    return options[rng.integers(1, len(options))]


def _with_articles(text: str) -> str:
    """Turn "a" into "an" where a vowel follows."""
    parts = text.split()
    following = [*parts[1:], ""]
    return " ".join(
        "an" if word == "a" and after[:1] in "aeiou" and after else word
        for word, after in zip(parts, following, strict=True)
    )


def _template(facts: Facts, rng: np.random.Generator) -> str:
    motion = facts["motion"]
    if "shape2" in facts:
        family = "two"
    elif facts["camera"] != "still":
        family = "pan"
    elif motion in DIRECTIONS:
        family = "rise" if motion in words.RISES and rng.random() < 0.25 else "move"
    else:
        family = "still" if motion == "still" else "change"
    options = words.TEMPLATES[family]
    return options[rng.integers(len(options))]


def _short(truth: Facts, rng: np.random.Generator) -> Caption:
    size, ground = rng.random() < 0.4, rng.random() < 0.5
    terse = rng.random() < 0.35
    while True:
        text, facts = _sentence(truth, rng, size=size, ground=ground)
        if terse:
            text = " ".join(word for word in text.split() if word not in ("a", "an"))
        if len(text.split()) <= MAX_SHORT_WORDS:
            return Caption(text, facts)


def _sentence(
    truth: Facts, rng: np.random.Generator, *, size: bool, ground: bool
) -> tuple[str, Facts]:
    writer = _Writer(truth, rng, size=size)
    text = writer.write(_template(truth, rng))
    if ground:
        text += " " + writer.write(choose(rng, words.GROUNDS))
    return text, writer.facts


def _long(truth: Facts, rng: np.random.Generator) -> Caption:
    size, ground = rng.random() < 0.5, rng.random() < 0.5
    text, said = _sentence(truth, rng, size=size, ground=ground)
    details = words.PAIR_DETAILS if "shape2" in truth else words.DETAILS
    unsaid = [fact for fact in details if fact in truth and fact not in said]
    writer = _Writer(truth, rng, size=False)
    writer.facts |= said
    sentences = [writer.write(choose(rng, details[fact])) for fact in unsaid]
    wanted = int(rng.integers(62, 89)) - len(" ".join([text, *sentences]).split())
    asides = _asides(rng, wanted)
    opening = [asides.pop()] if rng.random() < 0.3 else []
    order = rng.permutation(len(sentences) + len(asides))
    rest = [[*sentences, *asides][place] for place in order]
    return Caption(". ".join([*opening, text, *rest]) + ".", dict(truth))


def _asides(rng: np.random.Generator, num_words: int) -> list[str]:
    """Different asides of at least `num_words` words together, no more of them than needed."""
    chosen: list[str] = []
    for place in rng.permutation(len(words.ASIDES)):
        if len(" ".join(chosen).split()) >= num_words:
            break
        chosen.append(words.ASIDES[place])
    return chosen
