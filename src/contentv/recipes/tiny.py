"""The tiny model: ContentV in small, trained from nothing on the toy world by two CPU cores.

Ancestors first, as the paper's model has them: a picture autoencoder, text encoders, a transformer
that makes pictures. Then the autoencoder is swapped for one of clips, and the stages follow. The
order within follows what was measured: pictures before clips, high noise before low.
"""

from typing import Self, TypeAlias

from pydantic import Field, model_validator

from contentv.base.config import Config
from contentv.data.toylatents import LatentPhase
from contentv.data.toyset import ClipPhase
from contentv.flow.timesteps import SigmaDensity
from contentv.models.zoo import TEXT_LENGTHS
from contentv.pipelines.folder import GenerationDefaults
from contentv.training.config import OptimizerConfig, StageConfig


class PixelStage(Config):
    """A stage that learns from rendered clips."""

    stage: StageConfig
    phases: tuple[ClipPhase, ...]

    @model_validator(mode="after")
    def _phases_fill_the_stage(self) -> Self:
        _refuse_other_length(self.stage, sum(phase.steps for phase in self.phases))
        return self


class CaptionStage(Config):
    """A stage that learns from captions alone: batches of `short` short or `long` long ones."""

    stage: StageConfig
    short: int = Field(gt=0)
    long: int = Field(gt=0)


class LatentStage(Config):
    """A stage that learns from encoded clips."""

    stage: StageConfig
    phases: tuple[LatentPhase, ...]

    @model_validator(mode="after")
    def _phases_fill_the_stage(self) -> Self:
        _refuse_other_length(self.stage, sum(phase.steps for phase in self.phases))
        return self


TinyStage: TypeAlias = PixelStage | CaptionStage | LatentStage


