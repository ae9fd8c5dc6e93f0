"""`contentv serve`: encodes for trainers elsewhere, which ask for batches of a recipe's stages."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from contentv.base.device import default_dtype, pick_device
from contentv.base.log import get_logger
from contentv.data.batch import FeatureBatch
from contentv.data.planned import PlannedBatches
from contentv.data.run import load_dataset
from contentv.data.standins import StandInFile
from contentv.encoding.captions import CaptionEncoder
from contentv.encoding.certificates import read_server
from contentv.encoding.clips import ClipEncoder
from contentv.encoding.config import ServeConfig
from contentv.encoding.monitor import monitor
from contentv.encoding.offers import Offer
from contentv.encoding.server import EncodeServer
from contentv.encoding.wire import Ticket
from contentv.pipelines.folder import check_folder, read_defaults
from contentv.pipelines.locate import locate_model
from contentv.pipelines.parts import load_towers, load_vae
from contentv.recipes.arranging import plan_stage, text_tokens
from contentv.recipes.contentv_8b import CONTENTV_8B
from contentv.recipes.remote import features_build
from contentv.recipes.sources import transformer_size
from contentv.recipes.stages import changed_recipe
from contentv.training.signals import stop_signals

_log = get_logger(__name__)


@dataclass(frozen=True)
class ServeResult:
    """How it ended."""

    all_finished: bool

    @property
    def exit_code(self) -> int:
        """1 when requests were cut off."""
        return 0 if self.all_finished else 1

    def __str__(self) -> str:
        return (
            "stopped; every request was finished"
            if self.all_finished
            else "stopped; some " + ("requests took too long and were cut off")
        )


def run(config: ServeConfig) -> ServeResult:
    """Serve until SIGINT or SIGTERM, then finish what is under way.

    Raises:
        UserError: clips, recipe and model do not fit, or it cannot listen as asked.
        WorldError: the model is damaged, or the cache cannot be written.
    """
    with serving(config) as server, stop_signals() as stop:
        _log.info("%s: serving; Ctrl-C ends it", server.address)
        stop.wait()
        return ServeResult(server.drain())


@contextmanager
def serving(config: ServeConfig) -> Iterator[EncodeServer]:
    """A server that listens for the body and, if asked to, tells of itself."""
    credentials = read_server(config.tls) if config.tls else None
    server = EncodeServer(open_offers(config), bind=config.bind, credentials=credentials)
    with ExitStack() as stack:
        stack.callback(server.drain)
        if config.metrics_port is not None:
            pages = {"/metrics": server.metrics, "/health": server.health}
            port = stack.enter_context(monitor(config.metrics_port, pages))
            _log.info("http://127.0.0.1:%d/metrics and /health", port)
        yield server


def open_offers(config: ServeConfig) -> list[Offer]:
    """Load the encoders and plan the stages; one clip or caption is encoded at a time."""
    device, model = pick_device(config.device), locate_model(config.model)
    check_folder(model)
    recipe, defaults = changed_recipe(CONTENTV_8B, config.plan), read_defaults(model)
    names = list(recipe.stages) if config.stage is None else [config.stage]
    stages = {name: recipe.stage(name) for name in names}
    listing = load_dataset(config.clips, config.root, cache=config.cache, workers=config.workers)
    clips = ClipEncoder(load_vae(model, device), listing.root, config.cache / "latents")
    towers = load_towers(model, default_dtype(device), device)
    captions = CaptionEncoder(towers, text_lengths=defaults.text_lengths)
    record = StandInFile(config.cache / "stand_ins.jsonl")
    size, length = transformer_size(model), text_tokens(model, defaults)
    offers = []
    for name, stage in stages.items():
        _log.info("%s:", name)
        data = plan_stage(name, stage, listing, seed=recipe.seed, size=size, text_tokens=length)
        batches = PlannedBatches(
            data.plan, data.listing.clips, data.buckets, clips, captions, stage.sampling, record
        )
        build = features_build(model, defaults, stage.sampling, device)
        offers.append(
            Offer(
                plan=data.plan.hash,
                build=build,
                seed=recipe.seed,
                stage=name,
                steps=stage.steps,
                micro_batches=stage.micro_batches,
                batch_of=_Answers(batches),
            )
        )
    return offers


@dataclass(frozen=True)
class _Answers:
    """The batch of a ticket, whatever group asks."""

    batches: PlannedBatches

    def __call__(self, ticket: Ticket) -> FeatureBatch:
        hand = self.batches.plan(ticket.step).deal(ticket.group, ticket.groups)
        return self.batches.batch(ticket.step, hand[ticket.micro_batch])
