"""`contentv train`: run a recipe from wherever it stopped to its model folder."""

import sys
from dataclasses import dataclass
from pathlib import Path

from contentv.base.device import pick_device
from contentv.distributed.mesh import refuse_torchrun
from contentv.recipes import tiny, toychain
from contentv.recipes.chain import run_beside, run_chain, run_link
from contentv.recipes.config import RecipeName, TrainConfig
from contentv.recipes.selftest import SelftestResult, selftest
from contentv.recipes.toystages import Compute
from contentv.training.config import RunOptions

_RECIPES = {"tiny": tiny.TINY, "smoke": tiny.SMOKE}


@dataclass(frozen=True)
class TrainResult:
    """Where the finished model is, or the stage that was asked for."""

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
    compute = Compute(device, compiled=config.compiled, options=options)
    return _train(config, config.recipe, compute)


def _train(config: TrainConfig, name: RecipeName, compute: Compute) -> TrainResult | DryRunResult:
    recipe, folder = _RECIPES[name], config.out / name
    if config.dry_run:
        toychain.dry_run(recipe, folder, compute)
        return DryRunResult(name)
    stages = toychain.links(recipe, folder, compute)
    if config.stage is not None:
        run_link(stages, config.stage)
        return TrainResult(folder / config.stage)
    if config.jobs > 1:
        run_beside(stages, config.jobs, lambda stage: _command(config, stage))
    else:
        run_chain(stages)
    return TrainResult(folder / "model")


def _command(config: TrainConfig, stage: str) -> list[str]:
    """What runs one stage of this training in a process of its own."""
    options = [f"--out={config.out}", f"--stage={stage}"]
    options += [f"--device={config.device}"] if config.device else []
    options += [] if config.compiled else ["--no-compiled"]
    options += ["--accept"] if config.accept else []
    options += [f"--wandb={config.wandb}"] if config.wandb else []
    return [sys.executable, "-m", "contentv.cli", "train", str(config.recipe), *options]
