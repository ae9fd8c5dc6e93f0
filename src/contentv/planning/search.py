"""The fastest layout of a stage among those that fit the memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from contentv.base.errors import UserError
from contentv.distributed.config import ParallelConfig, RecomputeConfig, divisors
from contentv.models.cost import TransformerSize, model_flops
from contentv.planning.config import BucketPlan, MethodConfig, StagePlan
from contentv.planning.devices import Device
from contentv.planning.flops import StepTime, step_time
from contentv.planning.memory import GIB, Memory, Workload, estimate_memory
from contentv.video.shapes import ScaleFactors, VideoShape

_RECOMPUTE = (
    RecomputeConfig(mode="none"),
    RecomputeConfig(mode="selective"),
    *(RecomputeConfig(mode="full", every=every) for every in (4, 2, 1)),
)


@dataclass(frozen=True)
class Job:
    """What holds for all stages: the model, what of it is trained, and the cluster.

    `usable` are the bytes of one device that training may fill.
    """

    size: TransformerSize
    method: MethodConfig
    device: Device
    count: int
    usable: float
    mfu: float


class Choice(NamedTuple):
    """How a stage's work is spread, and what its backward computes again."""

    layout: ParallelConfig
    recompute: RecomputeConfig


@dataclass(frozen=True)
class BucketResult:
    """One bucket under a layout: every data group computes `rounds` rounds of `samples` a step.

    `seconds` is a step that has only such samples, `sample_flops` what training needs for one.
    """

    bucket: BucketPlan
    tokens: int
    samples: int
    rounds: int
    sample_flops: float
    seconds: float
    time: StepTime
    memory: Memory


@dataclass(frozen=True)
class StageResult:
    """A layout for a stage, and what follows from it; `mfu` counts what the model needs."""

    stage: StagePlan
    layout: ParallelConfig
    recompute: RecomputeConfig
    buckets: tuple[BucketResult, ...]
    step_seconds: float
    step_flops: float
    mfu: float

    @property
    def fullest(self) -> BucketResult:
        """The bucket that needs most memory."""
        return max(self.buckets, key=lambda result: result.memory.peak)

    @property
    def hours(self) -> float:
        """Hours of the whole stage."""
        return self.stage.steps * self.step_seconds / 3600


def plan_stage(job: Job, stage: StagePlan) -> StageResult:
    """Find the layout with the shortest step; of equals the one that moves least.

    Raises:
        UserError: a given layout does not fit the cluster or the model, or nothing fits the memory.
    """
    if stage.layout is not None:
        stage.layout.check_world(job.count)
        stage.layout.check_model(num_heads=job.size.num_heads)
    tried = (_evaluate(job, stage, choice) for choice in _choices(job, stage))
    found = [result for result in tried if result is not None]
    if not found:
        raise _nothing_fits(job, stage)
    return min(found, key=_rank)


