"""`contentv train contentv_8b`: a chain of stages, on one device or on many."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from contentv.base.config import save_yaml
from contentv.base.device import pick_device
from contentv.base.errors import UserError
from contentv.base.log import get_logger, only_errors
from contentv.distributed.checkpoint import inspect, latest
from contentv.distributed.config import ParallelConfig
from contentv.distributed.mesh import leave_together, process_group
from contentv.models.cost import TransformerSize
from contentv.pipelines.folder import GenerationDefaults, check_folder, fingerprint, read_defaults
from contentv.pipelines.jobs import Job
from contentv.pipelines.locate import locate_model
from contentv.recipes import export
from contentv.recipes.arranging import (
    layout_of,
    list_clips,
    node_size,
    plan_stage,
    text_tokens,
)
from contentv.recipes.config import ChainConfig, ExportConfig
from contentv.recipes.contentv_8b import CONTENTV_8B
from contentv.recipes.dataset import PlannedData, clips_hash
from contentv.recipes.identity import StageIdentity, begin, refuse_another_run
from contentv.recipes.meshed import StageJob, train_stage
from contentv.recipes.sources import find_store, transformer_size
from contentv.recipes.stages import Recipe, StageRecipe, changed_recipe
from contentv.recipes.starts import Start, find_start
from contentv.recipes.together import by_first, products_folder
from contentv.recipes.validation import plan_videos
from contentv.training.config import RunOptions
from contentv.training.peers import Peers
from contentv.training.signals import Interrupted

_log = get_logger(__name__)
_RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class ChainResult:
    """The folder of the trained model, None after a dry run. Of many processes one speaks."""

    model: Path | None
    speaks: bool

    def __str__(self) -> str:
        if not self.speaks:
            return ""
        return str(self.model or "everything was built, nothing was trained or written")


@dataclass(frozen=True)
class _Run:
    """What all stages share; `products` is where measured sizes and latents are kept."""

    config: ChainConfig
    recipe: Recipe
    names: tuple[str, ...]
    model: Path
    defaults: GenerationDefaults
    device: torch.device
    peers: Peers
    products: Path


def run(config: ChainConfig) -> ChainResult:
    """Train the chain from wherever it stopped; each stage begins with the averages of the last.

    Started by torchrun, all its processes train together.

    Raises:
        UserError: recipe, layout, data and model do not fit each other, or a stage began with
            other settings.
        WorldError: model or checkpoint are damaged, a disk cannot be written, a device is faulty.
        Interrupted: SIGINT or SIGTERM; the stage was saved.
    """
    with process_group(pick_device(config.device)) as device:
        speaks = train_chain(config, device)
    if config.dry_run or not speaks:
        return ChainResult(None, speaks)
    names = chosen_stages(read_recipe(config), config)
    written = ExportConfig(
        checkpoint=config.out / names[-1],
        base=locate_model(config.model),
        out=config.out / "model",
    )
    return ChainResult(export.run(written).model, speaks)


def train_chain(config: ChainConfig, device: torch.device) -> bool:
    """Train in all processes of the default group; gives whether this one speaks for them."""
    recipe = read_recipe(config)
    names = chosen_stages(recipe, config)
    model = locate_model(config.model)
    check_folder(model)
    defaults, peers = read_defaults(model), Peers.of_world()
    folder = products_folder(config.out, peers, dry_run=config.dry_run)
    with only_errors(wanted=not peers.is_first), folder as products:
        _train(_Run(config, recipe, names, model, defaults, device, peers, products))
    return peers.is_first


def read_recipe(config: ChainConfig) -> Recipe:
    """The paper's recipe, with the changes asked for."""
    return CONTENTV_8B if config.recipe is None else changed_recipe(CONTENTV_8B, config.recipe)


def chosen_stages(recipe: Recipe, config: ChainConfig) -> tuple[str, ...]:
    """The stages to train, in their order; UserError when one that is named is not there."""
    if config.stage is not None:
        recipe.stage(config.stage)
        return (config.stage,)
    names = tuple(recipe.stages)
    if config.until is not None:
        recipe.stage(config.until)
        names = names[: names.index(config.until) + 1]
    return names


def _train(run: _Run) -> None:
    world = dist.get_world_size()
    node, size = node_size(run.device, world), transformer_size(run.model)
    stages = {name: run.recipe.stage(name) for name in run.names}
    # All that can be wrong with any stage is said before the first is trained.
    layouts = {
        name: layout_of(name, stage, run.config, world=world, node=node, num_heads=size.num_heads)
        for name, stage in stages.items()
    }
    videos = {name: _videos(run, name, stage) for name, stage in stages.items()}
    stores = {name: _store(run, name, stage) for name, stage in stages.items()}
    data = _plan(run, stages, size)
    first = by_first(run.peers, lambda: _where_to_go_on(run))
    for name in run.names[first:]:
        try:
            _train_one(
                run,
                name,
                layouts[name],
                data[name],
                features=stores[name],
                videos=videos[name],
            )
        except Interrupted:
            leave_together()
            raise


