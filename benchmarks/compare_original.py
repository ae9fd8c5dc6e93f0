"""Our pipeline and the original published one, side by side on the same weights and noise.

    python benchmarks/compare_original.py --original DIR --out benchmarks/results/NAME.json

DIR holds `contentv_transformer.py` and `contentv_pipeline.py` of github.com/bytedance/ContentV,
which is not part of this repository. A random checkpoint of medium size is made with the text
widths that the original fixes (4096 and 2048). Original and ours then make the same videos in turn,
and the time of each stage is taken: text until the first call of the transformer, denoising until
the end of its last, decoding until the video is there. On a CPU shared with others, `--clock cpu`
counts the time that the process computed and not the time it waited. `--config tuned` lets ours
choose the fastest exact way first (`pipe.tune`), `compiled` may compile the blocks also. The floor
is the denoising's products at the rate of the best large product in this process. Exit code 1 when
the latents differ by more than 1e-4.
"""

import argparse
import importlib
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

import contentv
from contentv.models.cost import TransformerSize, forward_flops
from contentv.models.tokenizers import clip_tokenizer, t5_tokenizer
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.video.shapes import LatentShape

TOLERANCE = 1e-4
WORDS = frozenset(
    ["a", "big", "red", "blue", "circle", "square", "moves", "left", "right", "blurry"]
)
PROMPTS = ("a red circle moves left", "a big blue square moves right")
NEGATIVE_PROMPT = "blurry"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
CONFIGS = ("exact", "tuned", "compiled")
STAGES = ("text", "denoise", "decode")


@dataclass(frozen=True)
class Run:
    """Seconds per stage, and what came out."""

    seconds: dict[str, float]
    latents: torch.Tensor
    video: np.ndarray

    @property
    def total(self) -> float:
        """Seconds from the prompt to the video."""
        return sum(self.seconds.values())


class Stopwatch:
    """Notes when the transformer is first entered and last left."""

    def __init__(self, pipe: Any, clock: str) -> None:  # noqa: ANN401 - one of two classes
        self._clock = CLOCKS[clock]
        self.entered: list[float] = []
        self.left: list[float] = []
        pipe.transformer.register_forward_pre_hook(lambda *_: self.entered.append(self.now()))
        pipe.transformer.register_forward_hook(lambda *_: self.left.append(self.now()))

    def now(self) -> float:
        """Seconds, once all that was asked of an accelerator is done."""
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        return self._clock()

    def measure(self, make: Callable[[], Any]) -> tuple[dict[str, float], Any]:
        """Seconds per stage of `make`, and its result."""
        self.entered.clear()
        self.left.clear()
        start = self.now()
        result = make()
        times = (start, self.entered[0], self.left[-1], self.now())
        seconds = (end - begin for begin, end in pairwise(times))
        return dict(zip(STAGES, seconds, strict=True)), result


def random_pipeline(args: argparse.Namespace) -> ContentVPipeline:
    """Random weights in the layout, and with the text widths, of the published model."""
    torch.manual_seed(args.seed)
    clip = clip_tokenizer(WORDS, max_length=args.clip_tokens, pad_token="<|endoftext|>")
    clip_2 = clip_tokenizer(WORDS, max_length=args.clip_tokens, pad_token="!")
    t5 = t5_tokenizer(WORDS, max_length=512)
    t5_config = T5Config(
        vocab_size=len(t5), d_model=4096, d_kv=64, num_heads=64, d_ff=10240,
        num_layers=args.t5_layers, feed_forward_proj="gated-gelu", use_cache=False,
    )  # fmt: skip
    width = 64 * args.heads
    return ContentVPipeline(
        transformer=ContentVTransformer3DModel(
            num_layers=args.blocks, num_attention_heads=args.heads, caption_projection_dim=width
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=17.0),
        vae=AutoencoderKLWan(base_dim=args.vae_width).eval(),
        text_encoder=random_clip(len(clip), clip.eos_token_id, width=256, projection=768),
        tokenizer=clip,
        text_encoder_2=random_clip(len(clip_2), clip_2.eos_token_id, width=512, projection=1280),
        tokenizer_2=clip_2,
        text_encoder_3=T5EncoderModel(t5_config).eval(),
        tokenizer_3=t5,
    )


