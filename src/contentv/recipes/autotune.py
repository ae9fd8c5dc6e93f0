"""`contentv serve --autotune`: how many devices must encode, so that those that train do not wait.

What a clip takes to be encoded is measured here, on real batches of each bucket. How many clips a
step has of each follows from the plan; how long the trainers take for it is said by the user, or
predicted from operations, the devices' peak and a share of it that is reached.
"""

import math
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from contentv.base.device import device_name, pick_device
from contentv.base.log import get_logger
from contentv.data.batching import tokens
from contentv.data.buckets import Bucket, bucket_name
from contentv.data.plan import Plan
from contentv.encoding.config import ServeConfig
from contentv.encoding.offers import Offer
from contentv.encoding.remote import PlanTickets
from contentv.encoding.wire import Ticket, pack
from contentv.models.cost import TransformerSize
from contentv.pipelines.locate import locate_model
from contentv.planning.devices import find_device
from contentv.recipes.served import Served, open_stages
from contentv.recipes.sources import batch_flops, transformer_size

_log = get_logger(__name__)

_STEPS = 32  # looked at, of each part of a stage
_BATCHES = 3  # measured of each bucket, after one that warms up
_SECONDS = 10.0  # after which no further batch of a bucket is measured


class Cost(NamedTuple):
    """What one clip costs: `seconds` of one encoder device, operations of training."""

    seconds: float
    flops: float


@dataclass(frozen=True)
class Load:
    """The clips of a bucket: how many a step has on average, and what one of them costs."""

    bucket: Bucket
    samples: float
    cost: Cost


