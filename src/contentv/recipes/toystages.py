"""The tiny recipe's stages: what each begins with, what it learns from, what it leaves behind."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
from torch import nn

from contentv.base.errors import UserError
from contentv.base.files import atomic_dir
from contentv.base.log import get_logger
from contentv.data.features import Features, load_shards
from contentv.data.toycaptions import ToyCaptionBatches
from contentv.data.toylatents import LatentBatches, ToyCaptions
from contentv.data.toyset import CLIP_FRAMES, ToyVideoBatches
from contentv.distributed import checkpoint
from contentv.encoding.embedded import EmbeddedBatches
from contentv.encoding.toyworld import ToyEncoder, latent_statistics
from contentv.models.text import TextTowers
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.models.zoo import TEXT_LENGTHS, tiny_autoencoder, tiny_text_towers, tiny_transformer
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.recipes.config import ValidationConfig
from contentv.recipes.tiny import LatentStage, PixelStage, TinyRecipe
from contentv.recipes.validation import TOY_PROMPTS, Validation, plan_videos
from contentv.toyworld.captions import vocabulary
from contentv.toyworld.scene import VALUES
from contentv.training.config import RunOptions, StageConfig
from contentv.training.groups import latent_groups, video_groups
from contentv.training.objectives.autoencoder import AutoencoderObjective
from contentv.training.objectives.base import Objective
from contentv.training.objectives.flow_matching import FlowMatchingObjective, compile_for_training
from contentv.training.objectives.frozen_text import FrozenTextObjective
from contentv.training.objectives.text_encoder import TextEncoderObjective
from contentv.training.state import untied
from contentv.training.trainer import Trainer
from contentv.training.watch import Watch
from contentv.training.work import BatchT

_log = get_logger(__name__)

VIDEO_STAGES = ("vae_adaptation", "stage1", "stage2", "stage3")
# Whose averaged weights a stage begins with.
BEFORE = {
    "autoencoder3d": "autoencoder2d",
    "decoder": "autoencoder3d",
    **dict(zip(VIDEO_STAGES, ("t2i", *VIDEO_STAGES), strict=False)),
}

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Compute:
    """Where and how a run computes; `compiled` pays minutes at the start for faster steps."""

    device: torch.device
    compiled: bool = True
    options: RunOptions = field(default_factory=RunOptions)


@dataclass(frozen=True)
class ToyRun:
    """Checkpoints are in `folder`; features and models go to `products`."""

    recipe: TinyRecipe
    folder: Path
    products: Path
    compute: Compute


def _averaged(run: ToyRun, stage: str, network: Network, prefix: str = "") -> Network:
    """Give `network` the averaged weights that `stage` ended with, frozen.

    In a dry run a stage that has not been trained leaves them as they are.
    """
    found = checkpoint.latest(run.folder / stage)
    if found is not None:
        weights = {f"{prefix}{name}": value for name, value in untied(network).items()}
        checkpoint.read_into(checkpoint.inspect(found), {"ema": weights})
    return network.eval().requires_grad_(requires_grad=False)


def toy_autoencoder(run: ToyRun, stage: str | None) -> AutoencoderKLWan:
    """The autoencoder as `stage` left it, frozen; None gives a fresh one, always the same."""
    torch.manual_seed(run.recipe.autoencoder2d.stage.seed)
    vae = tiny_autoencoder()
    return _averaged(run, stage, vae) if stage else vae


def _towers(run: ToyRun, stage: str) -> TextTowers:
    """Text towers as `stage` left them, frozen."""
    towers = tiny_text_towers(vocabulary())
    for name, encoder in towers.encoders.items():
        _averaged(run, stage, encoder, f"{name}.")
    return towers


def _start(run: ToyRun, name: str) -> StageConfig:
    stage = run.recipe.stages[name].stage
    torch.manual_seed(stage.seed)
    return stage


def train_pixels(run: ToyRun, name: str) -> None:
    """Stages autoencoder2d, autoencoder3d, decoder: each goes on where the one before ended.

    The decoder is sharpened while the encoder stays: latents stay what they are.
    """
    stage = _start(run, name)
    vae = toy_autoencoder(run, BEFORE.get(name)).train().requires_grad_(requires_grad=True)
    vae.to(run.compute.device)
    pixels = run.recipe.stages[name]
    assert isinstance(pixels, PixelStage)
    batches = ToyVideoBatches(stage.seed, name, pixels.phases)
    objective = AutoencoderObjective(
        vae, decoder_only=name == "decoder", compiled=run.compute.compiled
    )
    _run_trainer(run, objective, batches, stage, Watch(groups=video_groups))


def train_text_encoders(run: ToyRun, name: str) -> None:
    """Text towers alone, on captions."""
    stage, captions = _start(run, name), run.recipe.text_encoders
    batches = ToyCaptionBatches(stage.seed, name, captions.short, captions.long)
    objective = TextEncoderObjective(
        tiny_text_towers(vocabulary()),
        num_values=[len(values) for values in VALUES.values()],
        text_lengths=TEXT_LENGTHS,
    )
    objective.networks.to(run.compute.device)
    _run_trainer(run, objective, batches, stage, Watch())


def train_t2i(run: ToyRun, name: str) -> None:
    """Text towers and transformer together, on pictures of the picture autoencoder."""
    stage = _start(run, name)
    transformer, towers = tiny_transformer(), _towers(run, "text_encoders")
    for encoder in towers.encoders.values():
        encoder.train().requires_grad_(requires_grad=True)
    vae = toy_autoencoder(run, "autoencoder2d")
    batches = _latent_batches(run, name, vae, frames=1)
    objective = FlowMatchingObjective(
        transformer, towers, text_lengths=TEXT_LENGTHS, compiled=run.compute.compiled
    )
    objective.networks.to(run.compute.device)
    _run_trainer(run, objective, batches, stage, Watch(groups=latent_groups))
    _write_stage_model(run, name, vae)


def train_video(run: ToyRun, name: str) -> None:
    """Stages of the paper: the transformer alone, on latents of the clip autoencoder."""
    stage = _start(run, name)
    transformer = _averaged(run, BEFORE[name], tiny_transformer(), "transformer.")
    transformer.train().requires_grad_(requires_grad=True)
    vae = toy_autoencoder(run, "autoencoder3d")
    batches = _latent_batches(run, name, vae, frames=CLIP_FRAMES)
    pipe = _pipeline(run, transformer, vae).to(run.compute.device)
    embedded = EmbeddedBatches(batches, pipe.text_towers(), TEXT_LENGTHS)
    if run.compute.compiled:
        compile_for_training(transformer)
    objective = FrozenTextObjective(
        transformer, networks=nn.ModuleDict({"transformer": transformer})
    )
    watch = Watch(groups=latent_groups, validate=_validation(run, stage, pipe))
    _run_trainer(run, objective, embedded, stage, watch)
    _write_stage_model(run, name, vae)


def _validation(run: ToyRun, stage: StageConfig, pipe: ContentVPipeline) -> Validation:
    config = ValidationConfig(every=stage.validate_every, prompts=TOY_PROMPTS)
    videos, folder = plan_videos(config, run.recipe.defaults), run.folder / stage.name / "videos"
    return Validation(pipe, videos, folder, bf16=stage.bf16)


def _run_trainer(
    run: ToyRun,
    objective: Objective[BatchT],
    batches: Callable[[int], BatchT],
    stage: StageConfig,
    watch: Watch[BatchT],
) -> None:
    options, folder = run.compute.options, run.folder / stage.name
    Trainer(objective, batches, stage, folder, options=options, watch=watch).run()


def _latent_batches(run: ToyRun, name: str, vae: AutoencoderKLWan, *, frames: int) -> LatentBatches:
    """Batches of normalised latents of `vae`, which learns what normalises them."""
    features = _features(run, vae, frames)
    mean, std = latent_statistics(features)
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())
    stage = run.recipe.stages[name]
    assert isinstance(stage, LatentStage)
    captions = ToyCaptions(run.recipe.seed)
    return LatentBatches(features, captions, mean, std, stage.stage.seed, name, stage.phases)


def features_folder(run: ToyRun, frames: int) -> Path:
    """Where the latents of pictures (`frames` 1) or clips are."""
    return run.products / ("pictures" if frames == 1 else "clips")


def num_scenes(run: ToyRun, frames: int) -> int:
    """How many scenes are encoded as pictures (`frames` 1) or clips."""
    return run.recipe.pictures if frames == 1 else run.recipe.clips


def _features(run: ToyRun, vae: AutoencoderKLWan, frames: int) -> Features:
    folder = features_folder(run, frames)
    features = load_shards(folder, encoder=ToyEncoder(vae).identity)
    expected = num_scenes(run, frames)
    if len(features) != expected:
        raise UserError(
            f"{folder}: holds {len(features)} clips, the recipe has {expected}; "
            "delete it to encode anew"
        )
    return features


def _write_stage_model(run: ToyRun, stage: str, vae: AutoencoderKLWan) -> None:
    """The model folder of a finished stage, text towers as t2i left them."""
    model = run.products / stage / "model"
    if not model.is_dir():
        transformer = _averaged(run, stage, tiny_transformer(), "transformer.")
        _write(run, model, transformer, vae)


def _write(
    run: ToyRun, model: Path, transformer: ContentVTransformer3DModel, vae: AutoencoderKLWan
) -> None:
    pipeline = _pipeline(run, transformer, vae)
    pipeline.to(dtype=torch.bfloat16)
    with atomic_dir(model) as part:
        pipeline.save_pretrained(part)
    _log.info("model: %s", model)


def _pipeline(
    run: ToyRun, transformer: ContentVTransformer3DModel, vae: AutoencoderKLWan
) -> ContentVPipeline:
    """With the text towers that t2i ended with."""
    towers, defaults = _towers(run, "t2i"), run.recipe.defaults
    return ContentVPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=defaults.flow_shift or 1.0),
        vae=vae,
        text_encoder=towers.text_encoder,
        tokenizer=towers.tokenizer,
        text_encoder_2=towers.text_encoder_2,
        tokenizer_2=towers.tokenizer_2,
        text_encoder_3=towers.text_encoder_3,
        tokenizer_3=towers.tokenizer_3,
        generation_defaults=defaults.model_dump(mode="json"),
    )


def write_final_model(run: ToyRun) -> None:
    """The last stage's transformer with the sharpened decoder."""
    vae = toy_autoencoder(run, "decoder")
    mean, std = latent_statistics(_features(run, vae, CLIP_FRAMES))
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())
    transformer = _averaged(run, VIDEO_STAGES[-1], tiny_transformer(), "transformer.")
    _write(run, run.products / "model", transformer, vae)
