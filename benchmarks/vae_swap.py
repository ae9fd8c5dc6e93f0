"""What the swap of the autoencoder costs the tiny model, and what adaptation brings back.

OMP_NUM_THREADS=1 python benchmarks/vae_swap.py --run runs/tiny

Pictures of the same captions by the picture model, by the same transformer with the latents of the
clip autoencoder, and by the adapted one: Fréchet distance to rendered pictures, in the features of
a small network that learns here, from rendered pictures, to read their facts.
"""

import argparse
import json
import platform
import time
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contentv.base.rng import numpy_generator, torch_generator
from contentv.base.types import Frames
from contentv.data.batch import video_tensor
from contentv.evaluation.frechet import frechet_distance
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.toyworld.dataset import sample
from contentv.toyworld.render import render
from contentv.toyworld.scene import VALUES, sample_scene

RESULTS = Path(__file__).parent / "results"
SEED = 30_000
WIDTH = 64
SEEN = ("shape", "colour", "style", "background", "size", "relation", "shape2", "colour2")
STEPS, BATCH = 600, 64
AT_ONCE = 32


class Reader(nn.Module):
    """Pictures [b 3 64 64] in -1..1 to features [b WIDTH], and those to the facts that show."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64)
        self.layers = nn.Sequential(
            *(
                layer
                for inner, outer in pairwise(widths)
                for layer in (nn.Conv2d(inner, outer, 3, 2, 1), nn.GroupNorm(4, outer), nn.SiLU())
            ),
            nn.Flatten(),
            nn.Linear(64 * 8 * 8, WIDTH),
        )
        self.answers = nn.ModuleList(nn.Linear(WIDTH, len(VALUES[name]) + 1) for name in SEEN)

    def forward(self, pictures: Tensor) -> Tensor:
        """Features."""
        return self.layers(pictures)


def pictures_of(frames: Frames) -> Tensor:
    """First frames of clips [b t h w 3] as [b 3 h w] in -1..1."""
    return video_tensor(frames[:, :1])[:, :, 0]


def facts_of(facts: dict[str, str]) -> list[int]:
    """Places of the values that show, or one past them."""
    return [VALUES[n].index(facts[n]) if n in facts else len(VALUES[n]) for n in SEEN]


def train_reader() -> Reader:
    """Half of the pictures are noisy, so that features also tell clean from blurred ones."""
    torch.manual_seed(SEED)
    reader = Reader()
    optimizer = torch.optim.AdamW(reader.parameters(), lr=2e-3)
    for step in range(STEPS):
        rngs = [numpy_generator(SEED, "reader", step, slot) for slot in range(BATCH)]
        scenes = [sample_scene(rng, split="train") for rng in rngs]
        pictures = pictures_of(np.stack([render(scene, frames=1) for scene in scenes]))
        rng = torch_generator(SEED, "reader noise", step)
        level = 0.3 * torch.rand(BATCH, 1, 1, 1, generator=rng).round()
        features = reader(pictures + level * torch.randn(pictures.shape, generator=rng))
        targets = torch.tensor([facts_of(scene.facts) for scene in scenes])
        loss = torch.stack(
            [
                F.cross_entropy(answer(F.silu(features)), targets[:, i])
                for i, answer in enumerate(reader.answers)
            ]
        ).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / STEPS)
    print(f"reader: loss {loss.item():.3f} after {STEPS} steps of {BATCH} pictures")
    return reader.eval()


@torch.no_grad()
def generated(pipe: ContentVPipeline, captions: list[str]) -> Tensor:
    """A picture of each caption, always from the same noise."""
    rows = []
    for first in range(0, len(captions), AT_ONCE):
        frames = pipe(
            captions[first : first + AT_ONCE],
            num_frames=1,
            generator=torch_generator(SEED, "noise", first),
            output_type="pt",
        ).frames
        rows.append(frames[:, 0].float() * 2 - 1)
    return torch.cat(rows)


def load(folder: Path) -> ContentVPipeline:
    """A stage's model, silent."""
    pipe = ContentVPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def measure(run: Path, count: int) -> dict[str, float]:
    """Fréchet distances to rendered pictures, of as many other scenes."""
    reader = train_reader()
    samples = [sample(SEED, index) for index in range(2 * count)]
    real = pictures_of(np.stack([each.frames(1) for each in samples]))
    captions = [each.short.text for each in samples[:count]]
    rendered = reader(real[count:]).detach()

    def distance(pictures: Tensor) -> float:
        return frechet_distance(reader(pictures).detach(), rendered)

    before, after = load(run / "t2i" / "model"), load(run / "vae_adaptation" / "model")
    found = {"rendered": distance(real[:count])}
    found["before the swap"] = distance(generated(before, captions))
    before.register_modules(vae=after.vae)
    found["after the swap"] = distance(generated(before, captions))
    found["after adaptation"] = distance(generated(after, captions))
    return found | {"after stage3": distance(generated(load(run / "model"), captions))}


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    started = time.monotonic()
    found = measure(options.run, options.pictures)
    for name, value in found.items():
        print(f"{name:20} {value:8.3f}")
    date = datetime.now(UTC).date().isoformat()
    result = {
        "date": date,
        "machine": platform.machine(),
        "torch": torch.__version__,
        "pictures": options.pictures,
        "frechet_distance": found,
        "seconds": round(time.monotonic() - started, 1),
    }
    out = options.out or RESULTS / f"vae-swap-{date}-{platform.machine()}.json"
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(out)


if __name__ == "__main__":
    main()
