"""The planner's memory formula beside torch's tracker, on the real 8B shape without a device.

One process plays the first rank of a cluster with fake tensors: shapes and allocations are real,
numbers are not. Operations are counted on the meta device.

OMP_NUM_THREADS=1 python benchmarks/plan_memory.py --case 720p
"""

import argparse
import json
import platform
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import torch

from contentv.distributed.config import ParallelConfig, RecomputeConfig
from contentv.models.cost import TransformerSize, forward_flops, model_flops
from contentv.planning.config import MethodConfig
from contentv.planning.fake import measure_flops, measure_memory
from contentv.planning.memory import GIB, Workload, estimate_memory
from contentv.video.shapes import ScaleFactors, VideoShape

RESULTS = Path(__file__).parent / "results"
SIZE = TransformerSize()
TEXT_TOKENS = 589


class Case(NamedTuple):
    """A layout and what one data group computes at once."""

    layout: ParallelConfig
    recompute: RecomputeConfig
    shape: VideoShape
    samples: int
    accumulates: bool


FULL, SELECTIVE = RecomputeConfig(mode="full"), RecomputeConfig(mode="selective")
CASES = {
    "720p": Case(ParallelConfig(replicate=32, sp=8), FULL, VideoShape(125, 720, 1280), 1, False),
    "stage3": Case(ParallelConfig(replicate=32, sp=8), FULL, VideoShape(125, 432, 768), 1, False),
    "stage3-selective": Case(
        ParallelConfig(replicate=32, shard=8), SELECTIVE, VideoShape(125, 432, 768), 1, False
    ),
    "stage2": Case(ParallelConfig(replicate=32, shard=8), FULL, VideoShape(125, 288, 288), 4, True),
    "pictures": Case(
        ParallelConfig(replicate=32, shard=8),
        RecomputeConfig(mode="none"),
        VideoShape(1, 432, 768),
        8,
        False,
    ),
}


def measure(case: Case) -> dict[str, object]:
    """Formula and tracker for one case."""
    latent = ScaleFactors().latent(case.shape)
    work = Workload(latent, TEXT_TOKENS, case.samples, case.accumulates)
    estimate = estimate_memory(SIZE, MethodConfig(ema=False), case.layout, case.recompute, work)
    start = time.perf_counter()
    tracked = measure_memory(SIZE, case.layout, case.recompute, work)
    return {
        "layout": case.layout.model_dump(),
        "recompute": case.recompute.model_dump(),
        "shape": [case.shape.frames, case.shape.height, case.shape.width],
        "samples": case.samples,
        "accumulates": case.accumulates,
        "tracked_gib": {kind: round(count / GIB, 3) for kind, count in tracked.items()},
        "estimated_gib": round(estimate.peak / GIB, 3),
        "estimated_over_tracked": round(estimate.peak / tracked["Total"], 4),
        "seconds": round(time.perf_counter() - start, 1),
    }


def count(shape: VideoShape) -> dict[str, object]:
    """Formula and counter for one training sample."""
    latent = ScaleFactors().latent(shape)
    forward, training = measure_flops(SIZE, latent, TEXT_TOKENS)
    return {
        "shape": [shape.frames, shape.height, shape.width],
        "forward_tflops": round(forward / 1e12, 3),
        "formula_over_counted_forward": round(
            forward_flops(SIZE, latent, TEXT_TOKENS) / forward, 5
        ),
        "formula_over_counted_training": round(
            model_flops(SIZE, latent, TEXT_TOKENS) / training, 5
        ),
    }


def main() -> None:
    """Print the results, and store them beside those of other cases of the day."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=[*CASES, "flops"], action="append", required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    now = datetime.now(tz=UTC)
    path = RESULTS / f"plan-memory-{now:%Y-%m-%d}-{platform.machine()}.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in options.case:
        is_count = name == "flops"
        result = count(VideoShape(125, 432, 768)) if is_count else measure(CASES[name])
        print(name, json.dumps(result), flush=True)
        stored[name] = result
        content = {
            **stored,
            "command": "python benchmarks/plan_memory.py --case CASE",
            "date": f"{now:%Y-%m-%d}",
            "torch": torch.__version__,
            "parameters": "8.06 billion, float32 with AdamW, forward in bfloat16",
            "text_tokens": TEXT_TOKENS,
        }
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
