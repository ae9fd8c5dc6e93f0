"""Where a stage's batches come from when this machine encodes them itself."""

from collections.abc import Callable
from pathlib import Path

import torch

from contentv.base.files import read_json
from contentv.data.batch import FeatureBatch
from contentv.data.batching import Cost
from contentv.data.buckets import Bucket
from contentv.data.planned import PlannedBatches, SamplingConfig
from contentv.data.source import FeatureSource
from contentv.data.standins import Record
from contentv.encoding.captions import CaptionEncoder
from contentv.encoding.clips import ClipEncoder
from contentv.models.cost import TransformerSize, model_flops
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
    return PlannedBatches(
        data.plan,
        data.listing.clips,
        data.buckets,
        ClipEncoder(pipeline.vae, data.listing.root, cache),
        CaptionEncoder(pipeline.text_towers(), text_lengths=text_lengths),
        sampling,
        record,
        group,
        groups,
    )


def freeze_encoders(pipeline: ContentVPipeline, device: torch.device) -> None:
    """Bring autoencoder and text encoders to `device`; they do not learn."""
    towers = pipeline.text_towers()
    frozen = (pipeline.vae, towers.text_encoder, towers.text_encoder_2, towers.text_encoder_3)
    for network in frozen:
        if network is not None:
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
