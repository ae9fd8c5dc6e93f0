"""Small stages of the real objectives for tests."""

from pathlib import Path
from typing import Any

import torch

from builders import VOCABULARY, random_transformer
from contentv.data.features import Features
from contentv.data.toylatents import LatentBatches, LatentPhase, ToyCaptions
from contentv.data.toyset import ClipPhase, ToyVideoBatches
from contentv.models.zoo import TEXT_LENGTHS, tiny_autoencoder, tiny_text_towers
from contentv.training.config import OptimizerConfig, StageConfig
from contentv.training.objectives.autoencoder import AutoencoderObjective
from contentv.training.objectives.flow_matching import FlowMatchingObjective
from contentv.training.trainer import Trainer

STEPS = 5


def autoencoder(folder: Path, *, decoder_only: bool = False) -> Trainer[Any]:
    torch.manual_seed(0)
    config = StageConfig(name="autoencoder3d", steps=STEPS, checkpoint_every=2, log_every=2)
    # Clips only after the checkpoint: the time convolutions begin to learn after a resume.
    phases = (ClipPhase(steps=3, shapes=((1, 3),)), ClipPhase(steps=2, shapes=((5, 2),)))
    batches = ToyVideoBatches(0, config.name, phases, size=16)
    objective = AutoencoderObjective(tiny_autoencoder(), decoder_only=decoder_only)
    return Trainer(objective, batches, config, folder)


def decoder(folder: Path) -> Trainer[Any]:
    return autoencoder(folder, decoder_only=True)


def flow(folder: Path) -> Trainer[Any]:
    torch.manual_seed(0)
    config = StageConfig(
        name="flow",
        steps=STEPS,
        checkpoint_every=2,
        log_every=2,
        optimizer=OptimizerConfig(name="muon", warmup_steps=2),
    )
    mean = torch.randn(6, 16, 2, 4, 4)
    clips = Features(mean, torch.full_like(mean, -4))
    phases = (
        LatentPhase(steps=2, clips=3, frames=1),
        LatentPhase(steps=3, clips=2, frames=2, long_every=2),
    )
    mean, std = torch.zeros(16), torch.ones(16)
    batches = LatentBatches(clips, ToyCaptions(0), mean, std, 0, config.name, phases)
    objective = FlowMatchingObjective(
        random_transformer(1), tiny_text_towers(VOCABULARY), text_lengths=TEXT_LENGTHS
    )
    return Trainer(objective, batches, config, folder)
