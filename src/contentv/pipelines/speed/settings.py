"""How much of the work of sampling may be left out: presets, and what they are made of.

What each costs in quality is measured by `benchmarks/speed_quality.py`.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from contentv.base.config import Config
from contentv.base.errors import UserError
from contentv.pipelines.config import Speed

Solver = Literal["euler", "dpm", "unipc"]
_Range = tuple[float, float]


class FirstBlockCache(Config):
    """Runs the first block; where its output changed little since last time, the rest is reused.

    `threshold`: mean change over mean size below which that happens. 0: never.
    """

    name: Literal["first-block"] = "first-block"
    threshold: float = Field(0.1, ge=0)


class TaylorSeerCache(Config):
    """Between full steps, extrapolates the velocity from earlier ones.

    After `warmup` full steps one of `interval` is full. `order` 0 repeats the last, 1 goes on in a
    straight line, 2 in a parabola. arXiv 2503.06923, on the output of the whole network: kept for
    each layer, as in the paper, its terms would need tens of GiB at the published size.
    """

    name: Literal["taylorseer"] = "taylorseer"
    interval: int = Field(2, ge=2)
    warmup: int = Field(3, ge=1)
    order: int = Field(1, ge=0, le=3)


class PyramidCache(Config):
    """Computes attention in one step of `interval` and reuses its output in the others.

    Only between the two `sigmas`. Pyramid attention broadcast, arXiv 2408.12588.
    """

    name: Literal["pab"] = "pab"
    interval: int = Field(2, ge=2)
    sigmas: _Range = (0.1, 0.95)


class FasterCache(Config):
    """Extrapolates attention, and the unguided half from the guided one.

    Below `sigma`, one of `attention_interval` steps computes attention, and one of `interval` steps
    the unguided half. arXiv 2410.19355.
    """

    name: Literal["fastercache"] = "fastercache"
    interval: int = Field(5, ge=2)
    attention_interval: int = Field(2, ge=2)
    sigma: float = Field(0.9, gt=0, le=1)


Cache = FirstBlockCache | TaylorSeerCache | PyramidCache | FasterCache
_JOINT = (PyramidCache, FasterCache)


class SpeedConfig(Config):
    """What may be left out of sampling; the defaults leave out nothing.

    `steps` is the share of the steps asked for that is taken. `guided` are the lowest and the
    highest sigma at which guidance works; elsewhere the transformer runs once a step. `solver` is
    of second order unless "euler". `cache` reuses parts of earlier steps.
    """

    steps: float = Field(1.0, gt=0, le=1)
    guided: _Range = (0.0, 1.0)
    solver: Solver = "euler"
    cache: Annotated[Cache | None, Field(discriminator="name")] = None

    @field_validator("guided")
    @classmethod
    def _is_a_range(cls, sigmas: _Range) -> _Range:
        if not 0 <= sigmas[0] <= sigmas[1] <= 1:
            raise ValueError(f"guided={sigmas}: must be two sigmas in 0..1, the lower first")
        return sigmas

    @field_validator("cache")
    @classmethod
    def _finds_both_halves(cls, cache: Cache | None, info: Any) -> Cache | None:  # noqa: ANN401
        if isinstance(cache, _JOINT) and info.data.get("guided", (0.0, 1.0)) != (0.0, 1.0):
            raise ValueError(
                f"cache={cache.name}: keeps guided and unguided halves together, so guidance must "
                "work at all sigmas; leave out guided, or use first-block or taylorseer"
            )
        return cache

    @property
    def is_joint(self) -> bool:
        """Whether both halves of guidance have to be one forward: unguided rows first."""
        return isinstance(self.cache, _JOINT)

    def num_steps(self, asked: int) -> int:
        """Steps to take where `asked` were asked for: the share of them, rounded up."""
        return math.ceil(round(self.steps * asked, 6))

    def guides(self, sigma: float) -> bool:
        """Whether guidance works at a noise level."""
        return self.guided[0] <= sigma <= self.guided[1]


def check_guided(speed: SpeedConfig, *, is_guided: bool) -> None:
    """UserError when there is no unguided half to extrapolate."""
    if isinstance(speed.cache, FasterCache) and not is_guided:
        raise UserError(
            "cache=fastercache: needs guidance_scale above 1, it saves the unguided half; "
            "use first-block or pab"
        )


EXACT = SpeedConfig()
PRESETS: dict[Speed, SpeedConfig] = {
    "exact": EXACT,
    "balanced": SpeedConfig(steps=0.5),
    "fast": SpeedConfig(steps=0.25, guided=(0.7, 1.0)),
}


def choose_speed(speed: str | SpeedConfig) -> SpeedConfig:
    """A preset by its name; UserError when there is none of it."""
    if isinstance(speed, SpeedConfig):
        return speed
    for name, preset in PRESETS.items():
        if name == speed:
            return preset
    raise UserError(f"speed={speed!r}: must be one of {', '.join(PRESETS)}, or a SpeedConfig")
