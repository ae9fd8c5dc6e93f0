"""What `contentv plan` can be told: a few flags, and a file that describes the training."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from contentv.base.config import Argument, Config
from contentv.distributed.config import ParallelConfig, RecomputeConfig


class PlanConfig(Config):
    """Say what a training will need on a cluster, before anything runs.

    Prints for each stage the layout that is fastest among those that fit, its memory by part, and
    the time a step and the stage take. Nothing is measured: times follow from --mfu.
    """

    plan: Annotated[str, Argument(positional=True)] = Field(
        description="a shipped plan (paper-256, 720p-256, h200-8, lora-24gb) or a YAML file"
    )
    device: Annotated[str | None, Argument(default="the plan's")] = Field(
        None, description="kind of device: ascend, h200, h100, a100, rtx4090"
    )
    count: Annotated[int | None, Argument(default="the plan's")] = Field(
        None, ge=1, le=65536, description="number of devices"
    )
    memory_gib: Annotated[float | None, Argument(default="the device's")] = Field(
        None, gt=0, description="memory of one device"
    )
    mfu: Annotated[float | None, Argument(default="the plan's")] = Field(
        None, gt=0, le=1, description="share of the peak that a step reaches while it computes"
    )
    price: Annotated[float | None, Argument(default="the plan's")] = Field(
        None, ge=0, description="what one device costs an hour"
    )
    out: Path | None = Field(None, description="file to write the plan to, as JSON")


class BucketPlan(Config):
    """Clips of one shape, and their share of the samples of a stage."""

    frames: int = Field(ge=1)
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    share: float = Field(1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _fits_the_autoencoder(self) -> Self:
        if (self.frames - 1) % 4:
            below = (self.frames - 1) // 4 * 4 + 1
            raise ValueError(f"frames={self.frames}: must be 4k+1; use {below} or {below + 4}")
        for name in ("height", "width"):
            if (side := getattr(self, name)) % 16:
                below = max(16, side // 16 * 16)
                raise ValueError(
                    f"{name}={side}: must be a multiple of 16; use {below} or {below + 16}"
                )
        return self


class StagePlan(Config):
    """One stage: what it trains on, `batch` samples a step, for `steps` steps.

    `layout` and `recompute`, where given, are taken instead of searched for. The search splits
    matrices at most `max_tp` ways: the memory of that is not checked against a measurement.
    """

    name: str
    buckets: tuple[BucketPlan, ...] = Field(min_length=1)
    batch: int = Field(ge=1)
    steps: int = Field(ge=1)
    text_tokens: int = Field(ge=1)
    max_tp: int = Field(1, ge=1)
    layout: ParallelConfig | None = None
    recompute: RecomputeConfig | None = None

    @field_validator("buckets")
    @classmethod
    def _shares_are_whole(cls, buckets: tuple[BucketPlan, ...]) -> tuple[BucketPlan, ...]:
        total = sum(bucket.share for bucket in buckets)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"buckets={total:g}: their shares must sum to 1")
        return buckets


class MethodConfig(Config):
    """What is trained: every weight, or LoRAs of `rank` on the attention, over frozen weights.

    Full training keeps weights, gradients and AdamW's two moments in float32; `ema` adds averaged
    weights.
    """

    name: Literal["full", "lora"] = "full"
    rank: int = Field(16, ge=1)
    ema: bool = True


class PlanRecipe(Config):
    """A training and the cluster for it.

    `model` is "8b" or a `transformer/config.json`; `reserve` is the share of a device's memory left
    for the driver, workspaces, communication buffers and fragmentation.
    """

    title: str
    model: str = "8b"
    method: MethodConfig = MethodConfig()
    device: str
    count: int = Field(ge=1, le=65536)
    memory_gib: float | None = Field(None, gt=0)
    reserve: float = Field(0.1, ge=0, lt=1)
    mfu: float = Field(gt=0, le=1)
    price: float | None = Field(None, ge=0)
    stages: tuple[StagePlan, ...] = Field(min_length=1)
