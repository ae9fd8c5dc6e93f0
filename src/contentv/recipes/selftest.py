"""`contentv train --selftest`: learn one clip by heart, through every part that training uses."""

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from contentv.base.errors import NumericsError
from contentv.data.batch import LatentBatch
from contentv.data.features import load_shards
from contentv.data.toylatents import LatentBatches, LatentPhase, ToyCaptions
from contentv.data.toyset import CLIP_FRAMES
from contentv.encoding.toyworld import ToyEncoder, encode_toyworld, latent_statistics
from contentv.models.zoo import TEXT_LENGTHS, tiny_autoencoder, tiny_text_towers, tiny_transformer
from contentv.toyworld.captions import vocabulary
from contentv.training.config import OptimizerConfig, RunOptions, StageConfig
from contentv.training.groups import latent_groups
from contentv.training.objectives.flow_matching import FlowMatchingObjective
from contentv.training.trainer import Trainer
from contentv.training.watch import Watch

_NAME = "selftest"
_HALF = 15  # steps before the checkpoint, and after it
_REACHED = 0.25  # of the first loss


@dataclass(frozen=True)
class SelftestResult:
    """First and last loss, and where and how long it took."""

    first: float
    last: float
    device: str
    seconds: float

    def __str__(self) -> str:
        return (
            f"selftest passed: one clip learned by heart on {self.device}, loss {self.first:.3g} → "
            f"{self.last:.3g} in {2 * _HALF} steps, with a checkpoint in the middle "
            f"({self.seconds:.0f} s)"
        )


def selftest(device: torch.device) -> SelftestResult:
    """Render, encode, train, save, resume; NumericsError when the loss does not fall.

    The autoencoder is untrained: its latents need not be good to be learned.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="contentv-selftest-") as name:
        folder = Path(name)
        batch = _one_clip(folder / "features", device)
        _train(batch, _HALF, folder / "run", device)
        _train(batch, 2 * _HALF, folder / "run", device)
        losses = _losses(folder / "run")
    if not losses[-1] < _REACHED * losses[0]:
        raise NumericsError(
            f"selftest: loss {losses[0]:.3g} → {losses[-1]:.3g} after {len(losses)} steps on "
            f"{device}, must fall below {_REACHED} of the first; try --device cpu"
        )
    return SelftestResult(losses[0], losses[-1], str(device), time.monotonic() - started)


def _one_clip(folder: Path, device: torch.device) -> LatentBatch:
    """Four times the first toy clip, each with its own noise."""
    torch.manual_seed(0)
    encoder = ToyEncoder(tiny_autoencoder().to(device).eval())
    for _ in encode_toyworld(encoder, folder, clips=1, frames=CLIP_FRAMES, seed=0):
        pass
    features = load_shards(folder, encoder=encoder.identity)
    phases = (LatentPhase(steps=1, clips=4, frames=features.mean.shape[2]),)
    statistics = latent_statistics(features)
    return LatentBatches(features, ToyCaptions(0), *statistics, 0, _NAME, phases)(0)


def _train(batch: LatentBatch, steps: int, folder: Path, device: torch.device) -> None:
    """Train to `steps`, from the checkpoint if there is one."""
    torch.manual_seed(0)
    objective = FlowMatchingObjective(
        tiny_transformer(), tiny_text_towers(vocabulary()), text_lengths=TEXT_LENGTHS
    )
    objective.networks.to(device)
    optimizer = OptimizerConfig(learning_rate=2e-3, warmup_steps=5, schedule="constant")
    stage = StageConfig(name=_NAME, steps=steps, optimizer=optimizer, log_every=1)
    watch = Watch(groups=latent_groups)
    options = RunOptions(accept=True)  # the second half makes the run longer
    Trainer(objective, lambda _: batch, stage, folder, options=options, watch=watch).run()


def _losses(folder: Path) -> list[float]:
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [float(json.loads(line)["loss"]) for line in lines]
