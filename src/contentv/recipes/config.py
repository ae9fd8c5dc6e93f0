"""Settings of `contentv train`, `contentv train finetune` and `contentv export`."""

from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from contentv.base.config import Argument, Config
from contentv.base.options import Device, FileWorkers, Root, TestCaptions
from contentv.distributed.config import ParallelConfig
from contentv.pipelines.config import SamplingConfig

RecipeName = Literal["tiny", "smoke"]


Accept: TypeAlias = Annotated[
    bool,
    Field(description="go on although settings changed that touch neither data nor network"),
]
DryRun: TypeAlias = Annotated[
    bool, Field(description="build everything, say what would run, and make no step")
]
Wandb: TypeAlias = Annotated[
    str | None,
    Argument(default="none"),
    Field(description="project of wandb to send curves to"),
]


class TrainConfig(Config):
    """Train a model by a recipe; run again with the same folder to go on where it stopped.

    `contentv train finetune --help` tells of training on clips of your own, `contentv train
    contentv_8b --help` of the paper's stages.
    """

    recipe: Annotated[RecipeName | None, Argument(positional=True)] = Field(
        None,
        description="tiny: the shipped model, over an hour with --jobs 2; smoke: the same stages "
        "in half a minute; none with --selftest",
    )
    out: Path = Field(
        Path("runs"), description="folder of runs; this one gets a folder of its recipe's name"
    )
    stage: Annotated[str | None, Argument(default="all")] = Field(
        None, description="one stage of the recipe alone; those before it must be finished"
    )
    jobs: int = Field(
        1, ge=1, le=64, description="stages at the same time, in processes of their own"
    )
    device: Device = None
    compiled: bool = Field(
        True, description="train compiled networks: a slow start, then faster steps"
    )
    accept: Accept = False
    dry_run: DryRun = False
    selftest: bool = Field(
        False, description="learn one clip by heart: does training work on this machine?"
    )
    wandb: Wandb = None

    @model_validator(mode="after")
    def _one_thing_to_do(self) -> Self:
        if self.selftest == (self.recipe is not None):
            raise ValueError(
                f"recipe={self.recipe or ''}: name tiny or smoke, or ask for --selftest alone"
            )
        if self.jobs > 1 and (self.stage or self.dry_run):
            raise ValueError(f"jobs={self.jobs}: --stage and --dry-run run in one process")
        return self


class ExportConfig(Config):
    """Make a model folder of a run's newest checkpoint: weights only, no training state."""

    checkpoint: Annotated[Path, Argument(positional=True, metavar="STAGE")] = Field(
        description="folder of a stage of a run, or one of its checkpoints"
    )
    base: Path = Field(
        description="model folder that the stage's networks belong to; all that was not trained "
        "is taken from it"
    )
    out: Path = Field(description="model folder to write")
    weights: Literal["ema", "raw"] = Field(
        "ema", description="ema: averaged over the last steps; raw: of the last step"
    )
    dtype: Literal["bf16", "fp32"] = Field("bf16", description="number format of the weights")


class ValidationConfig(SamplingConfig):
    """Videos of the same prompts and noise after every `every` steps of a stage; 0 = never.

    `prompts_file` is what `contentv generate --prompts` reads; its prompts follow `prompts`.
    """

    every: int = Field(0, ge=0)
    prompts: tuple[str, ...] = ()
    prompts_file: Path | None = None

    @model_validator(mode="after")
    def _knows_what_to_show(self) -> Self:
        if self.every and not self.prompts and self.prompts_file is None:
            raise ValueError(f"every={self.every}: no prompts to validate with; give some")
        return self