def random_clip(
    vocab_size: int, eos_token_id: int, *, width: int, projection: int
) -> CLIPTextModelWithProjection:
    """A CLIP text tower of two layers."""
    config = CLIPTextConfig(
        vocab_size=vocab_size, hidden_size=width, intermediate_size=4 * width,
        projection_dim=projection, num_hidden_layers=2, num_attention_heads=width // 64,
        eos_token_id=eos_token_id, bos_token_id=eos_token_id - 1, pad_token_id=eos_token_id,
    )  # fmt: skip
    return CLIPTextModelWithProjection(config).eval()


def load_original(code: Path, model: Path) -> Any:  # noqa: ANN401 - a class of foreign code
    """The original pipeline, loaded as its demo.py does."""
    sys.path.insert(0, str(code))
    transformer_class = importlib.import_module("contentv_transformer").SD3Transformer3DModel
    pipeline_class = importlib.import_module("contentv_pipeline").ContentVPipeline
    return pipeline_class.from_pretrained(
        model,
        transformer=transformer_class.from_pretrained(model, subfolder="transformer"),
        vae=AutoencoderKLWan.from_pretrained(model, subfolder="vae"),
    )


def make_video(
    pipe: Any,  # noqa: ANN401 - one of two unrelated classes
    watch: Stopwatch,
    prompt: str,
    noise: torch.Tensor,
    args: argparse.Namespace,
) -> Run:
    """One video; its latents are those after the last step, as a callback sees them."""
    kept: dict[str, torch.Tensor] = {}

    def keep(_pipe: object, _step: int, _time: object, tensors: dict[str, torch.Tensor]) -> Any:  # noqa: ANN401
        kept.update(tensors)
        return tensors

    seconds, output = watch.measure(
        lambda: pipe(
            prompt=prompt,
            negative_prompt=NEGATIVE_PROMPT,
            height=args.size,
            width=args.size,
            num_frames=args.frames,
            num_inference_steps=args.steps,
            guidance_scale=6.0,
            latents=noise.clone(),
            max_sequence_length=args.t5_tokens,
            callback_on_step_end=keep,
            output_type="np",
        )
    )
    return Run(seconds, kept["latents"].float().cpu(), np.asarray(output.frames))


def relative_difference(ours: np.ndarray, original: np.ndarray) -> float:
    """Largest absolute difference over the largest absolute value of the original."""
    return float(np.abs(ours - original).max() / np.abs(original).max())


