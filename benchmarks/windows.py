"""What window attention saves, and how far it moves the tiny model's videos.

OMP_NUM_THREADS=1 python benchmarks/windows.py --write

Operations are counted. Times are of one forward of a random model of 4,320 video tokens, dense and
windowed in turn in one run. Distances are of latents from the same noise and prompts.
"""

import argparse
import json
import platform
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import torch

from contentv.models.cost import TransformerSize, attention_flops, linear_flops
from contentv.models.embeddings import Grid
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.models.windows import Sides, attended_share
from contentv.models.zoo import TEXT_LENGTHS
from contentv.pipelines.batches import make_plan
from contentv.pipelines.config import GenerateConfig
from contentv.pipelines.studio import open_studio
from contentv.video.shapes import LatentShape

RESULTS = Path(__file__).parent / "results"
PUBLISHED = {"125x432x768": LatentShape(32, 54, 96), "125x720x1280": LatentShape(32, 90, 160)}
TILE: Sides = (4, 9, 8)
WINDOWS: list[Sides] = [(3, 3, 3), (5, 3, 3), (3, 3, 6), (5, 5, 5)]
MIDDLE = Grid(9, 20, 24)
TEXT = 77
PROMPTS = ("a big red circle moves left", "a small blue square moves right")
SEEDS = range(4)


def operations() -> Iterator[dict[str, Any]]:
    """Shares of dense attention's and of a whole forward's operations, published model."""
    size = TransformerSize()
    for (name, latent), window in product(PUBLISHED.items(), WINDOWS):
        grid = Grid(latent.frames, latent.height // 2, latent.width // 2)
        share = attended_share(grid, 333, window=window, tile=TILE)
        dense, linear = attention_flops(size, latent, 333), linear_flops(size, latent, 333)
        whole = (linear + share * dense) / (linear + dense)
        row = {"size": name, "window": window, "tile": TILE}
        yield {**row, "attention": round(share, 4), "forward": round(whole, 4)}


def times(repeats: int) -> Iterator[dict[str, Any]]:
    """Seconds of a forward on this CPU, dense and windowed, and their ratio."""
    torch.manual_seed(0)
    model = ContentVTransformer3DModel(
        num_layers=2,
        num_attention_heads=8,
        caption_projection_dim=512,
        joint_attention_dim=128,
        pooled_projection_dim=96,
    ).eval()
    inputs = {
        "hidden_states": torch.randn(1, 16, MIDDLE.frames, MIDDLE.height * 2, MIDDLE.width * 2),
        "encoder_hidden_states": torch.randn(1, TEXT, 128),
        "pooled_projections": torch.randn(1, 96),
        "timestep": torch.tensor([500.0]),
    }
    for window, kernel in (((3, 3, 3), "boxes"), ((1, 3, 3), "boxes"), ((1, 3, 3), "flex")):
        tile = (3, 4, 4)
        seconds: dict[str, list[float]] = {"dense": [], "windowed": []}
        for repeat in range(repeats + 1):
            for name, taken in seconds.items():
                model.disable_window_attention()
                if name == "windowed":
                    model.enable_window_attention(window, tile, kernel=kernel)
                start = time.perf_counter()
                with torch.no_grad():
                    model(**inputs)
                if repeat:  # the first compiles and lays out
                    taken.append(time.perf_counter() - start)
        # The least of each: what else runs on the machine only ever adds.
        dense, windowed = (round(min(taken), 3) for taken in seconds.values())
        share = attended_share(MIDDLE, TEXT, window=window, tile=tile)
        row = {"window": window, "tile": tile, "kernel": kernel, "attention": round(share, 4)}
        ratio = round(dense / windowed, 3)
        yield {**row, "dense_s": dense, "windowed_s": windowed, "ratio": ratio}


def distances() -> Iterator[dict[str, Any]]:
    """How far the tiny model's latents move, relative to their spread; its grid is 5 x 4 x 4."""
    pipe = open_studio(make_plan(GenerateConfig(prompt="any"))).pipe

    def sample() -> torch.Tensor:
        made = []
        for prompt, seed in product(PROMPTS, SEEDS):
            generator = torch.Generator().manual_seed(seed)
            made += pipe(prompt, generator=generator, output_type="latent", return_dict=False)
        return torch.cat(made)

    dense = sample()
    for window, tile, options in (
        ((3, 2, 2), (1, 2, 2), {}),
        ((3, 2, 2), (1, 2, 2), {"dense_steps": 5}),
        ((5, 1, 1), (1, 2, 2), {}),
        ((3, 3, 3), (1, 1, 1), {}),
    ):
        pipe.transformer.enable_window_attention(window, tile, **options)
        moved = (sample() - dense).square().mean().sqrt() / dense.std()
        share = attended_share(Grid(5, 4, 4), sum(TEXT_LENGTHS), window=window, tile=tile)
        row = {"window": window, "tile": tile, **options, "attention": round(share, 4)}
        yield {**row, "relative_distance": round(moved.item(), 4)}


def main() -> None:
    """Print one line per row, and keep them with `--write`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    parts = {"operations": operations(), "times": times(arguments.repeats), "tiny": distances()}
    report: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} thread",
        "torch": torch.__version__,
    }
    for name, rows in parts.items():
        report[name] = []
        for row in rows:
            print(name, json.dumps(row), flush=True)
            report[name].append(row)
    if arguments.write:
        file = RESULTS / f"windows-{report['date']}-{platform.machine()}.json"
        file.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