@dataclass(frozen=True)
class Need:
    """A part of a stage with one mix of clips, and the time that trainers take for a step."""

    title: str
    loads: tuple[Load, ...]
    step_seconds: float

    @property
    def devices(self) -> int:
        """Encoder devices that keep up."""
        return encoder_devices(self.loads, self.step_seconds)

    def __str__(self) -> str:
        clips, seconds = sum(load.samples for load in self.loads), encoder_seconds(self.loads)
        step = f"a step of {self.step_seconds:.3g} s"
        lines = [
            f"{self.title}: {clips:.1f} clips a step",
            f"  {'bucket':<14}{'clips/step':>11}{'clips/s':>10}{'s/step':>9}",
            *(_line(load) for load in self.loads),
            f"  {seconds:.3g} s of one encoder device in {step}: {self.devices} needed",
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class AutotuneResult:
    """What was measured and what follows; its text is the table that the command prints."""

    encoder: str
    trainers: str
    needs: tuple[Need, ...]

    @property
    def devices(self) -> int:
        """Encoder devices for the part that needs most."""
        return max(need.devices for need in self.needs)

    def __str__(self) -> str:
        parts = [str(need) for need in self.needs]
        said = f"{self.devices} encoder devices ({self.encoder}) feed {self.trainers}"
        return "\n\n".join([*parts, said])


def encoder_seconds(loads: Sequence[Load]) -> float:
    """Seconds of one encoder device for all clips of a step."""
    return sum(load.samples * load.cost.seconds for load in loads)


def encoder_devices(loads: Sequence[Load], step_seconds: float) -> int:
    """Fewest devices that encode a step's clips in `step_seconds`; 0 when there are none.

    Every device encodes clips of every bucket, so only the sum is rounded up.
    """
    return math.ceil(encoder_seconds(loads) / step_seconds * (1 - 1e-9))


def predicted_seconds(loads: Sequence[Load], *, trainers: int, peak: float, mfu: float) -> float:
    """Seconds of a step: its operations at a share `mfu` of the `peak` of all trainer devices."""
    return sum(load.samples * load.cost.flops for load in loads) / (trainers * peak * mfu)


def autotune(config: ServeConfig) -> AutotuneResult:
    """Measure each stage's encoding on this device, and say how many such devices are needed.

    UserError when clips, recipe and model do not fit, or the kind of trainer is not known.
    """
    device, trainers = device_name(pick_device(config.device)), _trainers(config)
    size = transformer_size(locate_model(config.model))
    with TemporaryDirectory() as name:
        latents = Path(name) / "latents"
        needs = [
            need
            for served in open_stages(config, latents)
            for need in _needs(config, served, size, latents)
        ]
    return AutotuneResult(device, trainers, tuple(needs))


def parts(plan: Plan, steps: int) -> Iterator[range]:
    """The steps of each phase of a plan, up to `steps`."""
    first = 0
    for phase in plan.phases:
        last = min(first + phase.steps, steps)
        if first < last:
            yield range(first, last)
        first = last


def survey(
    plan: Plan, build: str, steps: range
) -> tuple[dict[Bucket, float], dict[Bucket, list[Ticket]]]:
    """Clips of each bucket in a step, on average, and tickets of batches of each."""
    chosen = steps[:: -(-len(steps) // _STEPS)]
    samples: dict[Bucket, float] = defaultdict(float)
    tickets: dict[Bucket, list[Ticket]] = defaultdict(list)
    for step in chosen:
        asked = PlanTickets(plan, build)(step).tickets
        for batch, ticket in zip(plan(step).deal(0, 1), asked, strict=True):
            samples[batch.bucket] += len(batch.rows) / len(chosen)
            tickets[batch.bucket].append(ticket)
    return samples, tickets


def _needs(
    config: ServeConfig, served: Served, size: TransformerSize, latents: Path
) -> Iterator[Need]:
    offer, plan = served.offer, served.batches.plan
    known: dict[Bucket, Cost] = {}
    for steps in parts(plan, offer.steps):
        samples, tickets = survey(plan, offer.build, steps)
        for bucket in samples.keys() - known.keys():
            _log.info("%s: measuring %s", offer.stage, bucket_name(bucket))
            known[bucket] = _measure(offer, tickets[bucket], size, latents)
        loads = _loads(samples, known)
        title = f"{offer.stage}, steps {steps.start} to {steps.stop}"
        yield Need(title, loads, _step_seconds(config, loads))


def _loads(samples: Mapping[Bucket, float], costs: Mapping[Bucket, Cost]) -> tuple[Load, ...]:
    smallest_first = sorted(samples, key=lambda bucket: (tokens(bucket), bucket.height))
    return tuple(Load(bucket, samples[bucket], costs[bucket]) for bucket in smallest_first)


def _measure(offer: Offer, tickets: list[Ticket], size: TransformerSize, latents: Path) -> Cost:
    """What a clip of one bucket costs, encoded and packed as for a reply."""
    seconds, flops, samples = 0.0, 0.0, 0
    chosen = tickets[: 1 + _BATCHES] if len(tickets) > 1 else tickets * 2
    for number, ticket in enumerate(chosen):
        # As in the first epoch, when no clip has been encoded.
        shutil.rmtree(latents, ignore_errors=True)
        begin = time.perf_counter()
        batch = offer.batch_of(ticket)
        pack(batch, ticket, offer.build)
        if number:  # the first call of a shape is slower than those after it
            seconds += time.perf_counter() - begin
            flops += batch_flops(size, batch)
            samples += len(batch.keys)
        if seconds > _SECONDS:
            break
    return Cost(seconds / samples, flops / samples)


def _step_seconds(config: ServeConfig, loads: Sequence[Load]) -> float:
    if config.step_seconds is not None:
        return config.step_seconds
    assert config.trainers is not None
    assert config.trainer_device is not None
    peak = find_device(config.trainer_device).peak_tflops * 1e12
    return predicted_seconds(loads, trainers=config.trainers, peak=peak, mfu=config.mfu)


def _trainers(config: ServeConfig) -> str:
    if config.trainer_device is None:
        return f"{config.trainers} trainer devices at the step time given"
    title = find_device(config.trainer_device).title
    return f"{config.trainers} trainer devices ({title}) at {config.mfu:.0%} MFU, assumed"


def _line(load: Load) -> str:
    seconds = load.samples * load.cost.seconds
    name, rate = bucket_name(load.bucket), 1 / load.cost.seconds
    return f"  {name:<14}{load.samples:>11.1f}{rate:>10.3g}{seconds:>9.3g}"