class FinetuneConfig(Config):
    """Train a model further on a folder of your own clips; run again to go on where it stopped.

    By default the model stays as it is and a LoRA is learned, a small file to be loaded with it.
    Any layout that `contentv data check` reads is good; ask it first what will become of each clip.
    """

    data: Path = Field(description="a folder of clips, or the file that describes the data set")
    model: str = Field("tiny", description="built-in name, model folder or Hugging Face id")
    out: Path = Field(Path("runs/finetune"), description="folder of this run")
    lora_rank: Annotated[int | None, Argument(default="16")] = Field(
        None, ge=1, le=1024, description="rank of the LoRA: higher learns and forgets more"
    )
    full: bool = Field(False, description="train all weights of the transformer and write a model")
    steps: int = Field(500, gt=0, description="updates of the weights")
    batch_size: int = Field(
        1, ge=1, description="clips of the largest bucket at once; the others cost no more"
    )
    micro_batches: int = Field(
        1, ge=1, description="batches whose gradients make one update, of all processes together"
    )
    learning_rate: Annotated[float | None, Argument(default="1e-4, with --full 1e-5")] = Field(
        None, gt=0, description="size of an update"
    )
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
        0.5, ge=0, lt=1, description="drop clips that would lose a larger share of the picture"
    )
    windows: int = Field(
        1, ge=1, le=1000, description="parts in which a clip longer than its bucket is seen"
    )
    root: Root = None
    test_captions: TestCaptions = False
    long_captions: float = Field(
        0.5, ge=0, le=1, description="share of long captions where a clip has both"
    )
    caption_drop: float = Field(
        0.1, ge=0, le=1, description="how often each text encoder reads nothing, for guidance"
    )
    shift: float = Field(
        1.0, gt=0, description="above 1: more training at high noise, where layout is decided"
    )
    recompute: Literal["none", "full", "selective"] = Field(
        "none", description="compute blocks again in the backward: less memory, more time"
    )
    seed: int = Field(0, ge=0, description="keys every random number")
    log_every: int = Field(10, gt=0, description="steps between log lines")
    checkpoint_every: int = Field(100, gt=0, description="steps between checkpoints")
    validate_every: int = Field(
        0, ge=0, description="steps between videos that show what was learned so far; 0: none"
    )
    validation_prompts: Annotated[
        Path | None, Argument(metavar="FILE", default="captions of your first clips")
    ] = Field(None, description="what those videos show, as in `contentv generate --prompts`")
    workers: FileWorkers = 0
    device: Device = None
    accept: Accept = False
    dry_run: DryRun = False
    wandb: Wandb = None

    @model_validator(mode="after")
    def _one_method(self) -> Self:
        if self.full and self.lora_rank is not None:
            raise ValueError(
                f"lora_rank={self.lora_rank}: --full trains all weights; leave one out"
            )
        return self

    @model_validator(mode="after")
    def _prompts_have_a_use(self) -> Self:
        if self.validation_prompts and not self.validate_every:
            raise ValueError(
                f"validation_prompts={self.validation_prompts}: say how often, by --validate-every"
            )
        return self

    @property
    def rank(self) -> int:
        """Rank of the LoRA."""
        return self.lora_rank or 16


class ChainConfig(Config):
    """Train the paper's stages; run again with the same folder to go on where it stopped.

    Each stage begins with the averaged weights of the one before. Alone it trains on one device,
    started by torchrun on as many as there are processes.
    """

    data: Path = Field(description="a folder of clips, or the file that describes the data set")
    model: str = Field(
        description="built-in name, model folder or Hugging Face id: its autoencoder and text "
        "encoders encode, its transformer is where the first stage begins"
    )
    out: Path = Field(
        Path("runs/contentv_8b"), description="folder of this run, seen by all machines"
    )
    recipe: Annotated[Path | None, Argument(default="the paper's")] = Field(
        None, description="YAML file of what is to be different in the recipe"
    )
    stage: Annotated[str | None, Argument(default="all")] = Field(
        None, description="train this stage alone"
    )
    until: Annotated[str | None, Argument(default="the last")] = Field(
        None, description="stop after this stage"
    )
    init_from: Annotated[str | None, Argument(default="the stage before, or --model")] = Field(
        None,
        description="weights that the first of these stages begins with: a model folder or id, a "
        "stage of a run or one of its checkpoints",
    )
    features: Annotated[tuple[Path, ...], Argument(metavar="DIR", default="none")] = Field(
        (),
        description="what `contentv encode` has written, to read instead of encoding here: a "
        "folder for each set of buckets",
    )
    servers: Annotated[tuple[str, ...], Argument(metavar="HOST:PORT", default="none")] = Field(
        (), description="encode servers to ask for batches instead of encoding here"
    )
    tls: Annotated[Path | None, Argument(default="none")] = Field(
        None, description="the folder `client` that `contentv serve certs` wrote, for --servers"
    )
    replicate: Annotated[int | None, Argument(default="one a node")] = Field(
        None, ge=1, description="whole copies of the weights"
    )
    shard: Annotated[int | None, Argument(default="a node's devices")] = Field(
        None, ge=1, description="processes that share the weights of a copy"
    )
    sp: Annotated[int | None, Argument(default="1")] = Field(
        None, ge=1, description="processes that share the tokens of a sample"
    )
    tp: Annotated[int | None, Argument(default="1")] = Field(
        None, ge=1, description="processes that share the matrices of a block"
    )
    root: Root = None
    test_captions: TestCaptions = False
    workers: FileWorkers = 0
    device: Device = None
    accept: Accept = False
    dry_run: DryRun = False
    wandb: Wandb = None

    @model_validator(mode="after")
    def _one_choice_of_stages(self) -> Self:
        if self.stage is not None and self.until is not None:
            raise ValueError(f"stage={self.stage}: is one stage alone; leave out --until")
        return self

    @model_validator(mode="after")
    def _one_place_to_encode(self) -> Self:
        if self.features and self.servers:
            raise ValueError(f"features={self.features[0]}: leave it out, or leave out --servers")
        return self

    @model_validator(mode="after")
    def _certificate_has_a_use(self) -> Self:
        if self.tls is not None and not self.servers:
            raise ValueError(f"tls={self.tls}: is for encode servers; name them with --servers")
        return self

    @property
    def parallel(self) -> ParallelConfig | None:
        """The layout asked for; None when none is, and then the recipe decides."""
        degrees = {name: getattr(self, name) for name in ("replicate", "shard", "sp", "tp")}
        said = {name: degree for name, degree in degrees.items() if degree is not None}
        return ParallelConfig(**said) if said else None
