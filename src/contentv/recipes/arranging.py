"""Before a training: how it is spread over processes, and what they will see."""

from collections.abc import Sequence
from math import gcd
from pathlib import Path

import torch

from contentv.base.errors import UserError
from contentv.base.files import read_json
from contentv.data.batching import tokens
from contentv.data.buckets import Bucket, Buckets
from contentv.data.entries import Listing
from contentv.data.manifest import MANIFEST_NAME, read_manifest
from contentv.data.run import load_dataset
from contentv.distributed.config import ParallelConfig, divisors
from contentv.models.cost import TransformerSize
from contentv.pipelines.folder import GenerationDefaults
from contentv.recipes.config import ChainConfig, FinetuneConfig
from contentv.recipes.dataset import PlannedData, joint, plan_data, sizes_alike
from contentv.recipes.sources import step_cost
from contentv.recipes.stages import StageRecipe
from contentv.recipes.together import by_first
from contentv.training.peers import Peers


def layout_of(
    name: str, stage: StageRecipe, config: ChainConfig, *, world: int, node: int, num_heads: int
) -> ParallelConfig:
    """The layout asked for, else the recipe's, else the weights once on each node of `node`.

    UserError when it does not make `world` processes, `num_heads` heads cannot be split so, or the
    data groups do not divide a step.
    """
    shard = gcd(world, node)
    usual = ParallelConfig(replicate=world // shard, shard=shard)
    layout = config.parallel or stage.parallel or usual
    layout.check_world(world)
    layout.check_model(num_heads=num_heads)
    groups, batches = layout.num_data_groups, stage.micro_batches
    if batches % groups:
        fitting = [n for n in divisors(batches) if world % n == 0]
        raise UserError(
            f"{name}: micro_batches={batches}: must be a multiple of the {groups} data groups "
            f"(replicate x shard); change it, or use {', '.join(map(str, fitting))} groups"
        )
    return layout


def node_size(device: torch.device, world: int) -> int:
    """How many processes share a machine: one for each of its devices; on CPUs all."""
    return world if device.type == "cpu" else torch.accelerator.device_count()


def list_clips(config: ChainConfig | FinetuneConfig, peers: Peers, products: Path) -> Listing:
    """The data set, measured by the first process, for all of them."""

    def measure() -> Sequence[object]:
        found = load_dataset(
            config.data,
            config.root,
            cache=products,
            workers=config.workers,
            test_captions=config.test_captions,
        )
        return [found.layout, str(found.root), found.notes]

    layout, root, notes = by_first(peers, measure)
    clips = read_manifest(products / MANIFEST_NAME)
    return Listing(layout, Path(root), clips, tuple(notes))


def plan_stage(
    name: str,
    stage: StageRecipe,
    listing: Listing,
    *,
    seed: int,
    size: TransformerSize,
    text_tokens: int,
) -> PlannedData:
    """Plan the steps of a stage; UserError when no clip is of use to it."""
    cost = step_cost(size, text_tokens)

    def length(bucket: Bucket) -> int:
        return tokens(bucket) + text_tokens

    return plan_data(
        listing,
        Buckets(stage.buckets),
        cost,
        seed=seed,
        stage=name,
        sizes=sizes_alike(cost, length, batch_size=stage.batch_size, room=stage.room),
        mix=joint(video_first=stage.video_first, pictures=stage.pictures, videos=stage.videos),
        batches_per_step=stage.micro_batches,
    )


def text_tokens(model: Path, defaults: GenerationDefaults) -> int:
    """Most text tokens that the model reads: those of CLIP, then T5's."""
    clip = read_json(model / "tokenizer" / "tokenizer_config.json")["model_max_length"]
    return int(clip) + max(defaults.text_lengths)
