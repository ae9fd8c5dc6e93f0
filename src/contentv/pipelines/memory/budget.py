"""The memory flags of `contentv generate`: what it will call, and in which mode that fits."""

from collections.abc import Iterable
from math import inf

from contentv.base.errors import UserError
from contentv.pipelines.batches import Batch, MemoryRequest, Plan, into_batches
from contentv.pipelines.config import GenerateConfig, PromptConfig
from contentv.pipelines.folder import read_defaults
from contentv.pipelines.jobs import plan_jobs, read_prompts
from contentv.pipelines.memory.choosing import Limits, MemoryPlan, choose, limits_within
from contentv.pipelines.memory.explaining import MemoryTable
from contentv.pipelines.memory.predicting import Call
from contentv.pipelines.memory.sizes import ModelSizes, find_sizes, read_sizes
from contentv.pipelines.sidecar import read_sidecar
from contentv.video.shapes import VideoShape

_ANY = PromptConfig(prompt="any")


def explain(config: GenerateConfig) -> MemoryTable:
    """What the videos of `config` need in each mode, and which mode `--vram` would choose.

    Loads nothing, needs neither a card nor, for built-in and published models, a download.
    """
    old = None if config.sidecar is None else read_sidecar(config.sidecar)
    name = config.model or (old.model.name if old else "tiny")
    sizes, defaults = find_sizes(name)
    if config.prompt_embeds is not None:
        sizes = sizes.without_text()
    settings = defaults.model_dump() if old is None else old.job.model_dump()
    jobs = plan_jobs(read_prompts(config) or [_ANY], config, settings)
    batches = into_batches(jobs, [None] * len(jobs), config.batch_size)
    alone = config.device == "cpu"
    itemsize = 4 if config.dtype == "float32" or (alone and config.dtype is None) else 2
    calls = calls_of(batches, sizes, defaults.text_lengths, itemsize)
    request = MemoryRequest(config.vram, config.host, config.quantization)
    limits = limits_within(config.vram, config.host, None if alone else inf)
    return MemoryTable(
        name,
        sizes,
        calls,
        limits,
        config.quantization,
        _chosen(sizes, calls, limits, request) if request.limited else "",
    )


def fit_plan(plan: Plan, *, card: float | None, host: float, itemsize: int) -> MemoryPlan:
    """The mode for what `plan` asks, on a machine with `host` GiB whose card has `card`, or None.

    Raises:
        UserError: it does not fit; or a card's memory is given where there is none.
    """
    if card is None and plan.memory.vram is not None:
        raise UserError(
            f"vram={plan.memory.vram:g}: this machine has no card; leave it out, or add "
            "--explain-memory to see what a card would need (--host is for main memory)"
        )
    sizes = read_sizes(plan.folder)
    if plan.embeds is not None:
        sizes = sizes.without_text()
    calls = calls_of(plan.batches, sizes, read_defaults(plan.folder).text_lengths, itemsize)
    memory = plan.memory
    limits = limits_within(memory.vram, memory.host or host, card)
    return choose(sizes, calls, limits, quantization=memory.quantization)


def calls_of(
    batches: Iterable[Batch], sizes: ModelSizes, text_lengths: Iterable[int], itemsize: int
) -> tuple[Call, ...]:
    """The calls that batches become, those alike once."""
    longest = max(text_lengths)
    calls = [
        Call(
            video=VideoShape(first.num_frames, first.height, first.width),
            text_tokens=sizes.clip_tokens + (first.max_sequence_length or longest),
            steps=first.num_inference_steps,
            videos=len(batch.jobs),
            itemsize=itemsize,
        )
        for batch in batches
        for first in batch.jobs[:1]
    ]
    return tuple(dict.fromkeys(calls))


def _chosen(
    sizes: ModelSizes, calls: tuple[Call, ...], limits: Limits, request: MemoryRequest
) -> MemoryPlan | str:
    """The mode, or why there is none: a table is of use then, too."""
    try:
        return choose(sizes, calls, limits, quantization=request.quantization)
    except UserError as error:
        return str(error)
