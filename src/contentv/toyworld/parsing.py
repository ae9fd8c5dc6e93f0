"""Text → the facts it states, for captions of the toy world and for people's own sentences."""

import re
from typing import NamedTuple

from contentv.toyworld import words
from contentv.toyworld.scene import DIRECTIONS


def _pattern(expression: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{expression})\b")


def _lookup(*tables: words.Phrases) -> dict[str, str]:
    return {phrase: value for table in tables for value, many in table.items() for phrase in many}


_TOWARDS = r"(?:(?:to|towards?) )?(?:the )?"
_PANNING = r"(?:pan|pans|panning|sweeps?|sweeping|swings?|swinging|turns?|turning)"
_FILLER = rf"(?:{_PANNING}|moves|moving|is|slowly|quickly|gently)"
_STILL = "still|fixed|static|steady|motionless|stationary|not move|not moving"
_KEEPS = "is|stays|remains|stands|does"
_CAMERA = (
    _pattern(rf"(?:camera|view)(?: {_FILLER})* {_TOWARDS}(?P<side>left|right)(?:wards?)?"),
    _pattern(rf"(?:pan|panning)(?: {_FILLER})* {_TOWARDS}(?P<side>left|right)(?:wards?)?"),
    _pattern(rf"(?:camera|view)(?: (?:{_KEEPS}))* (?:{_STILL})"),
    _pattern(rf"(?:{_STILL}) (?:camera|view)"),
)
_SIDES = "left|right|top|bottom"
# Where something comes from, an outline's own tone, "on its left": they state no fact of the world.
_SILENT = _pattern(
    rf"(?:from )?(?:the )?(?:{_SIDES})(?: side)?(?= (?:to|towards?) (?:the )?(?:{_SIDES}))"
    "|(?:black|white)(?= (?:outline|border))"
    "|on its (?:left|right)"
)
_RELATION = {
    "left": _pattern(r"(?:(?:to|on|at) )?(?:the )?left (?:side )?of"),
    "right": _pattern(r"(?:(?:to|on|at) )?(?:the )?right (?:side )?of"),
    "above": _pattern("above|higher than"),
    "below": _pattern("below|under|beneath|underneath|lower than"),
}
_PLACE = {
    "left": _pattern("(?:on|at) the left(?: side)?"),
    "right": _pattern("(?:on|at) the right(?: side)?"),
    "above": _pattern("(?:on|at) the top"),
    "below": _pattern("(?:on|at) the bottom"),
}
_MOTION = {
    "left": _pattern("left(?:wards?)?"),
    "right": _pattern("right(?:wards?)?"),
    "up": _pattern("up(?:wards?)?|ris(?:es?|ing)|climb(?:s|ing)?|ascend(?:s|ing)?|top"),
    "down": _pattern(
        "down(?:wards?)?|fall(?:s|ing)?|sink(?:s|ing)?|descend(?:s|ing)?|drop(?:s|ping)?|bottom"
    ),
    "grows": _pattern("grow(?:s|ing)?|expand(?:s|ing)?|swell(?:s|ing)?|bigger|larger"),
    "shrinks": _pattern("shrink(?:s|ing)?|contract(?:s|ing)?|smaller"),
    "spins": _pattern(
        "spin(?:s|ning)?|rotat(?:es?|ing)|revolv(?:es?|ing)"
        f"|turn(?:s|ing)?(?! {_TOWARDS}(?:left|right|top|bottom))"
    ),
    "still": _pattern(
        "still|motionless|static|stationary|not mov(?:e|ing)|in place|neither(?: of them)? moves"
    ),
}
_COLOUR, _SHAPE = _lookup(words.COLOUR), _lookup(words.SHAPE)
_NOUN = _pattern("|".join([*_COLOUR, *_SHAPE]))
_SINGLE = {
    "background": _lookup(words.BACKGROUND),
    "size": _lookup(words.SIZE),
    "speed": _lookup(words.PACE, words.SLOW, words.CRAWLS),
    "style": _lookup(words.STYLE) | {"outline": "outlined", "border": "outlined"},
}


