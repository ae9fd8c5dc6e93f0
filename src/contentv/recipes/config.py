"""Settings of `contentv train`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from contentv.base.config import Argument, Config

RecipeName = Literal["tiny", "smoke"]


class TrainConfig(Config):
    """Train a model by a recipe; run again with the same folder to go on where it stopped."""

    recipe: Annotated[RecipeName, Argument(positional=True)] = Field(
        description="tiny: the shipped model, hours on one core; smoke: the same stages in a minute"
    )
    out: Path = Field(
        Path("runs"), description="folder of runs; this one gets a folder of its recipe's name"
    )
    device: str | None = Field(None, description="where to compute (default: the best there is)")
    compiled: bool = Field(
        True, description="train compiled networks: a slow start, then faster steps"
    )
