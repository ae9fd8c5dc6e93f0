"""How fast `contentv encode` is against its autoencoder alone, and a second run over many clips.

OMP_NUM_THREADS=1 python benchmarks/encode.py --clips 300 --known 10000

The autoencoder alone reads frames that lie decoded in memory, in turns with what the command does;
of the shares of all turns the median counts. The second run finds a store that is full: its latents
are zeros, which nobody looks at.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch

from contentv.base.types import Frames
from contentv.data.buckets import Buckets, Fit, bucket_name
from contentv.data.manifest import MANIFEST_NAME, Clip, read_manifest
from contentv.data.media import read_clip
from contentv.data.run import load_dataset
from contentv.encoding.clips import middle
from contentv.encoding.config import EncodeConfig
from contentv.encoding.encoder import FeatureEncoder
from contentv.encoding.identity import read_identity
from contentv.encoding.run import EncodeResult
from contentv.encoding.store import CLIPS, Row, write_shard
from contentv.encoding.views import list_views, share_out
from contentv.encoding.workers import encode_views
from contentv.pipelines.locate import locate_model
from contentv.pipelines.parts import load_vae
from contentv.recipes.encode import run
from contentv.toyworld.dataset import sample
from contentv.video.io import write_video

RESULTS = Path(__file__).parent / "results"
CPU = torch.device("cpu")
_TURNS = 3
_DIFFERENT = 50  # clips that are decoded for the raw loop, which repeats them


def film(folder: Path, clips: int) -> None:
    """Write toy clips of 17 frames of 64 x 64, a caption beside each."""
    folder.mkdir()
    for number in range(clips):
        clip = sample(0, number)
        write_video(folder / f"{number:05d}.mp4", clip.frames(17), fps=8)
        (folder / f"{number:05d}.txt").write_text(clip.short.text)


def encode(films: Path, out: Path) -> EncodeResult:
    """The command, without captions."""
    config = EncodeConfig(clips=films, out=out, text=False, device="cpu", frames=(1, 17))
    result = run(config)
    assert isinstance(result, EncodeResult)
    return result


def placed(store: Path) -> list[tuple[Clip, Fit]]:
    """The clips of a store with their buckets."""
    identity = read_identity(store)
    assert identity is not None
    buckets = Buckets(identity.clips.buckets)
    fits = ((clip, buckets.fit(clip.size)) for clip in read_manifest(store / MANIFEST_NAME))
    return [(clip, fit) for clip, fit in fits if isinstance(fit, Fit)]


def raw_rate(decoded: list[Frames], clips: int) -> float:
    """Clips a second of the autoencoder alone."""
    encoder = FeatureEncoder(load_vae(locate_model("tiny"), CPU))
    encoder.clip(decoded[0])
    begin = time.perf_counter()
    for number in range(clips):
        encoder.clip(decoded[number % len(decoded)])
    return clips / (time.perf_counter() - begin)


def offline_rate(root: Path, store: Path, folder: Path) -> float:
    """Clips a second of what the command does between opening the model and the index."""
    encoder = FeatureEncoder(load_vae(locate_model("tiny"), CPU))
    jobs = list(share_out(list_views(placed(store), 1, "benchmark")))
    begin = time.perf_counter()
    count = sum(1 for _ in encode_views(encoder, root, folder, jobs))
    return count / (time.perf_counter() - begin)


def second_run(folder: Path, clips: int) -> tuple[float, EncodeResult]:
    """Seconds of a run over a data set that is encoded already, imports aside."""
    films, store = folder / "many", folder / "full"
    film(films, 1)
    encode(films, store)
    for number in range(1, clips):
        os.link(films / "00000.mp4", films / f"{number:05d}.mp4")
        (films / f"{number:05d}.txt").write_text(f"clip {number}")
    load_dataset(films, None, cache=store, workers=0)
    identity = read_identity(store)
    assert identity is not None
    for views in share_out(list_views(placed(store), 1, identity.clips.encoder)):
        rows = [Row(v.key, v.clip.id, bucket_name(v.fit.bucket)) for v in views]
        zeros = torch.zeros(len(rows), 16, 5, 8, 8, dtype=torch.bfloat16)
        write_shard(store / CLIPS, rows, {"mean": zeros, "logvar": zeros.clone()})
    encode(films, store)  # writes the index
    begin = time.perf_counter()
    result = encode(films, store)
    return time.perf_counter() - begin, result


def measure(folder: Path, clips: int, known: int) -> dict[str, object]:
    """All numbers."""
    films, store = folder / "films", folder / "store"
    film(films, clips)
    begin = time.perf_counter()
    assert encode(films, store).decoded == clips
    whole = time.perf_counter() - begin
    seen = [read_clip(films, clip, fit, middle(0.5)) for clip, fit in placed(store)[:_DIFFERENT]]
    raw = [raw_rate(seen, clips)]
    rates = []
    for turn in range(_TURNS):
        rates.append(offline_rate(films, store, folder / f"again-{turn}"))
        raw.append(raw_rate(seen, clips))
    shares = [2 * rate / sum(pair) for rate, pair in zip(rates, pairwise(raw), strict=True)]
    seconds, second = second_run(folder, known)
    assert second.decoded == 0
    return {
        "clips": clips,
        "command_seconds": round(whole, 1),
        "encoded_a_second": [round(rate, 2) for rate in rates],
        "raw_a_second": [round(rate, 2) for rate in raw],
        "share_of_raw": round(median(shares), 3),
        "share_of_raw_all": [round(share, 3) for share in shares],
        "known": second.views,
        "second_run_seconds": round(seconds, 2),
    }


def main() -> None:
    """Measure once, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--known", type=int, default=10_000)
    parser.add_argument("--out", type=Path, help="default: results/encode-DATE-MACHINE.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        content = {
            "date": f"{datetime.now(UTC):%F}",
            **measure(Path(name), options.clips, options.known),
            "load": round(os.getloadavg()[0], 1),
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
            "python": platform.python_version(),
        }
    print(json.dumps(content))
    default = RESULTS / f"encode-{content['date']}-{platform.machine()}.json"
    (options.out or default).write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
