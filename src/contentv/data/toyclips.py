"""`contentv toyworld`: a clip of the toy world to a file, the facts of any file to a person."""

from dataclasses import dataclass
from pathlib import Path

from contentv.base.errors import UserError, WorldError
from contentv.base.files import read_json, write_json
from contentv.data.config import ReadConfig, RenderConfig
from contentv.toyworld.captions import parse
from contentv.toyworld.oracle import read as read_facts
from contentv.toyworld.reading import check
from contentv.video.io import read_video, write_video


@dataclass(frozen=True)
class RenderResult:
    """The file and the caption of what is in it."""

    file: Path
    caption: str

    def __str__(self) -> str:
        return f"{self.file}\n{self.caption}"


@dataclass(frozen=True)
class ReadResult:
    """The facts seen, and of each fact asked for whether it holds."""

    seen: dict[str, str]
    asked: dict[str, str]
    holds: dict[str, bool]

    def __str__(self) -> str:
        names = [*self.seen, *(name for name in self.asked if name not in self.seen)]
        return "\n".join(f"{name:<11}{self._describe(name)}".rstrip() for name in names)

    def _describe(self, name: str) -> str:
        seen = self.seen.get(name, "-")
        if name not in self.asked:
            return seen
        verdict = "as asked" if self.holds[name] else f"asked: {self.asked[name]}"
        return f"{seen:<11}{verdict}"


def render(config: RenderConfig) -> RenderResult:
    """Write clip `index` of row `seed` of a split, and beside it its captions and facts as JSON."""
    from contentv.toyworld.dataset import (
        sample,
    )  # its random numbers bring torch; reading needs none

    clip = sample(config.seed, config.index, split=config.split)
    name = f"toyworld_{config.split}_{config.seed}_{config.index}.mp4"
    file = config.out or Path(name)
    if not file.suffix:
        raise UserError(f"out={file}: name a file, .mp4 or .gif")
    write_video(file, clip.frames(config.num_frames), fps=config.fps, scale=config.scale)
    content = {
        "prompt": clip.short.text,
        "long_prompt": clip.long.text,
        "facts": clip.scene.facts,
        **config.model_dump(mode="json", exclude={"out"}),
    }
    write_json(file.with_suffix(".json"), content)
    return RenderResult(file, clip.short.text)


def read(config: ReadConfig) -> ReadResult:
    """Read the facts of a video file, and compare them with those asked for."""
    clip = read_video(config.video)
    try:
        reading = read_facts(clip.frames)
    except ValueError as error:
        raise WorldError(f"{config.video}: not a clip of the toy world ({error})") from error
    asked = _asked(config)
    return ReadResult(reading.facts(), asked, check(asked, reading))


def _asked(config: ReadConfig) -> dict[str, str]:
    if config.prompt is not None:
        return parse(config.prompt)
    beside = config.video.with_suffix(".json")
    content = read_json(beside) if beside.is_file() else {}
    if not isinstance(content, dict):
        return {}
    if isinstance(content.get("facts"), dict):
        return {str(name): str(value) for name, value in content["facts"].items()}
    job = content.get("job")
    prompt = job.get("prompt") if isinstance(job, dict) else None
    return parse(prompt) if isinstance(prompt, str) else {}
