"""Which groups a sample's loss is reported in: by noise level, image or video, and shape."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from contentv.data.batch import NoisedBatch, VideoBatch

Groups = Mapping[str, Sequence[str]]
"""Of each way to divide samples, one group's name per sample."""

# Finer towards noise: there a text decides what a video will show.
SIGMA_EDGES = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 1.0)


def latent_groups(batch: NoisedBatch) -> Groups:
    """Sigma by `SIGMA_EDGES`, image or video, and latent shape of each sample."""
    return {
        "sigma": [_sigma_group(sigma) for sigma in batch.sigma.tolist()],
        **_by_shape(tuple(batch.latents.shape), len(batch.keys)),
    }


def _sigma_group(sigma: float) -> str:
    upper = min(bisect_right(SIGMA_EDGES, sigma), len(SIGMA_EDGES) - 1)
    return f"{SIGMA_EDGES[upper - 1]:g}-{SIGMA_EDGES[upper]:g}"


def video_groups(batch: VideoBatch) -> Groups:
    """Image or video, and shape in pixels of each sample."""
    return _by_shape(tuple(batch.video.shape), len(batch.keys))


def _by_shape(shape: tuple[int, ...], count: int) -> dict[str, list[str]]:
    """Groups of a batch [b c t h w], all of whose samples have one shape."""
    frames, height, width = shape[2:]
    kind = "image" if frames == 1 else "video"
    return {"kind": [kind] * count, "shape": [f"{frames}x{height}x{width}"] * count}
