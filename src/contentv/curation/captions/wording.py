"""Checks of captions after they were written: what models add, and what shows that they failed."""

import re
import unicodedata
from collections import Counter

# "The video shows ...", "In this clip, we see ..." and the like: every caption would begin so.
_OPENINGS = re.compile(
    r"^(?:(?:in|throughout) )?(?:the|this|a) (?:short )?"
    r"(?:video|clip|footage|scene|image|picture|sequence|animation)(?: clip)?,?"
    r"(?:(?: that)? (?:shows?|depicts?|features?|captures?|begins? with|opens? with|presents?|"
    r"displays?|is of|is showing|starts? with)|,? (?:we|one|you)(?: can)? (?:see|observe)|"
    r",? there (?:is|are))\s+",
    re.IGNORECASE,
)
_REFUSALS = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|unable|not able)|i (?:can(?:not|'t)|do(?: not|n't) see)|"
    r"as an ai|unable to (?:view|see|describe)|"
    r"no (?:video|image) (?:was|is) (?:provided|attached))",
    re.IGNORECASE,
)
_MOST_REPEATED = 0.2
_GRAM = 4
_LEAST_LATIN = 0.9


def clean(text: str) -> str:
    """One line of text without the model's stock opening, quotes and marks around it."""
    line = " ".join(text.split()).strip("\"'`*# ")
    stripped = _OPENINGS.sub("", line)
    return stripped[:1].upper() + stripped[1:] if stripped != line else line


def fault(text: str, words: tuple[int, int]) -> str:
    """Why a caption cannot be used; empty if it can.

    `refused`, `too_short` or `too_long` (`words` allowed), `repeats` (more than a fifth of its
    groups of four words stand there again), `language` (letters that are not Latin).
    """
    count = len(text.split())
    if _REFUSALS.search(text):
        return "refused"
    if not words[0] <= count <= words[1]:
        return "too_short" if count < words[0] else "too_long"
    if repeated(text) > _MOST_REPEATED:
        return "repeats"
    return "" if _latin(text) >= _LEAST_LATIN else "language"


def repeated(text: str) -> float:
    """Part of a text's groups of four words that repeat an earlier one."""
    words = re.findall(r"\w+", text.lower())
    grams = Counter(zip(*(words[start:] for start in range(_GRAM)), strict=False))
    total = sum(grams.values())
    return 1 - len(grams) / total if total else 0.0


def _latin(text: str) -> float:
    letters = [letter for letter in text if letter.isalpha()]
    latin = sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    return latin / len(letters) if letters else 0.0
