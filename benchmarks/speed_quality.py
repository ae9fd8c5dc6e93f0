"""What each approximation of `set_speed` costs in quality and saves in time, on the toy world.

OMP_NUM_THREADS=1 python benchmarks/speed_quality.py --set presets --num-prompts 1000
OMP_NUM_THREADS=1 python benchmarks/speed_quality.py --set presets --batch-size 1 --repeats 3

The first form counts how often the videos of each speed, and the exact ones of the same prompts and
noise, show what the prompt says. What it found is kept under --work: a stopped command, or one with
--seconds, goes on where it was. The second form measures time, exact and hasty in turn.
"""

import argparse
import json
import platform
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from contentv.base.device import pick_device
from contentv.base.types import Frames
from contentv.evaluation.config import EvaluateConfig
from contentv.evaluation.questions import Question, ask
from contentv.evaluation.scoring import score
from contentv.evaluation.statistics import Pairs, mean_interval, newcombe
from contentv.evaluation.toybench import Toybench
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.pipelines.batches import make_plan
from contentv.pipelines.config import GenerateConfig
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.pipelines.speed.settings import (
    EXACT,
    PRESETS,
    FasterCache,
    FirstBlockCache,
    PyramidCache,
    SpeedConfig,
    TaylorSeerCache,
)
from contentv.pipelines.studio import open_studio

RESULTS = Path(__file__).parent / "results"
CANDIDATES = {
    "a quarter of the steps": SpeedConfig(steps=0.25),
    "half the steps, unipc": SpeedConfig(steps=0.5, solver="unipc"),
    "half the steps, dpm": SpeedConfig(steps=0.5, solver="dpm"),
    "guided above .9": SpeedConfig(guided=(0.9, 1.0)),
    "guided above .7": SpeedConfig(guided=(0.7, 1.0)),
    "first-block .1": SpeedConfig(cache=FirstBlockCache(threshold=0.1)),
    "first-block .2": SpeedConfig(cache=FirstBlockCache(threshold=0.2)),
    "taylorseer 2": SpeedConfig(cache=TaylorSeerCache(interval=2)),
    "pab 2": SpeedConfig(cache=PyramidCache()),
    "fastercache": SpeedConfig(cache=FasterCache()),
}
SETS = {
    "candidates": CANDIDATES,
    "presets": {name: speed for name, speed in PRESETS.items() if name != "exact"},
}


class Bench:
    """Measures all speeds on batches of questions and keeps what it found."""

    def __init__(self, model: str, work: Path, speeds: dict[str, SpeedConfig]) -> None:
        plan = make_plan(GenerateConfig(prompt="any", model=model))
        self._studio = open_studio(plan)
        self.pipe: ContentVPipeline = self._studio.pipe
        self._job = plan.batches[0].jobs[0]
        self.speeds = speeds
        self._file = work / "rows.jsonl"
        work.mkdir(parents=True, exist_ok=True)
        text = self._file.read_text() if self._file.exists() else ""
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]

    def run(self, questions: Sequence[Question], size: int, seconds: float) -> None:
        """Measures what is not measured yet, batch by batch, until `seconds` are over."""
        end = time.monotonic() + seconds
        done = {row["key"] for row in self.rows}
        for batch in self.batches(questions, size):
            missing = [name for name in self.speeds if self._key(name, batch[0]) not in done]
            if missing and time.monotonic() < end:
                self._measure(batch, missing, end)

    def batches(self, questions: Sequence[Question], size: int) -> list[tuple[Question, ...]]:
        """Questions whose texts need equally many tokens, `size` at a time."""
        return Toybench(self._studio, self._job).batches(questions, size)

    def _measure(self, batch: Sequence[Question], names: Sequence[str], end: float) -> None:
        exact = self.sample(batch, EXACT)
        for name in names:
            if time.monotonic() > end:
                return
            clips = self.sample(batch, self.speeds[name])
            judged = [_judge(*each) for each in zip(batch, clips, exact, strict=True)]
            row = {"key": self._key(name, batch[0]), "name": name, "clips": judged}
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            self.rows.append(row)
            print(f"{name:24} {len(batch):3} clips of {batch[0].name}", flush=True)

    def sample(self, batch: Sequence[Question], speed: SpeedConfig) -> list[Frames]:
        """Frames of each clip."""
        self.pipe.set_speed(speed)
        latents = self.pipe(
            [question.caption.text for question in batch],
            generator=[torch.Generator().manual_seed(question.seed) for question in batch],
            output_type="latent",
        ).frames
        return [np.stack(list(self.pipe.stream(row[None]))) for row in latents]

    def time(self, batch: Sequence[Question], repeats: int) -> dict[str, float]:
        """How many times faster than exactly a batch is made; its text was read before."""
        # On a CPU the process's own time: other programs on the machine do not count.
        clock = time.process_time if self.pipe.device.type == "cpu" else time.perf_counter
        seconds = dict.fromkeys(("exact", *self.speeds), 0.0)
        self.sample(batch, SpeedConfig(steps=0.1))
        for _ in range(repeats):
            for name, speed in {"exact": EXACT, **self.speeds}.items():
                started = clock()
                self.sample(batch, speed)
                seconds[name] += clock() - started
        return {name: seconds["exact"] / took for name, took in seconds.items()}

    def _key(self, name: str, first: Question) -> str:
        return f"{first.name} {name} {self.speeds[name].model_dump_json()}"

    def summary(self) -> dict[str, dict[str, Any]]:
        """Quality and time of each speed."""
        found = {}
        for name, speed in self.speeds.items():
            ending = f" {name} {speed.model_dump_json()}"
            rows = [row for row in self.rows if row["key"].endswith(ending)]
            if rows:
                found[name] = _compare(rows) | {"speed": speed.model_dump(mode="json")}
        return found


