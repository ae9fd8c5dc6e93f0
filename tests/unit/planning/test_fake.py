import pytest

from contentv.distributed.config import ParallelConfig, RecomputeConfig
from contentv.models.cost import TransformerSize
from contentv.planning.config import MethodConfig
from contentv.planning.memory import Workload, estimate_memory
from contentv.video.shapes import ScaleFactors, VideoShape

# Its tracker and fake processes are private parts of torch.
fake = pytest.importorskip("contentv.planning.fake", exc_type=ImportError)

SIZE = TransformerSize(num_layers=6)
SHARDED = ParallelConfig(replicate=2, shard=8)
SPLIT = ParallelConfig(replicate=2, shard=2, sp=8)


@pytest.mark.parametrize(
    ("layout", "recompute", "shape", "samples", "accumulates"),
    [
        (SPLIT, {"mode": "full"}, (125, 432, 768), 1, False),
        (SPLIT, {"mode": "selective"}, (125, 432, 768), 1, False),
        (SHARDED, {"mode": "full", "every": 2}, (29, 288, 288), 4, True),
        pytest.param(SHARDED, {"mode": "none"}, (29, 432, 768), 1, False, marks=pytest.mark.slow),
        pytest.param(SPLIT, {"mode": "none"}, (125, 432, 768), 1, False, marks=pytest.mark.slow),
        pytest.param(SHARDED, {"mode": "full"}, (1, 288, 288), 1, False, marks=pytest.mark.slow),
        pytest.param(SHARDED, {"mode": "none"}, (1, 288, 288), 8, True, marks=pytest.mark.slow),
    ],
)
def test_the_formula_is_near_what_torch_tracks(
    layout: ParallelConfig,
    recompute: dict[str, object],
    shape: tuple[int, int, int],
    samples: int,
    accumulates: bool,
) -> None:
    config = RecomputeConfig.model_validate(recompute)
    latent = ScaleFactors().latent(VideoShape(*shape))
    work = Workload(latent, 589, samples, accumulates)
    tracked = fake.measure_memory(SIZE, layout, config, work)["Total"]
    estimate = estimate_memory(SIZE, MethodConfig(ema=False), layout, config, work)
    assert estimate.peak == pytest.approx(tracked, rel=0.1)
