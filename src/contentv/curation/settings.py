"""Settings of the curation steps: everything that a score depends on. Imports nothing heavy."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from contentv.base.config import Config


class ShotSettings(Config):
    """Where shots begin and end, and how they become clips. Content values are 0..255."""

    cut_value: float = Field(
        15.0, ge=0, le=255, description="A hard cut: content changes by this at least"
    )
    cut_ratio: float = Field(3.0, gt=1, description="and by this many times as much as around it")
    sudden_value: float = Field(
        8.0, ge=0, le=255, description="From here on, a sudden change is shown to TransNetV2"
    )
    flash_seconds: float = Field(
        0.3, ge=0, le=2, description="No cut if the picture is back after so many seconds"
    )
    mix_residual: float = Field(
        0.30, gt=0, lt=1, description="A dissolve: part of the change that no mix explains, at most"
    )
    mix_difference: float = Field(
        18.0, ge=0, le=255, description="Least difference of the pictures before and after a mix"
    )
    mix_colours: float = Field(
        0.4, ge=0, le=1, description="Part of the colours that a mix replaces, at least"
    )
    wipe_score: float = Field(
        1.8, gt=1, description="A wipe: change on the moving line over that beside it, at least"
    )
    wipe_colours: float = Field(
        0.28, ge=0, le=1, description="Part of the colours that a wipe replaces, at least"
    )
    colour_change: float = Field(
        0.38, ge=0, le=1, description="TransNetV2 looks where more of the colours is replaced"
    )
    transnet: Literal["gated", "all", "off"] = Field(
        "gated", description="Which frames TransNetV2 sees: those in doubt, all, or none"
    )
    transnet_probability: float = Field(
        0.5, gt=0, lt=1, description="What it says of a transition, at least"
    )
    cut_trim: float = Field(
        0.25, ge=0, description="Seconds that a shot loses at a hard cut or a gap"
    )
    gradual_trim: float = Field(
        0.5, ge=0, description="Seconds that a shot loses at a dissolve, fade or wipe"
    )
    gap_seconds: float = Field(
        0.5, gt=0, description="A longer hole in the time of a video ends a shot"
    )
    min_seconds: float = Field(3.0, gt=0, description="Shortest clip")
    max_seconds: float = Field(6.0, gt=0, description="Longest clip")

    @model_validator(mode="after")
    def _two_fit_into_one(self) -> "ShotSettings":
        if self.max_seconds < 2 * self.min_seconds:
            limit = self.max_seconds / 2
            raise ValueError(
                f"min_seconds={self.min_seconds:g}: must be at most half of max_seconds, so that "
                f"every shot divides; use {limit:g} or less"
            )
        return self


class OverlaySettings(Config):
    """How borders and overlays of a source are found. Brightness is 0..255."""

    side: int = Field(270, ge=64, le=480, description="Short side of the samples compared, pixels")
    kept: int = Field(128, ge=16, le=1024, description="Samples of a source that are compared")
    distinct_shots: int = Field(
        6, ge=3, le=64, description="Shots of distinct scenes without which nothing is said"
    )
    most_shots: int = Field(48, ge=6, le=1024, description="Shots that are compared, at most")
    gradient: float = Field(14.0, gt=0, le=255, description="Sobel gradient of an edge, at least")
    direction: float = Field(
        0.9, gt=0, lt=1, description="Cosine above which edges point the same way"
    )
    agreement: float = Field(
        0.8, gt=0, le=1, description="Part of the shots in which an overlay's edges agree"
    )
    bright: int = Field(
        225, ge=0, le=255, description="Above it a plain picture cannot show a white logo"
    )
    join: int = Field(9, ge=1, le=31, description="Pixels over which points are one overlay")
    points: int = Field(30, ge=1, description="Agreeing points of an overlay, at least")
    alike: float = Field(
        0.25, gt=0, le=1, description="Part of a cell's edges that agree if two scenes are one"
    )
    alike_cells: int = Field(
        4, ge=1, le=16, description="Cells of 16 that agree if two scenes are one"
    )
    dark: int = Field(24, ge=1, le=128, description="A black border is darker")
    dark_share: float = Field(0.98, gt=0, le=1, description="Part of a border's line that is dark")
    least_border: float = Field(
        0.01, gt=0, lt=0.5, description="Part of the picture that a border takes, at least"
    )
    edge_contrast: float = Field(
        20.0, ge=0, le=255, description="Step of brightness along a black border, at least"
    )
    fill_correlation: float = Field(
        0.9, gt=0, lt=1, description="Correlation of a blurred border with the picture, at least"
    )


class BlurSettings(Config):
    """How blur is measured."""

    tiles: int = Field(16, ge=1, le=64, description="Sums are kept of tiles: so many a side")
    reblur: float = Field(1.0, gt=0, le=4, description="Sigma of the second blur, in pixels")


class MotionSettings(Config):
    """How motion is measured. Speeds are in picture diagonals per second."""

    tolerance: float = Field(
        1.0, gt=0, le=16, description="Pixels (of 256) that a background point may move beside it"
    )
    top_share: float = Field(
        0.05, gt=0, le=1, description="Part of the points whose mean is the foreground's speed"
    )
    foreground_weight: float = Field(
        0.7, ge=0, le=1, description="Weight of the foreground in motion_weighted"
    )
    still: float = Field(0.004, gt=0, le=1, description="Below this speed nothing moves")


class AestheticSettings(Config):
    """How beauty is told: aes_laion by `clip` and `head` together, aes_video by `video_head`."""

    clip: Path | None = Field(
        None, description="Folder of CLIP-L/14 as transformers saves it, for aes_laion"
    )
    head: Path | None = Field(
        None, description="LAION's aesthetic head for CLIP-L/14: .safetensors or .pth"
    )
    video_head: Path | None = Field(
        None, description="Head that `curate teach` wrote, for aes_video"
    )

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if (self.clip is None) != (self.head is None):
            raise ValueError("clip and head: give both, or neither")
        return self


class EmbeddingSettings(Config):
    """How a clip becomes a vector."""

    frames: int = Field(4, ge=1, le=64, description="Samples of a clip whose mean is its vector")
    jump_edge: float = Field(
        0.05, ge=0, lt=0.5, description="Part of a clip at each end where no jump is looked for"
    )


class HashSettings(Config):
    """How a clip is hashed."""

    frames: int = Field(4, ge=1, le=16, description="Samples of a clip that are hashed")


class DedupSettings(Config):
    """Which clips count as the same. Similarity is the cosine of embeddings, 1 at most."""

    hash_distance: float = Field(
        0.10, ge=0, le=1, description="Level 0: a copy if less than this part of the hash differs"
    )
    hash_similarity: float = Field(
        0.60, ge=-1, le=1, description="and similarity is this at least: flat pictures hash alike"
    )
    tau_hi: float = Field(
        0.90, ge=-1, le=1, description="Level A: similarity of duplicates where clips lie loosely"
    )
    tau_lo: float = Field(0.82, ge=-1, le=1, description="Level A: the same where they lie densely")
    alike_distance: float = Field(
        0.15, ge=0, le=1, description="Level A also: less than this part of the hash differs"
    )
    alike_similarity: float = Field(0.65, ge=-1, le=1, description="and similarity is above this")
    tau_inside: float = Field(
        0.83, ge=-1, le=1, description="Level B: similarity of duplicates inside a source"
    )
    keep_per_source: int = Field(
        0, ge=0, description="Level B leaves each source so many clips, the best, if it had them"
    )
    iterations: int = Field(20, ge=1, description="Rounds of k-means")
    nearest: int = Field(
        3, ge=1, description="Clusters in which a clip's duplicates are looked for"
    )
    exact_up_to: int = Field(
        200_000, ge=0, description="Up to so many clips, every pair is compared instead"
    )
    seed: int = Field(0, ge=0, description="Seed of k-means")

    @model_validator(mode="after")
    def _taus_in_order(self) -> "DedupSettings":
        if self.tau_lo > self.tau_hi:
            raise ValueError(f"tau_lo={self.tau_lo}: must be at most tau_hi={self.tau_hi}")
        return self


class LimitSettings(Config):
    """What opening a stranger's file may cost."""

    seconds: float = Field(
        60.0, gt=0, le=86400, description="Wall time for one frame; longer is a timeout"
    )
    memory_gib: float = Field(
        4.0, gt=0, le=1024, description="Address space of the process that decodes, in GiB"
    )
    max_pixels: int = Field(
        64 * 2**20, ge=1, le=2**31, description="Pixels of a frame; a file with more is refused"
    )


