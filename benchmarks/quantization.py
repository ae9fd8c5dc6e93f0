"""What weights of 8 bits cost the tiny model: accuracy by the oracle, velocity, same-seed PSNR.

OMP_NUM_THREADS=1 python benchmarks/quantization.py --prompts 400

All models answer the same prompts from the same noise, the batch of one beside that of another.
Finished batches are kept in --work: `--seconds` stops the command between two of them, and the same
command goes on. Drops are against bfloat16, in which the 8-bit models compute as well.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from contentv.base.types import Frames
from contentv.evaluation.config import EvaluateConfig
from contentv.evaluation.questions import Question, ask
from contentv.evaluation.scoring import psnr
from contentv.evaluation.statistics import Pairs, mcnemar, newcombe, wilson
from contentv.evaluation.toybench import Toybench
from contentv.lowbit.libraries import stored_bytes
from contentv.pipelines.batches import Plan, make_plan
from contentv.pipelines.config import GenerateConfig
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.pipelines.studio import Studio, open_studio

RESULTS = Path(__file__).parent / "results"
REFERENCE = "bfloat16"
BATCH = 16
FORCED = 8
"""Prompts on whose trajectories velocities are compared."""
DROPS = {"int8": 0.01, "int8-dynamic": 0.015}
"""Largest drops of the share of right videos, by the upper limit of their intervals."""
EMBEDS = (
    *("prompt_embeds", "negative_prompt_embeds"),
    *("pooled_prompt_embeds", "negative_pooled_prompt_embeds"),
)


class Variant(NamedTuple):
    """A number format, and a kind of quantization or none."""

    dtype: str
    kind: str | None


ANSWERING = {
    REFERENCE: Variant(REFERENCE, None),
    "int8": Variant(REFERENCE, "int8"),
    "int8-dynamic": Variant(REFERENCE, "int8-dynamic"),
}
EXACT = Variant("float32", None)
FORCED_TO = {
    **ANSWERING,
    "int8 in float32": Variant("float32", "int8"),
    "int8-dynamic in float32": Variant("float32", "int8-dynamic"),
}


def open_variant(variant: Variant) -> tuple[Studio, Plan]:
    """The tiny model as `contentv generate` opens it, quantized by the pipeline's own method."""
    plan = make_plan(GenerateConfig(prompt="any", device="cpu", dtype=variant.dtype))
    studio = open_studio(plan)
    if variant.kind is not None:
        print(studio.pipe.enable_model_quantization(variant.kind))
    return studio, plan


def answer_all(work: Path, questions: Sequence[Question], deadline: float) -> list[Path]:
    """Answers what no file in `work` answers yet; no files when the time was up before the end."""
    benches: dict[str, Toybench] = {}
    for name, variant in ANSWERING.items():
        studio, plan = open_variant(variant)
        benches[name] = Toybench(studio, plan.batches[0].jobs[0])
    files = []
    for batch in benches[REFERENCE].batches(questions, BATCH):
        file = work / f"{batch[0].name}-{len(batch)}.json"
        if not file.exists():
            if time.monotonic() > deadline:
                return []
            file.write_text(json.dumps(answer(benches, batch)), encoding="utf-8")
        files.append(file)
    return files


def answer(benches: dict[str, Toybench], batch: Sequence[Question]) -> dict[str, Any]:
    """Per model: which videos show all that was asked, and their PSNR to the reference's."""
    rows: dict[str, Any] = {}
    reference: list[Frames] = []
    for name, bench in benches.items():
        answers = list(bench.answer(batch))
        frames = [clip for _, clip in answers]
        reference = reference or frames
        rows[name] = {
            "right": [row.all_right for row, _ in answers],
            "psnr": [psnr(*pair) for pair in zip(frames, reference, strict=True)],
        }
    return rows


