import pytest

from contentv.distributed.config import ParallelConfig, RecomputeConfig
from contentv.models.cost import TransformerSize, model_flops
from contentv.planning.config import MethodConfig
from contentv.planning.devices import DEVICES
from contentv.planning.flops import StepTime, step_time
from contentv.planning.memory import Workload
from contentv.video.shapes import ScaleFactors, VideoShape

SIZE = TransformerSize()
STAGE3 = Workload(ScaleFactors().latent(VideoShape(125, 432, 768)), 589, 1, accumulates=False)


def time_of(
    layout: ParallelConfig,
    *,
    mode: str = "none",
    samples: int = 1,
    rounds: int = 1,
    method: str = "full",
) -> StepTime:
    return step_time(
        SIZE,
        MethodConfig.model_validate({"name": method}),
        layout,
        RecomputeConfig.model_validate({"mode": mode}),
        STAGE3,
        samples=samples,
        rounds=rounds,
        device=DEVICES["ascend"],
        mfu=0.4,
    )


def test_a_step_without_overheads_takes_the_stated_share_of_the_peak() -> None:
    step = time_of(ParallelConfig(replicate=32, shard=8))
    assert step.compute == pytest.approx(model_flops(SIZE, STAGE3.latent, 589) / (0.4 * 320e12))
    assert step.seconds == pytest.approx(20.6, abs=0.05)  # 256 videos on 256 devices
    assert step.exchange == 0


def test_recomputation_takes_longer() -> None:
    seconds = [time_of(ParallelConfig(), mode=m).compute for m in ("none", "selective", "full")]
    assert seconds == sorted(seconds)
    assert seconds[2] == pytest.approx(seconds[0] * 4 / 3)


def test_splitting_tokens_divides_the_work_but_for_heads_that_do_not_divide() -> None:
    one = time_of(ParallelConfig()).compute
    assert time_of(ParallelConfig(sp=2)).compute == pytest.approx(one / 2)
    four = time_of(ParallelConfig(sp=4)).compute * 4
    assert one < four < one * 40 / 38


def test_exchange_is_what_ulysses_sends() -> None:
    # 85 MiB a layer and forward at 8 devices, of 41,805 tokens; a backward as much.
    step = time_of(ParallelConfig(sp=8))
    sent = step.exchange * DEVICES["ascend"].link_gb_s * 1e9 / (2 * SIZE.num_layers) / 2**20
    assert sent == pytest.approx(85, rel=0.1)
    assert time_of(ParallelConfig(sp=8), mode="full").exchange == pytest.approx(1.5 * step.exchange)
    assert time_of(ParallelConfig(sp=8), mode="selective").exchange == step.exchange


def test_weights_move_once_a_round_and_only_between_owners() -> None:
    assert time_of(ParallelConfig()).weights == 0
    once = time_of(ParallelConfig(shard=8), samples=4)
    four = time_of(ParallelConfig(shard=8), samples=4, rounds=4)
    assert four.weights == pytest.approx(4 * once.weights)
    assert four.compute == once.compute
    assert time_of(ParallelConfig(shard=8), method="lora").weights < once.weights


def test_more_owners_than_a_node_has_need_the_network() -> None:
    inside, beyond = time_of(ParallelConfig(shard=8)), time_of(ParallelConfig(shard=16))
    assert beyond.weights > 2 * inside.weights
