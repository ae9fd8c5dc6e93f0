"""`contentv train finetune`: a model learns from a person's own folder of clips."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from pydantic import ValidationError
from torch import nn

from contentv.base.config import describe_validation_error
from contentv.base.device import default_dtype, pick_device
from contentv.base.errors import UserError
from contentv.base.files import read_json
from contentv.data.batch import TowerBatch
from contentv.data.batching import Cost
from contentv.data.buckets import DURATIONS, Bucket, BucketConfig, Buckets
from contentv.data.planned import PlannedBatches, SamplingConfig
from contentv.data.run import load_dataset
from contentv.data.standins import StandInFile
from contentv.distributed.config import RecomputeConfig
from contentv.distributed.mesh import refuse_torchrun
from contentv.distributed.recompute import recompute_blocks
from contentv.encoding.captions import CaptionEncoder
from contentv.encoding.clips import ClipEncoder
from contentv.flow.timesteps import SigmaDensity
from contentv.models.cost import TransformerSize, model_flops
from contentv.pipelines.folder import GenerationDefaults, check_folder, fingerprint, read_defaults
from contentv.pipelines.locate import locate_model
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.pipelines.studio import load_pipeline
from contentv.recipes import export
from contentv.recipes.adapters import add_lora, learning_part, save_lora
from contentv.recipes.config import ExportConfig, FinetuneConfig
from contentv.recipes.dataset import PlannedData, clips_hash, plan_data, sizes_for_one
from contentv.recipes.identity import Identity, begin, refuse_another_run
from contentv.training.config import OptimizerConfig, RunOptions, StageConfig
from contentv.training.groups import latent_groups
from contentv.training.objectives.frozen_text import FrozenTextObjective
from contentv.training.state import load_untied
from contentv.training.trainer import Trainer
from contentv.training.watch import Watch
from contentv.training.work import Work
from contentv.video.shapes import ScaleFactors

STAGE = "finetune"


@dataclass(frozen=True)
class FinetuneResult:
    """The folder of a LoRA, or the folder of a model; or nothing, of a dry run."""

    product: Path | None

    def __str__(self) -> str:
        if self.product is None:
            return f"{STAGE}: everything was built, nothing was trained or written"
        return f"{self.product}"


@dataclass(frozen=True)
class _Run:
    """What a run is given; `products` is where measured sizes and latents are kept."""

    config: FinetuneConfig
    model: Path
    defaults: GenerationDefaults
    data: PlannedData
    products: Path
    device: torch.device


def run(config: FinetuneConfig) -> FinetuneResult:
    """Train from wherever the run in `config.out` stopped, and write what was learned.

    Raises:
        UserError: torchrun started it, no clip can be used, or the run began with other data or
            another model.
        WorldError: the model is damaged, or the disk cannot be written.
    """
    refuse_torchrun("contentv train finetune")
    device = pick_device(config.device)
    model = locate_model(config.model)
    check_folder(model)
    defaults = read_defaults(model)
    with _products(config) as products:
        data = _plan(config, model, defaults, products)
        identity = _identity(config, data, model)
        refuse_another_run(config.out, STAGE, identity)
        if not config.dry_run:
            begin(config.out, identity)
        _train(_Run(config, model, defaults, data, products, device))
    if config.dry_run:
        return FinetuneResult(None)
    return FinetuneResult(_export(config, model) if config.full else config.out / "lora")


def bucket_config(config: FinetuneConfig, defaults: GenerationDefaults) -> BucketConfig:
    """The buckets asked for; what is not said is what the model was made for."""
    longest = defaults.num_frames
    settings = {
        "areas": config.areas or (defaults.height * defaults.width,),
        "frames": config.frames or (1, *(n for n in DURATIONS if n < longest), longest),
        "fps": config.fps or defaults.fps,
        "max_crop": config.max_crop,
    }
    try:
        return BucketConfig.model_validate(settings)
    except ValidationError as error:
        raise UserError(describe_validation_error(error)) from error


def step_cost(model: Path, text_tokens: int) -> Cost:
    """Operations of training the model in this folder on one clip of a bucket."""
    size = TransformerSize.of(read_json(model / "transformer" / "config.json"))

    def cost(bucket: Bucket) -> float:
        return model_flops(size, ScaleFactors().latent(bucket), text_tokens)

    return cost


@contextmanager
def _products(config: FinetuneConfig) -> Iterator[Path]:
    """The run's folder; of a dry run nothing stays."""
    if not config.dry_run:
        yield config.out
        return
    with TemporaryDirectory(prefix="contentv-finetune-") as scratch:
        yield Path(scratch)


