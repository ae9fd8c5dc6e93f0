"""`contentv train finetune`: a model learns from a person's own folder of clips."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from contentv.base.device import default_dtype, pick_device
from contentv.data.buckets import Buckets
from contentv.data.planned import SamplingConfig
from contentv.data.run import load_dataset
from contentv.data.standins import StandInFile
from contentv.distributed.config import RecomputeConfig
from contentv.distributed.mesh import refuse_torchrun
from contentv.distributed.recompute import recompute_blocks
from contentv.flow.timesteps import SigmaDensity
from contentv.pipelines.folder import GenerationDefaults, check_folder, fingerprint, read_defaults
from contentv.pipelines.jobs import Job
from contentv.pipelines.locate import locate_model
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.pipelines.studio import load_pipeline
from contentv.recipes import export
from contentv.recipes.adapters import add_lora, learning_part, save_lora
from contentv.recipes.buckets import bucket_config
from contentv.recipes.config import ExportConfig, FinetuneConfig, ValidationConfig
from contentv.recipes.dataset import (
    PlannedData,
    as_they_come,
    clips_hash,
    plan_data,
    sizes_for_one,
)
from contentv.recipes.identity import Identity, begin, refuse_another_run
from contentv.recipes.sources import (
    freeze_encoders,
    local_source,
    step_cost,
    transformer_size,
    work_from,
)
from contentv.recipes.validation import Validation, first_captions, plan_videos
from contentv.training.config import OptimizerConfig, RunOptions, StageConfig
from contentv.training.groups import latent_groups
from contentv.training.objectives.frozen_text import FrozenTextObjective
from contentv.training.state import load_untied
from contentv.training.trainer import Trainer
from contentv.training.watch import Watch

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
        refuse_another_run(config.out, config.out / STAGE, identity)
        if not config.dry_run:
            begin(config.out, identity)
        _train(_Run(config, model, defaults, data, products, device))
    if config.dry_run:
        return FinetuneResult(None)
    return FinetuneResult(_export(config, model) if config.full else config.out / "lora")


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
    cost = step_cost(transformer_size(model), max(defaults.text_lengths))
    return plan_data(
        listing,
        buckets,
        cost,
        seed=config.seed,
        stage=STAGE,
        sizes=sizes_for_one(cost, config.batch_size),
        mix=as_they_come,
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
        validate_every=config.validate_every,
    )


def _train(run: _Run) -> None:
    config, dtype = run.config, default_dtype(run.device)
    stage, videos = _stage(config), _videos(run)
    of_transformer = torch.float32 if config.full else dtype
    pipeline = load_pipeline(run.model, {"default": dtype, "transformer": of_transformer})
    objective = _objective(run, pipeline)
    source = local_source(
        run.data,
        pipeline,
        _sampling(config),
        text_lengths=run.defaults.text_lengths,
        cache=run.products / "latents",
        record=StandInFile(run.products / "stand_ins.jsonl"),
    )
    validate = Validation(pipeline, videos, config.out / "validation", bf16=stage.bf16)
    state = Trainer(
        objective,
        work_from(source),
        stage,
        config.out / STAGE,
        options=RunOptions(accept=config.accept, dry_run=config.dry_run, wandb=config.wandb),
        watch=Watch(groups=latent_groups, validate=validate),
    ).run()
    if not config.full and not config.dry_run:
        load_untied(objective.networks, state.ema)
        save_lora(pipeline.transformer, config.out / "lora")


def _videos(run: _Run) -> tuple[Job, ...]:
    """What is shown on the way: the prompts given, or the data's own."""
    config = run.config
    if not config.validate_every:
        return ()
    asked = ValidationConfig(
        every=config.validate_every,
        prompts=() if config.validation_prompts else first_captions(run.data),
        prompts_file=config.validation_prompts,
    )
    return plan_videos(asked, run.defaults)


def _objective(run: _Run, pipeline: ContentVPipeline) -> FrozenTextObjective:
    config, transformer = run.config, pipeline.transformer
    freeze_encoders(pipeline, run.device)
    if not config.full:
        add_lora(transformer, config.rank, seed=config.seed)
    transformer.to(run.device)
    recompute_blocks(transformer.transformer_blocks, RecomputeConfig(mode=config.recompute))
    networks: nn.Module = nn.ModuleDict({"transformer": transformer})
    return FrozenTextObjective(
        transformer,
        networks=networks if config.full else learning_part(networks),
    )


def _export(config: FinetuneConfig, model: Path) -> Path:
    return export.run(
        ExportConfig(checkpoint=config.out / STAGE, base=model, out=config.out / "model")
    ).model
