"""What the verbs that make training data of a catalogue can be told. Imports nothing heavy."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from contentv.base.config import Argument, Config
from contentv.base.options import Device
from contentv.curation.config import RunConfig
from contentv.curation.selection.questions import PolicyConfig

_CAPTIONER = "http://HOST:PORT/v1, a Qwen2.5-VL folder, or the word oracle"


class ExportConfig(PolicyConfig):
    """Write the clips that a policy keeps, each cut to the frame, cropped and encoded anew.

    With --virtual nothing is written but a table that points into the sources; clips that need a
    crop, a turn or even time stamps are then left out, and counted. A policy with a bucket cuts
    clips to the bucket's duration and shape, so that captions written later are of what training
    shows. What is exported already stays; run again to go on.
    """

    out: Path = Field(Path("clips"), description="folder to write to")
    virtual: bool = Field(False, description="point into the sources instead of copying")
    root: Annotated[Path | None, Argument(default="folder that holds all sources")] = Field(
        None, description="folder that a virtual table's paths start from"
    )
    workers: Annotated[int, Argument(default="0: one a processor")] = Field(
        0, ge=0, le=1024, description="clips cut at the same time"
    )
    limit: Annotated[int | None, Argument(default="all")] = Field(
        None, ge=1, description="clips to export, in the order of their rank or id"
    )


class CaptionerConfig(Config):
    """Who writes captions."""

    caption_model: str = Field(
        "Qwen/Qwen2.5-VL-7B-Instruct", description="the model's name, as a server knows it"
    )
    token_file: Annotated[Path | None, Argument(default="none")] = Field(
        None, description="file with the server's access token"
    )
    device: Device = None


class CaptionConfig(CaptionerConfig):
    """Write captions for exported clips: short and detailed ones of each, from what training shows.

    The captioner is an OpenAI-compatible server, a Qwen2.5-VL folder, or `oracle` for footage of
    the toy world. An answer cut short is asked for again with more room; what fails the checks
    (refusals, repetitions) is left out with the reason. What is captioned stays; run again to go
    on.
    """

    clips: Annotated[Path, Argument(positional=True, metavar="CLIPS")] = Field(
        description="folder that `curate export` wrote"
    )
    captioner: str = Field(description=_CAPTIONER)
    parallel: int = Field(8, ge=1, le=256, description="requests to a server at the same time")
    timeout: float = Field(300.0, gt=0, description="seconds for one request")


class PackConfig(Config):
    """Copy exported, captioned clips into a layout that other programs read."""

    clips: Annotated[Path, Argument(positional=True, metavar="CLIPS")] = Field(
        description="folder that `curate export` wrote"
    )
    layout: Literal["metadata", "webdataset"] = Field(
        "metadata", description="metadata.jsonl as Hugging Face reads it, or tar files"
    )
    out: Path = Field(description="folder to write; it must be empty or new")
    shard_mb: int = Field(500, ge=1, le=100_000, description="size of a tar file, in megabytes")


class CurateConfig(RunConfig, CaptionerConfig):
    """Measure every video and picture below some folders, and write a catalogue of their clips.

    With --policy also select clips, with --clips export them, with --captioner caption them. What
    was done before is not done again: a run that was stopped goes on, one that was finished is
    brought up to date. A file that cannot be used is a row that says why.
    """

    policy: Annotated[str | None, Argument(default="none: measure only")] = Field(
        None, description="select by a built-in policy, or by a .yaml file"
    )
    clips: Annotated[Path | None, Argument(default="none")] = Field(
        None, description="export what the policy keeps to this folder"
    )
    captioner: Annotated[str | None, Argument(default="none")] = Field(
        None, description=f"caption what was exported: {_CAPTIONER}"
    )
