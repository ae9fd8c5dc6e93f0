"""Our trainer beside a plain loop as diffusers' training scripts write it, in samples per second.

Both train the tiny transformer from the same weights on the same cached latents and prompt
embeddings: bfloat16 autocast over float32 weights, fused AdamW, clipped gradients, a moving average
of the weights. They take turns of a few steps in one process; the first turn warms up and does not
count. Ours is all that `Trainer` does in a step, its log and its per-sample noise among it. On a
CPU shared with others, look at "cpu": time that the process computed, not time it waited.

OMP_NUM_THREADS=1 python benchmarks/trainer.py
"""

import argparse
import copy
import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel, compute_density_for_timestep_sampling
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from contentv.base.rng import torch_generator
from contentv.data.batch import FeatureBatch
from contentv.flow.timesteps import SigmaDensity, sample_sigmas
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.models.zoo import tiny_transformer
from contentv.training.config import OptimizerConfig, StageConfig
from contentv.training.objectives.flow_matching import compile_for_training
from contentv.training.objectives.frozen_text import FrozenTextObjective
from contentv.training.trainer import Trainer

RESULTS = Path(__file__).parent / "results"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
TEXT_TOKENS = 32  # 16 of CLIP, 16 of T5: a short caption
RATE, WARM_UP, WEIGHT_DECAY, BETAS = 1e-3, 100, 0.01, (0.9, 0.99)
MAX_NORM, EMA_DECAY = 1.0, 0.999


class Features(NamedTuple):
    """Cached latents [n c t h w], prompt tokens [n m d] and pooled prompts [n p]."""

    latents: Tensor
    sequence: Tensor
    pooled: Tensor

    @classmethod
    def random(cls, transformer: ContentVTransformer3DModel, count: int, frames: int) -> "Features":
        """Normal numbers in the shapes of the tiny model, whose clips are of 5 latent frames."""
        rng, config = torch_generator("trainer benchmark"), transformer.config
        return cls(
            torch.randn(count, config.in_channels, frames, 8, 8, generator=rng),
            torch.randn(count, TEXT_TOKENS, config.joint_attention_dim, generator=rng),
            torch.randn(count, config.pooled_projection_dim, generator=rng),
        )


def plain_loss(transformer: nn.Module, features: Features, noise: Tensor, sigma: Tensor) -> Tensor:
    """The loss as those scripts compute it: a mean over the whole batch."""
    sigmas = sigma.view(-1, 1, 1, 1, 1)
    noisy = (1.0 - sigmas) * features.latents + sigmas * noise
    predicted = transformer(
        hidden_states=noisy,
        timestep=sigma * 1000,
        encoder_hidden_states=features.sequence,
        pooled_projections=features.pooled,
        return_dict=False,
    )[0]
    target = noise - features.latents
    return ((predicted.float() - target.float()) ** 2).reshape(len(target), -1).mean(1).mean()


class PlainLoop:
    """Steps of a loop without a framework; accelerate, which would add to it, is left out."""

    def __init__(
        self, transformer: ContentVTransformer3DModel, features: Features, batch: int
    ) -> None:
        self._transformer = transformer.train()
        dataset = TensorDataset(*features)
        self._loader = DataLoader(dataset, batch_size=batch, shuffle=True, drop_last=True)
        self._optimizer = torch.optim.AdamW(
            transformer.parameters(), RATE, BETAS, weight_decay=WEIGHT_DECAY, fused=True
        )
        self._schedule = get_scheduler(
            "constant_with_warmup", optimizer=self._optimizer, num_warmup_steps=WARM_UP
        )
        self._average = EMAModel(transformer.parameters(), decay=EMA_DECAY, foreach=True)
        self._batches = self._forever()
        self.losses: list[float] = []

    def run(self, steps: int) -> None:
        """Make some steps."""
        for features in itertools.islice(self._batches, steps):
            noise = torch.randn_like(features.latents)
            sigma = compute_density_for_timestep_sampling("logit_normal", len(noise), 0.0, 1.0)
            with torch.autocast(noise.device.type, torch.bfloat16):
                loss = plain_loss(self._transformer, features, noise, sigma)
            loss.backward()
            nn.utils.clip_grad_norm_(self._transformer.parameters(), MAX_NORM)
            self._optimizer.step()
            self._schedule.step()
            self._optimizer.zero_grad()
            self._average.step(self._transformer.parameters())
            self.losses.append(loss.detach().item())

    def _forever(self) -> Iterator[Features]:
        while True:
            for row in self._loader:
                yield Features(*row)


