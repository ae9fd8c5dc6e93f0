"""Settings of one training stage."""

from typing import Literal

from pydantic import Field

from contentv.base.config import Config


class OptimizerConfig(Config):
    """AdamW, or Muon for the blocks' matrices with AdamW for the rest.

    `learning_rate` means the same for both: Muon's updates are scaled to AdamW's typical size.
    After the warm-up it holds for the share `hold` of the run, then falls along half a cosine;
    until it falls, a run may be made longer or shorter without a difference.
    """

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0)
    final_ratio: float = Field(0.05, ge=0, le=1)
    warmup_steps: int = Field(100, ge=0)
    hold: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.99)


class StageConfig(Config):
    """One stage: how long, how updated, how watched. `seed` and `name` key every random number."""

    name: str
    steps: int = Field(gt=0)
    seed: int = 0
    optimizer: OptimizerConfig = OptimizerConfig()
    max_grad_norm: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    bf16: bool = True
    log_every: int = Field(20, gt=0)
    checkpoint_every: int = Field(200, gt=0)
