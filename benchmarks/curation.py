"""Fills the table of what curation must reach, with defects planted into real footage.

PYTHONPATH=tests OMP_NUM_THREADS=1 python benchmarks/curation.py --only text --effort 0.1

The generators are those of the tests, with other seeds and other shots; the footage is found inside
installed packages. A line says what is to be reached, what was, and on how many cases.
"""

import argparse
import dataclasses
import importlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from curation_table.workshop import Line, Workshop

RESULTS = Path(__file__).parent / "results"
MEASURES = {
    "shots": "boundaries:boundaries",
    "duplicates": "copying:copying",
    "text": "defects:text",
    "logos": "defects:logos",
    "borders": "defects:borders",
    "blur": "defects:blur",
    "motion": "moving:moving",
    "speed": "engines:speed",
    "crashes": "engines:crashes",
    "workers": "engines:workers",
    "thresholds": "engines:thresholds",
    "again": "engines:again",
    "memory": "engines:memory",
}


def measure(name: str, folder: Path, seed: int, effort: float) -> list[Line]:
    """The lines of one measurement, printed as they come."""
    module, function = MEASURES[name].split(":")
    make = getattr(importlib.import_module(f"curation_table.{module}"), function)
    lines = []
    for line in make(Workshop(folder, seed, effort)):
        met = "met" if line.met else "MISSED"
        print(f"{line.name:46} {line.aim:>9} {line.reached:>9} n={line.n:<6} {met:7} {line.note}")
        lines.append(line)
    return lines


def content(names: Sequence[str], seed: int, effort: float) -> dict[str, object]:
    """What the result file says."""
    lines: list[Line] = []
    seconds = {}
    for name in names:
        begin = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            lines += measure(name, Path(folder), seed, effort)
        seconds[name] = round(time.process_time() - begin, 1)
    return {
        "date": f"{datetime.now(UTC):%F}",
        "seed": seed,
        "effort": effort,
        "lines": [dataclasses.asdict(line) for line in lines],
        "cpu_seconds": seconds,
        "load": round(os.getloadavg()[0], 1),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def main() -> None:
    """Measure, print, write JSON; only some measurements are written to where --out says alone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=MEASURES, help="default: all")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--effort", type=float, default=1.0, help="cases, as part of all")
    parser.add_argument("--out", type=Path, help="default: results/curation-DATE-MACHINE.json")
    options = parser.parse_args()
    found = content(options.only or list(MEASURES), options.seed, options.effort)
    whole = not options.only and options.effort == 1
    default = RESULTS / f"curation-{found['date']}-{platform.machine()}.json" if whole else None
    if out := options.out or default:
        out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
