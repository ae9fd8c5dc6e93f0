"""How well groups are kept busy when each draws its own bucket: mean over slowest time of a step.

OMP_NUM_THREADS=1 python benchmarks/bucket_schedule.py

A simulation, no device is timed: the time of a micro-batch is its cost by the FLOPs formula, the
groups of a step wait for the slowest. Stage 3's area, seven ratios and one to five seconds; as many
clips in each bucket as in the others, in the order of the real plan. Rules: one clip, batches of
equal tokens, batches of equal cost; the latter as `contentv.data.batching` chooses them.
"""

import argparse
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from contentv.data.batching import Cost, batch_sizes, tokens, transformer_cost
from contentv.data.buckets import DURATIONS, Bucket, BucketConfig, Buckets
from contentv.data.plan import MixPhase, Plan
from contentv.data.shelves import Shelf

WIDTH = 2432
RESULTS = Path(__file__).parent / "results"


def rules(shapes: tuple[Bucket, ...], cost: Cost, clips: float) -> dict[str, dict[Bucket, int]]:
    """Batch sizes by each rule, where the dearest bucket has at most `clips` clips at once."""
    most = clips * max(map(tokens, shapes))
    return {
        "one clip": dict.fromkeys(shapes, 1),
        "equal tokens": {shape: max(1, int(most // tokens(shape))) for shape in shapes},
        "equal cost": batch_sizes(
            shapes, cost, budget=clips * max(map(cost, shapes)), most=lambda _: 1000
        ),
    }


def efficiency(
    sizes: Mapping[Bucket, int], cost: Cost, *, groups: int, accumulate: int, steps: int
) -> float:
    """Mean busy share of all groups, over `steps` steps of a plan with full micro-batches."""
    batches = 40  # of each bucket: each is drawn equally often, as in the reference's simulation
    first, shelves = 0, []
    for shape, size in sizes.items():
        rows = np.arange(first, first + batches * size)
        shelves.append(Shelf(shape, rows, size, cost(shape)))
        first += len(rows)
    plan = Plan(0, "stage3", shelves, (MixPhase(steps=steps),), groups * accumulate, "simulated")
    busy = waited = 0.0
    for step in range(steps):
        whole = plan(step)
        times = np.array([[b.cost for b in whole.deal(g, groups)] for g in range(groups)])
        # Sharded parameters are gathered in every micro-batch: groups wait at each, not per step.
        busy += times.mean(axis=0).sum()
        waited += times.max(axis=0).sum()
    return busy / waited


def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=float, default=4.0, help="clips of the dearest bucket")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, help="default: results/bucket-schedule-DATE.json")
    options = parser.parse_args()
    shapes, cost = Buckets(BucketConfig(frames=DURATIONS)).shapes, transformer_cost(WIDTH)
    columns = {"8": (8, 1), "32": (32, 1), "256": (256, 1), "32, 8 accumulated": (32, 8)}
    table: dict[str, dict[str, float]] = {}
    print(f"{'rule':<14}" + "".join(f"{name:>20}" for name in columns))
    for rule, sizes in rules(shapes, cost, options.clips).items():
        table[rule] = {}
        for name, (groups, accumulate) in columns.items():
            steps = max(10, options.steps // (groups * accumulate // 8))
            table[rule][name] = round(
                efficiency(sizes, cost, groups=groups, accumulate=accumulate, steps=steps), 3
            )
        print(f"{rule:<14}" + "".join(f"{value:>20.3f}" for value in table[rule].values()))
    today = f"{datetime.now(UTC):%F}"
    out = options.out or RESULTS / f"bucket-schedule-{today}.json"
    content = {
        "date": today,
        "python": platform.python_version(),
        "buckets": len(shapes),
        "clips_of_the_dearest_bucket": options.clips,
        "efficiency_by_groups": table,
    }
    out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
