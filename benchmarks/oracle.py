"""How often the oracle reads its own clips right, how often it rejects, how long it takes.

OMP_NUM_THREADS=1 python benchmarks/oracle.py --clips 2000
"""

import argparse
import json
import platform
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contentv.base.rng import numpy_generator
from contentv.toyworld.dataset import Sample, sample
from contentv.toyworld.oracle import read
from contentv.toyworld.reading import check
from contentv.toyworld.scene import VALUES, Split

RESULTS = Path(__file__).parent / "results"
SEED = 20_000
NOISE = 12.0
BLUR = 0.5
SPLITS: tuple[Split, ...] = ("train", "held_out")


def draw(index: int) -> Sample:
    """Test clip `index`; every other one shows a colour and shape that training never sees."""
    return sample(SEED, index, split=SPLITS[index % 2])


def disturb(frames: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur by 0.5 pixels, then add noise of 12 of 255 levels."""
    taps = np.exp(-(np.arange(-2, 3) ** 2) / (2 * BLUR**2))
    taps /= taps.sum()
    pixels = frames.astype(np.float64)
    for axis in (1, 2):
        width = [(2, 2) if a == axis else (0, 0) for a in range(4)]
        padded, length = np.pad(pixels, width, mode="edge"), frames.shape[axis]
        pixels = sum(
            tap * padded.take(range(shift, shift + length), axis) for shift, tap in enumerate(taps)
        )
    noisy = pixels + NOISE * rng.standard_normal(frames.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def contradict(facts: dict[str, str], rng: np.random.Generator) -> dict[str, str]:
    """The same facts but one, which is wrong."""
    name = sorted(facts)[rng.integers(len(facts))]
    others = [value for value in VALUES[name] if value != facts[name]]
    return {**facts, name: others[rng.integers(len(others))]}


def measure(clips: int, *, noisy: bool) -> dict[str, object]:
    """Share of clips with all facts right, share of wrong captions rejected, ms a clip."""
    right = rejected = 0
    misread: Counter[str] = Counter()
    accepted: Counter[str] = Counter()
    times: dict[int, list[float]] = {1: [], 2: []}
    for index in range(clips):
        rng = numpy_generator("oracle benchmark", index)
        drawn = draw(index)
        frames = disturb(drawn.frames(), rng) if noisy else drawn.frames()
        start = time.perf_counter()
        reading = read(frames)
        times[len(drawn.scene.bodies)].append(time.perf_counter() - start)
        facts = drawn.long.facts
        verdicts = check(facts, reading)
        right += all(verdicts.values())
        misread.update(name for name, good in verdicts.items() if not good)
        wrong = contradict(facts, rng)
        if all(check(wrong, reading).values()):
            accepted.update(name for name in wrong if wrong[name] != facts[name])
        else:
            rejected += 1
    return {
        "all_facts_right": right / clips,
        "wrong_captions_rejected": rejected / clips,
        "misread": dict(misread),
        "wrongly_accepted": dict(accepted),
        "median_ms_one_object": 1000 * float(np.median(times[1])),
        "median_ms_two_objects": 1000 * float(np.median(times[2])),
    }


def processor() -> str:
    """The processor's name, or its family where the system does not tell."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text(encoding="utf-8").splitlines() if listing.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    """Print and store the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument(
        "--out", type=Path, help="default: benchmarks/results/oracle-DATE-MACHINE.json"
    )
    options = parser.parse_args()
    now = datetime.now(tz=UTC)
    result = {
        "command": f"python benchmarks/oracle.py --clips {options.clips}",
        "date": f"{now:%Y-%m-%d}",
        "machine": f"{processor()}, one thread",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "clips": options.clips,
        "clean": measure(options.clips, noisy=False),
        "noisy": measure(options.clips, noisy=True),
    }
    text = json.dumps(result, indent=2)
    print(text)
    path = options.out or RESULTS / f"oracle-{now:%Y-%m-%d}-{platform.machine()}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
