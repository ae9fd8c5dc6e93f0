from itertools import pairwise

import pytest

from contentv.base.errors import UserError
from contentv.distributed.config import ParallelConfig
from contentv.models.cost import TransformerSize
from contentv.planning.config import MethodConfig, StagePlan
from contentv.planning.devices import DEVICES
from contentv.planning.memory import GIB
from contentv.planning.search import Job, layouts, plan_stage

VIDEO = {"frames": 125, "height": 432, "width": 768}
PICTURE = {"frames": 1, "height": 432, "width": 768}


def job_of(kind: str = "ascend", count: int = 16, *, gib: float | None = None) -> Job:
    device = DEVICES[kind]
    usable = (device.memory_gib * 0.9 if gib is None else gib) * GIB
    return Job(TransformerSize(), MethodConfig(), device, count, usable, 0.4)


def stage_of(batch: int = 16, **given: object) -> StagePlan:
    buckets = [{**VIDEO, "share": 0.5}, {**PICTURE, "share": 0.5}]
    plain = {"name": "stage", "buckets": buckets, "batch": batch, "steps": 1, "text_tokens": 589}
    return StagePlan.model_validate({**plain, **given})


@pytest.mark.parametrize("count", [1, 8, 19, 256])
def test_layouts_use_every_device_and_are_all_different(count: int) -> None:
    found = list(layouts(count, 38, 8, 8))
    assert {layout.world_size for layout in found} == {count}
    assert len({layout.model_dump_json() for layout in found}) == len(found)
    for layout in found:
        layout.check_model(num_heads=38)
        assert layout.sp * layout.tp <= 8


def test_four_devices_can_be_arranged_so() -> None:
    found = {(x.replicate, x.shard, x.sp, x.tp) for x in layouts(4, 38, 8, 8)}
    # 38 heads divide by 2, not by 4: no tp=4.
    assert (1, 1, 1, 4) not in found
    without_tp = {found_ for found_ in found if found_[3] == 1}
    assert without_tp == {(4, 1, 1, 1), (2, 2, 1, 1), (1, 4, 1, 1), (2, 1, 2, 1), (1, 2, 2, 1),
                          (1, 1, 4, 1)}  # fmt: skip


def test_matrices_are_split_only_when_allowed() -> None:
    assert {layout.tp for layout in layouts(16, 38, 8, 1)} == {1}
    assert plan_stage(job_of(), stage_of()).layout.tp == 1


def test_the_result_fits_and_nothing_that_fits_is_faster() -> None:
    job, stage = job_of(), stage_of(max_tp=2)
    best = plan_stage(job, stage)
    assert best.fullest.memory.peak <= job.usable
    tried = 0
    for layout in layouts(16, 38, 8, 2):
        try:
            other = plan_stage(job, stage_of(layout=layout))
        except UserError:
            continue
        tried += 1
        assert best.step_seconds <= other.step_seconds * 1.005
    assert tried > 3


def test_less_memory_is_never_faster() -> None:
    seconds = [plan_stage(job_of(gib=gib), stage_of()).step_seconds for gib in (30, 40, 57, 200)]
    assert all(a >= b for a, b in pairwise(seconds))
    assert seconds[0] > seconds[-1]


def test_every_sample_of_the_batch_is_computed() -> None:
    for batch in (16, 20, 100):
        result = plan_stage(job_of(), stage_of(batch))
        for bucket in result.buckets:
            done = bucket.samples * bucket.rounds * result.layout.num_data_groups
            assert done >= batch
            assert bucket.samples * (bucket.rounds - 1) * result.layout.num_data_groups < batch


def test_mfu_is_the_models_work_over_the_peak() -> None:
    result = plan_stage(job_of(), stage_of())
    assert 0 < result.mfu <= 0.4
    assert result.mfu == pytest.approx(result.step_flops / (16 * 320e12 * result.step_seconds))


def test_small_batches_make_devices_share_samples() -> None:
    result = plan_stage(job_of(count=8), stage_of(batch=2))
    assert result.layout.num_data_groups <= 2
    assert result.layout.sp >= 4


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (ParallelConfig(tp=4, shard=4), "tp=4: must divide 38 heads; use 1, 2, 19 or 38"),
        (ParallelConfig(shard=3), "shard=3: must divide 16 ranks"),
        (ParallelConfig(shard=2), "makes 2 ranks, not the 16 there are"),
    ],
)
def test_a_layout_that_does_not_divide_is_refused(layout: ParallelConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan_stage(job_of(), stage_of(layout=layout))


def test_what_does_not_fit_says_what_it_needs() -> None:
    message = r"stage: one sample of 125x432x768 needs \d+\.\d GiB, 21\.6 are usable; use more"
    with pytest.raises(UserError, match=message):
        plan_stage(job_of("rtx4090", 1), stage_of())


def test_a_batch_without_a_sample_for_each_group_is_refused() -> None:
    with pytest.raises(UserError, match="batch=1: must have a sample for every data group"):
        plan_stage(job_of(), stage_of(batch=1, layout=ParallelConfig(shard=16)))
