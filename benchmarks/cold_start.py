"""What a cold `contentv generate` with the tiny model costs, and in another tree of the source.

OMP_NUM_THREADS=1 python benchmarks/cold_start.py --runs 5 --other ../before/src

`git worktree add ../before HEAD~1` makes such a tree. Runs of both take turns; of each figure the
least counts. CPU seconds are user and system of all processes: they suffer less from a busy machine
than wall time. The parts are measured in processes of their own; `end` is what ending takes.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"
HERE = Path(__file__).parents[1] / "src"
PROMPT = "a red circle moves left"
# The first call shows help, after which this process is as the command's is.
PARTS = """
import contextlib, io, json, sys, time
from pathlib import Path
marks = {}
def mark(name):
    marks[name] = time.process_time() - sum(marks.values())
prompt, out = sys.argv[1:]
from contentv import cli
sys.argv[1:] = ["generate", "--help"]
with contextlib.redirect_stdout(io.StringIO()):
    getattr(cli, "program", cli.main)()
from contentv.pipelines import batches, config, run, studio
mark("imports")
plan = batches.make_plan(config.GenerateConfig(prompts=(prompt,), out=Path(out)))
opened = studio.open_studio(plan)
mark("load")
opened.pipe.encode_prompt(prompt)
mark("text")
jobs = plan.batches[0].jobs
latents = opened.sample(jobs, lambda: None)
mark("denoise")
frames = list(opened.frames(latents))
mark("decode")
run.encode_video(Path(out), frames, fps=jobs[0].fps, scale=plan.scale_of(jobs[0]))
mark("write")
print(json.dumps(marks))
"""


def cost(source: Path, *words: str) -> tuple[dict[str, float], str]:
    """CPU and wall seconds of a Python process that imports the package from `source`."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(source)}
    result = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=environment, check=True
    )
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": cpu, "wall": wall}, result.stdout


def measure(source: Path, folder: Path) -> dict[str, float]:
    """The command as people run it, then its parts, once."""
    video = str(folder / "a.mp4")
    whole, _ = cost(
        source, "-m", "contentv.cli", "generate", PROMPT, f"--out={video}", "--overwrite"
    )
    total, said = cost(source, "-c", PARTS, PROMPT, video)
    parts: dict[str, float] = json.loads(said)
    return {**whole, **parts, "end": total["cpu"] - sum(parts.values())}


def least(runs: list[dict[str, float]]) -> dict[str, float]:
    """The least of each figure."""
    return {name: round(min(run[name] for run in runs), 2) for name in runs[0]}


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--other", type=Path, help="`src` of another tree, to compare with")
    parser.add_argument("--out", type=Path, help="default: results/cold-start-DATE-MACHINE.json")
    options = parser.parse_args()
    sources = {"this": HERE, **({"other": options.other} if options.other else {})}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in sources}
    with tempfile.TemporaryDirectory() as name:
        for _ in range(options.runs):
            for which, source in sources.items():
                runs[which].append(measure(source, Path(name)))
    found = {which: least(some) for which, some in runs.items()}
    content: dict[str, object] = {"date": f"{datetime.now(UTC):%F}", "runs": options.runs, **found}
    if "other" in found:
        content["times_less"] = {
            part: round(found["other"][part] / found["this"][part], 2)
            for part in ("cpu", "wall", "imports")
        }
    content |= {
        "load": round(os.getloadavg()[0], 1),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    print(json.dumps(content))
    default = RESULTS / f"cold-start-{content['date']}-{platform.machine()}.json"
    (options.out or default).write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
