"""How many clips of each bucket are computed at once: batches that take equally long."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from contentv.base.errors import UserError
from contentv.data.buckets import Bucket, bucket_name
from contentv.video.shapes import ScaleFactors

Cost: TypeAlias = Callable[[Bucket], float]
"""What one clip of a bucket costs, in any unit: FLOPs, seconds."""

_NOT_MEASURED: Mapping[Bucket, float] = MappingProxyType({})
_MOST_CANDIDATES = 4096


def batch_sizes(
    buckets: Iterable[Bucket],
    cost: Cost,
    *,
    budget: float,
    most: Callable[[Bucket], int],
    correction: Mapping[Bucket, float] = _NOT_MEASURED,
) -> dict[Bucket, int]:
    """Give each bucket the batch that brings batch x cost nearest to one common value.

    The value is chosen between half the `budget` and the `budget` so that the costs are most alike;
    none exceeds it, and none is above `most`, the largest batch that memory holds. `correction`
    multiplies the cost of buckets whose time was measured (see `corrections`).

    UserError when one clip of some bucket is already over budget or memory.
    """
    shapes = tuple(buckets)
    costs = np.array([cost(shape) * correction.get(shape, 1.0) for shape in shapes])
    limits = np.array([most(shape) for shape in shapes])
    _check(shapes, costs, limits, budget)
    targets = _candidates(costs, budget)
    sizes = np.minimum(np.floor(targets[:, None] / costs * (1 + 1e-12)), limits)
    totals = sizes * costs
    alike = totals.mean(axis=1) / totals.max(axis=1)
    # Of equally good values the largest: fewer, fuller batches.
    best = np.flatnonzero(alike >= alike.max() - 1e-9)[-1]
    return {shape: int(size) for shape, size in zip(shapes, sizes[best], strict=True)}


def corrections(seconds: Mapping[Bucket, float], cost: Cost) -> dict[Bucket, float]:
    """Factors by which measured seconds a clip differ from `cost`; their geometric mean is 1."""
    ratios = {shape: time / cost(shape) for shape, time in seconds.items()}
    if not all(np.isfinite(ratio) and ratio > 0 for ratio in ratios.values()):
        raise UserError("measured times: must be above 0 seconds; measure again")
    mean = float(np.exp(np.mean(np.log(list(ratios.values()))))) if ratios else 1.0
    return {shape: ratio / mean for shape, ratio in ratios.items()}


def transformer_cost(width: int, text_tokens: int = 0) -> Cost:
    """Cost of a clip by the two terms that matter, 24·d²·n + 4·d·n² for n tokens of width d.

    The published geometry: latents of 1/4 of the frames and 1/8 of the sides, patches of 2 x 2.
    An exact count of a model's FLOPs is the model's to give.
    """

    def cost(bucket: Bucket) -> float:
        video = tokens(bucket)
        return 24.0 * width**2 * video + 4.0 * width * (video + text_tokens) ** 2

    return cost


def tokens(bucket: Bucket) -> int:
    """Video tokens of a clip in the published geometry."""
    latent = ScaleFactors().latent(bucket)
    return latent.frames * (latent.height // 2) * (latent.width // 2)


def _candidates(costs: NDArray[np.float64], budget: float) -> NDArray[np.float64]:
    """Values that some bucket reaches exactly with a whole number of clips, smallest first."""
    low = max(budget / 2, float(costs.max()))
    steps = [cost * np.arange(np.ceil(low / cost), np.floor(budget / cost) + 1) for cost in costs]
    values = np.unique(np.concatenate([*steps, [low, budget]]))
    if len(values) > _MOST_CANDIDATES:
        values = values[np.linspace(0, len(values) - 1, _MOST_CANDIDATES).astype(int)]
    return values


def _check(
    shapes: tuple[Bucket, ...],
    costs: NDArray[np.float64],
    limits: NDArray[np.int64],
    budget: float,
) -> None:
    if not shapes:
        raise UserError("no buckets: give at least one area and one number of frames")
    for shape, price, limit in zip(shapes, costs, limits, strict=True):
        if not (np.isfinite(price) and price > 0):
            raise UserError(f"cost of {bucket_name(shape)} is {price}: must be above 0")
        if price > budget * (1 + 1e-9):
            raise UserError(
                f"budget={budget:g}: one clip of {bucket_name(shape)} costs {price:g}; "
                "raise the budget or leave out the largest buckets"
            )
        if limit < 1:
            raise UserError(
                f"{bucket_name(shape)}: one clip does not fit into memory; shard more, recompute "
                "more, or leave out the largest buckets"
            )
