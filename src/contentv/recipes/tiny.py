"""The tiny model: ContentV in small, trained from nothing on the toy world by one CPU core.

The order follows what was measured: pictures before clips, high noise before low, and no
transformer before the autoencoder can draw what the captions say.
"""

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
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
    GROUP_CLIPS,
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
from contentv.training.config import OptimizerConfig, RunOptions, StageConfig
from contentv.training.groups import latent_groups, video_groups
from contentv.training.objectives.autoencoder import AutoencoderObjective
from contentv.training.objectives.flow_matching import FlowMatchingObjective
from contentv.training.state import load_untied
from contentv.training.trainer import Trainer
from contentv.training.watch import Watch

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
    options: RunOptions = field(default_factory=RunOptions)


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
    if compute.options.dry_run:
        few = recipe.model_copy(update={"clips": GROUP_CLIPS})
        with TemporaryDirectory() as scratch:
            return _train_stages(few, folder, Path(scratch), compute)
    save_yaml(recipe, folder / _RUN)
    return _train_stages(recipe, folder, folder, compute)


def _train_stages(recipe: TinyRecipe, folder: Path, products: Path, compute: Compute) -> Path:
    """Checkpoints are in `folder`; features and model go to `products`."""
    vae = train_autoencoder(recipe, folder, compute)
    train_decoder(recipe, vae, folder, compute)
    features = encode(recipe, vae, products, compute)
    mean, std = latent_statistics(features)
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())
    return train_flow(recipe, vae, features, folder, compute, model=products / "model")


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
    watch = Watch(groups=video_groups)
    state = Trainer(
        objective, batches, stage, folder / stage.name, options=compute.options, watch=watch
    ).run()
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
    watch = Watch(groups=video_groups)
    state = Trainer(
        objective, batches, stage, folder / stage.name, options=compute.options, watch=watch
    ).run()
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
    recipe: TinyRecipe,
    vae: AutoencoderKLWan,
    features: Features,
    folder: Path,
    compute: Compute,
    *,
    model: Path,
) -> Path:
    """Stage flow: transformer and text towers together; writes the folder `model`."""
    stage = recipe.flow
    torch.manual_seed(stage.seed)
    transformer, towers = tiny_transformer(), tiny_text_towers(vocabulary())
    mean, std = (torch.tensor(vae.config[key]) for key in ("latents_mean", "latents_std"))
    batches = LatentBatches(features, mean, std, stage.seed, stage.name, recipe.flow_phases)
    objective = FlowMatchingObjective(
        transformer, towers, text_lengths=TEXT_LENGTHS, compiled=compute.compiled
    )
    objective.networks.to(compute.device)
    watch = Watch(groups=latent_groups)
    state = Trainer(
        objective, batches, stage, folder / stage.name, options=compute.options, watch=watch
    ).run()
    load_untied(objective.networks, state.ema)
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
    height=64, width=64, num_frames=17, fps=8, num_inference_steps=20, guidance_scale=4.0,
    flow_shift=6.0, text_lengths=TEXT_LENGTHS,
)  # fmt: skip
# What a prompt decides (colours, shapes, the way things go) is decided at high noise: with 80
# tokens that repeat one another, nearly all of it above sigma 0.9.
_PICTURES = SigmaDensity(name="uniform", shift=4.0)
_LAYOUT = SigmaDensity(name="uniform", shift=12.0)
_CLIPS = SigmaDensity(name="uniform", shift=6.0)
_DETAIL = SigmaDensity(name="uniform", shift=3.0)

TINY = TinyRecipe(
    autoencoder=StageConfig(
        name="autoencoder3d",
        steps=2900,
        optimizer=OptimizerConfig(
            learning_rate=2e-3, warmup_steps=100, final_ratio=0.02, weight_decay=1e-4
        ),
        max_grad_norm=0.5,
        ema_decay=0.998,
    ),
    autoencoder_phases=(
        ClipPhase(steps=1300, shapes=((1, 32),)),
        ClipPhase(steps=200, shapes=((5, 8), (1, 32))),
        ClipPhase(steps=1400, shapes=((17, 6), (17, 6), (1, 32))),
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
    decoder_phases=(ClipPhase(steps=1600, shapes=((17, 6), (17, 6), (1, 32)), held_out_every=4),),
    clips=16384,
    flow=StageConfig(
        name="flow",
        steps=6000,
        optimizer=OptimizerConfig(
            name="muon", learning_rate=2e-3, warmup_steps=50, hold=0.3, final_ratio=0.02
        ),
        ema_decay=0.999,
    ),
    flow_phases=(
        LatentPhase(steps=1000, clips=64, frames=1, density=_PICTURES),
        LatentPhase(steps=1500, clips=32, frames=5, density=_LAYOUT, long_every=6, long_clips=16),
        LatentPhase(steps=2500, clips=32, frames=5, density=_CLIPS, long_every=3, long_clips=16),
        LatentPhase(steps=1000, clips=32, frames=5, density=_DETAIL, long_every=3, long_clips=16),
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
