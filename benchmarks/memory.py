"""Memory of one 8B video in every mode of the memory plan, measured without a device.

OMP_NUM_THREADS=1 python benchmarks/memory.py

The pipeline's own code runs on tensors without content (`contentv.planning.sampling_memory`). GiB
of weights and activations at the fullest moment of each act, beside what `pipe.fit` predicts; a
device's context, workspaces and gaps (0.6 to 1 GiB) come on top.
"""

import argparse
import json
import platform
from datetime import UTC, datetime
from pathlib import Path

import torch

from contentv.pipelines.memory.modes import Mode
from contentv.pipelines.memory.predicting import GIB, Call, predict
from contentv.pipelines.memory.sizes import PUBLISHED
from contentv.planning.sampling_memory import ACTS, measure_sampling_memory
from contentv.video.shapes import VideoShape

RESULTS = Path(__file__).parent / "results"
TOKENS = 333
VIDEOS = (VideoShape(125, 432, 768), VideoShape(125, 720, 1280))
MODES = (
    Mode(),
    Mode("model"),
    Mode("model", modulation=True),
    Mode("model", quantization="int8"),
    Mode("model", quantization="int8", modulation=True, chunked=True, decoding="tiles"),
    Mode("model", quantization="nf4", decoding="tiles"),
    Mode("model", quantization="nf4", modulation=True, chunked=True, decoding="tiles"),
    Mode("group", decoding="tiles"),
    Mode("group", chunked=True, decoding="tiles"),
    Mode("sequential", chunked=True, decoding="tiles"),
)


def row(mode: Mode, video: VideoShape) -> dict[str, object]:
    """GiB by act, measured and predicted."""
    peaks = measure_sampling_memory(mode, video)
    predicted = predict(PUBLISHED, Call(video=video, text_tokens=TOKENS, steps=50), mode)
    return {
        "mode": str(mode),
        "video": f"{video.frames}x{video.height}x{video.width}",
        "measured_gib": {act: round(peaks[act] / GIB, 3) for act in ACTS},
        "peak_gib": round(max(peaks.values()) / GIB, 3),
        "predicted_gib": {act: round(getattr(predicted, act) / GIB, 3) for act in ACTS},
    }


def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="default: results/memory-DATE-MACHINE.json")
    options = parser.parse_args()
    rows = []
    print(f"{'video':<14}{'text':>7}{'denoise':>9}{'decode':>8}{'peak':>7}  mode")
    for video in VIDEOS:
        for mode in MODES:
            found = row(mode, video)
            rows.append(found)
            text, denoise, decode = (found["measured_gib"][act] for act in ACTS)
            print(
                f"{found['video']:<14}{text:>7.2f}{denoise:>9.2f}{decode:>8.2f}"
                f"{found['peak_gib']:>7.2f}  {mode}",
                flush=True,
            )
    today = datetime.now(UTC).date()
    out = options.out or RESULTS / f"memory-{today}-{platform.machine()}.json"
    result = {
        "date": str(today),
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "method": "fake tensors, no device",
        "rows": rows,
    }
    out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
