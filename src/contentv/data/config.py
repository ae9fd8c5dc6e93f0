"""What `contentv toyworld` and `contentv data` can be told."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from contentv.base.config import Argument, Config
from contentv.base.options import FileWorkers, Root
from contentv.data.buckets import BucketConfig


class RenderConfig(Config):
    """Write one clip of the toy world as a video, with its captions and facts in a JSON file.

    The same numbers give the same clip on every machine.
    """

    seed: int = Field(0, ge=0, description="which endless row of clips")
    index: int = Field(0, ge=0, description="which clip of that row")
    split: Literal["train", "seen", "held_out"] = Field(
        "train", description="held_out: colours on shapes that training never shows"
    )
    num_frames: int = Field(17, ge=1, le=1001, description="length")
    fps: int = Field(8, ge=1, le=120, description="frames a second of the file")
    scale: int = Field(4, ge=1, le=64, description="write each pixel as SCALE x SCALE pixels")
    out: Annotated[Path | None, Argument(default="toyworld_SPLIT_SEED_INDEX.mp4")] = Field(
        None, description="file to write: .mp4 or .gif"
    )


class ReadConfig(Config):
    """Say which facts of the toy world a video shows.

    Where the facts asked for are known, from --prompt or from the JSON file beside the video, each
    is compared with what is seen.
    """

    video: Annotated[Path, Argument(positional=True, metavar="VIDEO")] = Field(
        description="a video file"
    )
    prompt: Annotated[str | None, Argument(default="the video's own")] = Field(
        None, description="what was asked for"
    )


class CheckConfig(BucketConfig):
    """Say what training will do with every clip of a data set, or why it will not use it.

    A data set is a folder of clips with .txt files beside them, or one with metadata.csv, .jsonl or
    .json, with videos.txt and prompt.txt, with .tar files, or with manifest.parquet.
    """

    path: Annotated[Path, Argument(positional=True, metavar="PATH")] = Field(
        description="a folder, or the file that describes the data set"
    )
    root: Root = None
    batch_size: int = Field(
        1, ge=1, description="clips of the largest bucket at once; the others cost the same"
    )
    max_batch_size: int = Field(64, ge=1, description="clips at once in any bucket")
    width: int = Field(
        2432, ge=1, description="channels of the transformer, which batch sizes depend on"
    )
    workers: FileWorkers = 0
    show: int = Field(20, ge=0, description="clips to print, dropped ones first")
    out: Annotated[Path | None, Argument(default="NAME_check")] = Field(
        None, description="folder for the rows, the summary and the measured manifest"
    )
