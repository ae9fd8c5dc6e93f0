"""The paper's pre-training of the 8B model (arXiv 2506.05343, Table 2), as a recipe.

From the paper: the order of the stages, the largest shape of each, pictures and videos together,
videos of whole seconds in seven aspect ratios, no flow shift in training. Not from the paper, and
yours to change: steps, batches, learning rates, proportions, averaging. The first stage begins with
the weights of an image model (Stable Diffusion 3.5 Large) before another autoencoder.
"""

from contentv.data.buckets import DURATIONS, BucketConfig
from contentv.data.planned import SamplingConfig
from contentv.distributed.config import RecomputeConfig
from contentv.flow.timesteps import SigmaDensity
from contentv.recipes.stages import Recipe, StageRecipe
from contentv.training.config import OptimizerConfig, SpikeConfig

_SMALL, _LARGE = 288 * 288, 432 * 768
# Each of three encoders drops its caption by itself; all do in a tenth of the samples, as in
# Stable Diffusion 3 (arXiv 2403.03206, section B.3).
_DROP = 0.464
_SAMPLING = SamplingConfig(caption_drop=_DROP, density=SigmaDensity(name="logit_normal", shift=1.0))


def _stage(
    *,
    steps: int,
    area: int,
    frames: tuple[int, ...],
    learning_rate: float,
    batch_size: int = 1,
    room: float = 1.0,
    micro_batches: int = 256,
    video_first: int = 0,
    recompute: RecomputeConfig,
) -> StageRecipe:
    has_videos = max(frames) > 1
    return StageRecipe(
        steps=steps,
        buckets=BucketConfig(areas=(area,), frames=frames, fps=24.0),
        sampling=_SAMPLING,
        video_first=video_first,
        pictures=1,
        videos=int(has_videos),
        batch_size=batch_size,
        room=room,
        micro_batches=micro_batches,
        optimizer=OptimizerConfig(
            learning_rate=learning_rate,
            schedule="constant",
            warmup_steps=1000,
            betas=(0.9, 0.95),
        ),
        spikes=SpikeConfig(factor=10.0),
        ema_decay=0.9999,
        recompute=recompute,
        checkpoint_every=500,
    )


_NOTHING = RecomputeConfig()

CONTENTV_8B = Recipe(
    stages={
        "vae_adaptation": _stage(
            steps=20_000,
            area=_SMALL,
            frames=(1,),
            learning_rate=1e-4,
            batch_size=4,
            recompute=_NOTHING,
        ),
        "stage1": _stage(
            steps=60_000,
            area=_SMALL,
            frames=(1, 29),
            learning_rate=1e-4,
            batch_size=2,
            video_first=5000,
            recompute=_NOTHING,
        ),
        "stage2": _stage(
            steps=60_000,
            area=_SMALL,
            frames=(1, *DURATIONS),
            learning_rate=1e-4,
            micro_batches=512,
            video_first=5000,
            recompute=RecomputeConfig(mode="full", every=4),
        ),
        "stage3": _stage(
            steps=30_000,
            area=_LARGE,
            frames=(1, *DURATIONS),
            learning_rate=5e-5,
            room=2.0,
            video_first=2000,
            recompute=RecomputeConfig(mode="selective"),
        ),
    }
)