def layouts(count: int, num_heads: int, node: int, max_tp: int) -> Iterator[ParallelConfig]:
    """All ways to spread work over `count` devices; one sample never leaves a node of `node`."""
    for tp in divisors(count):
        if num_heads % tp or tp > min(node, max_tp):
            continue
        for sp in divisors(count // tp):
            if sp > num_heads // tp or sp * tp > node:
                continue
            for shard in divisors(count // (tp * sp)):
                replicate = count // (tp * sp * shard)
                yield ParallelConfig(replicate=replicate, shard=shard, sp=sp, tp=tp)


def _rank(result: StageResult) -> tuple[float, float]:
    moved = sum(r.bucket.share * (r.time.weights + r.time.exchange) for r in result.buckets)
    return float(f"{result.step_seconds:.3g}"), moved


def _choices(job: Job, stage: StagePlan) -> Iterator[Choice]:
    """Layouts in which every data group has at least one sample a step."""
    tried: Iterable[ParallelConfig] = [stage.layout] if stage.layout else []
    if not stage.layout:
        tried = layouts(job.count, job.size.num_heads, job.device.node, stage.max_tp)
    for layout in tried:
        if layout.num_data_groups <= stage.batch:
            for recompute in [stage.recompute] if stage.recompute else _RECOMPUTE:
                yield Choice(layout, recompute)


def _evaluate(job: Job, stage: StagePlan, choice: Choice) -> StageResult | None:
    """The stage under this layout; None when a bucket does not fit."""
    buckets = []
    for bucket in stage.buckets:
        work = _largest_workload(job, stage, bucket, choice)
        if work is None:
            return None
        buckets.append(_evaluate_bucket(job, stage, bucket, work, choice))
    step_seconds = sum(result.bucket.share * result.seconds for result in buckets)
    step_flops = stage.batch * sum(r.bucket.share * r.sample_flops for r in buckets)
    peak = job.count * job.device.peak_tflops * 1e12
    return StageResult(
        stage=stage,
        layout=choice.layout,
        recompute=choice.recompute,
        buckets=tuple(buckets),
        step_seconds=step_seconds,
        step_flops=step_flops,
        mfu=step_flops / (peak * step_seconds),
    )


def _evaluate_bucket(
    job: Job,
    stage: StagePlan,
    bucket: BucketPlan,
    work: Workload,
    choice: Choice,
) -> BucketResult:
    samples = _samples_of_group(stage, choice.layout)
    rounds = -(-samples // work.samples)
    time = step_time(
        job.size,
        job.method,
        *choice,
        work,
        samples=samples,
        rounds=rounds,
        device=job.device,
        mfu=job.mfu,
    )
    return BucketResult(
        bucket=bucket,
        tokens=job.size.video_tokens(work.latent),
        samples=work.samples,
        rounds=rounds,
        sample_flops=model_flops(job.size, work.latent, work.text_tokens),
        seconds=time.seconds,
        time=time,
        memory=estimate_memory(job.size, job.method, *choice, work),
    )


def _largest_workload(
    job: Job,
    stage: StagePlan,
    bucket: BucketPlan,
    choice: Choice,
) -> Workload | None:
    """As many samples at once as fit, dealt evenly over the rounds; None when not even one fits."""
    wanted = _samples_of_group(stage, choice.layout)
    for rounds in range(1, wanted + 1):
        work = _workload(bucket, stage, -(-wanted // rounds), accumulates=rounds > 1)
        memory = estimate_memory(job.size, job.method, *choice, work)
        if memory.peak <= job.usable:
            return work
        if work.samples == 1:
            break
    return None


def _workload(bucket: BucketPlan, stage: StagePlan, samples: int, *, accumulates: bool) -> Workload:
    shape = VideoShape(bucket.frames, bucket.height, bucket.width)
    return Workload(ScaleFactors().latent(shape), stage.text_tokens, samples, accumulates)


def _samples_of_group(stage: StagePlan, layout: ParallelConfig) -> int:
    return -(-stage.batch // layout.num_data_groups)


def _nothing_fits(job: Job, stage: StagePlan) -> UserError:
    """Say what the layout that needs least would need."""
    needs = [
        max(_need_of_one(job, stage, bucket, choice) for bucket in stage.buckets)
        for choice in _choices(job, stage)
    ]
    if not needs:
        return UserError(
            f"{stage.name}: batch={stage.batch}: must have a sample for every data group; "
            f"use a larger batch, more sp, or fewer devices than {job.count}"
        )
    peak, shape = min(needs)
    return UserError(
        f"{stage.name}: one sample of {shape} needs {peak / GIB:.1f} GiB, {job.usable / GIB:.1f} "
        "are usable; use more devices, smaller or shorter clips, or method lora"
    )


def _need_of_one(
    job: Job,
    stage: StagePlan,
    bucket: BucketPlan,
    choice: Choice,
) -> tuple[float, str]:
    accumulates = _samples_of_group(stage, choice.layout) > 1
    work = _workload(bucket, stage, 1, accumulates=accumulates)
    peak = estimate_memory(job.size, job.method, *choice, work).peak
    return peak, f"{bucket.frames}x{bucket.height}x{bucket.width}"
