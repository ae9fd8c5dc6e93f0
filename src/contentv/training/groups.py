"""Which groups a sample's loss is reported in: by noise level, image or video, and shape."""

from collections.abc import Mapping, Sequence

from contentv.data.batch import LatentBatch, VideoBatch

Groups = Mapping[str, Sequence[str]]
"""Of each way to divide samples, one group's name per sample."""


def latent_groups(batch: LatentBatch, *, sigma_buckets: int = 5) -> Groups:
    """Sigma in equal buckets, image or video, and latent shape of each sample."""
    buckets = [min(int(sigma * sigma_buckets), sigma_buckets - 1) for sigma in batch.sigma.tolist()]
    edges = [f"{number / sigma_buckets:.3g}" for number in range(sigma_buckets + 1)]
    return {
        "sigma": [f"{edges[bucket]}-{edges[bucket + 1]}" for bucket in buckets],
        **_by_shape(tuple(batch.latents.shape), len(batch.keys)),
    }


def video_groups(batch: VideoBatch) -> Groups:
    """Image or video, and shape in pixels of each sample."""
    return _by_shape(tuple(batch.video.shape), len(batch.keys))


def _by_shape(shape: tuple[int, ...], count: int) -> dict[str, list[str]]:
    """Groups of a batch [b c t h w], all of whose samples have one shape."""
    frames, height, width = shape[2:]
    kind = "image" if frames == 1 else "video"
    return {"kind": [kind] * count, "shape": [f"{frames}x{height}x{width}"] * count}
