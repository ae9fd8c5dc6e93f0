"""The tiny model: ContentV in small, trained from nothing on the toy world by one CPU core.

The order follows what was measured: pictures before clips, short captions before long ones, and no
transformer before the autoencoder can draw what the captions say.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
from pydantic import model_validator

from contentv.base.config import Config, load_yaml, save_yaml
from contentv.base.errors import UserError
from contentv.base.files import atomic_dir
from contentv.base.log import get_logger
from contentv.base.progress import progress
from contentv.data.features import Features, load_shards
from contentv.data.source import LatentBatches, LatentPhase
from contentv.data.toyset import ClipPhase, ToyVideoBatches
from contentv.distributed import checkpoint
from contentv.encoding.encoder import (
    SHARD_CLIPS,
    FeatureEncoder,
    encode_toyworld,
    latent_statistics,
)
from contentv.flow.timesteps import SigmaDensity
from contentv.models.zoo import TEXT_LENGTHS, tiny_autoencoder, tiny_text_towers, tiny_transformer
from contentv.pipelines.folder import GenerationDefaults
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.toyworld.captions import vocabulary
from contentv.training.config import OptimizerConfig, StageConfig
from contentv.training.objectives.autoencoder import AutoencoderObjective
from contentv.training.objectives.flow_matching import FlowMatchingObjective
from contentv.training.state import load_untied
from contentv.training.trainer import Trainer

_log = get_logger(__name__)

_RUN = "run.yaml"
# Stages, and the recipe's fields that a stage reads beside its own settings.
_READS = {
    "autoencoder": ("autoencoder_phases",),
    "decoder": ("decoder_phases",),
    "flow": ("flow_phases", "clips", "seed"),
}


@dataclass(frozen=True)
class Compute:
    """Where and how a run computes; `compiled` pays minutes at the start for faster steps."""

    device: torch.device
    compiled: bool = True


class TinyRecipe(Config):
    """Three trained stages, with the encoding of `clips` clips of row `seed` before the last."""

    seed: int = 0
    autoencoder: StageConfig
    autoencoder_phases: tuple[ClipPhase, ...]
    decoder: StageConfig
    decoder_phases: tuple[ClipPhase, ...]
    clips: int
    flow: StageConfig
    flow_phases: tuple[LatentPhase, ...]
    defaults: GenerationDefaults

    @model_validator(mode="after")
    def _phases_fill_stages(self) -> Self:
        for name in _READS:
            steps = getattr(self, name).steps
            planned = sum(phase.steps for phase in getattr(self, f"{name}_phases"))
            if steps != planned:
                raise ValueError(f"{name}.steps={steps}: its phases have {planned} steps together")
        return self


def train(recipe: TinyRecipe, folder: Path, compute: Compute) -> Path:
    """Run all stages under `folder`, each from its newest checkpoint; returns the model folder."""
    _refuse_changes(recipe, folder)
    save_yaml(recipe, folder / _RUN)
    vae = train_autoencoder(recipe, folder, compute)
    train_decoder(recipe, vae, folder, compute)
    features = encode(recipe, vae, folder, compute)
    mean, std = latent_statistics(features)
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())
    return train_flow(recipe, vae, features, folder, compute)


def _refuse_changes(recipe: TinyRecipe, folder: Path) -> None:
    """UserError when a stage that has begun would go on with other data."""
    if not (folder / _RUN).is_file():
        return
    before = load_yaml(TinyRecipe, folder / _RUN)
    for stage, fields in _READS.items():
        changed = [name for name in fields if getattr(before, name) != getattr(recipe, name)]
        if changed and checkpoint.latest(folder / getattr(recipe, stage).name):
            raise UserError(
                f"{folder}: stage {stage} began with other {', '.join(changed)}; "
                "restore them or choose another --out"
            )


def train_autoencoder(recipe: TinyRecipe, folder: Path, compute: Compute) -> AutoencoderKLWan:
    """Stage autoencoder3d; returns the averaged network, frozen."""
    stage = recipe.autoencoder
    torch.manual_seed(stage.seed)
    vae = tiny_autoencoder().to(compute.device)
    batches = ToyVideoBatches(stage.seed, stage.name, recipe.autoencoder_phases)
    objective = AutoencoderObjective(vae, compiled=compute.compiled)
    state = Trainer(objective, batches, stage, folder / stage.name).run()
    load_untied(vae, state.ema)
    return vae.eval().requires_grad_(False)


def train_decoder(
    recipe: TinyRecipe, vae: AutoencoderKLWan, folder: Path, compute: Compute
) -> None:
    """Stage decoder: sharpen the decoder of `vae` in place; latents stay what they are."""
    vae.train().requires_grad_(True)
    stage = recipe.decoder
    batches = ToyVideoBatches(stage.seed, stage.name, recipe.decoder_phases)
    objective = AutoencoderObjective(vae, decoder_only=True, compiled=compute.compiled)
    state = Trainer(objective, batches, stage, folder / stage.name).run()
    load_untied(vae, state.ema)
    vae.eval().requires_grad_(False)


def encode(recipe: TinyRecipe, vae: AutoencoderKLWan, folder: Path, compute: Compute) -> Features:
    """Latents of the training clips, made once."""
    encoder = FeatureEncoder(vae, compiled=compute.compiled)
    folder = folder / "features"
    shards = encode_toyworld(encoder, folder, clips=recipe.clips, seed=recipe.seed)
    with progress(-(-recipe.clips // SHARD_CLIPS), f"encode, {SHARD_CLIPS} clips each") as bar:
        for _ in shards:
            bar.advance()
    features = load_shards(folder, encoder=encoder.identity)
    if len(features) != recipe.clips:
        raise UserError(
            f"{folder}: holds {len(features)} clips, the recipe has {recipe.clips}; "
            "delete it to encode anew"
        )
    return features


def train_flow(
    recipe: TinyRecipe, vae: AutoencoderKLWan, features: Features, folder: Path, compute: Compute
) -> Path:
    """Stage flow: transformer and text towers together; writes the model folder."""
    stage = recipe.flow
    torch.manual_seed(stage.seed)
    transformer, towers = tiny_transformer(), tiny_text_towers(vocabulary())
    mean, std = (torch.tensor(vae.config[key]) for key in ("latents_mean", "latents_std"))
    batches = LatentBatches(features, mean, std, stage.seed, stage.name, recipe.flow_phases)
    objective = FlowMatchingObjective(
        transformer, towers, text_lengths=TEXT_LENGTHS, compiled=compute.compiled
    )
    objective.networks.to(compute.device)
    state = Trainer(objective, batches, stage, folder / stage.name).run()
    load_untied(objective.networks, state.ema)
    model = folder / "model"
    pipeline = ContentVPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=recipe.defaults.flow_shift or 1.0),
        vae=vae,
        text_encoder=towers.text_encoder,
        tokenizer=towers.tokenizer,
        text_encoder_2=towers.text_encoder_2,
        tokenizer_2=towers.tokenizer_2,
        text_encoder_3=towers.text_encoder_3,
        tokenizer_3=towers.tokenizer_3,
        generation_defaults=recipe.defaults.model_dump(mode="json"),
    )
    pipeline.to(dtype=torch.bfloat16)
    with atomic_dir(model) as part:
        pipeline.save_pretrained(part)
    _log.info("model: %s", model)
    return model


_DEFAULTS = GenerationDefaults(
    height=64, width=64, num_frames=17, fps=8, num_inference_steps=20, guidance_scale=7.0,
    flow_shift=3.0, text_lengths=TEXT_LENGTHS,
)  # fmt: skip
_PICTURES = SigmaDensity(mean=0.0)
# Motion is decided at high noise: clips visit it more often.
_CLIPS = SigmaDensity(mean=0.5)
_NOISIER = SigmaDensity(mean=1.0)

TINY = TinyRecipe(
    autoencoder=StageConfig(
        name="autoencoder3d",
        steps=3000,
        optimizer=OptimizerConfig(
            learning_rate=2e-3, warmup_steps=100, final_ratio=0.02, weight_decay=1e-4
        ),
        max_grad_norm=0.5,
        ema_decay=0.998,
    ),
    autoencoder_phases=(
        ClipPhase(steps=1400, shapes=((1, 32),)),
        ClipPhase(steps=300, shapes=((5, 8), (1, 32))),
        ClipPhase(steps=1300, shapes=((17, 6), (17, 6), (1, 32))),
    ),
    decoder=StageConfig(
        name="decoder",
        steps=1600,
        optimizer=OptimizerConfig(
            learning_rate=1e-3, warmup_steps=50, final_ratio=0.02, weight_decay=1e-4
        ),
        max_grad_norm=0.5,
        ema_decay=0.998,
    ),
    decoder_phases=(ClipPhase(steps=1600, shapes=((17, 6), (17, 6), (1, 32))),),
    clips=16384,
    flow=StageConfig(
        name="flow",
        steps=3600,
        optimizer=OptimizerConfig(
            name="muon", learning_rate=2e-3, warmup_steps=100, hold=0.401, final_ratio=0.02
        ),
        ema_decay=0.999,
    ),
    flow_phases=(
        LatentPhase(steps=500, clips=64, frames=1, density=_PICTURES),
        LatentPhase(steps=1000, clips=48, frames=5, density=_CLIPS, long_every=6, long_clips=24),
        LatentPhase(steps=2100, clips=48, frames=5, density=_NOISIER, long_every=6, long_clips=24),
    ),
    defaults=_DEFAULTS,
)

SMOKE = TinyRecipe(
    autoencoder=StageConfig(name="autoencoder3d", steps=4, log_every=2, checkpoint_every=2),
    autoencoder_phases=(ClipPhase(steps=2, shapes=((1, 4),)), ClipPhase(steps=2, shapes=((5, 2),))),
    decoder=StageConfig(name="decoder", steps=2, log_every=2, checkpoint_every=2),
    decoder_phases=(ClipPhase(steps=2, shapes=((5, 2),)),),
    clips=16,
    flow=StageConfig(name="flow", steps=4, log_every=2, checkpoint_every=2),
    flow_phases=(
        LatentPhase(steps=2, clips=4, frames=1),
        LatentPhase(steps=2, clips=2, frames=5, long_every=2, long_clips=1),
    ),
    defaults=_DEFAULTS,
)
