"""How many ways the work of one step is spread over processes, and what a backward recomputes."""

from typing import Literal

from pydantic import Field

from contentv.base.config import Config
from contentv.base.errors import UserError


class ParallelConfig(Config):
    """Degrees of the four mesh axes; their product is the number of processes.

    `replicate` keeps whole copies of the sharded model, `shard` splits its weights, `sp` splits
    the tokens of each sample, `tp` the matrices of each block. Weights are also split over `sp`.
    `sp_split` is how heads and tokens that `sp` does not divide are dealt: "even" fills up with
    zeros, so that every message has one size; "uneven" sends what there is.
    """

    replicate: int = Field(1, ge=1)
    shard: int = Field(1, ge=1)
    sp: int = Field(1, ge=1)
    tp: int = Field(1, ge=1)
    sp_split: Literal["even", "uneven"] = "even"

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self.replicate * self.shard * self.sp * self.tp

    @property
    def num_data_groups(self) -> int:
        """Number of groups of processes that see samples of their own."""
        return self.replicate * self.shard

    def check_world(self, world_size: int) -> None:
        """UserError when these degrees do not make `world_size` processes."""
        for name, degree in self._degrees().items():
            if world_size % degree != 0:
                raise UserError(
                    f"{name}={degree}: must divide {world_size} ranks; "
                    f"use {_choices(divisors(world_size))}"
                )
        if self.world_size != world_size:
            product = " x ".join(f"{name}={degree}" for name, degree in self._degrees().items())
            raise UserError(
                f"{product}: makes {self.world_size} ranks, not the {world_size} there are; "
                f"{self._way_out(world_size)}"
            )

    def check_model(self, *, num_heads: int, splits_tensors: bool = True) -> None:
        """UserError when a model with `num_heads` heads cannot be spread this way."""
        if self.tp > 1 and not splits_tensors:
            raise UserError(f"tp={self.tp}: this model does not say how to split it; use tp=1")
        if num_heads % self.tp != 0:
            raise UserError(
                f"tp={self.tp}: must divide {num_heads} heads; use {_choices(divisors(num_heads))}"
            )
        heads = num_heads // self.tp
        if self.sp > heads:
            raise UserError(
                f"sp={self.sp}: each rank needs a head of its own, tp={self.tp} leaves {heads}; "
                f"use sp={heads} or less"
            )

    def _degrees(self) -> dict[str, int]:
        return {"replicate": self.replicate, "shard": self.shard, "sp": self.sp, "tp": self.tp}

    def _way_out(self, world_size: int) -> str:
        others = self.replicate * self.sp * self.tp
        if world_size % others == 0:
            return f"use shard={world_size // others}"
        return "choose degrees whose product it is"


class RecomputeConfig(Config):
    """What a block's backward computes again instead of keeping it in memory.

    "none" keeps everything, "full" only a block's inputs, "selective" also the results of its
    attention and of its all-to-alls. One block in `every` is treated so, the others keep all.
    """

    mode: Literal["none", "full", "selective"] = "none"
    every: int = Field(1, ge=1)


def divisors(number: int) -> list[int]:
    """All divisors, ascending."""
    return [n for n in range(1, number + 1) if number % n == 0]


def _choices(numbers: list[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} or {last}" if first else last