def _plan(
    config: FinetuneConfig, model: Path, defaults: GenerationDefaults, products: Path
) -> PlannedData:
    buckets = Buckets(bucket_config(config, defaults))
    listing = load_dataset(config.data, config.root, cache=products, workers=config.workers)
    cost = step_cost(model, max(defaults.text_lengths))
    return plan_data(
        listing,
        buckets,
        cost,
        seed=config.seed,
        stage=STAGE,
        sizes=sizes_for_one(cost, config.batch_size),
        batches_per_step=config.micro_batches,
    )


def _identity(config: FinetuneConfig, data: PlannedData, model: Path) -> Identity:
    return Identity(
        model=fingerprint(model)["sha256"],
        clips=clips_hash(data.listing.clips),
        buckets=data.buckets.config,
        sampling=_sampling(config),
        batch_size=config.batch_size,
        micro_batches=config.micro_batches,
        lora_rank=None if config.full else config.rank,
    )


def _sampling(config: FinetuneConfig) -> SamplingConfig:
    return SamplingConfig(
        windows=config.windows,
        long_captions=config.long_captions,
        caption_drop=config.caption_drop,
        density=SigmaDensity(shift=config.shift),
    )


def _stage(config: FinetuneConfig) -> StageConfig:
    rate = config.learning_rate or (1e-5 if config.full else 1e-4)
    warmup = min(50, config.steps // 10)
    return StageConfig(
        name=STAGE,
        steps=config.steps,
        seed=config.seed,
        optimizer=OptimizerConfig(
            learning_rate=rate, warmup_steps=warmup, schedule="constant", betas=(0.9, 0.999)
        ),
        ema_decay=0.99,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
    )


def _train(run: _Run) -> None:
    config, dtype = run.config, default_dtype(run.device)
    of_transformer = torch.float32 if config.full else dtype
    pipeline = load_pipeline(run.model, {"default": dtype, "transformer": of_transformer})
    objective = _objective(run, pipeline)
    state = Trainer(
        objective,
        _batches(run, pipeline),
        _stage(config),
        config.out / STAGE,
        options=RunOptions(accept=config.accept, dry_run=config.dry_run, wandb=config.wandb),
        watch=Watch(groups=latent_groups),
    ).run()
    if not config.full and not config.dry_run:
        load_untied(objective.networks, state.ema)
        save_lora(pipeline.transformer, config.out / "lora")


def _batches(run: _Run, pipeline: ContentVPipeline) -> Callable[[int], Work[TowerBatch]]:
    planned = PlannedBatches(
        run.data.plan,
        run.data.listing.clips,
        run.data.buckets,
        ClipEncoder(pipeline.vae, run.data.listing.root, run.products / "latents"),
        _sampling(run.config),
        StandInFile(run.products / "stand_ins.jsonl"),
    )

    def batches(step: int) -> Work[TowerBatch]:
        return Work(*planned(step))

    return batches


def _objective(run: _Run, pipeline: ContentVPipeline) -> FrozenTextObjective:
    config, towers = run.config, pipeline.text_towers()
    frozen = (pipeline.vae, towers.text_encoder, towers.text_encoder_2, towers.text_encoder_3)
    for network in frozen:
        if network is not None:
            network.requires_grad_(False).eval().to(run.device)
    transformer = pipeline.transformer
    if not config.full:
        add_lora(transformer, config.rank, seed=config.seed)
    transformer.to(run.device)
    recompute_blocks(transformer.transformer_blocks, RecomputeConfig(mode=config.recompute))
    networks: nn.Module = nn.ModuleDict({"transformer": transformer})
    return FrozenTextObjective(
        transformer,
        CaptionEncoder(towers, text_lengths=run.defaults.text_lengths),
        networks=networks if config.full else learning_part(networks),
    )


def _export(config: FinetuneConfig, model: Path) -> Path:
    return export.run(
        ExportConfig(checkpoint=config.out / STAGE, base=model, out=config.out / "model")
    ).model
