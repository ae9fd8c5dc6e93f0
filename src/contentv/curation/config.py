"""What `contentv curate run` and `curate retry` can be told."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from contentv.base.config import Argument, Config
from contentv.curation.settings import (
    AestheticSettings,
    BlurSettings,
    CropSettings,
    DedupSettings,
    EmbeddingSettings,
    HashSettings,
    LimitSettings,
    MotionSettings,
    OverlaySettings,
    ShotSettings,
    TextSettings,
)

Failure = Literal["corrupt", "unsupported", "unreadable", "timeout", "oom", "crash"]


class CurationSettings(Config):
    """The settings of all steps: what `--settings FILE` holds, as YAML."""

    limits: LimitSettings = Field(LimitSettings(), description="What opening a file may cost")
    shots: ShotSettings = Field(ShotSettings(), description="Shots, and clips of them")
    text: TextSettings = Field(TextSettings(), description="Text in the picture")
    overlays: OverlaySettings = Field(OverlaySettings(), description="Logos and borders")
    crop: CropSettings = Field(CropSettings(), description="The part that is kept")
    blur: BlurSettings = Field(BlurSettings(), description="Sharpness")
    motion: MotionSettings = Field(MotionSettings(), description="Motion")
    aesthetic: AestheticSettings = Field(AestheticSettings(), description="Beauty")
    embedding: EmbeddingSettings = Field(EmbeddingSettings(), description="Vectors of clips")
    hashes: HashSettings = Field(HashSettings(), description="Hashes of clips")
    dedup: DedupSettings = Field(DedupSettings(), description="Duplicates")


class _EngineConfig(Config):
    """Who does the work."""

    out: Path = Field(Path("curated"), description="folder of the catalogue")
    workers: Annotated[int, Argument(default="0: one a processor")] = Field(
        0, ge=0, le=4096, description="processes of one thread each"
    )
    engine: Literal["local", "ray"] = Field(
        "local", description="ray: Ray Data, which needs pip install 'contentv[ray]'"
    )
    ray_address: Annotated[str | None, Argument(default="a Ray of its own on this machine")] = (
        Field(None, description="a running Ray cluster; its machines share all folders")
    )


class RunConfig(_EngineConfig):
    """Measure every video and picture below some folders, and write a catalogue of their clips.

    What was measured before is not measured again, so that a run that was stopped goes on, and one
    that was finished is brought up to date. A file that cannot be used is a row that says why.
    """

    sources: Annotated[tuple[Path, ...], Argument(positional=True, metavar="SOURCES")] = Field(
        min_length=1, description="folders and files"
    )
    settings: Annotated[Path | None, Argument(default="the usual settings")] = Field(
        None, description="a .yaml file with the settings of the steps"
    )


class RetryConfig(_EngineConfig):
    """Try files again that failed, with the sources and settings of the last run."""

    error_class: Annotated[Failure, Argument(flag="class")] = Field(
        description="why they failed, as the summary names it"
    )


class TeachConfig(Config):
    """Teach a head to score clips as you do, for choosing what post-training shows.

    LABELS is a .csv or .jsonl file with clip_id and score, or with better and worse: two clips. The
    head reads the catalogue's vectors of clips, and no others.
    """

    catalogue: Path = Field(Path("curated"), description="folder of the catalogue")
    labels: Path = Field(description="file with what you say of some clips: 10 labels or more")
    out: Path = Field(Path("head.safetensors"), description="file to write")


class Record(Config):
    """What a catalogue was made of, in its `run.yaml`."""

    sources: tuple[str, ...] = Field(description="folders and files, as `scan.uri_of` writes them")
    settings: CurationSettings = Field(description="as they were used")
