"""What every measurement of curation needs: footage, a folder, a seed; and a line of the table."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contentv.curation.selection.policy import load_policy
from contentv.curation.step import WHOLE, Box, Footage, Row, Span, Step, Watcher
from contentv.video.watching import watch
from footage import Take, real_files, takes

if TYPE_CHECKING:
    from contentv.curation.cutting.shots import ShotFinder, ShotWatcher

POLICY = "pretraining"  # whose thresholds are used
_MOST_PIXELS = 4096 * 2304


@dataclass(frozen=True)
class Line:
    """A line of the table: what is to be reached, what was, and on how many cases."""

    name: str
    aim: str
    reached: float
    n: int
    met: bool
    note: str = ""


@dataclass(frozen=True)
class Workshop:
    """Where things are made. `effort` multiplies how many; seeds count up from `seed`."""

    folder: Path
    seed: int
    effort: float

    @property
    def files(self) -> dict[str, Path]:
        """The real files."""
        return real_files(self.folder / "unpacked")

    @property
    def pool(self) -> list[Take]:
        """Shots that no test uses."""
        return takes(self.files, "benchmarks")

    def count(self, full: int) -> int:
        """How many of what would be `full`; at least 1."""
        return max(1, round(full * self.effort))

    def place(self, name: str) -> Path:
        """A path of that name in the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / name


def at_least(name: str, reached: float, aim: float, n: int, note: str = "") -> Line:
    """A line that is met from `aim` on."""
    return Line(name, f">= {aim:g}", round(float(reached), 4), n, bool(reached >= aim), note)


def at_most(name: str, reached: float, aim: float, n: int, note: str = "") -> Line:
    """A line that is met up to `aim`."""
    return Line(name, f"<= {aim:g}", round(float(reached), 4), n, bool(reached <= aim), note)


def share(count: int, of: int) -> float:
    """A part; 1 of nothing."""
    return count / of if of else 1.0


def threshold(column: str) -> float:
    """What the built-in policy asks of a column, at least."""
    found = [rule.min for rule in load_policy(POLICY).rules if rule.column == column]
    assert found
    assert found[0] is not None
    return found[0]


@dataclass
class Look:
    """A video that was shown once: what its steps have kept, and the times of its samples."""

    footage: Footage
    watchers: dict[str, Watcher]
    shots: "ShotWatcher | None"
    samples: list[tuple[float, int]]
    duration: float = 0.0

    @property
    def whole(self) -> Span:
        """A clip that is all of the video."""
        return Span("whole", "video", 0, 0.0, self.duration, 0, 0)

    def row(self, step: Step, crop: Box = WHOLE) -> Row:
        """The step's row of the whole video."""
        return self.watchers[step.name].score([self.whole], [crop])[0]


def look(path: Path, steps: Sequence[Step], finder: "ShotFinder | None" = None) -> Look:
    """Show a video of ours, without a child process, to some steps and a finder of shots."""
    items = watch(str(path), "video", max_pixels=_MOST_PIXELS, tolerant=False)
    head = next(items)
    assert isinstance(head, dict)
    footage = _footage(path, head["facts"])
    watchers = {step.name: step.watch(footage) for step in steps}
    seen = Look(footage, watchers, finder.watch(footage) if finder else None, [])
    for item in items:
        if isinstance(item, dict):
            seen.duration = float(item["summary"]["duration"])
            continue
        picture, note = item
        time, pts = float(note["time"]), int(note["pts"])
        if note["stream"] == "samples":
            seen.samples.append((time, pts))
        if note["stream"] == "thumbs" and seen.shots:
            seen.shots.see(time, pts, picture)
        for step in steps:
            if step.stream == note["stream"]:
                watchers[step.name].see(time, picture)
    return seen


def _footage(path: Path, facts: dict[str, Any]) -> Footage:
    size = int(facts["width"]), int(facts["height"])
    base = Fraction(facts["time_base"])
    return Footage(path.stem, path, "video", *size, float(facts["fps"]), base, 0)
