"""A trainer fed by an encode server beside one that encodes for itself, at the tiny model's size.

OMP_NUM_THREADS=1 python benchmarks/decoupled.py

One trainer, in one run, takes its batches in turns from itself and from `contentv serve` in a
process beside it, over TLS. The first steps of a turn do not count: the server's buffer fills. All
clips are new to whoever encodes them. Trainer and server share the machine: with one core each, the
gain is at most two, and at most what `bound` says, the time of both over the longer of them. Look
at `load`: other programs on these cores make every number worse, and the served one most.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn

from contentv.data.batch import FeatureBatch
from contentv.data.run import load_dataset
from contentv.data.source import FeatureSource
from contentv.encoding.certificates import run as make_certificates
from contentv.encoding.config import CertsConfig
from contentv.pipelines.folder import read_defaults
from contentv.pipelines.locate import locate_model
from contentv.pipelines.studio import load_pipeline
from contentv.recipes.arranging import plan_stage, text_tokens
from contentv.recipes.contentv_8b import CONTENTV_8B
from contentv.recipes.dataset import PlannedData
from contentv.recipes.remote import features_build, remote_source
from contentv.recipes.sources import freeze_encoders, local_source, transformer_size
from contentv.recipes.stages import StageRecipe, changed_recipe
from contentv.toyworld.dataset import sample
from contentv.training.objectives.frozen_text import FrozenTextObjective
from contentv.training.trainer import Trainer
from contentv.training.work import Work
from contentv.video.io import write_video

RESULTS = Path(__file__).parent / "results"
CPU, STAGE = torch.device("cpu"), "stage2"
SETTLE = 5  # steps at the begin of a turn that do not count; a source fetches four ahead
RECIPE = """
stages:
  {stage}:
    steps: {steps}
    video_first: 0
    pictures: 0
    micro_batches: 1
    batch_size: {batch}
    buckets: {{areas: [4096], frames: [17], fps: 8}}
    recompute: {{mode: none}}
    log_every: 1000000
    checkpoint_every: 1000000
"""


@dataclass
class Turns:
    """The trainer's batches, from one source and then the other, `steps` steps each.

    `seconds` are whole steps by source, `waits` the part of them until the batch was there.
    """

    sources: dict[str, FeatureSource]
    steps: int
    seconds: dict[str, list[float]] = field(default_factory=dict)
    waits: dict[str, list[float]] = field(default_factory=dict)
    _before: tuple[str, float, float] | None = None

    def __call__(self, step: int) -> Work[FeatureBatch]:
        """The batch of a step; its call ends the time of the step before."""
        begin = time.perf_counter()
        if self._before is not None:
            name, began, waited = self._before
            self.seconds.setdefault(name, []).append(begin - began)
            self.waits.setdefault(name, []).append(waited)
        turn, place = divmod(step, self.steps)
        name = list(self.sources)[turn % len(self.sources)]
        work = Work(*self.sources[name](step))
        counts = place >= SETTLE
        self._before = (name, begin, time.perf_counter() - begin) if counts else None
        return work


def film(folder: Path, clips: int) -> None:
    """Write toy clips of 17 frames of 64 x 64, a caption beside each."""
    folder.mkdir()
    for number in range(clips):
        clip = sample(0, number)
        write_video(folder / f"{number:05d}.mp4", clip.frames(17), fps=8)
        (folder / f"{number:05d}.txt").write_text(clip.short.text)


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """`contentv serve` in a process of its own; gives its address."""
    command = [
        *(sys.executable, "-m", "contentv.cli", "serve", "--model", "tiny", "--device", "cpu"),
        *("--clips", str(folder / "films"), "--plan", str(folder / "recipe.yaml")),
        *("--stage", STAGE, "--cache", str(folder / "served"), "--bind", "127.0.0.1:0"),
        *("--tls", str(folder / "certs" / "server")),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        found = (re.search(r"(\S+): serving", line) for line in process.stderr)
        yield next(match[1] for match in found if match)
    finally:
        process.kill()
        process.wait()


def train(folder: Path, stage: StageRecipe, data: PlannedData, address: str, steps: int) -> Turns:
    """Train in turns of `steps` steps."""
    model = locate_model("tiny")
    defaults = read_defaults(model)
    pipeline = load_pipeline(model, {"default": torch.float32})
    freeze_encoders(pipeline, CPU)
    inline = local_source(
        data,
        pipeline,
        stage.sampling,
        text_lengths=defaults.text_lengths,
        cache=folder / "inline",
        record=lambda _: None,
    )
    build = features_build(model, defaults, stage.sampling, CPU)
    tls = folder / "certs" / "client"
    transformer = pipeline.transformer.train()
    networks = nn.ModuleDict({"transformer": transformer})
    objective = FrozenTextObjective(transformer, networks=networks)
    with remote_source([address], data.plan, build=build, steps=stage.steps, tls=tls) as served:
        turns = Turns({"inline": inline, "served": served}, steps)
        Trainer(objective, turns, stage.config(STAGE, 0), folder / "run").run()
    return turns


def measure(folder: Path, *, rounds: int, counted: int, batch: int) -> dict[str, object]:
    """All numbers."""
    steps = SETTLE + counted
    total = 2 * rounds * steps + 1  # the last call ends the last step that counts
    film(folder / "films", total * batch)
    make_certificates(CertsConfig(out=folder / "certs"))
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(stage=STAGE, steps=total, batch=batch))
    stage, model = changed_recipe(CONTENTV_8B, recipe).stage(STAGE), locate_model("tiny")
    data = plan_stage(
        STAGE,
        stage,
        load_dataset(folder / "films", None, cache=folder, workers=1),
        seed=0,
        size=transformer_size(model),
        text_tokens=text_tokens(model, read_defaults(model)),
    )
    with server(folder) as address:
        turns = train(folder, stage, data, address, steps)
    return summary(turns, batch)


def summary(turns: Turns, batch: int) -> dict[str, object]:
    """Medians over the steps that count."""
    inline, served = (statistics.median(turns.seconds[name]) for name in ("inline", "served"))
    encoding, waiting = (statistics.median(turns.waits[name]) for name in ("inline", "served"))
    return {
        "clips_a_step": batch,
        "steps_of_each": len(turns.seconds["inline"]),
        "inline_step_seconds": round(inline, 4),
        "inline_encoding_seconds": round(encoding, 4),
        "served_step_seconds": round(served, 4),
        "served_waiting_seconds": round(waiting, 4),
        "speed_up": round(inline / served, 3),
        "bound": round(inline / max(encoding, inline - encoding), 3),
    }


def main() -> None:
    """Measure once, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4, help="turns of each")
    parser.add_argument("--steps", type=int, default=10, help="steps of a turn that count")
    parser.add_argument("--batch", type=int, default=4, help="clips of a step")
    parser.add_argument("--out", type=Path, help="default: results/decoupled-DATE-MACHINE.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        content = {
            "date": f"{datetime.now(UTC):%F}",
            **measure(
                Path(name), rounds=options.rounds, counted=options.steps, batch=options.batch
            ),
            "load": round(os.getloadavg()[0], 1),
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            "python": platform.python_version(),
        }
    print(json.dumps(content, indent=2))
    default = RESULTS / f"decoupled-{content['date']}-{platform.machine()}.json"
    (options.out or default).write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
