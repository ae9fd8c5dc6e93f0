"""`contentv train`: run a recipe from wherever it stopped to its model folder."""

from dataclasses import dataclass
from pathlib import Path

from contentv.base.device import pick_device
from contentv.recipes import tiny
from contentv.recipes.config import TrainConfig

_RECIPES = {"tiny": tiny.TINY, "smoke": tiny.SMOKE}


@dataclass(frozen=True)
class TrainResult:
    """Where the finished model is."""

    model: Path

    def __str__(self) -> str:
        return f"{self.model}"


def run(config: TrainConfig) -> TrainResult:
    """Train; every stage resumes from its newest checkpoint, finished stages are skipped."""
    recipe = _RECIPES[config.recipe]
    compute = tiny.Compute(pick_device(config.device), compiled=config.compiled)
    return TrainResult(tiny.train(recipe, config.out / config.recipe, compute))
