import pytest

from contentv.distributed.config import ParallelConfig, RecomputeConfig
from contentv.models.cost import TransformerSize, num_parameters
from contentv.planning.config import MethodConfig
from contentv.planning.memory import GIB, Memory, Workload, estimate_memory
from contentv.video.shapes import ScaleFactors, VideoShape

SIZE = TransformerSize()
SHARDED = ParallelConfig(shard=8)
FULL = MethodConfig()


def memory_of(
    *,
    layout: ParallelConfig = SHARDED,
    mode: str = "full",
    every: int = 1,
    shape: tuple[int, int, int] = (29, 288, 288),
    samples: int = 1,
    accumulates: bool = False,
    method: MethodConfig = FULL,
) -> Memory:
    latent = ScaleFactors().latent(VideoShape(*shape))
    recompute = RecomputeConfig.model_validate({"mode": mode, "every": every})
    work = Workload(latent, 589, samples, accumulates)
    return estimate_memory(SIZE, method, layout, recompute, work)


def test_state_is_sixteen_bytes_a_parameter_and_four_for_the_average() -> None:
    memory = memory_of(accumulates=True)
    state = memory.parameters + memory.gradients + memory.optimizer
    assert state * 8 == pytest.approx(16 * num_parameters(SIZE))
    assert memory.ema * 8 == pytest.approx(4 * num_parameters(SIZE))
    assert memory_of(method=MethodConfig(ema=False)).ema == 0


def test_parts_sum_to_the_peak_without_the_exchange() -> None:
    memory = memory_of(layout=ParallelConfig(sp=8))
    parts = {name: value for name, value in vars(memory).items() if name != "exchange"}
    assert memory.peak == pytest.approx(sum(parts.values()))
    assert memory.exchange > 0


@pytest.mark.parametrize("mode", ["none", "selective", "full"])
def test_peak_grows_with_samples_and_length(mode: str) -> None:
    peaks = [memory_of(mode=mode, samples=samples).peak for samples in (1, 2, 4, 8)]
    assert peaks == sorted(peaks)
    assert peaks[0] < peaks[-1]
    assert memory_of(mode=mode, shape=(125, 288, 288)).peak > peaks[0]


@pytest.mark.parametrize("mode", ["none", "selective", "full"])
@pytest.mark.parametrize("axis", ["shard", "sp"])
def test_peak_falls_with_the_number_of_owners(mode: str, axis: str) -> None:
    layouts = [ParallelConfig.model_validate({axis: degree}) for degree in (1, 2, 4, 8, 16)]
    peaks = [memory_of(mode=mode, layout=layout).peak for layout in layouts]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[0] > 2 * peaks[-1]


def test_copies_of_the_model_cost_each_device_the_same() -> None:
    assert memory_of(layout=ParallelConfig(replicate=32, shard=8)) == memory_of()


def test_more_recomputation_needs_less() -> None:
    modes = [("none", 1), ("full", 4), ("full", 2), ("full", 1)]
    peaks = [memory_of(mode=m, every=e, shape=(125, 288, 288)).peak for m, e in modes]
    assert peaks == sorted(peaks, reverse=True)
    assert len(set(peaks)) == len(peaks)


def test_accumulated_gradients_stay_beside_the_activations() -> None:
    once = memory_of(mode="none", samples=4)
    again = memory_of(mode="none", samples=4, accumulates=True)
    assert again.peak > once.peak
    assert again.gradients == pytest.approx(4 * num_parameters(SIZE) / 8)


def test_a_lora_keeps_frozen_weights_in_bfloat16_and_little_else() -> None:
    lora = memory_of(layout=ParallelConfig(), method=MethodConfig(name="lora", rank=16, ema=False))
    assert lora.parameters == pytest.approx(2 * num_parameters(SIZE), rel=0.01)
    assert lora.gradients + lora.optimizer < 0.5 * GIB
    assert lora.gathered == 0


def test_the_longest_sequence_on_256_devices() -> None:
    memory = memory_of(
        layout=ParallelConfig(replicate=32, sp=8),
        shape=(125, 720, 1280),
        method=MethodConfig(ema=False),
    )
    assert memory.peak / GIB <= 22