class TinyRecipe(Config):
    """All stages; `pictures` and `clips` are how many scenes of row `seed` are encoded for them."""

    seed: int = 0
    autoencoder2d: PixelStage
    text_encoders: CaptionStage
    pictures: int = Field(gt=0)
    t2i: LatentStage
    autoencoder3d: PixelStage
    decoder: PixelStage
    clips: int = Field(gt=0)
    vae_adaptation: LatentStage
    stage1: LatentStage
    stage2: LatentStage
    stage3: LatentStage
    defaults: GenerationDefaults

    @property
    def stages(self) -> dict[str, TinyStage]:
        """Every stage by its name."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in fields.items() if isinstance(value, TinyStage)}

    @model_validator(mode="after")
    def _stages_have_their_names(self) -> Self:
        for name, each in self.stages.items():
            if each.stage.name != name:
                raise ValueError(f"{name}.stage.name={each.stage.name}: must be {name}")
        return self


def _refuse_other_length(stage: StageConfig, planned: int) -> None:
    if stage.steps != planned:
        raise ValueError(
            f"{stage.name}: steps={stage.steps}, but its phases have {planned} together"
        )


def _pixels(name: str, *phases: ClipPhase, rate: float, final: float) -> PixelStage:
    stage = StageConfig(
        name=name,
        steps=sum(phase.steps for phase in phases),
        optimizer=OptimizerConfig(
            learning_rate=rate, warmup_steps=50, final_ratio=final, weight_decay=1e-4
        ),
        max_grad_norm=0.5,
        ema_decay=0.998,
    )
    return PixelStage(stage=stage, phases=phases)


def _latents(
    name: str,
    *phases: LatentPhase,
    hold: float,
    final: float,
    rate: float = 2e-3,
    ema: float = 0.99,
    validate_every: int = 500,
) -> LatentStage:
    """Rates fall from stage to stage as they would in one long run."""
    stage = StageConfig(
        name=name,
        steps=sum(phase.steps for phase in phases),
        optimizer=OptimizerConfig(
            name="muon", learning_rate=rate, warmup_steps=30, hold=hold, final_ratio=final
        ),
        ema_decay=ema,
        validate_every=validate_every,
    )
    return LatentStage(stage=stage, phases=phases)


# What a prompt decides (colours, shapes, the way things go) is decided at high noise: with so few
# tokens, which repeat one another, nearly all of it above sigma 0.9.
_PICTURES = SigmaDensity(name="uniform", shift=4.0)
_LAYOUT = SigmaDensity(name="uniform", shift=12.0)
_CLIPS = SigmaDensity(name="uniform", shift=6.0)
_DETAIL = SigmaDensity(name="uniform", shift=3.0)
_DEFAULTS = GenerationDefaults(
    height=64, width=64, num_frames=17, fps=8, num_inference_steps=20, guidance_scale=4.0,
    flow_shift=6.0, text_lengths=TEXT_LENGTHS,
)  # fmt: skip
_MIXED = ((17, 6), (17, 6), (1, 32))

TINY = TinyRecipe(
    autoencoder2d=_pixels(
        "autoencoder2d", ClipPhase(steps=1300, shapes=((1, 32),)), rate=2e-3, final=0.2
    ),
    text_encoders=CaptionStage(
        stage=StageConfig(
            name="text_encoders",
            steps=1500,
            optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=50, final_ratio=0.02),
            ema_decay=0.99,
        ),
        short=128,
        long=32,
    ),
    pictures=16384,
    t2i=_latents(
        "t2i",
        LatentPhase(
            steps=1300, clips=64, frames=1, density=_PICTURES, long_every=4, long_clips=32
        ),
        LatentPhase(
            steps=1300, clips=64, frames=1, density=_PICTURES, long_every=2, long_clips=48
        ),
        hold=0.6,
        final=0.5,
        validate_every=0,
    ),
    autoencoder3d=_pixels(
        "autoencoder3d",
        ClipPhase(steps=100, shapes=((5, 8), (1, 32))),
        ClipPhase(steps=1600, shapes=_MIXED),
        rate=1.2e-3,
        final=0.05,
    ),
    decoder=_pixels(
        "decoder",
        ClipPhase(steps=3000, shapes=_MIXED, held_out_every=4),
        rate=1e-3,
        final=0.02,
    ),
    clips=12288,
    vae_adaptation=_latents(
        "vae_adaptation",
        LatentPhase(
            steps=150, clips=64, frames=1, density=_PICTURES, long_every=4, long_clips=32
        ),
        hold=0.9,
        final=0.9,
    ),
    stage1=_latents(
        "stage1",
        LatentPhase(
            steps=800, clips=32, frames=3, density=_LAYOUT, long_every=3, long_clips=24,
            pictures_every=7, pictures=64,
        ),
        hold=0.9,
        final=0.9,
    ),
    stage2=_latents(
        "stage2",
        LatentPhase(
            steps=1150, clips=32, frames=5, density=_CLIPS, long_every=3, long_clips=24,
            pictures_every=7, pictures=64,
        ),
        hold=0.2,
        final=0.6,
    ),
    stage3=_latents(
        "stage3",
        LatentPhase(
            steps=1300, clips=32, frames=5, density=_DETAIL, long_every=3, long_clips=24,
            pictures_every=7, pictures=64,
        ),
        rate=1.2e-3,
        hold=0.0,
        final=0.02,
        ema=0.998,
    ),
    defaults=_DEFAULTS,
)  # fmt: skip


def _smoke(name: str, steps: int = 4) -> StageConfig:
    return StageConfig(name=name, steps=steps, log_every=2, checkpoint_every=2)


_FEW_PICTURES = LatentPhase(steps=2, clips=4, frames=1)
_FEW_CLIPS = LatentPhase(
    steps=4, clips=2, frames=5, long_every=3, long_clips=1, pictures_every=2, pictures=3
)

SMOKE = TinyRecipe(
    autoencoder2d=PixelStage(
        stage=_smoke("autoencoder2d", 2), phases=(ClipPhase(steps=2, shapes=((1, 4),)),)
    ),
    text_encoders=CaptionStage(stage=_smoke("text_encoders"), short=4, long=2),
    pictures=16,
    t2i=LatentStage(stage=_smoke("t2i", 2), phases=(_FEW_PICTURES,)),
    autoencoder3d=PixelStage(
        stage=_smoke("autoencoder3d", 2), phases=(ClipPhase(steps=2, shapes=((5, 2),)),)
    ),
    decoder=PixelStage(stage=_smoke("decoder", 2), phases=(ClipPhase(steps=2, shapes=((5, 2),)),)),
    clips=16,
    vae_adaptation=LatentStage(stage=_smoke("vae_adaptation", 2), phases=(_FEW_PICTURES,)),
    stage1=LatentStage(stage=_smoke("stage1", 2), phases=(_FEW_PICTURES,)),
    stage2=LatentStage(stage=_smoke("stage2", 2), phases=(_FEW_PICTURES,)),
    stage3=LatentStage(
        stage=_smoke("stage3").model_copy(update={"validate_every": 4}), phases=(_FEW_CLIPS,)
    ),
    defaults=_DEFAULTS,
)
