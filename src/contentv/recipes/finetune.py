"""`contentv train finetune`: a model learns from a person's own folder of clips."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from contentv.base.device import default_dtype, pick_device
from contentv.base.errors import UserError
from contentv.base.log import only_errors
from contentv.data.buckets import Buckets
from contentv.data.planned import SamplingConfig
from contentv.data.source import FeatureSource
from contentv.data.standins import StandInFile
from contentv.distributed.clip import sum_and_clip
from contentv.distributed.collectives import check_collectives
from contentv.distributed.config import ParallelConfig, RecomputeConfig
from contentv.distributed.mesh import Mesh, build_mesh, leave_together, process_group
from contentv.distributed.recompute import recompute_blocks
from contentv.flow.timesteps import SigmaDensity
from contentv.pipelines.folder import GenerationDefaults, check_folder, fingerprint, read_defaults
from contentv.pipelines.jobs import Job
from contentv.pipelines.locate import locate_model
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.pipelines.studio import load_pipeline
from contentv.recipes import export
from contentv.recipes.adapters import add_lora, learning_part, save_lora
from contentv.recipes.arranging import list_clips
from contentv.recipes.buckets import bucket_config
from contentv.recipes.config import ExportConfig, FinetuneConfig, ValidationConfig
from contentv.recipes.dataset import (
    PlannedData,
    as_they_come,
    clips_hash,
    plan_data,
    sizes_at_most,
)
from contentv.recipes.identity import Identity, begin, refuse_another_run
from contentv.recipes.sources import (
    freeze_encoders,
    local_source,
    step_cost,
    transformer_size,
    work_from,
)
from contentv.recipes.together import by_first, products_folder
from contentv.recipes.validation import Validation, first_captions, plan_videos
from contentv.training.config import OptimizerConfig, RunOptions, StageConfig
from contentv.training.groups import latent_groups
from contentv.training.objectives.frozen_text import FrozenTextObjective
from contentv.training.peers import Peers
from contentv.training.signals import Interrupted
from contentv.training.state import load_untied
from contentv.training.trainer import Trainer
from contentv.training.watch import Watch

STAGE = "finetune"


@dataclass(frozen=True)
class FinetuneResult:
    """The folder of a LoRA or of a model, None after a dry run. Of many processes one speaks."""

    product: Path | None
    speaks: bool

    def __str__(self) -> str:
        if not self.speaks:
            return ""
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
    mesh: Mesh
    peers: Peers


def run(config: FinetuneConfig) -> FinetuneResult:
    """Train from wherever the run in `config.out` stopped, and write what was learned.

    Started by torchrun, all its processes train together: each has the whole model and computes
    its share of every step, which does not depend on how many there are.

    Raises:
        UserError: no clip can be used, the processes cannot share a step, or the run began with
            other data or another model.
        WorldError: the model is damaged, a disk cannot be written, a device is faulty.
        Interrupted: SIGINT or SIGTERM; the run was saved.
    """
    with process_group(pick_device(config.device)) as device:
        speaks = finetune(config, device)
    if config.dry_run or not speaks:
        return FinetuneResult(None, speaks)
    return FinetuneResult(_export(config) if config.full else config.out / "lora", speaks)


def finetune(config: FinetuneConfig, device: torch.device) -> bool:
    """Train in all processes of the default group; gives whether this one speaks for them."""
    _check_shares(config.micro_batches, dist.get_world_size())
    model = locate_model(config.model)
    check_folder(model)
    defaults, peers = read_defaults(model), Peers.of_world()
    mesh = build_mesh(ParallelConfig(replicate=peers.count), device)
    check_collectives(mesh)
    folder = products_folder(config.out, peers, dry_run=config.dry_run)
    with only_errors(wanted=not peers.is_first), folder as products:
        data = _plan(config, model, defaults, peers, products)
        by_first(peers, lambda: _begin(config, data, model))
        try:
            _train(_Run(config, model, defaults, data, products, device, mesh, peers))
        except Interrupted:
            leave_together()
            raise
    return peers.is_first


def _check_shares(batches: int, processes: int) -> None:
    """UserError when processes cannot have equally many batches of an update."""
    if batches % processes:
        raise UserError(
            f"micro_batches={batches}: must be a multiple of the {processes} processes, which "
            f"share the batches of an update; use {-(-batches // processes) * processes}"
        )


def _plan(
    config: FinetuneConfig, model: Path, defaults: GenerationDefaults, peers: Peers, products: Path
) -> PlannedData:
    buckets = Buckets(bucket_config(config, defaults))
    listing = list_clips(config, peers, products)
    cost = step_cost(transformer_size(model), max(defaults.text_lengths))
    return plan_data(
        listing,
        buckets,
        cost,
        seed=config.seed,
        stage=STAGE,
        sizes=sizes_at_most(cost, config.batch_size),
        mix=as_they_come,
        batches_per_step=config.micro_batches,
    )


def _begin(config: FinetuneConfig, data: PlannedData, model: Path) -> None:
    """Refuse to make another run of the one in `config.out`; write down what it is made of."""
    identity = Identity(
        model=fingerprint(model)["sha256"],
        clips=clips_hash(data.listing.clips),
        buckets=data.buckets.config,
        sampling=_sampling(config),
        batch_size=config.batch_size,
        micro_batches=config.micro_batches,
        lora_rank=None if config.full else config.rank,
    )
    refuse_another_run(config.out, config.out / STAGE, identity)
    if not config.dry_run:
        begin(config.out, identity)


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
    config, peers, dtype = run.config, run.peers, default_dtype(run.device)
    stage, videos = _stage(config), _videos(run)
    of_transformer = torch.float32 if config.full else dtype
    pipeline = load_pipeline(run.model, {"default": dtype, "transformer": of_transformer})
    objective = _objective(run, pipeline)
    validate = Validation(pipeline, videos, config.out / "validation", bf16=stage.bf16, peers=peers)
    state = Trainer(
        objective,
        work_from(_source(run, pipeline)),
        stage,
        config.out / STAGE,
        options=RunOptions(accept=config.accept, dry_run=config.dry_run, wandb=config.wandb),
        watch=Watch(groups=latent_groups, validate=validate),
        peers=peers,
        clip=sum_and_clip,
    ).run()
    if not config.full and not config.dry_run:
        load_untied(objective.networks, state.ema)
        by_first(peers, lambda: save_lora(pipeline.transformer, config.out / "lora"))


def _source(run: _Run, pipeline: ContentVPipeline) -> FeatureSource:
    """This process's share of each step."""
    group, groups = run.mesh.data_group, run.peers.count
    return local_source(
        run.data,
        pipeline,
        _sampling(run.config),
        text_lengths=run.defaults.text_lengths,
        cache=run.products / "latents",
        record=StandInFile.of_group(run.products, group, groups),
        group=group,
        groups=groups,
    )


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


def _export(config: FinetuneConfig) -> Path:
    written = ExportConfig(
        checkpoint=config.out / STAGE, base=locate_model(config.model), out=config.out / "model"
    )
    return export.run(written).model