def _judge(question: Question, clip: Frames, exact: Frames) -> dict[str, Any]:
    row, reference = score(question, clip, reference=exact), score(question, exact)
    return {
        "right": row.all_right,
        "exact_right": reference.all_right,
        "facts": fmean(row.right.values()) - fmean(reference.right.values()),
        "psnr": row.psnr,
    }


def _compare(rows: list[dict[str, Any]]) -> dict[str, Any]:
    clips = [clip for row in rows for clip in row["clips"]]
    count = Counter((clip["exact_right"], clip["right"]) for clip in clips)
    table = Pairs(*(count[case] for case in product((True, False), repeat=2)))
    low, high = newcombe(table)
    facts = [clip["facts"] for clip in clips]
    return {
        "prompts": len(clips),
        "accuracy_exact": (table.both + table.first_only) / len(clips),
        "accuracy": (table.both + table.second_only) / len(clips),
        "points": 100 * (table.second_only - table.first_only) / len(clips),
        "points_95": [-100 * high, -100 * low],
        "fact_points": 100 * fmean(facts),
        "fact_points_95": [100 * limit for limit in mean_interval(facts)],
        "psnr": fmean(clip["psnr"] for clip in clips),
    }


def use_wider_transformer(bench: Bench) -> None:
    """Exchanges the transformer for an untrained one of width 512: only its time tells anything."""
    torch.manual_seed(0)
    config = bench.pipe.transformer.config
    wider = ContentVTransformer3DModel(
        num_layers=8,
        num_attention_heads=8,
        caption_projection_dim=512,
        joint_attention_dim=config.joint_attention_dim,
        pooled_projection_dim=config.pooled_projection_dim,
    )
    bench.pipe.register_modules(transformer=wider.eval())


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", choices=SETS, default="presets", dest="chosen")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--num-prompts", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=1e9, help="begin nothing after these")
    parser.add_argument("--repeats", type=int, default=0, help="times each speed so often")
    parser.add_argument("--wider", action="store_true", help="times an untrained, wider model")
    parser.add_argument("--work", type=Path, default=Path("runs/speed_quality"))
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    config = EvaluateConfig(suite="toybench", num_prompts=options.num_prompts)
    bench = Bench(options.model, options.work, SETS[options.chosen])
    questions = list(ask(config))
    if options.repeats:
        if options.wider:
            use_wider_transformer(bench)
        part = f"{'wider model, ' if options.wider else ''}batch of {options.batch_size}"
        batch = bench.batches(questions, options.batch_size)[0]
        found: dict[str, Any] = {part: bench.time(batch, options.repeats)}
    else:
        bench.run(questions, options.batch_size, options.seconds)
        found = bench.summary()
    date = datetime.now(UTC).date().isoformat()
    out = options.out or RESULTS / f"speed-quality-{date}-{platform.machine()}.json"
    result = json.loads(out.read_text()) if out.exists() else {}
    about = {
        "date": date,
        "machine": f"{platform.machine()}, {pick_device(None)}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }
    chapter = "times faster" if options.repeats else "quality"
    earlier = result.get(chapter, {}).get(options.chosen, {})
    result |= about | {
        chapter: {**result.get(chapter, {}), options.chosen: {**earlier, **found}},
    }
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))
    print(out)


if __name__ == "__main__":
    main()
