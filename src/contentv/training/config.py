"""Settings of one training stage, and of one call of it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from contentv.base.config import Config


class OptimizerConfig(Config):
    """AdamW, or Muon for the blocks' matrices with AdamW for the rest.

    `learning_rate` means the same for both: Muon's updates are scaled to AdamW's typical size.
    After the warm-up it holds for the share `hold` of the run, then falls along half a cosine;
    until it falls, a run may be made longer or shorter without a difference. A constant rate never
    falls.
    """

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    final_ratio: float = Field(0.05, ge=0, le=1)
    warmup_steps: int = Field(100, ge=0)
    hold: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.99)


class SpikeConfig(Config):
    """Updates left out because loss or gradient norm is `factor` times its running median.

    The median is of the last `history` updates that were made; none is judged before half of them.
    A run stops after `limit` spikes in a row: then it is not a sample that is wrong. 0 = never.
    """

    factor: float = Field(0.0, ge=0)
    history: int = Field(64, ge=2)
    limit: int = Field(5, gt=0)

    @model_validator(mode="after")
    def _factor_is_above_the_usual(self) -> Self:
        if 0 < self.factor <= 1:
            raise ValueError(f"factor={self.factor}: must be above 1, or 0 for never")
        return self


class StageConfig(Config):
    """One stage: how long, how updated, how watched. `seed` and `name` key every random number.

    The newest `keep` checkpoints stay on disk. `validate_every` 0 = never.
    """

    name: str
    steps: int = Field(gt=0)
    seed: int = 0
    optimizer: OptimizerConfig = OptimizerConfig()
    max_grad_norm: float = Field(1.0, gt=0)
    spikes: SpikeConfig = SpikeConfig()
    ema_decay: float = Field(0.999, ge=0, lt=1)
    bf16: bool = True
    log_every: int = Field(20, gt=0)
    checkpoint_every: int = Field(200, gt=0)
    validate_every: int = Field(0, ge=0)
    keep: int = Field(2, gt=0)


class RunOptions(Config):
    """What is asked of one call, and is no part of the run.

    `accept` goes on although settings changed that touch neither data nor network; `dry_run` builds
    everything, draws the first batch and makes no step; `wandb` is a project to send curves to.
    """

    accept: bool = False
    dry_run: bool = False
    wandb: str | None = None
