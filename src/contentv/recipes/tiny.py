"""The tiny model: ContentV in small, trained from nothing on the toy world by one CPU.

The order follows what was measured: a picture model first, then clips; short clips before long ones.
"""

from contentv.data.toyset import ClipPhase
from contentv.training.config import OptimizerConfig, StageConfig

SEED = 0

AUTOENCODER_PHASES = (
    ClipPhase(steps=1400, shapes=((1, 32),)),
    ClipPhase(steps=300, shapes=((5, 8), (1, 32))),
    ClipPhase(steps=1300, shapes=((17, 6), (17, 6), (1, 32))),
)
AUTOENCODER = StageConfig(
    name="autoencoder3d",
    steps=sum(phase.steps for phase in AUTOENCODER_PHASES),
    seed=SEED,
    optimizer=OptimizerConfig(
        learning_rate=2e-3, warmup_steps=100, final_ratio=0.02, weight_decay=1e-4
    ),
    max_grad_norm=0.5,
    ema_decay=0.998,
)