def compare(args: argparse.Namespace, model: Path) -> dict[str, Any]:
    """Original and ours in turn, `--rounds` times each prompt."""
    random_pipeline(args).save_pretrained(model)
    pipes = {
        "original": load_original(args.original, model).to(args.device),
        "ours": ContentVPipeline.from_pretrained(model).to(args.device),
    }
    tuning = tune(pipes["ours"], args)
    watches = {name: Stopwatch(pipe, args.clock) for name, pipe in pipes.items()}
    for pipe in pipes.values():
        pipe.set_progress_bar_config(disable=True)

    grid = (16, (args.frames - 1) // 4 + 1, args.size // 8, args.size // 8)
    runs: dict[str, list[Run]] = {name: [] for name in pipes}
    difference = {"latents": 0.0, "video": 0.0}
    for number in range(args.rounds * len(PROMPTS) + args.warmup):
        noise = torch.randn(1, *grid, generator=torch.Generator().manual_seed(args.seed + number))
        prompt = PROMPTS[number % len(PROMPTS)]
        pipes["ours"]._prompt_cache.clear()  # noqa: SLF001 - the original has none to repeat from
        pair = {
            name: make_video(pipe, watches[name], prompt, noise, args)
            for name, pipe in pipes.items()
        }
        ours, original = pair["ours"], pair["original"]
        latents = relative_difference(ours.latents.numpy(), original.latents.numpy())
        difference["latents"] = max(difference["latents"], latents)
        difference["video"] = max(
            difference["video"], relative_difference(ours.video, original.video)
        )
        is_warmup = number < args.warmup
        for name, run in pair.items():
            if not is_warmup:
                runs[name].append(run)
        ratio = original.total / ours.total
        note = " (warm-up, not counted)" if is_warmup else ""
        print(f"video {number}: original {original.total:.2f} s, ours {ours.total:.2f} s, "
              f"{ratio:.2f}x, latents differ by {latents:.1e}{note}", flush=True)  # fmt: skip
    result = {**summary(runs), "max_relative_difference": difference, "tuning": tuning}
    return {**result, "floor": floor(pipes["ours"], args, result["seconds"])}


def tune(pipe: ContentVPipeline, args: argparse.Namespace) -> dict[str, Any] | None:
    """What ours does as `--config` says, chosen by measurement; None as it comes."""
    if args.config == "exact":
        return None
    text_tokens = args.clip_tokens + args.t5_tokens
    report = pipe.tune(
        args.size,
        args.size,
        args.frames,
        text_tokens=text_tokens,
        may_compile=args.config == "compiled",
    )
    print(report, flush=True)
    return report.model_dump(mode="json")


def floor(
    pipe: ContentVPipeline, args: argparse.Namespace, seconds: dict[str, Any]
) -> dict[str, float]:
    """Operations of the denoising, the rate of large products, and how far both are from it."""
    size = TransformerSize.of(pipe.transformer.config)
    latent = LatentShape((args.frames - 1) // 4 + 1, args.size // 8, args.size // 8)
    operations = 2 * args.steps * forward_flops(size, latent, args.clip_tokens + args.t5_tokens)
    rate = max(product_rate(width, args) for width in (512, 1024, 2048))
    least = operations / rate
    return {
        "denoise_gflop": operations / 1e9,
        "best_product_gflops": rate / 1e9,
        "denoise_seconds": least,
        **{f"{name}_over_floor": own["denoise"] / least for name, own in seconds.items()},
    }


def product_rate(width: int, args: argparse.Namespace) -> float:
    """Operations a second of a linear layer over 2048 rows, the best of five."""
    rows, weight = (torch.randn(n, width, device=args.device) for n in (2048, width))
    clock = CLOCKS[args.clock]
    times = []
    for _ in range(6):
        start = clock()
        torch.nn.functional.linear(rows, weight)
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        times.append(clock() - start)
    return 2 * rows.numel() * width / min(times)


def summary(runs: dict[str, list[Run]]) -> dict[str, Any]:
    """Median seconds per stage, and the median over videos of original / ours."""
    pairs = list(zip(runs["original"], runs["ours"], strict=True))
    seconds = {
        name: {
            **{stage: statistics.median(run.seconds[stage] for run in own) for stage in STAGES},
            "total": statistics.median(run.total for run in own),
        }
        for name, own in runs.items()
    }
    ratio = {
        stage: statistics.median(a.seconds[stage] / b.seconds[stage] for a, b in pairs)
        for stage in STAGES
    }
    totals = [original.total / ours.total for original, ours in pairs]
    ratio["total"] = statistics.median(totals)
    return {"seconds": seconds, "ratio": ratio, "ratio_of_each_video": totals}


def machine() -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ] if Path("/proc/cpuinfo").exists() else [platform.processor()]  # fmt: skip
    return {
        "cpu": models[0],
        "cores": len(models),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "contentv": contentv.__version__,
    }


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--original", type=Path, required=True, help="folder with the original's two files")
    add("--out", type=Path, required=True, help="JSON file to write")
    add("--blocks", type=int, default=8, help="transformer blocks")
    add("--heads", type=int, default=8, help="attention heads of 64 channels")
    add("--t5-layers", type=int, default=1, help="layers of the T5 encoder")
    add("--vae-width", type=int, default=32, help="base channels of the autoencoder; Wan's has 96")
    add("--size", type=int, default=320, help="height and width in pixels")
    add("--frames", type=int, default=17, help="frames, 4k+1")
    add("--steps", type=int, default=4, help="denoising steps")
    add("--rounds", type=int, default=2, help="times that each prompt is made")
    add("--warmup", type=int, default=0, help="videos made before those that count")
    add("--threads", type=int, default=1, help="CPU threads")
    add("--clock", choices=CLOCKS, default="wall", help="time that passed, or time computed")
    add("--device", default="cpu", help="where to compute")
    add("--seed", type=int, default=0, help="seed of weights and noise")
    add("--clip-tokens", type=int, default=77, help="text tokens of the CLIP encoders, at most 77")
    add("--t5-tokens", type=int, default=256, help="text tokens of the T5 encoder")
    add("--config", choices=CONFIGS, default="exact", help="how ours computes; the original cannot")
    return parser.parse_args()


def main() -> int:
    """Compares, prints, writes; 1 when the two give different latents."""
    args = parse()
    torch.set_num_threads(args.threads)
    settings = {name: value for name, value in vars(args).items() if not isinstance(value, Path)}
    tokens = ((args.frames - 1) // 4 + 1) * (args.size // 16) ** 2
    with tempfile.TemporaryDirectory() as folder:
        result = compare(args, Path(folder) / "model")
    report = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "settings": {**settings, "video_tokens": tokens},
        **result,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({key: result[key] for key in ("seconds", "ratio", "floor")}, indent=2))
    return 0 if result["max_relative_difference"]["latents"] <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