class _Mention(NamedTuple):
    colour: str | None
    shape: str
    start: int


def parse(text: str) -> dict[str, str]:
    """The facts that `text` states, with the names and values of `Scene.facts`.

    Unknown words are ignored and nothing is assumed. Of speed and size only what the world knows
    is kept: speed of a journey; size of a lone object that keeps it.
    """
    line = " ".join(re.findall("[a-z]+", re.sub("['\u2019]", "", text.lower())))
    line = _SILENT.sub(_blank, line.replace("doesnt", "does not"))
    facts: dict[str, str] = {}
    line = _read_camera(line, facts)
    mentions = _mentions(line)
    line = _read_relation(line, mentions, facts)
    _read_objects(line, mentions, facts)
    motion = _first(_MOTION, line)
    if motion:
        facts["motion"] = motion[0]
    for name, lookup in _SINGLE.items():
        found = next((lookup[word] for word in line.split() if word in lookup), None)
        if found and _applies(name, facts):
            facts[name] = found
    return facts


def _blank(match: re.Match[str]) -> str:
    """Cover what has been read, keeping all positions."""
    return "#" * len(match.group())


def _read_camera(line: str, facts: dict[str, str]) -> str:
    for pattern in _CAMERA:
        match = pattern.search(line)
        if match:
            facts.setdefault("camera", match.groupdict().get("side") or "still")
            line = pattern.sub(_blank, line)
    return line


def _mentions(line: str) -> list[_Mention]:
    """The different objects named, in order; "the circle" after "a red circle" is the same one."""
    found: list[_Mention] = []
    colour: str | None = None
    for match in _NOUN.finditer(line):
        word = match.group()
        if word in _COLOUR:
            colour = _COLOUR[word]
            continue
        shape = _SHAPE[word]
        known = [m for m in found if m.shape == shape and (colour is None or m.colour == colour)]
        if not known:
            found.append(_Mention(colour, shape, match.start()))
        colour = None
    return found


def _read_relation(line: str, mentions: list[_Mention], facts: dict[str, str]) -> str:
    """Store the relation; "left of A is B" puts B first in `mentions`. Returns the rest."""
    relation, place = _first(_RELATION, line), _first(_PLACE, line)
    if len(mentions) > 1 and relation:
        facts["relation"] = relation[0]
        if relation[1] < mentions[0].start:
            mentions[:2] = mentions[1::-1]
    elif len(mentions) > 1 and place:
        facts["relation"] = place[0]
    # "Moves to the left of the frame" relates nothing: there is but one object.
    relations = _RELATION.values() if len(mentions) > 1 else ()
    for pattern in (*relations, *_PLACE.values()):
        line = pattern.sub(_blank, line)
    return line


def _read_objects(line: str, mentions: list[_Mention], facts: dict[str, str]) -> None:
    for suffix, mention in zip(("", "2"), mentions, strict=False):
        facts["shape" + suffix] = mention.shape
        if mention.colour:
            facts["colour" + suffix] = mention.colour
    if len(mentions) < 2 and "colour" not in facts:
        colour = next((_COLOUR[word] for word in line.split() if word in _COLOUR), None)
        if colour:
            facts["colour"] = colour


def _first(patterns: dict[str, re.Pattern[str]], line: str) -> tuple[str, int] | None:
    """The value whose pattern matches earliest, and where."""
    found = [(match.start(), value) for value, p in patterns.items() if (match := p.search(line))]
    return min(found)[::-1] if found else None


def _applies(name: str, facts: dict[str, str]) -> bool:
    motion = facts.get("motion", "")
    if name == "speed":
        return motion in DIRECTIONS
    if name == "size":
        panned = facts.get("camera", "still") != "still"
        return not panned and "shape2" not in facts and motion not in ("grows", "shrinks")
    return True
