"""One stage of a recipe, trained by all processes of a mesh."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from contentv.base.device import default_dtype, device_name
from contentv.data.batch import FeatureBatch
from contentv.data.source import FeatureSource
from contentv.data.standins import Record, StandIn, StandInFile
from contentv.distributed.clip import clip_grad_norm
from contentv.distributed.collectives import check_collectives
from contentv.distributed.config import ParallelConfig
from contentv.distributed.mesh import Mesh, build_mesh
from contentv.distributed.parallelize import parallelize
from contentv.models.cost import TransformerSize
from contentv.models.parallel import declare
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.pipelines.folder import GenerationDefaults
from contentv.pipelines.jobs import Job
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.pipelines.studio import load_pipeline
from contentv.planning.devices import peak_flops
from contentv.recipes.dataset import PlannedData
from contentv.recipes.remote import features_build, remote_source
from contentv.recipes.sources import (
    batch_flops,
    freeze_encoders,
    local_source,
    stored_source,
    work_from,
)
from contentv.recipes.stages import StageRecipe
from contentv.recipes.starts import Start, load_transformer, read_averages
from contentv.recipes.validation import Validation
from contentv.training.config import RunOptions
from contentv.training.groups import latent_groups
from contentv.training.objectives.frozen_text import FrozenTextObjective
from contentv.training.peers import Peers
from contentv.training.state import TrainState
from contentv.training.trainer import Trainer
from contentv.training.watch import Watch


@dataclass(frozen=True)
class StageJob:
    """A stage of a run in `folder`, with a model folder's encoders and `start`'s weights.

    Latents and stand-ins go to `products`. Without a `start` the model's own weights learn. With
    `servers` these encode, `tls` being the folder of our certificate, with `features` nobody does;
    else this process does, which can then make `videos` on the way.
    """

    name: str
    seed: int
    recipe: StageRecipe
    layout: ParallelConfig
    data: PlannedData
    model: Path
    defaults: GenerationDefaults
    start: Start | None
    folder: Path
    products: Path
    features: Path | None
    servers: tuple[str, ...]
    tls: Path | None
    videos: tuple[Job, ...]


def train_stage(job: StageJob, device: torch.device, options: RunOptions) -> None:
    """Train from wherever the stage stopped to its end; every process must call this.

    Raises:
        UserError: layout and model do not fit, or the stage began with other settings.
        WorldError: the devices' collectives give wrong numbers, or files cannot be used.
    """
    mesh = build_mesh(job.layout, device)
    check_collectives(mesh)
    peers = Peers.of_world(sharing=job.layout.sp * job.layout.tp)
    transformer, encoders = _networks(job, device)
    objective = _objective(job, transformer, mesh, peers)
    with _source(job, encoders, mesh, device) as source:
        Trainer(
            objective,
            work_from(source),
            job.recipe.config(job.name, job.seed),
            job.folder / job.name,
            options=options,
            watch=_watch(job, transformer, encoders, device, peers),
            peers=peers,
            clip=clip_grad_norm,
        ).run()


def _networks(
    job: StageJob, device: torch.device
) -> tuple[ContentVTransformer3DModel, ContentVPipeline | None]:
    """What learns, still on the CPU, and the pipeline that encodes, unless that is not our task."""
    model = job.model if job.start is None or job.start.is_checkpoint else job.start.path
    if job.servers or job.features:
        return load_transformer(model), None
    dtypes = {"default": default_dtype(device), "transformer": torch.float32}
    pipeline = load_pipeline(job.model, dtypes)
    if model != job.model:
        pipeline.register_modules(transformer=load_transformer(model))
    freeze_encoders(pipeline, device)
    return pipeline.transformer, pipeline


@contextmanager
def _source(
    job: StageJob, encoders: ContentVPipeline | None, mesh: Mesh, device: torch.device
) -> Iterator[FeatureSource]:
    group, groups = mesh.data_group, job.layout.num_data_groups
    if encoders is not None:
        yield local_source(
            job.data,
            encoders,
            job.recipe.sampling,
            text_lengths=job.defaults.text_lengths,
            cache=job.products / "latents",
            record=_record(job, mesh),
            group=group,
            groups=groups,
        )
        return
    if job.features is not None:
        yield stored_source(
            job.data,
            job.features,
            job.model,
            job.defaults,
            job.recipe.sampling,
            device=device,
            record=_record(job, mesh),
            group=group,
            groups=groups,
        )
        return
    build = features_build(job.model, job.defaults, job.recipe.sampling, device)
    remote = remote_source(
        job.servers,
        job.data.plan,
        build=build,
        steps=job.recipe.steps,
        tls=job.tls,
        group=group,
        groups=groups,
    )
    with remote:
        yield remote


def _objective(
    job: StageJob, transformer: ContentVTransformer3DModel, mesh: Mesh, peers: Peers
) -> FrozenTextObjective:
    parallelize(
        transformer,
        mesh,
        declare(transformer),
        recompute=job.recipe.recompute,
        bf16=job.recipe.bf16,
    )
    networks = nn.ModuleDict({"transformer": transformer})
    if job.start is not None and job.start.is_checkpoint:
        read_averages(job.start.path, networks, group=peers.saving)
    return FrozenTextObjective(transformer, networks=networks)


def _record(job: StageJob, mesh: Mesh) -> Record:
    """Of the processes that share samples one writes."""
    if mesh.sp.get_local_rank() or mesh.tp.get_local_rank():
        return _forget
    return StandInFile.of_group(job.products, mesh.data_group, job.layout.num_data_groups)


def _forget(stand_in: StandIn) -> None:
    """Another process writes it down."""


def _watch(
    job: StageJob,
    transformer: ContentVTransformer3DModel,
    encoders: ContentVPipeline | None,
    device: torch.device,
    peers: Peers,
) -> Watch[FeatureBatch]:
    size = TransformerSize.of(transformer.config)
    return Watch(
        groups=latent_groups,
        validate=_validation(job, encoders, peers),
        flops=lambda batch: batch_flops(size, batch) / peers.sharing,
        peak_flops=peak_flops(device_name(device)),
    )


def _validation(
    job: StageJob, encoders: ContentVPipeline | None, peers: Peers
) -> Callable[[TrainState], Mapping[str, float]]:
    if encoders is None or not job.videos:
        return lambda _: {}
    folder = job.folder / job.name / "validation"
    return Validation(encoders, job.videos, folder, bf16=job.recipe.bf16, peers=peers)
