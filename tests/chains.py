"""A chain of four small stages: the recipe of the 8B model at other sizes, by the same code."""

from pathlib import Path

from PIL import Image

from builders import build_random_pipeline
from contentv.base.config import Config
from contentv.recipes.config import ChainConfig
from contentv.toyworld.dataset import sample
from contentv.video.io import write_video

STAGES = ("vae_adaptation", "stage1", "stage2", "stage3")
_STAGE = """
  {name}:
    steps: 2
    video_first: {video_first}
    micro_batches: 2
    batch_size: 1
    bf16: false
    buckets: {{areas: [4096], frames: {frames}, fps: 8}}
    optimizer: {{warmup_steps: 0, learning_rate: {rate}}}
    ema_decay: 0.5
    recompute: {{mode: {recompute}}}
    log_every: 1
    checkpoint_every: 1
"""
_VIDEOS = """\
    validation:
      {every: 2, prompts: [a red circle moves left], num_frames: 5, num_inference_steps: 1}
"""


def write_recipe(file: Path, *, videos: bool = False, **rates: float) -> Path:
    """Two steps a stage, and `videos` of the last; `rates` are learning rates by stage."""
    stages = [
        _STAGE.format(
            name=name,
            frames=[1] if name == "vae_adaptation" else [1, 5],
            video_first=int(name == "stage1"),
            rate=rates.get(name, 1e-2),
            recompute="selective" if name == "stage3" else "none",
        )
        for name in STAGES
    ]
    file.write_text("seed: 1\nstages:" + "".join(stages) + _VIDEOS * videos)
    return file


def write_data(folder: Path) -> Path:
    """Three clips of five frames and three pictures, with captions."""
    folder.mkdir(parents=True)
    for number in range(6):
        clip = sample(0, number)
        if number < 3:
            write_video(folder / f"{number}.mp4", clip.frames(5), fps=8)
        else:
            Image.fromarray(clip.frames(1)[0]).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(clip.short.text)
    return folder


def prepare(folder: Path, *, videos: bool = False, **rates: float) -> Path:
    """Data, model and recipe of a chain in `folder`."""
    write_data(folder / "films")
    build_random_pipeline(folder / "model", blocks=2)
    write_recipe(folder / "recipe.yaml", videos=videos, **rates)
    return folder


def chain(folder: Path, out: str, **changes: object) -> ChainConfig:
    """What `prepare` made, as a run in `out` on the CPU."""
    settings = {
        "data": folder / "films",
        "model": str(folder / "model"),
        "recipe": folder / "recipe.yaml",
        "out": folder / out,
        "device": "cpu",
        "workers": 1,
    }
    return ChainConfig.model_validate({**settings, **changes})


def words(config: Config) -> list[str]:
    """The command line of a configuration."""
    said = config.model_dump(exclude_defaults=True, mode="json")
    line: list[str] = []
    for name, value in said.items():
        values = value if isinstance(value, list) else [] if value is True else [value]
        line += [f"--{name.replace('_', '-')}", *map(str, values)]
    return line
