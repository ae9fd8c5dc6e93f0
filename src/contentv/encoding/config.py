"""What `contentv encode`, `contentv serve` and `contentv serve certs` can be told."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from contentv.base.config import Argument, Config
from contentv.base.options import Device, FileWorkers, Root, TestCaptions


class EncodeConfig(Config):
    """Encode clips and captions once, before training, or prompts before generating.

    Run it again to go on where it stopped, or after clips were added: what is there stays. With
    --clips, --out is a folder of features; with --prompts, a file for `contentv generate
    --prompt-embeds`.
    """

    clips: Annotated[Path | None, Argument(metavar="PATH")] = Field(
        None, description="a folder of clips, or the file that describes the data set"
    )
    prompts: Annotated[Path | None, Argument(metavar="FILE")] = Field(
        None, description="prompts, as in `contentv generate --prompts`"
    )
    verify: bool = Field(False, description="read all shards of --out again, and do nothing else")
    remove: bool = Field(False, description="with --verify: delete the shards that are damaged")
    out: Path = Field(description="folder of features, or a .safetensors file for prompts")
    model: str = Field("tiny", description="built-in name, model folder or Hugging Face id")
    text: bool = Field(True, description="encode captions too")
    areas: Annotated[tuple[int, ...] | None, Argument(default="the model's")] = Field(
        None, min_length=1, description="pixels of a frame: one or more resolutions"
    )
    frames: Annotated[tuple[int, ...] | None, Argument(default="up to the model's")] = Field(
        None, min_length=1, description="lengths to train on; 1 stands for pictures"
    )
    fps: Annotated[float | None, Argument(default="the model's")] = Field(
        None, gt=0, le=1000, description="frames a second that training shows"
    )
    max_crop: float = Field(
        0.5, ge=0, lt=1, description="leave out clips that would lose more of the picture"
    )
    windows: int = Field(
        1, ge=1, le=1000, description="parts in which a clip longer than its bucket is seen"
    )
    root: Root = None
    test_captions: TestCaptions = False
    workers: int = Field(1, ge=1, le=1024, description="processes that encode, one thread each")
    retry: bool = Field(False, description="try clips again that could not be read before")
    device: Device = None

    @model_validator(mode="after")
    def _one_thing_to_do(self) -> Self:
        asked = (self.clips is not None, self.prompts is not None, self.verify)
        if sum(asked) != 1:
            raise ValueError("give one of --clips, --prompts and --verify")
        if self.remove and not self.verify:
            raise ValueError("remove=True: goes with --verify alone; leave it out")
        if self.prompts is not None and self.out.suffix != ".safetensors":
            raise ValueError(f"out={self.out}: embeddings of prompts are one .safetensors file")
        return self


class ServeConfig(Config):
    """Encode for trainers elsewhere, which ask for batches of a run's plan; Ctrl-C ends it.

    Clips, recipe and model must be those of the training: other requests are refused. Several
    servers of one run need not know of each other. Requests under way are finished at the end. With
    --autotune it serves nobody, and says how many devices like this one a training needs.
    """

    clips: Annotated[Path, Argument(metavar="PATH")] = Field(
        description="a folder of clips, or the file that describes the data set"
    )
    plan: Annotated[Path, Argument(metavar="FILE")] = Field(
        description="the run's recipe.yaml, or the file that its --recipe names"
    )
    model: str = Field(description="built-in name, model folder or Hugging Face id")
    bind: Annotated[str, Argument(metavar="HOST:PORT")] = Field(
        "127.0.0.1:8815", description="where to listen; anything but this machine needs --tls"
    )
    tls: Annotated[Path | None, Argument(default="none")] = Field(
        None, description="the folder `server` that `contentv serve certs` wrote"
    )
    metrics_port: Annotated[int | None, Argument(default="none")] = Field(
        None, ge=0, le=65535, description="port of /metrics and /health, for this machine only"
    )
    stage: Annotated[str | None, Argument(default="all")] = Field(
        None, description="serve this stage alone"
    )
    cache: Path = Field(
        Path("runs/serve"), description="folder for measured sizes and latents; may be shared"
    )
    root: Root = None
    test_captions: TestCaptions = False
    workers: FileWorkers = 0
    device: Device = None
    autotune: bool = Field(
        False, description="measure encoding here and say how many such devices feed --trainers"
    )
    trainers: Annotated[int | None, Argument(default="none")] = Field(
        None, ge=1, le=65536, description="with --autotune: number of devices that train"
    )
    step_seconds: Annotated[float | None, Argument(default="predicted")] = Field(
        None, gt=0, description="with --autotune: time of their steps in --stage, from their log"
    )
    trainer_device: Annotated[str | None, Argument(metavar="KIND", default="none")] = Field(
        None, description="with --autotune: their kind, as in `contentv plan`, to predict that time"
    )
    mfu: float = Field(
        0.4, gt=0, le=1, description="share of their peak that they reach, to predict that time"
    )

    @model_validator(mode="after")
    def _autotune_knows_the_trainers(self) -> Self:
        given = (self.step_seconds is not None) + (self.trainer_device is not None)
        if not self.autotune:
            if given or self.trainers is not None:
                raise ValueError("autotune=False: trainers and their steps go with --autotune only")
            return self
        if self.trainers is None:
            raise ValueError("autotune=True: say by --trainers how many devices train")
        if given != 1:
            raise ValueError("autotune=True: give either --step-seconds or --trainer-device")
        if self.step_seconds is not None and self.stage is None:
            raise ValueError(
                f"step_seconds={self.step_seconds:g}: is of one stage; name it by --stage"
            )
        return self


class CertsConfig(Config):
    """Make certificates and a token, by which encode servers and trainers know each other.

    Two folders are written: `server` for `contentv serve --tls`, `client` for trainers. The key
    that signed them is thrown away. Needs openssl.
    """

    out: Path = Field(description="folder to write; must not exist")
    names: tuple[str, ...] = Field(
        ("localhost", "127.0.0.1"),
        min_length=1,
        description="host names and addresses by which trainers reach the servers",
    )
    days: int = Field(30, ge=1, le=3650, description="how long they are good")

    @field_validator("names")
    @classmethod
    def _names_are_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not name or not all(c.isascii() and (c.isalnum() or c in ".-_:*") for c in name):
                raise ValueError(f"names={name}: must be host names or addresses")
        return names
