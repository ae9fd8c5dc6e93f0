"""How long `contentv data check` takes for the metadata of many clips, all files unchanged.

OMP_NUM_THREADS=1 python benchmarks/data_check.py --clips 100000
"""

import argparse
import json
import os
import platform
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from contentv.data.config import CheckConfig
from contentv.data.manifest import Clip, write_manifest
from contentv.data.run import run

RESULTS = Path(__file__).parent / "results"
SIZES = np.array([(480, 854), (720, 1280), (1080, 1920), (1280, 720), (600, 800), (360, 640)])


def make(folder: Path, clips: int) -> Path:
    """Write a manifest of clips cut from long videos, a hundred from each, as curation does."""
    rng = np.random.default_rng(0)
    sizes = SIZES[rng.integers(len(SIZES), size=clips)]
    frames = rng.integers(20, 200, size=clips)
    fps = rng.choice([23.976, 24.0, 25.0, 30.0, 60.0, 15.0], size=clips)
    for number in range(-(-clips // 100)):
        (folder / f"{number:06d}.mp4").touch()
    rows = [
        Clip(
            f"{i // 100:06d}#{i % 100}", f"{i // 100:06d}.mp4", "video", f"caption {i}",
            f"a longer caption of clip {i}, as a program writes it", int(i % 100) * 200,
            int(frames[i]), float(fps[i]), int(sizes[i][0]), int(sizes[i][1]), "films",
        )
        for i in range(clips)
    ]  # fmt: skip
    path = folder / "manifest.parquet"
    write_manifest(path, rows)
    return path


def main() -> None:
    """Measure once, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--out", type=Path, help="default: results/data-check-DATE-MACHINE.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = make(Path(name), options.clips)
        begin, cpu = time.perf_counter(), time.process_time()
        result = run(CheckConfig(path=path, out=Path(name, "out"), show=3))
        text = str(result)
        content = {
            "date": f"{datetime.now(UTC):%F}",
            "clips": options.clips,
            "seconds": round(time.perf_counter() - begin, 2),
            "cpu_seconds": round(time.process_time() - cpu, 2),
            "load": round(os.getloadavg()[0], 1),
            "machine": platform.machine(),
            "python": platform.python_version(),
        }
    print(text)
    print(json.dumps(content))
    default = RESULTS / f"data-check-{content['date']}-{platform.machine()}.json"
    (options.out or default).write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
