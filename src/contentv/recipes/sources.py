"""Where a stage's batches come from when this machine encodes them itself, or has done so."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from contentv.base.device import default_dtype
from contentv.base.errors import UserError
from contentv.base.files import read_json
from contentv.data.batch import FeatureBatch
from contentv.data.batching import Cost
from contentv.data.buckets import Bucket, BucketConfig
from contentv.data.planned import PlannedBatches, SamplingConfig
from contentv.data.source import FeatureSource
from contentv.data.standins import Record
from contentv.encoding.captions import CaptionEncoder
from contentv.encoding.clips import ClipEncoder
from contentv.encoding.encoder import FeatureEncoder
from contentv.encoding.identity import TextIdentity, read_identity
from contentv.encoding.stored import StoredCaptions, StoredClips
from contentv.models.cost import TransformerSize, model_flops
from contentv.pipelines.embeds import towers_hash
from contentv.pipelines.folder import GenerationDefaults
from contentv.pipelines.parts import load_vae
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.recipes.dataset import PlannedData
from contentv.training.work import Work
from contentv.video.shapes import LatentShape, ScaleFactors


def local_source(
    data: PlannedData,
    pipeline: ContentVPipeline,
    sampling: SamplingConfig,
    *,
    text_lengths: tuple[int, ...],
    cache: Path,
    record: Record,
    group: int = 0,
    groups: int = 1,
) -> PlannedBatches:
    """Batches of a data group, encoded by the networks of `pipeline` where they are now.

    Latents are kept in the folder `cache`, which processes may share.
    """
    encoder = FeatureEncoder(pipeline.vae, pipeline.text_towers())
    return PlannedBatches(
        data.plan,
        data.listing.clips,
        data.buckets,
        ClipEncoder(encoder, data.listing.root, cache),
        CaptionEncoder(encoder, text_lengths=text_lengths),
        sampling,
        record,
        group,
        groups,
    )


def stored_source(
    data: PlannedData,
    store: Path,
    model: Path,
    defaults: GenerationDefaults,
    sampling: SamplingConfig,
    *,
    device: torch.device,
    record: Record,
    group: int = 0,
    groups: int = 1,
) -> PlannedBatches:
    """Batches of a data group from the features that `contentv encode` wrote to `store`.

    The same bits as `local_source` with `model` on the kind of `device` that encoded. UserError
    when the features are of another model, or of other buckets.
    """
    text = TextIdentity(
        towers=towers_hash(model),
        dtype=str(default_dtype(device)),
        lengths=defaults.text_lengths,
    )
    # The autoencoder is asked only who it is, and how its latents are normalised.
    vae = load_vae(model, torch.device("cpu"))
    return PlannedBatches(
        data.plan,
        data.listing.clips,
        data.buckets,
        StoredClips(store, vae, data.buckets.config, sampling.windows),
        StoredCaptions(store, text, device),
        sampling,
        record,
        group,
        groups,
    )


def find_store(
    name: str, stores: Sequence[Path], buckets: BucketConfig, sampling: SamplingConfig
) -> Path:
    """The one of `stores` that was made for a stage's buckets; UserError when there is none."""
    for store in stores:
        identity = read_identity(store)
        if identity is None:
            raise UserError(
                f"features={store}: is no store of features; `contentv encode` makes it"
            )
        if (identity.clips.buckets, identity.clips.windows) == (buckets, sampling.windows):
            return store
    areas, frames = (" ".join(map(str, each)) for each in (buckets.areas, buckets.frames))
    raise UserError(
        f"{name}: features={', '.join(map(str, stores))}: made for other buckets; add a folder of "
        f"`contentv encode --areas {areas} --frames {frames} --fps {buckets.fps:g} "
        f"--max-crop {buckets.max_crop:g} --windows {sampling.windows}`"
    )


def freeze_encoders(pipeline: ContentVPipeline, device: torch.device) -> None:
    """Bring autoencoder and text encoders to `device`; they do not learn."""
    for network in (pipeline.vae, *pipeline.text_towers().encoders.values()):
        network.requires_grad_(False).eval().to(device)


def work_from(source: FeatureSource) -> Callable[[int], Work[FeatureBatch]]:
    """What a trainer asks for, from a source."""

    def work(step: int) -> Work[FeatureBatch]:
        return Work(*source(step))

    return work


def transformer_size(model: Path) -> TransformerSize:
    """Sizes of the transformer of a model folder."""
    return TransformerSize.of(read_json(model / "transformer" / "config.json"))


def step_cost(size: TransformerSize, text_tokens: int) -> Cost:
    """Operations of training on one clip of a bucket."""

    def cost(bucket: Bucket) -> float:
        return model_flops(size, ScaleFactors().latent(bucket), text_tokens)

    return cost


def batch_flops(size: TransformerSize, batch: FeatureBatch) -> float:
    """Operations of training on a batch, forward and backward."""
    latent = LatentShape(*batch.latents.shape[2:])
    return len(batch.keys) * model_flops(size, latent, batch.sequence.shape[1])
