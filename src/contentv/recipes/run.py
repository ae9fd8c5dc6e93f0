"""`contentv train`: run a recipe from wherever it stopped to its model folder."""

from dataclasses import dataclass
from pathlib import Path

from contentv.base.device import pick_device
from contentv.distributed.mesh import refuse_torchrun
from contentv.recipes import tiny
from contentv.recipes.config import TrainConfig
from contentv.recipes.selftest import SelftestResult, selftest
from contentv.training.config import RunOptions

_RECIPES = {"tiny": tiny.TINY, "smoke": tiny.SMOKE}


@dataclass(frozen=True)
class TrainResult:
    """Where the finished model is."""

    model: Path

    def __str__(self) -> str:
        return f"{self.model}"


@dataclass(frozen=True)
class DryRunResult:
    """Nothing was trained; the log has told what would be."""

    recipe: str

    def __str__(self) -> str:
        return f"{self.recipe}: everything was built, nothing was trained or written"


def run(config: TrainConfig) -> TrainResult | DryRunResult | SelftestResult:
    """Train; every stage resumes from its newest checkpoint, finished stages are skipped.

    UserError when torchrun started it, or a stage began with other settings.
    """
    refuse_torchrun("contentv train")
    device = pick_device(config.device)
    if config.recipe is None:
        return selftest(device)
    options = RunOptions(accept=config.accept, dry_run=config.dry_run, wandb=config.wandb)
    compute = tiny.Compute(device, compiled=config.compiled, options=options)
    model = tiny.train(_RECIPES[config.recipe], config.out / config.recipe, compute)
    return DryRunResult(config.recipe) if config.dry_run else TrainResult(model)
