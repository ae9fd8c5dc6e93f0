"""What was read from a clip, and whether it is what a prompt asked for."""

from dataclasses import dataclass

from contentv.toyworld.scene import DIRECTIONS

NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Track:
    """One object over time: its facts, and in each scored frame its centre and radius.

    Lengths are fractions of the side.
    """

    shape: str
    colour: str
    style: str
    size: str
    motion: str
    speed: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    radius: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a clip shows: at most two objects, the larger first; background; the camera's turn."""

    bodies: tuple[Track, ...]
    background: str
    camera: str

    def facts(self) -> dict[str, str]:
        """Facts under the names and values of `Scene.facts`, the left or upper object first."""
        place = {"background": self.background, "camera": self.camera}
        if not self.bodies:
            return {"shape": NOTHING, "colour": NOTHING, **place}
        first, *others = sorted(self.bodies, key=lambda body: body.x[0] + body.y[0])
        look = {"shape": first.shape, "colour": first.colour, "style": first.style}
        facts = {**look, "motion": first.motion, **place}
        if others:
            second = others[0]
            relation = relate(first, second)
            return facts | {
                "shape2": second.shape, "colour2": second.colour, "relation": relation,
            }  # fmt: skip
        if first.motion in DIRECTIONS:
            facts["speed"] = first.speed
        if first.motion not in ("grows", "shrinks") and self.camera == "still":
            facts["size"] = first.size
        return facts


def check(prompted: dict[str, str], reading: Reading) -> dict[str, bool]:
    """Which prompted facts are true of a reading; of two objects, under the better order."""
    if "relation" not in prompted and "shape2" not in prompted:
        return _check_single(prompted, reading)
    if len(reading.bodies) != 2:
        return dict.fromkeys(prompted, False)
    a, b = reading.bodies
    checked = [_check_pair(prompted, reading, *order) for order in ((a, b), (b, a))]
    return max(checked, key=lambda facts: sum(facts.values()))


def relate(first: Track, second: Track) -> str:
    """Where the first object is, seen from the second."""
    dx, dy = first.x[0] - second.x[0], first.y[0] - second.y[0]
    if abs(dx) >= abs(dy):
        return "left" if dx < 0 else "right"
    return "above" if dy < 0 else "below"


def _check_single(prompted: dict[str, str], reading: Reading) -> dict[str, bool]:
    seen = {"background": reading.background, "camera": reading.camera}
    if len(reading.bodies) == 1:
        seen = reading.facts()
    return {name: seen.get(name) == value for name, value in prompted.items()}


def _check_pair(
    prompted: dict[str, str], reading: Reading, first: Track, second: Track
) -> dict[str, bool]:
    seen = {
        "shape": first.shape, "colour": first.colour,
        "shape2": second.shape, "colour2": second.colour,
        "relation": relate(first, second),
        "background": reading.background, "camera": reading.camera,
        "style": first.style if first.style == second.style else "mixed",
        "motion": "still" if first.motion == second.motion == "still" else "moving",
    }  # fmt: skip
    return {name: seen.get(name) == value for name, value in prompted.items()}
