"""What the ways to decode with less memory do to the picture: PSNR to the exact decode.

OMP_NUM_THREADS=1 python benchmarks/vae_decode.py

Decoders: the tiny model's, on latents of rendered clips of the toy world; and one of Wan 2.1's size
with random weights, on random latents. Exact is float32, untiled. Tiles are a half and three
quarters of the picture's sides. PSNR in dB over all pixels, on the CPU.
"""

import argparse
import json
import platform
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from contentv.data.batch import video_tensor
from contentv.models import vae as autoencoder
from contentv.pipelines.locate import locate_model
from contentv.toyworld.dataset import sample

RESULTS = Path(__file__).parent / "results"
SEED = 40_000
# Sides of tiles and distances between their starts, in pixels.
WAYS: dict[str, tuple[torch.dtype, tuple[int, int] | None]] = {
    "bfloat16": (torch.bfloat16, None),
    "tiles 1/2": (torch.float32, (32, 24)),
    "tiles 3/4": (torch.float32, (48, 32)),
    "tiles 3/4, bfloat16": (torch.bfloat16, (48, 32)),
}


def toy_latents(vae: AutoencoderKLWan, clips: int) -> Tensor:
    """Latents of rendered clips, as the tiny model's transformer sees them."""
    frames = np.stack([sample(SEED, index, split="test").frames() for index in range(clips)])
    mean = autoencoder.encode(vae, video_tensor(frames)).mean
    return autoencoder.normalize(vae, mean)


def compare(vae: AutoencoderKLWan, latents: Tensor) -> dict[str, float]:
    """PSNR to the exact decode, by way."""
    exact, found = autoencoder.decode(vae, latents), {}
    for way, (dtype, tiles) in WAYS.items():
        vae.to(dtype)
        if tiles is not None:
            vae.enable_tiling(*tiles[:1] * 2, *tiles[1:] * 2)
        found[way] = round(psnr(autoencoder.decode(vae, latents).float(), exact), 1)
        print(f"  {way:<22}{found[way]:>8} dB", flush=True)
        vae.to(torch.float32)
        vae.disable_tiling()
    return found


def psnr(video: Tensor, reference: Tensor) -> float:
    """Of videos in -1..1 that differ."""
    return float(10 * np.log10(4 / float((video - reference).square().mean())))


@torch.no_grad()
def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--out", type=Path, help="default: results/vae-decode-DATE-MACHINE.json")
    options = parser.parse_args()
    tiny = AutoencoderKLWan.from_pretrained(locate_model("tiny") / "vae", torch_dtype=torch.float32)
    torch.manual_seed(SEED)
    wan = AutoencoderKLWan().eval()
    decoders = {
        f"tiny, {options.clips} clips of 17x64x64": (tiny, toy_latents(tiny, options.clips)),
        "Wan's size, random, 5x64x64": (wan, torch.randn(1, 16, 2, 8, 8)),
    }
    rows = {}
    for name, (vae, latents) in decoders.items():
        print(name)
        rows[name] = compare(vae, latents)
    today = datetime.now(UTC).date()
    out = options.out or RESULTS / f"vae-decode-{today}-{platform.machine()}.json"
    machine = platform.processor() or platform.machine()
    result = {"date": str(today), "machine": machine, "torch": torch.__version__, "psnr_db": rows}
    out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
