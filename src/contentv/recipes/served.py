"""A recipe's stages as encode servers have them: what is offered, and the batches behind it."""

from dataclasses import dataclass
from pathlib import Path

from contentv.base.device import default_dtype, pick_device
from contentv.base.log import get_logger
from contentv.data.batch import FeatureBatch
from contentv.data.planned import PlannedBatches
from contentv.data.run import load_dataset
from contentv.data.standins import StandInFile
from contentv.encoding.captions import CaptionEncoder
from contentv.encoding.clips import ClipEncoder
from contentv.encoding.config import ServeConfig
from contentv.encoding.encoder import FeatureEncoder
from contentv.encoding.offers import Offer
from contentv.encoding.wire import Ticket
from contentv.pipelines.folder import check_folder, read_defaults
from contentv.pipelines.locate import locate_model
from contentv.pipelines.parts import load_towers, load_vae
from contentv.recipes.arranging import plan_stage, text_tokens
from contentv.recipes.contentv_8b import CONTENTV_8B
from contentv.recipes.remote import features_build
from contentv.recipes.sources import transformer_size
from contentv.recipes.stages import changed_recipe

_log = get_logger(__name__)


@dataclass(frozen=True)
class Served:
    """A stage that is offered, with its batches of all groups together."""

    offer: Offer
    batches: PlannedBatches


def open_stages(config: ServeConfig, latents: Path) -> list[Served]:
    """Load the encoders and plan the stages; one clip or caption is encoded at a time.

    Latents are kept in the folder `latents`.
    """
    device, model = pick_device(config.device), locate_model(config.model)
    check_folder(model)
    recipe, defaults = changed_recipe(CONTENTV_8B, config.plan), read_defaults(model)
    names = list(recipe.stages) if config.stage is None else [config.stage]
    stages = {name: recipe.stage(name) for name in names}
    listing = load_dataset(
        config.clips,
        config.root,
        cache=config.cache,
        workers=config.workers,
        test_captions=config.test_captions,
    )
    towers = load_towers(model, default_dtype(device), device)
    encoder = FeatureEncoder(load_vae(model, device), towers)
    clips = ClipEncoder(encoder, listing.root, latents)
    captions = CaptionEncoder(encoder, text_lengths=defaults.text_lengths)
    record = StandInFile(config.cache / "stand_ins.jsonl")
    size, length = transformer_size(model), text_tokens(model, defaults)
    served = []
    for name, stage in stages.items():
        _log.info("%s:", name)
        data = plan_stage(name, stage, listing, seed=recipe.seed, size=size, text_tokens=length)
        batches = PlannedBatches(
            data.plan, data.listing.clips, data.buckets, clips, captions, stage.sampling, record
        )
        offer = Offer(
            plan=data.plan.hash,
            build=features_build(model, defaults, stage.sampling, device),
            seed=recipe.seed,
            stage=name,
            steps=stage.steps,
            micro_batches=stage.micro_batches,
            batch_of=_Answers(batches),
        )
        served.append(Served(offer, batches))
    return served


@dataclass(frozen=True)
class _Answers:
    """The batch of a ticket, whatever group asks."""

    batches: PlannedBatches

    def __call__(self, ticket: Ticket) -> FeatureBatch:
        hand = self.batches.plan(ticket.step).deal(ticket.group, ticket.groups)
        return self.batches.batch(ticket.step, hand[ticket.micro_batch])