@dataclass
class Turns:
    """Our batches of a step; the plain loop takes its turn before each `steps` of ours.

    `seconds` are of the turns that are over, by clock and by who made them.
    """

    plain: PlainLoop
    features: Features
    batch: int
    steps: int
    seconds: dict[str, dict[str, list[float]]] = field(
        default_factory=lambda: {clock: {"plain": [], "ours": []} for clock in CLOCKS}
    )
    _began: dict[str, float] = field(default_factory=dict)

    def __call__(self, step: int) -> FeatureBatch:
        """The batch of a step, noise keyed by step and sample as in our recipes."""
        if step % self.steps == 0:
            self._change_turns()
        count = len(self.features.latents)
        picked = [(step * self.batch + slot) % count for slot in range(self.batch)]
        latents, sequence, pooled = (tensor[picked] for tensor in self.features)
        draws = [self._draw(step, slot, latents.shape[1:]) for slot in range(self.batch)]
        noise, sigma = (torch.stack(row) for row in zip(*draws, strict=True))
        return FeatureBatch(latents, noise, sigma, sequence, pooled, tuple(map(str, picked)))

    def _draw(self, step: int, slot: int, shape: torch.Size) -> tuple[Tensor, Tensor]:
        rng = torch_generator("trainer benchmark", step, slot)
        return torch.randn(shape, generator=rng), sample_sigmas(SigmaDensity(), 1, rng)[0]

    def _change_turns(self) -> None:
        if self._began:
            self._note("ours")
        self._start()
        self.plain.run(self.steps)
        self._note("plain")
        self._start()

    def _start(self) -> None:
        self._began = {name: clock() for name, clock in CLOCKS.items()}

    def _note(self, who: str) -> None:
        for name, clock in CLOCKS.items():
            self.seconds[name][who].append(clock() - self._began[name])


def measure(
    *, rounds: int, steps: int, batch: int, frames: int = 5, compiled: bool = True
) -> dict[str, Any]:
    """Samples per second of both, and their ratio, in each of `rounds` turns of `steps`."""
    torch.manual_seed(0)
    transformer = tiny_transformer()
    features = Features.random(transformer, 4 * batch, frames)
    turns = Turns(PlainLoop(copy.deepcopy(transformer), features, batch), features, batch, steps)
    if compiled:
        compile_for_training(transformer)
    objective = FrozenTextObjective(
        transformer, networks=nn.ModuleDict({"transformer": transformer})
    )
    config = StageConfig(
        name="benchmark",
        steps=(1 + rounds) * steps + 1,  # the last begins a turn, which ends the one before
        optimizer=OptimizerConfig(
            learning_rate=RATE,
            schedule="constant",
            warmup_steps=WARM_UP,
            weight_decay=WEIGHT_DECAY,
            betas=BETAS,
        ),
        max_grad_norm=MAX_NORM,
        ema_decay=EMA_DECAY,
        checkpoint_every=10**9,
    )
    with tempfile.TemporaryDirectory() as folder:
        Trainer(objective, turns, config, Path(folder)).run()
    return {
        name: _summary(seconds["plain"][1 : 1 + rounds], seconds["ours"][1:], steps * batch)
        for name, seconds in turns.seconds.items()
    }


def _summary(plain: list[float], ours: list[float], samples: int) -> dict[str, Any]:
    ratios = [a / b for a, b in zip(plain, ours, strict=True)]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "plain_samples_per_second": round(samples / statistics.median(plain), 2),
        "our_samples_per_second": round(samples / statistics.median(ours), 2),
        "ratio_of_each_round": [round(ratio, 3) for ratio in ratios],
        "plain_seconds_of_each_round": [round(second, 2) for second in plain],
        "our_seconds_of_each_round": [round(second, 2) for second in ours],
    }


def processor() -> str:
    """The processor's name, or its family where the system does not tell."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text(encoding="utf-8").splitlines() if listing.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()


def main() -> None:
    """Print and store the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="turns that count")
    add("--steps", type=int, default=5, help="steps of a turn")
    add("--batch", type=int, default=32, help="clips of a step")
    add("--frames", type=int, default=5, help="latent frames of a clip; 1 is a picture")
    add("--threads", type=int, default=1, help="CPU threads")
    add("--out", type=Path, help="default: benchmarks/results/trainer-DATE-MACHINE.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    now = datetime.now(tz=UTC)
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    result = {
        "command": "python benchmarks/trainer.py"
        + "".join(f" --{name} {value}" for name, value in settings.items()),
        "date": now.isoformat(timespec="seconds"),
        "machine": processor(),
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        "load": [round(load, 2) for load in os.getloadavg()],
        "settings": settings,
        **measure(
            rounds=options.rounds, steps=options.steps, batch=options.batch, frames=options.frames
        ),
    }
    text = json.dumps(result, indent=2)
    print(text)
    path = options.out or RESULTS / f"trainer-{now:%Y-%m-%d}-{platform.machine()}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