class TextSettings(Config):
    """How text in the picture is found, and which of it was laid over the footage."""

    limit_side: int = Field(
        416, ge=64, le=4096, description="Pixels of the longer side when text is looked for"
    )
    min_score: float = Field(0.5, gt=0, le=1, description="How sure the detector must be of a text")
    max_line: float = Field(
        0.2, gt=0, le=1, description="What is thicker, in picture heights, is no line of text"
    )
    zone: float = Field(
        0.25, gt=0, le=0.5, description="Parts of the height, above and below, where bands lie"
    )
    band_share: float = Field(
        0.4, gt=0, le=1, description="A band holds text in this part of a clip's samples"
    )
    centred: float = Field(
        0.01, ge=0, le=0.5, description="So near to the middle of the width, one line is a band"
    )
    source_share: float = Field(
        0.1, gt=0, le=1, description="A source's band holds text in this part of its samples"
    )
    source_clips: int = Field(3, ge=2, description="and in so many of its clips")
    static_iou: float = Field(
        0.8, gt=0, le=1, description="IoU of a line's boxes that count as one place (a row is .14)"
    )
    static_share: float = Field(
        0.8, gt=0, le=1, description="A static line is there in this part of a clip's samples"
    )


class CropSettings(Config):
    """Which part of the picture is kept."""

    margin: float = Field(
        0.005, ge=0, le=0.1, description="Distance kept to text and borders, in picture heights"
    )
    min_side: float = Field(
        0.8, gt=0.5, le=1, description="Least part of either side that is kept, borders apart"
    )
    wider: float = Field(
        1.25, ge=1, le=4, description="How far a crop may pass the aspects 9:16 and 16:9, as factor"
    )