def summary(files: Sequence[Path]) -> dict[str, Any]:
    """Shares with their 95 % intervals, and the drop from the reference on the same prompts."""
    batches = [json.loads(file.read_text(encoding="utf-8")) for file in files]

    def column(name: str, key: str) -> list[Any]:
        return [value for batch in batches for value in batch[name][key]]

    right = column(REFERENCE, "right")
    found: dict[str, Any] = {"prompts": len(right)}
    for name in ANSWERING:
        mine = column(name, "right")
        entry: dict[str, Any] = {
            "accuracy": sum(mine) / len(mine),
            "interval_95": list(wilson(sum(mine), len(mine))),
        }
        if name != REFERENCE:
            entry |= compare(right, mine)
            decibels = sorted(column(name, "psnr"))
            entry["psnr_db"] = {
                "median": decibels[len(decibels) // 2],
                "tenth_percentile": decibels[len(decibels) // 10],
            }
            entry["aim_upper_limit"] = DROPS[name]
            entry["reached"] = entry["drop_interval_95"][1] <= DROPS[name]
        found[name] = entry
    return found


def compare(first: Sequence[bool], second: Sequence[bool]) -> dict[str, Any]:
    """The drop of the share from the first model to the second, paired."""
    both = list(zip(first, second, strict=True))
    pairs = Pairs(*(both.count(kind) for kind in ((1, 1), (1, 0), (0, 1), (0, 0))))
    return {
        "drop": (pairs.first_only - pairs.second_only) / len(both),
        "drop_interval_95": list(newcombe(pairs)),
        "only_reference_right": pairs.first_only,
        "only_this_right": pairs.second_only,
        "mcnemar_p": mcnemar(pairs),
    }


@torch.no_grad()
def forced_velocities(questions: Sequence[Question], work: Path) -> dict[str, Any]:
    """Relative L2 errors of guided velocities at float32's latents and float32's embeddings."""
    file = work / "float32.safetensors"
    if not file.exists():
        truth = open_variant(EXACT)[0].pipe
        prompts = [question.caption.text for question in questions]
        save_file(trajectory(truth, prompts), file)
    passed = load_file(file)
    found = {name: kept(work / f"{name}.json", name, passed) for name in FORCED_TO}
    return {"prompts": len(questions), "steps": len(passed["times"]), **found}


def kept(file: Path, name: str, passed: dict[str, Tensor]) -> Any:  # noqa: ANN401 - JSON
    """The errors of a variant, measured once."""
    if not file.exists():
        pipe = open_variant(FORCED_TO[name])[0].pipe
        embeds = tuple(passed[key] for key in EMBEDS)
        start = time.process_time()
        errors = [
            relative_error(guided(pipe, latents, moment, embeds), velocity)
            for latents, moment, velocity in zip(
                passed["latents"], passed["times"], passed["velocities"], strict=True
            )
        ]
        seconds = time.process_time() - start
        entry = {
            "mean": sum(errors) / len(errors),
            "largest_step": max(errors),
            "cpu_ms_per_step_and_prompt": 1000 * seconds / len(errors) / len(embeds[0]),
            "by_step": [round(error, 6) for error in errors],
            "transformer_bytes": stored_bytes(pipe.transformer),
        }
        file.write_text(json.dumps(entry), encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def trajectory(pipe: ContentVPipeline, prompts: list[str]) -> dict[str, Tensor]:
    """Embeddings; latents, time and velocity of each step."""
    length = max(pipe.defaults.text_lengths)
    embeds = dict(zip(EMBEDS, pipe.encode_prompt(prompts, max_sequence_length=length), strict=True))
    frames, side = (pipe.defaults.num_frames - 1) // 4 + 1, pipe.defaults.height // 8
    rng = torch.Generator().manual_seed(0)
    latents = [torch.randn(len(prompts), 16, frames, side, side, generator=rng)]
    times: list[Tensor] = []

    def keep(pipe: ContentVPipeline, step: int, time: Tensor, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401, ARG001
        latents.append(tensors["latents"])
        times.append(time)
        return tensors

    pipe(**embeds, latents=latents[0], output_type="latent", callback_on_step_end=keep)
    given = tuple(embeds.values())
    velocities = [guided(pipe, *moment, given) for moment in zip(latents, times, strict=False)]
    return {
        **embeds,
        "latents": torch.stack(latents[:-1]),
        "times": torch.stack(times),
        "velocities": torch.stack(velocities),
    }


def guided(
    pipe: ContentVPipeline, latents: Tensor, time: Tensor, embeds: tuple[Tensor, ...]
) -> Tensor:
    """The guided velocity, as the loop of the pipeline combines it."""
    dtype = pipe.transformer.dtype
    text, negative, pooled, negative_pooled = (tensor.to(dtype) for tensor in embeds)

    def velocity(sequence: Tensor, vector: Tensor) -> Tensor:
        return pipe.transformer(
            latents.to(dtype), sequence, vector, time.expand(len(latents)), return_dict=False
        )[0].float()

    uncond = velocity(negative, negative_pooled)
    return uncond + pipe.defaults.guidance_scale * (velocity(text, pooled) - uncond)


def relative_error(found: Tensor, truth: Tensor) -> float:
    """Distance over length."""
    return ((found - truth).norm() / truth.norm()).item()


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--seed", type=int, default=6_000_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "quantization")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    started = time.monotonic()
    answers, forced_at = (options.work / f"{part}-{options.seed}" for part in ("answers", "forced"))
    answers.mkdir(parents=True, exist_ok=True)
    forced_at.mkdir(exist_ok=True)
    config = EvaluateConfig(suite="toybench", num_prompts=options.prompts, seed=options.seed)
    questions = list(ask(config))
    forced = forced_velocities(questions[:FORCED], forced_at)
    files = answer_all(answers, questions, started + options.seconds)
    if not files:
        print("time is up; the same command goes on")
        return
    date = datetime.now(UTC).date().isoformat()
    result = {
        "date": date,
        "machine": platform.machine(),
        "torch": torch.__version__,
        "command": f"python benchmarks/quantization.py --prompts {options.prompts}",
        "components": ["transformer", "text_encoder_3"],
        "oracle": summary(files),
        "velocity_error_at_fixed_latents": forced,
    }
    print(json.dumps(result, indent=2))
    out = options.out or RESULTS / f"quantization-{date}-{platform.machine()}.json"
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(out)


if __name__ == "__main__":
    main()