def _plan(
    run: _Run, stages: dict[str, StageRecipe], size: TransformerSize
) -> dict[str, PlannedData]:
    listing = list_clips(run.config, run.peers, run.products)
    length = text_tokens(run.model, run.defaults)
    data = {}
    for name, stage in stages.items():
        _log.info("%s:", name)
        data[name] = plan_stage(
            name, stage, listing, seed=run.recipe.seed, size=size, text_tokens=length
        )
    return data


def _where_to_go_on(run: _Run) -> int:
    """Number of the last stage that has begun, else 0; one that has ended ends at once."""
    begun = [number for number, name in enumerate(run.names) if latest(run.config.out / name)]
    return begun[-1] if begun else 0


def _videos(run: _Run, name: str, stage: StageRecipe) -> tuple[Job, ...]:
    """What the stage shows on the way."""
    if not stage.validation.every:
        return ()
    elsewhere = "--servers" if run.config.servers else "--features"
    if run.config.servers or run.config.features:
        raise UserError(
            f"{name}: validation.every={stage.validation.every}: videos need the autoencoder, "
            f"which is not here with {elsewhere}; use every=0"
        )
    return plan_videos(stage.validation, run.defaults)


def _store(run: _Run, name: str, stage: StageRecipe) -> Path | None:
    """The folder of features that the stage reads."""
    if not run.config.features:
        return None
    return find_store(name, run.config.features, stage.buckets, stage.sampling)


def _train_one(
    run: _Run,
    name: str,
    layout: ParallelConfig,
    data: PlannedData,
    *,
    features: Path | None,
    videos: tuple[Job, ...],
) -> None:
    config, stage = run.config, run.recipe.stage(name)
    how = by_first(run.peers, lambda: _begin(run, name, data))
    if how["is_finished"]:
        return
    start = find_start(how["start"]) if how["start"] else None
    if start is not None:
        _log.info("%s: begins with the weights of %s", name, start.path)
    job = StageJob(
        name=name,
        seed=run.recipe.seed,
        recipe=stage,
        layout=layout,
        data=data,
        model=run.model,
        defaults=run.defaults,
        start=start,
        folder=config.out,
        products=run.products,
        features=features,
        servers=config.servers,
        tls=config.tls,
        videos=videos,
    )
    options = RunOptions(accept=config.accept, dry_run=config.dry_run, wandb=config.wandb)
    train_stage(job, run.device, options)


def _begin(run: _Run, name: str, data: PlannedData) -> dict[str, object]:
    """Whether a stage has ended, and else which weights it begins with; "": the model's own."""
    config, stage = run.config, run.recipe.stage(name)
    folder = config.out / name
    identity = StageIdentity(
        model=fingerprint(run.model)["sha256"],
        init_from=_init_from(run, name),
        clips=clips_hash(data.listing.clips),
        buckets=stage.buckets,
        sampling=stage.sampling,
        video_first=stage.video_first,
        pictures=stage.pictures,
        videos=stage.videos,
        batch_size=stage.batch_size,
        room=stage.room,
        micro_batches=stage.micro_batches,
    )
    refuse_another_run(folder, folder, identity)
    if not config.dry_run:
        begin(folder, identity)
        save_yaml(run.recipe, config.out / _RECIPE)
    found = latest(folder)
    if found is not None:
        return {"is_finished": inspect(found).step >= stage.steps, "start": ""}
    start = _find_start(run, name)
    if start is not None and start.is_checkpoint:
        return {"is_finished": False, "start": str(start.path)}
    # A model from a hub lies in a place of its own on each machine: each finds it by its name.
    return {"is_finished": False, "start": _init_from(run, name)}


def _init_from(run: _Run, name: str) -> str:
    """What the person says about start weights; empty when nothing."""
    said = run.config.init_from if name == run.names[0] else None
    return said or run.recipe.stage(name).init_from or ""


def _find_start(run: _Run, name: str) -> Start | None:
    """Weights of a stage that has not begun; UserError when they are not there."""
    said, before = _init_from(run, name), run.recipe.before(name)
    if said:
        return find_start(said)
    if before is None:
        return None
    folder, steps = run.config.out / before, run.recipe.stage(before).steps
    found = latest(folder)
    if found is not None and inspect(found).step >= steps:
        return Start(found, is_checkpoint=True)
    if run.config.dry_run:
        _log.info("%s: will begin with the averaged weights of %s", name, before)
        return None
    raise UserError(
        f"{name}: begins with the weights of {before}, which has not ended in {run.config.out}; "
        "train it first, or name other weights with --init-from"
    )
